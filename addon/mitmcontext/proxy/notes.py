"""Summaries that are ready for the next step of a conversation.

They belong to the link of the last message that they stand for: who sends that stretch again, to
the byte, may use them, and nobody else. Where several proxies share a store, they share these, too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import msgspec
from cachetools import TLRUCache

from mitmcontext.condense.summaries.fold import Summary
from mitmcontext.stores.memory_store import Cell, Memory
from mitmcontext.stores.tiers import Tiers

_Kept = tuple[tuple[int, int, str], ...]
_DECODER: Final = msgspec.msgpack.Decoder(_Kept)


class Notes:
    """Summaries by link.

    Args:
        near: the cache in memory; it outlives a reload.
        far: the store that other proxies share; None where there is none.
        named: makes a key for it of a link.
    """

    def __init__(
        self, near: TLRUCache[bytes, Cell], far: Tiers | None, named: Callable[[bytes], bytes]
    ) -> None:
        self._near = Memory(near)
        self._far = far
        self._named = named

    def find(self, links: Sequence[bytes]) -> tuple[bytes, tuple[Summary, ...]] | None:
        """The deepest that there is, and its link. The last message is never part of it.

        May take some milliseconds where there is a far store.
        """
        found = self._near.get_many(links[:-1])
        if not found and self._far is not None:
            names = {self._named(link): link for link in links[:-1]}
            got = self._far.get_latest(list(names))
            found = {names[name]: value for name, value in got.items()}
        link = next((link for link in reversed(links[:-1]) if link in found), None)
        return None if link is None else (link, _decoded(found[link]))

    def has(self, link: bytes) -> bool:
        """Whether there is one in memory at this very link."""
        return bool(self._near.get_many([link]))

    def keep(self, link: bytes, summaries: Sequence[Summary], seconds: float) -> None:
        """Keep summaries for so long."""
        kept: _Kept = tuple((one.first, one.end, one.text) for one in summaries)
        value = msgspec.msgpack.encode(kept)
        self._near.set(link, value, seconds)
        if self._far is not None:
            self._far.set(self._named(link), value, seconds)

    def clear(self) -> None:
        """Forget those in memory."""
        self._near.clear()


def _decoded(value: bytes) -> tuple[Summary, ...]:
    return tuple(Summary(*one) for one in _DECODER.decode(value))
