"""The third tier: a store in Redis or Valkey, which several proxies share.

Keys are "mitmcontext:", the store's name and the key in hex. Each command is about one key and
is sent together with the others, not in a transaction and not as MGET: so a cluster will do, with
no hash tags that would put everything on one server.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from mitmcontext.stores.base import Figures, Kept
from mitmcontext.stores.redis_server import Server

if TYPE_CHECKING:
    from mitmcontext.stores.links import Command

MOST: Final = 1 << 20
"""The longest value, in bytes. Whatever lies there, no more than this is asked for."""

# Before each value, since an empty one looks like none to GETRANGE.
_MARK: Final = b"\x01"
_LONGEST_SECONDS: Final = 10 * 365 * 24 * 3600.0
_SWEEP_SECONDS: Final = 30.0
_NAME: Final = re.compile(r"[a-z0-9-]{1,64}")
_REPLACE: Final = (
    "if redis.call('GET', KEYS[1]) == ARGV[1] then "
    "redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3]) return 1 end return 0"
)


class RedisStore:
    """A store on a server that others may use as well. It is bounded by the server, not here.

    Args:
        server: shared by all stores on it.
        name: keeps them apart: small letters, digits and hyphens.
        most: the longest value, in bytes.

    Raises:
        ValueError: the name holds something else.
    """

    def __init__(self, server: Server, name: str, most: int = MOST) -> None:
        if not _NAME.fullmatch(name):
            raise ValueError("a store's name is made of small letters, digits and hyphens")
        self._server = server
        self._prefix = b"mitmcontext:" + name.encode() + b":"
        self._most = most
        self._lock = threading.Lock()
        self._hits = 0
        self._misses = 0

    def get_many(self, keys: Iterable[bytes]) -> dict[bytes, bytes]:
        wanted = list(dict.fromkeys(keys))
        # One byte more than a value may have shows that it is too long.
        end = len(_MARK) + self._most
        asked = [(name, ("GETRANGE", name, 0, end)) for name in map(self._named, wanted)]
        found = {}
        for key, reply in zip(wanted, self._server.read(asked), strict=True):
            value = self._value(reply)
            if value is not None:
                found[key] = value
        with self._lock:
            self._hits += len(found)
            self._misses += len(wanted) - len(found)
        return found

    def look_up(self, keys: Iterable[bytes]) -> dict[bytes, Kept]:
        values = self.get_many(keys)
        names = [self._named(key) for key in values]
        left = self._server.read([(name, ("PTTL", name)) for name in names])
        return {
            key: Kept(value, milliseconds / 1000)
            for (key, value), milliseconds in zip(values.items(), left, strict=True)
            # Negative: gone meanwhile, or of no end, and so not from here.
            if isinstance(milliseconds, int) and milliseconds > 0
        }

    def set(self, key: bytes, value: bytes, seconds: float) -> bool:
        if not self._fits(value, seconds):
            # What was there is no longer true.
            self.delete([key])
            return False
        return self._write(key, "SET", _MARK + value, "PX", _milliseconds(seconds)) == b"OK"

    def add(self, key: bytes, value: bytes, seconds: float) -> bytes | None:
        fits = self._fits(value, seconds)
        # What was in the way may expire before it is read.
        for _ in range(2):
            if fits:
                put = (_MARK + value, "NX", "PX", _milliseconds(seconds))
                if self._write(key, "SET", *put) == b"OK":
                    return value
            held = self.get_many([key]).get(key)
            if held is not None or not fits:
                return held
        return None

    def replace(self, key: bytes, old: bytes, value: bytes, seconds: float) -> bool:
        if not self._fits(value, seconds):
            return False
        name = self._named(key)
        given = (_MARK + old, _MARK + value, _milliseconds(seconds))
        return self._ask_to_write(name, ("EVAL", _REPLACE, 1, name, *given)) == 1

    def extend(self, key: bytes, seconds: float) -> bool:
        name = self._named(key)
        (left,) = self._server.read([(name, ("PTTL", name))])
        if not isinstance(left, int) or left <= 0:
            return False
        if left >= _milliseconds(seconds):
            return True
        return self._write(key, "PEXPIRE", _milliseconds(seconds)) == 1

    def delete(self, keys: Iterable[bytes]) -> bool:
        asked = [(name, ("UNLINK", name)) for name in map(self._named, keys)]
        return all(isinstance(reply, int) for reply in self._server.write(asked))

    def clear(self) -> bool:
        return self._server.sweep(self._prefix + b"*", _SWEEP_SECONDS)

    def clean_up(self) -> int:
        """Do nothing: Redis removes what has expired."""
        return 0

    def close(self) -> None:
        """Close the server's connections, and with them all stores on it."""
        self._server.close()

    def figures(self) -> Figures:
        reading, writing = self._server.reading, self._server.writing
        state = reading.state if reading.state != "ok" else writing.state
        faults = dict(reading.faults)
        for reason, times in writing.faults.items():
            faults[reason] = faults.get(reason, 0) + times
        return Figures(None, None, self._hits, self._misses, state, faults)

    def _named(self, key: bytes) -> bytes:
        return self._prefix + key.hex().encode()

    def _fits(self, value: bytes, seconds: float) -> bool:
        return seconds > 0 and len(value) <= self._most

    def _value(self, reply: object) -> bytes | None:
        """The value that a reply holds, if it holds one of ours."""
        if not isinstance(reply, bytes) or not reply.startswith(_MARK):
            return None
        value = reply[len(_MARK) :]
        return value if len(value) <= self._most else None

    def _write(self, key: bytes, command: str, *rest: bytes | int | str) -> object:
        name = self._named(key)
        return self._ask_to_write(name, (command, name, *rest))

    def _ask_to_write(self, name: bytes, command: Command) -> object:
        (reply,) = self._server.write([(name, command)])
        return reply


def _milliseconds(seconds: float) -> int:
    return max(1, int(min(seconds, _LONGEST_SECONDS) * 1000))
