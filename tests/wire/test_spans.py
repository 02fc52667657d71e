"""Where values lie: the fast walk agrees with an obvious one; a splice touches only its spans."""

from __future__ import annotations

import json
import re
import tarfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mitmcontext.values import Edit, Span, Unreadable
from mitmcontext.wire import spans
from mitmcontext.wire.places import outer

SUITE = Path(__file__).parents[2] / "../shared/data/fuzz/json_test_suite.tar.gz"

# The obvious way: a scanner that reads one character after the other.

SPACE = b" \t\n\r"


class Obvious:
    """Every value in a JSON text: its span, and for containers the spans within."""

    def __init__(self, text: bytes) -> None:
        self.text = text
        self.at = 0
        self.objects: dict[Span, list[tuple[str, Span]]] = {}
        self.arrays: dict[Span, list[Span]] = {}
        self.skip()
        self.root = self.value()

    def skip(self) -> None:
        while self.at < len(self.text) and self.text[self.at] in SPACE:
            self.at += 1

    def take(self, sign: bytes) -> bool:
        self.skip()
        found = self.text[self.at : self.at + 1] == sign
        self.at += found
        return found

    def value(self) -> Span:
        start = self.at
        match self.text[start : start + 1]:
            case b"{":
                return self.object()
            case b"[":
                return self.array()
            case b'"':
                return self.string()
            case _:
                while self.at < len(self.text) and self.text[self.at] not in SPACE + b",]}":
                    self.at += 1
                return Span(start, self.at)

    def string(self) -> Span:
        start = self.at
        self.at += 1
        while self.text[self.at] != ord('"'):
            self.at += 2 if self.text[self.at] == ord("\\") else 1
        self.at += 1
        return Span(start, self.at)

    def object(self) -> Span:
        start, found = self.at, []
        self.at += 1
        while not self.take(b"}"):
            self.take(b",")
            self.skip()
            key = json.loads(self.text[slice(*self.string())])
            assert self.take(b":")
            self.skip()
            found.append((masked(key), self.value()))
        span = Span(start, self.at)
        self.objects[span] = found
        return span

    def array(self) -> Span:
        start, found = self.at, []
        self.at += 1
        while not self.take(b"]"):
            self.take(b",")
            self.skip()
            found.append(self.value())
        span = Span(start, self.at)
        self.arrays[span] = found
        return span


# JSON text as nobody writes it and everybody has to take it.

gaps = st.sampled_from(["", "", "", " ", "\n", "\t ", "\r\n  "])
escapes = [r"\n", r"\"", r"\\", r"\/", r"\u0041", r"\ud83d\ude00", r"\uD83D\uDE00", r"\\ud800"]
letters = st.sampled_from([*"aé世😀{}[]:, /u", *escapes, r"\ufffd", r"\ud7ff"])
lone = st.sampled_from([r"\ud800", r"\uDC00", r"\udbff", r"\uDfFF", r"\ud800\ud83d\ude00"])
strings = st.lists(letters | letters | lone, max_size=8).map(lambda pieces: f'"{"".join(pieces)}"')
keys = st.sampled_from([r'"a"', r'"\u0061"', r'"b"', r'"a\n"', r'"\ud800"', r'"\udc01"', '""'])
numbers = [
    "0",
    "-0",
    "1E2",
    "1e+2",
    "-12.50",
    "0.1e-7",
    "1",
    "12",
    "123456789012345678901234567890",
]
scalars = st.sampled_from(["true", "false", "null", *numbers])


@st.composite
def containers(draw: st.DrawFn, inner: st.SearchStrategy[str]) -> str:
    items = draw(st.lists(inner, max_size=5))
    named = draw(st.booleans())
    shown = []
    for item in items:
        key = f"{draw(keys | strings)}{draw(gaps)}:{draw(gaps)}" if named else ""
        shown.append(f"{draw(gaps)}{key}{item}{draw(gaps)}")
    return ("{" if named else "[") + (",".join(shown) or draw(gaps)) + ("}" if named else "]")


values = st.recursive(scalars | strings, containers, max_leaves=25)
texts = st.builds(lambda *pieces: "".join(pieces).encode(), gaps, containers(values), gaps)


