"""What the proxy takes per request and keeps per conversation, and what that makes for many people.

Sessions of our own play, each under a key of its own, through a proxy that keeps what is frozen on
the disk and, where there is a redis-server, through one that keeps it there too. CPU time comes
from /proc, sizes from the stores. What a person does in a day is an assumption that can be set.

    ./scripts/bench growth --sessions 4 --window 100000
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any

from bench_talk import stats, wait_until_idle
from demo.session import MODEL, Session, encode
from lib import proc
from loopback import certificates, child
from loopback.client import Connection
from loopback.provider import HOSTS, Provider, serving, with_windows
from loopback.redis_server import RealRedis, is_installed, number_in

Json = dict[str, Any]

_PEOPLE = (10, 1_000, 100_000)
_HEADERS = ("content-type", "application/json")
# Half of a core is left for bursts.
_USED_OF_CORE = 0.5
# The busiest hour has this share of a day's requests: eight hours of work, unevenly.
_BUSIEST_HOUR = 0.2


@dataclass(frozen=True, slots=True)
class Measured:
    """Of one run: CPU in milliseconds per request, and bytes and keys per conversation."""

    requests: int
    conversations: int
    steps: int
    kilobytes: float
    cpu: float
    keys: float
    disk: float
    redis: float | None


@dataclass(frozen=True, slots=True)
class Day:
    """What one person does in a day, and for how many days a conversation is kept."""

    requests: int
    conversations: int
    kept: int


def requests_of(seed: int, window: int) -> Iterator[bytes]:
    """The requests of a conversation that grows to two and a half windows."""
    messages: list[Json] = []
    size = 0
    for more in count(seed * 1_000):
        for message in Session(more).messages:
            messages.append(message)
            text = encode(message)
            size += len(text)
            if message["role"] == "user":
                yield encode({"model": MODEL, "max_tokens": 500, "messages": messages})
                if size > 2.5 * window * 3.4:
                    return


def measure(sessions: int, window: int, address: str | None, folder: Path) -> Measured:
    """Play sessions through one proxy and look at what it took and kept."""
    leaf = certificates.make(folder / "provider", HOSTS)
    environment = {"CONTEXT_CACHE_DIR": str(folder / "cache")}
    if address is not None:
        key = folder / "shared-key"
        key.write_text("5a" * 32)
        key.chmod(0o600)
        environment |= {"CONTEXT_REDIS_URL": address, "CONTEXT_KEY_FILE": str(key)}
    provider = Provider(with_windows({"*": 10**9}), keep=2)
    with (
        serving(provider, leaf),
        child.running(
            dict.fromkeys(HOSTS, provider.tls_port),
            confdir=folder / "confdir",
            provider_authority=leaf.authority,
            options=[f"context_windows=*={window}", "flow_detail=0"],
            environment=environment,
        ) as proxy,
    ):
        line = Connection(proxy.port, proxy.authority, HOSTS[0])
        wait_until_idle(proxy)
        used, sent, size = -proxy.cpu_seconds(), 0, 0
        for seed in range(sessions):
            for body in requests_of(seed + 1, window):
                line.post("/v1/messages", (("x-api-key", f"person-{seed}"), _HEADERS), body)
                sent, size = sent + 1, size + len(body)
        used += proxy.cpu_seconds()
        line.close()
        found = stats(proxy)
        kept = found["stores"]["frozen edits, kept"]
    return Measured(
        requests=sent,
        conversations=sessions,
        steps=found["steps"],
        kilobytes=size / sent / 1_000,
        cpu=1_000 * used / sent,
        keys=kept["entries"] / sessions,
        disk=kept["size"] / sessions,
        redis=None,
    )


def in_redis(sessions: int, window: int, folder: Path) -> tuple[float, float] | None:
    """Keys and bytes of memory that a conversation takes in Redis; None where there is none."""
    if not is_installed():
        return None
    server = RealRedis(folder)
    server.start()
    try:
        before = number_in(server.say("INFO", "memory"), "used_memory")
        measure(sessions, window, server.url, folder)
        used = number_in(server.say("INFO", "memory"), "used_memory") - before
        return number_in(server.say("DBSIZE")) / sessions, used / sessions
    finally:
        server.stop()


def table(found: Measured, day: Day) -> Iterator[str]:
    """What was measured, and what that makes for many people."""
    yield f"measured over           {found.requests:,} requests of {found.conversations} people"
    yield f"  a request has         {found.kilobytes:,.0f} KB on average"
    yield f"  CPU per request       {found.cpu:.1f} ms, mitmproxy's own share included"
    per_core = 1_000 / found.cpu
    yield f"  a core serves         {per_core:,.0f} requests per second"
    yield f"  steps                 {found.steps / found.conversations:.1f} per conversation"
    disk = f"{found.keys:.0f} keys, {found.disk / 1_000:,.0f} KB"
    yield f"  kept on the disk      {disk} per conversation"
    if found.redis is not None:
        yield f"  kept in Redis         {found.redis / 1_000:,.0f} KB per conversation"
    yield ""
    yield f"a person: {day.requests} requests and {day.conversations} conversations a day;"
    yield f"the busiest hour has {_BUSIEST_HOUR:.0%} of a day's requests, cores are half used,"
    yield f"conversations are kept for {day.kept} days after their last use"
    yield ""
    yield f"{'people':>8} {'requests/s':>11} {'cores':>6} {'keys/day':>11} {'kept':>12}"
    for people in _PEOPLE:
        rate = people * day.requests * _BUSIEST_HOUR / 3_600
        cores = rate / per_core / _USED_OF_CORE
        talks = people * day.conversations
        size = talks * day.kept * (found.redis or found.disk)
        yield (
            f"{people:>8,} {rate:>11,.1f} {max(1, round(cores + 0.49)):>6,}"
            f" {talks * found.keys:>11,.0f} {size / 1e9:>9,.1f} GB"
        )


def _arguments(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench growth", description=__doc__.split("\n")[0])
    parser.add_argument("--sessions", type=int, default=4, help="how many conversations to play")
    parser.add_argument("--window", type=int, default=100_000, help="of the model, in tokens")
    parser.add_argument("--requests", type=int, default=500, help="of a person, per day")
    parser.add_argument("--conversations", type=int, default=8, help="of a person, per day")
    parser.add_argument("--kept", type=int, default=30, help="days after the last use")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str]) -> int:
    """Measure, and print the tables."""
    asked = _arguments(arguments)
    if not proc.is_there():
        return 2
    with tempfile.TemporaryDirectory(prefix="mitmcontext-growth-") as name:
        for part in ("disk", "redis"):
            (Path(name) / part).mkdir()
        found = measure(asked.sessions, asked.window, None, Path(name) / "disk")
        shared = in_redis(asked.sessions, asked.window, Path(name) / "redis")
    if shared is not None:
        found = replace(found, keys=shared[0], redis=shared[1])
    print("\n".join(table(found, Day(asked.requests, asked.conversations, asked.kept))))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
