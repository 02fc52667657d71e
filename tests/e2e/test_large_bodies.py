"""Bodies that are large, become large, or consist of very many things, while others are served.

How long others wait is compared with what they wait while a bare proxy passes on the same.
"""

from __future__ import annotations

import gzip
import secrets
import threading
import time
import zlib
from collections.abc import Iterator, Sequence

import brotli  # type: ignore[import-untyped]
import pytest
import zstandard
from tests.e2e.fixture_types import Connect, StartProxy, Stats
from tests.e2e.judging import with_key
from tests.e2e.test_untouched import MESSAGES, ODD_BODY, body_of, history
from tests.e2e.waiting import wait_for

from loopback.child import Child
from loopback.client import Connection
from loopback.provider import Provider
from mitmcontext.proxy.bodies import RATIO

MEGABYTE = 1 << 20
# context_max_body, up to which a body is read.
READ = 32 * MEGABYTE
# The provider refuses who has no key before it reads the body, which would take it minutes.
NO_KEY = (("content-type", "application/json"),)
# A lot on a quiet machine. On a busy one it is the best of several tries that counts.
SECONDS, TRIES = 1.0, 3


class Elsewhere:
    """Another client, who sends one small request after the other until the block ends.

    `longest` is the time in seconds that an answer took at most. What went wrong for them is
    raised when the block ends.
    """

    def __init__(self, connection: Connection) -> None:
        self.longest = 0.0
        self._count = 0
        self._failed: Exception | None = None
        self._connection = connection
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._talk)

    def __enter__(self) -> Elsewhere:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._stop.set()
        self._thread.join(90)
        if kind is None:
            assert not self._thread.is_alive(), "somebody else still waits for an answer"
            if self._failed is not None:
                raise self._failed
            assert self._count > 0

    def _talk(self) -> None:
        try:
            while not self._stop.is_set():
                began = time.monotonic()
                answer = self._connection.post(MESSAGES, with_key("other"), ODD_BODY)
                self.longest = max(self.longest, time.monotonic() - began)
                assert answer.status == 200, answer.head
                self._count += 1
        except Exception as error:  # noqa: BLE001 - raised again where it is seen
            self._failed = error


class Pair:
    """A bare proxy and one with the addon, through which the same is sent."""

    def __init__(self, provider: Provider, bare: Child, ours: Child, connect: Connect) -> None:
        self.bare = bare
        self.ours = ours
        self._provider = provider
        self._both = (bare, ours)
        self._connect = connect
        self._others = [connect(proxy) for proxy in self._both]

    def held_up(self, body: bytes, *headers: tuple[str, str], chunks: int = 0) -> float:
        """By how many seconds others wait longer than with a bare proxy, while a body passes.

        What others do on the machine comes and goes, so it is the least of a few tries.
        """
        least = float("inf")
        for _ in range(TRIES):
            bare, ours = (self._longest(at, body, headers, chunks) for at in range(2))
            least = min(least, ours - bare)
            if least < SECONDS:
                break
        return least

    def _longest(
        self, at: int, body: bytes, headers: Sequence[tuple[str, str]], chunks: int
    ) -> float:
        """The longest that others wait while a body passes through one of the two, as it came."""
        connection = self._connect(self._both[at])
        with Elsewhere(self._others[at]) as other:
            answer = connection.post(MESSAGES, (*NO_KEY, *headers), body, chunks=chunks)
        connection.close()
        assert answer.status == 401
        [arrived] = [one for one in self._provider.records if not one.key]
        assert arrived.wire.body == body
        self._provider.records.clear()
        return other.longest


@pytest.fixture
def pair(provider: Provider, start_proxy: StartProxy, connect: Connect, stats: Stats) -> Pair:
    """Both stream what says that it is too large to be read."""
    return warmed_up(
        provider,
        start_proxy(f"stream_large_bodies={READ}", addon=None),
        start_proxy(),
        connect,
        stats,
    )


def warmed_up(provider: Provider, bare: Child, ours: Child, connect: Connect, stats: Stats) -> Pair:
    """Two that have loaded what everybody needs once."""
    for proxy in (bare, ours):
        connect(proxy).post(MESSAGES, with_key("k"), body_of(history(count=8)))
    # Counting comes after forwarding, and has to wait for the vocabulary.
    wait_for(lambda: stats(ours)["tokens"]["sent"])
    provider.records.clear()
    return Pair(provider, bare, ours, connect)


