"""The provider on the wire, without any proxy between."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from loopback.answers import Call, Reply
from loopback.caching import PromptCache
from loopback.client import NO_TLS
from loopback.codings import CODINGS, decode, encode, encoder
from loopback.counting import Model, count
from loopback.provider import Behaviour, Provider, serving

MARK = {"type": "ephemeral"}
MODEL = Model("*", 1.0, 100_000)


@pytest.fixture
def provider() -> Iterator[Provider]:
    with serving(Provider()) as running:
        yield running


def ask(provider: Provider, body: Any, **named: Any) -> httpx.Response:
    path = named.pop("path", "/v1/messages")
    headers = {"x-api-key": "k", **named.pop("headers", {})}
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    url = f"http://127.0.0.1:{provider.plain_port}{path}"
    return httpx.post(url, content=content, headers=headers, verify=NO_TLS, trust_env=False)


def request(**others: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": "hi"}]
    return {"model": "claude-sonnet-4-5", "max_tokens": 64, "messages": messages, **others}


def test_a_record_holds_the_very_bytes(provider: Provider) -> None:
    body = b'{ "model":"claude-x",\n "max_tokens":1E1, "messages":[] }'

    ask(provider, body, headers={"X-OdD": "1"})

    wire = provider.records[0].wire
    assert wire.raw_body == body
    assert (b"X-OdD", b"1") in wire.headers
    assert wire.head.startswith(b"POST /v1/messages HTTP/1.1\r\n")


@pytest.mark.parametrize("coding", CODINGS)
def test_encoded_requests_are_read(coding: str, provider: Provider) -> None:
    body = encode(json.dumps(request()).encode(), coding)

    assert ask(provider, body, headers={"content-encoding": coding}).status_code == 200
    assert provider.records[0].wire.raw_body == body


@pytest.mark.parametrize("coding", CODINGS)
def test_what_is_encoded_piece_by_piece_can_be_read_piece_by_piece(coding: str) -> None:
    step, end = encoder(coding)
    pieces = [step(b"one "), step(b"two "), end()]

    assert all(pieces)
    assert decode(b"".join(pieces), coding) == b"one two "


@pytest.mark.parametrize("stream", [False, True])
def test_replies_come_in_their_order(stream: bool, provider: Provider) -> None:
    provider.behaviour = Behaviour(encoding="gzip", split=11)
    provider.replies.append(Reply("first", (Call("look", {"at": 1}),), thinking="hm"))

    first = ask(provider, request(stream=stream)).text
    second = ask(provider, request(stream=stream)).text

    assert "look" in first
    assert "thinking" in first
    assert "look" not in second


def test_nobody_is_served_without_a_key(provider: Provider) -> None:
    assert ask(provider, request(), headers={"x-api-key": ""}).status_code == 401


def test_hostile_bodies_are_refused_and_end_nothing(provider: Provider) -> None:
    for body in (b"", b"[" * 100_000, b'{"a":NaN}', b"\xff", b"null", b"[]"):
        assert ask(provider, body).status_code == 400
        assert ask(provider, body, path="/v1/chat/completions").status_code == 400
    assert ask(provider, request()).status_code == 200


def test_usage_tells_read_from_written_tokens() -> None:
    cache = PromptCache()
    first = request(system=[{"type": "text", "text": "be brief " * 20, "cache_control": MARK}])
    first["messages"][0]["content"] = [{"type": "text", "text": "hi", "cache_control": MARK}]
    later = json.loads(json.dumps(first))
    del later["messages"][0]["content"][0]["cache_control"]
    later["messages"] += [
        {"role": "assistant", "content": "yes?"},
        {"role": "user", "content": [{"type": "text", "text": "more", "cache_control": MARK}]},
    ]

    assert cache.anthropic(first, MODEL) == (0, 0, count(first, MODEL))
    fresh, read, written = cache.anthropic(later, MODEL)
    assert (fresh, read) == (0, count(first, MODEL))
    assert read + written == count(later, MODEL)


def test_without_markers_nothing_is_kept() -> None:
    cache = PromptCache()

    assert cache.anthropic(request(), MODEL)[1:] == (0, 0)
    assert cache.anthropic(request(), MODEL)[1:] == (0, 0)


def test_a_prefix_that_changes_is_noted(provider: Provider) -> None:
    more = [{"role": "assistant", "content": "a"}, {"role": "user", "content": "b"}]
    ask(provider, request())
    ask(provider, request(messages=[*request()["messages"], *more]))
    ask(provider, request(messages=[{"role": "user", "content": "other"}, *more]))

    assert [record.broke for record in provider.records] == [None, None, 0]
    assert provider.breaks == [3]


def test_many_at_once(provider: Provider) -> None:
    codes: list[int] = []
    callers = [
        threading.Thread(target=lambda: codes.append(ask(provider, request()).status_code))
        for _ in range(20)
    ]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()

    assert codes == [200] * 20
