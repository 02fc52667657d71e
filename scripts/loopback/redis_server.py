"""A real redis-server on a port of its own."""

from __future__ import annotations

import random
import shutil
import socket
import subprocess
import time
from contextlib import suppress
from pathlib import Path

PROGRAM = "redis-server"


def is_installed() -> bool:
    """Whether both the server and its client for Python are here."""
    try:
        import redis  # noqa: F401
    except ImportError:
        return False
    return shutil.which(PROGRAM) is not None


def free_port() -> int:
    """One below those that outgoing connections take, and 10,000 below another: a cluster's."""
    while True:
        port = random.randrange(10_000, 20_000)
        with socket.socket() as found, suppress(OSError):
            found.bind(("127.0.0.1", port))
            return port


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


def number_in(answer: bytes, name: str = "") -> int:
    """The number that an answer is, or that stands behind a name in it."""
    text = answer.decode()
    piece = text.partition(name + ":")[2] if name else text.lstrip(":")
    return int(piece.split()[0])
