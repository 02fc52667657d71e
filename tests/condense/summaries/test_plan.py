"""Which stretch is summarised, how it is asked about, and what the answers make of it."""

from __future__ import annotations

from itertools import pairwise

import msgspec
import pytest
from tests.condense.summaries.stories import (
    AGENTS_SUMMARY,
    agents,
    chat,
    conversation,
    planned,
    room_of,
    user,
    wanted,
    weigh,
)

from mitmcontext.condense.conversation import Conversation, Room
from mitmcontext.condense.entries import WHOLE, FrozenEdit
from mitmcontext.condense.summaries import note, plan
from mitmcontext.condense.summaries.fold import Summary, condensed, folds, standing, together
from mitmcontext.condense.summaries.gate import Rejection
from mitmcontext.condense.truncate import smart_truncation
from mitmcontext.condense.units import kept
from mitmcontext.values import Kind


def total(of: Conversation, edits: tuple[FrozenEdit, ...]) -> int:
    tokens = list(of.tokens)
    for edit in edits:
        if edit.part == WHOLE:
            tokens[edit.message] = 0 if edit.text is None else 6 + len(edit.text) // 4
        else:
            lost = of.messages[edit.message].parts[edit.part].text
            tokens[edit.message] += (len(edit.text or "") - len(lost)) // 4
    return of.fixed + sum(tokens)


def summarised(of: Conversation, text: str, share: float = 0.5) -> tuple[FrozenEdit, ...]:
    found = planned(of, share)
    made = found.finish([text])
    assert isinstance(made, Summary), made
    return condensed(of, room_of(of, share), together(standing(of.frozen), [made]))


def test_the_oldest_are_summarised_as_far_as_the_target_asks() -> None:
    of = conversation(agents(40))
    stretch = planned(of).stretch
    assert stretch.first == 1
    assert 30 < stretch.end < 60
    assert not kept(of.messages).messages & set(range(stretch.first, stretch.end))
    edits = summarised(of, AGENTS_SUMMARY)
    assert total(of, edits) <= 0.5 * total(of, ())
    (fold,) = folds(edits)
    assert (fold.first, fold.end) == (stretch.first, stretch.end)
    assert "| The assistant read" in fold.text


def test_what_must_stay_parts_the_stretch() -> None:
    messages = agents(40)
    messages[30] = user("(odd)", Kind.OPAQUE)
    messages.insert(30, user("x", Kind.SYSTEM))
    messages[30] = msgspec.structs.replace(messages[30], role="system")
    found = planned(conversation(messages), 0.3).stretch
    assert (found.first, found.end) == (32, len(messages) - 6)
    assert planned(conversation(messages), 0.9).stretch.first == 1


def test_a_note_never_parts_user_from_user() -> None:
    of = conversation(chat(30))
    stretch = planned(of).stretch
    assert of.messages[stretch.first - 1].role == "assistant"
    assert of.messages[stretch.end].role == "assistant"
    edits = summarised(of, "They talked of the garden, of its roses and its hedge, week by week.")
    stands = [m.role for at, m in enumerate(of.messages) if at not in {e.message for e in edits}]
    stands.insert(stretch.first, "user")
    assert all(a != b for a, b in pairwise(stands))


def test_nothing_is_asked_about_little() -> None:
    of = conversation(agents(3))
    assert isinstance(plan.plan(of, Room(10, None), wanted()), str)


def test_a_long_stretch_is_asked_about_in_pieces() -> None:
    of = conversation(agents(40))
    found = planned(of, most=10)
    pieces = found.pieces
    stretch = found.stretch
    assert len(pieces) == -(-(stretch.end - stretch.first) // 10)
    told = "\n".join(piece.prompt for piece in pieces)
    assert all(f" {at + 1} a tool's result" in told for at in range(2, stretch.end, 2))
    assert sum(piece.size for piece in pieces) <= stretch.size + 150 * len(pieces)
    assert found.whole.follows


def test_equal_stretches_make_equal_questions() -> None:
    one, other = (planned(conversation(agents(40)), most=10) for _ in range(2))
    assert one.pieces == other.pieces


def test_later_messages_change_no_question_as_long_as_the_stretch_is_the_same() -> None:
    of = conversation(agents(40))
    room = Room(int(0.5 * (of.fixed + sum(of.tokens))), None)
    found = plan.plan(of, room, wanted())
    more = conversation([*agents(40), user("thanks")])
    ahead = -sum(more.tokens) + sum(of.tokens)
    again = plan.plan(more, room, wanted(), ahead)
    assert not isinstance(found, str)
    assert not isinstance(again, str)
    assert found.pieces == again.pieces


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        pytest.param("", Rejection.EMPTY, id="empty"),
        pytest.param("I'm sorry, I can't do that.", Rejection.REFUSAL, id="a refusal"),
        pytest.param(AGENTS_SUMMARY * 400, Rejection.LONGER, id="longer than what it replaces"),
        pytest.param(AGENTS_SUMMARY * 60, Rejection.TOO_LONG, id="longer than asked for"),
        pytest.param("They read some files. " * 9, Rejection.NAMES, id="without a name"),
    ],
)
def test_bad_answers_are_rejected(text: str, fault: Rejection) -> None:
    assert planned(conversation(agents(40))).finish([text]) is fault


