"""Redis: in time or not at all, and nothing that it does wrong is an error of ours."""

from __future__ import annotations

import builtins
import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.stores.conftest import AMPLE
from tests.stores.makers import KEY, Clock
from tests.stores.servers import fake_redis, need_redis, real_redis

from loopback.redis_server import RealRedis
from mitmcontext.stores.base import OK
from mitmcontext.stores.lease import Leases
from mitmcontext.stores.redis import RedisStore
from mitmcontext.stores.redis_server import BUDGET_SECONDS, Server
from mitmcontext.stores.sealed import Sealed

# Beside the budget: what this machine, busy with other things, takes to wake a thread.
SLACK = 0.1


@contextmanager
def store_at(
    url: str, seconds: float = BUDGET_SECONDS, timer: Callable[[], float] = time.monotonic
) -> Iterator[RedisStore]:
    server = Server(url, timer, seconds)
    try:
        server.wait(2)
        yield RedisStore(server, "tests")
    finally:
        server.close()


def until(condition: Callable[[], object], seconds: float = 10) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.02)
    return False


def use(store: RedisStore) -> None:
    """Everything that a store can do."""
    store.get_many([b"key", b"other"])
    store.look_up([b"key"])
    store.set(b"key", b"value", 60)
    store.add(b"key", b"value", 60)
    store.replace(b"key", b"value", b"new", 60)
    store.extend(b"key", 60)
    store.delete([b"key"])
    store.figures()


# What lies there


def test_keys_are_names_and_hex_and_values_end(redis_server: RealRedis) -> None:
    redis_server.say("FLUSHALL")
    with store_at(redis_server.url, AMPLE) as store:
        store.set(b"\x00\xff", b"value", 60)
    assert b"mitmcontext:tests:00ff" in redis_server.say("KEYS", "*")
    assert 50_000 < int(redis_server.say("PTTL", "mitmcontext:tests:00ff")[1:]) <= 60_000


def test_clearing_leaves_what_is_somebody_elses(redis_server: RealRedis) -> None:
    redis_server.say("FLUSHALL")
    redis_server.say("SET", "other", "value")
    server = Server(redis_server.url, seconds=AMPLE)
    assert server.wait(5)
    one, two = RedisStore(server, "one"), RedisStore(server, "two")
    for number in range(2_500):
        one.set(b"%d" % number, b"value", 60)
    two.set(b"key", b"value", 60)
    assert one.clear()
    assert one.get_many([b"%d" % number for number in range(2_500)]) == {}
    assert two.get_many([b"key"]) == {b"key": b"value"}
    assert b"value" in redis_server.say("GET", "other")
    server.close()


@pytest.mark.parametrize("name", ["", "Upper", "a b", "a:b", "a*", "ä"])
def test_a_name_that_could_match_others_is_refused(redis_server: RealRedis, name: str) -> None:
    server = Server(redis_server.url)
    with pytest.raises(ValueError, match="small letters"):
        RedisStore(server, name)
    server.close()


@pytest.mark.parametrize(
    "command",
    [
        pytest.param(["LPUSH", "mitmcontext:tests:6b6579", "x"], id="a list"),
        pytest.param(["HSET", "mitmcontext:tests:6b6579", "x", "y"], id="a hash"),
        pytest.param(["SET", "mitmcontext:tests:6b6579", "no mark"], id="not ours"),
        pytest.param(["SET", "mitmcontext:tests:6b6579", "\x01no end"], id="without an end"),
    ],
)
def test_what_has_another_type_or_is_not_ours_is_absent(
    redis_server: RealRedis, command: list[str]
) -> None:
    redis_server.say("FLUSHALL")
    redis_server.say(*command)
    with store_at(redis_server.url, AMPLE) as store:
        assert store.look_up([b"key", b"other"]) == {}
        use(store)
        redis_server.say("FLUSHALL")
        redis_server.say(*command)
        for _ in range(5):
            store.get_many([b"key"])
            store.extend(b"key", 60)
        assert store.figures().state == OK
        assert store.set(b"key", b"value", 60)
        assert store.get_many([b"key"]) == {b"key": b"value"}


