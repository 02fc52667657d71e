"""The event reader: however the stream is cut into pieces, the same events come out."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mitmcontext.wire.sse import Event, SseReader

VECTORS = Path(__file__).parents[2] / "../shared/data/fuzz/sse/wpt_vectors.json"


def read(pieces: Iterable[bytes], limit: int = 2**20) -> list[Event]:
    reader = SseReader(limit)
    return [event for piece in pieces for event in reader.feed(piece)]


def plainly(stream: bytes) -> list[Event]:
    """The same, slow and obvious: all at once, by the letter of the standard."""
    lines = re.split(rb"\r\n|\r|\n", stream.removeprefix(b"\xef\xbb\xbf"))[:-1]
    events: list[Event] = []
    kind, data = b"", b""
    for line in lines:
        if not line:
            if data:
                events.append(Event(kind.decode("utf-8", "replace") or "message", data[:-1]))
            kind, data = b"", b""
        elif not line.startswith(b":"):
            name, _, value = line.partition(b":")
            value = value[1:] if value.startswith(b" ") else value
            if name == b"event":
                kind = value
            elif name == b"data":
                data += value + b"\n"
    return events


STREAMS = {
    "LF": b"event: a\ndata: 1\n\ndata: 2\n\n",
    "CRLF": b"event: a\r\ndata: 1\r\n\r\ndata: 2\r\n\r\n",
    "CR": b"event: a\rdata: 1\r\rdata: 2\r\r",
    "mixed line ends": b"data: 1\r\n\ndata: 2\r\r\ndata: 3\n\r",
    "byte order mark": b"\xef\xbb\xbfdata: 1\n\ndata: 2\n\n",
    "two marks": b"\xef\xbb\xbf\xef\xbb\xbfdata: 1\n\ndata: 2\n\n",
    "several data lines": b"data: 1\ndata: 2\ndata\ndata:\ndata:  3\n\n",
    "comments": b": ping\n\n:\ndata: 1\n: data: 2\n\n",
    "unknown fields": b"id: 7\nretry: 10\nnonsense\ndata: 1\nDATA: 2\n\n",
    "type without data": b"event: a\n\ndata: 1\n\n",
    "not UTF-8": b"event: \xff\ndata: \xff\xfe\n\n",
    "multi-byte": 'event: é\ndata: {"text": "…🙂"}\n\n'.encode(),
    "no empty line at the end": b"data: 1\n\ndata: 2\n",
    "no final newline": b"data: 1\n\ndata: 2",
    "empty": b"",
    "anthropic": (
        b'event: message_start\ndata: {"type":"message_start","message":{"usage":{}}}\n\n'
        b'event: ping\ndata: {"type":"ping"}\n\nevent: message_stop\ndata: {}\n\n'
    ),
    "openai": b'data: {"choices":[]}\n\ndata: {"usage":{"prompt_tokens":9}}\n\ndata: [DONE]\n\n',
}
each_stream = pytest.mark.parametrize("stream", STREAMS.values(), ids=STREAMS.keys())


@each_stream
def test_a_stream_in_one_piece(stream: bytes) -> None:
    assert read([stream]) == plainly(stream)


@each_stream
def test_a_stream_byte_by_byte(stream: bytes) -> None:
    assert read(bytes([byte]) for byte in stream) == plainly(stream)


@each_stream
def test_a_stream_cut_anywhere_in_two(stream: bytes) -> None:
    for cut in range(len(stream) + 1):
        assert read([stream[:cut], b"", stream[cut:]]) == plainly(stream)


fragments = st.sampled_from(
    [
        b"data:",
        b"data",
        b"event:",
        b":",
        b" ",
        b"x",
        b"\r",
        b"\n",
        b"\r\n",
        b"\n\n",
        b"\xef\xbb\xbf",
    ]
)


@given(st.lists(st.lists(fragments).map(b"".join)))
def test_any_stream_cut_anyhow_reads_as_it_does_plainly(pieces: list[bytes]) -> None:
    assert read(pieces) == plainly(b"".join(pieces))


@given(st.lists(st.lists(fragments).map(b"".join)), st.integers(0, 12))
def test_a_bound_leaves_events_out_but_changes_none(pieces: list[bytes], limit: int) -> None:
    reader, every = SseReader(limit), iter(plainly(b"".join(pieces)))
    for piece in pieces:
        for event in reader.feed(piece):
            assert len(event.data) <= limit
            assert event in every  # consumes: the order is kept, too


def vectors() -> list[Any]:
    if not VECTORS.exists():
        return [pytest.param(None, marks=pytest.mark.skip(reason="the WPT vectors are not here"))]
    return [
        pytest.param(vector, id=vector["file"])
        for vector in json.loads(VECTORS.read_text())["vectors"]
    ]


@pytest.mark.parametrize("vector", vectors())
def test_what_browsers_agree_on(vector: dict[str, Any]) -> None:
    text = vector.get("stream") or vector["stream_template"].replace("{x*2048}", "x" * 2048)
    stream = text.encode()
    for pieces in ([stream], [bytes([byte]) for byte in stream]):
        assert [event.data.decode() for event in read(pieces)] == vector["events"]


def test_an_event_that_is_too_long_is_skipped_and_reading_goes_on() -> None:
    long = b"x" * 50
    for stream in (
        b"data: %s\n\ndata: 1\n\n" % long,
        b"data: 2\ndata: %s\n\ndata: 1\n\n" % long,
        b"data: %s\n" % long[:9] * 4 + b"\ndata: 1\n\n",
        b"event: %s\ndata: 2\n\ndata: 1\n\n" % long,
    ):
        assert read([stream], limit=20) == [Event("message", b"1")]
        assert read((bytes([byte]) for byte in stream), limit=20) == [Event("message", b"1")]


def test_an_endless_comment_takes_no_event_with_it() -> None:
    assert read([b"data: 1\n:" + b"x" * 50, b"x" * 50 + b"\n\n"], limit=20) == [
        Event("message", b"1")
    ]


def test_an_endless_line_is_not_held() -> None:
    reader = SseReader(limit=1000)
    for _ in range(10_000):
        assert reader.feed(b"data: no end " * 10) == []
    assert sum(len(value) for value in vars(reader).values() if isinstance(value, list)) < 1000
    assert reader.feed(b"\n\ndata: 1\n\n") == [Event("message", b"1")]


def test_a_last_event_without_its_empty_line_is_there_for_who_asks() -> None:
    for stream in (b"data: 1\n\nevent: a\ndata: 2\n", b"data: 1\n\nevent: a\ndata: 2"):
        reader = SseReader()
        assert reader.feed(stream) == [Event("message", b"1")]
        assert reader.close() == Event("a", b"2")
        assert reader.close() is None
