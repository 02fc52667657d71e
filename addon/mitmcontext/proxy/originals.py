"""The bodies of shortened requests as the client sent them, for whoever wants to compare.

Kept where flows are (mitmweb, the console), compressed, in memory alone, bounded in bytes: the
oldest go first. What is forwarded is in the flow itself.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import zstandard
from cachetools import LRUCache

from mitmcontext.proxy import bodies

SIZE: Final = 64 << 20
"""Bytes of all of them together, as they are kept."""

_LEVEL: Final = 1
type Original = tuple[bytes, str, int]


def fresh() -> LRUCache[str, Original]:
    """Nothing yet; its values are plain tuples, which outlast a live reload."""
    return LRUCache(SIZE, getsizeof=lambda original: len(original[0]) + 200)


class Originals:
    """Original bodies by the number of their flow."""

    def __init__(self, kept: LRUCache[str, Original], largest: Callable[[], int]) -> None:
        self._kept = kept
        self._largest = largest

    def __contains__(self, flow: str) -> bool:
        return flow in self._kept

    def keep(self, flow: str, raw: bytes, coding: str) -> None:
        """Keep one. To be called off the event loop: it compresses what came uncompressed."""
        packed = raw if coding else _compressed(raw)
        if len(packed) < self._kept.maxsize // 4:
            self._kept[flow] = (packed, coding, len(raw))

    def find(self, flow: str) -> bytes | None:
        """What the client sent, decoded; None where it is not kept.

        Raises:
            Unreadable: it cannot be decoded.
        """
        found = self._kept.get(flow)
        if found is None:
            return None
        packed, coding, size = found
        if coding:
            return bodies.decode(packed, coding, self._largest())
        return zstandard.ZstdDecompressor().decompress(packed, max_output_size=size)

    def forget(self, flow: str) -> None:
        """Nobody can ask for this one any more."""
        self._kept.pop(flow, None)

    def clear(self) -> None:
        """Forget all of them."""
        self._kept.clear()


def _compressed(raw: bytes) -> bytes:
    """The body, compressed, and no larger in memory than it is.

    The compressor's own bytes are cut down from a buffer as large as the body; kept as they are,
    they would leave holes of that size in memory.
    """
    made = zstandard.ZstdCompressor(level=_LEVEL).compress(raw)
    return bytes(memoryview(made))
