"""A transcript says who speaks by a mark that nothing in it can bear."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from tests.condense.summaries.stories import agents, result, user

from mitmcontext.condense.summaries.transcript import announced, transcript
from mitmcontext.values import Kind


def test_each_message_is_announced_and_numbered() -> None:
    told = transcript(agents(2), 4, 100_000)
    marked = [line for line in told.text.splitlines() if line.startswith(told.mark)]
    assert [line.removeprefix(told.mark) for line in marked] == [
        " 5 the user typed:",
        " 6 the assistant called a tool:",
        " 7 a tool's result:",
        " 8 the assistant called a tool:",
        " 9 a tool's result:",
    ]


@given(st.lists(st.text(max_size=200), max_size=5))
def test_no_text_can_bear_the_mark(texts: list[str]) -> None:
    told = announced([("x", text) for text in texts])
    assert all(told.mark not in text for text in texts)
    again = announced([("x", text) for text in [*texts, told.text]])
    assert again.mark not in told.text


def test_the_same_stretch_makes_the_same_text() -> None:
    assert transcript(agents(3), 1, 5_000) == transcript(agents(3), 1, 5_000)


def test_large_results_lose_their_middle_first() -> None:
    typed = "Never touch config/live.toml. " * 20
    told = transcript([user(typed), result(1, "x" * 50_000), result(2, "short")], 0, 4_000)
    assert typed.strip() in told.text
    assert "short" in told.text
    assert "characters left out" in told.text
    assert len(told.text) < 4_500


def test_when_people_typed_too_much_that_is_cut_too() -> None:
    told = transcript([user("a" * 50_000), result(1, "b" * 50_000)], 0, 4_000)
    assert len(told.text) < 4_800


def test_what_a_client_adds_is_shown_in_brief() -> None:
    told = transcript([user("<environment_details>" + "y" * 9_000, Kind.ENVIRONMENT)], 0, 100_000)
    assert len(told.text) < 700
