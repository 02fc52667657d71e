"""Content encodings, both ways: what clients send encoded and what answers are sent as."""

from __future__ import annotations

import zlib
from collections.abc import Callable

import brotli  # type: ignore[import-untyped]  # it ships no types
import zstandard

CODINGS = ("gzip", "deflate", "br", "zstd")
_MOST = 256 * 1024 * 1024


class Undecodable(Exception):
    """The body is not what its content-encoding says."""


def decode(body: bytes, coding: str) -> bytes:
    """Undo a content-encoding."""
    try:
        if coding in ("", "identity"):
            return body
        if coding in ("gzip", "deflate"):
            return _inflate(body, coding)
        if coding == "br":
            return bytes(brotli.decompress(body))
        if coding == "zstd":
            unpacker = zstandard.ZstdDecompressor().decompressobj()
            return unpacker.decompress(body)
    except (zlib.error, brotli.error, zstandard.ZstdError) as error:
        raise Undecodable from error
    raise Undecodable


def _inflate(body: bytes, coding: str) -> bytes:
    try:
        return zlib.decompressobj(47 if coding == "gzip" else 15).decompress(body, _MOST)
    except zlib.error:
        if coding == "gzip":
            raise
        # Many senders mean the bare stream when they say deflate.
        return zlib.decompressobj(-15).decompress(body, _MOST)


def encode(body: bytes, coding: str) -> bytes:
    """Apply a content-encoding to a whole body."""
    step, end = encoder(coding)
    return step(body) + end()


def encoder(coding: str) -> tuple[Callable[[bytes], bytes], Callable[[], bytes]]:
    """An encoding for a stream: each piece comes out at once, and then the end."""
    if coding in ("gzip", "deflate"):
        packer = zlib.compressobj(6, zlib.DEFLATED, 31 if coding == "gzip" else 15)
        return lambda data: packer.compress(data) + packer.flush(zlib.Z_SYNC_FLUSH), packer.flush
    if coding == "br":
        squeezer = brotli.Compressor(quality=4)
        return lambda data: bytes(squeezer.process(data) + squeezer.flush()), squeezer.finish
    if coding == "zstd":
        packed = zstandard.ZstdCompressor(level=3).compressobj()
        block = zstandard.COMPRESSOBJ_FLUSH_BLOCK
        return lambda data: packed.compress(data) + packed.flush(block), packed.flush
    return lambda data: data, lambda: b""
