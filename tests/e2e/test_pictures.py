"""Long sessions full of screenshots: old images become lines of text, and nothing else breaks."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from mitmproxy import io as flows
from tests.e2e import forms
from tests.e2e.fixture_types import Connect, Json, StartProxy, Stats
from tests.wire.test_media import png

from loopback.provider import HOSTS, Provider, with_windows
from mitmcontext.proxy.view import explanation
from mitmcontext.wire import anthropic, openai_chat
from mitmcontext.wire.api import Api

WINDOW = 24_000
HEADERS = (("x-api-key", "k"), ("authorization", "Bearer k"), ("content-type", "application/json"))
TURNS = 40
EVERY = 8
LINE = re.compile(
    r"\[mitmcontext: an image \(PNG, (\d+)x(\d+) pixels, ([\d,]+) bytes, sha256 ([0-9a-f]{8})\)"
    r" was removed to save context\. (?:Run the call|Ask for it) again to see it\.\]"
)


@cache
def screenshot(turn: int) -> bytes:
    """Each one has a size of its own, so that it is known by it."""
    return png(1_280 + turn, 800)


def data(turn: int) -> str:
    return base64.b64encode(screenshot(turn)).decode()


def asked(turn: int) -> str:
    return f"Now page {turn}: does the total stand on the right, under the list of orders?"


def in_anthropics_form() -> Iterator[Json]:
    """An agent that takes a screenshot in each step; a person asks for more now and then."""
    messages: list[Json] = [{"role": "user", "content": "Check the layout of all pages."}]
    for turn in range(TURNS):
        if turn and turn % EVERY == 0:
            said = [{"type": "text", "text": f"Pages up to {turn} look as they should."}]
            messages += [
                {"role": "assistant", "content": [thought(turn, "end"), *said]},
                {"role": "user", "content": [{"type": "text", "text": asked(turn)}]},
            ]
        call = {"type": "tool_use", "id": f"toolu_{turn}", "name": "look", "input": {"page": turn}}
        source = {"type": "base64", "media_type": "image/png", "data": data(turn)}
        shown = [
            {"type": "text", "text": f"Screenshot of page {turn}"},
            {"type": "image", "source": source},
        ]
        result = {"type": "tool_result", "tool_use_id": f"toolu_{turn}", "content": shown}
        yield {
            "model": "claude-sonnet-4-5",
            "max_tokens": 1_100,
            "thinking": {"type": "enabled", "budget_tokens": 1_024},
            "messages": messages,
            "stream": True,
        }
        messages = [
            *messages,
            {"role": "assistant", "content": [thought(turn, "step"), call]},
            {"role": "user", "content": [result]},
        ]


def thought(turn: int, place: str) -> Json:
    said = f"Page {turn} ({place}): the total has to stand under the list. " * 8
    return {"type": "thinking", "thinking": said, "signature": f"c2ln{turn}{place}"}


def in_openais_form() -> Iterator[Json]:
    """The same where results are text alone, so that the client shows the image behind them."""
    messages: list[Json] = [{"role": "user", "content": "Check the layout of all pages."}]
    function = {"name": "look", "parameters": {"type": "object"}}
    for turn in range(TURNS):
        if turn and turn % EVERY == 0:
            said = f"Pages up to {turn} look as they should."
            messages += [
                {"role": "assistant", "content": said},
                {"role": "user", "content": asked(turn)},
            ]
        called = {"name": "look", "arguments": json.dumps({"page": turn})}
        image = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data(turn)}"}}
        yield {
            "model": "gpt-4o",
            "max_tokens": 1_000,
            "messages": messages,
            "tools": [{"type": "function", "function": function}],
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        messages = [
            *messages,
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [{"id": f"call_{turn}", "type": "function", "function": called}],
            },
            {"role": "tool", "tool_call_id": f"call_{turn}", "content": "Taken."},
            {"role": "user", "content": [{"type": "text", "text": f"Page {turn}:"}, image]},
        ]


FORMS: list[Any] = [
    pytest.param(anthropic.MESSAGES, "/v1/messages", HOSTS[0], in_anthropics_form, id="Anthropic"),
    pytest.param(openai_chat.CHAT, "/v1/chat/completions", HOSTS[1], in_openais_form, id="OpenAI"),
]


@pytest.mark.parametrize(("api", "path", "host", "tell"), FORMS)
def test_old_screenshots_become_lines(
    api: Api,
    path: str,
    host: str,
    tell: Callable[[], Iterator[Json]],
    provider: Provider,
    start_proxy: StartProxy,
    connect: Connect,
    stats: Stats,
    tmp_path: Path,
) -> None:
    provider.models = with_windows({"*": WINDOW})
    saved = tmp_path / "flows.mitm"
    proxy = start_proxy(f"context_windows=*={WINDOW}", f"save_stream_file={saved}")
    connection = connect(proxy, host)

    def post(body: bytes) -> tuple[int, bytes]:
        answer = connection.post(path, HEADERS, body)
        return answer.status, answer.body

    forms.play(api, list(tell()), post, provider, lambda: stats(proxy), WINDOW, least_steps=2)
    forms.raw_prefixes_hold(api, provider, stats(proxy)["steps"])

    if api is anthropic.MESSAGES:
        last = json.loads(provider.records[-1].wire.body)["messages"]
        began = max(at for at, one in enumerate(last) if "does the total stand" in str(one))
        called = [[one["type"] for one in m["content"]] for m in last if m["role"] == "assistant"]
        since = sum(m["role"] == "assistant" for m in last[:began])
        assert ["tool_use"] in called[:since]
        assert all("thinking" in types for types in called[since:])

    # Every line is of just the screenshot that stood there; the newest one is always shown.
    told: set[int] = set()
    for turn, record in enumerate(provider.records):
        body = record.wire.body.decode()
        for width, height, size, sha in LINE.findall(body):
            shown = screenshot(int(width) - 1_280)
            assert (int(height), int(size.replace(",", ""))) == (800, len(shown))
            assert hashlib.sha256(shown).hexdigest().startswith(sha)
            assert data(int(width) - 1_280) not in body
            told.add(int(width) - 1_280)
        assert turn == 0 or data(turn - 1) in body
    assert len(told) >= 6

    proxy.stop()
    with saved.open("rb") as kept:
        pages = [explanation(flow) for flow in flows.FlowReader(kept).stream()]
    assert any("[mitmcontext: an image (PNG, 1280x800 pixels" in page for page in pages)