@given(texts)
@settings(max_examples=200)
def test_the_walk_finds_what_an_obvious_scanner_finds(body: bytes) -> None:
    plain = Obvious(body)
    assert outer(body) == plain.root
    for span, members in plain.objects.items():
        assert members_of(body, span) == members
    for span, elements in plain.arrays.items():
        assert elements_of(body, span) == elements


def members_of(body: bytes, span: Span) -> list[spans.Member]:
    return spans.tolerant(body, lambda text, _: spans.members(text, span))


def elements_of(body: bytes, span: Span) -> list[Span]:
    return spans.tolerant(body, lambda text, _: spans.elements(text, span))


def readable(body: bytes) -> bytes:
    """The text that a body is read as where it cannot be read as it is."""

    def only_masked(text: bytes, body: bytes) -> bytes:
        if text is body:
            raise Unreadable
        return text

    try:
        return spans.tolerant(body, only_masked)
    except Unreadable:
        return body


@given(texts)
def test_values_are_those_that_json_has(body: bytes) -> None:
    text = readable(body)
    assert json.dumps(spans.value(text, outer(text))) == json.dumps(json.loads(text))


@given(texts)
@settings(max_examples=200)
def test_only_lone_surrogates_are_masked_and_in_place(body: bytes) -> None:
    text = readable(body)
    assert len(text) == len(body)
    assert pairs(text) == masked(pairs(body))
    differing = {
        body.rindex(rb"\u", 0, at)
        for at, (was, now) in enumerate(zip(body, text, strict=True))
        if was != now
    }
    assert all(text[at : at + 6] == rb"\ufffd" for at in differing)
    if not differing:
        assert text is body


def pairs(body: bytes) -> Any:
    """As Python's reader has it, with repeated keys."""
    return json.loads(body, object_pairs_hook=list)


def masked(value: Any) -> Any:
    """The same with every lone surrogate replaced."""
    if isinstance(value, str):
        return re.sub("[\ud800-\udfff]", "\ufffd", value)
    if isinstance(value, list | tuple):
        return type(value)(masked(item) for item in value)
    return value


@given(texts, st.data())
def test_a_key_that_stands_twice_is_refused(body: bytes, data: st.DataObject) -> None:
    text = readable(body)
    for span, members in Obvious(readable(body)).objects.items():
        names = [name for name, _ in members]
        if len(set(names)) == len(names):
            assert spans.unique(text, span) == dict(members)
            continue
        with pytest.raises(Unreadable):
            spans.unique(text, span)
        watched = data.draw(st.sampled_from(names))
        if names.count(watched) > 1:
            with pytest.raises(Unreadable):
                spans.unique(text, span, [watched])
        else:
            assert spans.unique(text, span, [watched]) == dict(members)


def written(members: list[tuple[str, str]], colon: str = ":") -> str:
    """An object, as short as can be but for its keys."""
    return "{" + ",".join(f"{key}{colon}{value}" for key, value in members) + "}"


compact = st.recursive(
    scalars | strings,
    lambda inner: (
        st.lists(inner, max_size=4).map(lambda items: f"[{','.join(items)}]")
        | st.lists(st.tuples(keys, inner), max_size=4).map(written)
    ),
    max_leaves=12,
)


@given(st.lists(st.tuples(keys, compact), max_size=5).map(written))
def test_what_is_written_short_is_found_by_lengths_where_it_stands(text: str) -> None:
    body = readable(text.encode())
    for span, members in Obvious(body).objects.items():
        assert spans.members(body, span) == members


blocks = st.lists(st.tuples(keys, scalars | strings), max_size=4)
fields = st.tuples(keys, strings) | st.tuples(
    st.just('"content"'),
    st.lists(blocks, max_size=4).map(lambda some: f"[{','.join(map(written, some))}]"),
)


