"""Who does a piece of work of which one is enough, across processes."""

from __future__ import annotations

import secrets
from typing import Final

from mitmcontext.stores.base import Store

_TOKEN: Final = 16
# An entry ends by expiring; there is no removal that looks at the value first.
_SOON: Final = 0.001


class Leases:
    """Leases in a store that all processes share; the store's own tiers would remember too long.

    A lease is a matter of money, not of right: where the store is out of service everybody gets
    one, and goes on alone.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._token = secrets.token_bytes(_TOKEN)

    def lease(self, key: bytes, seconds: float) -> bool:
        """Whether nobody else has this lease. It ends by itself; who has it may take it again."""
        held = self._store.add(key, self._token, seconds)
        return held is None or held == self._token

    def give_back(self, key: bytes) -> None:
        """End a lease early. One that has become somebody else's stays."""
        if self._store.get_many([key]).get(key) == self._token:
            self._store.replace(key, self._token, b"", _SOON)
