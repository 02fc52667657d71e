"""Proxies that share a store forget together.

Each holds some things apart from what they share: counts, excerpts, what providers reported. Who
clears or forgets leaves a new epoch in the store; the others see that it changed.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Final

from mitmcontext.stores.tiers import Tiers

# Longer than anything else is kept.
_KEPT: Final = 400 * 86_400.0


class Epoch:
    """What one proxy knows of it.

    Args:
        far: the shared store; None where there is none.
        name: what the epoch is kept under.
        forget: forgets what this proxy holds apart from what is shared.
    """

    def __init__(self, far: Tiers | None, name: bytes, forget: Callable[[], None]) -> None:
        self._far = far
        self._name = name
        self._forget = forget
        # None: not asked for yet.
        self._epoch: bytes | None = None

    def renew(self) -> None:
        """Tell the proxies that share the store to forget."""
        if self._far is not None:
            self._epoch = secrets.token_bytes(8)
            self._far.set(self._name, self._epoch, _KEPT)

    def follow(self) -> None:
        """Where another proxy cleared or forgot something, hold only what is still shared."""
        if self._far is None:
            return
        found = self._far.get_latest([self._name]).get(self._name, b"")
        if found and found != self._epoch:
            if self._epoch is not None:
                self._forget()
            self._epoch = found
        elif self._epoch is None:
            self._epoch = found
