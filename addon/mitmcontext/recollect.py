"""What was read of a conversation's beginning, so that a request is read only where it is new.

Clients resend the whole history, a little longer each time. The beginning of the messages is
recognised by a mark of its bytes, as one stretch; with it comes all that was found in it before:
where its messages lie, their digests, tokens and links, and the bytes that frozen edits make of it.
What is read is the body without the stretch. Everything here follows from those bytes (and the
links from the tenant's seed, which is compared), so a stretch serves whoever sends the same bytes.

The mark is AES-GCM's tag of them, under a key of this process: twenty times as fast as SHA-256
where the processor has instructions for it, as nearly all have. Who does not know the key and sees
no mark finds another text of L bytes with the same one with a probability of at most
(ceil(L / 16) + 1) / 2^128 (McGrew and Viega, "The Security and Performance of the Galois/Counter
Mode (GCM) of Operation", 2004, lemma 2). Marks never leave the process, so that all may be made
with one nonce.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from cachetools import LRUCache
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from msgspec.structs import replace

from mitmcontext.stretches import Point, Stretch
from mitmcontext.values import Request, Span, Unreadable
from mitmcontext.wire import spans
from mitmcontext.wire.api import Api, asks_for_an_hour

_NONCE: Final = bytes(12)
_SEARCHED: Final = 2 << 20
# What APIs call the array of messages.
_ARRAYS: Final = re.compile(rb'"(?:messages|input|contents)"\s*+:\s*+(?=\[)')
_COMMA: Final = re.compile(rb"\s*+,")
# Conversations of one client begin with the same words, often for some kilobytes, and part soon
# behind. So a stretch is looked for by samples of it, at the start and at each power of two.
_HEAD: Final = 512
_SAMPLE: Final = 32
# Conversations whose samples are the same (forks, mostly) are tried one after the other.
_ALIKE: Final = 4


class Little(NamedTuple):
    """What may be read at once, in bytes: where nothing is known of a body, and around a stretch.

    `values` says how many commas there may be in it: what reading takes goes by them.
    """

    whole: int
    around: int
    values: int


class Recollections:
    """Stretches of recent conversations, bounded in bytes, the least recently used go first.

    Args:
        size: how many bytes they may take.
        key: of the marks, 32 random bytes.
    """

    def __init__(self, size: int, key: bytes) -> None:
        self._cipher = AESGCM(key)
        self._kept: LRUCache[tuple[bytes, ...], tuple[Stretch, ...]] = LRUCache(
            size, getsizeof=lambda alike: sum(stretch.weight for stretch in alike)
        )
        self._lock = threading.Lock()

    def mark(self, text: bytes | memoryview) -> bytes:
        """What a text is recognised by, in this process."""
        return self._cipher.encrypt(_NONCE, b"", text)

    def read(self, api: Api, body: bytes) -> tuple[Request, Stretch | None]:
        """As `api.read`, reading only what stands around a stretch that is known; and the stretch.

        Raises:
            Unreadable: it is no request of this API.
        """
        size = len(body)
        return self.read_little(api, body, Little(size, size, size)) or (api.read(body), None)

    def read_little(
        self, api: Api, body: bytes, most: Little
    ) -> tuple[Request, Stretch | None] | None:
        """The same, but None where more would have to be read.

        Raises:
            Unreadable: it is no request of this API.
        """
        found = _ARRAYS.search(body)
        start = found.end() if found else len(body)
        samples = _samples(body, start, len(body))
        longest, least = len(body) - start - 1, len(body) - most.around
        for stretch, point in self._alike(samples):
            end = start + point.size
            if stretch.api != api.name or not least <= point.size <= longest:
                continue
            same = body.startswith(point.tail, end - len(point.tail))
            if same and body.count(b",", 0, start) + body.count(b",", end) > most.values:
                return None
            if same and self.mark(memoryview(body)[start:end]) == point.mark:
                known = stretch.up_to(point)
                request = _around(api, body, start, known)
                if request is not None:
                    return request, known
        little = len(body) <= most.whole
        little = little and (len(body) <= most.values or body.count(b",") <= most.values)
        return (api.read(body), None) if little else None

    def _alike(self, samples: tuple[bytes, ...]) -> Iterator[tuple[Stretch, Point]]:
        """What a body with these samples may begin with, that with most of them first."""
        for count in range(len(samples), 0, -1):
            with self._lock:
                alike = self._kept.get(samples[:count], ())
            yield from _ends(alike)

    def keep(self, request: Request, stretch: Stretch, instead: Stretch | None) -> None:
        """Keep a stretch of a request, instead of the shorter one that it grew from.

        That one stays where it has fewer samples, for those who go back to it.
        """
        start = request.array.start
        key = _samples(request.body, start, start + stretch.end.size)
        with self._lock:
            others = [old for old in self._kept.get(key, ()) if old is not instead]
            others = [old for old in others if old.end.mark != stretch.end.mark]
            # The longest first.
            alike = sorted([stretch, *others[: _ALIKE - 1]], key=lambda old: -old.end.size)
            if sum(old.weight for old in alike) <= self._kept.maxsize:
                self._kept[key] = tuple(alike)

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._kept.clear()


def _samples(body: bytes, start: int, end: int) -> tuple[bytes, ...]:
    """What is in certain places between `start` and `end`: more of it the longer that is."""
    found = [body[start : min(start + _HEAD, end)]]
    at = start + 2 * _HEAD
    while at + _SAMPLE <= end:
        found.append(body[at : at + _SAMPLE])
        at += at - start
    return tuple(found)


def _ends(alike: Sequence[Stretch]) -> Iterator[tuple[Stretch, Point]]:
    """How far a body may be one of these stretches: all of it, or to one of its earlier ends."""
    yield from ((stretch, stretch.end) for stretch in alike)
    earlier = [(stretch, point) for stretch in alike for point in stretch.points[1:]]
    yield from sorted(earlier, key=lambda one: -one[1].size)


def _around(api: Api, body: bytes, start: int, stretch: Stretch) -> Request | None:
    """A body with this stretch at `start`, read without it; None where it has to be read as it is.

    The stretch ends behind a message, so that what is left without it and the comma behind it is
    JSON if and only if the body is. Where no array of messages begins there after all, or nothing
    follows the stretch in it, what is left says so.
    """
    comma = _COMMA.match(body, start + stretch.end.size)
    if comma is None:
        return None
    try:
        rest = api.read(body[: start + 1] + body[comma.end() :])
    except Unreadable:
        return None
    if rest.array.start != start or len(stretch.spans) + len(rest.spans) > spans.MOST:
        return None
    shift = comma.end() - start - 1
    known = placed(stretch.spans, start - stretch.start)
    array = Span(start, rest.array.end + shift)
    return moved(rest, body, array, (*known, *placed(rest.spans, shift)), shift)


def moved(
    request: Request, body: bytes, array: Span, messages: tuple[Span, ...], shift: int
) -> Request:
    """The same request with other messages: what stands behind them lies `shift` bytes later."""

    def place(span: Span | None) -> Span | None:
        return span.shifted(shift) if span is not None and span.start > array.start else span

    return replace(
        request,
        body=body,
        array=array,
        spans=messages,
        system=place(request.system),
        tools=place(request.tools),
        sender=place(request.sender),
        choice=place(request.choice),
        schema=place(request.schema),
    )


def wants_an_hour(request: Request, stretch: Stretch | None) -> bool:
    """Whether a request asks the provider to keep something of it for an hour in its cache.

    Args:
        request: as read.
        stretch: what of it was read before.
    """
    body, start = request.body, request.array.start
    if stretch is None:
        # A longer search would hold others up. Markers stand where a request begins and ends.
        early = asks_for_an_hour(body, 0, min(len(body), _SEARCHED))
        return early or asks_for_an_hour(body, max(_SEARCHED, len(body) - _SEARCHED), len(body))
    end = start + stretch.end.size
    around = asks_for_an_hour(body, 0, start) or asks_for_an_hour(body, end, len(body))
    return stretch.end.hour or around


def placed(found: tuple[Span, ...], shift: int) -> tuple[Span, ...]:
    """The same spans in a body where they begin `shift` bytes later."""
    return tuple(span.shifted(shift) for span in found) if shift else found