def test_what_people_typed_is_kept_beside_the_summary() -> None:
    messages = agents(40)
    messages.insert(11, user("Use tabs, not spaces."))
    messages.insert(-4, user("Go on."))
    fold = folds(summarised(conversation(messages), AGENTS_SUMMARY))[0]
    assert fold.text.endswith("The user wrote:\n> Use tabs, not spaces.")


def test_a_later_step_leaves_the_summary_as_it_is() -> None:
    first = summarised(conversation(agents(40)), AGENTS_SUMMARY)
    (told,) = standing(first)
    more = conversation(agents(80), first)
    target = Room(int(0.3 * (more.fixed + sum(more.tokens))), None)
    edits = condensed(more, target, standing(first))
    assert told in folds(edits)
    assert total(more, edits) <= 1.02 * target.target, "the local strategy goes by estimates"
    assert len(folds(edits)) > 1 or any(edit.part != WHOLE for edit in edits)


def test_a_second_summary_stands_behind_the_first() -> None:
    first = summarised(conversation(agents(40)), AGENTS_SUMMARY)
    more = conversation(agents(90), first)
    edits = summarised(more, AGENTS_SUMMARY, 0.4)
    assert folds(edits)[0] == standing(first)[0]
    assert len(standing(edits)) == 2
    assert standing(edits)[1].first == standing(first)[0].end


def test_progressive_brings_the_earlier_summary_up_to_date() -> None:
    first = summarised(conversation(agents(40)), AGENTS_SUMMARY)
    (told,) = standing(first)
    more = conversation(agents(90), first)
    found = planned(more, 0.4, "progressive_summarization", most=20)
    stretch = found.stretch
    assert (stretch.first, stretch.fresh) == (told.first, told.end)
    assert stretch.earlier == note.summary_in(told.text)
    pieces = found.pieces
    assert len(pieces) > 1
    assert not any("part_0.py" in p.prompt and "earlier summary" in p.prompt for p in pieces)
    joined = found.then([f"Summary number {n}." for n in range(len(pieces))])
    assert joined is not None
    assert stretch.earlier in joined.prompt
    assert "Summary number 1." in joined.prompt
    made = found.finish([AGENTS_SUMMARY])
    assert isinstance(made, Summary)
    edits = condensed(more, room_of(more, 0.4), together(standing(first), [made]))
    assert len(standing(edits)) == 1
    assert standing(edits)[0].end == stretch.end


def test_in_one_piece_the_question_holds_the_earlier_summary() -> None:
    first = summarised(conversation(agents(40)), AGENTS_SUMMARY)
    more = conversation(agents(90), first)
    found = planned(more, 0.4, "progressive_summarization")
    (question,) = found.pieces
    assert found.stretch.earlier in question.prompt
    assert found.then([AGENTS_SUMMARY]) is None


def test_what_was_shortened_locally_is_told_in_full() -> None:
    of = conversation(agents(40))
    room = Room(int(0.5 * (of.fixed + sum(of.tokens))), None)
    local = smart_truncation(of, room)
    more = conversation(agents(70), local)
    found = planned(more, 0.3)
    assert "def handle_0(row)" in found.pieces[0].prompt
    made = found.finish([AGENTS_SUMMARY])
    assert isinstance(made, Summary)
    edits = condensed(more, room_of(more, 0.3), [made])
    assert {e.message for e in edits if e.part == WHOLE} >= set(range(made.first, made.end))
    assert sum(1 for fold in folds(edits) if fold.text == made.text) == 1


def test_without_summaries_it_is_smart_truncation() -> None:
    of = conversation(agents(40))
    room = Room(2_000, None)
    assert condensed(of, room, ()) == smart_truncation(of, room)
    assert weigh(of.messages[0]) == of.tokens[0]
