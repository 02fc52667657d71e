"""How far a long measurement has come."""

from __future__ import annotations

import sys


class Progress:
    """A bar on a terminal, nothing elsewhere."""

    def __init__(self, what: str, total: int, every: int = 50) -> None:
        self._what, self._total, self._every = what, max(1, total), every
        self._shown = sys.stderr.isatty()

    def __call__(self, done: int) -> None:
        """Draw it, for so many that are done."""
        if self._shown and (done % self._every == 0 or done >= self._total):
            filled = min(30, 30 * done // self._total)
            bar = "#" * filled + "." * (30 - filled)
            end = "\n" if done >= self._total else ""
            print(f"\r{self._what:12} [{bar}] {done}/{self._total}", end=end, file=sys.stderr)
