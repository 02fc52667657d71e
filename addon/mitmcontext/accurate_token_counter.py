"""Counting tokens from a program of one's own, under the names that the specification gives.

    counter = AccurateTokenCounter("gpt-4o")
    tokens = await counter.count_tokens_async({"role": "user", "content": "Hello"})

A figure is what the message adds to a request, by the same estimate that the addon makes: text,
images by their size, calls, and the wrapping of each. Counting happens in threads, beside the event
loop and on all cores, since the tokenizers let others run meanwhile.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import math
import os
import threading
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from typing import Any, Final

import msgspec
from cachetools import LRUCache

from mitmcontext.tokens import vocabulary
from mitmcontext.tokens.estimate import message_tokens
from mitmcontext.tokens.families import family_of
from mitmcontext.wire.api import message_of
from mitmcontext.wire.openai_chat import CHAT

_log = logging.getLogger(__name__)

Message = Mapping[str, Any]

ENTRY: Final = 200
"""About how many bytes the count of one message takes in memory, its key included."""

_SIZE: Final = 16 << 20
_SMALLEST: Final = 100 * ENTRY
_LARGEST: Final = 256 << 20
# Counting less than this takes less time than asking a thread to do it.
_AT_ONCE: Final = 512
_NEW_PER_REQUEST: Final = 2
_KEPT_MINUTES: Final = 60

_loading = threading.Lock()


class AccurateTokenCounter:
    """Counts messages, each only once.

    Args:
        model: whose tokens; by default those of a model that nobody knows.
        cache_size: bytes for what was counted, see `optimize_cache_size`.
    """

    def __init__(self, model: str = "", cache_size: int = _SIZE) -> None:
        self._family = family_of(model, CHAT.name)
        self._counted: LRUCache[bytes, int] = LRUCache(max(1, cache_size // ENTRY))
        self._lock = threading.Lock()
        self.hits = 0
        self.misses = 0

    async def count_tokens_async(self, message: Message) -> int:
        """The tokens of a message: `content` is a text or a list of parts, `role` may be left out.

        Raises:
            TypeError: no mapping, or something in it that JSON has no way to write.
        """
        raw = _encoded(message)
        key = hashlib.sha256(raw).digest()
        with self._lock:
            known = self._counted.get(key)
            self.hits += known is not None
            self.misses += known is None
        if known is not None:
            return known
        count = partial(self._count, raw)
        loop = asyncio.get_running_loop()
        small = len(raw) <= _AT_ONCE and _is_loaded(self._family.encoding)
        tokens = count() if small else await loop.run_in_executor(_threads(), count)
        with self._lock:
            self._counted[key] = tokens
        return tokens

    def _count(self, raw: bytes) -> int:
        count = partial(vocabulary.count, _encoder(self._family.encoding))
        return message_tokens(message_of(CHAT, raw), self._family, count)

    def statistics(self) -> dict[str, float]:
        """How often a count was known, and what that takes: `hit_ratio` is a share."""
        with self._lock:
            asked = self.hits + self.misses
            return {
                "hits": self.hits,
                "misses": self.misses,
                "hit_ratio": self.hits / asked if asked else 0.0,
                "entries": len(self._counted),
                "memory_bytes": len(self._counted) * ENTRY,
                "limit_bytes": int(self._counted.maxsize) * ENTRY,
            }


async def batch_token_count(
    messages_batch: Iterable[Message], counter: AccurateTokenCounter | None = None
) -> list[int]:
    """The tokens of each message, in order, counted on all cores at once."""
    by = counter or AccurateTokenCounter()
    return list(await asyncio.gather(*map(by.count_tokens_async, messages_batch)))


def optimize_cache_size(requests_per_minute: float, avg_message_length: float) -> int:
    """How many bytes a cache of counts should have, to keep what an hour brings.

    A count takes the same room however long its message is. But what a long message (a thousand
    characters and more) takes to count anew is more, so up to twice as many of those are kept.
    Never less than a hundred messages, never more than 256 MB.
    """
    new = max(0.0, requests_per_minute) * _NEW_PER_REQUEST * _KEPT_MINUTES
    worth = min(2.0, max(1.0, avg_message_length / 1_000))
    return min(_LARGEST, max(_SMALLEST, math.ceil(new * worth) * ENTRY))


async def warm_up_caches() -> None:
    """Load what the first count would wait for: the vocabulary, and the tables of families.

    Counts of single texts are not worth it; those of conversations the addon itself keeps on disk.
    """
    loop = asyncio.get_running_loop()
    await loop.run_in_executor(_threads(), _encoder, family_of("", CHAT.name).encoding)
    _log.info("mitmcontext: the vocabulary is loaded")


def _encoded(message: Message) -> bytes:
    if not isinstance(message, Mapping):
        raise TypeError("a message is a mapping with content")
    said = {"role": "user", **message}
    try:
        return msgspec.json.encode(said)
    except UnicodeEncodeError:  # a lone surrogate
        return msgspec.json.encode(_readable(said))


def _readable(value: Any) -> Any:
    """The same with the replacement character for what is no text."""
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, Mapping):
        return {key: _readable(one) for key, one in value.items()}
    return [_readable(one) for one in value] if isinstance(value, list | tuple) else value


@cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="mitmcontext-tokens")


_encoders: dict[str, vocabulary.Encoder] = {}


def _is_loaded(name: str) -> bool:
    return name in _encoders


def _encoder(name: str) -> vocabulary.Encoder:
    with _loading:
        if name not in _encoders:
            _encoders[name] = vocabulary.load(name)
        return _encoders[name]
