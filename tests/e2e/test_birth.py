"""`reduce_at_birth` through a real proxy: each result goes out in one form, on every turn."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from tests import noisy
from tests.e2e.fixture_types import Connect, StartProxy, Stats
from tests.e2e.judging import AMPLE, OPTION, PATH, WINDOW, Line, with_key

from demo.session import Session, encode
from loopback.answers import Reply
from loopback.provider import HOSTS, Provider, with_windows

ON = "reduce_at_birth=true"
LARGE = "context_windows=claude-*=1000000"


@cache
def bodies() -> tuple[bytes, ...]:
    """The made-up session with noisy results in it, turn by turn."""
    return tuple(encode(body) for body in noisy.requests())


def smaller(line: Line) -> list[bool]:
    return [len(one.went) < len(one.body) for one in line.sent]


def test_what_is_new_is_reduced_and_nothing_that_was_sent_changes(
    provider: Provider, start_proxy: StartProxy, connect: Connect, stats: Stats
) -> None:
    provider.models = with_windows({"*": 1_000_000})
    proxy, line = start_proxy(LARGE, ON), Line(provider, "k")
    connection = connect(proxy)
    for body in bodies():
        line.send(connection, body)
    assert provider.refused == []
    assert line.breaks() == []
    # From the first large result on, and not before.
    assert smaller(line) == sorted(smaller(line))
    assert 0 < sum(smaller(line)) < len(line.sent)
    found = stats(proxy)
    assert found["prefix_breaks_unexplained"] == 0
    assert found["steps"] == 0
    assert found["requests"]["failed_open"] == 0
    assert found["reduced_at_birth"]["results"] >= 5
    assert found["tokens"]["saved"] > found["reduced_at_birth"]["tokens"] > 5_000
    assert found["money"]["saved"] > 0


def test_steps_go_on_from_what_was_reduced(
    provider: Provider, start_proxy: StartProxy, connect: Connect, stats: Stats
) -> None:
    provider.models = with_windows({"*": WINDOW})
    proxy, line = start_proxy(OPTION, ON), Line(provider, "k")
    connection = connect(proxy)
    for body in bodies():
        line.send(connection, body)
    found = stats(proxy)
    assert provider.refused == []
    assert found["steps"] >= 2
    assert found["prefix_breaks_unexplained"] == 0
    assert len(line.breaks()) <= found["steps"]
    assert found["requests"]["failed_open"] == 0


def test_restarts_switch_it_on_and_off_in_the_middle(
    provider: Provider, start_proxy: StartProxy, connect: Connect, stats: Stats, tmp_path: Path
) -> None:
    provider.models = with_windows({"*": 1_000_000})
    kept, line = {"CONTEXT_CACHE_DIR": str(tmp_path / "kept")}, Line(provider, "k")
    for options, turns in (
        ((LARGE,), range(40)),
        ((LARGE, ON), range(40, 60)),
        ((LARGE, ON), range(60, 70)),
        ((LARGE,), range(70, 85)),
    ):
        proxy = start_proxy(*options, environment=kept)
        connection = connect(proxy)
        for turn in turns:
            line.send(connection, bodies()[turn])
        assert stats(proxy)["prefix_breaks_unexplained"] == 0
        os.kill(proxy.pid, signal.SIGKILL)
        proxy.process.wait(10)
    assert line.breaks() == []
    # What was sent before it was switched on stays as it was.
    assert smaller(line)[:40] == [False] * 40
    assert smaller(line)[-15:] == [True] * 15


def test_two_proxies_send_what_one_would(
    provider: Provider,
    start_proxy: StartProxy,
    connect: Connect,
    stats: Stats,
    shared: Mapping[str, str],
) -> None:
    provider.models = with_windows({"*": 1_000_000})
    pair = [start_proxy(LARGE, ON, addon=AMPLE, environment=shared) for _ in range(2)]
    connections = [connect(proxy) for proxy in pair]
    line = Line(provider, "moves-about")
    for turn, body in enumerate(bodies()[:70]):
        line.send(connections[turn % 2], body)
    assert line.breaks() == []
    assert smaller(line) == sorted(smaller(line))
    assert smaller(line)[-1]
    assert [stats(proxy)["prefix_breaks_unexplained"] for proxy in pair] == [0, 0]


def test_observing_changes_nothing(
    provider: Provider, start_proxy: StartProxy, connect: Connect, stats: Stats
) -> None:
    provider.models = with_windows({"*": 1_000_000})
    proxy, line = start_proxy(LARGE, ON, "context_mode=observe"), Line(provider, "k")
    connection = connect(proxy)
    for body in bodies()[:60]:
        assert not line.send(connection, body).changed
    found = stats(proxy)
    assert found["tokens"]["would_save"] > 0
    assert found["reduced_at_birth"]["results"] > 0


def test_a_session_without_large_results_goes_out_as_it_came(
    provider: Provider, start_proxy: StartProxy, connect: Connect, stats: Stats
) -> None:
    provider.models = with_windows({"*": 1_000_000})
    proxy, line = start_proxy(LARGE, ON), Line(provider, "k")
    connection = connect(proxy)
    for body in [encode(body) for body in Session().requests()][:60]:
        assert not line.send(connection, body).changed
    assert stats(proxy)["stores"]["frozen edits, in memory"]["entries"] == 0


def test_what_the_provider_refuses_goes_out_as_it_came_and_so_does_the_rest(
    provider: Provider, start_proxy: StartProxy, connect: Connect, stats: Stats
) -> None:
    provider.models = with_windows({"*": 1_000_000})
    proxy = start_proxy(LARGE, ON)
    # Our own connection takes the name's address but not the port that the redirection gives.
    connection = connect(proxy, port=provider.tls_port)
    said = "messages.7: `tool_use` ids were found without `tool_result` blocks immediately after"
    error = {"type": "error", "error": {"type": "invalid_request_error", "message": said}}
    first = _first(provider, connect(proxy, port=provider.tls_port), error)
    answer = connection.post(PATH, with_key("refused"), first)
    assert answer.status == 200
    reduced, original = [record.wire.body for record in provider.records][-2:]
    assert len(reduced) < len(first)
    assert original == first
    more = bodies()[bodies().index(first) + 1 :][:25]
    for body in more:
        connection.post(PATH, with_key("refused"), body)
    assert [record.wire.body for record in provider.records][-len(more) :] == list(more)
    found = stats(proxy)
    assert found["requests"]["refused_after_rewrite"] == 1
    assert found["prefix_breaks_unexplained"] == 0


def _first(provider: Provider, connection: Any, error: dict[str, Any]) -> bytes:
    """Play until the next request is the first that is reduced; it will be refused."""
    line = Line(provider, "finds-out")
    for body in bodies():
        if line.send(connection, body).changed:
            break
    for before in bodies()[: bodies().index(body)]:
        connection.post(PATH, with_key("refused"), before)
    provider.replies.append(Reply(status=400, error=error))
    return body


def test_openai_chat_is_reduced_as_well(
    provider: Provider, start_proxy: StartProxy, connect: Connect, stats: Stats
) -> None:
    provider.models = with_windows({"*": 1_000_000})
    proxy = start_proxy("context_windows=*=1000000", ON)
    connection = connect(proxy, HOSTS[1])
    messages: list[dict[str, Any]] = [{"role": "user", "content": "Look at the log."}]
    went: list[dict[str, Any]] = []
    for turn in range(4):
        function = {"name": "service_log", "arguments": json.dumps({"page": turn})}
        call = {"id": f"call_{turn}", "type": "function", "function": function}
        messages.append({"role": "assistant", "content": None, "tool_calls": [call]})
        log = "\n".join(f"{turn}.{n:03} crane_{n % 31}.state is idle" for n in range(500))
        messages.append({"role": "tool", "tool_call_id": f"call_{turn}", "content": log})
        body = encode({"model": "gpt-4o", "messages": messages})
        headers = (("authorization", "Bearer k"), ("content-type", "application/json"))
        assert connection.post("/v1/chat/completions", headers, body).status == 200
        went.append(provider.records[-1].body)
        assert len(went[-1]["messages"][-1]["content"]) < len(log) // 2
        if turn:
            assert went[-1]["messages"][: len(went[-2]["messages"])] == went[-2]["messages"]
    assert stats(proxy)["reduced_at_birth"]["results"] == 4
