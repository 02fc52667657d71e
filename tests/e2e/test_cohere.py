"""Cohere through the whole proxy."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from tests.e2e import forms
from tests.e2e.fixture_types import Connect, Json, StartProxy, Stats
from tests.e2e.forms import STORIES, Story

from demo.session import encode
from loopback.answers import Call, Reply
from loopback.provider import Behaviour, Provider, with_windows
from mitmcontext.wire.cohere import CHAT

WINDOW = 24_000
HOST, PATH = "api.cohere.com", "/v2/chat"
HEADERS = (("authorization", "Bearer k"), ("content-type", "application/json"))


def told(story: Story) -> Iterator[Json]:
    """The requests of a story as a Cohere client sends them."""
    for number, messages in enumerate(story.turns()):
        head = [{"role": "system", "content": story.system}] if story.system else []
        body: Json = {
            "stream": number % 4 != 0,
            "model": "command-a-03-2025",
            "messages": [*head, *in_form(messages)],
            "tools": forms.functions(),
            "max_tokens": 2_000,
        }
        yield body


def in_form(messages: Sequence[Json]) -> Iterator[Json]:
    """Anthropic's messages in Cohere's form: plans beside calls, results as documents."""
    for number, message in enumerate(messages):
        said = forms.text_of(message)
        for result in forms.of_kind(message, "tool_result"):
            text = forms.result_text(result) or "done"
            data: Any = [text, {"output": text}, {"text": text}][number % 3]
            document = {"type": "document", "document": {"data": data}}
            id_ = result["tool_use_id"]
            yield {"role": "tool", "tool_call_id": id_, "content": [document]}
        if message["role"] == "user":
            if said:
                yield {"role": "user", "content": said}
            continue
        calls = [
            {
                "id": call["id"],
                "type": "function",
                "function": {"name": call["name"], "arguments": json.dumps(call["input"])},
            }
            for call in forms.of_kind(message, "tool_use")
        ]
        if calls:
            yield {"role": "assistant", "tool_plan": said or "I look.", "tool_calls": calls}
        else:
            thought = [
                {"type": "thinking", "thinking": block["thinking"]}
                for block in forms.of_kind(message, "thinking")
            ]
            content = [*thought, {"type": "text", "text": said or "Done."}]
            yield {"role": "assistant", "content": content}


@pytest.mark.parametrize("tell", STORIES)
def test_a_long_chat(
    tell: Callable[[], Story],
    provider: Provider,
    start_proxy: StartProxy,
    connect: Connect,
    stats: Stats,
) -> None:
    provider.models = with_windows({"*": WINDOW})
    proxy = start_proxy(f"context_windows=command-*={WINDOW}")
    bodies = list(told(tell()))

    post = forms.poster(connect(proxy, HOST), HEADERS, PATH)
    forms.play(CHAT, bodies, post, provider, lambda: stats(proxy), WINDOW, least_steps=2)

    forms.raw_prefixes_hold(CHAT, provider, stats(proxy)["steps"])


def test_streams_keep_their_bytes(
    provider: Provider, start_proxy: StartProxy, connect: Connect
) -> None:
    connection = connect(start_proxy(), HOST)
    message = {"role": "user", "content": "hi"}
    body = {"model": "command-r7b-12-2024", "messages": [message], "stream": True}
    for calls in ((), (Call("look", {"at": "it"}),)):
        provider.default = Reply("word by word", calls, thinking="let me see", pieces=4)
        for split in (0, 1, 7):
            provider.behaviour = Behaviour(split=split, gap=0.01)
            answer = connection.post(PATH, HEADERS, encode(body))
            assert answer.status == 200
            assert answer.body == provider.records[-1].answer
            assert len(answer.arrived) > 4
