"""Token counts that survive a restart: one value for each conversation.

Counting a long conversation anew takes a quarter of a second of one core. What was counted is
kept as digests and numbers beside what is frozen, and looked up once, when a conversation comes of
which nothing is known.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from cachetools import LRUCache

from mitmcontext.known import Known, tag
from mitmcontext.pipeline import Reading
from mitmcontext.stores.base import Store

# Half of a SHA-256 tells messages of one conversation apart; the tokens take four bytes more.
_NAME: Final = 16
_ROW: Final = _NAME + 4
_MOST: Final = 2**32 - 1
# Counting less than this costs about as little as looking it up.
WORTH_KEEPING: Final = 64 << 10
_KEPT: Final = 30 * 86_400.0  # or less, where frozen edits are kept for less
_CONVERSATIONS: Final = 10_000


class KeptCounts:
    """Counts by conversation, in a store that outlives the process.

    Args:
        far: the store.
        named: a keyed digest of what a conversation is recognised by.
        kept: for how many seconds, at most.
    """

    def __init__(self, far: Store, named: Callable[[bytes], bytes], kept: float = _KEPT) -> None:
        self._kept = min(_KEPT, kept)
        self._far = far
        self._named = named
        self._lock = threading.Lock()
        self._unkept: LRUCache[bytes, int] = LRUCache(_CONVERSATIONS)

    def take_over(self, reading: Reading, known: Known) -> None:
        """Look up what was counted of this conversation, where much of it is unknown here."""
        if uncounted(reading) < WORTH_KEEPING:
            return
        name = self._name_of(reading)
        kept = self._far.get_many([name]).get(name)
        if kept is not None and len(kept) % _ROW == 0:
            known.adopt(reading.facts, dict(_rows(kept)), _NAME)

    def keep(self, reading: Reading, tokens: Sequence[int], counted: int) -> None:
        """Keep the counts of a conversation of which so many bytes were counted just now."""
        name = self._name_of(reading)
        with self._lock:
            unkept = self._unkept.get(name, 0) + counted
            self._unkept[name] = unkept if unkept < WORTH_KEEPING else 0
        if unkept >= WORTH_KEEPING:
            rows = zip(reading.facts, tokens, strict=True)
            packed = [fact.key[:_NAME] + min(own, _MOST).to_bytes(4, "big") for fact, own in rows]
            self._far.set(name, b"".join(packed), self._kept)

    def _name_of(self, reading: Reading) -> bytes:
        """By what a conversation begins with: two messages, so that its forks share it."""
        head = reading.links[min(1, len(reading.links) - 1)]
        return self._named(tag(reading.api, reading.family) + head)


def uncounted(reading: Reading) -> int:
    """How many bytes of messages were never counted."""
    first = len(reading.counted)
    return sum(
        end - start
        for (start, end), fact in zip(
            reading.request.spans[first:], reading.facts[first:], strict=True
        )
        if fact.tokens is None
    )


def _rows(kept: bytes) -> Iterator[tuple[bytes, int]]:
    for at in range(0, len(kept), _ROW):
        yield kept[at : at + _NAME], int.from_bytes(kept[at + _NAME : at + _ROW], "big")
