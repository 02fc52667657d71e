"""The conversation and its ledger of frozen edits.

Clients resend the whole history on each turn, and most of them name no session. So a conversation
*is* its content: a chain of digests, one link per message, that begins with the tenant, the API
and the model. Two conversations share their links up to where they part, so forks and rewinds
need no code of their own.

An entry belongs to the link of the last message that it edits. Whoever sends that stretch again
gets the same bytes again. A later step leaves an entry at a deeper link; where it edits nothing
deeper it takes the same link's next place. Freezing is insert-if-absent: of two steps at once the
first one wins and both use it.
"""

from __future__ import annotations

import hashlib
import sys
import threading
from collections.abc import Iterable, Mapping, MutableMapping, Sequence
from typing import Any, Final, Protocol

from cachetools import LRUCache

from mitmcontext.condense.entries import Entry, Found, decoded, home, is_same, is_same_entry, packed

PROVISIONAL: Final = 900.0
"""Seconds that an entry lives until the provider has taken a request with it; answers may take
ten minutes."""

# How many links are looked up at once: the entry in force is mostly near the end.
_AT_ONCE: Final = 64
# Requests that are remembered: what is forgotten is looked up again. An entry takes 400 bytes.
_ASKED: Final = 10_000
_LATEST: Final = 16
# An exchange is some messages long; what grew by more may have been seen before a restart.
_NEW: Final = 9
# Steps that edit nothing deeper than the one before are rare: so many may share a link.
_PLACES: Final = 16
_NOTHING: Final[Mapping[bytes, bytes]] = {}
# Of the same messages less may be sent: without spaces, cache markers, blocks around a text.
_TERSER: Final = 4
# Where the smallest size is kept that anything was frozen for, and for how many seconds: longer
# than any entry that is in use.
_SMALLEST: Final = b"smallest"
_FOREVER: Final = 10 * 365 * 86_400.0


_Spot = tuple[int, int]
_NOWHERE: Final[_Spot] = (-1, 0)


def chain(seed: bytes, digests: Sequence[bytes]) -> list[bytes]:
    """The link of each message: SHA-256 over the link before it and the message's digest.

    Both are 32 bytes, so their order alone keeps them apart.
    """
    links = []
    link = seed
    for digest in digests:
        link = hashlib.sha256(link + digest).digest()
        links.append(link)
    return links


class Held(Protocol):
    """A value, and for how many seconds more it is kept."""

    @property
    def value(self) -> bytes:
        """What is kept."""

    @property
    def seconds(self) -> float:
        """For how long."""


class Shelf(Protocol):
    """The part of a store that a ledger needs; see `stores.base.Store` for what each promises."""

    def get_many(self, keys: Iterable[bytes]) -> dict[bytes, bytes]:
        """The values of those keys that have one."""

    def look_up(self, keys: Iterable[bytes]) -> Mapping[bytes, Held]:
        """The same, each with the seconds that it has left."""

    def set(self, key: bytes, value: bytes, seconds: float) -> bool:
        """Keep a value."""

    def add(self, key: bytes, value: bytes, seconds: float) -> bytes | None:
        """Insert if absent; what holds now, or None where that could not be decided."""

    def extend(self, key: bytes, seconds: float) -> bool:
        """Keep an entry for longer."""

    def delete(self, keys: Iterable[bytes]) -> bool:
        """Remove entries."""

    def clear(self) -> bool:
        """Remove all entries."""

    def clean_up(self) -> int:
        """Remove what has expired."""

    def figures(self) -> Any:
        """What it holds and how it fares."""


class FarShelf(Shelf, Protocol):
    """A shelf that others may write to as well."""

    def get_latest(self, keys: Iterable[bytes]) -> dict[bytes, bytes]:
        """The values that hold for all who share it."""

    def clear_nearer(self) -> None:
        """Remove everything but what others share."""


def begin(shelf: Shelf) -> None:
    """Note on a shelf, where it is new, that nothing was ever frozen there."""
    if shelf.figures().entries == 0:
        shelf.add(_SMALLEST, str(sys.maxsize).encode(), _FOREVER)


