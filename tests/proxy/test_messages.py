"""The list of messages: what became of each, in as many lines as there are."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mitmcontext.proxy.listing import Row, described
from mitmcontext.proxy.messages import WIDTH, conversation
from mitmcontext.values import Action, Change, Kind, Message, Outcome, Part, Span


def stub(at: int, before: int = 900, after: int = 90, what: str = "stub") -> Change:
    return Change(what, at, at, "tool result", before, after, "", "")


def fold(first: int, last: int) -> Change:
    return Change("fold", first, last, "messages", 5_000, 300, "", "")


def told(
    rows: list[Row], *changes: Change, action: Action = Action.CONDENSED, **named: Any
) -> list[str]:
    outcome = Outcome(action, "", changes=changes)
    return list(conversation(rows, outcome, named.pop("room", 200), **named))


TALK = [
    Row("user", "text", 12),
    Row("assistant", "call read_file", 30),
    Row("user", "result read_file", 900),
    Row("assistant", "text", 40),
    Row("user", "text", 8),
]


def test_each_message_has_its_tokens_and_what_became_of_it() -> None:
    lines = [" ".join(line.split()) for line in told(TALK, stub(2))[1:-1]]
    assert lines == [
        "1 user text 12 kept",
        "2 assistant call read_file 30 kept",
        "3 user result read_file 900 stubbed 900 → 90",
        "4 assistant text 40 kept",
        "5 user text 8 kept",
    ]


def test_folded_and_dropped_ones() -> None:
    lines = [" ".join(line.split()) for line in told(TALK, fold(0, 2), stub(3, 40, 0, "drop"))]
    assert lines[1:3] == [
        "1 to 3 3 messages into one note 5,000 folded → 300",
        "4 assistant text 40 dropped 40",
    ]


def test_of_what_is_not_known_nothing_is_claimed() -> None:
    assert not told([])
    assert not told(TALK)  # shortened, but nobody knows how
    assert not any("kept" in line for line in told(TALK, stub(2), complete=False))
    assert "kept" in told(TALK, action=Action.UNDER_THRESHOLD)[1]
    lines = told([Row("", "", None)], action=Action.UNDER_THRESHOLD)
    assert lines[1].split() == ["1", "kept"]


def test_many_kept_ones_become_a_line() -> None:
    rows = [Row("user", "text", 10)] * 500
    lines = told(rows, stub(200), stub(300), room=100)
    assert len(lines) <= 100
    text = [" ".join(line.split()) for line in lines]
    assert "1 to 200 200 messages 2,000 kept" in text
    assert "201 user text 10 stubbed 900 → 90" in text


@given(
    st.integers(1, 700),
    st.lists(st.tuples(st.integers(0, 900), st.integers(0, 900)), max_size=300),
    st.integers(10, 300),
)
def test_it_never_takes_more_lines_than_there_are(
    count: int, places: list[tuple[int, int]], room: int
) -> None:
    changes = [stub(a) if a == b else fold(min(a, b), max(a, b)) for a, b in places]
    rows = [Row("user" * 9, "text" * 50, 10**6)] * count
    lines = told(rows, *changes, room=room)
    assert len(lines) <= room
    assert all(len(line) <= WIDTH for line in lines)


@pytest.mark.parametrize("name", ["read_file", "x" * 500, "\x1b[31m\n\u202e"])
def test_names_of_tools_are_cut_and_harmless(name: str) -> None:
    part = Part(Kind.CALL, "", Span(0, 1), name=name)
    message = Message("assistant", (part, part), b"")
    row = Row("assistant", described(message), 5)
    assert row.what.startswith("2 x call ")
    lines = told([row], action=Action.NO_STEP)
    assert len(lines) == 3
    assert not {"\x1b", "\n", "\u202e"} & set(lines[1])
