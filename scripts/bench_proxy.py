"""What the addon costs: mitmdump with it against a bare one, in the same run.

CPU is user and system time of the process, all threads, by the kernel's clock of it; the wall clock
is that of the client. Both proxies get the same requests in turns, so that a busy machine troubles
both alike. A warm request extends a conversation by a turn, as an agent's do; a cold one is the
first of a conversation. Behind the CPU stand throughput, the time of a start, and memory, and what
other proxies take for the same work where they are installed.

    ./scripts/bench proxy --quick
    ./scripts/bench proxy --sizes 100K 1M --only cost
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import repeat
from pathlib import Path
from statistics import median
from typing import Any

import bench_load
import bench_peers
from bench_load import Kind, Load, Memory, Start
from bench_peers import Peer
from bench_talk import HEADERS, Bench, Growing, Json, stats, wait_until_idle
from lib import proc
from lib.progress import Progress
from loopback import certificates, child
from loopback.client import Connection
from loopback.echo import answering
from loopback.provider import HOSTS, Provider, serving, with_windows

_SIZES = (10_000, 100_000, 1_000_000, 5_000_000)
_QUICK_SIZES = (100_000, 1_000_000)
# By the largest size that they go for: warm requests, and cold ones.
_REQUESTS = {10_000: (120, 24), 100_000: (120, 24), 1_000_000: (60, 12), 5_000_000: (24, 4)}
_TURNS_AT_ONCE = 4
_WARM_UP = 6
_BYTES_PER_TOKEN = 3.4
_PARTS = ("cost", "load", "start", "memory", "peers")
# Models take more than 100 ms for a word.
_LOADS = (
    Kind(0, 1_600),
    Kind(10_000, 9_600),
    Kind(100_000, 4_800),
    Kind(10_000, 4_800, fresh=True),
    Kind(100_000, 2_400, fresh=True),
    Kind(10_000, 400, after=100),
)


@dataclass(frozen=True, slots=True)
class Case:
    """A situation: how large the window is, beside the tokens of the conversation."""

    name: str
    window: float
    expect: str
    cold: bool = False
    stream: bool = False


CASES = (
    # The window is so large that the size alone proves that there is nothing to do.
    Case("nothing to do, by size", 40.0, "under_threshold"),
    # Every message is counted, but far below the first threshold.
    Case("nothing to do, counted", 4.0, "under_threshold"),
    Case("the same, streamed", 4.0, "under_threshold", stream=True),
    # The first request takes a step; all later ones carry its edits.
    Case("frozen edits re-applied", 1.0, "reapplied"),
    Case("the same, streamed", 1.0, "reapplied", stream=True),
    Case("cold, nothing to do", 4.0, "under_threshold", cold=True),
    Case("cold, with a new step", 1.0, "condensed", cold=True),
)
_QUICK_CASES = (1, 3, 5, 6)


@dataclass(frozen=True, slots=True)
class Figure:
    """What came out for one size in one situation, by request.

    `bare` and `ours` are milliseconds of CPU, those that end in `_wall` the median milliseconds
    that the client waited. `as_expected` requests went as the situation means them to.
    """

    size: int
    case: str
    requests: int
    bare: float
    ours: float
    bare_wall: float
    ours_wall: float
    as_expected: int
    memory_mb: int

    @property
    def more(self) -> float:
        """What the addon adds."""
        return self.ours - self.bare


def measure(bench: Bench, size: int, case: Case, requests: int) -> Figure:
    """Send the same requests through both proxies in turns."""
    talk = Growing(size, stream=case.stream)
    window = max(2_000, int(talk.size / _BYTES_PER_TOKEN * case.window))
    bare = bench.start(addon=None)
    ours = bench.start(f"context_windows=*={window}", addon=child.ADDON)
    both = (bare, ours)
    waited: tuple[list[float], list[float]] = [], []
    try:
        lines = [Connection(one.port, one.authority, HOSTS[0]) for one in both]
        bodies = _cold(size, case) if case.cold else _warm(talk)
        first = [next(bodies) for _ in range(1 if case.cold else _WARM_UP)]
        for line in lines:
            for body in first:
                _post(line, body)
        wait_until_idle(*both)
        before = stats(ours)["requests"]
        used = [-one.cpu_seconds() for one in both]
        progress = Progress(f"{size // 1_000:,} KB", requests, 4)
        for sent in range(0, requests, _TURNS_AT_ONCE):
            some = [next(bodies) for _ in range(_TURNS_AT_ONCE)]
            for line, times in zip(lines, waited, strict=True):
                times += [_post(line, body) for body in some]
            progress(sent + _TURNS_AT_ONCE)
        # What is counted after forwarding belongs to it.
        wait_until_idle(*both)
        used = [had + one.cpu_seconds() for had, one in zip(used, both, strict=True)]
        expected = stats(ours)["requests"][case.expect] - before[case.expect]
        memory = ours.memory_bytes() >> 20
    finally:
        bare.stop()
        ours.stop()
    sent = len(waited[0])
    return Figure(
        size=talk.size,
        case=case.name,
        requests=sent,
        bare=1_000 * used[0] / sent,
        ours=1_000 * used[1] / sent,
        bare_wall=1_000 * median(waited[0]),
        ours_wall=1_000 * median(waited[1]),
        as_expected=expected,
        memory_mb=memory,
    )


def _warm(talk: Growing) -> Iterator[bytes]:
    """A conversation that goes on.

    At first its beginning alone, to which it goes back from time to time: a step that is taken
    there serves all that follows.
    """
    yield from repeat(talk.body(), _WARM_UP // 2)
    yield from iter(talk.grow, None)


def _cold(size: int, case: Case) -> Iterator[bytes]:
    """Conversations that were never seen, one after the other."""
    number = 1
    while True:
        number += 1
        yield Growing(size, number, stream=case.stream).body()


def _post(line: Connection, body: bytes) -> float:
    """The seconds until the whole answer is there.

    Raises:
        RuntimeError: the request was refused.
    """
    began = time.perf_counter()
    response = line.post("/v1/messages", HEADERS, body)
    if response.status != 200:
        raise RuntimeError(f"refused: {response.body[:300]!r}")
    return time.perf_counter() - began


def cost_table(figures: Iterable[Figure]) -> Iterator[str]:
    """One line per size and situation."""
    yield (
        f"{'body':>9}  {'situation':<24} {'requests':>8} {'bare':>8} {'with addon':>10}"
        f" {'more':>9} {'ratio':>6}  {'wall: bare':>10} {'with':>8}  {'as meant':>8} {'memory':>8}"
    )
    for figure in figures:
        yield (
            f"{figure.size / 1_000:>6,.0f} KB  {figure.case:<24} {figure.requests:>8}"
            f" {figure.bare:>5.1f} ms {figure.ours:>7.1f} ms {figure.more:>6.1f} ms"
            f" {figure.ours / max(figure.bare, 0.001):>6.2f}"
            f"  {figure.bare_wall:>7.1f} ms {figure.ours_wall:>5.1f} ms"
            f"  {figure.as_expected:>8} {figure.memory_mb:>5} MB"
        )


def load_table(loads: Iterable[Load]) -> Iterator[str]:
    """One line per kind of requests and number of clients."""
    yield (
        f"{'requests':<28} {'clients':>7} {'bare':>9} {'with addon':>10} {'ratio':>6}"
        f"  {'CPU: bare':>9} {'with':>8}  {'unread':>6}"
    )
    for load in loads:
        yield (
            f"{load.what:<28} {load.concurrency:>7} {load.bare:>7.0f}/s {load.ours:>8.0f}/s"
            f" {load.ours / load.bare:>6.2f}  {load.bare_cpu:>6.1f} ms {load.ours_cpu:>5.1f} ms"
            f"  {load.unread:>6.0%}"
        )


def start_table(starts: Iterable[Start]) -> Iterator[str]:
    """The time of a start."""
    for start in starts:
        yield f"start: bare {start.bare:.2f} s, with the addon {start.ours:.2f} s"


def memory_table(moments: Iterable[Memory]) -> Iterator[str]:
    """One line per moment."""
    for moment in moments:
        more = moment.ours - moment.bare
        yield (
            f"memory {moment.when}: bare {moment.bare} MB, with the addon {moment.ours} MB,"
            f" {more - moment.vocabulary:+} MB beside {moment.vocabulary} MB of vocabulary"
        )


def peer_table(peers: Iterable[Peer | str]) -> Iterator[str]:
    """One line per other proxy and size, or why there is none."""
    for peer in peers:
        yield peer if isinstance(peer, str) else peer.line()


def _size(text: str) -> int:
    """A body's size, such as 10K, 5MB or 500 (bytes), to bytes."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([KM]?)B?", text.upper())
    if found is None:
        raise argparse.ArgumentTypeError("must be a size such as 10K, 5MB or 500")
    return int(float(found[1]) * {"": 1, "K": 1_000, "M": 1_000_000}[found[2]])


