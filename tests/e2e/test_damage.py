"""What is kept is damaged, locked or out of reach: traffic flows on, nothing wrong is served."""

from __future__ import annotations

import os
import random
import secrets
import shutil
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from pathlib import Path

import pytest
from tests.e2e.fixture_types import Connect, StartProxy, Stats
from tests.e2e.judging import OPTION, WINDOW, Line, bodies, looking_into

from loopback import child
from loopback.certificates import Certificates
from loopback.child import Child
from loopback.client import Connection
from loopback.provider import HOSTS, Provider, serving, with_windows
from loopback.redis_server import RealRedis

FLIPS = int(os.environ.get("MITMCONTEXT_FLIPS", "80"))
"""So many bits are flipped in all: one half of them on the disk, the other in Redis."""

BUSY = {"no step in time"}
"""What a machine that is busy with something else may cause, and damage may not."""

_FIRST = 24
"""The turn that conversations begin with here: it is far too long, so there is a step at once."""


def kept_in(folder: Path) -> dict[str, str]:
    return {"CONTEXT_CACHE_DIR": str(folder)}


def flipped(data: bytes, bits: int, chance: random.Random) -> bytes:
    """The same bytes with some bits turned over."""
    changed = bytearray(data)
    for at in chance.sample(range(len(data) * 8), bits):
        changed[at // 8] ^= 1 << at % 8
    return bytes(changed)


def flip_files(folder: Path, bits: int, chance: random.Random) -> None:
    """Flip bits in the database and its log, wherever they lie."""
    files = [path for path in folder.iterdir() if path.name in ("ledger.db", "ledger.db-wal")]
    held = [path.read_bytes() for path in files]
    data = flipped(b"".join(held), bits, chance)
    for path, old in zip(files, held, strict=True):
        path.write_bytes(data[: len(old)])
        data = data[len(old) :]


def flip_values(redis: RealRedis, bits: int, chance: random.Random) -> None:
    """Flip bits in what Redis holds, while it is in use."""
    with looking_into(redis) as client:
        names = sorted(client.keys())
        held = [client.get(name) for name in names]
        data = flipped(b"".join(held), bits, chance)
        for name, old in zip(names, held, strict=True):
            client.set(name, data[: len(old)], keepttl=True)
            data = data[len(old) :]


def batches(total: int) -> Iterator[int]:
    """Many at once, and few: so that some damage is found at the start, and some only in use."""
    sizes = [1, 12, 2, 25]
    while total > 0:
        yield min(sizes[0], total)
        total -= sizes[0]
        sizes.append(sizes.pop(0))


def test_flipped_bits_on_the_disk(
    provider: Provider,
    start_proxy: StartProxy,
    connect: Connect,
    stats: Stats,
    tmp_path: Path,
    record_property: Callable[[str, object], None],
) -> None:
    provider.models = with_windows({"*": WINDOW})
    chance, folder = random.Random(1), tmp_path / "kept"
    waiting: list[bytes] = []
    lines: list[Line] = []
    held = fresh = 0
    seen: Counter[str] = Counter()
    for number, bits in enumerate([*batches(FLIPS // 2), 0]):
        proxy = start_proxy(OPTION, environment=kept_in(folder))
        connection = connect(proxy)
        if len(waiting) < 2:
            waiting = list(bodies()[_FIRST:])
            lines.append(Line(provider, f"key-{len(lines)}"))
            lines[-1].send(connection, waiting.pop(0))
        for _ in range(2):
            lines[-1].send(connection, waiting.pop(0))
        found = stats(proxy)
        assert set(found["failures"]) <= BUSY
        seen.update(found["stores"]["frozen edits, kept"]["faults"])
        held += found["requests"]["reapplied"]
        fresh += found["steps"]
        provider.records.clear()
        if number % 4 < 2:
            proxy.process.kill()
        proxy.stop()
        if bits:
            if number % 2:
                checkpointed(folder / "ledger.db")
            flip_files(folder, bits, chance)
        seen["set aside"] += "is damaged" in proxy.said()
    record_property("disk", {"held": held, "fresh": fresh, "conversations": len(lines), **seen})
    assert held > 0
    assert fresh >= len(lines)
    assert [said for line in lines for said in line.complaints()] == []


def test_flipped_bits_in_redis(
    provider: Provider,
    start_proxy: StartProxy,
    connect: Connect,
    stats: Stats,
    redis: RealRedis,
    shared: Mapping[str, str],
    record_property: Callable[[str, object], None],
) -> None:
    provider.models = with_windows({"*": WINDOW})
    chance = random.Random(2)
    pair = [start_proxy(OPTION, environment=shared) for _ in range(2)]
    connections = [connect(proxy) for proxy in pair]
    for number, bits in enumerate(batches(FLIPS - FLIPS // 2)):
        # Each time for somebody new, so that the second proxy has only what Redis holds.
        redis.say("FLUSHALL")
        line = Line(provider, f"key-{number}")
        for turn, body in enumerate(bodies()[_FIRST : _FIRST + 3]):
            if turn == 1:
                flip_values(redis, bits, chance)
            line.send(connections[turn % 2], body)
        assert line.complaints() == []
        provider.records.clear()
    found = [stats(proxy) for proxy in pair]
    seen = Counter(found[1]["stores"]["frozen edits, kept"]["faults"])
    record_property("redis", {"values that did not open": dict(seen), "rounds": number + 1})
    # The second proxy met with damage, and took steps of its own where nothing was left.
    assert seen["a value that does not open"] > 0
    assert found[1]["steps"] > 0
    assert {name for one in found for name in one["failures"]} <= BUSY


# Other damage.


def checkpointed(database: Path) -> None:
    """Bring what lies in the log into the database itself."""
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def scribbled(database: Path) -> None:
    checkpointed(database)
    database.write_bytes(random.Random(3).randbytes(40_000))


def cut(database: Path) -> None:
    checkpointed(database)
    database.write_bytes(database.read_bytes()[:9_000])


def newer(database: Path) -> None:
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("PRAGMA user_version = 2")


def odd_log(database: Path) -> None:
    log = database.with_name(database.name + "-wal")
    log.write_bytes(log.read_bytes()[:-1_000] + random.Random(4).randbytes(5_000))


@pytest.fixture(scope="module")
def made_once(
    leaf: Certificates, first_confdir: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A cache folder in which a conversation's edits are kept; the proxy was killed."""
    folder = tmp_path_factory.mktemp("made-once")
    made = folder / "kept"
    with serving(Provider(with_windows({"*": WINDOW})), leaf) as provider:
        shutil.copytree(first_confdir, folder / "confdir")
        proxy = child.start(
            dict.fromkeys(HOSTS, provider.tls_port),
            folder / "confdir",
            provider_authority=leaf.authority,
            options=[OPTION],
            environment=kept_in(made),
        )
        with closing(Connection(proxy.port, proxy.authority, HOSTS[0])) as connection:
            line = Line(provider, "key")
            for body in bodies()[_FIRST : _FIRST + 2]:
                line.send(connection, body)
        proxy.process.kill()
        proxy.stop()
    assert line.sent[-1].changed
    return made


@pytest.fixture
def folder(made_once: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made_once, tmp_path / "kept"))


def goes_on(proxy: Child, provider: Provider, connect: Connect, stats: Stats) -> None:
    """The same conversation goes on, in a condensed form made of nothing but itself."""
    provider.models = with_windows({"*": WINDOW})
    line, connection = Line(provider, "key"), connect(proxy)
    for body in bodies()[_FIRST + 2 : _FIRST + 8]:
        line.send(connection, body)
    assert line.complaints() == []
    assert all(one.changed for one in line.sent)
    found = stats(proxy)
    assert len(line.breaks()) <= found["steps"]
    assert found["prefix_breaks_unexplained"] == 0
    assert set(found["failures"]) <= BUSY


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (scribbled, "the database is damaged"),
        (cut, "the database is damaged"),
        (newer, "another version"),
        (odd_log, ""),
    ],
)
def test_a_damaged_file_is_named_and_set_aside(
    damage: Callable[[Path], None],
    named: str,
    folder: Path,
    provider: Provider,
    start_proxy: StartProxy,
    connect: Connect,
    stats: Stats,
) -> None:
    damage(folder / "ledger.db")
    proxy = start_proxy(OPTION, environment=kept_in(folder))
    goes_on(proxy, provider, connect, stats)
    assert named in proxy.said()
    assert bool(list(folder.glob("*.damaged-*"))) == bool(named)


def test_a_database_that_another_process_has_locked(
    folder: Path, provider: Provider, start_proxy: StartProxy, connect: Connect, stats: Stats
) -> None:
    with closing(sqlite3.connect(folder / "ledger.db", isolation_level=None)) as other:
        other.execute("PRAGMA locking_mode = EXCLUSIVE")
        other.execute("BEGIN EXCLUSIVE")
        proxy = start_proxy(OPTION, environment=kept_in(folder))
        goes_on(proxy, provider, connect, stats)
        said = stats(proxy)["stores"]["frozen edits, kept"]
        assert "sqlite_busy" in said["faults"]
        other.execute("COMMIT")


def test_a_folder_that_may_only_be_read(
    folder: Path,
    provider: Provider,
    start_proxy: StartProxy,
    connect: Connect,
    stats: Stats,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if os.geteuid() == 0:
        # Modes do not bind root, unless it gives up the right to pass over them.
        if shutil.which("setpriv") is None:
            pytest.skip("root may write everywhere, and there is no setpriv to give that up")
        rights = "-dac_override,-dac_read_search"
        python_by(monkeypatch, tmp_path, f"setpriv --bounding-set={rights} --")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    for path in folder.iterdir():
        path.chmod(0o400)
    folder.chmod(0o500)
    try:
        proxy = start_proxy(OPTION, environment=kept_in(folder))
        goes_on(proxy, provider, connect, stats)
        assert "writing to the database is set aside" in proxy.said()
    finally:
        folder.chmod(0o700)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def python_by(monkeypatch: pytest.MonkeyPatch, folder: Path, starter: str) -> None:
    """Let proxies be started by a command that takes theirs as its arguments."""
    humble = folder / "humble-python"
    humble.write_text(f'#!/bin/sh\nexec {starter} "{sys.executable}" "$@"\n')
    humble.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(humble))


def test_who_has_no_home_and_no_name(
    provider: Provider,
    start_proxy: StartProxy,
    connect: Connect,
    stats: Stats,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As in a container whose user is a number: nobody knows where the cache folder would be."""
    nobody = ["unshare", "--user", "--map-user=54321"]
    if shutil.which(nobody[0]) is None or subprocess.run([*nobody, "true"], check=False).returncode:
        pytest.skip("nobody here may be another user in a namespace of their own")
    for name in ("HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    python_by(monkeypatch, tmp_path, " ".join(nobody))
    provider.models = with_windows({"*": WINDOW})
    proxy = start_proxy(OPTION, environment={"CONTEXT_CACHE_DIR": ""})
    line, connection = Line(provider, "key"), connect(proxy)
    assert line.send(connection, bodies()[_FIRST]).changed
    assert line.send(connection, bodies()[_FIRST + 1]).changed
    assert line.complaints() == []
    assert line.breaks() == []
    assert "frozen edits, kept" not in stats(proxy)["stores"]
    assert "nothing survives a restart: this user has no home" in proxy.said()
    assert "Traceback" not in proxy.said()


def test_a_full_disk_costs_only_durability_and_is_over_when_it_is_over(
    folder: Path, provider: Provider, start_proxy: StartProxy, connect: Connect, stats: Stats
) -> None:
    """No file of the proxy's may grow any more, its log among them."""
    if sys.platform != "linux":
        pytest.skip("only Linux lets one process limit another one")
    import resource

    proxy = start_proxy(OPTION, environment=kept_in(folder))
    line, connection = Line(provider, "before"), connect(proxy)
    provider.models = with_windows({"*": WINDOW})
    line.send(connection, bodies()[_FIRST])
    most = resource.RLIM_INFINITY
    resource.prlimit(proxy.pid, resource.RLIMIT_FSIZE, (4_096, most))
    goes_on(proxy, provider, connect, stats)
    for number in range(3):
        full = Line(provider, f"full-{number}")
        assert full.send(connection, bodies()[_FIRST]).changed
        assert full.send(connection, bodies()[_FIRST + 1]).changed
        assert full.complaints() == []
    assert stats(proxy)["stores"]["frozen edits, kept"]["faults"]
    resource.prlimit(proxy.pid, resource.RLIMIT_FSIZE, (most, most))
    until = time.monotonic() + 20
    while stats(proxy)["stores"]["frozen edits, kept"]["state"] != "ok":
        assert time.monotonic() < until
        Line(provider, secrets.token_hex()).send(connection, bodies()[_FIRST])
        time.sleep(0.2)
    after = Line(provider, "after")
    assert after.send(connection, bodies()[_FIRST]).changed
    proxy.process.kill()
    proxy.stop()
    again = connect(start_proxy(OPTION, environment=kept_in(folder)))
    went = after.send(again, bodies()[_FIRST + 1])
    assert went.changed
    assert not went.broke
