"""CPU per request of mitmdump with the addon, over a bare one in the same run.

A conversation grows by one turn with each request, as an agent's does, and both proxies get the
same requests in turns, so that a busy machine troubles both alike. User and system time of each
process, all threads, come from /proc; the wall clock is not looked at.

    ./scripts/bench proxy --sizes 100K 1M 5M
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import count
from pathlib import Path
from typing import Any

import httpx

from demo.session import MODEL, Session
from loopback import certificates, child
from loopback.certificates import Certificates
from loopback.client import Connection
from loopback.provider import HOSTS, Provider, serving, with_windows

Json = dict[str, Any]

_REQUESTS = {100_000: 120, 1_000_000: 60, 5_000_000: 24}
_TURNS_AT_ONCE = 4
_WARM_UP = 4
_TURNS_BEFORE_BACK = 20
_HEADERS = (("x-api-key", "k"), ("content-type", "application/json"))
_BYTES_PER_TOKEN = 3.4


@dataclass(frozen=True, slots=True)
class Case:
    """A situation: how large the window is, beside the tokens of the conversation."""

    name: str
    window: float
    expect: str


CASES = (
    # The window is so large that the size alone proves that there is nothing to do.
    Case("nothing to do, by size", 40.0, "under_threshold"),
    # Every message is counted, but far below the first threshold.
    Case("nothing to do, counted", 4.0, "under_threshold"),
    # The first request takes a step; all later ones carry its edits.
    Case("frozen edits re-applied", 1.0, "reapplied"),
)


@dataclass(frozen=True, slots=True)
class Figure:
    """What came out for one size in one situation: milliseconds of CPU per request."""

    size: int
    case: str
    requests: int
    bare: float
    ours: float
    as_expected: int
    memory_mb: int

    @property
    def more(self) -> float:
        """What the addon adds."""
        return self.ours - self.bare


class Growing:
    """A conversation of some size that grows by a small turn with each request.

    After some turns it goes back to where it began and goes on differently, so that it keeps its
    size and its number of messages while each request holds something new.
    """

    def __init__(self, size: int) -> None:
        self.first = [_compact(message) for message in _messages_of(size)]
        self.messages = list(self.first)
        self.turns = 0
        self.size = len(self.body())

    def grow(self) -> bytes:
        """Another turn, and the request that follows it."""
        if self.turns % _TURNS_BEFORE_BACK == 0:
            self.messages = list(self.first)
        self.turns += 1
        id_ = f"toolu_more_{self.turns:06}"
        call = {"type": "tool_use", "id": id_, "name": "note", "input": {"text": f"{self.turns}"}}
        text = " ".join(f"note-{self.turns}-{place} is kept" for place in range(3))
        result = {"type": "tool_result", "tool_use_id": id_, "content": text}
        self.messages.append(_compact({"role": "assistant", "content": [call]}))
        self.messages.append(_compact({"role": "user", "content": [result]}))
        return self.body()

    def body(self) -> bytes:
        """The request as it is now."""
        head = b'{"model":"' + MODEL.encode() + b'","max_tokens":500,"messages":['
        return head + b",".join(self.messages) + b"]}"


def _compact(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def _messages_of(size: int) -> Iterator[Json]:
    """Sessions with different seeds, one after the other, up to about this many bytes.

    The last message is the user's, so that a turn can follow.
    """
    left = size
    for seed in count(1):
        for message in Session(seed).messages:
            left -= len(_compact(message))
            yield message
            if left < 0 and message["role"] == "user":
                return


class Bench:
    """One provider, and the files that all proxies share."""

    def __init__(self, provider: Provider, leaf: Certificates, folder: Path) -> None:
        self.provider = provider
        self.leaf = leaf
        self.folder = folder
        self.started = 0

    def start(self, *options: str, addon: Path | None) -> child.Child:
        """A proxy to be measured."""
        self.started += 1
        return child.start(
            dict.fromkeys(HOSTS, self.provider.tls_port),
            self.folder / f"proxy-{self.started}",
            provider_authority=self.leaf.authority,
            addon=addon,
            options=options,
            environment={"CONTEXT_CACHE_DIR": str(self.folder / f"cache-{self.started}")},
            # mitmdump would otherwise spend much of its time on describing flows.
            arguments=["--set", "flow_detail=0"],
        )

    def measure(self, size: int, case: Case, requests: int) -> Figure:
        """Send a growing conversation through both proxies in turns."""
        talk = Growing(size)
        window = max(2_000, int(talk.size / _BYTES_PER_TOKEN * case.window))
        bare = self.start(addon=None)
        ours = self.start(f"context_windows=*={window}", addon=child.ADDON)
        try:
            lines = [Connection(one.port, one.authority, HOSTS[0]) for one in (bare, ours)]
            for _ in range(_WARM_UP):
                self._send(lines, [talk.grow()])
            wait_until_idle(bare, ours)
            before = stats(ours)["requests"]
            used = [-one.cpu_seconds() for one in (bare, ours)]
            for _ in range(requests // _TURNS_AT_ONCE):
                self._send(lines, [talk.grow() for _ in range(_TURNS_AT_ONCE)])
            used = [had + one.cpu_seconds() for had, one in zip(used, (bare, ours), strict=True)]
            sent = requests // _TURNS_AT_ONCE * _TURNS_AT_ONCE
            expected = stats(ours)["requests"][case.expect] - before[case.expect]
            memory = ours.memory_bytes() >> 20
        finally:
            bare.stop()
            ours.stop()
        each = [1_000 * seconds / sent for seconds in used]
        return Figure(talk.size, case.name, sent, each[0], each[1], expected, memory)

    def _send(self, lines: Sequence[Connection], bodies: Sequence[bytes]) -> None:
        for line in lines:
            for body in bodies:
                response = line.post("/v1/messages", _HEADERS, body)
                if response.status != 200:
                    raise RuntimeError(f"refused: {response.body[:300]!r}")


def wait_until_idle(*proxies: child.Child) -> None:
    """Let what was begun at the start, such as reading the vocabulary, come to its end."""
    for _ in range(60):
        used = [proxy.cpu_seconds() for proxy in proxies]
        time.sleep(0.5)
        if used == [proxy.cpu_seconds() for proxy in proxies]:
            return


def stats(proxy: child.Child) -> Json:
    """The addon's own counts."""
    url = "http://context.mitm/stats.json"
    found: Json = httpx.get(url, proxy=proxy.url, trust_env=False).json()
    return found


