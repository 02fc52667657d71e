"""A conversation that moves between two proxies with one Redis goes out as through a single one."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
from tests.e2e.fixture_types import Connect, StartProxy, Stats
from tests.e2e.judging import AMPLE, OPTION, PATH, WINDOW, Line, bodies, looking_into, with_key

import replay
from loopback.counting import count, model_named
from loopback.provider import HOSTS, Provider, with_windows
from loopback.redis_server import RealRedis
from loopback.summariser import Summariser, fair

RECORDED_WINDOW = 32_000
PLACE = int(os.environ.get("MITMCONTEXT_RECORDED", "4"))
"""Which of the recorded conversations, the longest first."""

_DIES, _RETURNS, _AGREED = 40, 55, 66
"""The turns at which Redis is killed and started again, and from which on all is as before."""


def recorded() -> list[bytes]:
    """A long recorded conversation."""
    file = replay.DATA / "claude_code_sessions.jsonl.gz"
    if not file.is_file():
        pytest.skip("the recorded conversations are not on this machine")
    conversation = replay.longest(replay.DATA, ["claude_code_sessions"], PLACE + 1)[PLACE]
    return [turn.body() for turn in replay.turns(conversation)]


def differing(one: Line, other: Line) -> list[int]:
    """The turns at which the provider received other bytes."""
    pairs = zip(one.sent, other.sent, strict=True)
    return [turn for turn, (here, there) in enumerate(pairs) if here.went != there.went]


@contextmanager
def handing_over(client: Any) -> Iterator[None]:
    """Wait until what one proxy learned from an answer is there for the other one to read.

    It is written once the answer is through. Whoever has a tool to run before the next request
    takes longer than that; here it is waited for, on a busy machine for a second and more, until
    nothing was written for a moment.
    """

    def written() -> int:
        return int(client.info("commandstats").get("cmdstat_set", {}).get("calls", 0))

    before = last = written()
    yield
    since = time.monotonic()
    until = since + 1.5
    while (now := time.monotonic()) < until and (last == before or now < since + 0.02):
        if (calls := written()) != last:
            last, since = calls, now
        time.sleep(0.002)


@pytest.mark.parametrize("talk", ["made-up", "recorded"])
def test_two_proxies_forward_what_one_would(
    talk: str,
    provider: Provider,
    start_proxy: StartProxy,
    connect: Connect,
    stats: Stats,
    redis: RealRedis,
    shared: Mapping[str, str],
) -> None:
    sent: Sequence[bytes] = bodies() if talk == "made-up" else recorded()
    window = WINDOW if talk == "made-up" else RECORDED_WINDOW
    provider.models = with_windows({"*": window})
    option = f"context_windows=*={window}"
    alone = start_proxy(option, addon=AMPLE)
    pair = [start_proxy(option, addon=AMPLE, environment=shared) for _ in range(2)]
    straight = Line(provider, "goes-straight")
    moving = Line(provider, "moves-about")

    connection = connect(alone)
    for body in sent:
        straight.send(connection, body)
    connections = [connect(proxy) for proxy in pair]
    with looking_into(redis) as client:
        for turn, body in enumerate(sent):
            with handing_over(client):
                moving.send(connections[turn % 2], body)

    single, found = stats(alone), [stats(proxy) for proxy in pair]
    assert [one["stores"]["frozen edits, kept"]["faults"] for one in found] == [{}, {}]
    assert differing(straight, moving) == []
    steps = sum(one["steps"] for one in found)
    assert steps == single["steps"] >= 3
    assert min(one["requests"]["reapplied"] for one in found) >= len(sent) // 8
    assert [one["prefix_breaks_unexplained"] for one in (single, *found)] == [0, 0, 0]
    assert [one["requests"]["failed_open"] for one in (single, *found)] == [0, 0, 0]
    assert len(moving.breaks()) == steps
    assert moving.complaints() == []


def test_a_redis_that_dies_and_comes_back_stops_nobody(
    provider: Provider,
    start_proxy: StartProxy,
    connect: Connect,
    stats: Stats,
    redis: RealRedis,
    shared: Mapping[str, str],
) -> None:
    provider.models = with_windows({"*": WINDOW})
    pair = [start_proxy(OPTION, addon=AMPLE, environment=shared) for _ in range(2)]
    connections = [connect(proxy) for proxy in pair]
    line = Line(provider, "moves-about")

    def steps() -> int:
        return sum(stats(proxy)["steps"] for proxy in pair)

    for turn, body in enumerate(bodies()[:84]):
        if turn == _DIES:
            redis.stop()
        if turn == _RETURNS:
            redis.start()
            # For some seconds nobody asks a server that was away.
            time.sleep(5.5)
        if turn == _AGREED:
            before = steps()
            assert line.breaks()
        line.send(connections[turn % 2], body)

    assert [stats(proxy)["requests"]["failed_open"] for proxy in pair] == [0, 0]
    assert line.complaints() == []
    # While they could not speak, each took steps of its own. It ended with the first that it told.
    late = [turn for turn in line.breaks() if turn >= _AGREED]
    assert len(late) == steps() - before >= 2


def test_one_of_two_proxies_asks_and_both_use_the_answer(
    provider: Provider,
    start_proxy: StartProxy,
    connect: Connect,
    stats: Stats,
    shared: Mapping[str, str],
) -> None:
    provider.summariser = Summariser(fair)
    asking = {**shared, "CONDENSATION_DEFAULT_STRATEGY": "auto"}
    options = (
        OPTION,
        "condensation_max_cost=1",
        "condensation_wait=warning",
        "condensation_caution_threshold=0.799",
        "condensation_max_messages=1000",
        # Each proxy knows what the conversation has cost by itself, which has to be enough.
        "condensation_model=claude-haiku-4-5",
    )
    proxies = [start_proxy(*options, addon=AMPLE, environment=asking) for _ in range(2)]
    lines = [connect(proxy, HOSTS[0], provider.tls_port) for proxy in proxies]
    headers, sent = with_key("k"), bodies()
    first = next(at for at, body in enumerate(sent) if _weight(body, provider) > 0.82 * WINDOW)
    for body in sent[:first]:
        # Both have heard of the conversation, so that both know what it has cost.
        for line in lines:
            line.post(PATH, headers, body)
    assert not provider.questions
    provider.summariser.delay = 1.0
    answers: list[int] = []

    def one(line: Any) -> None:
        answers.append(line.post(PATH, headers, sent[first]).status)

    clients = [threading.Thread(target=one, args=(line,)) for line in lines]
    for client in clients:
        client.start()
    for client in clients:
        client.join(60)
    assert answers == [200, 200]
    assert len(provider.questions) == 1
    went = {record.wire.body for record in list(provider.records)[-2:]}
    assert len(went) == 1
    assert b"a model's summary stands here for" in went.pop()


def _weight(body: bytes, provider: Provider) -> int:
    read = json.loads(body)
    return count(read, model_named(read["model"], provider.models))