def bombs() -> Iterator[tuple[str, str, bytes]]:
    """A name, an encoding, and some kilobytes that unpack to hundreds of megabytes."""
    nothing = bytes(MEGABYTE)
    size = 160
    packed = zlib.compressobj(9, wbits=31)
    yield (
        "gzip",
        "gzip",
        b"".join([*(packed.compress(nothing) for _ in range(size)), packed.flush()]),
    )
    packed = zlib.compressobj(9)
    once = b"".join([*(packed.compress(nothing) for _ in range(size)), packed.flush()])
    yield "deflate", "deflate", once
    member = gzip.compress(nothing * 8, 9)
    yield "many members", "gzip", member * (size // 8)
    frames = zstandard.ZstdCompressor(level=3).compressobj()
    yield (
        "zstd",
        "zstd",
        b"".join([*(frames.compress(nothing) for _ in range(size)), frames.flush()]),
    )
    brotlis = brotli.Compressor(quality=3)
    pieces = [brotlis.process(nothing) for _ in range(size)]
    yield "brotli", "br", b"".join([*pieces, brotlis.finish()])
    yield "packed twice", "gzip, gzip", gzip.compress(member * (size // 8))
    yield "not what it claims", "br", member * (size // 8)
    text = b'{"model":"claude-sonnet-4-5","max_tokens":5,"messages":[{"role":"user","content":"'
    yield "a request that never ends", "gzip", gzip.compress(text) + member * (size // 8)


def test_bombs_pass_unopened_in_little_memory_while_others_are_served(pair: Pair) -> None:
    before = pair.ours.peak_memory_bytes()
    for name, coding, body in bombs():
        assert len(body) < 2 * MEGABYTE, name
        assert pair.held_up(body, ("content-encoding", coding)) < SECONDS, name
    # context_max_body is 32 MB, and a thread or two unpacks at a time.
    assert pair.ours.peak_memory_bytes() - before < 150 * MEGABYTE
    assert "Traceback" not in pair.ours.said()


def test_a_hundred_megabytes_and_a_million_messages_pass(pair: Pair, stats: Stats) -> None:
    before = pair.ours.peak_memory_bytes()
    start = b'{"model":"claude-sonnet-4-5","max_tokens":5,"messages":['
    two = b'{"role":"user","content":"a"},{"role":"assistant","content":"b"},'
    million = start + two * 550_000 + b'{"role":"user","content":"a"}]}'
    huge = start + b'{"role":"user","content":"' + b"x" * (100 * MEGABYTE) + b'"}]}'
    for name, body in (("a million", million), ("huge", huge)):
        assert len(body) > READ
        assert pair.held_up(body) < SECONDS, name
    # Streamed, and never held.
    assert pair.ours.peak_memory_bytes() - before < 60 * MEGABYTE
    assert stats(pair.ours)["failures"] == {}


@pytest.mark.parametrize(
    "options", [(), (f"stream_large_bodies={READ}",)], ids=["held", "streamed"]
)
def test_a_hundred_megabytes_in_chunks_pass_as_with_a_bare_proxy(
    options: Sequence[str],
    provider: Provider,
    start_proxy: StartProxy,
    connect: Connect,
    stats: Stats,
) -> None:
    """Nobody says how much will come, so mitmproxy holds all of it; we hold nothing beside that.

    Where it is told to stream what is large, it does so from there on.
    """
    proxies = start_proxy(*options, addon=None), start_proxy(*options)
    pair = warmed_up(provider, *proxies, connect, stats)
    body = b'{"model":"claude-sonnet-4-5","max_tokens":5,"messages":[{"role":"user","content":"'
    body += b"x" * (100 * MEGABYTE) + b'"}]}'
    before = [proxy.peak_memory_bytes() for proxy in proxies]
    assert pair.held_up(body, chunks=1 << 16) < SECONDS
    bare, ours = (
        proxy.peak_memory_bytes() - was for proxy, was in zip(proxies, before, strict=True)
    )
    # A copy would be a hundred.
    assert ours - bare < 90 * MEGABYTE
    assert ours < 200 * MEGABYTE or not options
    told = stats(pair.ours)
    assert sum(told["left_alone"].values()) >= 1
    assert told["failures"] == {}


def dense() -> Iterator[tuple[str, bytes]]:
    """Bodies of many megabytes that are read, and hold millions of values."""
    start = b'{"model":"claude-sonnet-4-5","max_tokens":5,"messages":['
    message = b'{"role":"user","content":%s}'
    # What shrinks too well is not unpacked.
    noise = b'"x":"%s",' % secrets.token_hex(200_000).encode()
    keys = b"".join(b'"%d":0,' % number for number in range(2_500_000))
    yield "messages", start + b"{}," * 9_700_000 + message % b'"a"' + b"]," + noise + b'"n":1}'
    yield "numbers for messages", start + b"1," * 14_500_000 + b"1]," + noise + b'"n":1}'
    blocks = b"[" + b"{}," * 9_700_000 + b"{}]"
    yield "blocks", start + message % blocks + b"]," + noise + b'"n":1}'
    yield "keys", b"{" + noise + keys + start[1:] + message % b'"a"' + b"]}"


def test_millions_of_values_pass_in_little_memory_while_others_are_served(
    pair: Pair, stats: Stats
) -> None:
    proxies = pair.bare, pair.ours
    before, sent = [proxy.peak_memory_bytes() for proxy in proxies], 0
    for name, body in dense():
        assert 25 * MEGABYTE < len(body) < READ, name
        packed = gzip.compress(body, 1)
        assert len(body) < RATIO * len(packed), name
        assert pair.held_up(body) < SECONDS, name
        assert pair.held_up(packed, ("content-encoding", "gzip")) < SECONDS, name
        sent += 2
    # mitmproxy holds some copies of a body. Looking at one takes the body unpacked, and its text.
    bare, ours = (
        proxy.peak_memory_bytes() - was for proxy, was in zip(proxies, before, strict=True)
    )
    assert ours - bare < 150 * MEGABYTE
    told = stats(pair.ours)
    assert told["left_alone"]["more values than anybody sends"] >= sent
    assert told["failures"] == {}
