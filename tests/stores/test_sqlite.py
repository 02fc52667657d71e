"""The store in a file: private, durable, and of no harm when the file is damaged."""

from __future__ import annotations

import os
import shutil
import sqlite3
import stat
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from tests.stores.makers import SIZE, Clock, sqlite

from mitmcontext.stores.base import OK
from mitmcontext.stores.sqlite import Sqlite

ADDON = Path(__file__).parents[2] / "addon"
YEAR = 366 * 24 * 3600.0


def file_of(folder: Path) -> Path:
    return folder / "cache" / "entries.sqlite"


def filled(folder: Path, count: int = 50) -> dict[bytes, bytes]:
    """Make a database with some entries in it."""
    entries = {b"key %d" % number: os.urandom(900) for number in range(count)}
    store = sqlite(folder)
    for key, value in entries.items():
        assert store.set(key, value, 3600)
    store.close()
    return entries


def run(code: str, *arguments: str) -> subprocess.Popen[bytes]:
    """Another Python process with the package on its path."""
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), *arguments],
        env={**os.environ, "PYTHONPATH": str(ADDON)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )


# Privacy


def test_folder_and_files_are_for_their_owner_alone(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        store = sqlite(tmp_path)
        store.set(b"key", b"value", 60)
    finally:
        os.umask(before)
    folder = tmp_path / "cache"
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert modes == dict.fromkeys(
        ["entries.sqlite", "entries.sqlite-wal", "entries.sqlite-shm"], 0o600
    )
    store.close()


def test_a_file_that_others_may_read_is_put_right(tmp_path: Path) -> None:
    entries = filled(tmp_path)
    file_of(tmp_path).chmod(0o644)
    store = sqlite(tmp_path)
    assert store.get_many(entries) == entries
    assert stat.S_IMODE(file_of(tmp_path).stat().st_mode) == 0o600


def test_an_empty_folder_that_others_may_read_is_put_right(tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir(mode=0o755)
    assert sqlite(tmp_path).figures().state == OK
    assert stat.S_IMODE((tmp_path / "cache").stat().st_mode) == 0o700


def linked_file(folder: Path) -> None:
    (folder / "cache").mkdir(mode=0o700)
    (folder / "elsewhere").write_bytes(b"")
    file_of(folder).symlink_to(folder / "elsewhere")


def linked_log(folder: Path) -> None:
    (folder / "cache").mkdir(mode=0o700)
    (folder / "elsewhere").write_bytes(b"")
    (folder / "cache" / "entries.sqlite-wal").symlink_to(folder / "elsewhere")


def linked_folder(folder: Path) -> None:
    (folder / "elsewhere").mkdir(mode=0o700)
    (folder / "cache").symlink_to(folder / "elsewhere")


def open_folder(folder: Path) -> None:
    (folder / "cache").mkdir(mode=0o755)
    (folder / "cache" / "notes.txt").write_text("somebody's")


def folder_for_a_file(folder: Path) -> None:
    file_of(folder).mkdir(parents=True)
    (folder / "cache").chmod(0o700)


@pytest.mark.parametrize(
    ("prepare", "reason"),
    [
        pytest.param(linked_file, "symbolic link", id="the file is a link"),
        pytest.param(linked_log, "symbolic link", id="the log is a link"),
        pytest.param(linked_folder, "symbolic link", id="the folder is a link"),
        pytest.param(open_folder, "open to others", id="the folder is open and in use"),
        pytest.param(folder_for_a_file, "no regular file", id="the file is a folder"),
    ],
)
def test_what_is_not_private_is_refused(
    tmp_path: Path, prepare: object, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert callable(prepare)
    prepare(tmp_path)
    store = sqlite(tmp_path)
    assert not store.set(b"key", b"value", 60)
    assert store.add(b"key", b"value", 60) is None
    assert reason in store.figures().state
    assert reason in caplog.text
    elsewhere = tmp_path / "elsewhere"
    if elsewhere.is_dir():
        assert not list(elsewhere.iterdir())
    elif elsewhere.exists():
        assert elsewhere.read_bytes() == b""


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="needs root to give away")
@pytest.mark.parametrize("what", ["cache", "cache/entries.sqlite"])
def test_what_belongs_to_somebody_else_is_refused(tmp_path: Path, what: str) -> None:
    filled(tmp_path)
    os.chown(tmp_path / what, 12_345, -1)
    store = sqlite(tmp_path)
    assert "belongs to somebody else" in store.figures().state


def test_nothing_of_what_was_cleared_is_left_in_the_files(tmp_path: Path) -> None:
    store = sqlite(tmp_path)
    for number in range(200):
        store.set(b"key %d" % number, b"planted text %d" % number * 20, 3600)
    (tmp_path / "cache" / "entries.sqlite.damaged-1").write_bytes(b"planted text, too")
    assert store.clear()
    for path in (tmp_path / "cache").iterdir():
        assert b"planted text" not in path.read_bytes()
    store.close()


# Times and room


def test_clocks_that_jump(tmp_path: Path) -> None:
    clock = Clock()
    store = sqlite(tmp_path, clock=clock)
    store.set(b"key", b"value", 3600)
    clock.wait(-60)
    assert store.get_many([b"key"]), "a little back is nothing"
    clock.wait(-YEAR)
    assert not store.get_many([b"key"]), "written in the future: nobody knows how old it is"
    assert store.add(b"key", b"new", 3600) == b"new"
    clock.wait(YEAR)
    assert not store.get_many([b"key"]), "expired long ago"
    assert store.add(b"key", b"newer", 3600) == b"newer"


def test_a_clock_that_was_wrong_for_a_while_costs_nothing(tmp_path: Path) -> None:
    clock = Clock()
    store = sqlite(tmp_path, clock=clock)
    store.set(b"key", b"value", 3600)
    clock.wait(-YEAR)
    store.clean_up()
    clock.wait(YEAR)
    assert store.get_many([b"key"]) == {b"key": b"value"}


def test_the_file_does_not_outgrow_its_bound_by_much(tmp_path: Path) -> None:
    store = sqlite(tmp_path, size=4 << 20)
    for number in range(3_000):
        store.set(b"key %d" % number, os.urandom(number % 20_000), 3600)
    assert file_of(tmp_path).stat().st_size < 1.4 * (4 << 20)
    figures = store.figures()
    assert figures.size is not None
    assert 3 << 20 < figures.size <= 4 << 20
    store.clear()
    assert file_of(tmp_path).stat().st_size < 1 << 17
    store.close()


def test_what_is_larger_than_the_bound_is_not_kept(tmp_path: Path) -> None:
    store = sqlite(tmp_path, size=2_000)
    store.set(b"key", b"small", 60)
    assert not store.set(b"key", bytes(2_000), 60)
    assert store.add(b"key", bytes(2_000), 60) is None
    assert store.get_many([b"key"]) == {}


# Damage


def check(folder: Path, entries: dict[bytes, bytes], *, named: bool) -> None:
    """The store works on, says nothing wrong, and the damaged file lies aside."""
    store = sqlite(folder)
    found = store.get_many(entries)
    assert all(found[key] == entries[key] for key in found)
    assert store.set(b"new", b"value", 60)
    assert store.get_many([b"new"]) == {b"new": b"value"}
    assert store.figures().state == OK
    store.close()
    assert (folder / "cache" / "entries.sqlite.damaged-1").exists() == named
    with closing(sqlite3.connect(file_of(folder))) as plain:
        assert plain.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def statement(sql: str) -> object:
    def damage(path: Path) -> None:
        with closing(sqlite3.connect(path)) as plain:
            plain.executescript(sql)

    return damage


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        pytest.param(lambda path: path.write_bytes(os.urandom(50_000)), True, id="garbage"),
        pytest.param(lambda path: path.write_text("{}"), True, id="another format"),
        pytest.param(lambda path: path.write_bytes(b""), False, id="zero length"),
        pytest.param(lambda path: path.unlink(), False, id="gone"),
        pytest.param(statement("PRAGMA user_version = 99"), True, id="newer schema"),
        pytest.param(
            statement("PRAGMA user_version = 0; PRAGMA application_id = 0"), True, id="older schema"
        ),
        pytest.param(statement("PRAGMA application_id = 7"), True, id="another program's"),
        pytest.param(statement("DROP TABLE totals"), True, id="a table is missing"),
        pytest.param(
            statement("PRAGMA journal_mode = DELETE"), False, id="another journal, which is fine"
        ),
        pytest.param(
            lambda path: path.with_name(path.name + "-wal").write_bytes(os.urandom(9_000)),
            False,
            id="a log of garbage, which SQLite ignores",
        ),
        pytest.param(
            lambda path: path.with_name(path.name + "-journal").write_bytes(os.urandom(9_000)),
            False,
            id="a journal of garbage, which SQLite ignores",
        ),
    ],
)
def test_a_damaged_file_is_set_aside(tmp_path: Path, damage: object, named: bool) -> None:
    entries = filled(tmp_path)
    assert callable(damage)
    damage(file_of(tmp_path))
    check(tmp_path, entries, named=named)


