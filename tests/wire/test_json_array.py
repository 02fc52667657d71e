"""The array reader: however the array is cut into pieces, the same elements come out."""

from __future__ import annotations

import json
from collections.abc import Iterable
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mitmcontext.wire.json_array import JsonArrayReader


def read(pieces: Iterable[bytes], limit: int = 2**20) -> list[bytes]:
    reader = JsonArrayReader(limit)
    return [element for piece in pieces for element in reader.feed(piece)]


def byte_by_byte(data: bytes) -> Iterable[bytes]:
    return (bytes([byte]) for byte in data)


ARRAYS: dict[str, tuple[bytes, list[bytes]]] = {
    "as Gemini writes it": (b'[{"a": 1}\n,\r\n{"b": 2}\n]\n', [b'{"a": 1}', b'{"b": 2}']),
    "compact": (b'[{"a":[1,{"b":2}]},[3,4],5,"x"]', [b'{"a":[1,{"b":2}]}', b"[3,4]", b"5", b'"x"']),
    "signs within strings": (
        rb'[{"a":"],}{[\"\\"},{"b\\\"]":1}]',
        [rb'{"a":"],}{[\"\\"}', rb'{"b\\\"]":1}'],
    ),
    "empty": (b"[]", []),
    "only space": (b" [ \n ] ", []),
    "a mark before it": (b"\xef\xbb\xbf[1]", [b"1"]),
    "something behind it": (b'[1] , "x" ]', [b"1"]),
    "two of them": (b"[1][2]", [b"1", b"2"]),
    "broken off": (b'[{"a":1},{"b":', [b'{"a":1}']),
    "broken off within a string": (b'[{"a":1},{"b":"\\', [b'{"a":1}']),
    "nothing": (b"", []),
}
each_array = pytest.mark.parametrize(("array", "elements"), ARRAYS.values(), ids=ARRAYS.keys())


@each_array
def test_an_array_in_one_piece(array: bytes, elements: list[bytes]) -> None:
    assert read([array]) == elements


@each_array
def test_an_array_byte_by_byte(array: bytes, elements: list[bytes]) -> None:
    assert read(byte_by_byte(array)) == elements


@pytest.mark.parametrize("cut", [False, True], ids=["in one piece", "byte by byte"])
def test_an_element_beyond_the_bound_is_skipped_and_the_next_one_is_read(cut: bool) -> None:
    array = b'[{"a":"' + b'x\\"]' * 40 + b'"},{"b":1}]'
    assert read(byte_by_byte(array) if cut else [array], 100) == [b'{"b":1}']


def test_no_more_than_the_bound_is_held() -> None:
    reader = JsonArrayReader(1_000)
    reader.feed(b'[{"a":"')
    for _ in range(100):
        reader.feed(b"x" * 90)
        assert reader._held.size <= 1_000
        assert sum(map(len, reader._held._pieces)) == reader._held.size


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=8,
)


@given(st.lists(values, max_size=5), st.booleans(), st.sampled_from([None, 1]), st.data())
def test_any_array_in_any_pieces(
    array: list[Any], ascii_: bool, indent: int | None, data: st.DataObject
) -> None:
    text = json.dumps(array, ensure_ascii=ascii_, indent=indent).encode("utf-8", "surrogatepass")
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=6)))
    edges = [0, *cuts, len(text)]
    pieces = [text[a:b] for a, b in pairwise(edges)]
    assert [json.loads(element) for element in read(pieces)] == array


@given(st.lists(st.binary()))
def test_anything_is_read_without_an_error(pieces: list[bytes]) -> None:
    assert read(pieces) == read([b"".join(pieces)])
