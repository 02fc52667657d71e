"""Real and fake Redis servers for tests, each on a port of its own."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from loopback.redis_server import RealRedis

REQUIRED = "MITMCONTEXT_REQUIRE_REDIS"


def need_redis() -> None:
    """Skip where redis-server or its client is absent; fail where the environment asks for it."""
    try:
        import redis  # noqa: F401
    except ImportError:
        missing = "the redis package"
    else:
        missing = "" if shutil.which("redis-server") else "redis-server"
    if missing:
        if os.environ.get(REQUIRED) == "1":
            pytest.fail(f"{missing} is not installed, and {REQUIRED} is 1")
        pytest.skip(f"{missing} is not installed")


@contextmanager
def real_redis(*arguments: str) -> Iterator[RealRedis]:
    need_redis()
    with tempfile.TemporaryDirectory() as folder:
        server = RealRedis(Path(folder), *arguments)
        server.start()
        try:
            yield server
        finally:
            server.stop()


def environment(folder: Path, server: RealRedis) -> dict[str, str]:
    """What proxies need that share a Redis."""
    key = folder / "shared-key"
    if not key.exists():
        key.write_text(secrets.token_hex(32))
        key.chmod(0o600)
    return {"CONTEXT_REDIS_URL": server.url, "CONTEXT_KEY_FILE": str(key)}


Answer = Callable[[list[bytes]], bytes | None]
"""A command to what is sent back; None closes the connection."""


class FakeRedis:
    """Shakes hands as a server does; what else is asked, `answer` decides."""

    def __init__(self, answer: Answer, drip: float = 0.0) -> None:
        self.answer = answer
        self.drip = drip
        self.asked: list[list[bytes]] = []
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"redis://127.0.0.1:{self._socket.getsockname()[1]}/0"
        self._open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        for one in (self._socket, *self._open):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                link, _ = self._socket.accept()
                self._open.append(link)
                threading.Thread(target=self._serve, args=[link], daemon=True).start()

    def _serve(self, link: socket.socket) -> None:
        with suppress(OSError, ValueError), link, link.makefile("rb") as lines:
            while count := lines.readline():
                command = []
                for _ in range(int(count[1:])):
                    size = int(lines.readline()[1:])
                    command.append(lines.read(size + 2)[:-2])
                if command[0] in (b"CLIENT", b"SELECT", b"HELLO", b"PING"):
                    link.sendall(b"+OK\r\n")
                    continue
                self.asked.append(command)
                reply = self.answer(command)
                if reply is None:
                    return
                self._send(link, reply)

    def _send(self, link: socket.socket, reply: bytes) -> None:
        if not self.drip:
            link.sendall(reply)
            return
        for at in range(len(reply)):
            time.sleep(self.drip)
            link.sendall(reply[at : at + 1])


@contextmanager
def fake_redis(answer: Answer, drip: float = 0.0) -> Iterator[FakeRedis]:
    need_redis()
    server = FakeRedis(answer, drip)
    try:
        yield server
    finally:
        server.close()
