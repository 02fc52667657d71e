"""What was read of a conversation's beginning, so that a request is read only where it is new.

Clients resend the whole history, a little longer each time. The beginning of the messages is
recognised by the SHA-256 of its bytes, as one stretch; with it comes all that was found in it
before: where its messages lie, their digests, tokens and links, and the bytes that frozen edits
make of it. Only what follows is walked. Everything here follows from those bytes (and the links
from the tenant's seed, which is compared), so a stretch serves whoever sends the same bytes.
"""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from cachetools import LRUCache

from mitmcontext.condense.ledger import Found
from mitmcontext.known import Fact
from mitmcontext.values import Request, Span, Unreadable
from mitmcontext.wire import spans

# The last messages are left out: clients move their cache markers in them from turn to turn.
_UNSTEADY: Final = 6
# To keep a longer stretch costs as much as to recognise one, so it is not done every time.
_GROWN: Final = 8
# Shorter histories are read as quickly as they are recognised.
_LEAST: Final = 12
# What APIs call the array of messages.
_ARRAYS: Final = re.compile(rb'"(?:messages|input|contents)"\s*:')
_HEAD: Final = 512
# Conversations that begin alike (forks, an agent's side tasks) are tried one after the other.
_ALIKE: Final = 4
# What a message takes beside its bytes: a span, a fact and a link.
_PER_MESSAGE: Final = 600


@dataclass(frozen=True, slots=True)
class Overlay:
    """What a stretch becomes with an entry's frozen edits: its bytes, and what is known of them.

    `spans` are those of a body whose messages' array begins at `start`, as in `Stretch`.
    """

    found: Found
    made: bytes
    start: int
    spans: tuple[Span, ...]
    facts: list[Fact]
    links: list[bytes]


@dataclass(frozen=True, slots=True)
class Stretch:
    """The beginning of a messages array, up to and with a message, and what is known of it."""

    digest: bytes
    start: int
    size: int
    spans: tuple[Span, ...]
    tag: bytes
    facts: list[Fact]
    seed: bytes
    links: list[bytes]
    overlay: Overlay | None

    @property
    def weight(self) -> int:
        """About how many bytes of memory this takes."""
        laid = self.overlay
        more = len(laid.made) + len(laid.spans) * _PER_MESSAGE if laid else 0
        return len(self.spans) * _PER_MESSAGE + more


class Recollections:
    """Stretches of recent conversations, bounded in bytes, the least recently used go first."""

    def __init__(self, size: int) -> None:
        self._kept: LRUCache[bytes, tuple[Stretch, ...]] = LRUCache(
            size, getsizeof=lambda alike: sum(stretch.weight for stretch in alike)
        )
        self._lock = threading.Lock()

    def alike(self, text: bytes, array: Span) -> tuple[Stretch, ...]:
        """Stretches that begin as this array does, the longest first."""
        with self._lock:
            return self._kept.get(_head(text, array), ())

    def is_likely(self, body: bytes) -> bool:
        """Whether a body, not read yet, seems to hold a stretch that is known."""
        named = _ARRAYS.search(body)
        at = body.find(b"[", named.end() if named else 0)
        with self._lock:
            return body[at : at + _HEAD] in self._kept

    def keep(self, request: Request, stretch: Stretch, instead: Stretch | None) -> None:
        """Keep a stretch of a request, instead of the shorter one that it grew from."""
        key = _head(request.body, request.array)
        with self._lock:
            others = [old for old in self._kept.get(key, ()) if old is not instead]
            others = [old for old in others if old.digest != stretch.digest]
            alike = sorted([stretch, *others[: _ALIKE - 1]], key=lambda old: -old.size)
            if sum(old.weight for old in alike) <= self._kept.maxsize:
                self._kept[key] = tuple(alike)

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._kept.clear()