def table(figures: Sequence[Figure]) -> Iterator[str]:
    """One line per size and situation."""
    yield (
        f"{'body':>9}  {'situation':<24} {'requests':>8} {'bare':>8} {'with addon':>10}"
        f" {'more':>8} {'ratio':>6}  {'as meant':>8} {'memory':>8}"
    )
    for figure in figures:
        yield (
            f"{figure.size / 1_000:>6,.0f} KB  {figure.case:<24} {figure.requests:>8}"
            f" {figure.bare:>5.1f} ms {figure.ours:>7.1f} ms {figure.more:>5.1f} ms"
            f" {figure.ours / max(figure.bare, 0.001):>6.2f}"
            f"  {figure.as_expected:>8} {figure.memory_mb:>5} MB"
        )


def _size(text: str) -> int:
    number, unit = text.upper().rstrip("B")[:-1], text.upper().rstrip("B")[-1]
    return int(float(number) * {"K": 1_000, "M": 1_000_000}[unit])


def _arguments(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench proxy", description=__doc__.split("\n")[0])
    parser.add_argument("--sizes", nargs="+", type=_size, default=list(_REQUESTS))
    parser.add_argument("--requests", type=int, help="how many, instead of a number by size")
    parser.add_argument("--cases", nargs="+", type=int, default=list(range(len(CASES))))
    parser.add_argument("--json", type=Path, help="write the figures there as well")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str]) -> int:
    """Measure what was asked for and print the table."""
    asked = _arguments(arguments)
    if not Path("/proc/self/stat").exists():
        print(
            "This reads the CPU time of processes from /proc, which is not here.", file=sys.stderr
        )
        return 2
    figures: list[Figure] = []
    with tempfile.TemporaryDirectory(prefix="mitmcontext-bench-") as name:
        folder = Path(name)
        leaf = certificates.make(folder / "provider", HOSTS)
        with serving(Provider(with_windows({"*": 10**9}), keep=4), leaf) as provider:
            bench = Bench(provider, leaf, folder)
            for size in asked.sizes:
                for place in asked.cases:
                    requests = asked.requests or _REQUESTS.get(size, 40)
                    figures.append(bench.measure(size, CASES[place], requests))
    print("\n".join(table(figures)))
    if asked.json:
        asked.json.write_text(json.dumps([asdict(figure) for figure in figures], indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