def test_truncated_at_every_page(tmp_path: Path) -> None:
    entries = filled(tmp_path, 80)
    whole = file_of(tmp_path).read_bytes()
    assert len(whole) > 20 * 4096
    for size in range(4096, len(whole), 4096):
        for cut in (size, size + 1_000):
            folder = tmp_path / str(cut)
            (folder / "cache").mkdir(parents=True, mode=0o700)
            file_of(folder).write_bytes(whole[:cut])
            check(folder, entries, named=True)
            shutil.rmtree(folder)


def test_damage_that_shows_up_only_later(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    entries = filled(tmp_path, 300)
    store = sqlite(tmp_path)
    with file_of(tmp_path).open("r+b") as file:
        file.truncate(5 * 4096)
        file.seek(2 * 4096)
        file.write(bytes(3 * 4096))
    found = store.get_many(entries)
    assert all(found[key] == entries[key] for key in found)
    assert store.set(b"new", b"value", 60)
    assert store.get_many([b"new"]) == {b"new": b"value"}
    assert "entries.sqlite.damaged-1" in caplog.text
    assert any(reason.startswith("damaged") for reason in store.figures().faults)


@contextmanager
def switching_often() -> Iterator[None]:
    """Threads take turns after each few steps, so that they meet wherever they may."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


def test_two_threads_that_meet_the_same_damage_set_aside_one_file(tmp_path: Path) -> None:
    filled(tmp_path, 300)
    store = sqlite(tmp_path)
    store.set(b"key", b"value", 60)
    with file_of(tmp_path).open("r+b") as file:
        file.write(os.urandom(40 * 4096))
    threads = [
        threading.Thread(target=store.get_many, args=[[b"key %d" % number]]) for number in range(6)
    ]
    threads += [
        threading.Thread(target=store.set, args=[b"key %d" % number, b"", 60])
        for number in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert store.set(b"new", b"value", 60)
    assert store.figures().state == OK
    aside = [path.name for path in (tmp_path / "cache").iterdir() if "damaged" in path.name]
    assert [name for name in aside if name.endswith("-1")] == ["entries.sqlite.damaged-1"]
    assert not any("damaged-2" in name for name in aside)


def test_damaged_a_second_time_it_stays_out_of_service(tmp_path: Path) -> None:
    filled(tmp_path)
    file_of(tmp_path).write_bytes(os.urandom(9_000))
    store = sqlite(tmp_path)
    assert store.set(b"key", b"value", 60)
    store._database._let_go()
    file_of(tmp_path).write_bytes(os.urandom(9_000))
    assert store.get_many([b"key"]) == {}
    assert "damaged again" in store.figures().state
    assert store.add(b"key", b"value", 60) is None


def test_a_transaction_that_can_neither_be_ended_nor_taken_back_ends_with_its_connection(
    tmp_path: Path,
) -> None:
    store, other = sqlite(tmp_path), sqlite(tmp_path)

    def keep(action: int, what: str | None, *_: str | None) -> int:
        ends = action == sqlite3.SQLITE_TRANSACTION and what in ("COMMIT", "ROLLBACK")
        return sqlite3.SQLITE_DENY if ends else sqlite3.SQLITE_OK

    with ThreadPoolExecutor(6) as threads, switching_often():
        for _ in range(50):
            assert store.set(b"key", b"before", 60)
            connection = store._database._writing.connection
            assert connection is not None
            connection.set_authorizer(keep)
            done = list(threads.map(lambda _: store.set(b"key", b"ours", 60), range(6)))
            # Whoever comes next gets a new connection, and nobody else is kept from writing.
            assert done.count(False) == 1
            assert other.set(b"key", b"others", 60)
            assert store.get_many([b"key"]) == {b"key": b"others"}
    assert store.figures().state == OK
    assert not [path for path in (tmp_path / "cache").iterdir() if "damaged" in path.name]


def test_only_so_many_damaged_files_are_kept(tmp_path: Path) -> None:
    for number in range(5):
        (tmp_path / "cache").mkdir(mode=0o700, exist_ok=True)
        file_of(tmp_path).write_bytes(b"garbage %d" % number * 600)
        sqlite(tmp_path).close()
    aside = sorted(path.name for path in (tmp_path / "cache").glob("*.damaged-*"))
    assert aside == ["entries.sqlite.damaged-1", "entries.sqlite.damaged-2"]
    assert (tmp_path / "cache" / aside[0]).read_bytes().startswith(b"garbage 4")


def test_the_logs_name_no_key_and_no_value(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(0)
    store = sqlite(tmp_path)
    store.set(b"secret key", b"secret value", 60)
    store.close()
    with file_of(tmp_path).open("r+b") as file:
        file.write(os.urandom(4096))
    store = sqlite(tmp_path)
    store.get_many([b"secret key"])
    store.close()
    assert "damaged" in caplog.text
    assert "secret" not in caplog.text


def test_a_file_that_was_removed_is_made_anew_at_the_next_clean_up(tmp_path: Path) -> None:
    store = sqlite(tmp_path)
    store.set(b"key", b"value", 60)
    shutil.rmtree(tmp_path / "cache")
    store.clean_up()
    assert store.add(b"key", b"new", 60) == b"new"
    assert sqlite(tmp_path).get_many([b"key"]) == {b"key": b"new"}


# What the system does to it


DISK_FULL = """
import resource, signal, sys, time
from pathlib import Path
from mitmcontext.stores.sqlite import Sqlite
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
store = Sqlite(Path(sys.argv[1]), 64 << 20)
assert store.set(b"first", b"value", 3600)
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, resource.RLIM_INFINITY))
kept = [number for number in range(60) if store.set(b"%d" % number, bytes(50_000), 3600)]
assert len(kept) < 60, kept
assert store.get_many([b"first"]) == {b"first": b"value"}, store.figures()
assert store.figures().state.startswith("set aside"), store.figures()
assert store.add(b"another", bytes(50_000), 3600) is None
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
time.sleep(2.2)
assert store.set(b"later", bytes(50_000), 3600), store.figures()
assert store.figures().state == "ok", store.figures()
assert len(store.get_many([b"%d" % number for number in kept])) == len(kept)
store.close()
"""


def test_a_full_disk_keeps_nobody_from_reading_and_is_over_when_it_is_over(tmp_path: Path) -> None:
    process = run(DISK_FULL, str(file_of(tmp_path)))
    process.communicate()
    assert process.returncode == 0
    with closing(sqlite3.connect(file_of(tmp_path))) as plain:
        assert plain.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


@contextmanager
def as_nobody(folder: Path) -> Iterator[None]:
    """Root may write anywhere, so become somebody else for a while."""
    if os.geteuid() != 0:
        yield
        return
    for path in (folder, *folder.rglob("*")):
        os.chown(path, 65_534, -1)
    os.seteuid(65_534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.mark.skipif(os.name != "posix", reason="modes as on POSIX")
def test_a_read_only_folder_is_no_error() -> None:
    folder = Path(tempfile.mkdtemp())
    try:
        filled(folder)
        (folder / "cache").chmod(0o500)
        file_of(folder).chmod(0o400)
        with as_nobody(folder):
            store = sqlite(folder)
            store.get_many([b"key 1"])
            assert store.add(b"key", b"value", 60) is None
            assert not store.set(b"key", b"value", 60)
            assert not store.clear()
            store.clean_up()
            store.close()
    finally:
        (folder / "cache").chmod(0o700)
        shutil.rmtree(folder)


@pytest.mark.skipif(os.name != "posix", reason="modes as on POSIX")
def test_a_folder_that_cannot_be_made_is_no_error() -> None:
    folder = Path(tempfile.mkdtemp())
    try:
        folder.chmod(0o500)
        with as_nobody(folder):
            store = sqlite(folder)
            assert store.add(b"key", b"value", 60) is None
            assert store.get_many([b"key"]) == {}
            store.close()
    finally:
        folder.chmod(0o700)
        shutil.rmtree(folder)


LOCKED = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN EXCLUSIVE")
print("locked", flush=True)
sys.stdin.read()
"""


