"""Opening the file that the SQLite store lies in, and setting it aside when it is damaged."""

from __future__ import annotations

import os
import sqlite3
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from mitmcontext.stores.private import check_file, private_file, private_folder

if sys.platform != "win32":
    import fcntl

BUSY_SECONDS: Final = 0.05
"""How long a statement waits for another process's lock."""

OVERHEAD: Final = 300
"""What a row takes beside key and value: the second copy of the key and three indexes."""

KEPT_ASIDE: Final = 2
"""So many damaged files are kept, for whoever wants to know; the oldest makes room."""

_APPLICATION: Final = 0x6D63_7478
_VERSION: Final = 1
_CHECK_SECONDS: Final = 2.0
_STEPS: Final = 100_000
_TRIES: Final = 20
_TRY_SECONDS: Final = 0.01

_DAMAGE: Final = (
    sqlite3.SQLITE_CORRUPT,
    sqlite3.SQLITE_NOTADB,
    sqlite3.SQLITE_ERROR,
    sqlite3.SQLITE_TOOBIG,
)
# Beside the database: the write-ahead log, its index, and the journal of other modes, which
# SQLite would play back if somebody put one there.
_BESIDE: Final = ("", "-wal", "-shm", "-journal")

# `written` and `expires` are seconds of the wall clock, `used` counts microseconds of it but never
# goes backwards within a process. Triggers keep the totals, so that they are right in every
# process, and no statement here has to remember them.
_SCHEMA: Final = f"""
CREATE TABLE entries (
    id INTEGER PRIMARY KEY,
    key BLOB NOT NULL UNIQUE,
    value BLOB NOT NULL,
    size INTEGER NOT NULL GENERATED ALWAYS AS (length(key) + length(value) + {OVERHEAD}) STORED,
    written REAL NOT NULL,
    expires REAL NOT NULL,
    used INTEGER NOT NULL
);
CREATE INDEX entries_by_expiry ON entries (expires);
CREATE INDEX entries_by_use ON entries (used, size);
CREATE TABLE totals (entries INTEGER NOT NULL, size INTEGER NOT NULL);
INSERT INTO totals VALUES (0, 0);
CREATE TRIGGER entry_made AFTER INSERT ON entries BEGIN
    UPDATE totals SET entries = entries + 1, size = size + new.size;
END;
CREATE TRIGGER entry_changed AFTER UPDATE OF value ON entries BEGIN
    UPDATE totals SET size = size + new.size - old.size;
END;
CREATE TRIGGER entry_removed AFTER DELETE ON entries BEGIN
    UPDATE totals SET entries = entries - 1, size = size - old.size;
END;
"""  # noqa: S608 - only our own number is put in


class Damaged(Exception):
    """The file holds something else than it must. The message says what, in a word or two."""


