"""What outlives a live reload.

mitmproxy drops the old addon and loads a new one, with new classes. What must not be lost lives in
values that belong to no class of ours (dicts and the caches of cachetools), hangs on mitmproxy's
master, and is shared by reference: requests that finish on the old code still count.
"""

from __future__ import annotations

import secrets
from typing import Any, Final, TypedDict

from cachetools import Cache, LRUCache

from mitmcontext.stores.memory import expiring, lru

_NAME: Final = "mitmcontext_carried"
_MESSAGES_SIZE: Final = 48 << 20
_LEDGER_SIZE: Final = 64 << 20
# A frozen edit that nobody has used for so long belongs to a conversation that is over; the
# provider's own cache forgot it long ago. Without a disk behind it the memory is all there is.
_LEDGER_SECONDS: Final = 30 * 24 * 3600.0
_HISTORIES: Final = 50_000


class Carried(TypedDict):
    """The values, by name."""

    figures: dict[str, Any]
    messages: Cache[bytes, bytes]
    ledger: Cache[bytes, bytes]
    observed: Cache[bytes, bytes]
    prefixes: LRUCache[bytes, tuple[bytes, int]]
    finished: dict[str, None]
    refused: LRUCache[bytes, bool]
    key: bytes


def carried(master: object) -> Carried:
    """What an earlier load left on the master, or a fresh start."""
    found = getattr(master, _NAME, None)
    if found is None:
        found = Carried(
            figures={},
            messages=lru(_MESSAGES_SIZE),
            ledger=expiring(_LEDGER_SIZE, _LEDGER_SECONDS),
            observed=expiring(_LEDGER_SIZE // 4, _LEDGER_SECONDS),
            prefixes=LRUCache(_HISTORIES),
            finished={},
            refused=LRUCache(1_000),
            key=secrets.token_bytes(32),
        )
        setattr(master, _NAME, found)
    return found
