"""Stores against a model of a few lines: times to live, the bound in bytes, and tiers."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from tests.stores.makers import Clock, memory, sealed, sqlite

from mitmcontext.stores import memory_store, opening
from mitmcontext.stores.base import Figures, Kept, Store
from mitmcontext.stores.sealed import GROWTH
from mitmcontext.stores.tiers import Tiers

KEYS = st.sampled_from([b"%d" % number for number in range(8)])
VALUES = st.integers(0, 4).map(lambda size: bytes([65 + size]) * (400 * size))
SECONDS = st.sampled_from([-1.0, 0.5, 5.0, 50.0])
SMALL = 6_000
SETTINGS = settings(
    max_examples=60,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)


class Model(RuleBasedStateMachine):
    """What should be there: values and their end, in the order of their last use."""

    overhead = 0
    bound = SMALL
    evicts_by_use = True

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.folder = Path(tempfile.mkdtemp())
        self.held: dict[bytes, tuple[bytes, float]] = {}
        self.store = self.make()

    def make(self) -> Store:
        raise NotImplementedError

    def teardown(self) -> None:
        self.store.close()
        shutil.rmtree(self.folder)

    def size(self) -> int:
        return sum(len(key) + len(value) + self.overhead for key, (value, _) in self.held.items())

    def use(self, key: bytes) -> None:
        self.held[key] = self.held.pop(key)

    @rule(key=KEYS, value=VALUES, seconds=SECONDS)
    def set(self, key: bytes, value: bytes, seconds: float) -> None:
        kept = self.store.set(key, value, seconds)
        assert kept == (seconds > 0)
        self.held.pop(key, None)
        if kept:
            self.held[key] = (value, self.clock.now + seconds)

    @rule(key=KEYS, value=VALUES, seconds=SECONDS)
    def add(self, key: bytes, value: bytes, seconds: float) -> None:
        held = self.store.add(key, value, seconds)
        if key in self.held:
            assert held == self.held[key][0]
            self.use(key)
        elif seconds > 0:
            assert held == value
            self.held[key] = (value, self.clock.now + seconds)
        else:
            assert held is None

    @rule(key=KEYS, old=VALUES, value=VALUES, seconds=SECONDS.filter(lambda one: one > 0))
    def replace(self, key: bytes, old: bytes, value: bytes, seconds: float) -> None:
        done = self.store.replace(key, old, value, seconds)
        assert done == (key in self.held and self.held[key][0] == old)
        if done:
            del self.held[key]
            self.held[key] = (value, self.clock.now + seconds)
        elif key in self.held:
            # Whether to look is to use, stores may differ; so here it is.
            self.store.get_many([key])
            self.use(key)

    @rule(key=KEYS, seconds=SECONDS)
    def extend(self, key: bytes, seconds: float) -> None:
        assert self.store.extend(key, seconds) == (key in self.held)
        if key in self.held:
            value, until = self.held.pop(key)
            self.held[key] = (value, max(until, self.clock.now + seconds))
            self.store.get_many([key])

    @rule(key=KEYS)
    def get(self, key: bytes) -> None:
        found = self.store.look_up([key])
        if key in self.held:
            value, until = self.held[key]
            assert found[key].value == value
            assert abs(found[key].seconds - (until - self.clock.now)) < 0.001
            self.use(key)
        else:
            assert found == {}

    @rule(keys=st.lists(KEYS, max_size=3))
    def delete(self, keys: list[bytes]) -> None:
        assert self.store.delete(keys)
        for key in keys:
            self.held.pop(key, None)

    @rule(seconds=st.sampled_from([0.1, 1.0, 10.0, 100.0]))
    def wait(self, seconds: float) -> None:
        self.clock.wait(seconds)
        now = self.clock.now
        self.held = {key: held for key, held in self.held.items() if held[1] > now}

    @rule()
    def clean_up(self) -> None:
        self.store.clean_up()
        figures = self.store.figures()
        if figures.entries is not None and self.evicts_by_use:
            assert figures.entries == len(self.held)
            assert figures.size == self.size()

    @rule()
    def clear(self) -> None:
        assert self.store.clear()
        self.held.clear()

    @invariant()
    def holds_what_it_should(self) -> None:
        """Nothing wrong is found; only the longest unused are missing, and only for lack of room.

        Looking in the order of use leaves that order as it is.
        """
        fits = self.size() <= self.bound
        found = self.store.get_many(list(self.held))
        assert all(found[key] == self.held[key][0] for key in found)
        missing = [key for key in self.held if key not in found]
        assert not (fits and missing)
        if self.evicts_by_use:
            assert missing == list(self.held)[: len(missing)]
        for key in missing:
            del self.held[key]
        held = self.store.figures().size
        assert held is None or held <= self.bound


class MemoryModel(Model):
    overhead = memory_store.OVERHEAD

    def make(self) -> Store:
        return memory(self.bound, self.clock)


class SqliteModel(Model):
    overhead = opening.OVERHEAD

    def make(self) -> Store:
        return sqlite(self.folder, self.bound, self.clock)

    @rule()
    def reopen(self) -> None:
        self.store.close()
        self.store = self.make()


class SealedModel(SqliteModel):
    overhead = opening.OVERHEAD + GROWTH

    def make(self) -> Store:
        return sealed(super().make(), self.clock)


class TiersModel(Model):
    """The near tier is too small for all, the far one is not."""

    evicts_by_use = False
    bound = 1 << 20

    def make(self) -> Store:
        near = memory(3_000, self.clock)
        return Tiers([near, sealed(sqlite(self.folder, self.bound, self.clock), self.clock)])


class Flaky:
    """A store that can be taken out of service."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.out = False

    def get_many(self, keys: Iterable[bytes]) -> dict[bytes, bytes]:
        return {} if self.out else self.store.get_many(keys)

    def look_up(self, keys: Iterable[bytes]) -> dict[bytes, Kept]:
        return {} if self.out else self.store.look_up(keys)

    def set(self, key: bytes, value: bytes, seconds: float) -> bool:
        return not self.out and self.store.set(key, value, seconds)

    def add(self, key: bytes, value: bytes, seconds: float) -> bytes | None:
        return None if self.out else self.store.add(key, value, seconds)

    def replace(self, key: bytes, old: bytes, value: bytes, seconds: float) -> bool:
        return not self.out and self.store.replace(key, old, value, seconds)

    def extend(self, key: bytes, seconds: float) -> bool:
        return not self.out and self.store.extend(key, seconds)

    def delete(self, keys: Iterable[bytes]) -> bool:
        return not self.out and self.store.delete(keys)

    def clear(self) -> bool:
        return not self.out and self.store.clear()

    def clean_up(self) -> int:
        return 0 if self.out else self.store.clean_up()

    def close(self) -> None:
        self.store.close()

    def figures(self) -> Figures:
        return self.store.figures()


