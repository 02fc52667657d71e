"""A whole session through the proxy: it fits, nothing is refused, and prefixes hold."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import pytest
from tests.e2e.fixture_types import Connect, StartProxy, Stats

from demo.session import Session, encode
from loopback import codings
from loopback.client import Connection
from loopback.codings import decode
from loopback.counting import count, model_named
from loopback.prefix import extends
from loopback.provider import HOSTS, Provider, Record, with_windows

WINDOW = 24_000
ANTHROPIC, OPENAI = "/v1/messages?beta=true", "/v1/chat/completions"
HEADERS = (("x-api-key", "k"), ("authorization", "Bearer k"), ("content-type", "application/json"))


def play(connection: Connection, path: str, bodies: Iterable[bytes], *, coding: str = "") -> None:
    extra = (("content-encoding", coding),) if coding else ()
    for body in bodies:
        sent = codings.encode(body, coding) if coding else body
        connection.post(path, (*HEADERS, *extra), sent)


def decoded(record: Record) -> bytes:
    return decode(record.wire.body, record.wire.header("content-encoding"))


def outside_messages(body: bytes) -> tuple[bytes, bytes]:
    """What stands before the messages and behind them. Our session writes both compactly."""
    start = body.index(b'"messages":[')
    end = start + len(b'"messages":') + len(_array_at(body, start + len(b'"messages":')))
    return body[:start], body[end:]


def _array_at(body: bytes, start: int) -> bytes:
    text = body.decode()
    _, end = json.JSONDecoder().raw_decode(text, len(body[:start].decode()))
    return text[len(body[:start].decode()) : end].encode()


def _judge(provider: Provider, sent: list[bytes], found: dict[str, Any]) -> None:
    records = provider.requests()
    assert [record.refusal for record in records if record.refusal] == []
    assert len(records) == len(sent)
    assert max(record.tokens for record in records) <= WINDOW
    assert found["steps"] >= 4
    assert found["requests"]["failed_open"] == 0
    assert found["requests"]["refused_after_rewrite"] == 0
    assert found["prefix_breaks_unexplained"] == 0
    assert len(provider.breaks) <= found["steps"]
    assert found["tokens"]["forwarded"] < found["tokens"]["sent"]
    assert min(found["steps_freed"]) >= 0.15 * WINDOW
    for record, body in zip(records, sent, strict=True):
        assert outside_messages(decoded(record)) == outside_messages(body)


@pytest.mark.parametrize("coding", ["", "gzip", "br", "zstd"])
def test_a_session_in_anthropics_form(
    coding: str, provider: Provider, start_proxy: StartProxy, connect: Connect, stats: Stats
) -> None:
    provider.models = with_windows({"*": WINDOW})
    proxy = start_proxy(f"context_windows=claude-*={WINDOW}")
    sent = [encode(body) for body in Session().requests()]

    play(connect(proxy), ANTHROPIC, sent, coding=coding)

    _judge(provider, sent, stats(proxy))
    assert {record.wire.header("content-encoding") for record in provider.records} == {coding}


def test_a_session_in_openais_form(
    provider: Provider, start_proxy: StartProxy, connect: Connect, stats: Stats
) -> None:
    provider.models = with_windows({"*": WINDOW})
    proxy = start_proxy(f"context_windows=gpt-4o={WINDOW}")
    sent = [encode(body) for body in Session().openai_requests()]

    play(connect(proxy, HOSTS[1]), OPENAI, sent)

    _judge(provider, sent, stats(proxy))


def test_nothing_changes_before_it_is_needed(
    provider: Provider, start_proxy: StartProxy, connect: Connect, stats: Stats
) -> None:
    model = model_named("claude-sonnet-4-5")
    bodies = list(Session().requests())
    early = [body for body in bodies if count(body, model) < 0.55 * WINDOW]
    proxy = start_proxy(f"context_windows=claude-*={WINDOW}")

    play(connect(proxy), ANTHROPIC, map(encode, early))

    assert [record.wire.body for record in provider.records] == [encode(body) for body in early]
    assert stats(proxy)["requests"]["under_threshold"] == len(early)


def test_the_same_request_twice_is_forwarded_as_the_same_bytes(
    provider: Provider, start_proxy: StartProxy, connect: Connect
) -> None:
    provider.models = with_windows({"*": WINDOW})
    connection = connect(start_proxy(f"context_windows=claude-*={WINDOW}"))
    body = encode(list(Session().requests())[40])

    play(connection, ANTHROPIC, [body, body, body])

    first, *others = [record.wire.body for record in provider.records]
    assert len(first) < len(body)
    assert others == [first, first]


def test_a_fork_and_a_rewind_keep_what_they_share(
    provider: Provider, start_proxy: StartProxy, connect: Connect, stats: Stats
) -> None:
    provider.models = with_windows({"*": WINDOW})
    proxy = start_proxy(f"context_windows=claude-*={WINDOW}")
    bodies = list(Session().requests())[:45]
    play(connect(proxy), ANTHROPIC, map(encode, bodies))
    last = provider.records[-1].body

    # The person goes two requests back and asks for something else.
    fork = json.loads(encode(bodies[-3]))
    fork["messages"][-1]["content"].append({"type": "text", "text": "No, leave that as it was."})
    play(connect(proxy), ANTHROPIC, [encode(fork)])

    forked = provider.records[-1].body
    shared = {"messages": last["messages"][: len(forked["messages"]) - 2]}
    assert extends(shared, forked)
    assert stats(proxy)["prefix_breaks_unexplained"] == 0
    assert provider.refused == []


def test_two_accounts_share_nothing(
    provider: Provider, start_proxy: StartProxy, connect: Connect
) -> None:
    provider.models = with_windows({"*": 1_000_000})
    connection = connect(start_proxy(f"context_windows=claude-*={WINDOW}"))
    bodies = [encode(body) for body in Session().requests()]
    play(connection, ANTHROPIC, bodies[38:40])
    small = bodies[5]

    for key in ("k", "another"):
        connection.post(ANTHROPIC, (("x-api-key", key),), small)

    assert provider.records[-1].wire.body == small
