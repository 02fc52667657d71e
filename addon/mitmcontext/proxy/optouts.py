"""Who wants to be left alone: each user's own choice, in memory and in what survives a restart.

The newest choice holds, at whichever proxy it was made. Proxies that share a store look for a newer
one every few seconds, and write down in a store what it does not know yet: one that was out of
service learns it later.
"""

from __future__ import annotations

import asyncio
import struct
import time
from collections.abc import Callable, MutableMapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from cachetools import TTLCache

from mitmcontext.proxy.tenant import keyed
from mitmcontext.stores.base import OK, Store

MOST: Final = 10_000
"""So many users' choices are held in memory."""

SHARED_SECONDS: Final = 5.0
"""A proxy takes at most so long to follow a choice that was made at another one."""

# As long as any store keeps things.
_KEPT_SECONDS: Final = 9.5 * 365 * 86_400
_VALUE: Final = struct.Struct(">d?")

Choice = tuple[float, bool]
"""When it was made (0: never), and whether it was to be left alone. No class of ours, so that it
can outlive a reload of the code."""

_NONE: Final[Choice] = (0.0, False)
_UNKNOWN: Final[Choice] = (0.0, True)


class OptOuts:
    """The choices of all users.

    Args:
        choices: where they are in memory, by user; may forget the oldest.
        stores: where they survive, each of them holding all.
        key: what users' names are digested with before they become keys of a store.
        shared: whether other proxies write to a store, too.
        clock: seconds since 1970.
    """

    def __init__(
        self,
        choices: MutableMapping[str, Choice],
        stores: Sequence[Store],
        key: bytes,
        *,
        shared: bool,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._choices = choices
        self._stores = stores
        self._key = key
        self._shared = shared
        self._clock = clock
        self._looked: TTLCache[str, bool] = TTLCache(MOST, SHARED_SECONDS)
        self._pool = ThreadPoolExecutor(2, thread_name_prefix="mitmcontext-optouts")

    async def has(self, user: str) -> bool:
        """Whether this user is to be left alone.

        So is who may have chosen that, as far as is known: while a store is out of service nobody
        knows what it holds.
        """
        if user not in self._choices or (self._shared and user not in self._looked):
            await self._run(self._look, user)
            if user in self._choices:
                self._looked[user] = True
        return self._choices.get(user, _UNKNOWN)[1]

    def has_at_hand(self, user: str) -> bool:
        """The same, as far as it is in memory."""
        return self._choices.get(user, _UNKNOWN)[1]

    async def choose(self, user: str, *, out: bool) -> bool:
        """Take a user's choice; whether all stores have it, and there is one."""
        await self._run(self._look, user)
        # Not before the last one: another proxy's clock may be ahead.
        made = max(self._clock(), self._choices.get(user, _NONE)[0] + 0.001)
        self._choices[user] = (made, out)
        return await self._run(self._look, user) and bool(self._stores)

    async def _run(self, work: Callable[[str, Choice], tuple[Choice, bool]], user: str) -> bool:
        known = self._choices.get(user, _NONE)
        loop = asyncio.get_running_loop()
        found, everywhere = await loop.run_in_executor(self._pool, work, user, known)
        # Meanwhile the user may have chosen anew.
        newest = max(found, self._choices.get(user, _NONE))
        if newest != _NONE or everywhere:
            self._choices[user] = newest
        return everywhere

    def _look(self, user: str, known: Choice) -> tuple[Choice, bool]:
        """The newest choice, and whether all stores have it now."""
        key = keyed(self._key, [b"opt-out", user.encode("utf-8", "surrogateescape")])
        held = [_read(store.get_many([key]).get(key)) for store in self._stores]
        newest = max([known, *held])
        if newest == _NONE:
            return newest, all(store.figures().state == OK for store in self._stores)
        value = _VALUE.pack(*newest)
        kept = [
            have == newest or store.set(key, value, _KEPT_SECONDS)
            for store, have in zip(self._stores, held, strict=True)
        ]
        return newest, all(kept)


def _read(value: bytes | None) -> Choice:
    try:
        made, out = _VALUE.unpack(value or b"")
    except struct.error:
        return _NONE
    return (float(made), bool(out))
