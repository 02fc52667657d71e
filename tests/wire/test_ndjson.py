"""The line reader: however the lines are cut into pieces, the same ones come out."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mitmcontext.wire.ndjson import NdjsonReader


def read(pieces: Iterable[bytes], limit: int = 2**20) -> list[bytes]:
    reader = NdjsonReader(limit)
    return [line for piece in pieces for line in reader.feed(piece)] + reader.close()


STREAMS = {
    "as Ollama writes it": (b'{"a":1}\n{"b":2}\n', [b'{"a":1}', b'{"b":2}']),
    "CRLF": (b'{"a":1}\r\n{"b":2}\r\n', [b'{"a":1}', b'{"b":2}']),
    "empty lines": (b'\n{"a":1}\n \n\n{"b":2}\n', [b'{"a":1}', b'{"b":2}']),
    "no newline at the end": (b'{"a":1}\n{"b":2}', [b'{"a":1}', b'{"b":2}']),
    "an escaped newline": (b'{"a":"\\n"}\n', [b'{"a":"\\n"}']),
    "nothing": (b"", []),
}


@pytest.mark.parametrize("size", [1, 3, 1_000])
@pytest.mark.parametrize(("stream", "lines"), STREAMS.values(), ids=STREAMS.keys())
def test_a_stream_in_pieces(stream: bytes, lines: list[bytes], size: int) -> None:
    assert read(stream[at : at + size] for at in range(0, len(stream), size)) == lines


@pytest.mark.parametrize("size", [1, 1_000])
def test_a_line_beyond_the_bound_is_skipped_and_the_next_one_is_read(size: int) -> None:
    stream = b"x" * 101 + b"\n" + b"y" * 100 + b"\n" + b"z" * 500
    assert read((stream[at : at + size] for at in range(0, len(stream), size)), 100) == [b"y" * 100]


def test_no_more_than_the_bound_is_held() -> None:
    reader = NdjsonReader(1_000)
    for _ in range(100):
        reader.feed(b"x" * 90)
        assert reader._held.size <= 1_000
        assert sum(map(len, reader._held._pieces)) == reader._held.size


@given(st.lists(st.binary()))
def test_any_pieces_give_what_the_whole_gives(pieces: list[bytes]) -> None:
    whole = [line.strip() for line in b"".join(pieces).split(b"\n") if line.strip()]
    assert read(pieces) == whole
