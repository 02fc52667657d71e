"""Whether there is more to do than the event loop can do at once."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

# Over so many seconds is measured how much the loop computes, and for how many clients; where no
# request came for longer, there was a pause.
_SAMPLE: Final = 0.1
_PAUSE: Final = 0.25
# One client whose requests follow each other keeps the loop as busy as many do, but nobody waits
# for another's. And where counting takes the other cores, the loop itself is at work half the time.
_SHARE: Final = 0.5
_CLIENTS: Final = 8


class Load:
    """How busy the event loop is. To be used in its thread only.

    Args:
        clock: seconds that pass.
        work: seconds that this thread computes.
    """

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        work: Callable[[], float] = time.thread_time,
    ) -> None:
        self._clock = clock
        self._work = work
        self._clients: set[str] = set()
        self._since = clock()
        self._worked = work()
        self._was_heavy = False

    @property
    def is_heavy(self) -> bool:
        """Whether, a moment ago, many clients sent requests and the loop was busy mostly."""
        return self._was_heavy and self._clock() - self._since < _PAUSE

    def came(self, client: str) -> None:
        """A request came; `client` is the id of the connection that it came by."""
        self._clients.add(client)
        now = self._clock()
        passed = now - self._since
        if passed >= _SAMPLE:
            worked = self._work()
            busy = worked - self._worked >= _SHARE * passed and passed < _PAUSE
            self._was_heavy = busy and len(self._clients) >= _CLIENTS
            self._since, self._worked = now, worked
            self._clients.clear()
