"""How a request is shown: in a few words, in a page, and safely whatever it says."""

from __future__ import annotations

import io as stdio
import time
import unicodedata
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mitmproxy import contentviews, io
from mitmproxy.contentviews import Metadata
from mitmproxy.test import taddons, tflow
from mitmproxy.utils import emoji
from msgspec.structs import replace

from mitmcontext.proxy.recorded import KEY, from_metadata, money_to_metadata, to_metadata
from mitmcontext.proxy.view import MAX_LINES, WIDTH, ContextView, render
from mitmcontext.proxy.words import comment, log_line, mark, summary
from mitmcontext.values import Action, Change, Level, Money, Outcome


def stub(index: int = 4, kind: str = "tool result", **values: Any) -> Change:
    return Change(
        "stub", index, index, kind, 2800, 140, **{"before": "long\nlong", "after": "short"} | values
    )


def born(index: int, **values: Any) -> Change:
    return replace(stub(index, **values), what="birth")


def fold(first: int = 2, last: int = 10, **values: Any) -> Change:
    return Change(
        "fold", first, last, "messages", 18_000, 900, **{"before": "many", "after": "one"} | values
    )


def outcome(action: Action = Action.CONDENSED, **values: Any) -> Outcome:
    usual: dict[str, Any] = {
        "reason": "warning threshold reached",
        "api": "anthropic",
        "model": "claude-sonnet-4-5",
        "level": Level.WARNING,
        "room": 118_000,
        "sent": 96_214,
        "forwarded": 48_120,
        "steps": 1,
        "freed": 48_094,
        "messages": 143,
        "changes": (*(stub(i) for i in range(20, 44, 2)), fold()),
        "milliseconds": 12.34,
    }
    return Outcome(action, **usual | values)


def reapplied(steps: int, *changes: Change) -> Outcome:
    """Below all thresholds, with what earlier requests decided."""
    usual = outcome(Action.REAPPLIED, level=Level.SAFE, freed=0, steps=steps, reason="")
    return replace(usual, changes=changes) if changes else usual


def page(of: Outcome) -> str:
    shown = from_metadata(to_metadata(of))
    assert shown is not None
    return render(shown)


COMMENTS = [
    (outcome(), "82 % warning · 96.2k → 48.1k · 12 results stubbed, 9 messages folded · step 1"),
    (
        outcome(steps=2, sent=196_214, changes=(stub(new=False), stub(), fold(1, 1))),
        "82 % warning · 196.2k → 48.1k · 1 result stubbed, 1 message folded · step 2",
    ),
    (reapplied(3), "41 % safe · 96.2k → 48.1k · step 3 re-applied"),
    (
        reapplied(0, born(4), born(6, new=False)),
        "41 % safe · 96.2k → 48.1k · 2 results reduced at birth",
    ),
    (
        reapplied(2, born(40), stub(6, new=False)),
        "41 % safe · 96.2k → 48.1k · step 2 re-applied · 1 result reduced at birth",
    ),
    (
        outcome(
            Action.UNDER_THRESHOLD,
            level=Level.SAFE,
            sent=40_120,
            forwarded=40_120,
            freed=0,
            reason="",
        ),
        "34 % safe · 40.1k",
    ),
    (
        outcome(Action.UNDER_THRESHOLD, forwarded=96_214, freed=0, reason="count_tokens"),
        "82 % warning · 96.2k · count_tokens",
    ),
    (
        outcome(Action.UNDER_THRESHOLD, level=Level.SAFE, sent=0, forwarded=0, freed=0, reason=""),
        "safe by size alone",
    ),
    (
        outcome(Action.OBSERVED),
        "82 % warning · would be 96.2k → 48.1k · 12 results stubbed, 9 messages folded",
    ),
    (
        outcome(Action.FAILED_OPEN, reason="deadline", forwarded=96_214, freed=0),
        "82 % warning · 96.2k · failed open: deadline",
    ),
    (outcome(Action.LEFT_ALONE, reason="count_tokens"), "left alone: count_tokens"),
    (
        outcome(sent=1_450_000, room=1_000_000, forwarded=800, freed=1_449_200, changes=()),
        "145 % warning · 1.45M → 800 · step 1",
    ),
]