class TwoProcesses(RuleBasedStateMachine):
    """Two processes with memory of their own and a shared tier that comes and goes."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.shared = memory(clock=self.clock)
        self.ways = [Flaky(self.shared), Flaky(self.shared)]
        self.tiers = [Tiers([memory(clock=self.clock), way]) for way in self.ways]
        # What each process was told that holds, and has forwarded.
        self.told: list[dict[bytes, bytes]] = [{}, {}]
        self.numbers = 0

    def new(self) -> bytes:
        self.numbers += 1
        return b"value %d" % self.numbers

    @rule(who=st.integers(0, 1), out=st.booleans())
    def goes(self, who: int, out: bool) -> None:
        self.ways[who].out = out

    @rule(who=st.integers(0, 1), key=KEYS)
    def adds(self, who: int, key: bytes) -> None:
        held = self.tiers[who].add(key, self.new(), 1e9)
        assert held is not None
        if not self.ways[who].out:
            assert self.shared.get_many([key])[key] == held
        self.told[who][key] = held

    @rule(who=st.integers(0, 1), key=KEYS)
    def reads(self, who: int, key: bytes) -> None:
        found = self.tiers[who].get_many([key]).get(key)
        if key in self.told[who]:
            assert found == self.told[who][key]
        elif found is not None:
            self.told[who][key] = found

    @rule(who=st.integers(0, 1), key=KEYS)
    def forgets(self, who: int, key: bytes) -> None:
        certain = self.tiers[who].delete([key])
        assert certain == (not self.ways[who].out)
        self.told[who].pop(key, None)
        if not certain:
            # Not even when the tier is back, unless somebody adds it again.
            self.ways[who].out = False
            assert self.tiers[who].get_many([key]) == {}

    @precondition(lambda self: not self.ways[0].out and not self.ways[1].out)
    @rule(key=KEYS)
    def agree(self, key: bytes) -> None:
        """On what neither of them has ever seen, both get the same answer."""
        if key not in self.told[0] and key not in self.told[1]:
            held = [tiers.add(key, self.new(), 1e9) for tiers in self.tiers]
            assert held[0] == held[1]
            self.told[0][key] = self.told[1][key] = held[0] or b""


def named(machine: type[RuleBasedStateMachine]) -> Any:
    case = machine.TestCase
    case.settings = SETTINGS
    return case


TestMemory = named(MemoryModel)
TestSqlite = named(SqliteModel)
TestSealed = named(SealedModel)
TestTiers = named(TiersModel)
TestTwoProcesses = named(TwoProcesses)
