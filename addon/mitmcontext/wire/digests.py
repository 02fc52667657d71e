"""Digests of messages and their parts, by which they are known again when they are resent.

A client moves its cache markers from turn to turn, so that no digest has them in it.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Collection, Iterable, Mapping
from functools import lru_cache
from typing import Final

from mitmcontext.values import Part, Span
from mitmcontext.wire import spans
from mitmcontext.wire.places import is_string

MARKER: Final = "cache_control"
_BRACKET: Final = ord("[")
_LENGTH: Final = struct.Struct(">Q").pack


def digest(pieces: Iterable[bytes]) -> bytes:
    """SHA-256 over length-prefixed pieces, so that no two different lists look alike."""
    framed = [part for piece in pieces for part in (_LENGTH(len(piece)), piece)]
    return hashlib.sha256(b"".join(framed)).digest()


def block_digest(text: bytes, raw: bytes, fields: Mapping[str, Span]) -> bytes:
    """The digest of one content block, without its cache marker (and without nested ones).

    Args:
        text: `raw` made readable, to find things in.
        raw: the bytes that count.
        fields: the block's fields.
    """
    framed: list[bytes] = []
    for key, named in _in_order(tuple(fields)):
        start, end = fields[key]
        if key == "content" and raw[start] == _BRACKET:
            said = content_digest(text, raw, fields[key])
        else:
            said = raw[start:end]
        framed += (named, _LENGTH(len(said)), said)
    # As `digest` does, of keys and values.
    return hashlib.sha256(b"".join(framed)).digest()


@lru_cache(maxsize=256)
def _in_order(keys: tuple[str, ...]) -> tuple[tuple[str, bytes], ...]:
    """The keys that count in a digest, in its order, each with how it stands there."""
    named = ((key, key.encode()) for key in sorted(keys) if key != MARKER)
    return tuple((key, _LENGTH(len(name)) + name) for key, name in named)


def content_digest(text: bytes, raw: bytes, span: Span) -> bytes:
    """The digest of a list of blocks; that of a single text block equals the bare string's."""
    blocks = [spans.unique(text, block) for block in spans.elements(text, span)]
    if len(blocks) == 1 and set(blocks[0]) - {MARKER} == {"type", "text"}:
        (block,) = blocks
        if raw[slice(*block["type"])] == b'"text"' and is_string(raw, block["text"]):
            return raw[slice(*block["text"])]
    return digest(block_digest(text, raw, fields) for fields in blocks)


def message_digest(role: str, parts: Iterable[Part], rest: Iterable[bytes] = ()) -> bytes:
    """The digest of a message: its role, its parts in order, and what else belongs to it."""
    return digest([role.encode(), *[part.digest for part in parts], b"", *rest])


def others(raw: bytes, fields: Mapping[str, Span], read: Collection[str]) -> list[bytes]:
    """What else than the keys `read` stands in an object, for the digest of a message."""
    return [
        piece
        for key in sorted(fields)
        if key not in read
        for piece in (key.encode(), raw[slice(*fields[key])])
    ]


def string_digest(raw: bytes, span: Span) -> bytes:
    """The digest of a bare string: that of the text block which says the same."""
    return digest([b"text", raw[slice(*span)], b"type", b'"text"'])
