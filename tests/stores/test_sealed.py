"""Sealed values open for their key, purpose and place, in their time; nothing else is served."""

from __future__ import annotations

import os
import random
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.stores.makers import KEY, SIZE, Clock, memory, sealed, sqlite

from mitmcontext.stores.base import OK
from mitmcontext.stores.redis import RedisStore
from mitmcontext.stores.sealed import GROWTH, Sealed

YEAR = 366 * 24 * 3600.0
FLIPS = 1_000


@given(st.binary(max_size=100), st.binary(max_size=3_000), st.text(max_size=20))
def test_what_is_sealed_opens_again(key: bytes, value: bytes, purpose: str) -> None:
    clock = Clock()
    under = memory(clock=clock)
    store = Sealed(under, KEY, purpose, clock)
    store.set(key, value, 60)
    assert store.get_many([key]) == {key: value}
    assert len(under.get_many([key])[key]) == len(value) + GROWTH


def test_nothing_of_a_value_can_be_read_where_it_lies(tmp_path: Path) -> None:
    store = sealed(sqlite(tmp_path), Clock())
    for number in range(100):
        store.set(b"key %d" % number, b"planted text " * 50, 60)
    for path in (tmp_path / "cache").iterdir():
        assert b"planted" not in path.read_bytes()


def test_equal_values_look_different() -> None:
    under = memory()
    store = sealed(under, Clock())
    store.set(b"one", b"value", 60)
    store.set(b"two", b"value", 60)
    first = under.get_many([b"one"])[b"one"]
    store.set(b"one", b"value", 60)
    assert len({first, *under.get_many([b"one", b"two"]).values()}) == 3


def other_key(store: Sealed, under: object) -> None:
    store._key = bytes(32)


def other_purpose(store: Sealed, under: object) -> None:
    store._purpose = b"other"


@pytest.mark.parametrize("change", [other_key, other_purpose])
def test_with_another_key_or_purpose_all_is_cold_and_nothing_an_error(change: object) -> None:
    under = memory()
    store = sealed(under, Clock())
    store.set(b"key", b"value", 60)
    assert callable(change)
    change(store, under)
    assert store.get_many([b"key"]) == {}
    assert under.get_many([b"key"]) == {}, "what does not open is deleted"
    assert store.figures().faults == {"a value that does not open": 1}
    assert store.add(b"key", b"new", 60) == b"new"
    assert store.get_many([b"key"]) == {b"key": b"new"}


def test_a_value_moved_to_another_key_does_not_open() -> None:
    under = memory()
    store = sealed(under, Clock())
    store.set(b"mine", b"value", 60)
    under.set(b"yours", under.get_many([b"mine"])[b"mine"], 60)
    assert store.get_many([b"mine", b"yours"]) == {b"mine": b"value"}


@pytest.mark.parametrize("planted", [b"", b"\x01", b"\x02" + bytes(60), bytes(60), b"\x01" * 60])
def test_what_somebody_else_put_there_is_no_value(planted: bytes) -> None:
    under = memory()
    store = sealed(under, Clock())
    under.set(b"key", planted, 60)
    assert store.get_many([b"key"]) == {}
    under.set(b"key", planted, 60)
    assert store.add(b"key", b"value", 60) == b"value"
    assert not store.replace(b"other", b"", b"value", 60)
    under.set(b"other", planted, 60)
    assert not store.replace(b"other", planted, b"value", 60)
    assert not store.extend(b"other", 60)


def test_a_store_that_keeps_things_too_long_does_not_get_them_past_the_seal() -> None:
    clock, frozen = Clock(), Clock()
    under = memory(clock=frozen)
    store = sealed(under, clock)
    store.set(b"key", b"value", 60)
    clock.wait(61)
    assert store.get_many([b"key"]) == {}
    assert under.get_many([b"key"]), "left for the store to remove: our clock may be wrong"
    assert store.add(b"key", b"new", 60) == b"new"
    assert store.get_many([b"key"]) == {b"key": b"new"}


def test_a_value_from_the_future_counts_as_expired() -> None:
    clock = Clock()
    store = sealed(memory(), clock)
    store.set(b"key", b"value", 3600)
    clock.wait(-200)
    assert store.get_many([b"key"]), "clocks of two machines differ a little"
    clock.wait(-YEAR)
    assert store.get_many([b"key"]) == {}
    clock.wait(YEAR)
    assert store.get_many([b"key"])


def test_a_thousand_flipped_bits_in_a_database(tmp_path: Path) -> None:
    """Whatever bit of the file is flipped, what is found is right."""
    chance = random.Random(7)
    clock = Clock()
    entries = {chance.randbytes(34): chance.randbytes(chance.choice([5, 700, 6_000]))
               for _ in range(24)}  # fmt: skip
    store = sealed(sqlite(tmp_path, clock=clock), clock)
    for key, value in entries.items():
        assert store.set(key, value, 3600)
    store.close()
    whole = (tmp_path / "cache" / "entries.sqlite").read_bytes()
    found_in_all = 0
    for number in range(FLIPS):
        folder = tmp_path / str(number)
        (folder / "cache").mkdir(mode=0o700, parents=True)
        damaged = bytearray(whole)
        at = chance.randrange(len(whole) * 8)
        damaged[at // 8] ^= 1 << at % 8
        (folder / "cache" / "entries.sqlite").write_bytes(damaged)
        store = sealed(sqlite(folder, clock=clock), clock)
        found = store.get_many(entries)
        assert all(found[key] == entries[key] for key in found), f"bit {at}"
        found_in_all += len(found)
        for key in list(entries)[:3]:
            assert store.add(key, b"new", 60) in (b"new", entries[key]), f"bit {at}"
        store.clean_up()
        store.close()
        shutil.rmtree(folder)
    # Most flips hit values: one entry is lost, the others are there.
    assert found_in_all > FLIPS * len(entries) // 2


def test_a_thousand_flipped_bits_in_redis(redis_store: RedisStore) -> None:
    chance = random.Random(8)
    clock = Clock()
    store = Sealed(redis_store, KEY, "tests", clock)
    entries = {os.urandom(34): os.urandom(200) for _ in range(FLIPS)}
    for key, value in entries.items():
        assert store.set(key, value, 3600)
    for key, raw in redis_store.get_many(entries).items():
        damaged = bytearray(raw)
        at = chance.randrange(len(raw) * 8)
        damaged[at // 8] ^= 1 << at % 8
        redis_store.set(key, bytes(damaged), 3600)
    assert store.get_many(entries) == {}
    figures = store.figures()
    assert figures.state == OK
    assert figures.faults == {"a value that does not open": FLIPS}
    assert redis_store.get_many(entries) == {}


def test_two_proxies_with_one_key_share_and_agree(tmp_path: Path) -> None:
    clock = Clock()
    one = sealed(sqlite(tmp_path, SIZE, clock), clock)
    two = sealed(sqlite(tmp_path, SIZE, clock), clock)
    assert one.add(b"key", b"one", 60) == b"one"
    assert two.add(b"key", b"two", 60) == b"one"
    assert two.extend(b"key", 600)
    clock.wait(300)
    assert one.get_many([b"key"]) == {b"key": b"one"}
