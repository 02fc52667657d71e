"""Requests on the side are known by the first words of their prompts, and by nothing else."""

from __future__ import annotations

import json
from typing import Any

import pytest

from mitmcontext.values import Standing
from mitmcontext.wire.anthropic import MESSAGES
from mitmcontext.wire.openai_chat import CHAT

TITLE = "You are a title generator. You output ONLY a thread title."
SUMMARY = "You are a context summarization agent. Be brief."
COMPACT = "CRITICAL: Respond with TEXT ONLY. Do NOT call any tools.\n\nSay what happened."
ASK = {"role": "user", "content": "What is in this folder?"}


def anthropic(system: Any, *messages: Any) -> Standing:
    body = {"model": "m", "system": system, "messages": list(messages or (ASK,))}
    return MESSAGES.standing("/v1/messages", {}, MESSAGES.read(json.dumps(body).encode()))[0]


def chat(*messages: Any) -> Standing:
    request = CHAT.read(json.dumps({"model": "m", "messages": list(messages)}).encode())
    return CHAT.standing("/v1/chat/completions", {}, request)[0]


def blocks(text: str) -> list[dict[str, str]]:
    return [{"type": "text", "text": text}]


@pytest.mark.parametrize(
    ("system", "standing"),
    [
        (TITLE, Standing.ALONE),
        (blocks(TITLE), Standing.ALONE),
        (SUMMARY, Standing.NO_TURN),
        ("You are a helpful agent.", Standing.TURN),
        (f'The prompt "{TITLE}" is used for titles.', Standing.TURN),
        (f"Say: {TITLE}", Standing.TURN),
    ],
)
def test_a_system_prompt_says_what_a_request_is(system: Any, standing: Standing) -> None:
    assert anthropic(system) is standing
    assert chat({"role": "system", "content": system}, ASK) is standing
    assert chat({"role": "developer", "content": system}, ASK) is standing


def test_what_a_user_says_is_no_system_prompt() -> None:
    assert chat({"role": "user", "content": TITLE}) is Standing.TURN
    assert anthropic("Be kind.", {"role": "user", "content": TITLE}) is Standing.TURN


@pytest.mark.parametrize("content", [COMPACT, blocks(COMPACT)], ids=["text", "blocks"])
def test_a_compaction_is_known_by_the_last_words_of_the_user(content: Any) -> None:
    said = {"role": "assistant", "content": "Files."}
    ask = {"role": "user", "content": content}
    assert anthropic("Be kind.", ASK, said, ask) is Standing.NO_TURN
    assert anthropic("Be kind.", ask, said, ASK) is Standing.TURN
