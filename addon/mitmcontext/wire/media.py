"""What images and documents a block holds, of whatever API: format, size and digest of each.

APIs nest them differently, but all name the same few things: data in base64 (bare or in a data
URL), a link, or the id of a file that the provider keeps. Data is decoded whole, so this is only
for blocks that are about to be replaced.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Iterator, Mapping
from typing import Final

import msgspec

from mitmcontext.values import Medium
from mitmcontext.wire.pictures import size_of

_DATA: Final = ("data", "bytes", "file_data", "fileData")
_LINKS: Final = ("url", "image_url", "file_url", "fileUri", "file_uri", "uri")
_FILES: Final = ("file_id", "fileId")
_TYPES: Final = ("media_type", "mimeType", "mime_type", "format")
_DATA_URL: Final = re.compile(r"data:([\w.+-]{0,60}/[\w.+-]{0,60})?[^,]{0,200};base64,", re.I)
_LINK: Final = re.compile(r"[a-z][a-z0-9+.-]{0,20}://[^\s?#]{1,200}", re.I)
_NAME: Final = re.compile(r"[A-Za-z0-9.+-]{1,40}")
_WEB_SAFE: Final = str.maketrans("-_", "+/", " \t\r\n")
_DEEP: Final = 12
_SIGNS: Final = {
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"\xff\xd8": "JPEG",
    b"GIF8": "GIF",
    b"%PDF": "PDF",
    b"PK\x03\x04": "ZIP",
}


def media_in(block: bytes) -> tuple[Medium, ...]:
    """The images and documents in a block, in order; none where it cannot be read."""
    try:
        held = msgspec.json.decode(block)
    except (msgspec.MsgspecError, RecursionError):
        return ()
    return tuple(_media(held, "", _DEEP))


def _media(held: object, kind: str, deep: int) -> Iterator[Medium]:
    """Walk from the outside in; `kind` is the media type that stands around."""
    if not deep:
        return
    if isinstance(held, list):
        for one in held:
            yield from _media(one, kind, deep - 1)
    elif isinstance(held, dict):
        named = (held.get(key) for key in _TYPES)
        kind = next((name for name in named if isinstance(name, str)), kind)
        for key, value in held.items():
            if isinstance(value, str):
                yield from _medium(held, key, value, kind)
            else:
                yield from _media(value, kind, deep - 1)


def _medium(beside: Mapping[str, object], key: str, value: str, kind: str) -> Iterator[Medium]:
    if url := _DATA_URL.match(value):
        yield _of(_decoded(value[url.end() :]), url[1] or kind)
    elif key in _DATA:
        # Anthropic's and Bedrock's plain documents hold their text as it reads.
        plain = beside.get("type") == "text"
        yield _of(value.encode("utf-8", "replace") if plain else _decoded(value), kind)
    elif key in _LINKS and (link := _LINK.match(value)):
        yield Medium(_named(kind), link=link[0])
    elif key in _FILES:
        yield Medium(_named(kind))


def _decoded(data: str) -> bytes:
    """The bytes that base64 stands for, in either alphabet; the text's own where it is none."""
    said = data.translate(_WEB_SAFE).rstrip("=")
    try:
        return base64.b64decode(said + "=" * (-len(said) % 4), validate=True)
    except (binascii.Error, ValueError):
        return data.encode("utf-8", "replace")


def _of(data: bytes, kind: str) -> Medium:
    width, height = size_of(data) or (0, 0)
    found = next((name for sign, name in _SIGNS.items() if data.startswith(sign)), "")
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        found = "WebP"
    sha = hashlib.sha256(data).hexdigest()[:8]
    return Medium(found or _named(kind), width, height, len(data), sha)


def _named(kind: str) -> str:
    """A media type's second half, as people write it: PNG for image/png."""
    name = kind.rpartition("/")[2]
    return name.upper() if _NAME.fullmatch(name) else ""
