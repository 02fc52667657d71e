"""Several stores as one: the nearest answers first, the last one is shared and decides.

Reading asks one tier after the other and keeps what a later one had in the earlier ones. Writing
goes to all. Inserting if absent is decided by the last tier that is in service, and what holds
there is written to the others: so two processes that share that tier agree.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from typing import Final

from mitmcontext.stores.base import OK, Figures, Kept, Store

# So many removals are remembered for a tier that is out of service.
_MOST_OWED: Final = 10_000


class _Tier:
    """A store, and what is to be removed from it as soon as it is back."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.owed: dict[bytes, None] = {}
        self.owes_all = False
        self.lock = threading.Lock()

    def settle(self) -> None:
        """Remove what could not be removed before."""
        with self.lock:
            owed, owes_all = list(self.owed), self.owes_all
        if owes_all and self.store.clear():
            self.owes_all = False
        if owed and self.store.delete(owed):
            with self.lock:
                for key in owed:
                    self.owed.pop(key, None)

    def allowed(self, keys: Iterable[bytes]) -> list[bytes]:
        """The keys that may be read and written here: nothing of theirs is to be removed."""
        if not self.owes_all and not self.owed:
            return list(keys)
        self.settle()
        if self.owes_all:
            return []
        with self.lock:
            return [key for key in keys if key not in self.owed]

    def get_many(self, keys: Iterable[bytes]) -> dict[bytes, bytes]:
        return self.store.get_many(self.allowed(keys))

    def look_up(self, keys: Iterable[bytes]) -> dict[bytes, Kept]:
        return self.store.look_up(self.allowed(keys))

    def set(self, key: bytes, value: bytes, seconds: float) -> bool:
        return bool(self.allowed([key])) and self.store.set(key, value, seconds)

    def add(self, key: bytes, value: bytes, seconds: float) -> bytes | None:
        return self.store.add(key, value, seconds) if self.allowed([key]) else None

    def extend(self, key: bytes, seconds: float) -> bool:
        return bool(self.allowed([key])) and self.store.extend(key, seconds)

    def delete(self, keys: list[bytes]) -> bool:
        if self.store.delete(keys):
            return True
        with self.lock:
            self.owed.update(dict.fromkeys(keys))
            while len(self.owed) > _MOST_OWED:
                del self.owed[next(iter(self.owed))]
        return False

    def clear(self) -> bool:
        self.owes_all = not self.store.clear()
        return not self.owes_all


