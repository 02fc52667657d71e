"""Managing a conversation from a program: the engine of the addon, without a proxy."""

from __future__ import annotations

import copy
import logging
from typing import Any

import pytest

from demo.session import Session
from mitmcontext import (
    AccurateTokenCounter,
    apply_intelligent_context_management,
    get_context_performance_stats,
)
from mitmcontext.context_window_manager import _engine

Messages = list[dict[str, Any]]


@pytest.fixture(autouse=True)
def engine() -> None:
    """A fresh one for each test."""
    _engine.cache_clear()


def talk(count: int, words: int = 100, mark: str = "") -> Messages:
    roles = ("user", "assistant")
    return [
        {"role": roles[at % 2], "content": f"{mark}{at} " + "Long message " * words}
        for at in range(count)
    ]


async def test_what_fits_comes_back_as_it_was() -> None:
    messages = [{"role": "system", "content": "Be brief."}, *talk(3)]
    before = copy.deepcopy(messages)
    result = await apply_intelligent_context_management(messages)
    assert result.messages == messages == before
    assert result.tokens_saved == 0
    assert (result.strategy_used, result.risk_level) == (None, "safe")
    assert result.processing_time > 0


@pytest.mark.parametrize(("is_vision", "window"), [(False, 200_000), (True, 65_536)])
async def test_without_a_model_there_is_a_window(is_vision: bool, window: int) -> None:
    result = await apply_intelligent_context_management(talk(3), is_vision)
    assert result.metadata["limit_tokens"] == window


async def test_a_model_has_its_own_window() -> None:
    result = await apply_intelligent_context_management(talk(3), model="gpt-4o")
    assert result.metadata["limit_tokens"] == 128_000


async def test_what_is_too_full_is_shortened_and_counts_say_so() -> None:
    messages = talk(60, 300)
    result = await apply_intelligent_context_management(messages, window=30_000)
    assert result.strategy_used == "smart_truncation"
    assert result.risk_level == "overflow"
    assert result.tokens_saved == result.original_tokens - result.final_tokens > 0
    assert result.final_tokens < 30_000 < result.original_tokens
    assert result.messages[-1] == messages[-1]
    counter = AccurateTokenCounter()
    counted = sum([await counter.count_tokens_async(message) for message in result.messages])
    assert result.final_tokens == pytest.approx(counted, rel=0.02)


async def test_what_was_shortened_once_stays_the_same() -> None:
    messages = talk(60, 300)
    first = await apply_intelligent_context_management(messages, window=30_000)
    more = [*messages, *talk(2, 10, "more ")]
    second = await apply_intelligent_context_management(more, window=30_000)
    assert second.messages[: len(first.messages) - 1] == first.messages[:-1]
    assert not second.metadata["is_new_step"]


async def test_anthropics_messages_are_managed_too() -> None:
    messages = list(Session().messages)
    result = await apply_intelligent_context_management(messages, window=20_000)
    assert result.tokens_saved > 0
    blocks = [
        block for one in result.messages for block in one["content"] if isinstance(block, dict)
    ]
    calls = {block["id"] for block in blocks if block.get("type") == "tool_use"}
    results = {block["tool_use_id"] for block in blocks if block.get("type") == "tool_result"}
    assert calls == results


@pytest.mark.parametrize(
    "messages",
    [["text"], [{"role": "user", "content": {1, 2}}]],
    ids=str,
)
async def test_what_is_no_conversation_is_refused_in_words(messages: Any) -> None:
    with pytest.raises(ValueError, match="messages"):
        await apply_intelligent_context_management(messages)


async def test_the_stats_have_every_field_and_are_true() -> None:
    nothing = get_context_performance_stats()
    assert nothing["condensation_stats"]["success_rate"] == 0
    results = [
        await apply_intelligent_context_management(talk(60, 300, f"{at} "), window=30_000)
        for at in range(3)
    ]
    stats = get_context_performance_stats()
    steps = stats["condensation_stats"]
    assert steps["success_rate"] == 1.0
    saved = [result.tokens_saved for result in results]
    assert steps["avg_tokens_saved"] == pytest.approx(sum(saved) / 3, abs=0.1)
    took = [result.processing_time for result in results]
    assert steps["avg_processing_time_ms"] == pytest.approx(sum(took) / 3, abs=0.01)
    assert stats["error_rate"] == 0.0
    assert stats["memory_usage_mb"] > 10
    assert 0 < stats["cache_size"] <= stats["cache_limit"] == 100
    for name in (
        *("condensation_engine_available", "accurate_token_counter_available"),
        "ai_condensation_enabled",
    ):
        assert stats[name] is True
    assert stats["configuration"]["warning_threshold"] == 0.8


async def test_the_same_again_is_known() -> None:
    for _ in range(20):
        await apply_intelligent_context_management(talk(3))
    assert get_context_performance_stats()["cache_hit_ratio"] == pytest.approx(0.95)


async def test_two_switches_tell_times_and_tokens_in_the_log(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO, "mitmcontext")
    await apply_intelligent_context_management(talk(3))
    assert not caplog.messages
    monkeypatch.setenv("ENABLE_CONTEXT_PERFORMANCE_LOGGING", "true")
    await apply_intelligent_context_management(talk(3))
    assert [line.startswith("mitmcontext: performance: ") for line in caplog.messages] == [True]
    monkeypatch.setenv("ENABLE_TOKEN_COUNTING_LOGGING", "yes")
    result = await apply_intelligent_context_management(talk(3))
    assert f"mitmcontext: tokens: {result.original_tokens:,} estimated" in caplog.messages[-1]
    assert "Long message" not in caplog.text
