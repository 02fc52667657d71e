"""Real and fake Redis servers for tests, each on a port of its own."""

from __future__ import annotations

import os
import random
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

REQUIRED = "MITMCONTEXT_REQUIRE_REDIS"


def free_port() -> int:
    """One below those that outgoing connections take, and 10,000 below another: a cluster's."""
    while True:
        port = random.randrange(10_000, 20_000)
        with socket.socket() as found, suppress(OSError):
            found.bind(("127.0.0.1", port))
            return port


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


class RealRedis:
    """A redis-server that can be stopped and started on the same port."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._arguments = ["--dir", str(folder), "--save", "", "--bind", "127.0.0.1", *arguments]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self._process = subprocess.Popen(
            ["redis-server", "--port", str(self.port), *self._arguments],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for _ in range(500):
            with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return
            time.sleep(0.02)
        raise RuntimeError("redis-server did not start")

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def say(self, *command: str | bytes) -> bytes:
        """Send one command, and give what comes back within a moment."""
        with socket.create_connection(("127.0.0.1", self.port), 5) as link:
            link.sendall(packed(*command))
            link.settimeout(5)
            return link.recv(1 << 20)


def packed(*command: str | bytes) -> bytes:
    pieces = [piece.encode() if isinstance(piece, str) else piece for piece in command]
    parts = b"".join(b"$%d\r\n%s\r\n" % (len(piece), piece) for piece in pieces)
    return b"*%d\r\n%s" % (len(pieces), parts)


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