class Tiers:
    """A store made of others: the nearest first, the shared one last."""

    def __init__(self, stores: Sequence[Store]) -> None:
        self._tiers = [_Tier(store) for store in stores]
        self._lock = threading.Lock()
        self._hits = 0
        self._misses = 0

    @property
    def stores(self) -> tuple[Store, ...]:
        """The single stores, for their figures."""
        return tuple(tier.store for tier in self._tiers)

    def get_many(self, keys: Iterable[bytes]) -> dict[bytes, bytes]:
        """The values of those keys that have one."""
        wanted = list(dict.fromkeys(keys))
        # Nearly always the first tier has all of it; then nobody asks how long it is kept.
        found = self._tiers[0].get_many(wanted)
        missing = [key for key in wanted if key not in found]
        if missing:
            later = self._look_up(missing, first=1)
            found.update({key: kept.value for key, kept in later.items()})
        self._count(len(wanted), len(found))
        return found

    def get_latest(self, keys: Iterable[bytes]) -> dict[bytes, bytes]:
        """As `get_many`, but what the last tier has comes first: for what others change, too."""
        missing = list(dict.fromkeys(keys))
        asked = len(missing)
        found: dict[bytes, bytes] = {}
        for tier in reversed(self._tiers):
            found |= tier.get_many(missing)
            missing = [key for key in missing if key not in found]
            if not missing:
                break
        self._count(asked, len(found))
        return found

    def look_up(self, keys: Iterable[bytes]) -> dict[bytes, Kept]:
        wanted = list(dict.fromkeys(keys))
        found = self._look_up(wanted, first=0)
        self._count(len(wanted), len(found))
        return found

    def set(self, key: bytes, value: bytes, seconds: float) -> bool:
        # Every tier is written to, whatever the others answer.
        done = [tier.set(key, value, seconds) for tier in self._tiers]
        return any(done)

    def add(self, key: bytes, value: bytes, seconds: float) -> bytes | None:
        """Insert if absent. What holds now; None if no tier could decide.

        What a tier before the last holds comes before the new value: it was decided while the
        later ones were away, and somebody may have forwarded it already.
        """
        for at in range(len(self._tiers) - 1, -1, -1):
            offered = self._nearer(at, key) or Kept(value, seconds)
            decider = self._tiers[at]
            held = decider.add(key, offered.value, offered.seconds)
            if held is None:
                continue
            if held != offered.value:
                found = decider.look_up([key]).get(key)
                offered = Kept(held, found.seconds if found else seconds)
            self._tell_others(decider, key, offered)
            return held
        return None

    def replace(self, key: bytes, old: bytes, value: bytes, seconds: float) -> bool:
        """Put a value in another's place; decided by the last tier that holds any."""
        for tier in reversed(self._tiers):
            held = tier.get_many([key]).get(key)
            if held is None:
                continue
            if held != old or not tier.store.replace(key, old, value, seconds):
                return False
            self._tell_others(tier, key, Kept(value, seconds))
            return True
        return False

    def extend(self, key: bytes, seconds: float) -> bool:
        """Keep an entry for at least so long in all tiers; whether it is certain that all have it.

        A tier that lost it (Redis restarted or short of memory, a database set aside) gets it
        back, so to do this whenever an entry has proven its worth is what heals them.
        """
        lacking = []
        found = False
        for tier in self._tiers:
            if tier.extend(key, seconds):
                found = True
            else:
                lacking.append(tier)
        kept = self._look_up([key], first=0).get(key) if found and lacking else None
        if kept is not None:
            held = [tier.add(key, kept.value, kept.seconds) for tier in lacking]
            return all(value == kept.value for value in held)
        return found

    def delete(self, keys: Iterable[bytes]) -> bool:
        """Remove entries from all tiers.

        A tier that is out of service is asked again before it is next read; until then the
        answer is False.
        """
        named = list(keys)
        done = [tier.delete(named) for tier in self._tiers]
        return all(done)

    def clear(self) -> bool:
        """Remove everything from all tiers; as `delete` for those out of service."""
        done = [tier.clear() for tier in self._tiers]
        return all(done)

    def clear_nearer(self) -> None:
        """Remove everything from all tiers but the last, which is shared."""
        for tier in self._tiers[:-1]:
            tier.clear()

    def clean_up(self) -> int:
        removed = 0
        for tier in self._tiers:
            tier.settle()
            removed += tier.store.clean_up()
        return removed

    def close(self) -> None:
        for tier in self._tiers:
            tier.store.close()

    def figures(self) -> Figures:
        """Hits and misses of all tiers together; entries and bytes of the fullest.

        Each tier's own figures are those of `stores`.
        """
        every = [tier.store.figures() for tier in self._tiers]
        faults: dict[str, int] = {}
        for one in every:
            for reason, times in one.faults.items():
                faults[reason] = faults.get(reason, 0) + times
        return Figures(
            entries=max((one.entries for one in every if one.entries is not None), default=None),
            size=max((one.size for one in every if one.size is not None), default=None),
            hits=self._hits,
            misses=self._misses,
            state=next((one.state for one in every if one.state != OK), OK),
            faults=faults,
        )

    def _look_up(self, keys: list[bytes], first: int) -> dict[bytes, Kept]:
        found: dict[bytes, Kept] = {}
        missing = keys
        for at, tier in enumerate(self._tiers[first:], first):
            here = tier.look_up(missing)
            for key, kept in here.items():
                for nearer in self._tiers[:at]:
                    nearer.set(key, kept.value, kept.seconds)
            found.update(here)
            missing = [key for key in missing if key not in here]
            if not missing:
                break
        return found

    def _nearer(self, at: int, key: bytes) -> Kept | None:
        """What the tiers before this one hold."""
        for tier in self._tiers[:at]:
            kept = tier.look_up([key]).get(key)
            if kept is not None:
                return kept
        return None

    def _tell_others(self, decider: _Tier, key: bytes, kept: Kept) -> None:
        """Write what one tier decided to the others."""
        for tier in self._tiers:
            if tier is not decider:
                tier.set(key, kept.value, kept.seconds)

    def _count(self, asked: int, found: int) -> None:
        with self._lock:
            self._hits += found
            self._misses += asked - found
