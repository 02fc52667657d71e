"""What the addon does not condense goes out as if it were not there.

The measure is a bare mitmdump, not a direct connection: the proxy itself normalises a little.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from tests.e2e.fixture_types import Connect, StartProxy

from loopback.client import Connection
from loopback.codings import encode
from loopback.http1 import Wire
from loopback.provider import HOSTS, Provider, with_windows

MESSAGES, CHAT = "/v1/messages?beta=true", "/v1/chat/completions"
ODD_HEADERS = (
    ("x-API-key", "a-key"),
    ("X-Stainless-Lang", "python"),
    ("accept", "*/*"),
    ("X-Twice", "1"),
    ("anthropic-Version", "2023-06-01"),
    ("X-Twice", "2"),
    ("User-Agent", "odd/1"),
    ("content-type", "application/json"),
)
ODD_BODY = (
    b'{ "messages" : [ {"content":"caf\\u00e9 \\/ \\ud83d\\ude00","role":"user"} ],\n'
    b'  "temperature":1E0, "max_tokens": 64, "model":"claude-sonnet-4-5"}\n'
)


def history(count: int = 60, size: int = 400) -> list[dict[str, Any]]:
    """A conversation that a small window does not hold."""
    messages: list[dict[str, Any]] = [{"role": "user", "content": "Sort the shelves, please."}]
    for number in range(count):
        call = {"type": "tool_use", "id": f"t{number}", "name": "look", "input": {"shelf": number}}
        text = " ".join(f"book-{number}-{place}" for place in range(size))
        result = {"type": "tool_result", "tool_use_id": f"t{number}", "content": text}
        messages += [
            {"role": "assistant", "content": [call]},
            {"role": "user", "content": [result]},
        ]
    return messages


def body_of(messages: list[dict[str, Any]]) -> bytes:
    """A request with these messages."""
    return json.dumps(
        {"model": "claude-sonnet-4-5", "max_tokens": 64, "messages": messages}
    ).encode()


def same(one: Wire, other: Wire) -> bool:
    """Whether two requests are equal on the wire, to the byte."""
    return one.head == other.head and one.raw_body == other.raw_body


@pytest.fixture
def both(
    provider: Provider, share_proxy: StartProxy, connect: Connect
) -> Callable[..., tuple[Wire, Wire]]:
    """A function that sends one request through a bare proxy and through one with the addon."""
    bare = share_proxy(addon=None)
    lines: dict[tuple[int, str], Connection] = {}

    def send(
        path: str, body: bytes, *options: str, extra: tuple[tuple[str, str], ...] = (), **named: Any
    ) -> tuple[Wire, Wire]:
        ours = share_proxy(*options)
        host = HOSTS[1] if path == CHAT else HOSTS[0]
        headers = (*ODD_HEADERS, ("Authorization", "Bearer a-key"), *extra)
        for proxy in (bare, ours):
            place = proxy.port, host
            line = lines.pop(place, None) or connect(proxy, host)
            if line.post(path, headers, body, **named).header("connection").lower() != "close":
                lines[place] = line
        first, second = (record.wire for record in list(provider.records)[-2:])
        return first, second

    return send


def hostile_bodies() -> Iterator[tuple[str, bytes]]:
    """Bodies that would be condensed if nothing were wrong with them."""
    body = body_of(history())
    more = b'"max_tokens"'
    assert more in body
    yield "two messages keys", body.replace(more, b'"messages": [], "max_tokens"')
    escaped = b'"m\\u0065ssages": [{"role": "user", "content": "b"}], "max_tokens"'
    yield "two messages keys, one escaped", body.replace(more, escaped)
    yield "invalid UTF-8", body.replace(b"shelves", b"shelves\xff\xfe")
    yield "invalid UTF-8 in a result", body.replace(b"book-3-7 ", b"book-\xc3 ")
    deep = b"[" * 100_000 + b"]" * 100_000
    yield "nesting of 100,000", body.replace(more, b'"x": ' + deep + b', "max_tokens"')
    yield "nesting in a message", body.replace(b'"input": {', b'"input": {"x": ' + deep + b",", 1)
    yield "NaN", body.replace(more, b'"temperature": NaN, "max_tokens"')
    yield "lone surrogates in what is edited", body.replace(b"book-", b"book\\ud83d-")
    yield "a byte order mark", b"\xef\xbb\xbf" + body
    yield "half a body", body[:-30]
    yield "something behind the body", body + b"{}"
    yield "no object", b"[" + body + b"]"
    yield "UTF-16", body.decode().encode("utf-16")
    yield "nothing", b""
    yield "text", b"messages"
    yield "messages that are no list", b'{"model":"claude-x","max_tokens":5,"messages":"hi"}'
    yield "a message that is no object", body.replace(b'"messages": [', b'"messages": [1, null, ')
    yield "a number as the model", body.replace(b'"claude-sonnet-4-5"', b"7")


@pytest.mark.parametrize("path", [MESSAGES, CHAT])
def test_a_request_below_the_thresholds(path: str, both: Callable[..., tuple[Wire, Wire]]) -> None:
    assert same(*both(path, ODD_BODY))
    for size in (1, 7, 100_000):
        assert same(*both(path, ODD_BODY, chunks=size))


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "zstd"])
def test_a_request_in_an_encoding(coding: str, both: Callable[..., tuple[Wire, Wire]]) -> None:
    encoded = encode(ODD_BODY, coding)

    assert same(*both(MESSAGES, encoded, extra=(("Content-Encoding", coding),)))


def test_bodies_that_are_not_what_they_claim(both: Callable[..., tuple[Wire, Wire]]) -> None:
    for coding in ("gzip", "br", "zstd", "deflate", "snappy", "gzip, br"):
        assert same(*both(MESSAGES, ODD_BODY, extra=(("Content-Encoding", coding),)))


def test_hostile_bodies(both: Callable[..., tuple[Wire, Wire]]) -> None:
    for name, body in hostile_bodies():
        for path in (MESSAGES, CHAT):
            assert same(*both(path, body, "context_windows=*=8000")), name


def test_lone_surrogates_elsewhere_do_not_hinder(both: Callable[..., tuple[Wire, Wire]]) -> None:
    odd = b'"metadata": {"user_id": "\\ud83d"}, "max_tokens"'
    body = body_of(history()).replace(b'"max_tokens"', odd)
    bare, ours = both(MESSAGES, body, "context_windows=*=8000")

    assert len(ours.body) < len(bare.body)
    assert odd in ours.body


def test_paths_that_are_not_ours(both: Callable[..., tuple[Wire, Wire]]) -> None:
    body = body_of(history())
    for path in ("/v1/messages/batches", "/api/event_logging/v2/batch", "/v1/embeddings"):
        assert same(*both(path, body, "context_windows=*=8000"))


@pytest.mark.parametrize("mode", ["observe", "off"])
def test_modes_that_only_look(mode: str, both: Callable[..., tuple[Wire, Wire]]) -> None:
    body = body_of(history())
    options = ("context_windows=*=8000", f"context_mode={mode}")

    assert same(*both(MESSAGES, body, *options))
    assert same(
        *both(MESSAGES, encode(body, "zstd"), *options, extra=(("Content-Encoding", "zstd"),))
    )


def test_a_body_that_is_too_large_for_us(both: Callable[..., tuple[Wire, Wire]]) -> None:
    body = body_of(history())
    options = ("context_windows=*=8000", "context_max_body=100KB")
    assert len(body) > 100 * 1024

    assert same(*both(MESSAGES, body, *options))
    assert same(
        *both(MESSAGES, encode(body, "gzip"), *options, extra=(("Content-Encoding", "gzip"),))
    )


def test_the_same_history_is_condensed_where_that_is_wanted(
    both: Callable[..., tuple[Wire, Wire]], provider: Provider
) -> None:
    # Otherwise the tests above would prove nothing.
    provider.models = with_windows({"*": 1_000_000})
    bare, ours = both(MESSAGES, body_of(history()), "context_windows=*=8000")

    assert len(ours.raw_body) < len(bare.raw_body)