def test_no_more_of_a_value_is_read_than_a_value_may_have(redis_server: RealRedis) -> None:
    redis_server.say("FLUSHALL")
    server = Server(redis_server.url, seconds=AMPLE)
    assert server.wait(5)
    store = RedisStore(server, "tests", most=1_000)
    assert store.set(b"key", bytes(1_000), 60)
    assert not store.set(b"key", bytes(1_001), 60)
    assert store.get_many([b"key"]) == {}, "what was there is no longer true"
    redis_server.say("SET", "mitmcontext:tests:6b6579", b"\x01" + bytes(1_001))
    assert store.get_many([b"key"]) == {}
    server.close()


def test_a_lease_is_for_one_of_two_processes(redis_server: RealRedis) -> None:
    redis_server.say("FLUSHALL")
    with store_at(redis_server.url, AMPLE) as one, store_at(redis_server.url, AMPLE) as two:
        leases = [Leases(Sealed(store, KEY, "leases")) for store in (one, two)]
        assert [each.lease(b"question", 0.3) for each in leases] == [True, False]
        time.sleep(0.35)
        assert leases[1].lease(b"question", 30)
        leases[1].give_back(b"question")
        assert until(lambda: leases[0].lease(b"question", 30))


# What goes wrong


def test_nobody_there(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    server = Server("redis://user:secret@127.0.0.1:1/0", clock)
    store = RedisStore(server, "tests")
    assert until(lambda: not store.get_many([b"key"]) and store.figures().state != OK)
    slowest = 0.0
    for _ in range(100):
        began = time.perf_counter()
        assert store.get_many([b"key"]) == {}
        assert store.add(b"key", b"value", 60) is None
        slowest = max(slowest, time.perf_counter() - began)
    assert slowest < BUDGET_SECONDS + SLACK
    assert "secret" not in caplog.text
    server.close()


def test_it_is_restarted_and_comes_back() -> None:
    clock = Clock()
    with real_redis() as own, store_at(own.url, AMPLE, clock) as store:
        assert store.set(b"key", b"value", 60)
        own.stop()
        for _ in range(8):
            use(store)
            time.sleep(0.02)
        assert store.figures().state != OK
        own.start()
        clock.wait(6)
        assert until(lambda: store.add(b"key", b"new", 60) == b"new"), "it kept nothing on disk"
        assert store.figures().state == OK


def test_a_short_restart_is_hardly_noticed() -> None:
    with real_redis() as own, store_at(own.url, AMPLE) as store:
        assert store.set(b"key", b"value", 60)
        own.stop()
        own.start()
        assert until(lambda: store.set(b"key", b"value", 60), 2)
        assert store.figures().state == OK


def test_it_is_full() -> None:
    clock = Clock()
    full = ("--maxmemory", "3mb", "--maxmemory-policy", "noeviction")
    with real_redis(*full) as own, store_at(own.url, AMPLE, clock) as store:
        kept = [
            number
            for number in range(60)
            if store.add(b"%d" % number, bytes(100_000), 60) is not None
        ]
        assert 1 < len(kept) < 60
        assert "OutOfMemoryError" in store.figures().state
        assert len(store.get_many([b"%d" % number for number in kept])) == len(kept)
        own.say("FLUSHALL")
        clock.wait(6)
        assert store.add(b"key", b"value", 60) == b"value"
        assert store.figures().state == OK


def test_it_evicts() -> None:
    small = ("--maxmemory", "4mb", "--maxmemory-policy", "allkeys-lru")
    with real_redis(*small) as own, store_at(own.url, AMPLE) as store:
        values = {b"%d" % number: os.urandom(50_000) for number in range(200)}
        for key, value in values.items():
            assert store.add(key, value, 60) == value
        found = store.get_many(values)
        assert 1 < len(found) < 200
        assert all(values[key] == value for key, value in found.items())


def test_it_is_read_only() -> None:
    with real_redis() as own, store_at(own.url, AMPLE) as store:
        store.set(b"key", b"value", 60)
        own.say("CONFIG", "SET", "replica-serve-stale-data", "yes")
        own.say("REPLICAOF", "127.0.0.1", "1")
        for _ in range(5):
            assert store.add(b"other", b"value", 60) is None
        assert "ReadOnlyError" in store.figures().state
        assert store.get_many([b"key"]) == {b"key": b"value"}


def test_it_wants_a_password() -> None:
    with real_redis("--requirepass", "secret") as own:
        with store_at(own.url, AMPLE) as store:
            for _ in range(5):
                use(store)
                time.sleep(0.02)
            assert store.figures().state != OK
        with store_at(own.url.replace("//", "//:secret@"), AMPLE) as store:
            assert store.set(b"key", b"value", 60)


GARBAGE = [
    pytest.param(b"!?\r\n", id="no reply"),
    pytest.param(b"$5\r\nab\r\n", id="too short, and no more"),
    pytest.param(b"$99999999999\r\nabc", id="a length beyond all bounds"),
    pytest.param(b"*99999999999\r\n", id="a list beyond all bounds"),
    pytest.param(b"*1\r\n" * 5_000, id="lists in lists"),
    pytest.param(b"$x\r\n", id="a length that is none"),
    pytest.param(b":x\r\n", id="a number that is none"),
    pytest.param(b"\xff\xfe\r\n", id="bytes"),
    pytest.param(b"", id="nothing"),
    pytest.param(b"HTTP/1.1 400 Bad Request\r\n\r\n", id="another protocol"),
    pytest.param(b"-ERR \xff\xff\r\n", id="an error that is no text"),
    pytest.param(b":7\r\n", id="a number for everything"),
    pytest.param(b"*2\r\n$1\r\na\r\n$1\r\nb\r\n", id="a list for everything"),
    pytest.param(b"$-1\r\n", id="nothing for everything"),
    pytest.param(b"+OK\r\n", id="OK for everything"),
    pytest.param(b"$6\r\n\x01wrong\r\n", id="a value for everything"),
    pytest.param(b"$6\r\n\x01wrong\r\n" * 3, id="more replies than questions"),
    pytest.param(b"-MOVED 1 127.0.0.1:1\r\n", id="moved"),
    pytest.param(b"-MOVED x\r\n", id="moved, to nowhere"),
    pytest.param(b"-ASK 1 127.0.0.1:1\r\n", id="ask"),
    pytest.param(b"-CLUSTERDOWN no\r\n", id="cluster down"),
    pytest.param(b"-LOADING wait\r\n", id="loading"),
    pytest.param(b"-BUSY script\r\n", id="busy"),
    pytest.param(b"-NOAUTH no\r\n", id="no right"),
    pytest.param(b"-OOM no\r\n", id="out of memory"),
    pytest.param(b"-WRONGTYPE no\r\n", id="wrong type"),
    pytest.param(b"-\r\n", id="an error without a word"),
]


@pytest.mark.parametrize("reply", GARBAGE)
def test_a_server_that_lies_is_no_error_and_tells_no_lie_past_the_seal(reply: bytes) -> None:
    with fake_redis(lambda _: reply) as liar, store_at(liar.url) as plain:
        store = Sealed(plain, KEY, "tests")
        for _ in range(3):
            use(plain)
            assert store.get_many([b"key", b"other"]) == {}
            held = store.add(b"key", b"value", 60)
            assert held in (None, b"value")
            assert not store.extend(b"key", 60)
            time.sleep(0.01)
        plain.clear()


def late(_: list[bytes]) -> bytes:
    time.sleep(1)
    return b"$-1\r\n"


@pytest.mark.parametrize(
    ("answer", "drip"),
    [
        pytest.param(late, 0, id="late"),
        pytest.param(lambda _: b"$20\r\n" + b"x" * 20 + b"\r\n", 0.012, id="byte by byte"),
        pytest.param(lambda _: None, 0, id="closes"),
    ],
)
def test_a_slow_server_costs_no_more_than_the_budget(
    answer: Callable[[list[bytes]], bytes | None], drip: float
) -> None:
    with fake_redis(answer, drip) as slow, store_at(slow.url) as store:
        took = []
        for _ in range(40):
            began = time.perf_counter()
            assert store.get_many([b"key"]) == {}
            took.append(time.perf_counter() - began)
            time.sleep(0.005)
        assert max(took) < BUDGET_SECONDS + SLACK
        # Once it is set aside, nobody waits at all.
        assert store.figures().state.startswith("set aside")
        assert sorted(took)[len(took) // 2] < 0.005


def test_more_threads_than_connections_wait_for_one_another() -> None:
    with real_redis() as own, store_at(own.url, AMPLE) as store:
        failed = []

        def work(number: int) -> None:
            for step in range(100):
                key = b"%d %d" % (number, step)
                if store.add(key, key, 60) != key or store.get_many([key]) != {key: key}:
                    failed.append(key)

        threads = [threading.Thread(target=work, args=[number]) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not failed


# Clusters


@contextmanager
def cluster() -> Iterator[list[RealRedis]]:
    arguments = ("--cluster-enabled", "yes", "--cluster-node-timeout", "2000")
    with real_redis(*arguments) as one, real_redis(*arguments) as two:
        one.say("CLUSTER", "ADDSLOTSRANGE", "0", "8000")
        two.say("CLUSTER", "ADDSLOTSRANGE", "8001", "16383")
        one.say("CLUSTER", "MEET", "127.0.0.1", str(two.port))
        ready = b"cluster_state:ok"
        assert until(lambda: all(ready in node.say("CLUSTER", "INFO") for node in (one, two)), 20)
        yield [one, two]


def test_in_a_cluster_every_key_goes_where_it_belongs() -> None:
    need_redis()
    with cluster() as nodes, store_at(nodes[0].url, AMPLE) as store:
        values = {b"%d" % number: b"value %d" % number for number in range(300)}
        # The first ones tell who has what.
        assert until(lambda: all(store.set(key, values[key], 60) for key in list(values)[:20]))
        for key, value in values.items():
            assert store.add(key, value, 60) == value
        assert store.get_many(values) == values
        assert store.replace(b"7", b"value 7", b"new", 60)
        assert store.extend(b"8", 600)
        sizes = [int(node.say("DBSIZE")[1:]) for node in nodes]
        assert min(sizes) > 50
        assert sum(sizes) == 300
        assert store.figures().state == OK
        nodes[1].stop()
        found = store.get_many(values)
        assert all(value in (values[key], b"new") for key, value in found.items())
        assert 50 < len(found) < 250


def test_a_cluster_is_cleared_on_all_its_servers() -> None:
    need_redis()
    with cluster() as nodes, store_at(nodes[0].url, AMPLE) as store:
        keys = [b"%d" % number for number in range(100)]
        assert until(lambda: all(store.set(key, b"value", 60) for key in keys))
        assert store.delete(keys[:10])
        assert store.clear()
        assert [int(node.say("DBSIZE")[1:]) for node in nodes] == [0, 0]


# Transport and setting up


def certificate(folder: Path) -> tuple[Path, Path]:
    key, found = folder / "key.pem", folder / "certificate.pem"
    how = "-x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=localhost"
    for_whom = "subjectAltName=DNS:localhost,IP:127.0.0.1"
    where = ["-keyout", str(key), "-out", str(found), "-addext", for_whom]
    subprocess.run(["openssl", "req", *how.split(), *where], check=True, capture_output=True)
    return key, found


def test_by_tls_and_only_to_whom_the_certificate_is_for(tmp_path: Path) -> None:
    need_redis()
    key, trusted = certificate(tmp_path)
    tls = ["--tls-cert-file", str(trusted), "--tls-key-file", str(key), "--tls-auth-clients", "no"]
    with real_redis() as own:
        port = own.port + 1 if own.port < 65_000 else own.port - 1
        own.stop()
        own._arguments += [*tls, "--tls-port", str(port)]
        own.start()
        url = f"rediss://127.0.0.1:{port}/0"
        with store_at(f"{url}?ssl_ca_certs={trusted}", AMPLE) as store:
            assert store.add(b"key", b"value", 60) == b"value"
            assert store.get_many([b"key"]) == {b"key": b"value"}
        with store_at(url, AMPLE) as store:
            assert store.add(b"key", b"value", 60) is None


def test_by_a_socket_of_the_file_system(tmp_path: Path) -> None:
    path = tmp_path / "redis.sock"
    with real_redis("--unixsocket", str(path)), store_at(f"unix://{path}", AMPLE) as store:
        assert store.add(b"key", b"value", 60) == b"value"


@pytest.mark.parametrize(
    "url", ["", "localhost", "http://secret@host", "redis://host:secret/0", "redis://h?port=secret"]
)
def test_a_url_that_is_none_is_refused_without_quoting_it(url: str) -> None:
    need_redis()
    with pytest.raises(ValueError, match=r"^CONTEXT_REDIS_URL must be a URL such as") as caught:
        Server(url)
    assert "secret" not in str(caught.value)


def test_without_the_client_the_sentence_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plain = builtins.__import__

    def without(name: str, *rest: object) -> object:
        if name.startswith(("redis", "mitmcontext.stores.links")) or (
            name == "mitmcontext.stores" and "links" in str(rest)
        ):
            raise ImportError
        return plain(name, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ValueError, match=r"pip install '\.\[redis\]'"):
        Server("redis://localhost")
