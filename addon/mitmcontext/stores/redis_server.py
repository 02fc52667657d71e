"""A Redis or Valkey server, or a cluster of them, as the stores need it: in time, or not at all."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from mitmcontext.stores.breaker import Breaker

if TYPE_CHECKING:
    from mitmcontext.stores.links import Command, Link, Reply

BUDGET_SECONDS: Final = 0.02
"""What a call may take, everything included."""

_FAILURES: Final = 3
_AWAY_SECONDS: Final = 5.0
_LEARN_SECONDS: Final = 1.0
# Errors that are about one entry and say nothing about the server.
_ENTRY: Final = ("WRONGTYPE",)
# That another server of a cluster has the key; older clients leave the word in the text.
_MOVING: Final = ("MovedError", "AskError", "TryAgainError")
_MOVING_WORDS: Final = ("MOVED ", "ASK ", "TRYAGAIN ")

Asked = tuple[bytes, "Command"]
"""A key, and the command about it. No command has more than one key: in a cluster two keys may
live on different servers."""


class Server:
    """Connections, circuit breakers and, for a cluster, who has which key.

    A cluster shows itself: a server that is asked for another one's key says so. Then all of
    them are asked, each for its own.

    Args:
        url: redis://, rediss:// (TLS) or unix://, with user, password and database.
        timer: seconds that never go backwards.
        seconds: what a call may take.

    Raises:
        ValueError: a sentence: redis-py is not installed, or the URL is none.
    """

    def __init__(
        self,
        url: str,
        timer: Callable[[], float] = time.monotonic,
        seconds: float = BUDGET_SECONDS,
    ) -> None:
        try:
            from mitmcontext.stores import links
        except ImportError:
            raise ValueError(
                "CONTEXT_REDIS_URL is set, but the Redis client is not installed; install "
                "mitmcontext with the extra redis: pip install '.[redis]'"
            ) from None
        try:
            self._options = links.options_of(url)
        except ValueError:
            raise ValueError(
                "CONTEXT_REDIS_URL must be a URL such as redis://host:6379/0, "
                "rediss://user:password@host:6379/0 or unix:///path"
            ) from None
        self._host = str(self._options["host"])
        self._links = links
        self._seconds = seconds
        self.reading = Breaker("Redis", timer, _FAILURES, _AWAY_SECONDS)
        self.writing = Breaker("writing to Redis", timer, _FAILURES, _AWAY_SECONDS)
        self._lock = threading.Lock()
        self._learning = False
        self._learned = -_LEARN_SECONDS
        self._cluster: list[tuple[int, int, Link]] = []
        self._nodes: dict[tuple[str, int], Link] = {}
        self._unreachable = False
        self._first = self._links.Link(self._options, self._connected, self._failed)

    def wait(self, seconds: float) -> bool:
        """Wait for the first connection; whether there is one. For the start, off the way."""
        until = time.monotonic() + seconds
        while not self._first.is_connected and time.monotonic() < until:
            time.sleep(0.005)
        return self._first.is_connected

    def read(self, asked: Sequence[Asked]) -> list[Reply]:
        """The replies; None for each where the server cannot be asked, or said no."""
        return self._ask(self.reading, asked)

    def write(self, asked: Sequence[Asked]) -> list[Reply]:
        """The same for commands that change something."""
        return self._ask(self.writing, asked)

    def sweep(self, pattern: bytes, seconds: float) -> bool:
        """Remove all keys that match a pattern; whether that is done. Takes its time.

        Args:
            pattern: as Redis' SCAN understands it.
            seconds: to give up after.
        """
        until = time.monotonic() + seconds
        try:
            for link in {id(link): link for link in (self._first, *self._nodes.values())}.values():
                self._sweep(link, pattern, until)
        except Exception as error:  # noqa: BLE001 - as in _ask
            self.writing.failed(type(error).__name__)
            return False
        return True

    def close(self) -> None:
        """Close the connections."""
        for link in (self._first, *self._nodes.values()):
            link.close()

    def _ask(self, breaker: Breaker, asked: Sequence[Asked]) -> list[Reply]:
        nothing: list[Reply] = [None] * len(asked)
        # Who cannot be read from need not be written to; the other way round is usual (a server
        # that is full, or read-only).
        if not asked or not self.reading.allows():
            return nothing
        if breaker is not self.reading and not breaker.allows():
            return nothing
        try:
            replies = self._exchange(asked)
        except self._links.NoConnection:
            # Whether that is a failure, the thread that connects will say.
            breaker.count("no connection yet")
            return nothing
        except Exception as error:  # noqa: BLE001 - a server that lies can provoke anything
            self.reading.failed(type(error).__name__)
            return nothing
        self.reading.worked()
        return self._sorted_out(breaker, replies)

    def _exchange(self, asked: Sequence[Asked]) -> list[Reply]:
        if not self._cluster:
            return self._first.exchange([command for _, command in asked], self._seconds)
        until = time.monotonic() + self._seconds
        parts: dict[int, tuple[Link, list[int]]] = {}
        for at, (key, _) in enumerate(asked):
            link = self._owner(key)
            parts.setdefault(id(link), (link, []))[1].append(at)
        replies: list[Reply] = [None] * len(asked)
        failures: list[Exception] = []
        for link, places in parts.values():
            commands = [asked[at][1] for at in places]
            try:
                found = link.exchange(commands, until - time.monotonic())
            except Exception as error:  # noqa: BLE001 - the other servers may be well
                failures.append(error)
                self._learn()
                continue
            for at, reply in zip(places, found, strict=True):
                replies[at] = reply
        if len(failures) == len(parts):
            raise failures[0]
        return replies

    def _sorted_out(self, breaker: Breaker, replies: list[Reply]) -> list[Reply]:
        """Errors become None, and are counted; what they say about the server is minded."""
        failed = ""
        for at, reply in enumerate(replies):
            if not isinstance(reply, Exception):
                continue
            replies[at] = None
            kind, text = type(reply).__name__, str(reply)
            if kind in _MOVING or text.startswith(_MOVING_WORDS):
                self._learn()
                breaker.count(kind)
            elif kind == "ResponseError" and text.startswith(_ENTRY):
                breaker.count("wrong type")
            else:
                failed = kind
        if failed:
            breaker.failed(failed)
        else:
            breaker.worked()
        return replies

    def _connected(self) -> None:
        # A server that answers too late can be connected to very well; that is no news.
        if self._unreachable:
            self._unreachable = False
            self.reading.ready()

    def _failed(self, error: Exception) -> None:
        self._unreachable = True
        self.reading.failed(type(error).__name__)

    def _node(self, host: str, port: int) -> Link:
        """The connections to one server of a cluster. If it fails, the others are there still."""
        if (host, port) not in self._nodes:
            self._nodes[host, port] = self._links.Link(
                {**self._options, "host": host, "port": port},
                self._connected,
                lambda error: self.reading.count(type(error).__name__),
            )
        return self._nodes[host, port]

    def _owner(self, key: bytes) -> Link:
        from redis.crc import key_slot

        slot = key_slot(key)
        for first, last, link in self._cluster:
            if first <= slot <= last:
                return link
        return self._first

    def _learn(self) -> None:
        """Ask, in a thread, who has which keys."""
        with self._lock:
            now = time.monotonic()
            if self._learning or now - self._learned < _LEARN_SECONDS:
                return
            self._learning, self._learned = True, now
        threading.Thread(target=self._learn_slots, name="mitmcontext-redis", daemon=True).start()

    def _learn_slots(self) -> None:
        try:
            everybody = (self._first, *self._nodes.values())
            asked = next((link for link in everybody if link.is_connected), self._first)
            (rows,) = asked.exchange([("CLUSTER", "SLOTS")], _LEARN_SECONDS)
            self._cluster = [
                (int(first), int(last), self._node(host.decode() or self._host, int(port)))
                for first, last, (host, port, *_), *_ in rows
            ]
        except Exception as error:  # noqa: BLE001 - as in _ask
            self.reading.count(type(error).__name__)
        finally:
            self._learning = False

    def _sweep(self, link: Link, pattern: bytes, until: float) -> None:
        cursor = b"0"
        while True:
            scan: Command = ("SCAN", cursor, "MATCH", pattern, "COUNT", 1000)
            (reply,) = link.exchange([scan], until - time.monotonic())
            cursor, keys = reply
            # What is no cursor would be followed until the time is up.
            int(cursor)
            if keys:
                removals: list[Command] = [("UNLINK", key) for key in keys]
                link.exchange(removals, until - time.monotonic())
            if cursor == b"0":
                return
