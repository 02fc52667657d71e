"""A circuit breaker: after some failures in a row a thing is left alone for a while."""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Final

from mitmcontext.stores.base import OK

_log: Final = logging.getLogger(__name__)


class Breaker:
    """Counts failures by reason and says whether to try. Safe for threads.

    Args:
        name: what it is that fails, for the log.
        timer: seconds that never go backwards.
        failures: so many in a row open the circuit.
        seconds: how long it stays open. Then one call tries; if that fails, as long again.
    """

    def __init__(
        self, name: str, timer: Callable[[], float], failures: int, seconds: float
    ) -> None:
        self._name = name
        self._timer = timer
        self._failures = failures
        self._seconds = seconds
        self._lock = threading.Lock()
        self._in_a_row = 0
        self._until: float | None = None
        self._for_good = False
        self._reason = ""
        self._faults: Counter[str] = Counter()

    @property
    def state(self) -> str:
        """The word "ok", or "set aside: " and the reason."""
        with self._lock:
            out = self._for_good or self._until is not None
            return f"set aside: {self._reason}" if out else OK

    @property
    def faults(self) -> Mapping[str, int]:
        """How many failures of each kind there were."""
        with self._lock:
            return dict(self._faults)

    def allows(self) -> bool:
        """Whether to try. With the circuit open, one caller at a time is let through."""
        with self._lock:
            if self._for_good:
                return False
            if self._until is None:
                return True
            now = self._timer()
            if now < self._until:
                return False
            self._until = now + self._seconds
            return True

    def worked(self) -> None:
        """Take note that it worked: the circuit is closed."""
        # Nearly always there is nothing to note; this is on the hot path.
        if not self._in_a_row:
            return
        with self._lock:
            back = self._until is not None
            self._in_a_row, self._until = 0, None
        if back:
            _log.info("mitmcontext: %s is back in service", self._name)

    def ready(self) -> None:
        """Take note that the cause is gone: the next call may try, rather than one in a while."""
        with self._lock:
            if self._until is not None:
                self._until = self._timer()

    def count(self, reason: str) -> None:
        """Count something that went wrong but says nothing about the next call."""
        with self._lock:
            self._faults[reason] += 1

    def failed(self, reason: str) -> None:
        """Take note that it failed."""
        with self._lock:
            self._faults[reason] += 1
            self._in_a_row += 1
            self._reason = reason
            news = self._until is None and self._in_a_row >= self._failures
            if news or self._until is not None:
                self._until = self._timer() + self._seconds
        if news:
            _log.warning("mitmcontext: %s is set aside for now: %s", self._name, reason)

    def stop(self, reason: str) -> None:
        """Leave it alone for good."""
        with self._lock:
            news, self._for_good = not self._for_good, True
            self._reason = reason
            self._faults[reason] += 1
        if news:
            _log.warning("mitmcontext: %s is out of service: %s", self._name, reason)