class Ledger:
    """Frozen edits by link, near in memory and, where there is one, on a far and durable shelf.

    Args:
        near: quick to ask; asked on every request.
        far: survives a restart. It decides what is frozen. None: there is only the near one.
        shared: whether other proxies write to the far shelf, so that it is asked every time.
        kept: for how many seconds a confirmed entry lives after its last use.
        sizes: where the smallest size is kept that anything was frozen for; as long as `near`.
    """

    def __init__(
        self,
        near: Shelf,
        far: FarShelf | None = None,
        *,
        shared: bool = False,
        kept: float = 86_400.0,
        sizes: MutableMapping[str, int] | None = None,
    ) -> None:
        self._near = near
        self._far = far
        self._shared = shared
        self._kept = kept
        self._provisional = min(PROVISIONAL, kept)
        self._freezing = threading.Lock()
        # By the last link of a history that was looked up: where the entry was that held, and of
        # which step (or `_NOWHERE`), how much was written until then, and whether the history had
        # been looked up before, when it was shorter. It says nothing of that link itself, or
        # behind it.
        self._asked: LRUCache[bytes, tuple[_Spot, int, bool]] = LRUCache(_ASKED)
        self._asking = threading.Lock()
        self._writes = 0
        self._sizes = {} if sizes is None else sizes
        # What came from a version that kept no sizes may have any.
        self._sizes.setdefault("smallest", 0 if near.figures().entries else sys.maxsize)
        # By a link with an entry: the links of later entries of its conversation.
        self._later: LRUCache[bytes, set[bytes]] = LRUCache(_ASKED)

    def find(self, links: Sequence[bytes]) -> Found | None:
        """The newest entry at the deepest link that has one, but for the last message's.

        Somebody who goes back to where an entry ends wants an answer to that message, not to a
        note about it. May take some milliseconds where there is a far shelf.
        """
        writes = self._writes
        certain, found = self.near(links)
        if not certain:
            grown = self._latest_mark(links) is not None
            fetched = self._fetch(links)
            # Of who was not here before, all that is in memory was looked at just now.
            if fetched or grown:
                writes = self._writes
                found = self._scan(links, fetched=fetched)
            self._note(links, found, writes, grown=grown)
        return found

    def near(self, links: Sequence[bytes]) -> tuple[bool, Found | None]:
        """What is found in memory, and whether that is certain to be all there is."""
        writes = self._writes
        mark = self._latest_mark(links)
        if mark is None or self._shared:
            found = self._scan(links)
            certain, grown = self._far is None, False
        else:
            index, spot, written, grown = mark
            # What lies behind the mark was never looked up; only a few messages of it can be new.
            found = self._scan(links, index)
            if found is None:
                # Nothing was written since: what held then still does.
                found = self._at(links, spot[0]) if written == writes else self._scan(links)
                # Memory drops what was used least, be it one of two steps at the same link.
                certain = spot == _spot(found)
            else:
                certain = True
            # Who had gone back before the first look may bring again what is only kept far away.
            few = len(links) - index <= (_NEW if grown else 1)
            certain = self._far is None or (certain and few)
            grown = grown or index < len(links) - 1
        if certain:
            self._note(links, found, writes, grown=grown)
        return certain, found

    @property
    def smallest(self) -> int:
        """No entry is for a conversation of fewer bytes, as far as is known here."""
        return self._sizes["smallest"]

    def look_for_smaller(self) -> bool:
        """Learn for how few bytes others froze something, or earlier processes.

        Whether that is certain. May take some milliseconds.
        """
        if self._far is None:
            return True
        told = self._far.get_latest([_SMALLEST]).get(_SMALLEST)
        if told is None:
            # Not begun, so kept by a version that kept no sizes; or there was no room for this one.
            least = 0 if self._far.figures().entries else self.smallest
            told = self._far.add(_SMALLEST, str(least).encode(), _FOREVER)
        if told is None:
            return False
        kept = int(told)
        self._lower(kept)
        # Of two at once the smaller one may have been written over.
        return kept <= self.smallest or self._far.set(
            _SMALLEST, str(self.smallest).encode(), _FOREVER
        )

    def freeze(
        self, links: Sequence[bytes], entry: Entry, base: Found | None, size: int = 0
    ) -> Found:
        """Keep an entry, unless another one took its place meanwhile: then that one holds.

        What is returned holds this very object only if it was kept now.

        It is provisional until `confirm`: a forger's request is refused by the provider, and what
        was frozen for it is gone in minutes.

        Args:
            links: the conversation's links.
            entry: what to keep; it belongs to the last message that it edits.
            base: what the step was planned on.
            size: bytes of the messages up to the one that the entry belongs to, as they were sent;
                0 where that is not known.
        """
        # Two steps may belong to different links, so inserting if absent is not enough.
        with self._freezing:
            now = self.find(links)
            if now is not None and not (base is not None and is_same(now, base)):
                return now
            at = home(entry, base)
            again = base is not None and base.at == at
            place = self._place(links[at], self._fetch([links[at]])) if again else 0
            for earlier in entry.earlier:
                self._later[earlier] = self._later.get(earlier, set()) | {links[at]}
            self._keep_size(size // _TERSER)
            key, value = _key(links[at], place), packed(entry)
            kept = self._far.add(key, value, self._provisional) if self._far else None
            if kept is None:
                kept = self._near.add(key, value, self._provisional) or value
            else:
                self._near.set(key, kept, self._provisional)
            self._wrote()
            return Found(at, entry if kept == value else decoded(kept))

    def confirm(self, links: Sequence[bytes], found: Found) -> bool:
        """The provider took a request with this entry: it lives on. Whether that is certain.

        What one of the shelves missed or lost gets it from the other. Where two proxies took
        steps apart, while what they share was away, the one that is shared now holds for both.
        """
        keys = [_key(links[found.at], place) for place in range(_PLACES)]
        near = self._near.get_many(keys)
        for key in near:
            self._near.extend(key, self._kept)
        if self._far is None:
            return True
        far = self._far.get_latest(keys)
        self._keep_size(self.smallest)
        for key, value in near.items():
            held = far.get(key) or self._far.add(key, value, self._kept)
            if held is not None and held != value:
                self._near.set(key, held, self._kept)
                self._far.set(key, held, self._kept)
                self._wrote()
        extended = [self._far.extend(key, self._kept) for key in near | far]
        return bool(extended) and all(extended)

    def retract(self, links: Sequence[bytes], found: Found) -> None:
        """Take an entry back, so that the one before it holds again."""
        with self._freezing:
            fetched = self._fetch([links[found.at]])
            place = self._place(links[found.at], fetched) - 1
            key = _key(links[found.at], place)
            held = self._nearby([key], fetched).get(key)
            if held is not None and is_same_entry(decoded(held), found.entry):
                self._delete([key])

    def forget(self, link: bytes) -> tuple[int, bool]:
        """Remove the entry at a link, all that it went on from, and all that went on from it.

        How many there were, and whether it is certain that none is left on either shelf. Later
        entries are those that this process knows of.
        """
        held = self._nearby([_key(link, place) for place in range(_PLACES)], self._fetch([link]))
        links = {link, *(at for kept in held.values() for at in decoded(kept).earlier)}
        links |= {later for at in links for later in self._later.get(at, ())}
        everywhere = self._delete([_key(at, place) for at in links for place in range(_PLACES)])
        with self._asking:
            self._asked.clear()
        return (len(links) if held else 0), everywhere

    def clear(self) -> bool:
        """Forget everything; whether it is certain that nothing is left on either shelf."""
        # What is frozen meanwhile would stay, and its size be forgotten.
        with self._freezing:
            self._near.clear()
            self._later.clear()
            everywhere = self._far.clear() if self._far else True
            self._sizes["smallest"] = sys.maxsize
            self.look_for_smaller()
        with self._asking:
            self._asked.clear()
        self._wrote()
        return everywhere

    def forget_nearby(self) -> None:
        """Forget what only this process holds, so that what is shared is looked up again."""
        self._near.clear()
        self._later.clear()
        if self._far:
            self._far.clear_nearer()
        with self._asking:
            self._asked.clear()
        self._wrote()

    def clean_up(self) -> None:
        """Remove what has expired."""
        self._near.clean_up()
        if self._far:
            self._far.clean_up()

    def figures(self) -> dict[str, Any]:
        """The figures of the near shelf and of the far one, where there is one."""
        found = {"frozen edits, in memory": self._near.figures()}
        return found | ({"frozen edits, kept": self._far.figures()} if self._far else {})

    def _keep_size(self, size: int) -> None:
        """Before anything is kept for so many bytes: so that all who find it know of it."""
        self._lower(size)
        self.look_for_smaller()
        if self._far:
            # A tier that lost it gets it back, as it does what is frozen.
            self._far.extend(_SMALLEST, self._kept)

    def _lower(self, size: int) -> None:
        with self._asking:
            self._sizes["smallest"] = min(self.smallest, size)

    def _delete(self, keys: list[bytes]) -> bool:
        self._wrote()
        self._near.delete(keys)
        return self._far.delete(keys) if self._far else True

    def _scan(
        self, links: Sequence[bytes], first: int = 0, fetched: Mapping[bytes, bytes] = _NOTHING
    ) -> Found | None:
        """The deepest entry in memory, or just fetched, from link `first` on."""
        for end in range(len(links) - 1, first, -_AT_ONCE):
            places = range(end - 1, max(first - 1, end - 1 - _AT_ONCE), -1)
            held = self._nearby([_key(links[at], 0) for at in places], fetched)
            # Of most conversations there is nothing, so the keys are made once.
            for at in places if held else ():
                if _key(links[at], 0) in held:
                    first_of = held[_key(links[at], 0)]
                    return Found(at, self._newest(links[at], first_of, fetched))
        return None

    def _nearby(self, keys: list[bytes], fetched: Mapping[bytes, bytes]) -> Mapping[bytes, bytes]:
        """What memory holds of these keys, and what was just fetched: it may have no room there."""
        held = self._near.get_many(keys)
        return held | {key: fetched[key] for key in keys if key in fetched} if fetched else held

    def _fetch(self, links: Sequence[bytes]) -> Mapping[bytes, bytes]:
        """Bring near what the far shelf has; in two calls, since each key costs some time."""
        if self._far is None:
            return _NOTHING
        # Where others write, what is near may be out of date, but not what lies before it.
        near = self._scan(links) if self._shared else None
        first = near.at if near else 0
        got = dict(self._far.look_up([_key(link, 0) for link in links[first:]]))
        held = [link for link in links[first:] if _key(link, 0) in got]
        later = [_key(link, place) for link in held for place in range(1, _PLACES)]
        if later:
            got |= self._far.look_up(later)
        for key, kept in got.items():
            self._near.set(key, kept.value, kept.seconds)
            self._wrote()
        return {key: kept.value for key, kept in got.items()}

    def _wrote(self) -> None:
        """What was noted before proves nothing any more."""
        with self._asking:
            self._writes += 1

    def _latest_mark(self, links: Sequence[bytes]) -> tuple[int, _Spot, int, bool] | None:
        """Index and content of a mark at one of the latest links; None for who was not here.

        That is somebody new, a fork, or another proxy's.
        """
        with self._asking:
            for index in range(len(links) - 1, max(-1, len(links) - 1 - _LATEST), -1):
                if links[index] in self._asked:
                    return (index, *self._asked[links[index]])
        return None

    def _note(
        self, links: Sequence[bytes], found: Found | None, writes: int, *, grown: bool
    ) -> None:
        if links:
            with self._asking:
                self._asked[links[-1]] = _spot(found), writes, grown

    def _at(self, links: Sequence[bytes], at: int) -> Found | None:
        """The newest entry at a link, but for the last message's."""
        if not 0 <= at < len(links) - 1:
            return None
        first = self._near.get_many([_key(links[at], 0)]).get(_key(links[at], 0))
        return Found(at, self._newest(links[at], first, _NOTHING)) if first is not None else None

    def _newest(self, link: bytes, first: bytes, fetched: Mapping[bytes, bytes]) -> Entry:
        held = first
        for place in range(1, _PLACES):
            later = self._nearby([_key(link, place)], fetched)
            if not later:
                break
            held = later[_key(link, place)]
        return decoded(held)

    def _place(self, link: bytes, fetched: Mapping[bytes, bytes]) -> int:
        """The first free place of a link; `_PLACES` where there is none."""
        held = self._nearby([_key(link, place) for place in range(_PLACES)], fetched)
        return next((p for p in range(_PLACES) if _key(link, p) not in held), _PLACES)


def _key(link: bytes, place: int) -> bytes:
    return link + place.to_bytes(2, "big")


def _spot(found: Found | None) -> _Spot:
    """Where the entry stands that holds, and its step: each at the same link is a later one."""
    return (found.at, found.entry.step) if found else _NOWHERE
