"""The specification's rule, and what a conversation is about."""

from __future__ import annotations

import pytest
from tests.condense.summaries.stories import agents, chat, model, user

from mitmcontext.condense.summaries.selection import content_type, select_optimal_strategy


@pytest.mark.parametrize(
    ("utilisation", "messages", "content", "strategy"),
    [
        pytest.param(0.79, 500, "code", None, id="nothing below the warning threshold"),
        pytest.param(0.85, 15, "general", "conversation_summary", id="the specification's example"),
        pytest.param(0.85, 15, "code", "key_point_extraction", id="key points of code"),
        pytest.param(0.85, 99, "technical", "key_point_extraction", id="key points of shop talk"),
        pytest.param(0.85, 21, "general", "progressive_summarization", id="long conversations"),
        pytest.param(0.95, 20, "general", "conversation_summary", id="up to 95 %"),
        pytest.param(0.96, 15, "general", "smart_truncation", id="no time left"),
        pytest.param(0.96, 15, "code", "smart_truncation", id="no time left for code either"),
        pytest.param(0.96, 99, "general", "smart_truncation", id="nor for a long conversation"),
    ],
)
def test_the_rule(utilisation: float, messages: int, content: str, strategy: str | None) -> None:
    assert select_optimal_strategy(utilisation, messages, content) == strategy


def test_a_lower_threshold_of_the_users_holds() -> None:
    assert select_optimal_strategy(0.5, 5, "general", warning=0.5) == "conversation_summary"


def test_what_a_conversation_is_about() -> None:
    assert content_type(agents(5)) == "code"
    assert content_type(chat(5)) == "general"
    talk = [user("Why does `load_settings` fail?"), model("Since settings.toml lacks max_retries.")]
    assert content_type(talk) == "technical"
    assert content_type([]) == "general"
