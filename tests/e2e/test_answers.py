"""Answers come through as they arrive: the same bytes, the same pauses, in every encoding."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence

import pytest
from tests.e2e.fixture_types import Connect, StartProxy, Stats
from tests.e2e.streaming import REPLY, in_time

from demo.session import encode
from loopback.answers import Reply
from loopback.client import Connection, Response
from loopback.provider import HOSTS, Behaviour, Provider

GAP = 0.08
HEADERS = (
    ("x-api-key", "k"),
    ("authorization", "Bearer k"),
    ("accept-encoding", "gzip, br, zstd"),
    ("content-type", "application/json"),
)


def ask(connection: Connection, path: str, model: str, *, stream: bool) -> Response:
    message = {"role": "user", "content": "hi"}
    body = {"model": model, "max_tokens": 64, "messages": [message], "stream": stream}
    return connection.post(path, HEADERS, encode(body))


@pytest.mark.parametrize("coding", ["", "gzip", "br", "zstd", "deflate"])
@pytest.mark.parametrize(
    ("host", "path", "model"),
    [
        (HOSTS[0], "/v1/messages", "claude-sonnet-4-5"),
        (HOSTS[1], "/v1/chat/completions", "gpt-4o"),
    ],
    ids=["anthropic", "openai"],
)
def test_streams_keep_their_bytes_and_pauses(
    host: str,
    path: str,
    model: str,
    coding: str,
    provider: Provider,
    share_proxy: StartProxy,
    connect: Connect,
) -> None:
    provider.default = REPLY
    provider.behaviour = Behaviour(encoding=coding, gap=GAP)
    connection = connect(share_proxy(), host)
    for record, response in in_time(
        provider, GAP, lambda: ask(connection, path, model, stream=True)
    ):
        assert response.status == 200
        assert response.header("content-encoding") == coding
        assert response.body == record.answer


@pytest.mark.parametrize("split", [1, 7])
def test_streams_cut_anywhere_keep_their_bytes(
    split: int,
    provider: Provider,
    share_proxy: StartProxy,
    connect: Connect,
) -> None:
    provider.default = REPLY
    proxy = share_proxy()
    for coding in ("", "gzip", "br", "zstd"):
        provider.behaviour = Behaviour(encoding=coding, split=split)
        response = ask(connect(proxy), "/v1/messages", "claude-sonnet-4-5", stream=True)
        assert response.body == provider.records[-1].answer


@pytest.mark.parametrize("options", [(), ("stream_large_bodies=300",)], ids=["usual", "streamed"])
def test_plain_answers_keep_their_bytes_and_are_read(
    options: Sequence[str],
    provider: Provider,
    share_proxy: StartProxy,
    connect: Connect,
    stats: Stats,
) -> None:
    """Small ones are left to mitmproxy, unless it streams them itself."""
    long = Reply("word by word " * 8_000)
    proxy = share_proxy(*options)
    before = stats(proxy)["estimates"]["compared"]
    sent = 0
    for reply in (REPLY, long):
        provider.default = reply
        for behaviour in (
            Behaviour(),
            Behaviour(chunked=True),
            Behaviour(encoding="gzip"),
            Behaviour(encoding="br", chunked=True),
            Behaviour(encoding="zstd"),
        ):
            provider.behaviour = behaviour
            response = ask(connect(proxy), "/v1/messages", "claude-sonnet-4-5", stream=False)
            assert response.body == provider.records[-1].answer
            sent += 1
    assert stats(proxy)["estimates"]["compared"] == before + sent


@pytest.mark.parametrize("stream", [True, False], ids=["events", "document"])
def test_an_answer_with_trailers_arrives_whole(
    stream: bool,
    provider: Provider,
    start_proxy: StartProxy,
    connect: Connect,
    stats: Stats,
) -> None:
    """Whatever mitmproxy does then: it cannot read HTTP/1's trailers, and never ends the answer.

    By itself it holds answers back until their end, so that nothing of this one would arrive.
    """
    provider.default = REPLY
    provider.behaviour = Behaviour(chunked=True, trailer="x-served-by: the loopback")
    proxy = start_proxy()
    connection = connect(proxy)
    connection.socket.settimeout(3)
    ended = False
    with contextlib.suppress(TimeoutError):
        ended = bool(ask(connection, "/v1/messages", "claude-sonnet-4-5", stream=stream))
    assert connection.latest is not None
    assert connection.latest.status == 200
    assert connection.latest.body == provider.records[-1].answer
    assert ended or "HTTP trailers are not implemented" in proxy.said()
    connection.close()
    # What was known of it while it was under way is forgotten, and others are served.
    until = time.monotonic() + 20
    while stats(proxy)["estimates"]["compared"] == 0:
        assert time.monotonic() < until
        time.sleep(0.05)
    provider.behaviour = Behaviour()
    assert ask(connect(proxy), "/v1/messages", "claude-sonnet-4-5", stream=stream).status == 200
    assert stats(proxy)["failures"] == {}


@pytest.mark.parametrize("status", [400, 401, 422, 429, 500, 529])
def test_errors_keep_their_bytes(
    status: int,
    provider: Provider,
    share_proxy: StartProxy,
    connect: Connect,
) -> None:
    error = {"type": "error", "error": {"type": "odd_error", "message": "prompt is  too odd"}}
    provider.default = Reply(status=status, error=error)

    response = ask(connect(share_proxy()), "/v1/messages", "claude-sonnet-4-5", stream=True)

    assert response.status == status
    assert response.body == provider.records[-1].answer
