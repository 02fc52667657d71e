"""The proxy under load: requests a second, the time of a start, and memory.

Each figure is taken from a proxy with the addon and from a bare one, in turns.
"""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import median

from bench_talk import HEADERS, Bench, Fresh, Growing, stats, wait_until_idle
from lib.progress import Progress
from loopback import child
from loopback.client import Connection
from loopback.provider import HOSTS

_ROUNDS = 4
# An hour of twelve agents, each of which sends a request every forty seconds.
_AGENTS, _TURNS = 12, 90
_AGENTS_SIZES = (60_000, 250_000, 600_000)
# Where nothing is condensed nothing is kept of it: a window that is too small for the larger ones.
_WINDOW = 120_000
_VOCABULARY = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import tiktoken
from mitmcontext.tokens import vocabulary
size = lambda: int(Path("/proc/self/statm").read_text().split()[1]) * 4096
before = size()
kept = vocabulary.load("o200k_base", "tiktoken")
print((size() - before) >> 20)
"""


@dataclass(frozen=True, slots=True)
class Load:
    """Requests a second, and milliseconds of CPU per request, of both proxies.

    `unread` is the share of the requests that were passed on unread, for there was too much to do.
    """

    what: str
    concurrency: int
    requests: int
    bare: float
    ours: float
    bare_cpu: float
    ours_cpu: float
    unread: float


@dataclass(frozen=True, slots=True)
class Start:
    """Seconds from the start of the process until it listens, each the median of some."""

    bare: float
    ours: float


@dataclass(frozen=True, slots=True)
class Memory:
    """Megabytes of resident memory at some moment; `vocabulary` is what counting takes of ours."""

    when: str
    bare: int
    ours: int
    vocabulary: int


@dataclass(frozen=True, slots=True)
class Kind:
    """What clients send: conversations of so many bytes, without a size something for no LLM.

    Where they are `fresh` each request is a prompt that nobody sent before. The provider takes
    `after` milliseconds for each answer; at 0 the proxy alone sets the pace.
    """

    size: int
    requests: int
    after: int = 0
    fresh: bool = False

    @property
    def what(self) -> str:
        """In words."""
        if not self.size:
            return "for no LLM"
        each = f"{self.size // 1_000:,} KB, " + ("always new" if self.fresh else "nothing to do")
        return each + (f", {self.after} ms" if self.after else "")


class _Client:
    """One connection, by which requests of one kind are sent."""

    def __init__(self, proxy: child.Child, number: int, kind: Kind) -> None:
        self._line = Connection(proxy.port, proxy.authority, HOSTS[0])
        talk = Fresh if kind.fresh else Growing
        self._talk = talk(kind.size, number) if kind.size else None
        after = (("x-answer-after", str(kind.after)),) if kind.after else ()
        self._headers = (*HEADERS, *after)

    def bodies(self, count: int) -> list[bytes]:
        """The next requests."""
        return [self._talk.grow() if self._talk else b'{"event":1}' for _ in range(count)]

    def send(self, bodies: Sequence[bytes]) -> None:
        """One after the other.

        Raises:
            RuntimeError: one was refused.
        """
        path = "/v1/messages" if self._talk else "/v1/telemetry"
        for body in bodies:
            if self._line.post(path, self._headers, body).status != 200:
                raise RuntimeError("a request was refused")


def throughput(bench: Bench, concurrency: int, kind: Kind) -> Load:
    """A closed loop of so many clients, none of whose requests needs anything."""
    bare = bench.start(addon=None)
    ours = bench.start("context_windows=*=100000000", addon=child.ADDON)
    each = max(1, kind.requests // concurrency // _ROUNDS)
    rates: tuple[list[float], list[float]] = [], []
    used = [0.0, 0.0]
    try:
        sides = [
            [_Client(one, number + 1, kind) for number in range(concurrency)]
            for one in (bare, ours)
        ]
        for clients in sides:
            _flood(clients, 2)
        wait_until_idle(bare, ours)
        for _ in range(_ROUNDS):
            for side, proxy in enumerate((bare, ours)):
                used[side] -= proxy.cpu_seconds()
                rates[side].append(each * concurrency / _flood(sides[side], each))
                used[side] += proxy.cpu_seconds()
        # For nothing else are any of these left alone.
        unread = sum(stats(ours)["left_alone"].values())
    finally:
        bare.stop()
        ours.stop()
    sent = _ROUNDS * each * concurrency
    cpu = [1_000 * seconds / sent for seconds in used]
    return Load(
        what=kind.what,
        concurrency=concurrency,
        requests=sent,
        bare=median(rates[0]),
        ours=median(rates[1]),
        bare_cpu=cpu[0],
        ours_cpu=cpu[1],
        unread=unread / (sent + 2 * concurrency),
    )


def _flood(clients: Sequence[_Client], each: int) -> float:
    """The seconds that all clients together take for so many requests each."""
    prepared = [client.bodies(each) for client in clients]
    failed: list[Exception] = []

    def run(client: _Client, bodies: Sequence[bytes]) -> None:
        try:
            client.send(bodies)
        except Exception as error:  # noqa: BLE001 - raised where it is waited for
            failed.append(error)

    threads = [
        threading.Thread(target=run, args=one) for one in zip(clients, prepared, strict=True)
    ]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.perf_counter() - began
    if failed:
        raise failed[0]
    return seconds


def start_up(bench: Bench, times: int) -> Start:
    """Start both some times, in turns."""
    found: tuple[list[float], list[float]] = [], []
    progress = Progress("start", times, 1)
    for number in range(times):
        for seconds, addon in zip(found, (None, child.ADDON), strict=True):
            began = time.perf_counter()
            proxy = bench.start(addon=addon)
            seconds.append(time.perf_counter() - began)
            proxy.stop()
        progress(number + 1)
    return Start(median(found[0]), median(found[1]))


def memory(bench: Bench, *, hour: bool) -> Iterator[Memory]:
    """Idle, with sixteen clients at once, and after what an hour brings, as fast as it goes.

    In that hour twelve agents work, the larger conversations of which have to be condensed.
    """
    words = vocabulary_megabytes()
    bare = bench.start(addon=None)
    ours = bench.start(f"context_windows=*={_WINDOW}", addon=child.ADDON)

    def now(when: str) -> Memory:
        return Memory(when, bare.memory_bytes() >> 20, ours.memory_bytes() >> 20, words)

    try:
        wait_until_idle(bare, ours)
        yield now("idle")
        for proxy in (bare, ours):
            _flood([_Client(proxy, number + 1, Kind(250_000, 0)) for number in range(16)], 8)
        yield now("after 16 clients at once")
        if not hour:
            return
        progress = Progress("an hour", 2 * _TURNS, 5)
        for side, proxy in enumerate((bare, ours)):
            sizes = [_AGENTS_SIZES[number % len(_AGENTS_SIZES)] for number in range(_AGENTS)]
            agents = [_Client(proxy, 20 + at, Kind(size, 0)) for at, size in enumerate(sizes)]
            for turn in range(_TURNS):
                for agent in agents:
                    agent.send(agent.bodies(1))
                progress(side * _TURNS + turn + 1)
        yield now(f"after an hour's {_AGENTS * _TURNS:,} requests")
    finally:
        bare.stop()
        ours.stop()


def vocabulary_megabytes() -> int:
    """What the vocabulary takes of a process's memory."""
    command = [sys.executable, "-c", _VOCABULARY, str(child.ADDON.parent)]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
