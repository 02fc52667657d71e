"""A store whose values are encrypted and authenticated, over one that may be anybody's to read.

Each value is sealed with AES-256-GCM under a key of its own, derived from the sealing key, the
purpose and the entry's key (HKDF-Expand). So a value opens only where it was put; and the bound
of 2**32 values under one key with random nonces, which many proxies with one sealing key would
reach in months, is one per entry here. AES-GCM-SIV would do without that derivation, but OpenSSL
has it only from 3.2 on and seals 100 KB in 0.17 ms rather than 0.01; and proxies that share a
store must all have it, or none.

Expiry and time of writing are inside the seal: a store that gives out what should be gone does
not get it past here. A value that does not open (damaged, put there by somebody else, or sealed
with a key since changed) is treated as absent, deleted and counted. One that opens but has
expired, or comes from the future, is left for the store to remove: the clock that is wrong may
be ours.

What sealing cannot tell: a store that gives back an older value of the same key, not yet expired.
"""

from __future__ import annotations

import secrets
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Final, NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from mitmcontext.stores.base import Figures, Kept, Store

_VERSION: Final = b"\x01"
_NONCE: Final = 12
_TIMES: Final = struct.Struct(">dd")
GROWTH: Final = len(_VERSION) + _NONCE + _TIMES.size + 16
"""So many bytes a sealed value is longer."""

_AHEAD_SECONDS: Final = 300.0
_NOT_OPENED: Final = "a value that does not open"


class _Opened(NamedTuple):
    """What was inside a seal; the times are seconds since 1970."""

    value: bytes
    written: float
    until: float


class Sealed:
    """A store over another one, whose values only open with the key, for their purpose and place.

    Args:
        store: where the sealed values lie.
        key: 32 bytes for sealing, for nothing else.
        purpose: what the values are; those of another purpose do not open.
        clock: seconds since 1970.
    """

    def __init__(
        self, store: Store, key: bytes, purpose: str, clock: Callable[[], float] = time.time
    ) -> None:
        self._store = store
        self._key = key
        self._purpose = purpose.encode()
        self._clock = clock
        self._lock = threading.Lock()
        self._hits = 0
        self._misses = 0
        self._faults: Counter[str] = Counter()

    def get_many(self, keys: Iterable[bytes]) -> dict[bytes, bytes]:
        return {key: kept.value for key, kept in self.look_up(keys).items()}

    def look_up(self, keys: Iterable[bytes]) -> dict[bytes, Kept]:
        wanted = list(dict.fromkeys(keys))
        found = {}
        broken = []
        for key, sealed in self._store.get_many(wanted).items():
            kept = self._open(key, sealed)
            if kept is None:
                broken.append(key)
            elif self._lives(kept):
                found[key] = Kept(kept.value, kept.until - self._clock())
        if broken:
            self._store.delete(broken)
        with self._lock:
            self._hits += len(found)
            self._misses += len(wanted) - len(found)
            if broken:
                self._faults[_NOT_OPENED] += len(broken)
        return found

    def set(self, key: bytes, value: bytes, seconds: float) -> bool:
        return self._store.set(key, self._seal(key, value, seconds), seconds)

    def add(self, key: bytes, value: bytes, seconds: float) -> bytes | None:
        if seconds <= 0:
            return self.get_many([key]).get(key)
        sealed = self._seal(key, value, seconds)
        held = self._store.add(key, sealed, seconds)
        # What is held may be of no use; then it is exchanged, unless somebody did so meanwhile.
        for _ in range(3):
            if held is None:
                return None
            if held == sealed:
                return value
            kept = self._open(key, held)
            if kept is not None and self._lives(kept):
                return kept.value
            if kept is None:
                with self._lock:
                    self._faults[_NOT_OPENED] += 1
            if self._store.replace(key, held, sealed, seconds):
                return value
            held = self._store.add(key, sealed, seconds)
        return None

    def replace(self, key: bytes, old: bytes, value: bytes, seconds: float) -> bool:
        held = self._store.get_many([key]).get(key)
        kept = None if held is None else self._open(key, held)
        if held is None or kept is None or not self._lives(kept) or kept.value != old:
            return False
        return self._store.replace(key, held, self._seal(key, value, seconds), seconds)

    def extend(self, key: bytes, seconds: float) -> bool:
        for _ in range(3):
            held = self._store.get_many([key]).get(key)
            kept = None if held is None else self._open(key, held)
            if held is None or kept is None or not self._lives(kept):
                return False
            if kept.until >= self._clock() + seconds:
                return True
            sealed = self._seal(key, kept.value, seconds)
            if self._store.replace(key, held, sealed, seconds):
                return True
        return False

    def delete(self, keys: Iterable[bytes]) -> bool:
        return self._store.delete(keys)

    def clear(self) -> bool:
        return self._store.clear()

    def clean_up(self) -> int:
        return self._store.clean_up()

    def close(self) -> None:
        self._store.close()

    def figures(self) -> Figures:
        under = self._store.figures()
        with self._lock:
            faults = {**under.faults, **self._faults}
            return replace(under, hits=self._hits, misses=self._misses, faults=faults)

    def _seal(self, key: bytes, value: bytes, seconds: float) -> bytes:
        now = self._clock()
        nonce = secrets.token_bytes(_NONCE)
        inside = _TIMES.pack(now, now + seconds) + value
        head = _VERSION + nonce
        return head + self._cipher(key).encrypt(nonce, inside, self._bound_to(key))

    def _open(self, key: bytes, sealed: bytes) -> _Opened | None:
        if len(sealed) < GROWTH or sealed[:1] != _VERSION:
            return None
        start = len(_VERSION) + _NONCE
        nonce = sealed[len(_VERSION) : start]
        try:
            inside = self._cipher(key).decrypt(nonce, sealed[start:], self._bound_to(key))
        except InvalidTag:
            return None
        written, until = _TIMES.unpack_from(inside)
        return _Opened(inside[_TIMES.size :], written, until)

    def _lives(self, kept: _Opened) -> bool:
        now = self._clock()
        return kept.written <= now + _AHEAD_SECONDS and now < kept.until

    def _cipher(self, key: bytes) -> AESGCM:
        return AESGCM(HKDFExpand(hashes.SHA256(), 32, self._bound_to(key)).derive(self._key))

    def _bound_to(self, key: bytes) -> bytes:
        """Version, purpose and key; the purpose's length keeps the two apart."""
        return _VERSION + len(self._purpose).to_bytes(2, "big") + self._purpose + key
