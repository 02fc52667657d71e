"""Counting is tiktoken's, on data that ships with the package, and nothing stalls it."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import random
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from importlib import import_module
from importlib.resources import files
from pathlib import Path
from statistics import median
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tiktoken import Encoding

from mitmcontext.tokens import vocabulary
from mitmcontext.tokens.vocabulary import (
    FAST,
    PATTERNS,
    REACH,
    SHA256,
    SLICE,
    Encoder,
    count,
    load,
    slices,
    tiktoken_encoding,
)

CONVERSATIONS = Path(__file__).resolve().parents[3] / "shared" / "data" / "conversations"
MEGABYTE = 1_000_000
ENCODINGS = sorted(SHA256)

ENGINES = ["tiktoken", FAST]

encoding_of = cache(tiktoken_encoding)
engine_of = cache(load)


@pytest.fixture(scope="module", params=ENCODINGS)
def encoding(request: pytest.FixtureRequest) -> Encoding:
    """Loaded outside of the examples, which have a deadline."""
    return encoding_of(request.param)


@pytest.fixture(scope="module", params=[(name, by) for name in ENCODINGS for by in ENGINES])
def pair(request: pytest.FixtureRequest) -> tuple[Encoder, Encoding]:
    """An engine and the plain one that it has to agree with."""
    name, engine = request.param
    if engine == FAST:
        pytest.importorskip(FAST, reason="the extra `fast` is not installed")
    return engine_of(name, engine), encoding_of(name)


def unsliced(encoding: Encoder, text: str) -> int:
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


def test_nothing_but_tiktoken_is_used_unless_asked_for() -> None:
    assert isinstance(load("cl100k_base"), Encoding)


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
    assert count(engine_of("o200k_base"), text) == tokens


def random_bytes(size: int) -> bytes:
    """Always the same."""
    return random.Random(7).randbytes(size)


def chinese(size: int) -> str:
    chance = random.Random(7)
    return "".join(chr(chance.randrange(0x4E00, 0x9FA5)) for _ in range(size))


HOSTILE: dict[str, Callable[[], str]] = {
    "spaces": lambda: " " * MEGABYTE,
    "spaces and a letter": lambda: " " * MEGABYTE + "x",
    "a letter": lambda: "a" * MEGABYTE,
    "a capital": lambda: "A" * MEGABYTE,
    "newlines": lambda: "\n" * MEGABYTE,
    "spaces and newlines": lambda: " \n" * (MEGABYTE // 2),
    "newlines and slashes": lambda: "\n/" * (MEGABYTE // 2),
    "tabs": lambda: "\t" * MEGABYTE,
    "no-break spaces": lambda: "\u00a0" * (MEGABYTE // 2),
    "dots": lambda: "." * MEGABYTE,
    "quotes": lambda: "'" * MEGABYTE,
    "digits": lambda: "1" * MEGABYTE,
    "base64": lambda: base64.b64encode(random_bytes(MEGABYTE * 3 // 4)).decode(),
    "hexadecimal": lambda: random_bytes(MEGABYTE // 2).hex(),
    "Chinese": lambda: chinese(MEGABYTE // 3),
    "emoji": lambda: "👩\u200d👩\u200d👧" * (MEGABYTE // 18),
    "combining marks": lambda: "\u0301" * (MEGABYTE // 2),
    "lone surrogates": lambda: "\udfff" * (MEGABYTE // 3),
    "quotes and words": lambda: "it's 'so' " * (MEGABYTE // 10),
}
"""A megabyte each of what tokenizers are known to stumble over."""


@cache
def hostile(kind: str) -> str:
    return HOSTILE[kind]()


@cache
def unsliced_hostile(encoding: str, kind: str) -> int:
    return unsliced(encoding_of(encoding), hostile(kind))


PANICS = {"spaces", "spaces and a letter", "tabs", "no-break spaces"}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_megabyte_is_counted_at_once(pair: tuple[Encoder, Encoding], kind: str) -> None:
    engine, plain = pair
    text = hostile(kind)
    began = time.process_time()
    tokens = count(engine, text)
    assert time.process_time() - began < 2.0  # about 0.2 s; a stall takes minutes
    if kind in PANICS:
        assert 0 < tokens <= len(text)
    else:
        # At most a token for each place at which it had to be cut.
        assert abs(tokens - unsliced_hostile(plain.name, kind)) <= len(text) // SLICE


@pytest.mark.parametrize("kind", ["base64", "hexadecimal", "quotes and words"])
def test_what_can_be_cut_is_counted_exactly(pair: tuple[Encoder, Encoding], kind: str) -> None:
    engine, plain = pair
    assert count(engine, hostile(kind)) == unsliced_hostile(plain.name, kind)


@pytest.mark.parametrize("kind", HOSTILE)
def test_nothing_holds_the_interpreter(kind: str) -> None:
    """Other threads come to their turn while a megabyte is counted."""
    encoding, text = engine_of("o200k_base"), hostile(kind)
    waits: list[float] = []
    done = threading.Event()

    def watch() -> None:
        while not done.is_set():
            began = time.perf_counter()
            time.sleep(0.0005)
            waits.append(time.perf_counter() - began)

    watcher = threading.Thread(target=watch)
    watcher.start()
    count(encoding, text)
    done.set()
    watcher.join()
    # The machine may be busy, so it is the usual wait that is looked at: a call that held on for
    # the whole text would leave no more than one or two.
    assert len(waits) > 2
    assert median(waits) < 0.02


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
@example(before="it", after="'s")
@example(before="x1", after="y_z")
@example(before="好", after="，好")
@settings(max_examples=500)
def test_a_good_place_to_cut_costs_nothing_in_any_text(
    encoding: Encoding, before: str, after: str
) -> None:
    text = before + after
    for high in range(1, len(text)):
        found = vocabulary.CUT.match(text, 0, high + 1)
        if found:
            parts = [text[: found.end()], text[found.end() :]]
            assert sum(unsliced(encoding, part) for part in parts) == unsliced(encoding, text)
            assert found.end() <= high


@pytest.mark.parametrize("break_at", [SLICE - 1, SLICE, SLICE - REACH + 1])
def test_a_place_is_found_wherever_it_is_in_reach(break_at: int) -> None:
    text = "x" * break_at + " " + "x" * SLICE
    assert next(slices(text)) == "x" * break_at


@given(text=ANYTHING)
@example(text="<|endoftext|><|im_start|>")
def test_short_text_is_counted_as_tiktoken_does(pair: tuple[Encoder, Encoding], text: str) -> None:
    assert len(text) <= SLICE
    engine, plain = pair
    assert count(engine, text) == unsliced(plain, text)


# White space of every kind, what some take for it, and what may stand beside it.
SPACED = st.text(
    st.sampled_from(
        "  \t\n\r\x0b\x0c\x1c\x1f\x85\xa0\u1680\u2003\u2028\u3000\u200b\x02\x03aA1.'/s好é"
    ),
    max_size=24,
)


def test_a_tiktoken_without_its_buffer_counts_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vocabulary, "_BUFFER", "none_such")
    plain = load("o200k_base")
    assert isinstance(plain, Encoding)
    assert plain.name == "o200k_base"
    said = "def f():\n        return 1\n"
    assert count(plain, said) == unsliced(encoding_of("o200k_base"), said)


@given(text=SPACED)
@example(text="x  \ty \t\tz")
@example(text="\t  x")
@settings(max_examples=2_000)
def test_runs_of_white_space_are_counted_as_tiktoken_does(encoding: Encoding, text: str) -> None:
    assert count(engine_of(encoding.name), text) == unsliced(encoding, text)


@pytest.mark.parametrize("name", ENCODINGS)
def test_spaces_that_count_for_one_token_are_one(name: str) -> None:
    ranks = dict(vocabulary._ranks(vocabulary._rank_table(name)))
    assert all(b" " * size in ranks for size in range(1, vocabulary.ONE_TOKEN + 1))


@pytest.mark.parametrize("size", [2, 79, 80, 81, 82, 200])
@pytest.mark.parametrize("before", ["", "x", "\n", "\t", ";"])
def test_long_runs_of_spaces_are_counted_as_tiktoken_does(
    encoding: Encoding, size: int, before: str
) -> None:
    for after in ("y", "\n", "", "7", "\ty"):
        text = before + " " * size + after
        assert count(engine_of(encoding.name), text) == unsliced(encoding, text)


def recorded() -> Iterator[str]:
    """Long texts of recorded conversations, as JSON and as they are."""
    for path in sorted(CONVERSATIONS.glob("s*.jsonl.gz")):
        with gzip.open(path, "rt", encoding="utf-8") as lines:
            for _, line in zip(range(5), lines, strict=False):
                messages: list[Any] = json.loads(line)["messages"]
                yield json.dumps(messages, ensure_ascii=False)
                yield json.dumps(messages, indent=2)


@pytest.mark.skipif(not CONVERSATIONS.is_dir(), reason="the shared recordings are not here")
def test_recorded_conversations_are_counted_as_tiktoken_does(
    pair: tuple[Encoder, Encoding],
) -> None:
    engine, plain = pair
    for text in recorded():
        assert count(engine, text) == unsliced(plain, text)


def test_the_fast_engine_begins_afresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """What it remembers of words does not grow for ever."""
    pytest.importorskip(FAST, reason="the extra `fast` is not installed")
    monkeypatch.setattr(vocabulary, "AFRESH", 100)
    engine: Any = load("cl100k_base", FAST)
    first = engine._tokenizer
    tokens = len(engine.encode_ordinary("x " * 40))
    assert engine._tokenizer is first
    assert len(engine.encode_ordinary("x " * 40)) == tokens
    assert engine._tokenizer is not first


def test_threads_may_count_at_once(pair: tuple[Encoder, Encoding]) -> None:
    engine, plain = pair
    texts = [f"text {number}: " + "some words and 12,345 numbers\n" * 300 for number in range(40)]
    expected = [unsliced(plain, text) for text in texts]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(partial(count, engine), texts)) == expected
