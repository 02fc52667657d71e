"""Whom not to ask for a while: who is busy, who refuses the key, and what went wrong before."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from cachetools import LRUCache

from mitmcontext.proxy.asking import Answer, Trouble

_FIRST: Final = 15.0
_LONGEST: Final = 1_800.0
_REFUSED: Final = 3_600.0
_KEPT: Final = 10_000


class Patience:
    """Waits longer with each failure in a row, for providers and for conversations alike.

    Args:
        clock: seconds that never go back.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        # Until when, and the failures in a row.
        self._until: LRUCache[bytes, tuple[float, int]] = LRUCache(_KEPT)

    def is_over(self, name: bytes) -> bool:
        """Whether it may be asked again."""
        return self._clock() >= self._until.get(name, (0.0, 0))[0]

    def succeeded(self, name: bytes) -> None:
        """It answered, and the answer was used."""
        self._until.pop(name, None)

    def failed(self, name: bytes, wait: float | None = None) -> None:
        """It did not: leave it alone, for as long as it says or twice as long as last time."""
        times = self._until.get(name, (0.0, 0))[1]
        own = min(_LONGEST, _FIRST * 2**times)
        self._until[name] = self._clock() + max(own, wait or 0.0), min(times + 1, 16)

    def heard(self, tenant: bytes, answer: Answer) -> None:
        """What an answer says of the provider's willingness."""
        if answer.fault == Trouble.REFUSED:
            self._until[tenant] = self._clock() + _REFUSED, 0
        elif answer.fault in (Trouble.BUSY, Trouble.CONNECTION, Trouble.REDIRECT, Trouble.STATUS):
            self.failed(tenant, answer.wait)
        elif answer.status:
            self.succeeded(tenant)

    def clear(self) -> None:
        """Forget everything."""
        self._until.clear()
