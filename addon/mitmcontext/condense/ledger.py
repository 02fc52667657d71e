"""The conversation and its ledger of frozen edits.

Clients resend the whole history on each turn, and most of them name no session. So a conversation
*is* its content: a chain of digests, one link per message, that begins with the tenant, the API
and the model. Two conversations share their links up to where they part, so forks and rewinds
need no code of their own.

An entry belongs to the link of the last message that it edits. Whoever sends that stretch again
gets the same bytes again. A later step leaves an entry at a deeper link; where it edits nothing
deeper it takes the same link's next place. Freezing is insert-if-absent: of two steps at once the
first one wins and both use it.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import MutableMapping, Sequence
from functools import lru_cache
from typing import Final

import msgspec

WHOLE: Final = -1
"""The part index of an edit that stands for a whole message."""


class FrozenEdit(msgspec.Struct, frozen=True, array_like=True):
    """What became of one part (or, with WHOLE, of one message), by its place and its content.

    `text` takes its place: as the part's text, or as a user's message. None drops the message.
    Cache markers are never part of it: they come from the request at hand.
    """

    message: int
    part: int
    digest: bytes
    text: str | None


class Entry(msgspec.Struct, frozen=True, array_like=True):
    """All frozen edits of a conversation up to a link, and what the step that made them did.

    `before` and `after` are the request's estimated tokens; `level` is why the step was taken.
    """

    edits: tuple[FrozenEdit, ...]
    step: int
    before: int
    after: int
    level: str


class Found(msgspec.Struct, frozen=True):
    """An entry and the index of the message whose link it was found at."""

    at: int
    entry: Entry


_ENCODER: Final = msgspec.msgpack.Encoder()
_DECODER: Final = msgspec.msgpack.Decoder(Entry)


def chain(seed: bytes, digests: Sequence[bytes]) -> list[bytes]:
    """The link of each message: SHA-256 over the link before it and the message's digest.

    Both are 32 bytes, so their order alone keeps them apart.
    """
    links = []
    link = seed
    for digest in digests:
        link = hashlib.sha256(link + digest).digest()
        links.append(link)
    return links


class Ledger:
    """Frozen edits by link, over any mapping of bytes to bytes that can insert if absent."""

    def __init__(self, store: MutableMapping[bytes, bytes]) -> None:
        self._store = store
        self._freezing = threading.Lock()

    def find(self, links: Sequence[bytes]) -> Found | None:
        """The newest entry at the deepest link that has one, but for the last message's.

        Somebody who goes back to where an entry ends wants an answer to that message, not to a
        note about it.
        """
        if not self._store:
            return None
        for at in range(len(links) - 2, -1, -1):
            entry = self._get(links[at], 0)
            if entry is not None:
                return Found(at, self._newest(links[at], entry))
        return None

    def freeze(self, links: Sequence[bytes], entry: Entry, base: Found | None) -> Found:
        """Keep an entry, unless another one took its place meanwhile: then that one holds.

        Args:
            links: the conversation's links.
            entry: what to keep; it belongs to the last message that it edits.
            base: what the step was planned on.
        """
        # Two steps may belong to different links, so inserting if absent is not enough.
        with self._freezing:
            now = self.find(links)
            if now != base and now is not None:
                return now
            at = home(entry, base)
            place = self._place(links[at]) if base is not None and base.at == at else 0
            kept = self._store.setdefault(_key(links[at], place), _ENCODER.encode(entry))
            return Found(at, _decoded(kept))

    def retract(self, links: Sequence[bytes], found: Found) -> None:
        """Take an entry back, so that the one before it holds again."""
        place = self._place(links[found.at]) - 1
        if place >= 0 and self._get(links[found.at], place) == found.entry:
            self._store.pop(_key(links[found.at], place), None)

    def clear(self) -> None:
        """Forget everything."""
        self._store.clear()

    def _get(self, link: bytes, place: int) -> Entry | None:
        kept = self._store.get(_key(link, place))
        return None if kept is None else _decoded(kept)

    def _newest(self, link: bytes, entry: Entry) -> Entry:
        later = self._get(link, self._place(link) - 1)
        return entry if later is None else later

    def _place(self, link: bytes) -> int:
        place = 0
        while _key(link, place) in self._store:
            place += 1
        return place


@lru_cache(maxsize=64)
def _decoded(kept: bytes) -> Entry:
    """The entry; the same object for the same bytes, while they are in use."""
    return _DECODER.decode(kept)


def home(entry: Entry, base: Found | None) -> int:
    """The index of the message whose link an entry belongs to: the last one that it edits.

    A step that edits nothing deeper than the one before shares that one's link.
    """
    return max(base.at if base else 0, *(edit.message for edit in entry.edits))


def _key(link: bytes, place: int) -> bytes:
    return link + place.to_bytes(2, "big")