@pytest.mark.parametrize(("of", "expected"), COMMENTS, ids=[words for _, words in COMMENTS])
def test_a_comment_says_it_in_a_few_words(of: Outcome, expected: str) -> None:
    assert comment(of) == expected


def test_the_page_tells_what_was_reduced_when_it_was_new() -> None:
    shown = page(
        outcome(Action.REAPPLIED, freed=0, steps=0, changes=(born(40), born(6, new=False)))
    )
    assert shown.startswith("Forwarded with results reduced when they were new")
    assert "1 result reduced at birth" in shown


def test_a_log_line_says_it_in_one_line() -> None:
    assert log_line(outcome(model="m\n\x1b[31mERROR"), "api.example.com\r\n") == (
        "api.example.com  m ^[[31mERROR: 82 % warning · 96.2k → 48.1k · "
        "12 results stubbed, 9 messages folded · step 1 · 12 ms"
    )


def test_things_are_counted_by_their_names() -> None:
    changes = [
        stub(1),
        stub(2, "image"),
        stub(3, "image"),
        Change("drop", 5, 5, "thinking", 9, 0, "", ""),
        Change("drop", 7, 9, "tool call", 9, 0, "", ""),
    ]
    assert summary(changes) == (
        "1 result stubbed, 2 images stubbed, 1 thinking block dropped, 3 messages dropped"
    )
    assert summary([]) == ""


@pytest.mark.parametrize("action", Action)
def test_marks_are_names_that_mitmproxy_knows(action: Action) -> None:
    name = mark(outcome(action))
    assert name == "" or name in emoji.emoji
    unmarked = (Action.UNDER_THRESHOLD, Action.NO_STEP)
    assert bool(name) == (action not in unmarked)


def test_the_page_begins_with_what_matters_most() -> None:
    lines = page(outcome()).splitlines()
    assert lines[0] == "Condensed · step 1 · 12 results stubbed, 9 messages folded"
    top = "\n".join(lines[:24])
    for telling in (
        "82 %  96.2k of 118.0k",
        "41 %  48.1k of 118.0k",
        "warning threshold reached",
        "warning, at 82 % of the window",
        "96,214 → 48,120 (estimated, 50 % less)",
        "number 1, freed 48,094 tokens",
        "claude-sonnet-4-5 · anthropic",
        "143 in the client's request",
        "12.3 ms",
        "12 results stubbed",
        "33,600 →   1,680 tokens",
        "messages 3 to 11 · folded · 18,000 → 900 tokens",
    ):
        assert telling in top


def test_each_change_is_shown_before_and_after() -> None:
    text = page(outcome(changes=(stub(4, before="one\ntwo", after="1"), fold())))
    assert "message 5 · tool result stubbed · 2,800 → 140 tokens\n  - one\n  - two\n  + 1\n" in text


def test_a_stub_shows_what_went_rather_than_what_stayed() -> None:
    before = "\n".join(f"line {number}" for number in range(60))
    after = "[shortened]\nline 0\nline 1\n…\nline 58\nline 59"
    text = page(outcome(changes=(stub(4, before=before, after=after),)))
    shown = text[text.index("message 5") :].splitlines()[1:]
    assert shown[:5] == ["  + [shortened]", "    line 0", "    line 1", "  - line 2", "  - line 3"]
    assert shown[25:31] == [
        "  - line 24",
        "  - … 33 more",
        "  + …",
        "    line 58",
        "    line 59",
        " ",
    ]


def test_long_lines_are_broken_between_words() -> None:
    text = page(outcome(changes=(stub(before="", after="word " * 30 + "\n" + "x" * 999),)))
    assert "  + " + "word " * 14 + "word\n  +   word" in text
    assert all(len(line) <= WIDTH for line in text.splitlines())
    assert "x\n  +   …\n" in text


def test_earlier_steps_are_told_apart() -> None:
    text = page(outcome(steps=2, changes=(stub(4, new=False), stub(8))))
    first, second = text.split("Done in earlier steps")
    assert "message 9" in first
    assert "message 5" not in first
    assert "message 5" in second