def open_database(path: Path, check: bool) -> sqlite3.Connection:
    """A connection to the database at `path`, which is made if there is none.

    Args:
        path: in a folder that is ours alone, or is made so.
        check: whether to look through all pages for damage first.

    Raises:
        Damaged: it is of another version, or a page is damaged.
        Refused: file or folder are not private.
        sqlite3.Error: it cannot be opened, or is damaged.
        OSError: likewise.
    """
    private_folder(path.parent)
    with _alone(path.parent):
        for beside in _BESIDE[1:]:
            check_file(path.with_name(path.name + beside))
        # SQLite gives the files beside the same mode.
        private_file(path)
        connection = sqlite3.connect(
            path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False
        )
        try:
            _prepare(connection)
        except BaseException:
            connection.close()
            raise
    try:
        if check:
            _look_through(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def set_aside(path: Path, inode: int | None) -> str | None:
    """Rename a damaged database, with the files beside it, to NAME.damaged-N.

    Args:
        path: the database.
        inode: the damaged file; another one that has taken its place is left alone. None: any.

    Returns:
        The new name; None where another process has done so already.

    Raises:
        OSError: that is not possible.
    """
    with _alone(path.parent):
        if inode is not None and inode_of(path) != inode:
            return None
        name = _free(path)
        for beside in _BESIDE:
            with suppress(FileNotFoundError):
                path.with_name(path.name + beside).replace(path.with_name(name + beside))
    return name


def inode_of(path: Path) -> int | None:
    """Which file lies there, if there is one."""
    try:
        return path.stat().st_ino
    except FileNotFoundError:
        return None


def remove_aside(path: Path) -> None:
    """Remove the databases that were set aside.

    Raises:
        OSError: that is not possible.
    """
    for number in range(1, KEPT_ASIDE + 1):
        _remove(path, f"{path.name}.damaged-{number}")


def is_damage(error: Exception) -> bool:
    """Whether an error says that the file is damaged, rather than out of reach for now.

    A plain SQLITE_ERROR is one, since all statements here are right: a table or column is missing.
    """
    if isinstance(error, sqlite3.Error):
        code = getattr(error, "sqlite_errorcode", None)
        return code is not None and code & 0xFF in _DAMAGE
    # Numbers, types and sizes that no sound row has.
    return isinstance(error, (Damaged, OverflowError, TypeError, ValueError))


def reason_of(error: Exception) -> str:
    """What went wrong, in words that quote nothing."""
    if isinstance(error, Damaged):
        return str(error)
    if isinstance(error, sqlite3.Error):
        name = getattr(error, "sqlite_errorname", None)
        return str(name or type(error).__name__).lower()
    if isinstance(error, OSError):
        return f"{type(error).__name__} {error.errno}"
    return type(error).__name__


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Keep other processes from making or renaming the file meanwhile.

    Waits a fifth of a second at most: then somebody is stuck, and SQLite's own locks must do.
    """
    if sys.platform == "win32":
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        for _ in range(_TRIES):
            with suppress(BlockingIOError):
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            time.sleep(_TRY_SECONDS)
        yield
    finally:
        os.close(handle)


def _prepare(connection: sqlite3.Connection) -> None:
    # A damaged page may claim to hold text where there is none.
    connection.text_factory = bytes
    execute = connection.execute
    # What was flipped on disk must not run as SQL beyond plain statements, nor be read out of
    # bounds; and a file that shrinks under a memory map would end the process.
    execute("PRAGMA trusted_schema = OFF")
    execute("PRAGMA cell_size_check = ON")
    execute("PRAGMA mmap_size = 0")
    # A removed entry's bytes are overwritten: "forget" means it.
    execute("PRAGMA secure_delete = ON")
    execute("PRAGMA temp_store = MEMORY")
    found = _version(connection)
    if found == (0, 0):
        # Has to come before the first page is written.
        execute("PRAGMA auto_vacuum = INCREMENTAL")
    elif found != (_APPLICATION, _VERSION):
        raise Damaged("another version")
    execute("PRAGMA journal_mode = WAL")
    # What was committed lies in the operating system's hands, so that killing the process loses
    # nothing. Only a loss of power may lose the last entries; the file stays sound.
    execute("PRAGMA synchronous = NORMAL")
    if found == (0, 0):
        _create(connection)


def _create(connection: sqlite3.Connection) -> None:
    connection.execute("BEGIN IMMEDIATE")
    try:
        found = _version(connection)
        if found == (0, 0):
            for statement in _statements():
                connection.execute(statement)
            connection.execute(f"PRAGMA application_id = {_APPLICATION}")
            connection.execute(f"PRAGMA user_version = {_VERSION}")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    # Another process may have been faster, and of another version.
    if _version(connection) != (_APPLICATION, _VERSION):
        raise Damaged("another version")


def _statements() -> list[str]:
    """The schema's statements one by one: executescript would commit in between."""
    found, piece = [], ""
    for line in _SCHEMA.splitlines():
        piece += line + "\n"
        if sqlite3.complete_statement(piece):
            found.append(piece)
            piece = ""
    return found


def _version(connection: sqlite3.Connection) -> tuple[int, int]:
    """Application and version; somebody else's database without either counts as neither."""
    application = connection.execute("PRAGMA application_id").fetchone()[0]
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if (application, version) == (0, 0):
        tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        if tables:
            return -1, -1
    return application, version


def _look_through(connection: sqlite3.Connection) -> None:
    """Have SQLite check every page; on a large file as far as it gets in two seconds."""
    end = time.monotonic() + _CHECK_SECONDS
    connection.set_progress_handler(lambda: time.monotonic() > end, _STEPS)
    try:
        found = connection.execute("PRAGMA quick_check(1)").fetchall()
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode != sqlite3.SQLITE_INTERRUPT:
            raise
        return
    finally:
        connection.set_progress_handler(None, 0)
    if found != [(b"ok",)]:
        raise Damaged("a page is damaged")


def _free(path: Path) -> str:
    """The name to set a database aside under: one that is free, or else the oldest one's."""
    names = [f"{path.name}.damaged-{number}" for number in range(1, KEPT_ASIDE + 1)]
    taken = []
    for name in names:
        try:
            taken.append((os.lstat(path.with_name(name)).st_mtime, name))
        except FileNotFoundError:
            return name
    oldest = min(taken)[1]
    _remove(path, oldest)
    return oldest


def _remove(path: Path, name: str) -> None:
    for beside in _BESIDE:
        path.with_name(name + beside).unlink(missing_ok=True)
