"""What a new result is shortened to: what goes is what may go, and it can be told what it was."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mitmcontext.condense import birth, texts
from mitmcontext.condense.birth import Call, at_birth
from mitmcontext.values import Kind, Part, Span

RUN = Call("run", 'run {"command": "make all"}')
LINES = st.lists(st.sampled_from(["", " ", "a", "tick", "tick tock " * 9, "[... this line 3 more"]))
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)
_SAID = re.compile(r"\[\.\.\. this line ([\d,]+) more times \.\.\.\]")


def result(text: str, **others: Any) -> Part:
    return Part(Kind.RESULT, text, Span(0, 0), Span(0, 0), call_id="1", **others)


def log(lines: int, word: str = "ok") -> str:
    return "\n".join(f"{at:05} module_{at % 97}.part_{at} says {word}" for at in range(lines))


def told_again(text: str) -> str:
    """What `without_repeats` was given, where that held no line as it writes them."""
    found: list[str] = []
    for line in text.split("\n"):
        said = _SAID.fullmatch(line)
        found += [found[-1]] * int(said[1].replace(",", "")) if said else [line]
    return "\n".join(found)


@given(LINES.map(lambda lines: [line for line in lines for _ in range(1 + len(line) % 7)]))
def test_repeated_lines_can_be_told_from_the_count(lines: list[str]) -> None:
    text = "\n".join(lines)
    shorter = birth.without_repeats(text)
    assert len(shorter) <= len(text)
    assert told_again(shorter) == text


def test_a_line_a_thousand_times_is_one_line_and_a_count() -> None:
    text = "begin\n" + "waiting for the server\n" * 1_001 + "end"
    assert birth.without_repeats(text) == (
        "begin\nwaiting for the server\n[... this line 1,000 more times ...]\nend"
    )


@given(LINES)
def test_of_blank_lines_only_further_ones_go(lines: list[str]) -> None:
    text = "\n".join(lines)
    shorter = birth.without_blanks(text)
    assert [line for line in shorter.split("\n") if line.strip()] == [
        line for line in lines if line.strip()
    ]
    assert len(shorter) <= len(text)
    assert "\n\n\n" not in shorter


@given(VALUES, st.sampled_from([None, 1, 4, "\t"]), st.booleans())
def test_json_without_spacing_is_the_same_value(
    value: Any, indent: int | str | None, ascii_: bool
) -> None:
    text = json.dumps([value], indent=indent, ensure_ascii=ascii_)
    shorter = birth.without_spacing(text)
    if shorter:  # a lone surrogate stays as it is
        assert json.loads(shorter) == [value]
        # As its author wrote it: no number and no escape becomes another one.
        assert "".join(shorter.split()) == "".join(text.split())
        tight = json.dumps([value], separators=(",", ":"), ensure_ascii=ascii_)
        assert shorter == tight


@pytest.mark.parametrize(
    "text",
    ["{} {}", "[1, 2", '{"a": 01}', "{a: 1}", "plain", "", " [1] and more", '["a\tb"]'],
)
def test_what_is_no_json_keeps_its_spacing(text: str) -> None:
    assert birth.without_spacing(text) == ""


def test_numbers_of_json_stay_as_they_are_written() -> None:
    text = '{ "a" : 1.0 , "b":\n 1e400 , "a": 12345678901234567890123 , "c": " x  y " }'
    assert birth.without_spacing(text) == (
        '{"a":1.0,"b":1e400,"a":12345678901234567890123,"c":" x  y "}'
    )


@given(
    st.lists(
        st.tuples(
            st.text("ab[;m\n", max_size=9),
            st.sampled_from(
                [
                    "\x1b[1;32m",
                    "\x1b[K",
                    "\x1b]0;title\x07",
                    "\x1b]8;;http://x\x1b\\",
                    "\x1b(B",
                    "\x1b=",
                ]
            ),
        )
    )
)
def test_without_escapes_all_else_is_left(pieces: list[tuple[str, str]]) -> None:
    text = "".join(plain + escape for plain, escape in pieces)
    assert birth.without_escapes(text) == "".join(plain for plain, _ in pieces)


@given(st.text("\x1b[]0;m(\x07\\a\n ", max_size=200))
def test_no_escape_takes_a_line_with_it(text: str) -> None:
    assert birth.without_escapes(text).count("\n") >= sum(
        line.count("\n") for line in re.split(r"\x1b[\]PX^_][^\x07\x1b]*(?:\x07|\x1b\\)", text)
    )


def test_a_large_result_keeps_head_tail_and_errors() -> None:
    lines = log(900).split("\n")
    lines[450] = "module_x.py:17: TypeError: no such berth"
    part = result("\n".join(lines))
    made = at_birth(part, RUN)
    assert made is not None
    assert len(made) < birth.LARGE
    assert made.startswith("\n".join(lines[:30]))
    assert "\n".join(lines[-10:]) in made
    assert lines[450] in made
    assert f"{len(part.text):,} characters" in made
    assert texts._sha(part.text) in made
    # Each line that stands there is one of the result's, or says that some are missing.
    own = [line for line in made.split("\n") if line not in lines]
    assert all(line.startswith(("[...", "[names", "[mitmcontext")) for line in own)
    # A later step may shorten it further.
    assert not texts.is_ours(made)


def test_it_says_how_many_lines_are_missing() -> None:
    part = result(log(900))
    made = at_birth(part, RUN) or ""
    gone = sum(
        int(found.replace(",", "")) for found in re.findall(r"\[\.\.\. ([\d,]+) lines", made)
    )
    assert gone + sum(line in made for line in part.text.split("\n")) == 900


KEPT = {
    "a file that was read": (result(log(900)), Call("Read", 'Read {"file_path": "/a.py"}')),
    "a file in a shell": (result(log(900)), Call("bash", 'bash {"command": "cat src/a.py"}')),
    "noise in a file": (result("\x1b[1mx\n" * 900), Call("Read", 'Read {"file_path": "/a.txt"}')),
    "another agent's answer": (result(log(900)), Call("Task", 'Task {"prompt": "look"}')),
    "what answers no call": (result(log(900)), None),
    "a failed command": (result("Exit code 2\n" + log(900)), RUN),
    "an error": (result("Error: no such table\n" + log(900)), RUN),
    "what is ours already": (result(texts.OPENING + log(900)), RUN),
    "an image beside it": (result(log(900), images=1), RUN),
    "little": (result("a\n\n\n\n\n\n\n\n" * 20), RUN),
    "what is no shorter": (result(log(20)), RUN),
}


@pytest.mark.parametrize("name", KEPT)
def test_what_stays_whole(name: str) -> None:
    part, call = KEPT[name]
    assert at_birth(part, call) is None


def test_a_result_that_says_it_failed_stays_whole() -> None:
    assert at_birth(result(log(900)), RUN, failed=True) is None


def test_the_same_call_again_gets_all_that_says_something() -> None:
    noisy = "\x1b[32m" + log(900) + "\x1b[0m" * 20
    assert at_birth(result(noisy), RUN, again=lambda: True) == log(900)


@given(st.text(), st.integers(1, 400))
def test_it_is_always_shorter_and_always_the_same(text: str, times: int) -> None:
    part = result(text * times)
    made = at_birth(part, RUN)
    assert made == at_birth(result(text * times), RUN)
    assert made is None or len(made) < len(part.text)


@pytest.mark.parametrize(
    "piece", ["a", " ", "\n", "\x1b", "\x1b]", "\x1b[1", '"', '["', "{", "ab "]
)
def test_no_text_takes_long(piece: str) -> None:
    """A megabyte of anything: what is quadratic would take minutes."""
    at_birth(result(piece * (1_000_000 // len(piece))), RUN)
