"""AWS event streams (`application/vnd.amazon.eventstream`), read as they arrive.

A message is binary, all numbers big endian:

    total length (4 bytes) · length of the headers (4) · CRC-32 of these eight bytes (4)
    headers · payload · CRC-32 of everything before (4)

    a header: length of the name (1) · name · type of the value (1) · value

Bytes go in, whole messages come out. The payload is not decoded. A message beyond the bound is
skipped whole, by its length.

Source: Amazon Transcribe's and Bedrock's descriptions of the format, "Event stream encoding".
"""

from __future__ import annotations

import base64
import struct
import zlib
from collections.abc import Mapping
from typing import Final, NamedTuple

import msgspec

_PRELUDE: Final = struct.Struct(">III")
_CRC: Final = struct.Struct(">I")
_LENGTH: Final = struct.Struct(">H")
# Bytes that a header's value takes by its type: true, false, byte, short, int, long, time, UUID.
_FIXED: Final = {0: 0, 1: 0, 2: 1, 3: 2, 4: 4, 5: 8, 8: 8, 9: 16}
_BYTES, _STRING = 6, 7
_LEAST: Final = _PRELUDE.size + _CRC.size


class NotAnEventStream(ValueError):
    """The bytes do not have this form, or were damaged on their way."""


class EventMessage(NamedTuple):
    """One message: its headers that are texts (`:event-type` among them), and its payload."""

    headers: Mapping[str, str]
    payload: bytes


class EventStreamReader:
    """Reads one stream. At most about `limit` bytes of it, and a piece, are held at any time."""

    def __init__(self, limit: int = 2**20) -> None:
        self._limit = limit
        self._held = bytearray()
        self._skip = 0

    def feed(self, data: bytes) -> list[EventMessage]:
        """The messages that this piece completes.

        Raises:
            NotAnEventStream: a length or a checksum is wrong, so that nothing more can be found.
        """
        skipped = min(self._skip, len(data))
        self._skip -= skipped
        self._held += memoryview(data)[skipped:]
        found = []
        while len(self._held) >= _PRELUDE.size:
            total, headers = self._prelude()
            if total > self._limit:
                self._skip = max(0, total - len(self._held))
                del self._held[:total]
                continue
            if len(self._held) < total:
                break
            found.append(_message(bytes(self._held[:total]), headers))
            del self._held[:total]
        return found

    def _prelude(self) -> tuple[int, int]:
        total, headers, crc = _PRELUDE.unpack_from(self._held)
        if zlib.crc32(self._held[:8]) != crc or total < _LEAST + headers:
            raise NotAnEventStream("a message does not begin as it must")
        return total, headers


class _Wrapped(msgspec.Struct):
    """What wraps an event; nothing is made of what else stands there."""

    bytes: str = ""


_WRAPPED: Final = msgspec.json.Decoder(_Wrapped)


def unwrapped(payload: bytes) -> bytes:
    """The event within a payload of Bedrock's `{"bytes": base64 of an event}`; else the payload.

    Raises:
        ValueError: what stands there is neither JSON nor base64.
    """
    if b'"bytes"' not in payload:
        return payload
    try:
        wrapped = _WRAPPED.decode(payload).bytes
    except msgspec.ValidationError:
        return payload
    return base64.b64decode(wrapped) if wrapped else payload


def _message(raw: bytes, headers: int) -> EventMessage:
    (crc,) = _CRC.unpack_from(raw, len(raw) - _CRC.size)
    if zlib.crc32(memoryview(raw)[: -_CRC.size]) != crc:
        raise NotAnEventStream("a message was damaged")
    end = _PRELUDE.size + headers
    return EventMessage(_headers(raw[_PRELUDE.size : end]), raw[end : -_CRC.size])


def _headers(raw: bytes) -> dict[str, str]:
    found: dict[str, str] = {}
    at = 0
    try:
        while at < len(raw):
            name = raw[at + 1 : at + 1 + raw[at]]
            at += 1 + raw[at]
            kind = raw[at]
            at += 1
            if kind in (_BYTES, _STRING):
                (size,) = _LENGTH.unpack_from(raw, at)
                at += _LENGTH.size
            else:
                size = _FIXED[kind]
            if kind == _STRING:
                found[name.decode()] = raw[at : at + size].decode()
            at += size
    except (IndexError, KeyError, struct.error, UnicodeDecodeError):
        raise NotAnEventStream("a message's headers cannot be read") from None
    if at != len(raw):
        raise NotAnEventStream("a message's headers cannot be read")
    return found
