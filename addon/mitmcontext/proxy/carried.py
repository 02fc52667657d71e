"""What outlives a live reload.

mitmproxy drops the old addon and loads a new one, with new classes. What must not be lost lives in
values that belong to no class of ours (dicts and the caches of cachetools), hangs on mitmproxy's
master, and is shared by reference: requests that finish on the old code still count. Only what
belongs to a request in flight is of the old classes, and ends with it: no member of an old enum
*is* one of the new, and no two values of both are equal, so they are compared by what they hold.
"""

from __future__ import annotations

import secrets
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, TypedDict
from weakref import WeakValueDictionary

from cachetools import Cache, LRUCache, TLRUCache

from mitmcontext.proxy import history, originals, threads
from mitmcontext.stores.memory import lock_of, lru
from mitmcontext.stores.memory_store import Cell, cells

_NAME: Final = "mitmcontext_carried"
_MESSAGES_SIZE: Final = 48 << 20
# Where frozen edits lie on a disk or in Redis, too, what is not here is fetched from there. A step
# in a window of 200,000 tokens takes some 80 KB: these are three hundred, should the disk fail.
_LEDGER_SIZE: Final = 24 << 20
_ONLY_LEDGER_SIZE: Final = 64 << 20
_NOTES_SIZE: Final = 16 << 20
# An engineer who works with agents all day sends a thousand requests in an hour. What is kept for
# each of them takes 2 KB in all.
_HISTORIES: Final = 10_000
# The conversations on all WebSockets together, in bytes.
_LINES_SIZE: Final = 128 << 20


class Carried(TypedDict):
    """The values, by name."""

    figures: dict[str, Any]
    messages: Cache[bytes, bytes]
    near: TLRUCache[bytes, Cell]
    sizes: dict[str, int]
    prefixes: LRUCache[bytes, tuple[bytes, tuple[int, int]]]
    finished: dict[str, None]
    flows: WeakValueDictionary[str, Any]
    pending: dict[str, Any]
    tees: dict[str, Any]
    refused: LRUCache[bytes, bool]
    windows: LRUCache[str, int]
    lines: LRUCache[str, Any]
    tabs: LRUCache[bytes, tuple[float, ...]]
    notes: TLRUCache[bytes, Cell]
    purse: LRUCache[bytes, float]
    history: history.Kept
    originals: LRUCache[str, originals.Original]
    missed: set[str]
    vocabularies: dict[str, Any]
    pools: dict[str, ThreadPoolExecutor]
    spare_key: bytes


def sized(kept: Carried, size: int) -> Cache[bytes, bytes]:
    """The cache of messages with room for so many bytes; a new one where it had another size."""
    if kept["messages"].maxsize != size:
        kept["messages"] = lru(size)
    return kept["messages"]


def ledger(kept: Carried, *, only: bool) -> TLRUCache[bytes, Cell]:
    """The cache of frozen edits. It may grow and never shrinks: no edit is lost at a reload.

    Args:
        kept: what is carried.
        only: whether they are kept nowhere else.
    """
    size = _ONLY_LEDGER_SIZE if only else _LEDGER_SIZE
    held = kept["near"]
    if held.maxsize < size:
        kept["near"] = cells(size)
        # With the time standing still, nothing expires between being named and being copied.
        with lock_of(held), held.timer:
            kept["near"].update(held)
    return kept["near"]


def pool(kept: Carried, name: str) -> ThreadPoolExecutor:
    """The threads of that name, the same ones over all reloads.

    tiktoken has a copy of its splitting pattern for each of up to 128 threads, and each copy takes
    up to a megabyte once it has worked: with new threads at each reload that came together.
    """
    if name not in kept["pools"]:
        kept["pools"][name] = threads.pool(name)
    return kept["pools"][name]


def was_carried(master: Any) -> bool:
    """Whether an earlier load left something."""
    return hasattr(master, _NAME)


def carried(master: object) -> Carried:
    """What an earlier load left on the master, or a fresh start.

    The earlier load may have been of an older version, which did not have all of it.
    """
    found: Carried | None = getattr(master, _NAME, None)
    if found is None:
        found = _fresh()
        setattr(master, _NAME, found)
    else:
        found.update(_fresh() | found)
    return found


def _fresh() -> Carried:
    return Carried(
        figures={},
        messages=lru(_MESSAGES_SIZE),
        near=cells(_LEDGER_SIZE),
        sizes={},
        prefixes=LRUCache(_HISTORIES),
        finished={},
        flows=WeakValueDictionary(),
        pending={},
        tees={},
        refused=LRUCache(1_000),
        windows=LRUCache(1_000),
        lines=LRUCache(_LINES_SIZE, getsizeof=_size_of),
        tabs=LRUCache(_HISTORIES),
        notes=cells(_NOTES_SIZE),
        purse=LRUCache(_HISTORIES),
        history=history.fresh(),
        originals=originals.fresh(),
        missed=set(),
        vocabularies={},
        pools={},
        spare_key=secrets.token_bytes(32),
    )


def drop_finished(kept: Carried) -> None:
    """Drop what belongs to requests that came to their end while no addon was there to hear of it.

    That is so where a reload fails. What was left would hold the old code for good.
    """
    flows = kept["flows"]
    for held in (kept["pending"], kept["tees"]):
        for name in [name for name in held if not getattr(flows.get(name), "live", False)]:
            del held[name]


def _size_of(line: Any) -> int:
    return int(line.size)
