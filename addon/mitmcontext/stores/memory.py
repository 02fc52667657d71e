"""The store in memory: cachetools' least-recently-used caches, bounded in bytes."""

from __future__ import annotations

import threading
from collections.abc import Iterator, MutableMapping
from typing import Any, TypeVar, overload

from cachetools import Cache, LRUCache

_T = TypeVar("_T")

# What an entry costs beside its key and value: two bytes objects, and the cache's own links.
_OVERHEAD = 300


def entry_size(value: bytes) -> int:
    """What an entry counts as, in bytes; keys are digests of 32 to 64 bytes."""
    return len(value) + _OVERHEAD


def lru(size: int) -> Cache[bytes, bytes]:
    """A cache of at most `size` bytes."""
    return LRUCache(size, getsizeof=entry_size)


def lock_of(cache: Cache[Any, Any]) -> threading.Lock:
    """The lock that belongs to a cache, whichever object uses it: over a live reload two do."""
    lock: threading.Lock = cache.__dict__.setdefault("mitmcontext_lock", threading.Lock())
    return lock


class MemoryStore(MutableMapping[bytes, bytes]):
    """A cachetools cache made safe for threads.

    The cache itself is handed in, so that it can outlive this object over a live reload. What is
    larger than the cache is not kept, which is no error.
    """

    def __init__(self, cache: Cache[bytes, bytes]) -> None:
        self._cache = cache
        self._lock = lock_of(cache)

    @property
    def size(self) -> int:
        """The bytes that are held, as `entry_size` counts them."""
        return int(self._cache.currsize)

    def __getitem__(self, key: bytes) -> bytes:
        with self._lock:
            return self._cache[key]

    @overload
    def get(self, key: bytes, default: None = None, /) -> bytes | None: ...

    @overload
    def get(self, key: bytes, default: _T, /) -> bytes | _T: ...

    def get(self, key: bytes, default: _T | None = None, /) -> bytes | _T | None:
        """As a mapping's, without an exception for what is missing: this is on the hot path."""
        with self._lock:
            return self._cache.get(key, default)

    def __setitem__(self, key: bytes, value: bytes) -> None:
        with self._lock:
            if entry_size(value) <= self._cache.maxsize:
                self._cache[key] = value

    def __delitem__(self, key: bytes) -> None:
        with self._lock:
            del self._cache[key]

    def __iter__(self) -> Iterator[bytes]:
        with self._lock:
            return iter(list(self._cache))

    def __len__(self) -> int:
        with self._lock:
            return len(self._cache)

    def __contains__(self, key: object) -> bool:
        with self._lock:
            return key in self._cache

    def setdefault(self, key: bytes, default: bytes = b"") -> bytes:
        """Insert if absent, in one step; return what holds now."""
        with self._lock:
            if key in self._cache:
                return self._cache[key]
            if entry_size(default) <= self._cache.maxsize:
                self._cache[key] = default
            return default

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._cache.clear()
