"""What is kept of a conversation's beginning: a stretch of bytes, and what was found in it.

How one is recognised in a request says `recollect`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

import msgspec
from msgspec.structs import replace

from mitmcontext.condense.entries import Found
from mitmcontext.known import Fact
from mitmcontext.values import Request, Span
from mitmcontext.wire.api import Api, asks_for_an_hour

# The last messages are left out: clients move their cache markers in them from turn to turn.
_UNSTEADY: Final = 6
# To keep a longer stretch costs as much as to recognise one, so it is not done every time.
_GROWN: Final = 8
# So many of a stretch's ends are known, each some messages before the next.
_POINTS: Final = 8
# Shorter histories are read as quickly as they are recognised.
_LEAST: Final = 12
# So many bytes at a stretch's end tell it from most that begin alike.
_TAIL: Final = 64
# What a message takes beside its bytes: a span, a fact and a link.
_PER_MESSAGE: Final = 600


class Overlay(msgspec.Struct, frozen=True):
    """What a stretch becomes with an entry's frozen edits: its bytes, and what is known of them.

    `spans` are those of a body whose messages' array begins at `start`, as in `Stretch`; `tokens`
    are its messages' estimates.
    """

    found: Found
    made: bytes
    start: int
    spans: tuple[Span, ...]
    facts: list[Fact]
    tokens: tuple[int, ...]
    links: list[bytes]

    def up_to(self, messages: int, of: int) -> Overlay | None:
        """What of it stands for the first of so many messages; None where edits reach so far.

        What stands behind the last edit may depend on the message that follows it.
        """
        if self.found.at >= messages - 1:
            return None
        count = len(self.spans) - (of - messages)
        return replace(
            self,
            made=self.made[: self.spans[count - 1].end - self.start],
            spans=self.spans[:count],
            facts=self.facts[:count],
            tokens=self.tokens[:count],
            links=self.links[:count],
        )


class Point(NamedTuple):
    """How far a stretch goes: so many messages in so many bytes.

    `mark` is that of these bytes, `tail` the last of them. `hour` says that something in them asks
    for an hour in the provider's cache.
    """

    messages: int
    size: int
    mark: bytes
    tail: bytes
    hour: bool


class Stretch(msgspec.Struct, frozen=True):
    """The beginning of a messages array, up to and with a message, and what is known of it.

    `points` are its end, and the ends of the stretches that it grew from: who goes back to one of
    them is recognised as well. `api` is whose messages they are. `tokens` are the estimates of the
    messages; `tag` is what they and the facts depend on beside the bytes, `seed` what the links do.
    """

    points: tuple[Point, ...]
    api: str
    start: int
    spans: tuple[Span, ...]
    tag: bytes
    facts: list[Fact]
    tokens: tuple[int, ...]
    seed: bytes
    links: list[bytes]
    overlay: Overlay | None

    @property
    def end(self) -> Point:
        """How far all of it goes."""
        return self.points[0]

    def up_to(self, point: Point) -> Stretch:
        """What of it stands before one of its points."""
        if point is self.end:
            return self
        count, overlay = point.messages, self.overlay
        if overlay is not None:
            overlay = overlay.up_to(count, self.end.messages)
        return replace(
            self,
            points=self.points[self.points.index(point) :],
            spans=self.spans[:count],
            facts=self.facts[:count],
            tokens=self.tokens[:count],
            links=self.links[:count],
            overlay=overlay,
        )

    @property
    def weight(self) -> int:
        """About how many bytes of memory this takes."""
        laid = self.overlay
        more = len(laid.made) + len(laid.spans) * _PER_MESSAGE if laid else 0
        return len(self.spans) * _PER_MESSAGE + more


def is_due(stretch: Stretch | None, messages: int, found: Found | None) -> bool:
    """Whether to keep a new stretch for a request that was read with this one."""
    if stretch is None or messages - _UNSTEADY >= len(stretch.spans) + _GROWN:
        return True
    laid = stretch.overlay
    if found is None or found.at >= len(stretch.spans) - 1:
        return False
    return laid is None or not is_same(laid.found, found)


def is_same(one: Found, other: Found) -> bool:
    """Whether two look-ups found one and the same entry."""
    return one.at == other.at and (one.entry is other.entry or one.entry == other.entry)


def stretch_of(
    api: Api,
    request: Request,
    facts: Sequence[Fact],
    links: Sequence[bytes],
    tag: bytes,
    seed: bytes,
    overlay: tuple[Found, Request, Sequence[Fact], Sequence[bytes]] | None,
    mark: Callable[[memoryview], bytes],
    before: Stretch | None = None,
) -> Stretch | None:
    """What to keep of a request; None for one that is short, or not counted yet.

    And for one that hides something: its messages may be what says so.

    Args:
        api: whose request it is.
        request: as the client sent it.
        facts: of its messages.
        links: of its messages.
        tag: what the facts depend on beside the bytes.
        seed: what the links depend on beside the bytes.
        overlay: the entry that is laid over the request, and what was made, read likewise.
        mark: what a text is recognised by.
        before: the stretch that this request was recognised by.
    """
    count = len(request.spans) - _UNSTEADY
    tokens = tuple(fact.tokens for fact in facts[: max(0, count)] if fact.tokens is not None)
    if count < _LEAST or len(tokens) < count or request.hidden:
        return None
    start = request.array.start
    end = request.spans[count - 1].end
    points = [point for point in before.points if point.messages < count] if before else []
    hour, known = (points[0].hour, points[0].size) if points else (False, 0)
    whole = Point(
        messages=count,
        size=end - start,
        mark=mark(memoryview(request.body)[start:end]),
        tail=request.body[max(start, end - _TAIL) : end],
        hour=hour or asks_for_an_hour(request.body, start + known, end),
    )
    # People go back a few turns, or to where a conversation began.
    earlier = [*points[: _POINTS - 2], *points[-1:]] if len(points) >= _POINTS else points
    return Stretch(
        points=(whole, *earlier),
        api=api.name,
        start=start,
        spans=request.spans[:count],
        tag=tag,
        facts=list(facts[:count]),
        tokens=tokens,
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
    tokens = tuple(fact.tokens for fact in facts[:standing] if fact.tokens is not None)
    if found.at >= count - 1 or len(tokens) < standing:
        return None
    start = made.array.start
    return Overlay(
        found=found,
        made=made.body[start : made.spans[standing - 1].end],
        start=start,
        spans=made.spans[:standing],
        facts=list(facts[:standing]),
        tokens=tokens,
        links=list(links[:standing]),
    )