def test_a_request_that_was_left_alone_says_why() -> None:
    text = page(Outcome(Action.LEFT_ALONE, "the client only asks how long it is", api="anthropic"))
    assert text.startswith("Left alone: forwarded as the client sent it\n")
    assert "why         the client only asks how long it is\n" in text
    assert "0" not in text.replace("0.0 ms", "")


@pytest.mark.parametrize("action", Action)
@pytest.mark.parametrize("room", [0, 118_000])
@pytest.mark.parametrize("sent", [0, 96_214])
def test_every_outcome_has_a_page(action: Action, room: int, sent: int) -> None:
    of = outcome(action, room=room, sent=sent, changes=())
    assert page(of).endswith("choose JSON or Raw as the view.\n")
    assert comment(of)


words = st.text(st.characters(codec=None) | st.sampled_from("\ud83d\n\t\x1b\u202e\u2028\x00\x85"))
changes = st.builds(
    Change,
    what=st.sampled_from(["stub", "fold", "drop"]),
    first=st.integers(0, 2000),
    last=st.integers(0, 2000),
    kind=st.sampled_from(["tool result", "image", "messages"]) | words,
    tokens_before=st.integers(0, 2**20),
    tokens_after=st.integers(0, 2**20),
    before=words | words.map(lambda text: text * 500),
    after=words,
    new=st.booleans(),
)
outcomes = st.builds(
    Outcome,
    action=st.sampled_from(Action),
    reason=words,
    api=words,
    model=words,
    level=st.sampled_from(Level),
    room=st.integers(0, 2**40),
    sent=st.integers(0, 2**40),
    forwarded=st.integers(0, 2**40),
    steps=st.integers(0, 9),
    freed=st.integers(0, 2**40),
    messages=st.integers(0, 2000),
    changes=st.lists(changes, max_size=8).map(tuple)
    | st.tuples(changes, st.integers(1, 600)).map(lambda pair: (pair[0],) * pair[1]),
    milliseconds=st.floats(0, 1e9),
)


@given(outcomes)
def test_whatever_is_shown_is_bounded_and_harmless(of: Outcome) -> None:
    text = page(of)
    lines = text.split("\n")
    assert len(lines) <= MAX_LINES + 1
    assert lines[-2].startswith("The body that was forwarded")
    assert all(len(line) <= WIDTH for line in lines[4:] if line.startswith("  "))
    for shown in (*lines, comment(of), log_line(of, of.model)):
        for character in shown:
            assert unicodedata.category(character) not in ("Cc", "Cs", "Zl", "Zp"), repr(character)
            assert unicodedata.bidirectional(character) not in ("RLO", "LRO", "RLE", "RLI", "PDF")


@given(outcomes)
def test_metadata_is_bounded_and_survives_being_saved(of: Outcome) -> None:
    flow = tflow.tflow()
    flow.metadata[KEY] = to_metadata(of)
    file = stdio.BytesIO()
    io.FlowWriter(file).add(flow)
    assert len(file.getvalue()) < 600_000
    file.seek(0)
    (again,) = io.FlowReader(file).stream()
    assert from_metadata(again.metadata[KEY]) == from_metadata(flow.metadata[KEY])
    assert again.metadata[KEY]["changes_in_all"] == len(of.changes)


def test_shown_is_what_was_recorded() -> None:
    of = outcome()
    assert from_metadata(to_metadata(of)) == of


@pytest.mark.parametrize(
    "damage",
    [
        {"action": "other"},
        {"level": 3},
        {"room": None},
        {"room": float("inf")},
        {"model": b"bytes"},
        {"changes": 5},
        {"changes": [{}]},
        {"changes": ["x"]},
        {"changes": [to_metadata(outcome())["changes"][0] | {"before": 7}]},
    ],
    ids=str,
)
def test_damaged_metadata_is_no_outcome(damage: dict[str, Any]) -> None:
    assert from_metadata(to_metadata(outcome()) | damage) is None


