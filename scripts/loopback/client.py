"""A client that writes HTTP by hand through a proxy's CONNECT, so that every byte is its own."""

from __future__ import annotations

import contextlib
import socket
import ssl
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from .http1 import chunk_of

_SECONDS = 60.0
_PAUSE = 0.005
NO_TLS: Final = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""For a client that speaks plain HTTP only: httpx would load all roots, which takes 0.05 s."""


@dataclass
class Response:
    """An answer: its body without the framing of a transfer, each piece with its arrival."""

    status: int
    head: bytes
    arrived: list[tuple[float, bytes]] = field(default_factory=list)

    @property
    def body(self) -> bytes:
        """The whole body, still encoded."""
        return b"".join(data for _, data in self.arrived)

    def header(self, name: str) -> str:
        """The first header of this name, or nothing."""
        for line in self.head.split(b"\r\n")[1:]:
            key, _, value = line.partition(b":")
            if key.decode("latin-1").lower() == name.lower():
                return value.decode("latin-1").strip()
        return ""


def _in_chunks(body: bytes, size: int) -> Iterator[bytes]:
    yield from (chunk_of(body[start : start + size]) for start in range(0, len(body), size))
    yield chunk_of(b"")


class Connection:
    """One connection to a host through a proxy, kept for several requests.

    `latest` is the newest answer, also while it arrives or where it broke off.
    """

    def __init__(self, proxy_port: int, authority: Path, host: str, port: int = 443) -> None:
        self.host = host
        self.latest: Response | None = None
        self._buffer = b""
        plain = socket.create_connection(("127.0.0.1", proxy_port), _SECONDS)
        # As most clients do: what goes in pieces does not wait for the other side's late word.
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        place = f"{host}:{port}"
        plain.sendall(f"CONNECT {place} HTTP/1.1\r\nHost: {place}\r\n\r\n".encode())
        greeting = b""
        while not greeting.endswith(b"\r\n\r\n"):
            greeting += plain.recv(1)
        if b" 200 " not in greeting.split(b"\r\n")[0]:
            raise ConnectionError(greeting.decode("latin-1"))
        trust = ssl.create_default_context(cafile=str(authority))
        self.socket = trust.wrap_socket(plain, server_hostname=host)

    def post(
        self, path: str, headers: Sequence[tuple[str, str]], body: bytes, *, chunks: int = 0
    ) -> Response:
        """Send a request with just these headers and the ones that frame its body.

        It comes in chunks of so many bytes; with 0 its length is told.
        """
        framing = ("Transfer-Encoding", "chunked") if chunks else ("Content-Length", str(len(body)))
        lines = [f"POST {path} HTTP/1.1", f"Host: {self.host}"]
        lines += [f"{name}: {value}" for name, value in (*headers, framing)]
        sent = b"".join(_in_chunks(body, chunks)) if chunks else body
        return self.exchange(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1") + sent)

    def exchange(self, *pieces: bytes) -> Response:
        """Send the bytes of a request as they are; between two pieces others have time to act."""
        for number, piece in enumerate(pieces):
            time.sleep(_PAUSE if number else 0)
            self.socket.sendall(piece)
        return self._response()

    def close(self) -> None:
        """Hang up."""
        with contextlib.suppress(OSError):
            self.socket.close()

    def _response(self) -> Response:
        while b"\r\n\r\n" not in self._buffer:
            self._more()
        head, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
        response = self.latest = Response(int(head.split(b" ")[1]), head)
        if response.header("transfer-encoding").lower() == "chunked":
            for piece in self._chunks():
                response.arrived.append((time.monotonic(), piece))
        else:
            body = self._exactly(int(response.header("content-length") or 0))
            response.arrived.append((time.monotonic(), body))
        return response

    def _chunks(self) -> Iterator[bytes]:
        while True:
            while b"\r\n" not in self._buffer:
                self._more()
            size, _, self._buffer = self._buffer.partition(b"\r\n")
            piece = self._exactly(int(size.split(b";")[0], 16) + 2)[:-2]
            if not piece:
                return
            yield piece

    def _exactly(self, size: int) -> bytes:
        while len(self._buffer) < size:
            self._more()
        found, self._buffer = self._buffer[:size], self._buffer[size:]
        return found

    def _more(self) -> None:
        data = self.socket.recv(65_536)
        if not data:
            raise ConnectionError("the connection ended within an answer")
        self._buffer += data
