"""Counting is tiktoken's, on data that ships with the package, and nothing stalls it."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import random
import time
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tiktoken import Encoding

from mitmcontext.tokens import vocabulary
from mitmcontext.tokens.vocabulary import PATTERNS, SHA256, SLICE, count, load, slices

CONVERSATIONS = Path(__file__).resolve().parents[3] / "shared" / "data" / "conversations"
MEGABYTE = 1_000_000
ENCODINGS = sorted(SHA256)

encoding_of = cache(load)


@pytest.fixture(scope="module", params=ENCODINGS)
def encoding(request: pytest.FixtureRequest) -> Encoding:
    """Loaded outside of the examples, which have a deadline."""
    return encoding_of(request.param)


def unsliced(encoding: Encoding, text: str) -> int:
    """The slow, obvious way."""
    return len(encoding.encode_ordinary(text))


@pytest.mark.parametrize("name", ENCODINGS)
def test_the_data_is_what_tiktoken_expects(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    openai_public = import_module("tiktoken_ext.openai_public")
    asked: dict[str, str] = {}

    def local(url: str, expected_hash: str) -> dict[bytes, int]:
        asked[url.rpartition("/")[2]] = expected_hash
        return {}

    monkeypatch.setattr(openai_public, "load_tiktoken_bpe", local)
    theirs = getattr(openai_public, name)()
    assert theirs["pat_str"] == PATTERNS[name]
    assert asked == {f"{name}.tiktoken": SHA256[name]}
    packed = files("mitmcontext.tokens").joinpath("data", f"{name}.tiktoken.gz").read_bytes()
    assert hashlib.sha256(gzip.decompress(packed)).hexdigest() == SHA256[name]


def test_a_licence_note_lies_beside_the_data() -> None:
    note = files("mitmcontext.tokens").joinpath("data", "LICENSE").read_text(encoding="utf-8")
    assert "MIT License" in note
    assert all(digest in note for digest in SHA256.values())


def test_a_damaged_table_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(vocabulary.SHA256, "o200k_base", "0" * 64)
    with pytest.raises(ValueError, match="damaged"):
        load("o200k_base")


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(ValueError, match="there are: "):
        load("p50k_base")


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        pytest.param("", 0, id="nothing"),
        pytest.param("hello world", 2, id="two words"),
        pytest.param("<|endoftext|>", 7, id="a special token is ordinary text"),
        pytest.param("\ud800", 1, id="a lone surrogate is a replacement character"),
    ],
)
def test_small_texts(text: str, tokens: int) -> None:
    assert count(encoding_of("o200k_base"), text) == tokens


@cache
def hostile() -> dict[str, str]:
    """A megabyte each of what tokenizers are known to stumble over."""
    chance = random.Random(7)
    return {
        "spaces": " " * MEGABYTE,
        "spaces and a letter": " " * MEGABYTE + "x",
        "a letter": "a" * MEGABYTE,
        "a capital": "A" * MEGABYTE,
        "newlines": "\n" * MEGABYTE,
        "spaces and newlines": " \n" * (MEGABYTE // 2),
        "newlines and slashes": "\n/" * (MEGABYTE // 2),
        "tabs": "\t" * MEGABYTE,
        "no-break spaces": "\u00a0" * (MEGABYTE // 2),
        "dots": "." * MEGABYTE,
        "quotes": "'" * MEGABYTE,
        "digits": "1" * MEGABYTE,
        "base64": base64.b64encode(chance.randbytes(MEGABYTE * 3 // 4)).decode(),
        "hexadecimal": chance.randbytes(MEGABYTE // 2).hex(),
        "Chinese": "".join(chr(chance.randrange(0x4E00, 0x9FA5)) for _ in range(MEGABYTE // 3)),
        "emoji": "👩\u200d👩\u200d👧" * (MEGABYTE // 18),
        "combining marks": "\u0301" * (MEGABYTE // 2),
        "lone surrogates": "\udfff" * (MEGABYTE // 3),
    }


@pytest.mark.parametrize("kind", hostile())
def test_a_hostile_megabyte_is_counted_at_once(encoding: Encoding, kind: str) -> None:
    text = hostile()[kind]
    began = time.process_time()
    tokens = count(encoding, text)
    assert 0 < tokens <= len(text.encode(errors="replace"))
    assert time.process_time() - began < 2.0  # about 0.2 s; a stall takes minutes


WORDS = st.text("abcXYZ019", min_size=1, max_size=9)
ENDS = st.sampled_from([" ", " ", " ", "\n", "\n\n", ".\n", " {\n    ", "\n\t"])
PROSE = st.lists(st.tuples(WORDS, ENDS), max_size=60).map(
    lambda pieces: "".join(word + end for word, end in pieces)
)
ANYTHING = st.text(st.characters() | st.sampled_from(" \n\r\t/'\ud800é好。{}\u00a0"), max_size=400)


@given(ANYTHING, st.integers(1, 50))
def test_slices_are_the_text_in_order_and_bounded(text: str, size: int) -> None:
    pieces = list(slices(text, size))
    assert "".join(pieces) == text
    assert all(len(piece) <= size for piece in pieces)


@given(text=PROSE)
@example(text="x {\n    " * 20)
@settings(max_examples=200)
def test_slicing_prose_does_not_change_the_count(encoding: Encoding, text: str) -> None:
    sliced = sum(unsliced(encoding, piece) for piece in slices(text, 40))
    assert sliced == unsliced(encoding, text)


@given(before=ANYTHING, after=ANYTHING)
@settings(max_examples=300)
def test_a_good_place_to_cut_costs_nothing_in_any_text(
    encoding: Encoding, before: str, after: str
) -> None:
    text = before + "\n" + after
    end = vocabulary._last(vocabulary.AFTER_LINE, text, 0, len(text))
    if end is None:
        end = vocabulary._last(vocabulary.BETWEEN_WORDS, text, 0, len(text))
    if end is not None:
        parts = unsliced(encoding, text[:end]) + unsliced(encoding, text[end:])
        assert parts == unsliced(encoding, text)


@given(text=ANYTHING)
def test_short_text_is_counted_as_tiktoken_does(encoding: Encoding, text: str) -> None:
    assert len(text) <= SLICE
    assert count(encoding, text) == unsliced(encoding, text)


def recorded() -> Iterator[str]:
    """Long texts of recorded conversations, as JSON and as they are."""
    for path in sorted(CONVERSATIONS.glob("s*.jsonl.gz")):
        with gzip.open(path, "rt", encoding="utf-8") as lines:
            for _, line in zip(range(5), lines, strict=False):
                messages: list[Any] = json.loads(line)["messages"]
                yield json.dumps(messages, ensure_ascii=False)
                yield json.dumps(messages, indent=2)


@pytest.mark.skipif(not CONVERSATIONS.is_dir(), reason="the shared recordings are not here")
def test_recorded_conversations_are_counted_as_tiktoken_does() -> None:
    encoding = encoding_of("o200k_base")
    texts = list(recorded())
    exact = sum(unsliced(encoding, text) for text in texts)
    assert abs(sum(count(encoding, text) for text in texts) - exact) <= exact / 10_000
