"""HTTP/1.1 read by hand, so that nothing between the wire and the record tidies anything up."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

LARGEST_HEAD = 256 * 1024


class Closed(Exception):
    """The client has hung up, or does not speak HTTP/1.1."""


@dataclass(frozen=True, slots=True)
class Wire:
    """A request exactly as it came: `head` and `raw_body` are the very bytes.

    `body` is `raw_body` without the framing of a chunked transfer; it is still encoded.
    """

    method: str
    target: str
    head: bytes
    headers: tuple[tuple[bytes, bytes], ...]
    raw_body: bytes
    body: bytes

    def header(self, name: str) -> str:
        """The first header of this name, or nothing."""
        wanted = name.lower().encode()
        for key, value in self.headers:
            if key.lower() == wanted:
                return value.decode("latin-1")
        return ""

    @property
    def path(self) -> str:
        """The target without its query."""
        return self.target.partition("?")[0]


async def read_request(reader: asyncio.StreamReader) -> Wire:
    """Read one request with its body. Raises Closed at the end of the connection."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, OSError) as error:
        raise Closed from error
    lines = head[:-4].split(b"\r\n")
    words = lines[0].decode("latin-1").split(" ")
    if len(words) != 3:
        raise Closed
    headers = tuple(_header(line) for line in lines[1:])
    raw_body, body = await _read_body(reader, headers)
    return Wire(words[0], words[1], head, headers, raw_body, body)


def _header(line: bytes) -> tuple[bytes, bytes]:
    name, _, value = line.partition(b":")
    return name, value.strip(b" \t")


async def _read_body(
    reader: asyncio.StreamReader, headers: tuple[tuple[bytes, bytes], ...]
) -> tuple[bytes, bytes]:
    named = {name.lower(): value for name, value in headers}
    try:
        if named.get(b"transfer-encoding", b"").lower() == b"chunked":
            return await _read_chunks(reader)
        body = await reader.readexactly(int(named.get(b"content-length", b"0")))
    except (asyncio.IncompleteReadError, ValueError, OSError) as error:
        raise Closed from error
    return body, body


async def _read_chunks(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    raw, body = bytearray(), bytearray()
    while True:
        line = await reader.readuntil(b"\r\n")
        size = int(line.split(b";")[0], 16)
        chunk = await reader.readexactly(size + 2)
        raw += line + chunk
        if size == 0:
            return bytes(raw), bytes(body)
        body += chunk[:-2]


def head_of(status: int, headers: list[tuple[str, str]]) -> bytes:
    """The head of an answer."""
    lines = [f"HTTP/1.1 {status} {_REASONS.get(status, 'Status')}"]
    lines += [f"{name}: {value}" for name, value in headers]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def chunk_of(data: bytes) -> bytes:
    """One piece of a chunked transfer; no data makes the last one, with no trailers."""
    return b"%x\r\n%s\r\n" % (len(data), data)


def last_chunk(trailer: str) -> bytes:
    """The end of a chunked transfer, with a header line behind it or none."""
    return f"0\r\n{trailer}\r\n\r\n".encode("latin-1") if trailer else chunk_of(b"")


_REASONS = {
    200: "OK",
    400: "Bad Request",
    401: "Unauthorized",
    404: "Not Found",
    413: "Request Entity Too Large",
    422: "Unprocessable Entity",
    429: "Too Many Requests",
    500: "Internal Server Error",
    529: "Overloaded",
}
