"""The cache of the specification: `await get(key)`, `await set(key, value, ttl)`."""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Callable
from concurrent.futures import Executor
from functools import partial
from typing import Any, Final, TypeVar

import msgspec

from mitmcontext.stores.base import Store

_T = TypeVar("_T")
TTL: Final = 3600.0
"""The specification's time to live, in seconds."""


class MultiTierCache:
    """Tiers for asynchronous code: the work is done in an executor.

    Args:
        tiers: usually a `Tiers`.
        executor: where it runs; None is the event loop's own.
        key: what the stores' keys are digested with, since a key may quote what nobody should
            read. Empty where all that share the tiers may have the same.
    """

    def __init__(self, tiers: Store, executor: Executor | None = None, key: bytes = b"") -> None:
        self._tiers = tiers
        self._executor = executor
        self._key = key

    async def get(self, key: str | bytes) -> Any:
        """The value of a key from the first tier that has it, or None."""
        named = self._named(key)
        kept = (await self._run(partial(self._tiers.get_many, [named]))).get(named)
        return None if kept is None else msgspec.msgpack.decode(kept)

    async def set(self, key: str | bytes, value: Any, ttl: float = TTL) -> None:
        """Keep a value in every tier for `ttl` seconds.

        Raises:
            TypeError: it is not made of what JSON has, and bytes.
        """
        encoded = msgspec.msgpack.encode(value)
        await self._run(partial(self._tiers.set, self._named(key), encoded, ttl))

    async def _run(self, work: Callable[[], _T]) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._executor, work)

    def _named(self, key: str | bytes) -> bytes:
        """A digest of the key; text and bytes are different keys."""
        raw = b"text " + key.encode() if isinstance(key, str) else b"bytes " + key
        return hmac.digest(self._key, raw, "sha256")
