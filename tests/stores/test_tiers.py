"""Tiers: the nearest answers, the last decides, and one that fails is done without."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from tests.stores.makers import KEY, Clock, memory, sealed
from tests.stores.test_laws import Flaky

from mitmcontext.stores.base import Store
from mitmcontext.stores.lease import Leases
from mitmcontext.stores.memory_store import Memory
from mitmcontext.stores.multi_tier import MultiTierCache
from mitmcontext.stores.tiers import Tiers


class Three:
    """Tiers over three stores that can be looked into, the last of which can fail."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.near, self.middle, self.far = (memory(clock=self.clock) for _ in range(3))
        self.way = Flaky(self.far)
        self.tiers = Tiers([self.near, self.middle, self.way])

    def values(self, key: bytes = b"key") -> list[bytes | None]:
        return [store.get_many([key]).get(key) for store in (self.near, self.middle, self.far)]


@pytest.fixture
def three() -> Three:
    return Three()


def test_writing_goes_to_all(three: Three) -> None:
    three.tiers.set(b"key", b"value", 60)
    assert three.values() == [b"value"] * 3


@pytest.mark.parametrize("at", [0, 1, 2])
def test_reading_keeps_what_a_later_tier_had_in_the_earlier_ones(three: Three, at: int) -> None:
    (three.near, three.middle, three.far)[at].set(b"key", b"value", 60)
    assert three.tiers.get_many([b"key", b"other"]) == {b"key": b"value"}
    assert three.values()[: at + 1] == [b"value"] * (at + 1)
    assert three.values()[at + 1 :] == [None] * (2 - at)


def test_what_is_promoted_lives_no_longer_for_it(three: Three) -> None:
    three.far.set(b"key", b"value", 60)
    three.clock.wait(30)
    three.tiers.get_many([b"key"])
    three.clock.wait(31)
    assert three.tiers.get_many([b"key"]) == {}


def test_the_last_tier_decides_and_the_others_follow(three: Three) -> None:
    three.far.set(b"key", b"somebody else's", 60)
    assert three.tiers.add(b"key", b"ours", 600) == b"somebody else's"
    assert three.values() == [b"somebody else's"] * 3
    three.clock.wait(61)
    assert three.values() == [None] * 3


def test_without_the_last_tier_the_one_before_decides(three: Three) -> None:
    three.way.out = True
    assert three.tiers.add(b"key", b"one", 60) == b"one"
    assert three.tiers.add(b"key", b"two", 60) == b"one"
    assert three.values() == [b"one", b"one", None]


def test_what_was_decided_meanwhile_comes_before_something_new(three: Three) -> None:
    three.way.out = True
    three.tiers.add(b"key", b"forwarded already", 60)
    three.way.out = False
    assert three.tiers.add(b"key", b"new", 60) == b"forwarded already"
    assert three.values() == [b"forwarded already"] * 3


def test_with_no_tier_nothing_is_decided() -> None:
    way = Flaky(memory())
    way.out = True
    tiers = Tiers([way])
    assert tiers.add(b"key", b"value", 60) is None
    assert tiers.get_many([b"key"]) == {}
    assert not tiers.set(b"key", b"value", 60)


def test_extending_gives_an_entry_back_to_a_tier_that_lost_it(three: Three) -> None:
    three.tiers.set(b"key", b"value", 60)
    three.far.clear()
    assert three.tiers.extend(b"key", 600)
    three.clock.wait(300)
    assert three.values() == [b"value"] * 3
    assert not three.tiers.extend(b"never there", 60)


def test_extending_keeps_no_entry_that_another_process_has_decided_otherwise(three: Three) -> None:
    three.tiers.set(b"key", b"ours", 60)
    three.far.set(b"key", b"theirs", 60)
    three.near.delete([b"key"])
    assert three.tiers.extend(b"key", 600)
    assert three.values()[2] == b"theirs"
    assert three.tiers.get_latest([b"key", b"none"]) == {b"key": b"theirs"}
    three.far.delete([b"key"])
    assert b"key" in three.tiers.get_latest([b"key"])


def test_a_tier_that_cannot_be_given_an_entry_back_is_not_certain_to_have_it(three: Three) -> None:
    three.tiers.set(b"key", b"ours", 60)
    three.far.delete([b"key"])
    three.far.add = lambda *_: None  # type: ignore[method-assign]
    assert not three.tiers.extend(b"key", 600)


