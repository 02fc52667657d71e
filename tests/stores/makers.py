"""Stores for tests: each kind fresh, with a clock that the test turns."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from mitmcontext.stores.base import Store
from mitmcontext.stores.memory_store import Memory, cells
from mitmcontext.stores.sealed import Sealed
from mitmcontext.stores.sqlite import Sqlite

KEY = bytes(range(32))
SIZE = 1 << 20


@dataclass
class Clock:
    """Seconds that pass when the test says so."""

    now: float = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now

    def wait(self, seconds: float) -> None:
        self.now += seconds


@dataclass
class Made:
    """A store, and how to let time pass for it."""

    store: Store
    wait: Callable[[float], None] = field(default=time.sleep)


def memory(size: int = SIZE, clock: Clock | None = None) -> Memory:
    return Memory(cells(size, clock or Clock()))


def sqlite(folder: Path, size: int = SIZE, clock: Clock | None = None) -> Sqlite:
    turned = clock or Clock()
    return Sqlite(folder / "cache" / "entries.sqlite", size, clock=turned, timer=turned)


def sealed(store: Store, clock: Clock, purpose: str = "tests") -> Sealed:
    return Sealed(store, KEY, purpose, clock)
