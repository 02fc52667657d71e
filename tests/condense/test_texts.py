"""The words that take the place of others say what stood there, and nothing can pass for them."""

from __future__ import annotations

import hashlib
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mitmcontext.condense import texts
from mitmcontext.values import Kind, Message, Part, Span

LISTING = "\n".join(f"src/module_{n}/handler.py: ok" for n in range(200))
anything = st.text(max_size=4_000)


def part(text: str, kind: Kind = Kind.RESULT) -> Part:
    return Part(kind, text, Span(0, 0))


def message(*parts: Part, role: str = "user") -> Message:
    return Message(role, parts, b"")


def test_a_stub_holds_head_tail_and_names() -> None:
    text = "\n".join(["first line", LISTING, "crucial_name = load_settings()", LISTING, "the end"])
    found = texts.stub(part(text))
    lines = found.splitlines()
    assert texts.is_ours(found)
    assert f"{len(text):,} characters in {text.count(chr(10)) + 1:,} lines" in lines[0]
    assert hashlib.sha256(text.encode()).hexdigest()[:16] in lines[0]
    assert lines[1] == "first line"
    assert "the end" in lines
    assert "characters left out" in found
    assert lines[-1].startswith("[names in what was left out: ")
    assert "src/module_20/handler.py" in lines[-1]
    assert len(found) < 1_500


def test_names_that_can_be_read_anyway_are_not_listed() -> None:
    text = (
        "config.load_settings\n"
        + "x " * 2_000
        + "\nconfig.load_settings\nother.name_here\n"
        + ("y " * 2_000)
    )
    listed = texts.stub(part(text)).splitlines()[-1]
    assert "other.name_here" in listed
    assert "config.load_settings" not in listed


@given(anything)
def test_a_stub_is_the_same_for_the_same_text_and_bounded(text: str) -> None:
    found = texts.stub(part(text))
    assert found == texts.stub(part(text))
    assert texts.is_ours(found)
    assert len(found) < 1_700


@given(st.text(min_size=1, max_size=4_000), st.text(min_size=1, max_size=4_000))
def test_different_texts_have_different_stubs(one: str, other: str) -> None:
    assert (texts.stub(part(one)) == texts.stub(part(other))) == (one == other)
    assert (texts.brief_stub(part(one)) == texts.brief_stub(part(other))) == (one == other)


@given(anything)
def test_what_a_stub_says_was_left_out_is_just_that(text: str) -> None:
    head, middle, tail = texts._cut(text)
    assert head + middle + tail == text


@given(anything)
def test_a_brief_stub_says_nothing_of_the_text(text: str) -> None:
    found = texts.brief_stub(part(text))
    assert texts.is_ours(found)
    assert "\n" not in found
    assert len(found) < 250


def test_a_note_says_what_happened() -> None:
    history = [
        message(part("Fix the login.\nAnd the tests.", Kind.TYPED)),
        message(
            part("secret thoughts", Kind.THINKING),
            part("I will read\nthe file first.", Kind.PROSE),
            part('Read {"path": "a.py"}', Kind.CALL),
            role="assistant",
        ),
        message(part("import os\n\nprint(1)"), part("", Kind.IMAGE), part("env", Kind.ENVIRONMENT)),
        message(part("%PDF", Kind.DOCUMENT)),
    ]
    assert texts.note(history).splitlines() == [
        "The user wrote:",
        "> Fix the login.",
        "> And the tests.",
        "- The assistant wrote: I will read the file first.",
        '- The assistant called Read {"path": "a.py"}',
        "  Result: import os print(1)",
        "- An image was shown.",
        "- A document was shown.",
    ]


@given(st.lists(st.tuples(st.sampled_from(list(Kind)), anything), max_size=6))
def test_nothing_in_a_note_passes_for_a_line_of_ours(said: list[tuple[Kind, str]]) -> None:
    whole = message(*(part(text, kind) for kind, text in said))
    ours = ("> ", "- The assistant ", "  Result: ", "- An image ", "- A document ")
    found = texts.note([whole])
    for line in found.split("\n") if found else ():
        assert line == "The user wrote:" or line.startswith(ours)
    typed = sum(kind is Kind.TYPED for kind, _ in said)
    assert sum(line == "The user wrote:" for line in found.split("\n")) == typed


@given(anything)
def test_typed_text_is_kept_word_for_word(text: str) -> None:
    typed = message(part(text, Kind.TYPED), part("result"))
    for note in (texts.note, texts.typed_note):
        lines = note([typed]).split("\n")
        quoted = [line.removeprefix("> ") for line in lines if line.startswith("> ")]
        assert "\n".join(quoted) == text


def test_weaker_notes_say_less() -> None:
    text = "word " * 1_000
    unit = [message(part(text, Kind.TYPED)), message(part(text), role="tool")]
    whole, typed, clipped = (
        len(note(unit)) for note in (texts.note, texts.typed_note, texts.clipped_note)
    )
    assert whole > typed > clipped
    assert clipped < 900
    assert texts.typed_note([message(part("x"))]) == ""


@pytest.mark.parametrize(
    "text",
    [
        "a" * 1_000_000,
        " " * 1_000_000,
        "a." * 500_000,
        "/" * 1_000_000,
        "a_" * 500_000,
        "Aa" * 500_000,
        "0" * 1_000_000,
        "\n" * 1_000_000,
        "ab12" * 250_000,
        "-." * 500_000,
    ],
    ids=["a", "space", "a.", "slash", "a_", "Aa", "0", "newline", "hex", "-."],
)
def test_no_text_takes_long(text: str) -> None:
    begun = time.process_time()
    texts.stub(part(text))
    texts.note([message(part(text), part(text, Kind.PROSE))])
    assert time.process_time() - begun < 1