def test_replacing_is_decided_by_the_last_tier_that_holds_it(three: Three) -> None:
    three.tiers.set(b"key", b"one", 60)
    assert three.tiers.replace(b"key", b"one", b"two", 60)
    assert three.values() == [b"two"] * 3
    assert not three.tiers.replace(b"key", b"one", b"three", 60)


@pytest.mark.parametrize("clear", [False, True])
def test_what_was_removed_does_not_come_back_with_a_tier(three: Three, clear: bool) -> None:
    three.tiers.set(b"key", b"value", 60)
    three.way.out = True
    assert not (three.tiers.clear() if clear else three.tiers.delete([b"key"]))
    assert three.tiers.get_many([b"key"]) == {}
    three.way.out = False
    assert three.tiers.get_many([b"key"]) == {}
    assert three.values() == [None] * 3
    assert three.tiers.add(b"key", b"new", 60) == b"new"
    assert three.values() == [b"new"] * 3


def test_cleaning_up_removes_what_is_owed(three: Three) -> None:
    three.tiers.set(b"key", b"value", 60)
    three.way.out = True
    three.tiers.delete([b"key"])
    three.way.out = False
    three.tiers.clean_up()
    assert three.values() == [None] * 3


def test_figures_are_of_all_tiers(three: Three) -> None:
    three.far.set(b"key", b"value", 60)
    three.tiers.get_many([b"key", b"other"])
    three.tiers.get_many([b"key"])
    figures = three.tiers.figures()
    assert (figures.hits, figures.misses, figures.entries, figures.state) == (2, 1, 1, "ok")
    assert [store.figures().hits for store in three.tiers.stores] == [1, 0, 1]


# The cache of the specification


@pytest.mark.parametrize(
    "value", ["text", b"bytes", 7, None, [1, "two"], {"nested": {"of": ["it", 1.5, True]}}]
)
async def test_the_asynchronous_cache_keeps_what_json_has(three: Three, value: object) -> None:
    with ThreadPoolExecutor(1) as pool:
        cache = MultiTierCache(three.tiers, pool, KEY)
        await cache.set("key", value)
        assert await cache.get("key") == value
        assert await cache.get(b"key") is None
        assert await cache.get("other") is None


async def test_its_time_to_live_is_an_hour_or_what_is_asked_for(three: Three) -> None:
    cache = MultiTierCache(three.tiers)
    await cache.set("hour", 1)
    await cache.set("minute", 1, ttl=60)
    three.clock.wait(61)
    assert await cache.get("minute") is None
    assert await cache.get("hour") == 1
    three.clock.wait(3600)
    assert await cache.get("hour") is None


async def test_its_keys_are_digests(three: Three) -> None:
    cache = MultiTierCache(three.tiers, key=KEY)
    await cache.set("a private key", "value")
    assert not any(b"private" in key for key in three.near._cache)


async def test_it_promotes_from_file_and_redis_to_memory(three: Three) -> None:
    await MultiTierCache(three.tiers).set("key", "value")
    three.near.clear()
    three.middle.clear()
    assert await MultiTierCache(three.tiers).get("key") == "value"
    assert isinstance(three.near, Memory)
    assert three.near.figures().entries == three.middle.figures().entries == 1


# Leases


def shared_store(kind: str, clock: Clock) -> Store:
    under = memory(clock=clock)
    return sealed(under, clock) if kind == "sealed" else under


@pytest.mark.parametrize("kind", ["plain", "sealed"])
def test_one_of_two_processes_gets_a_lease(kind: str) -> None:
    clock = Clock()
    shared = shared_store(kind, clock)
    one, two = Leases(shared), Leases(shared)
    assert one.lease(b"question", 30)
    assert one.lease(b"question", 30), "who has it may take it again"
    assert not two.lease(b"question", 30)
    assert two.lease(b"another question", 30)
    clock.wait(31)
    assert two.lease(b"question", 30)
    one.give_back(b"question")
    assert not one.lease(b"question", 30), "it was no longer its own"
    two.give_back(b"question")
    clock.wait(0.01)
    assert one.lease(b"question", 30)


def test_without_a_store_everybody_goes_on_alone() -> None:
    way = Flaky(memory())
    way.out = True
    assert Leases(way).lease(b"question", 30)
    assert Leases(way).lease(b"question", 30)
