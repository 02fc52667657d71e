"""An SQLite file in use: its two connections, and what becomes of it when something fails."""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, TypeVar

from mitmcontext.stores.base import OK
from mitmcontext.stores.breaker import Breaker
from mitmcontext.stores.opening import (
    Damaged,
    inode_of,
    is_damage,
    open_database,
    reason_of,
    set_aside,
)
from mitmcontext.stores.private import Refused

# Three locks in a row cost 150 ms of some thread's time; then one try each two seconds.
_FAILURES: Final = 3
_AWAY_SECONDS: Final = 2.0

_T = TypeVar("_T")
_log: Final = logging.getLogger(__name__)

Work = Callable[[sqlite3.Connection], _T]


class _Moved(Exception):
    """Another file lies there now, or none: what is written to the open one would be lost."""


class _Side:
    """One of the two ways to the file: a connection, who uses it, and how it fares."""

    def __init__(self, name: str, timer: Callable[[], float]) -> None:
        self.lock = threading.Lock()
        self.breaker = Breaker(name, timer, _FAILURES, _AWAY_SECONDS)
        self.connection: sqlite3.Connection | None = None

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep everybody else from it.

        A connection that comes out of it within a transaction, since not even rolling back was
        possible, is closed, which ends that: it would keep all others from writing, and refuse to
        begin another one, which looks like damage.
        """
        with self.lock:
            try:
                yield
            finally:
                if self.connection is not None and self.connection.in_transaction:
                    self.let_go()

    def let_go(self) -> None:
        connection, self.connection = self.connection, None
        if connection is not None:
            with suppress(sqlite3.Error):
                connection.close()


class Database:
    """The file at `path`. Reading and writing have a connection each.

    So who looks up does not wait until another thread's write has its turn, and a full disk does
    not keep anybody from reading.
    """

    def __init__(self, path: Path, timer: Callable[[], float] = time.monotonic) -> None:
        self.path = path
        self._reading = _Side("the database", timer)
        self._writing = _Side("writing to the database", timer)
        self._sides = (self._reading, self._writing)
        # The file that is open, so that only that one is ever set aside, and not its successor.
        self._inode: int | None = None
        # Counts the times that both connections were closed, so that of two threads that meet
        # the same damage only one acts on it.
        self._generation = 0
        self._recreated = False
        self._closed = False

    @property
    def state(self) -> str:
        """The word "ok", or "set aside: " and the reason."""
        states = [side.breaker.state for side in self._sides]
        return next((state for state in states if state != OK), OK)

    @property
    def faults(self) -> Mapping[str, int]:
        """How often something went wrong, by reason."""
        faults: Counter[str] = Counter()
        for side in self._sides:
            faults.update(side.breaker.faults)
        return faults

    def read(self, work: Work[_T], default: _T) -> _T:
        """Do some work that only reads, or give the default if that is not possible."""
        return self._run(self._reading, work, default)

    def write(self, work: Work[_T], default: _T) -> _T:
        """Do some work, or give the default if that is not possible."""
        return self._run(self._writing, work, default)

    def look_after(self) -> None:
        """Open the file anew if it is no longer the one at its path."""
        self.write(self._check_place, None)

    def close(self) -> None:
        """Close both connections for good."""
        with self._both():
            self._closed = True
            self._let_go()

    def _run(self, side: _Side, work: Work[_T], default: _T) -> _T:
        """Do some work with a side's connection, or give the default if that is not possible.

        Where the file turns out to be damaged, the work is done once more, on a new one.
        """
        for _ in range(2):
            if not side.breaker.allows():
                return default
            done, result = self._try(side, work, default)
            if done:
                return result
        return default

    def _try(self, side: _Side, work: Work[_T], default: _T) -> tuple[bool, _T]:
        """Whether that was all, and what to answer then."""
        generation = self._generation
        try:
            with side.held():
                generation = self._generation
                if self._closed:
                    return True, default
                result = work(self._opened(side))
        # A damaged file can hold numbers and types that no sound one does.
        except (
            sqlite3.Error,
            OSError,
            Damaged,
            Refused,
            _Moved,
            OverflowError,
            MemoryError,
            TypeError,
            ValueError,
        ) as error:
            return not self._failed(side, error, generation), default
        side.breaker.worked()
        return True, result

    def _opened(self, side: _Side) -> sqlite3.Connection:
        if side.connection is None:
            side.connection = open_database(self.path, check=self._inode is None)
            self._inode = inode_of(self.path)
        return side.connection

    def _failed(self, side: _Side, error: Exception, generation: int) -> bool:
        """Act on an error; whether it is worth trying again at once."""
        if isinstance(error, Refused):
            self._stop(str(error))
            return False
        if isinstance(error, _Moved):
            side.breaker.count("the file was moved or removed")
            with self._both():
                self._let_go()
            return True
        if is_damage(error):
            self._set_aside(side, reason_of(error), generation)
            return True
        side.breaker.failed(reason_of(error))
        code = getattr(error, "sqlite_errorcode", None)
        if code is None or code & 0xFF not in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_FULL):
            # After most errors a new connection has the better chance.
            with side.lock:
                side.let_go()
        return False

    def _set_aside(self, side: _Side, reason: str, generation: int) -> None:
        """Go on with a new file, once. If that one is damaged, too, something else is wrong."""
        with self._both():
            if generation != self._generation:
                # The other side has seen to it.
                return
            inode = self._let_go()
            if self._recreated:
                self._stop(f"damaged again: {reason}")
                return
            try:
                name = set_aside(self.path, inode)
            except OSError as error:
                side.breaker.failed(reason_of(error))
                return
            self._recreated = name is not None
        side.breaker.count(f"damaged: {reason}")
        if name is not None:
            _log.warning("mitmcontext: the database is damaged (%s), now %s", reason, name)

    def _let_go(self) -> int | None:
        """Close both connections, to open what lies there next time; which file that was."""
        inode, self._inode = self._inode, None
        self._generation += 1
        for side in self._sides:
            side.let_go()
        return inode

    @contextmanager
    def _both(self) -> Iterator[None]:
        with self._reading.lock, self._writing.lock:
            yield

    def _stop(self, reason: str) -> None:
        for side in self._sides:
            side.breaker.stop(reason)

    def _check_place(self, _: sqlite3.Connection) -> None:
        if inode_of(self.path) != self._inode:
            raise _Moved