def test_locked_by_another_process(tmp_path: Path) -> None:
    entries = filled(tmp_path)
    clock = Clock(time.time())
    store = Sqlite(file_of(tmp_path), SIZE, clock=Clock(), timer=clock)
    other = run(LOCKED, str(file_of(tmp_path)))
    assert other.stdout is not None
    assert other.stdout.readline()
    slowest = 0.0
    for number in range(30):
        began = time.perf_counter()
        assert store.add(b"new %d" % number, b"value", 60) is None
        assert store.get_many(entries) == entries
        slowest = max(slowest, time.perf_counter() - began)
    assert slowest < 0.3
    assert store.figures().state.startswith("set aside")
    assert store.figures().faults == {"sqlite_busy": 3}
    other.communicate()
    clock.wait(3)
    assert store.add(b"new", b"value", 60) == b"value"
    assert store.figures().state == OK
    store.close()


def test_locked_while_it_is_opened(tmp_path: Path) -> None:
    entries = filled(tmp_path)
    with closing(sqlite3.connect(file_of(tmp_path))) as plain:
        plain.execute("PRAGMA journal_mode = DELETE")
    other = run(LOCKED, str(file_of(tmp_path)))
    assert other.stdout is not None
    assert other.stdout.readline()
    began = time.perf_counter()
    store = sqlite(tmp_path)
    assert store.get_many(entries) == {}
    assert time.perf_counter() - began < 1
    other.communicate()
    assert store.get_many(entries) == entries
    store.close()


MAKE = """
import sys
from pathlib import Path
from mitmcontext.stores.sqlite import Sqlite
sys.stdin.readline()
store = Sqlite(Path(sys.argv[1]), 1 << 20)
print(store.add(b"key", sys.argv[2].encode(), 60).decode(), store.figures().state, flush=True)
"""


def test_processes_that_make_the_file_at_once_agree(tmp_path: Path) -> None:
    others = [run(MAKE, str(file_of(tmp_path)), str(number)) for number in range(4)]
    time.sleep(0.5)
    for other in others:
        assert other.stdin is not None
        other.stdin.write(b"\n")
        other.stdin.flush()
    said = {other.communicate()[0] for other in others}
    assert len(said) == 1
    assert said.pop().split()[1] == b"ok"