def _arguments(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench proxy", description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="fewer sizes, situations and requests")
    parser.add_argument("--only", nargs="+", choices=_PARTS, default=list(_PARTS))
    parser.add_argument("--sizes", nargs="+", type=_size)
    parser.add_argument("--requests", type=int, help="how many, instead of a number by size")
    parser.add_argument(
        "--cases",
        nargs="+",
        type=int,
        help="; ".join(f"{number}: {case.name}" for number, case in enumerate(CASES)),
    )
    parser.add_argument("--clients", nargs="+", type=int, help="how many at once")
    parser.add_argument("--json", type=Path, help="write the figures there as well")
    return parser.parse_args(arguments)


def _plain(one: Any) -> Json:
    """What `json` does not know: the figures are dataclasses."""
    return asdict(one)


def _requests(size: int, case: Case, asked: argparse.Namespace) -> int:
    if asked.requests:
        return int(asked.requests)
    warm, cold = next((n for most, n in _REQUESTS.items() if size <= most), _REQUESTS[5_000_000])
    number = cold if case.cold else warm
    return max(_TURNS_AT_ONCE, number // 3) if asked.quick else number


def _costs(bench: Bench, asked: argparse.Namespace) -> Iterator[Figure]:
    sizes = asked.sizes or (_QUICK_SIZES if asked.quick else _SIZES)
    cases = asked.cases or (_QUICK_CASES if asked.quick else range(len(CASES)))
    for size in sizes:
        for number in cases:
            yield measure(bench, size, CASES[number], _requests(size, CASES[number], asked))


def _loads(bench: Bench, asked: argparse.Namespace) -> Iterator[Load]:
    counts = asked.clients or ((1, 16) if asked.quick else (1, 16, 64))
    progress = Progress("load", len(_LOADS) * len(counts), 1)
    for at, kind in enumerate(_LOADS):
        for number, clients in enumerate(counts):
            many = kind.requests // 4 if asked.quick else kind.requests
            yield bench_load.throughput(
                bench, clients, replace(kind, requests=max(many, 8 * clients))
            )
            progress(at * len(counts) + number + 1)


def main(arguments: Sequence[str]) -> int:
    """Measure what was asked for and print the tables."""
    asked = _arguments(arguments)
    if not proc.is_there():
        return 2
    found: dict[str, list[Any]] = {}

    def tell[T](
        part: str, figures: Iterable[T], table: Callable[[Iterable[T]], Iterator[str]]
    ) -> None:
        """Print each line as soon as it is known."""
        rows = found.setdefault(part, [])

        def kept() -> Iterator[T]:
            for one in figures:
                rows.append(one)
                yield one

        for line in table(kept()):
            print(line, flush=True)
        print(flush=True)

    with tempfile.TemporaryDirectory(prefix="mitmcontext-bench-") as name:
        folder = Path(name)
        leaf = certificates.make(folder / "provider", HOSTS)
        provider = Provider(with_windows({"*": 10**9}), keep=4)
        with serving(provider, leaf), answering(leaf) as echo:
            strict, quick = Bench(provider.tls_port, leaf, folder), Bench(echo, leaf, folder)
            if "cost" in asked.only:
                tell("cost", _costs(strict, asked), cost_table)
            if "load" in asked.only:
                tell("load", _loads(quick, asked), load_table)
            if "start" in asked.only:
                times = 3 if asked.quick else 7
                tell("start", [bench_load.start_up(quick, times)], start_table)
            if "memory" in asked.only:
                tell("memory", bench_load.memory(quick, hour=not asked.quick), memory_table)
            if "peers" in asked.only:
                sizes = asked.sizes or _QUICK_SIZES
                peers = bench_peers.measure(provider.plain_port, sizes, folder)
                tell("peers", peers, peer_table)
    if asked.json:
        asked.json.write_text(json.dumps(found, indent=1, default=_plain))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
