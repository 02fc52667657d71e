"""Connections to a Redis server that are always warm, and exchanges with it under a deadline.

redis-py speaks the protocol; its pool and client are not used. Their time-outs are per read, so a
server that drips bytes could hold a request for as long as it likes, and a call may have to look
up a name and shake hands first. Here a call has one deadline for all it does and never connects:
that is done by a thread, on demand, and until it is done there is no connection.

This module needs the extra `redis`.
"""

from __future__ import annotations

import queue
import socket
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Final

from redis.backoff import NoBackoff
from redis.connection import Connection, parse_url
from redis.exceptions import ResponseError
from redis.retry import Retry

CONNECTIONS: Final = 2
"""Per server: as many as threads that ask at once."""

# Looking up a name is not in it, but the thread that waits for that holds up nobody.
_CONNECT_SECONDS: Final = 1.0
_HANDSHAKE_SECONDS: Final = 2.0
_LOOK_SECONDS: Final = 0.005

Command = tuple[bytes | int | str, ...]
Reply = Any
"""What the server answered: bytes, a number, None, a list, or an error as a value."""


class NoConnection(Exception):
    """There is none at the moment; one is being made."""


class TimedSocket:
    """A socket whose operations all end at one time."""

    def __init__(self, plain: socket.socket) -> None:
        self._plain = plain
        self._given = plain.gettimeout()
        self.until = time.monotonic() + _HANDSHAKE_SECONDS

    def __getattr__(self, name: str) -> Any:
        return getattr(self._plain, name)

    def settimeout(self, seconds: float | None) -> None:
        """As a socket's; the end holds all the same."""
        self._given = seconds

    def recv(self, size: int) -> bytes:
        self._arm()
        return self._plain.recv(size)

    def recv_into(self, buffer: bytearray, size: int = 0) -> int:
        self._arm()
        return self._plain.recv_into(buffer, size)

    def sendall(self, data: bytes) -> None:
        self._arm()
        self._plain.sendall(data)

    def _arm(self) -> None:
        left = self.until - time.monotonic()
        if self._given == 0:
            self._plain.settimeout(0)
        elif left <= 0:
            raise TimeoutError
        else:
            self._plain.settimeout(left if self._given is None else min(left, self._given))


class _Timed:
    """What a connection of redis-py needs to have a timed socket."""

    timed: TimedSocket

    def _connect(self) -> TimedSocket:
        self.timed = TimedSocket(super()._connect())  # type: ignore[misc]
        return self.timed


def options_of(url: str) -> dict[str, Any]:
    """What redis-py's connections are made with, for a URL.

    Raises:
        ValueError: it is none of redis://, rediss:// or unix://. The message may quote it.
    """
    given = {"host": "localhost", "port": 6379, **parse_url(url)}  # type: ignore[no-untyped-call]
    return {
        **given,
        "port": int(given["port"]),
        "decode_responses": False,
        "protocol": 2,
        "retry": Retry(NoBackoff(), 0),
        "retry_on_timeout": False,
        "health_check_interval": 0,
        "socket_connect_timeout": _CONNECT_SECONDS,
        "socket_timeout": _CONNECT_SECONDS,
    }


class Link:
    """The connections to one server.

    Args:
        options: as `options_of` gives them.
        connected: called, in the connecting thread, when a connection was made.
        failed: likewise, with what went wrong when none could be made.
    """

    def __init__(
        self,
        options: dict[str, Any],
        connected: Callable[[], None],
        failed: Callable[[Exception], None],
    ) -> None:
        kind = options.get("connection_class", Connection)
        self._kind = type("TimedConnection", (_Timed, kind), {})
        unused = {"connection_class"} | ({"host", "port"} if "path" in options else set())
        self._options = {name: value for name, value in options.items() if name not in unused}
        self._connected = connected
        self._failed = failed
        self._idle: queue.LifoQueue[Any] = queue.LifoQueue()
        self._lock = threading.Lock()
        self._alive = 0
        self._connecting = False
        self._closed = False
        self._ensure()

    @property
    def is_connected(self) -> bool:
        """Whether there is a connection."""
        return self._alive > 0

    def exchange(self, commands: Sequence[Command], seconds: float) -> list[Reply]:
        """Send all commands, then read a reply to each. Errors that are replies are in the list.

        Raises:
            NoConnection: there is none just now.
            Exception: the connection broke, it took too long, or what came was no reply.
        """
        until = time.monotonic() + seconds
        connection = self._take(until)
        sound = False
        try:
            connection.timed.until = until
            packed = connection.pack_commands(commands)
            connection.send_packed_command(packed, check_health=False)
            replies = [_reply(connection) for _ in commands]
            sound = True
            return replies
        finally:
            self._give_back(connection, sound)

    def close(self) -> None:
        """Close what is idle now, and the others when they are given back."""
        self._closed = True
        with suppress(queue.Empty):
            while True:
                _drop(self._idle.get_nowait())

    def _take(self, until: float) -> Any:
        while True:
            self._ensure()
            if not self._alive or self._closed:
                raise NoConnection
            left = until - time.monotonic()
            if left <= 0:
                raise TimeoutError
            with suppress(queue.Empty):
                # Another thread may find that all of them are broken, so look again now and then.
                connection = self._idle.get(timeout=min(left, _LOOK_SECONDS))
                if _is_quiet(connection):
                    return connection
                self._give_back(connection, sound=False)

    def _give_back(self, connection: Any, sound: bool) -> None:
        if sound and not self._closed:
            self._idle.put(connection)
            return
        _drop(connection)
        with self._lock:
            self._alive -= 1
        self._ensure()

    def _ensure(self) -> None:
        """See that there are enough connections, or will be."""
        if self._alive >= CONNECTIONS or self._closed:
            return
        with self._lock:
            if self._connecting:
                return
            self._connecting = True
        thread = threading.Thread(target=self._connect_all, name="mitmcontext-redis", daemon=True)
        try:
            thread.start()
        except RuntimeError:
            self._connecting = False

    def _connect_all(self) -> None:
        try:
            while self._alive < CONNECTIONS and not self._closed:
                connection = self._kind(**self._options)
                connection.connect()
                with self._lock:
                    self._alive += 1
                self._give_back(connection, sound=True)
                self._connected()
        except Exception as error:  # noqa: BLE001 - what a server can provoke has no end
            self._failed(error)
        finally:
            self._connecting = False


def _reply(connection: Any) -> Reply:
    try:
        return connection.read_response()
    except ResponseError as error:
        return error


def _is_quiet(connection: Any) -> bool:
    """Whether there is nothing to read: no end of it, and no answers to who knows what."""
    try:
        return not connection.can_read(timeout=0)
    except Exception:  # noqa: BLE001 - it is broken, however it says so
        return False


def _drop(connection: Any) -> None:
    with suppress(Exception):
        connection.disconnect()
