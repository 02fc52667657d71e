"""The first tier: a store in memory, with a time to live for each entry."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Final

from cachetools import TLRUCache

from mitmcontext.stores.base import Figures, Kept
from mitmcontext.stores.memory import lock_of

# What an entry takes beside key and value: the cache's links, its place in the order of expiry,
# a tuple, a number, two headers. Measured: 461 on 64-bit CPython 3.13.
OVERHEAD: Final = 500

Cell = tuple[bytes, bytes, float]
"""Key, value, and when it expires by the cache's timer. No class of ours, so that a cache can
outlive a reload of the code."""


def cell_size(cell: Cell) -> int:
    """What an entry counts as, in bytes."""
    return len(cell[0]) + len(cell[1]) + OVERHEAD


def cells(size: int, timer: Callable[[], float] = time.monotonic) -> TLRUCache[bytes, Cell]:
    """A cache of at most `size` bytes; the least recently used entries go first."""
    return TLRUCache(size, ttu=lambda _, cell, __: cell[2], timer=timer, getsizeof=cell_size)


class Memory:
    """A store over a cache made by `cells`, which is handed in to outlive this object."""

    def __init__(self, cache: TLRUCache[bytes, Cell]) -> None:
        self._cache = cache
        self._lock = lock_of(cache)
        self._hits = 0
        self._misses = 0

    def get_many(self, keys: Iterable[bytes]) -> dict[bytes, bytes]:
        found = {}
        asked = 0
        with self._lock:
            get = self._cache.get
            for key in keys:
                asked += 1
                cell = get(key)
                if cell is not None:
                    found[key] = cell[1]
            self._count(asked, len(found))
        return found

    def look_up(self, keys: Iterable[bytes]) -> dict[bytes, Kept]:
        wanted = list(keys)
        with self._lock:
            now = self._now()
            held = {key: cell for key in wanted if (cell := self._cache.get(key)) is not None}
            self._count(len(wanted), len(held))
        return {key: Kept(cell[1], cell[2] - now) for key, cell in held.items()}

    def set(self, key: bytes, value: bytes, seconds: float) -> bool:
        with self._lock:
            return self._set(key, value, seconds)

    def add(self, key: bytes, value: bytes, seconds: float) -> bytes | None:
        with self._lock:
            cell = self._cache.get(key)
            if cell is not None:
                return cell[1]
            return value if self._set(key, value, seconds) else None

    def replace(self, key: bytes, old: bytes, value: bytes, seconds: float) -> bool:
        with self._lock:
            cell = self._cache.get(key)
            return cell is not None and cell[1] == old and self._set(key, value, seconds)

    def extend(self, key: bytes, seconds: float) -> bool:
        with self._lock:
            cell = self._cache.get(key)
            if cell is None:
                return False
            if self._now() + seconds > cell[2]:
                self._set(key, cell[1], seconds)
            return True

    def delete(self, keys: Iterable[bytes]) -> bool:
        with self._lock:
            for key in keys:
                self._cache.pop(key, None)
        return True

    def clear(self) -> bool:
        with self._lock:
            self._cache.clear()
        return True

    def clean_up(self) -> int:
        with self._lock:
            return len(self._cache.expire())

    def close(self) -> None:
        """Do nothing: whoever made the cache may want to keep it."""

    def figures(self) -> Figures:
        with self._lock:
            self._cache.expire()
            size = int(self._cache.currsize)
            return Figures(len(self._cache), size, self._hits, self._misses)

    def _now(self) -> float:
        return float(self._cache.timer())

    def _set(self, key: bytes, value: bytes, seconds: float) -> bool:
        cell = (key, value, self._now() + seconds)
        if seconds <= 0 or cell_size(cell) > self._cache.maxsize:
            # What was there is no longer true.
            self._cache.pop(key, None)
            return False
        self._cache[key] = cell
        return True

    def _count(self, asked: int, found: int) -> None:
        self._hits += found
        self._misses += asked - found