@given(st.lists(fields, max_size=4), st.sampled_from([":", ":", ":", ": "]))
@settings(max_examples=300)
def test_blocks_found_at_once_are_those_found_one_by_one(
    members: list[tuple[str, str]], colon: str
) -> None:
    body = readable(written(members, colon).encode())
    found = spans.packed_blocks(body)
    if found is None:
        return
    assert spans.unique(body, outer(body)) == found[0]
    arrays = [span for span in found[0].values() if body[span.start] == ord("[")]
    one_by_one = spans.elements(body, arrays[0]) if arrays else []
    assert len(arrays) < 2
    assert found[1] == [(span, spans.unique(body, span)) for span in one_by_one]


@pytest.mark.parametrize(
    ("body", "at_once"),
    [
        (b'{"role":"user","content":[{"type":"text","text":"a\\nb"},{"x":1}]}', True),
        (b'{"role":"user", "content":[{"type":"text"}]}', False),
        (b'{"role":"user","content":[{"type":"text","type":"x"}]}', False),
        (b'{"role":"us\\u0065r","content":[{"type":"text"}]}', False),
        (b'{"role":"user","content":[{}]}', False),
        (b'{"role":"user","content":["text"]}', False),
        (b'{"content":[{"x":1}],"more":[{"x":1}]}', False),
        (b'{"role":1,"content":[{"x":1}]}', False),
        (b"[", False),
    ],
)
def test_blocks_are_found_at_once_where_all_is_written_short(body: bytes, at_once: bool) -> None:
    assert (spans.packed_blocks(body) is not None) is at_once


def test_an_escaped_key_is_the_same_key() -> None:
    body = rb'{"messages":[],"m\u0065ssages":[1]}'
    assert [name for name, _ in spans.members(body, outer(body))] == ["messages", "messages"]
    with pytest.raises(Unreadable):
        spans.unique(body, outer(body), ["messages"])


# Splicing.


@given(st.binary(max_size=200), st.data())
def test_an_edit_changes_its_span_and_nothing_else(body: bytes, data: st.DataObject) -> None:
    places = sorted(data.draw(st.lists(st.integers(0, len(body)), max_size=8)))
    if len(places) % 2:
        places.pop()
    edits = [
        Edit(Span(start, end), data.draw(st.binary(max_size=20)))
        for start, end in zip(places[::2], places[1::2], strict=True)
    ]
    found = spans.splice(body, data.draw(st.permutations(edits)) if edits else [])
    at = was = 0
    for span, new in sorted(edits):
        untouched = span.start - was
        assert found[at : at + untouched] == body[was : span.start]
        at += untouched
        assert found[at : at + len(new)] == new
        at, was = at + len(new), span.end
    assert found[at:] == body[was:]


def test_without_edits_a_splice_is_the_body() -> None:
    assert spans.splice(b"body", []) == b"body"


@pytest.mark.parametrize(
    "places",
    [
        pytest.param([(0, 3), (2, 4)], id="overlapping"),
        pytest.param([(0, 4), (1, 2)], id="nested"),
        pytest.param([(2, 5)], id="beyond the end"),
        pytest.param([(-1, 2)], id="before the start"),
        pytest.param([(3, 2)], id="backwards"),
        pytest.param([(0, 2), (0, 2)], id="twice"),
    ],
)
def test_edits_that_contradict_each_other_are_refused(places: list[tuple[int, int]]) -> None:
    with pytest.raises(ValueError, match="overlap"):
        spans.splice(b"body", [Edit(Span(*place), b"x") for place in places])


# What is no JSON, or odd JSON.


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b'{"a":NaN}', id="NaN"),
        pytest.param(b'{"a":Infinity}', id="Infinity"),
        pytest.param(b'{"a":1,}', id="trailing comma"),
        pytest.param(b'{"a":1} x', id="something behind"),
        pytest.param(b'{"a":1', id="cut off"),
        pytest.param(b'{"a":01}', id="leading zero"),
        pytest.param(b"{'a':1}", id="single quotes"),
        pytest.param(b'{"a":"\n"}', id="control character"),
        pytest.param(b'\xef\xbb\xbf{"a":1}', id="byte order mark"),
        pytest.param('{"a":1}'.encode("utf-16"), id="UTF-16"),
        pytest.param(b"[1]", id="an array"),
        pytest.param(b'"a"', id="a string"),
        pytest.param(b"", id="nothing"),
        pytest.param(b" \n", id="space"),
        pytest.param(b'{"a":"\\x"}', id="unknown escape"),
        pytest.param(b'{"a" 1}', id="no colon"),
        pytest.param(b'{"a":1 "b":2}', id="no comma"),
        pytest.param(b'{"a":"\xff"}', id="not UTF-8"),
        pytest.param(b'{"a":"\xed\xa0\x80"}', id="a surrogate in UTF-8"),
        pytest.param(b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}", id="nested too deeply"),
    ],
)
def test_what_is_no_object_is_unreadable(body: bytes) -> None:
    with pytest.raises(Unreadable):
        spans.tolerant(body, lambda text, _: spans.members(text, outer(text)))


