"""How large an image is, from the first bytes of its data.

Providers charge for an image by its width and height, so no more of the base64 is decoded than it
takes to read these: 32 bytes of most formats, and of a JPEG what stands before its frame.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from typing import Final

from mitmcontext.values import Picture, Span
from mitmcontext.wire.places import nested

_PLAIN: Final = 64  # characters of base64: enough for PNG, GIF and WebP
_JPEG: Final = 512 << 10  # ... for a JPEG with previews and colour profiles before its frame
_DATA_URL: Final = re.compile(rb"data:[^,]{0,200};base64,", re.IGNORECASE)
_WEB_SAFE: Final = bytes.maketrans(b"-_", b"+/")
# Frame headers (SOF) hold the size; C4, C8 and CC are other things in their midst.
_FRAMES: Final = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_ALONE: Final = frozenset({0x01, *range(0xD0, 0xD9)})  # markers without a length


def picture(text: bytes, span: Span | None, detail: str = "") -> Picture:
    """The image at `span`: a JSON string of base64, bare or in a data URL.

    Without a size where it is a link, or something else than an image that we know.
    """
    if span is None or text[span.start : span.start + 1] != b'"':
        return Picture(detail=detail)
    start = span.start + 1
    if url := _DATA_URL.match(text, start, min(span.end, start + 300)):
        start = url.end()
    size = None
    for most in (_PLAIN, _JPEG):
        size = size_of(_decoded(text[start : min(span.end - 1, start + most)]))
        if size is not None or span.end - 1 - start <= most:
            break
    return Picture(*size, detail) if size else Picture(detail=detail)


def picture_behind(text: bytes, fields: Mapping[str, Span], *keys: str) -> Picture:
    """The image behind some keys, each inside the one before: `source`, `data`.

    A `detail` beside the last key is what the request asks for.
    """
    asked = nested(text, fields, *keys[:-1], "detail")
    detail = text[slice(*asked)].strip(b'"').decode() if asked else ""
    return picture(text, nested(text, fields, *keys), detail)


_PLUS: Final = re.compile(rb"\\u002[bB]")
_BLANK: Final = re.compile(rb"\\[nrt]|\\u000[aAdD]|[ \t]")


def _decoded(data: bytes) -> bytes:
    """The bytes that base64 stands for, in either alphabet; none where it is none."""
    plain = _PLUS.sub(b"+", data.replace(b"\\/", b"/"))
    # Some encoders break the lines, or put a space behind the comma.
    said = _BLANK.sub(b"", plain).translate(_WEB_SAFE).rstrip(b"=")
    try:
        return base64.b64decode(said[: len(said) - len(said) % 4], validate=True)
    except (binascii.Error, ValueError):
        return b""


def size_of(head: bytes) -> tuple[int, int] | None:
    """Width and height in pixels, where the header tells them."""
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return _pair(head[16:24], 4, "big")
    if head[:4] == b"GIF8":
        return _pair(head[6:10], 2, "little")
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return _webp(head)
    if head[:2] == b"\xff\xd8":
        return _jpeg(head)
    return None


def _pair(two: bytes, size: int, order: str) -> tuple[int, int] | None:
    if len(two) < 2 * size:
        return None
    little = order == "little"
    first, second = two[:size], two[size:]
    width = int.from_bytes(first, "little" if little else "big")
    height = int.from_bytes(second, "little" if little else "big")
    return (width, height) if width and height else None


def _webp(head: bytes) -> tuple[int, int] | None:
    """The three kinds: with losses (14 bits each), without (14 bits each, less one), extended."""
    kind, body = head[12:16], head[20:]
    if len(body) < 10:
        return None
    if kind == b"VP8 " and body[3:6] == b"\x9d\x01\x2a":
        width, height = (int.from_bytes(body[at : at + 2], "little") & 0x3FFF for at in (6, 8))
        return (width, height) if width and height else None
    if kind == b"VP8L" and body[:1] == b"\x2f":
        bits = int.from_bytes(body[1:5], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if kind == b"VP8X":
        width, height = (int.from_bytes(body[at : at + 3], "little") + 1 for at in (4, 7))
        return width, height
    return None


def _jpeg(head: bytes) -> tuple[int, int] | None:
    """From segment to segment up to the frame; each begins with FF, a marker and its length."""
    at = 2
    while at + 4 <= len(head):
        if head[at] != 0xFF:
            return None
        marker = head[at + 1]
        if marker == 0xFF or marker in _ALONE:
            at += 1 if marker == 0xFF else 2
            continue
        if marker in _FRAMES:
            found = _pair(head[at + 5 : at + 9], 2, "big")
            return (found[1], found[0]) if found else None
        at += 2 + int.from_bytes(head[at + 2 : at + 4], "big")
    return None
