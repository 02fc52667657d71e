"""The second tier: a store in an SQLite file, shared by the processes of one machine.

What was added survives the end of the process, however sudden. When an entry was last used is
kept in memory at first and written down before anything is evicted, so that reading stays reading.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import batched
from pathlib import Path
from typing import Final

from mitmcontext.stores.base import Figures, Kept
from mitmcontext.stores.database import Database
from mitmcontext.stores.opening import OVERHEAD, Damaged, remove_aside

# Clocks are set back a little now and then. What was written further ahead than this comes from a
# clock that was wrong, and nobody knows how old it is.
_AHEAD_SECONDS: Final = 300.0
# So many uses are noted down at most before they are written.
_MOST_USES: Final = 4096
# The sizes that look-ups come in, so that SQLite has few statements to prepare.
_BATCHES: Final = (1, 8, 64, 512)
_REMOVED_AT_ONCE: Final = 500
# Beyond what clocks count in microseconds, and well below what SQLite's numbers end at.
_LAST_USE: Final = 1 << 60
_OLDEST: Final = "SELECT id, size FROM entries ORDER BY used LIMIT 64"

_PUT: Final = (
    "INSERT INTO entries (key, value, written, expires, used) VALUES (?, ?, ?, ?, ?)"
    " ON CONFLICT (key) DO UPDATE SET value = excluded.value, written = excluded.written,"
    " expires = excluded.expires, used = excluded.used"
)


class Sqlite:
    """A store in the file at `path`, of at most `size` bytes; the longest unused entries go first.

    Args:
        path: the file; its folder must be ours alone, and is made if there is none.
        size: of keys and values, and 300 bytes for each entry. The file may be a third larger.
        clock: seconds since 1970, for how long entries live: they outlive the process.
        timer: seconds that never go backwards, for how long a fault is left alone.
    """

    def __init__(
        self,
        path: Path,
        size: int,
        *,
        clock: Callable[[], float] = time.time,
        timer: Callable[[], float] = time.monotonic,
    ) -> None:
        self._database = Database(path, timer)
        self._size = size
        self._clock = clock
        self._uses: dict[bytes, int] = {}
        self._uses_lock = threading.Lock()
        self._hits = 0
        self._misses = 0
        # Whatever is wrong with the file is known, and put right, before it is needed.
        self._last_use = self._database.read(_newest_use, 0)

    def get_many(self, keys: Iterable[bytes]) -> dict[bytes, bytes]:
        return {key: kept.value for key, kept in self.look_up(keys).items()}

    def look_up(self, keys: Iterable[bytes]) -> dict[bytes, Kept]:
        wanted = list(dict.fromkeys(keys))
        found: dict[bytes, Kept] = {}

        def look(connection: sqlite3.Connection) -> None:
            now = self._clock()
            for batch in batched(wanted, _BATCHES[-1]):
                rows = _select(connection, batch, now)
                found.update({key: Kept(value, expires - now) for key, value, expires in rows})

        if wanted:
            self._database.read(look, None)
            self._note(wanted, found)
        return found

    def set(self, key: bytes, value: bytes, seconds: float) -> bool:
        def put(connection: sqlite3.Connection) -> bool:
            with _transaction(connection):
                if not self._fits(key, value, seconds):
                    # What was there is no longer true.
                    connection.execute("DELETE FROM entries WHERE key = ?", (key,))
                    return False
                self._put(connection, key, value, seconds)
            return True

        return self._database.write(put, default=False)

    def add(self, key: bytes, value: bytes, seconds: float) -> bytes | None:
        def put(connection: sqlite3.Connection) -> bytes | None:
            with _transaction(connection):
                for _, held, _ in _select(connection, [key], self._clock()):
                    self._use_of(key)
                    return held
                if not self._fits(key, value, seconds):
                    return None
                self._put(connection, key, value, seconds)
            return value

        return self._database.write(put, None)

    def replace(self, key: bytes, old: bytes, value: bytes, seconds: float) -> bool:
        def put(connection: sqlite3.Connection) -> bool:
            with _transaction(connection):
                rows = _select(connection, [key], self._clock())
                if not rows or rows[0][1] != old or not self._fits(key, value, seconds):
                    return False
                self._put(connection, key, value, seconds)
            return True

        return self._database.write(put, default=False)

    def extend(self, key: bytes, seconds: float) -> bool:
        def put(connection: sqlite3.Connection) -> bool:
            now = self._clock()
            changed = connection.execute(
                "UPDATE entries SET expires = max(expires, :until), used = :used"
                " WHERE key = :key AND written <= :latest AND expires > :now",
                {
                    "until": now + seconds,
                    "used": self._use(),
                    "key": key,
                    "now": now,
                    "latest": now + _AHEAD_SECONDS,
                },
            )
            return changed.rowcount > 0

        return self._database.write(put, default=False)

    def delete(self, keys: Iterable[bytes]) -> bool:
        named = [(key,) for key in keys]

        def remove(connection: sqlite3.Connection) -> bool:
            with _transaction(connection):
                connection.executemany("DELETE FROM entries WHERE key = ?", named)
            return True

        return self._database.write(remove, default=False)

    def clear(self) -> bool:
        def remove(connection: sqlite3.Connection) -> bool:
            with _transaction(connection):
                connection.execute("DELETE FROM entries")
                connection.execute("UPDATE totals SET entries = 0, size = 0")
            remove_aside(self._database.path)
            connection.execute("PRAGMA incremental_vacuum").fetchall()
            # The log still holds what was written lately. A reader may keep it from being cut.
            return bool(connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] == 0)

        return self._database.write(remove, default=False)

    def clean_up(self) -> int:
        removed = 0
        while some := self._database.write(self._remove_expired, 0):
            removed += some
        self._database.look_after()
        self._database.write(self._tidy, None)
        return removed

    def close(self) -> None:
        self._database.write(self._settle, None)
        self._database.close()

    def figures(self) -> Figures:
        def totals(connection: sqlite3.Connection) -> tuple[int | None, int | None]:
            entries, size = connection.execute("SELECT entries, size FROM totals").fetchone()
            return int(entries), int(size)

        nothing: tuple[int | None, int | None] = (None, None)
        held = self._database
        entries, size = held.read(totals, nothing)
        return Figures(entries, size, self._hits, self._misses, held.state, held.faults)

    def _fits(self, key: bytes, value: bytes, seconds: float) -> bool:
        return seconds > 0 and len(key) + len(value) + OVERHEAD <= self._size

    def _put(
        self, connection: sqlite3.Connection, key: bytes, value: bytes, seconds: float
    ) -> None:
        now = self._clock()
        connection.execute(_PUT, (key, value, now, now + seconds, self._use()))
        with self._uses_lock:
            self._uses.pop(key, None)
            crowded = len(self._uses) > _MOST_USES
        excess = _held(connection) - self._size
        if excess > 0 or crowded:
            self._write_uses(connection)
        if excess > 0:
            self._evict(connection, excess)

    def _evict(self, connection: sqlite3.Connection, excess: int) -> None:
        """Make room: first what has expired, then what was not used for longest."""
        connection.execute("DELETE FROM entries WHERE expires <= ?", (self._clock(),))
        excess = _held(connection) - self._size
        while excess > 0:
            oldest = connection.execute(_OLDEST).fetchall()
            if not oldest:
                return
            for number, size in oldest:
                connection.execute("DELETE FROM entries WHERE id = ?", (number,))
                excess -= size
                if excess <= 0:
                    return

    def _remove_expired(self, connection: sqlite3.Connection) -> int:
        """Some of what has expired: other processes get their turn in between."""
        gone = connection.execute(
            "DELETE FROM entries WHERE id IN"
            " (SELECT id FROM entries WHERE expires <= ? ORDER BY expires LIMIT ?)",
            (self._clock(), _REMOVED_AT_ONCE),
        )
        return gone.rowcount

    def _tidy(self, connection: sqlite3.Connection) -> None:
        self._settle(connection)
        connection.execute(
            "UPDATE totals SET (entries, size) = (SELECT count(*), total(size) FROM entries)"
        )
        # Each page is a row of the answer.
        connection.execute("PRAGMA incremental_vacuum").fetchall()
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def _use(self) -> int:
        """A number for "now" in the order of uses."""
        with self._uses_lock:
            self._last_use = max(self._last_use + 1, int(self._clock() * 1e6))
            return self._last_use

    def _note(self, asked: Sequence[bytes], found: Collection[bytes]) -> None:
        with self._uses_lock:
            self._hits += len(found)
            self._misses += len(asked) - len(found)
            self._last_use = max(self._last_use, int(self._clock() * 1e6))
            # In the order they were asked for, not in the index's.
            for key in (key for key in asked if key in found):
                self._last_use += 1
                self._uses[key] = self._last_use

    def _use_of(self, key: bytes) -> None:
        used = self._use()
        with self._uses_lock:
            self._uses[key] = used

    def _settle(self, connection: sqlite3.Connection) -> None:
        with _transaction(connection):
            self._write_uses(connection)

    def _write_uses(self, connection: sqlite3.Connection) -> None:
        with self._uses_lock:
            uses, self._uses = self._uses, {}
        connection.executemany(
            "UPDATE entries SET used = ? WHERE key = ? AND used < ?",
            [(use, key, use) for key, use in uses.items()],
        )


@contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    finally:
        # Some errors have rolled back already.
        if connection.in_transaction:
            connection.execute("ROLLBACK")


def _newest_use(connection: sqlite3.Connection) -> int:
    """Where counting goes on: clocks may stand still, or have gone back since then."""
    found = connection.execute("SELECT max(used) FROM entries").fetchone()[0]
    newest = 0 if found is None else int(found)
    if newest > _LAST_USE:
        raise Damaged("a row is damaged")
    return newest


def _held(connection: sqlite3.Connection) -> int:
    return int(connection.execute("SELECT size FROM totals").fetchone()[0])


def _select(
    connection: sqlite3.Connection, keys: Sequence[bytes], now: float
) -> list[tuple[bytes, bytes, float]]:
    """Key, value and expiry of the entries that live, none of them but for these keys."""
    most = next(size for size in _BATCHES if size >= len(keys))
    places = ", ".join("?" * most)
    rows = connection.execute(
        f"SELECT key, value, expires FROM entries WHERE key IN ({places})"  # noqa: S608
        " AND written <= ? AND expires > ?",
        (*keys, *[keys[-1]] * (most - len(keys)), now + _AHEAD_SECONDS, now),
    ).fetchall()
    asked = set(keys)
    for key, value, expires in rows:
        # An index that points to the wrong row, or a column of another type.
        if key not in asked or not isinstance(value, bytes) or not isinstance(expires, float):
            raise Damaged("a row is damaged")
    return rows