@pytest.mark.parametrize("nothing", [None, {}, [], "text", 7], ids=str)
def test_other_values_are_no_outcome(nothing: object) -> None:
    assert from_metadata(nothing) is None


def metadata_of(of: Outcome | None, message: str = "request") -> Metadata:
    flow = tflow.tflow(resp=True)
    if of is not None:
        flow.metadata[KEY] = to_metadata(of)
    return Metadata(flow=flow, http_message=getattr(flow, message))


def test_the_view_offers_itself_where_there_is_something_to_see() -> None:
    priority = ContextView().render_priority
    assert priority(b"", metadata_of(outcome())) == 2.0
    assert priority(b"", metadata_of(outcome(Action.FAILED_OPEN))) == 2.0
    assert 0 < priority(b"", metadata_of(outcome(Action.UNDER_THRESHOLD))) < 1
    assert 0 < priority(b"", metadata_of(outcome(Action.LEFT_ALONE))) < 1
    assert priority(b"", metadata_of(outcome(), "response")) == -1
    assert priority(b"", metadata_of(None)) == -1
    assert priority(b"", Metadata()) == -1
    broken = metadata_of(outcome())
    assert broken.flow is not None
    broken.flow.metadata[KEY] = "nonsense"
    assert priority(b"", broken) == -1


def test_mitmproxy_shows_it() -> None:
    contentviews.add(ContextView)
    with taddons.context():
        flow = tflow.tflow(resp=True)
        flow.request.headers["content-type"] = "application/json"
        flow.request.content = b'{"messages": []}'
        untouched = outcome(Action.UNDER_THRESHOLD)
        for of, expected in ((outcome(), "mitmcontext"), (untouched, "JSON")):
            flow.metadata[KEY] = to_metadata(of)
            result = contentviews.prettify_message(flow.request, flow)
            assert result.view_name == expected
        chosen = contentviews.prettify_message(flow.request, flow, view_name="mitmcontext")
        assert chosen.text == page(untouched)
        flow.metadata.clear()
        chosen = contentviews.prettify_message(flow.request, flow, view_name="mitmcontext")
        assert "has not looked at this request" in chosen.text


def test_a_page_is_quickly_made() -> None:
    kept = to_metadata(
        outcome(changes=tuple(fold(i, i + 3, before="x\n" * 900) for i in range(600)))
    )
    began = time.perf_counter()
    for _ in range(10):
        shown = from_metadata(kept)
        assert shown is not None
        render(shown)
    assert (time.perf_counter() - began) / 10 < 0.05


def shown(of: Outcome, money: dict[str, Any]) -> str:
    """The page of a flow that was saved and read back."""
    flow = tflow.tflow()
    flow.metadata[KEY] = to_metadata(of) | money
    file = stdio.BytesIO()
    io.FlowWriter(file).add(flow)
    file.seek(0)
    (read,) = io.FlowReader(file).stream()
    return ContextView().prettify(b"", Metadata(flow=read))


def test_the_page_tells_what_it_cost_and_saved() -> None:
    money = money_to_metadata(Money(True, 0.0312, -0.0123, 0.5, 0.25))
    page = " ".join(shown(outcome(predicted=0.125), money).split())
    assert "cost $0.0312; saved -$0.0123 (estimated), $0.2500 so far in this conversation" in page
    assert "of $0.5000; the step is expected to save $0.1250 in the end" in page
    page = shown(outcome(Action.OBSERVED), money)
    assert "would save -$0.0123" in page
    assert "expected" not in page


def test_nothing_is_claimed_where_prices_are_not_known() -> None:
    page = shown(outcome(), money_to_metadata(Money(False, 0.0, 0.0, 0.0, 0.0)))
    assert "the prices of this model are not known" in page
    assert "$" not in page


@pytest.mark.parametrize(
    "damaged",
    [
        7,
        [],
        [True],
        [True, 1, 2, 3],
        [True, 1, 2, 3, "4"],
        [True, 1, 2, 3, float("nan")],
        ["x"] * 5,
    ],
)
def test_damaged_money_is_not_shown(damaged: object) -> None:
    assert "$" not in shown(outcome(), {"money": damaged})
