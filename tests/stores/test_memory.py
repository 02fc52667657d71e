"""The store in memory: a mapping, bounded in bytes and in time, safe for threads."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
from cachetools import Cache, TTLCache
from hypothesis import given
from hypothesis import strategies as st

from mitmcontext.stores.memory import MemoryStore, entry_size, lru

EMPTY = entry_size(b"")

KINDS: dict[str, Callable[[int], Cache[bytes, bytes]]] = {
    "lru": lru,
}


@pytest.fixture(params=list(KINDS.values()), ids=list(KINDS))
def store(request: Any) -> MemoryStore:
    return MemoryStore(request.param(1 << 20))


keys = st.binary(max_size=3)
moves = st.lists(
    st.tuples(st.sampled_from(["set", "get", "delete", "setdefault", "in"]), keys, keys)
)


@given(moves)
def test_it_is_a_mapping(done: list[tuple[str, bytes, bytes]]) -> None:
    for kind in KINDS.values():
        store, plain = MemoryStore(kind(1 << 20)), dict[bytes, bytes]()
        for move, key, value in done:
            if move == "set":
                store[key] = plain[key] = value
            elif move == "get":
                assert store.get(key) == plain.get(key)
                assert store.get(key, b"-") == plain.get(key, b"-")
            elif move == "delete":
                assert store.pop(key, None) == plain.pop(key, None)
            elif move == "setdefault":
                assert store.setdefault(key, value) == plain.setdefault(key, value)
            else:
                assert (key in store) == (key in plain)
        assert dict(store) == plain
        assert len(store) == len(plain)
        assert store.size == sum(entry_size(value) for value in plain.values())


def test_what_is_missing_is_a_key_error(store: MemoryStore) -> None:
    with pytest.raises(KeyError):
        store[b"x"]
    with pytest.raises(KeyError):
        del store[b"x"]


@given(st.lists(st.tuples(keys, st.integers(0, 2_000)), max_size=60), st.integers(0, 5_000))
def test_it_never_holds_more_than_it_may(puts: list[tuple[bytes, int]], size: int) -> None:
    for kind in KINDS.values():
        store = MemoryStore(kind(size))
        for key, length in puts:
            store[key] = b"x" * length
            assert store.size <= size


def test_what_was_used_longest_ago_goes_first() -> None:
    store = MemoryStore(lru(3 * entry_size(b"1")))
    for key in (b"a", b"b", b"c"):
        store[key] = b"1"
    assert store[b"a"] == b"1"
    store[b"d"] = b"1"
    assert set(store) == {b"a", b"c", b"d"}


def test_what_is_larger_than_the_store_is_not_kept(store: MemoryStore) -> None:
    store[b"small"] = b"1"
    store[b"large"] = b"x" * (1 << 20)
    assert store.setdefault(b"larger", b"y" * (1 << 20)) == b"y" * (1 << 20)
    assert set(store) == {b"small"}


def test_entries_expire() -> None:
    now = 0.0
    cache: Any = TTLCache(1 << 20, 10, timer=lambda: now, getsizeof=entry_size)
    store = MemoryStore(cache)
    store[b"a"] = b"1"
    now = 9.0
    assert store.get(b"a") == b"1"
    now = 11.0
    assert store.get(b"a") is None
    assert b"a" not in store
    assert len(store) == 0
    assert store.setdefault(b"a", b"2") == b"2"


def test_it_outlives_a_reload_in_its_cache() -> None:
    cache = lru(1 << 20)
    MemoryStore(cache)[b"a"] = b"1"
    assert MemoryStore(cache)[b"a"] == b"1"


def test_clearing_forgets_everything(store: MemoryStore) -> None:
    store[b"a"] = b"1"
    store.clear()
    assert (len(store), store.size, list(store)) == (0, 0, [])


def test_one_of_many_threads_inserts(store: MemoryStore) -> None:
    for round_ in range(50):
        key = b"%d" % round_
        start = threading.Barrier(8)
        found: list[bytes] = []

        def insert(value: bytes, key: bytes = key) -> None:
            start.wait()  # noqa: B023 - the threads end before the next round
            found.append(store.setdefault(key, value))  # noqa: B023

        threads = [threading.Thread(target=insert, args=(b"%d" % n,)) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert set(found) == {store[key]}
        assert len(found) == 8


def test_it_may_be_walked_while_others_write(store: MemoryStore) -> None:
    def write() -> None:
        for number in range(3_000):
            store[b"%d" % (number % 500)] = b"x"

    thread = threading.Thread(target=write)
    thread.start()
    while thread.is_alive():
        assert len(list(store)) <= 500
    thread.join()


def test_an_entry_costs_more_than_its_value() -> None:
    assert EMPTY > 0
    assert entry_size(b"x" * 100) == EMPTY + 100
