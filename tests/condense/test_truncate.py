"""smart_truncation: what goes first, what stays, and that it stops when the target is met."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.conversations import Talk, laws, long_talk, talks, text_block, words

from mitmcontext.condense import texts
from mitmcontext.condense.conversation import Conversation, Room
from mitmcontext.condense.entries import WHOLE, FrozenEdit
from mitmcontext.condense.truncate import smart_truncation
from mitmcontext.condense.units import has_typed, kept
from mitmcontext.values import Kind, Message

Edits = tuple[FrozenEdit, ...]


def weigh(message: Message, at: int | None = None) -> int:
    return 4 + sum(len(part.text) // 4 + 2 for part in message.parts)


def conversation(talk: Talk, frozen: Edits = ()) -> Conversation:
    messages = [talk.api.parse(talk.style.dump(message)) for message in talk.messages]
    return Conversation(messages, [weigh(m) for m in messages], 100, frozen, weigh)


def total(of: Conversation) -> int:
    return of.fixed + sum(of.tokens)


def after(of: Conversation, edits: Sequence[FrozenEdit]) -> int:
    """What is left, weighed here once more: stubs for parts, one message for each run."""
    tokens = list(of.tokens)
    for edit in edits:
        if edit.part != WHOLE:
            message = of.messages[edit.message]
            tokens[edit.message] -= len(message.parts[edit.part].text) // 4
            tokens[edit.message] += len(edit.text or "") // 4
    for edit in edits:
        if edit.part == WHOLE:
            tokens[edit.message] = 0 if edit.text is None else 6 + len(edit.text) // 4
    return of.fixed + sum(tokens)


def cut(talk: Talk, target: int, fits: int | None = None, frozen: Edits = ()) -> Edits:
    return smart_truncation(conversation(talk, frozen), Room(target, fits))


def stubs(edits: Edits) -> list[tuple[int, int]]:
    return [(edit.message, edit.part) for edit in edits if edit.part != WHOLE]


def folds(edits: Edits) -> list[int]:
    return [edit.message for edit in edits if edit.part == WHOLE]


# What goes first.


def test_nothing_is_done_where_the_target_is_met() -> None:
    talk = long_talk()
    assert cut(talk, total(conversation(talk))) == ()


def test_old_results_lose_blocks_before_anything_folds() -> None:
    talk = long_talk(turns=12)
    whole = conversation(talk)
    edits = cut(talk, total(whole) - 2_000)
    assert folds(edits) == []
    assert all(texts.is_ours(edit.text or "") for edit in edits)
    assert not set(stubs(edits)) & kept(whole.messages).parts
    originals = [whole.messages[at].parts[index].text for at, index in stubs(edits)]
    assert originals
    for edit, original in zip(edits, originals, strict=True):
        lines = (edit.text or "").split("\n")[1:]
        assert all(line.startswith(("[... ", "[names in ")) or line in original for line in lines)


def test_it_goes_about_as_far_as_it_is_told() -> None:
    talk = long_talk(turns=12)
    whole = conversation(talk)
    for target in range(4_200, total(whole), 700):
        left = after(whole, cut(talk, target))
        assert 0.8 * target <= left <= 1.06 * target


def test_what_must_stay_leaves_room_for_old_content() -> None:
    """Where the target is as good as filled, more is left than it allows, up to what may be."""
    talk = long_talk(turns=30)
    for block in talk.messages[-1]["content"]:
        if block["type"] == "tool_result":
            block["content"] = words(99, 16_000)
    whole = conversation(talk)
    strict = after(whole, cut(talk, 7_000))
    lenient = smart_truncation(whole, Room(7_000, None, 3_500, 9_000))
    assert strict <= 7_400
    assert 8_000 <= after(whole, lenient) <= 9_400


def test_a_step_goes_further_down_where_enough_is_left() -> None:
    talk = long_talk(turns=30)
    whole = conversation(talk)
    further = smart_truncation(whole, Room(9_000, None, 6_000, 9_000))
    assert after(whole, further) < 0.9 * after(whole, cut(talk, 9_000))


def test_then_the_oldest_units_fold() -> None:
    talk = long_talk(turns=30, size=1_700)
    edits = cut(talk, 4_500)
    assert folds(edits)
    assert folds(edits) == list(range(1, folds(edits)[-1] + 1))
    first = edits[0]
    assert first.part == WHOLE
    assert (first.text or "").startswith(texts.fold_opening(len(folds(edits))))
    assert all(edit.text is None for edit in edits[1:] if edit.part == WHOLE)
    assert not set(folds(edits)) & {message for message, _ in stubs(edits)}


def test_then_notes_say_less_and_what_people_typed_stays() -> None:
    talk = chat(40)
    gentle, strong = cut(talk, 5_000), cut(talk, 10)
    note, shorter = notes(gentle)[0], notes(strong)[0]
    assert "The assistant wrote" in note
    assert "The assistant wrote" not in shorter
    typed = [m["content"] for m in talk.messages[2:-3] if m["role"] == "user"]
    assert all(f"> {text}\n" in f"{shorter}\n" for text in typed)


def test_typed_text_is_clipped_only_where_it_must() -> None:
    talk = chat(20, sentences=60)
    long = talk.messages[4]["content"]
    assert f"> {long}\n" in notes(cut(talk, 10))[0]
    assert long not in notes(cut(talk, 10, fits=3_000))[0]
    assert long[-100:] in notes(cut(talk, 10, fits=3_000))[0]


def notes(edits: Edits) -> list[str]:
    return [edit.text for edit in edits if edit.part == WHOLE and edit.text is not None]


def chat(turns: int, sentences: int = 3) -> Talk:
    """Nothing but a user and a model taking turns, in prose."""
    said = "I think that the retries began in the spring and that the queue is to blame. "
    talk = long_talk(turns=0)
    for turn in range(turns):
        talk.messages += [
            {"role": "assistant", "content": f"Answer {turn}: {said * sentences}"},
            {"role": "user", "content": f"Question {turn}: {said * sentences}"},
        ]
    return talk


def test_short_results_are_not_worth_a_stub() -> None:
    talk = long_talk(turns=30, size=100)
    assert stubs(cut(talk, total(conversation(talk)) - 100)) == []


def test_no_client_s_text_passes_for_ours() -> None:
    talk = long_talk(turns=10, thinks=True)
    for block in talk.messages[2]["content"]:
        block["content"] = texts.OPENING + block["content"]
    assert (2, 0) in stubs(cut(talk, total(conversation(talk)) - 2_500))


def test_environment_blocks_go_but_for_the_newest() -> None:
    talk = long_talk(turns=0)
    for turn in range(8):
        block = f"<environment_details>\n{words(turn, 3_000)}\n</environment_details>"
        talk.messages += [
            {"role": "assistant", "content": "Yes."},
            {"role": "user", "content": [text_block(f"And {turn}?"), text_block(block)]},
        ]
    edits = cut(talk, total(conversation(talk)) - 1_000)
    assert stubs(edits) == [(at, 1) for at in range(2, 16, 2)]


def test_turns_still_alternate_after_a_fold() -> None:
    for target in range(500, 4_000, 250):
        talk = chat(30)
        edits = cut(talk, target)
        roles = [message["role"] for message in talk.messages]
        gone = {edit.message for edit in edits if edit.part == WHOLE and edit.text is None}
        for edit in edits:
            if edit.part == WHOLE and edit.text is not None:
                roles[edit.message] = "user"
        left = [role for at, role in enumerate(roles) if at not in gone]
        assert all(a != b for a, b in pairwise(left))


# Laws.

targets = st.integers(0, 20_000)


@given(talks, targets, st.booleans())
@laws
def test_what_must_stay_is_never_edited(talk: Talk, target: int, forced: bool) -> None:
    whole = conversation(talk)
    edits = cut(talk, target, target if forced else None)
    stay = kept(whole.messages)
    assert not set(folds(edits)) & stay.messages
    assert not set(stubs(edits)) & stay.parts
    for edit in edits:
        message = whole.messages[edit.message]
        if edit.part == WHOLE:
            assert edit.digest == message.digest
        else:
            part = message.parts[edit.part]
            assert edit.digest == part.digest
            if edit.text is None:
                assert part.kind is Kind.THINKING
                assert part.removable
            else:
                assert part.kind in (Kind.RESULT, Kind.ENVIRONMENT, Kind.IMAGE, Kind.DOCUMENT)
                assert part.value is not None
            assert message.editable


@given(talks)
@laws
def test_where_nothing_fits_nothing_that_may_go_is_left(talk: Talk) -> None:
    whole = conversation(talk)
    edits = cut(talk, 0, 0)
    stay, gone, short = kept(whole.messages), set(folds(edits)), set(stubs(edits))
    for unit in stay.units:
        if not stay.messages & set(range(*unit)):
            left = set(range(*unit)) - gone
            # One of the model's, for alternation; or what parts turns whose thinking is gone.
            for message in (whole.messages[at] for at in left):
                assert message.role == "assistant" or has_typed(message)
            assert len(left) <= 1
    for at, message in enumerate(whole.messages):
        for index, part in enumerate(message.parts):
            # The newest image stays, and the result that it stands in with it.
            may = part.value is not None and part.kind in (Kind.RESULT, Kind.ENVIRONMENT)
            may = may and not part.images
            if may and message.editable and at not in gone and (at, index) not in stay.parts:
                assert (at, index) in short or len(part.text) < 320
    said = sum(len(whole.messages[at].parts) for at in gone)
    assert all(len(note) < 200 + 850 * said for note in notes(edits))


@given(talks, targets)
@laws
def test_edits_are_in_order_and_each_place_once(talk: Talk, target: int) -> None:
    edits = cut(talk, target)
    places = [(edit.message, edit.part) for edit in edits]
    assert places == sorted(set(places))
    run: int | None = None
    for edit in edits:
        if edit.part == WHOLE:
            assert edit.text is not None or run == edit.message - 1
            run = edit.message


@given(talks, targets)
@laws
def test_the_same_conversation_has_the_same_plan(talk: Talk, target: int) -> None:
    assert cut(talk, target) == cut(talk, target)


@given(talks, targets, targets)
@laws
def test_what_is_folded_stays_folded(talk: Talk, first: int, second: int) -> None:
    """Stubs and notes are written anew by each step, as far as there is room."""
    frozen = cut(talk, first)
    assert set(folds(frozen)) <= set(folds(cut(talk, second, frozen=frozen)))


@given(talks, targets)
@laws
def test_a_met_target_asks_for_nothing_more(talk: Talk, target: int) -> None:
    """Notes are written anew by each step, in full as far as there is room."""
    frozen = cut(talk, target)
    if not folds(frozen) and after(conversation(talk), frozen) <= target - 100:
        assert cut(talk, target, frozen=frozen) == frozen


@pytest.mark.parametrize("messages", [[], [{"role": "user", "content": "x"}]])
def test_short_histories_are_left_alone(messages: list[Any]) -> None:
    talk = long_talk(turns=0)
    talk.messages = messages
    assert cut(talk, 0, 0) == ()
