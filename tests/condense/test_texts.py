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


def test_a_stub_says_what_was_there_and_what_is_left() -> None:
    text = "first line\nsecond\nthird\nfourth\nthe end"
    found = texts.shortened(text, [(0, 11), (18, 24)], "a.name, other/path")
    lines = found.splitlines()
    assert texts.is_ours(found)
    assert f"{len(text):,} characters, 5 lines" in lines[0]
    assert hashlib.sha256(text.encode()).hexdigest()[:8] in lines[0]
    assert "Run the call again" in lines[0]
    assert lines[1:] == [
        "first line",
        "[... 1 line ...]",
        "third",
        "[... 1 line ...]",
        "[names in what was left out: a.name, other/path]",
    ]


def test_names_are_listed_the_most_frequent_first_and_as_far_as_they_fit() -> None:
    text = "a src/one.py b.c_name src/one.py\nword CamelCase 12 deadbeef01\n"
    names = texts.names_in(text)
    assert names[0] == "src/one.py"
    assert set(names) == {"src/one.py", "b.c_name", "CamelCase", "deadbeef01"}
    assert set(names) <= texts.words_in(text)
    assert texts.index(["one.name", "two.name"], 19) == "one.name"
    assert texts.index(["one.name", "two.name"], 20) == "one.name, two.name"


@given(st.text(min_size=1, max_size=4_000), st.text(min_size=1, max_size=4_000))
def test_different_texts_have_different_stubs(one: str, other: str) -> None:
    assert (texts.shortened(one, []) == texts.shortened(other, [])) == (one == other)
    assert (texts.brief_stub(part(one)) == texts.brief_stub(part(other))) == (one == other)


@given(anything, st.integers(0, 4_000), st.integers(0, 4_000))
def test_what_is_kept_stands_in_the_stub_word_for_word(text: str, start: int, size: int) -> None:
    start = min(start, len(text))
    end = min(start + size, len(text))
    found = texts.shortened(text, [(start, end)])
    assert text[start:end].removesuffix("\n") in found
    assert len(found) < end - start + 260


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
            Part(Kind.CALL, 'Read {"path": "a.py"}', Span(0, 0), name="Read"),
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
        "- The assistant called Read",
        " path: a.py",
        "  Result: import os print(1)",
        "- An image was shown.",
        "- A document was shown.",
    ]


@given(st.lists(st.tuples(st.sampled_from(list(Kind)), anything), max_size=6))
def test_nothing_in_a_note_passes_for_a_line_of_ours(said: list[tuple[Kind, str]]) -> None:
    whole = message(*(part(text, kind) for kind, text in said))
    ours = ("> ", "- The assistant ", " ", "- An image ", "- A document ")
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


def test_what_the_agent_said_again_later_is_not_said_twice() -> None:
    call = Part(Kind.CALL, 'Bash {"command": "make all\\nrun the tests"}', Span(0, 0), name="Bash")
    lines = texts.note([message(call, role="assistant")], {"run the tests"}).splitlines()
    assert lines == ["- The assistant called Bash", " command: make all", " [... said again later]"]


def test_a_dropped_unit_leaves_nothing_but_typed_text() -> None:
    text = "word " * 1_000
    clipped = len(texts.clipped_note([message(part(text, Kind.TYPED))]))
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
    texts.shortened(text, [], texts.index(texts.names_in(text), 300))
    texts.words_in(text)
    texts.note([message(part(text), part(text, Kind.PROSE))])
    assert time.process_time() - begun < 1
