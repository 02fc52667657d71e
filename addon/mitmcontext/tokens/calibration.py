"""Estimates corrected by what the provider reported for earlier requests.

The first, simple form: per key (a host, a model and a tenant, say) the median of the last few
ratios. A median, so that no single odd answer moves it; clamped, so that nothing moves it far.
"""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from collections.abc import Iterable
from statistics import median

RATIOS_KEPT = 5
SMALLEST_ESTIMATE = 1_000  # below, constants weigh more than the text that the ratio is meant for
LOWEST, HIGHEST = 0.5, 3.0
TELLING = 0.1  # no estimate is so far off: below, a server said only what it had not cached


class Calibration:
    """Ratios of reported to estimated input tokens, for at most `keys` keys, latest used kept."""

    def __init__(self, keys: int = 1_000) -> None:
        self._bound = keys
        self._lock = threading.Lock()
        self._ratios: OrderedDict[str, deque[float]] = OrderedDict()

    def learn(self, key: str, estimated: int, reported: int) -> None:
        """Take note of one answer: uncorrected estimate and reported size of the same body."""
        if estimated < SMALLEST_ESTIMATE or not reported > TELLING * estimated:
            return
        with self._lock:
            ratios = self._ratios.setdefault(key, deque(maxlen=RATIOS_KEPT))
            ratios.append(min(max(reported / estimated, LOWEST), HIGHEST))
            self._ratios.move_to_end(key)
            while len(self._ratios) > self._bound:
                self._ratios.popitem(last=False)

    def factor(self, key: str) -> float:
        """What to multiply an estimate by; 1.0 where nothing was learned."""
        with self._lock:
            ratios = self._ratios.get(key)
            if not ratios:
                return 1.0
            self._ratios.move_to_end(key)
            return median(ratios)

    def ratios(self, key: str) -> tuple[float, ...]:
        """What was learned, the oldest first; to be kept and given to `restore`."""
        with self._lock:
            return tuple(self._ratios.get(key, ()))

    def restore(self, key: str, ratios: Iterable[float]) -> None:
        """Take over what was learned elsewhere, in place of what was known here."""
        sound = [ratio for ratio in ratios if LOWEST <= ratio <= HIGHEST]
        if sound:
            with self._lock:
                self._ratios[key] = deque(sound, maxlen=RATIOS_KEPT)
                self._ratios.move_to_end(key)

    def __len__(self) -> int:
        """The number of keys known."""
        return len(self._ratios)
