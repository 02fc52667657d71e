"""What our questions have cost, by conversation, and whether one more may be asked."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Final

from cachetools import LRUCache

# By then a conversation is told from others of the same person that begin alike.
_ROOT: Final = 3


def root_of(links: Sequence[bytes]) -> bytes:
    """What a conversation is known by from its beginning on, however it goes on."""
    return links[min(_ROOT, len(links)) - 1]


class Purse:
    """Dollars spent, by the root of a conversation. The cache outlives a reload."""

    def __init__(self, kept: LRUCache[bytes, float]) -> None:
        self._kept = kept
        self._lock = threading.Lock()

    def take(self, root: bytes, price: float, allowed: float) -> bool:
        """Set so much aside for questions, unless that is more than is allowed in all."""
        with self._lock:
            spent = self._kept.get(root, 0.0) + price
            if price > 0 and spent > allowed:
                return False
            self._kept[root] = spent
            return True

    def settle(self, root: bytes, price: float, cost: float) -> None:
        """What was set aside has cost something else."""
        with self._lock:
            self._kept[root] = max(0.0, self._kept.get(root, 0.0) - price + cost)

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._kept.clear()
