"""Content encodings, undone within bounds.

A few kilobytes can unpack to gigabytes, so nothing here ever asks a decompressor for all it has.
Each kind is fed piece by piece and says no as soon as more would come out than there is room for.
What is not exactly one complete body in one known encoding is `Unreadable`: it is forwarded as it
came, and whether the server can make sense of it is between the client and the server.
"""

from __future__ import annotations

import gzip
import zlib
from typing import Protocol

import brotli  # type: ignore[import-untyped]
import zstandard

from mitmcontext.values import Unreadable

RATIO = 250
"""How much longer than its encoded form a body may be, once it is longer than `SMALL`."""

SMALL = 8 * 2**20
"""Up to this size no ratio is suspicious: a megabyte of spaces is a fair thing to send."""

_PIECE = 16 * 1024  # Of gzip, this much becomes 16 MiB at most.
_MEMBERS = 1000  # Concatenated gzip members or zstd frames; each costs a fresh decompressor.

# A zstd block holds up to 128 KiB and can be as short as four bytes, and the library has no way to
# ask for less than all of a piece. This bounds what one piece can become to about 8 MiB.
_ZSTD_PIECE = 256
_ZSTD_WINDOW = 8 * 2**20  # What every HTTP client and server must support, and no more (RFC 9659).

TOO_LARGE = "the body is too large when decoded"
TRUNCATED = "the encoded body is incomplete"
TRAILING = "something follows the encoded body"
LYING = "the body is not encoded as its header says"
STACKED = "the body is encoded more than once"
UNKNOWN = "the body is encoded in an unknown way"


class Decoder(Protocol):
    """Undoes one encoding, piece by piece."""

    @property
    def complete(self) -> bool:
        """Whether everything that was begun has ended."""

    def feed(self, data: bytes, room: int) -> bytes:
        """What this piece adds; `Unreadable` if that is no such encoding or more than `room`."""


class _Identity:
    complete = True

    def feed(self, data: bytes, room: int) -> bytes:
        if len(data) > room:
            raise Unreadable(TOO_LARGE)
        return data


class _Zlib:
    """gzip, with any number of members, and deflate in both its forms."""

    def __init__(self, wbits: int | None) -> None:
        self._wbits = wbits  # None: deflate whose form is told by its first two bytes
        self._head = b""
        self._inflate = zlib.decompressobj(wbits) if wbits is not None else None
        self._members = 1

    @property
    def complete(self) -> bool:
        return self._inflate is not None and self._inflate.eof

    def feed(self, data: bytes, room: int) -> bytes:
        if self._inflate is None:
            data = self._head + data
            if len(data) < 2:
                self._head = data
                return b""
            self._inflate = zlib.decompressobj(zlib_or_raw(data))
        out: list[bytes] = []
        while data:
            if self._inflate.eof:
                self._inflate = self._next_member()
            try:
                # One more than there is room for, since 0 would mean no bound at all.
                piece = self._inflate.decompress(data, room + 1)
            except zlib.error:
                raise Unreadable(LYING) from None
            room -= len(piece)
            if room < 0:
                raise Unreadable(TOO_LARGE)
            out.append(piece)
            data = self._inflate.unused_data
        return b"".join(out)

    def _next_member(self) -> zlib._Decompress:
        self._members += 1
        if self._wbits is None or self._members > _MEMBERS:
            raise Unreadable(TRAILING)
        return zlib.decompressobj(self._wbits)


class _Brotli:
    def __init__(self) -> None:
        self._decompressor = brotli.Decompressor()

    @property
    def complete(self) -> bool:
        return bool(self._decompressor.is_finished())

    def feed(self, data: bytes, room: int) -> bytes:
        out: list[bytes] = []
        while data or not self.complete:
            if self.complete:
                raise Unreadable(TRAILING)
            try:
                piece = self._decompressor.process(data, output_buffer_limit=_PIECE)
            except brotli.error:
                raise Unreadable(LYING) from None
            data = b""
            # That it accepts more input does not mean that it has given all of its output.
            if not piece and self._decompressor.can_accept_more_data():
                break
            room -= len(piece)
            if room < 0:
                raise Unreadable(TOO_LARGE)
            out.append(piece)
        return b"".join(out)


class _Zstd:
    """zstd, with any number of frames."""

    def __init__(self) -> None:
        self._members = 1
        self._frame = self._new_frame()

    @property
    def complete(self) -> bool:
        return self._frame.eof

    def feed(self, data: bytes, room: int) -> bytes:
        out: list[bytes] = []
        for start in range(0, len(data), _ZSTD_PIECE):
            rest = data[start : start + _ZSTD_PIECE]
            while rest:
                if self._frame.eof:
                    self._members += 1
                    if self._members > _MEMBERS:
                        raise Unreadable(TRAILING)
                    self._frame = self._new_frame()
                try:
                    piece = self._frame.decompress(rest)
                except zstandard.ZstdError:
                    raise Unreadable(LYING) from None
                room -= len(piece)
                if room < 0:
                    raise Unreadable(TOO_LARGE)
                out.append(piece)
                rest = self._frame.unused_data
        return b"".join(out)

    @staticmethod
    def _new_frame() -> zstandard.ZstdDecompressionObj:
        return zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW).decompressobj()


def zlib_or_raw(data: bytes) -> int:
    """The window bits for a deflate body: HTTP means zlib by it, some clients send it raw."""
    is_zlib = data[0] & 0x0F == 8 and (data[0] << 8 | data[1]) % 31 == 0
    return zlib.MAX_WBITS if is_zlib else -zlib.MAX_WBITS


def coding(content_encoding: str | None) -> str:
    """The one coding that this header names, in lower case; `Unreadable` if there are several."""
    name = (content_encoding or "").strip().lower()
    if "," in name:
        raise Unreadable(STACKED)
    return {"": "identity", "x-gzip": "gzip"}.get(name, name)


def decoder(content_encoding: str | None) -> Decoder:
    """A fresh decoder for what this header names."""
    match coding(content_encoding):
        case "identity":
            return _Identity()
        case "gzip":
            return _Zlib(zlib.MAX_WBITS | 16)
        case "deflate":
            return _Zlib(None)
        case "br":
            return _Brotli()
        case "zstd":
            return _Zstd()
        case _:
            raise Unreadable(UNKNOWN)


def decode(raw: bytes, content_encoding: str | None, limit: int) -> bytes:
    """The body itself, at most `limit` bytes of it; else `Unreadable`."""
    undo = decoder(content_encoding)
    if isinstance(undo, _Identity):
        return undo.feed(raw, limit)
    room = min(limit, max(SMALL, RATIO * len(raw)))
    out: list[bytes] = []
    for start in range(0, len(raw), _PIECE):
        piece = undo.feed(raw[start : start + _PIECE], room)
        room -= len(piece)
        out.append(piece)
    if not undo.complete:
        raise Unreadable(TRUNCATED)
    return b"".join(out)


def encode(body: bytes, content_encoding: str | None, like: bytes = b"") -> bytes:
    """The body in the coding that this header names, fast rather than small.

    `like` is the body as it came: deflate is put back in the form that it had.
    """
    match coding(content_encoding):
        case "identity":
            return body
        case "gzip":
            return gzip.compress(body, compresslevel=1, mtime=0)
        case "deflate":
            wbits = zlib_or_raw(like) if len(like) > 1 else zlib.MAX_WBITS
            return zlib.compress(body, level=1, wbits=wbits)
        case "br":
            return bytes(brotli.compress(body, quality=1))
        case "zstd":
            return zstandard.ZstdCompressor(level=1).compress(body)
        case _:
            raise Unreadable(UNKNOWN)
