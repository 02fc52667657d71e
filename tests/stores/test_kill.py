"""A process that writes is killed again and again: what it was told is kept, is kept.

The environment variable MITMCONTEXT_KILL_ROUNDS says how often (20 times if unset).
"""

from __future__ import annotations

import hashlib
import os
import random
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

from mitmcontext.stores.sealed import Sealed
from mitmcontext.stores.sqlite import Sqlite

ADDON = Path(__file__).parents[2] / "addon"
ROUNDS = int(os.environ.get("MITMCONTEXT_KILL_ROUNDS", "20"))
SIZE = 1 << 30
KEY = bytes(range(32))

# Two threads: one freezes, the other makes the file move as much as it can.
WRITER = """
import hashlib, os, sys, threading
from pathlib import Path
from mitmcontext.stores.sealed import Sealed
from mitmcontext.stores.sqlite import Sqlite

store = Sealed(Sqlite(Path(sys.argv[1]), 1 << 30), bytes(range(32)), "tests")
first = int(sys.argv[2])

def value(key):
    seed = hashlib.sha256(key).digest()
    return seed * (1 + seed[0] * seed[1] % 600)

def disturb():
    while True:
        for number in range(40):
            store.set(b"moving %d" % number, os.urandom(number * 900), 3600)
            store.get_many([b"moving %d" % other for other in range(40)])
            store.extend(b"moving %d" % number, 7200)
        store.delete([b"moving %d" % number for number in range(0, 40, 3)])
        store.clean_up()

threading.Thread(target=disturb, daemon=True).start()
number = first
while True:
    key = b"key %d" % number
    if store.add(key, value(key), 3600) == value(key):
        os.write(1, b"%d\\n" % number)
    number += 1
"""


def value(key: bytes) -> bytes:
    seed = hashlib.sha256(key).digest()
    return seed * (1 + seed[0] * seed[1] % 600)


def killed(path: Path, first: int, seconds: float) -> list[int]:
    """Let a process write for a while, kill it, and give what it said was kept."""
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path), str(first)],
        env={**os.environ, "PYTHONPATH": str(ADDON)},
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    said = process.stdout.readline()
    time.sleep(seconds)
    process.kill()
    said += process.stdout.read()
    process.wait()
    process.stdout.close()
    # The last line may have been cut short by the kill.
    return [int(line) for line in said.split(b"\n")[:-1]]


def check(path: Path, numbers: list[int]) -> None:
    """All of these are there, and right; the file is sound."""
    store = Sealed(Sqlite(path, SIZE), KEY, "tests")
    keys = [b"key %d" % number for number in numbers]
    for start in range(0, len(keys), 500):
        some = keys[start : start + 500]
        assert store.get_many(some) == {key: value(key) for key in some}
    figures = store.figures()
    store.close()
    assert figures.state == "ok"
    assert not figures.faults
    with closing(sqlite3.connect(path)) as plain:
        assert plain.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        counted = plain.execute("SELECT count(*), total(size) FROM entries").fetchone()
        assert plain.execute("SELECT entries, size FROM totals").fetchone() == counted


def test_what_add_has_returned_survives_kill_9(tmp_path: Path) -> None:
    path = tmp_path / "cache" / "entries.sqlite"
    chance = random.Random(9)
    kept: list[int] = []
    for _ in range(ROUNDS):
        first = kept[-1] + 2 if kept else 0
        kept_now = killed(path, first, chance.uniform(0, 0.15))
        assert kept_now
        check(path, kept_now)
        kept += kept_now
    check(path, kept)
    names = {found.name for found in path.parent.iterdir()}
    assert names <= {"entries.sqlite", "entries.sqlite-wal", "entries.sqlite-shm"}
