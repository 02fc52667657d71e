"""What is frozen of a conversation: edits, the entry that holds them, and how it is kept."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Final

import msgspec
import zstandard

WHOLE: Final = -1
"""The part index of an edit that stands for a whole message."""


class FrozenEdit(msgspec.Struct, frozen=True, array_like=True):
    """What became of one part (or, with WHOLE, of one message), by its place and its content.

    `text` takes its place: as the part's text, or as a user's message. None drops the message or
    removes the part.
    Cache markers are never part of it: they come from the request at hand.
    """

    message: int
    part: int
    digest: bytes
    text: str | None


class Entry(msgspec.Struct, frozen=True, array_like=True):
    """All frozen edits of a conversation up to a link, and what the step that made them did.

    `before` and `after` are the request's estimated tokens; `level` is why the step was taken.
    `earlier` are the links of the entries that this one went on from. Where `born` is set, results
    behind the message with this index are reduced before they are first sent; an entry may be there
    for that alone, without a step. `since` is the message that has to follow for the edits to hold:
    what they remove was part of a turn that it ended.
    """

    edits: tuple[FrozenEdit, ...]
    step: int
    before: int
    after: int
    level: str
    earlier: tuple[bytes, ...] = ()
    born: int | None = None
    since: int = 0


class Found(msgspec.Struct, frozen=True):
    """An entry and the index of the message whose link it was found at."""

    at: int
    entry: Entry


_ENCODER: Final = msgspec.msgpack.Encoder()
_DECODER: Final = msgspec.msgpack.Decoder(Entry)
# An entry is mostly text, and holds what the ones before it held. What it may unpack to is bounded
# by the largest body there may be.
_LARGEST: Final = 256 << 20


@lru_cache(maxsize=64)
def decoded(kept: bytes) -> Entry:
    """The entry; the same object for the same bytes, while they are in use."""
    return _DECODER.decode(zstandard.ZstdDecompressor().decompress(kept, max_output_size=_LARGEST))


def packed(entry: Entry) -> bytes:
    """As it is kept; equal for equal entries."""
    return zstandard.ZstdCompressor().compress(_ENCODER.encode(entry))


def is_same(one: Found, other: Found) -> bool:
    """Whether two look-ups found the same, also where one was before a live reload.

    A reload makes new classes, and values of two classes are never equal.
    """
    return one.at == other.at and is_same_entry(one.entry, other.entry)


def are_same(some: Sequence[FrozenEdit], others: Sequence[FrozenEdit]) -> bool:
    """The same of edits."""
    return _ENCODER.encode(some) == _ENCODER.encode(others)


def is_same_entry(one: Entry, other: Entry) -> bool:
    """The same of entries."""
    return one is other or _ENCODER.encode(one) == _ENCODER.encode(other)


def home(entry: Entry, base: Found | None) -> int:
    """The index of the message whose link an entry belongs to: the last one that it depends on.

    A step that edits nothing deeper than the one before shares that one's link. Where results are
    reduced at birth, it is none before the message from which on they are.
    """
    first = (base.at if base else 0, entry.born or 0, entry.since)
    return max(*first, *(edit.message for edit in entry.edits))
