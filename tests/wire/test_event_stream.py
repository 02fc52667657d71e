"""The reader of AWS event streams: messages whole, cut, too large and damaged."""

from __future__ import annotations

import base64
import json
import struct
import zlib
from collections.abc import Iterable, Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mitmcontext.wire.event_stream import (
    EventMessage,
    EventStreamReader,
    NotAnEventStream,
    unwrapped,
)


def header(name: str, value: str) -> bytes:
    said = value.encode()
    return bytes([len(name)]) + name.encode() + b"\x07" + struct.pack(">H", len(said)) + said


def framed(headers: bytes, payload: bytes) -> bytes:
    prelude = struct.pack(">II", 16 + len(headers) + len(payload), len(headers))
    begun = prelude + struct.pack(">I", zlib.crc32(prelude)) + headers + payload
    return begun + struct.pack(">I", zlib.crc32(begun))


def event_message(headers: Mapping[str, str], payload: bytes) -> bytes:
    """One message as AWS would write it."""
    return framed(b"".join(header(*one) for one in headers.items()), payload)


def read(pieces: Iterable[bytes], limit: int = 2**20) -> list[EventMessage]:
    reader = EventStreamReader(limit)
    return [message for piece in pieces for message in reader.feed(piece)]


def cut(data: bytes, size: int) -> Iterable[bytes]:
    return (data[at : at + size] for at in range(0, len(data), size))


HEADERS = {":event-type": "metadata", ":content-type": "application/json"}
STREAM = event_message({":event-type": "messageStart"}, b"{}") + event_message(HEADERS, b'{"a":1}')


@pytest.mark.parametrize("size", [1, 5, 1_000])
def test_messages_in_pieces(size: int) -> None:
    assert read(cut(STREAM, size)) == [
        EventMessage({":event-type": "messageStart"}, b"{}"),
        EventMessage(HEADERS, b'{"a":1}'),
    ]


def test_a_message_that_the_format_description_shows() -> None:
    """The one without headers and payload: sixteen bytes, both checksums published."""
    raw = bytes.fromhex("000000100000000005c248eb7d98c8ff")
    assert read([raw]) == [EventMessage({}, b"")]


def test_values_of_every_type_are_passed_over() -> None:
    sizes = {0: 0, 1: 0, 2: 1, 3: 2, 4: 4, 5: 8, 8: 8, 9: 16}
    others = b"".join(b"\x01n" + bytes([kind]) + bytes(size) for kind, size in sizes.items())
    others += b"\x01b\x06\x00\x03abc"
    raw = framed(others + header("last", "é"), b"x")
    assert read([raw]) == [EventMessage({"last": "é"}, b"x")]


@pytest.mark.parametrize("size", [1, 7, 1_000])
def test_a_message_beyond_the_bound_is_skipped_and_the_next_one_is_read(size: int) -> None:
    large = event_message({}, b"x" * 200)
    found = read(cut(large + event_message({}, b"y") + large, size), 100)
    assert found == [EventMessage({}, b"y")]


def test_no_more_than_the_bound_and_a_piece_are_held() -> None:
    reader = EventStreamReader(1_000)
    for piece in cut(event_message({}, b"x" * 9_000), 90):
        reader.feed(piece)
        assert len(reader._held) <= 1_090


@pytest.mark.parametrize("at", range(len(event_message(HEADERS, b'{"a":1}'))))
def test_a_damaged_message_is_noticed_wherever_it_is_damaged(at: int) -> None:
    raw = bytearray(event_message(HEADERS, b'{"a":1}'))
    raw[at] ^= 0x20
    with pytest.raises(NotAnEventStream):
        read([bytes(raw)])


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param(b"\x05ab", id="a name that ends too early"),
        pytest.param(b"\x01a", id="no type"),
        pytest.param(b"\x01a\x0c", id="an unknown type"),
        pytest.param(b"\x01a\x07\x00", id="half a length"),
        pytest.param(b"\x01a\x07\x00\x09abc", id="a text that ends too early"),
        pytest.param(b"\x01a\x07\x00\x01\xff", id="a text that is no UTF-8"),
        pytest.param(b"\x01a\x05\x00", id="a number that ends too early"),
    ],
)
def test_headers_that_cannot_be_read_are_refused(headers: bytes) -> None:
    with pytest.raises(NotAnEventStream):
        read([framed(headers, b"{}")])


def test_a_length_that_cannot_be_is_refused() -> None:
    prelude = struct.pack(">II", 12, 0)
    with pytest.raises(NotAnEventStream):
        read([prelude + struct.pack(">I", zlib.crc32(prelude)) + bytes(8)])


def test_a_message_that_broke_off_says_nothing() -> None:
    assert read([STREAM[:-1]]) == [EventMessage({":event-type": "messageStart"}, b"{}")]


@given(
    st.lists(st.tuples(st.dictionaries(st.text(max_size=9), st.text(max_size=9)), st.binary())),
    st.integers(1, 50),
)
def test_any_messages_in_any_pieces(
    messages: list[tuple[dict[str, str], bytes]], size: int
) -> None:
    named = [({k.encode().hex()[:99]: v for k, v in h.items()}, p) for h, p in messages]
    stream = b"".join(event_message(*message) for message in named)
    assert read(cut(stream, size)) == [EventMessage(*message) for message in named]


def test_an_event_is_unwrapped_where_it_is_wrapped() -> None:
    event = b'{"type":"message_start"}'
    wrapped = json.dumps({"p": "abc", "bytes": base64.b64encode(event).decode()}).encode()
    assert unwrapped(wrapped) == event
    for other in (event, b'{"image":{"bytes":"abc"}}', b'["bytes"]', b""):
        assert unwrapped(other) == other