class Recollection:
    """The reading of one body: `stretch` is what was recognised of it, once it was read."""

    def __init__(self, kept: Recollections, body: bytes) -> None:
        self._kept = kept
        self._body = body
        self.stretch: Stretch | None = None

    def elements(self, text: bytes, array: Span) -> list[Span]:
        """As `spans.elements`, walking only what follows a stretch that is known.

        Raises:
            Unreadable: no JSON array stands there.
        """
        # The text may have what hinders a decoder masked; what is recognised is the body.
        for stretch in self._kept.alike(self._body, array):
            end = array.start + stretch.size
            if end < array.end and _sha(self._body[array.start : end]) == stretch.digest:
                rest = _rest(text, Span(end, array.end))
                if rest is not None:
                    self.stretch = stretch
                    return [*placed(stretch.spans, array.start - stretch.start), *rest]
        return spans.elements(text, array)


def is_due(stretch: Stretch | None, messages: int, found: Found | None) -> bool:
    """Whether to keep a new stretch for a request that was read with this one."""
    if stretch is None or messages - _UNSTEADY >= len(stretch.spans) + _GROWN:
        return True
    laid = stretch.overlay
    if found is None or found.at >= len(stretch.spans):
        return False
    return laid is None or not is_same(laid.found, found)


def is_same(one: Found, other: Found) -> bool:
    """Whether two look-ups found one and the same entry."""
    return one.at == other.at and (one.entry is other.entry or one.entry == other.entry)


def stretch_of(
    request: Request,
    facts: Sequence[Fact],
    links: Sequence[bytes],
    tag: bytes,
    seed: bytes,
    overlay: tuple[Found, Request, Sequence[Fact], Sequence[bytes]] | None,
) -> Stretch | None:
    """What to keep of a request; None for one that is short, or not counted yet.

    Args:
        request: as the client sent it.
        facts: of its messages.
        links: of its messages.
        tag: what the facts depend on beside the bytes.
        seed: what the links depend on beside the bytes.
        overlay: the entry that is laid over the request, and what was made, read likewise.
    """
    count = len(request.spans) - _UNSTEADY
    if count < _LEAST or any(fact.tokens is None for fact in facts[:count]):
        return None
    start = request.array.start
    end = request.spans[count - 1].end
    return Stretch(
        digest=_sha(request.body[start:end]),
        start=start,
        size=end - start,
        spans=request.spans[:count],
        tag=tag,
        facts=list(facts[:count]),
        seed=seed,
        links=list(links[:count]),
        overlay=_overlay(count, overlay) if overlay else None,
    )


def _overlay(
    count: int, laid: tuple[Found, Request, Sequence[Fact], Sequence[bytes]]
) -> Overlay | None:
    """What was made of the first `count` messages; None where edits reach beyond them."""
    found, made, facts, links = laid
    standing = len(made.spans) - _UNSTEADY
    if found.at >= count or any(fact.tokens is None for fact in facts[:standing]):
        return None
    start = made.array.start
    return Overlay(
        found=found,
        made=made.body[start : made.spans[standing - 1].end],
        start=start,
        spans=made.spans[:standing],
        facts=list(facts[:standing]),
        links=list(links[:standing]),
    )


def placed(found: Sequence[Span], shift: int) -> Sequence[Span]:
    """The same spans in a body where they begin `shift` bytes later."""
    return [span.shifted(shift) for span in found] if shift else found


def _rest(text: bytes, after: Span) -> list[Span] | None:
    """The elements that follow a stretch: its last message ends where `after` begins."""
    at = after.start
    while text[at : at + 1].isspace():
        at += 1
    if text[at : at + 1] != b",":
        return None
    # The comma's place is taken by the bracket that opens a list of what is left.
    piece = b"[" + text[at + 1 : after.end]
    try:
        return [span.shifted(at) for span in spans.elements(piece, Span(0, len(piece)))]
    except Unreadable:
        return None


def _head(text: bytes, array: Span) -> bytes:
    return text[array.start : min(array.end, array.start + _HEAD)]


def _sha(text: bytes) -> bytes:
    return hashlib.sha256(text).digest()