@pytest.mark.parametrize(
    "body", [b"{}", b"1", b"[1,]", b"[", b"[1 2]", b"null", b"[" * 100_000 + b"]" * 100_000]
)
def test_what_is_no_array_is_unreadable(body: bytes) -> None:
    with pytest.raises(Unreadable):
        spans.elements(body, Span(0, len(body)))


@pytest.mark.parametrize("body", [b"x", b"", b"[" * 100_000 + b"]" * 100_000, b'"\\ud800"'])
def test_what_is_no_value_is_unreadable(body: bytes) -> None:
    with pytest.raises(Unreadable):
        spans.value(body, Span(0, len(body)))


def test_messages_of_the_errors_say_nothing_of_the_body() -> None:
    with pytest.raises(Unreadable) as caught:
        spans.members(b'{"sk-secret": sk-secret}', Span(0, 24))
    assert "secret" not in str(caught.value)
    assert caught.value.__cause__ is None


def suite() -> list[Any]:
    if not SUITE.exists():
        return [pytest.param("", b"", marks=pytest.mark.skip("needs the JSON test suite"))]
    with tarfile.open(SUITE) as archive:
        held = {
            Path(member.name).name: archive.extractfile(member)
            for member in archive
            if member.name.endswith(".json")
        }
        return [pytest.param(name, file.read(), id=name) for name, file in held.items() if file]


@pytest.mark.parametrize(("name", "value"), suite())
def test_the_json_test_suite_is_read_or_refused(name: str, value: bytes) -> None:
    """What must be read (y_) is; what must not (n_) is not. Each case as the value of a key."""
    body = b'{"first":1, "held":' + value + b'\n,"last" : [2 ]}'
    try:
        found = members_of(body, outer(body))
        spans.value(readable(body), found[1][1])
    except Unreadable:
        assert not name.startswith("y_")
        return
    assert not name.startswith("n_")
    assert len(found) == 3
    assert body[slice(*found[1][1])] == value.strip(b" \t\r\n")


def test_more_elements_than_anybody_sends_are_not_read() -> None:
    text = b"[" + b",".join([b"1"] * (spans.MOST + 1)) + b"]"
    with pytest.raises(Unreadable):
        spans.elements(text, Span(0, len(text)))
    assert len(spans.elements(text[:-3] + b"]", Span(0, len(text) - 2))) == spans.MOST


@given(st.lists(st.booleans(), min_size=1, max_size=8), st.sampled_from([",", " , ", ",\n  "]))
def test_without_some_elements_the_others_are_left_as_they_are(
    stays: list[bool], comma: str
) -> None:
    elements = [f'{{"n": "{at}, ["}}' for at in range(len(stays))]
    text = f'{{"a": [ {comma.join(elements)} ], "b": 1}}'.encode()
    places = spans.elements(text, Span(text.index(b"["), text.index(b'], "b"') + 1))
    gone = [place for place, stay in zip(places, stays, strict=True) if not stay]
    if not any(stays):
        with pytest.raises(ValueError, match="nothing is left"):
            spans.without(text, gone)
        return
    made = spans.splice(text, [Edit(span, b"") for span in spans.without(text, gone)])
    kept = [one for one, stay in zip(elements, stays, strict=True) if stay]
    assert made == f'{{"a": [ {comma.join(kept)} ], "b": 1}}'.encode()
