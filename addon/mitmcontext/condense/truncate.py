"""smart_truncation: local, deterministic, always there.

Not a cut at the front. In this order, each only as far as it takes: environment blocks that a newer
one follows go, and the line numbers of old results; old images and documents become a line that
says what they were, and old thinking goes; the oldest units fold into a note, which keeps
what people typed, what the agent called, and its results; the note says less of what the agent
called long ago; old results lose the blocks that are the least likely to be needed; then the note
says less of everything, all the rest folds, and the note keeps only what people typed; what may not
fold (an agent's calls since the last typed turn that hold thinking) keeps a line of each result;
and, where the request could not be sent at all otherwise, long typed texts in the note are clipped.

Each step plans anew from the client's whole history: what the conversation has come back to since
the last one may be shown again.
"""

from __future__ import annotations

from typing import Final

from mitmcontext.condense import texts
from mitmcontext.condense.conversation import (
    Conversation,
    Room,
    folded_by,
    said,
    stubs_of,
    with_texts,
)
from mitmcontext.condense.draft import Draft, Says
from mitmcontext.condense.entries import WHOLE, FrozenEdit
from mitmcontext.condense.thinking import old_thinking
from mitmcontext.condense.units import Kept, kept
from mitmcontext.values import Kind

# Twice what a brief stub has.
_WORTH_A_BRIEF_STUB: Final = 320
# The share of old results' tokens that may still have to go when no more of the oldest units fold,
# and when the note no longer says less of what the agent called.
_LEFT_TO_RESULTS: Final = 0.3
_MOST_LEFT_TO_RESULTS: Final = 0.6
# Results shown since: what is more recent folds only when nothing else helps; calls that are older
# are told in a line each. An agent seldom comes back to what is older (measured: lines of its own
# calls are used again a tenth as often after a dozen results as right away).
_RECENT: Final = 2
_LONG_AGO: Final = 12
# What is left of old content where what has to stay fills most of the target, as a share of it.
_OLD_SHARE: Final = 0.4
# What a gap costs is known only once all are: so often the rest is looked for.
_ROUNDS: Final = 4
# Estimates are a little off, and less is better than more.
_NEARLY: Final = 0.98


def smart_truncation(conversation: Conversation, room: Room) -> tuple[FrozenEdit, ...]:
    """All edits that bring the conversation to the target, or as near as the rules allow.

    What is folded already stays folded. The plan goes by estimates: of a stretch of a text as many
    tokens as it has characters of it. Only where the request might not be sent at all otherwise is
    the result counted, and corrected.
    """
    if not conversation.messages or _held(conversation) <= room.target:
        return conversation.frozen
    draft = Draft(conversation, kept(conversation.messages))
    goal = _goal(conversation, room, draft.stay)
    _reduce(draft, goal)
    if room.fits is not None:
        off = max(1.0, draft.counted() / max(1, draft.total))
        _reduce(draft, int(min(goal, room.fits) / off))
        _say_less(draft, Says.CLIPPED, int(room.fits / off))
    return draft.edits()


def _held(conversation: Conversation) -> int:
    """Tokens of the conversation with what is frozen laid over it."""
    folded, stubs = folded_by(conversation.frozen), stubs_of(conversation.frozen)
    weigh, messages = conversation.weigh, conversation.messages
    notes = (edit.text for edit in conversation.frozen if edit.part == WHOLE)
    return (
        conversation.fixed
        + sum(weigh(said(text), None) for text in notes if text is not None)
        + sum(
            weigh(with_texts(messages[at], stubs[at]), at) if at in stubs else tokens
            for at, tokens in enumerate(conversation.tokens)
            if at not in folded
        )
    )


def _goal(conversation: Conversation, room: Room, stay: Kept) -> int:
    """How far to go down: some old content is left in any case, as long as that is enough."""
    stays = sum(conversation.tokens[at] for at in stay.messages)
    wanted = conversation.fixed + stays + _OLD_SHARE * room.target
    least = room.target if room.least is None else room.least
    most = room.target if room.most is None else room.most
    return int(_NEARLY * max(least, min(most, wanted)))


def _reduce(draft: Draft, goal: int) -> None:
    """Take the steps that the module's first lines name, until the goal is met."""
    if draft.total <= goal:
        return
    _shorten_environment(draft)
    _tell_media(draft, goal)
    _remove_thinking(draft, goal)
    _fold_oldest(draft, goal)
    _leave_out_blocks(draft, goal)
    _say_less(draft, Says.IN_SHORT, goal)
    _fold_all(draft, goal)
    _say_less(draft, Says.TYPED, goal)
    _remove_results(draft, goal)


def _shorten_environment(draft: Draft) -> None:
    blocks = [
        (at, index, part)
        for at, message in enumerate(draft.messages)
        for index, part in enumerate(message.parts)
        if part.kind == Kind.ENVIRONMENT
    ]
    for at, index, part in blocks[:-1]:
        if draft.may_shorten(at, index):
            text = texts.environment_stub(part)
            if len(text) < len(part.text):
                draft.shorten(at, {index: text})


def _tell_media(draft: Draft, goal: int) -> None:
    """Old images and documents become a line of text, the oldest first."""
    over = draft.total - goal
    for place in draft.media.may_go:
        if over <= 0:
            return
        if place[0] not in draft.folded and not draft.is_changed(place):
            over -= draft.tell(place)


def _remove_thinking(draft: Draft, goal: int) -> None:
    """Thinking of turns that are over goes whole, the oldest first."""
    over = draft.total - goal if draft.started not in draft.folded else 0
    for places in old_thinking(draft.messages, draft.stay, draft.started):
        if over <= 0:
            return
        at = places[0][0]
        if at not in draft.folded and not draft.is_changed(places[0]):
            over -= draft.shorten(at, dict.fromkeys(index for _, index in places))


def _fold_oldest(draft: Draft, goal: int) -> None:
    """The oldest units fold, and what was called long ago is told in short.

    Both only as far as old results would have to lose too much instead.
    """
    need = draft.total - goal
    blocks = draft.results.tokens
    ages = _results_since(draft)
    for unit, age in enumerate(ages):
        if need <= _LEFT_TO_RESULTS * blocks or age <= _RECENT:
            break
        if draft.may_fold(unit):
            need -= draft.fold(unit, Says.AT_LENGTH)
    draft.keep_turns_alternating()
    for unit in sorted(draft.says):
        if need <= _MOST_LEFT_TO_RESULTS * blocks or ages[unit] <= _LONG_AGO:
            break
        need -= draft.say(unit, Says.IN_SHORT)


def _results_since(draft: Draft) -> list[int]:
    """For each unit the results that were shown behind it."""
    found: list[int] = []
    shown = 0
    for unit in reversed(draft.units):
        found.append(shown)
        parts = (part for at in range(*unit) for part in draft.messages[at].parts)
        shown += sum(part.kind == Kind.RESULT for part in parts)
    return found[::-1]


def _leave_out_blocks(draft: Draft, goal: int) -> None:
    for _ in range(_ROUNDS):
        over = draft.total - goal
        if over <= 0 or not draft.leave_out(over):
            return


def _say_less(draft: Draft, says: Says, goal: int) -> None:
    """What the notes say of the oldest units becomes less."""
    over = draft.total - goal
    for unit in sorted(draft.says):
        if over <= 0:
            return
        over -= draft.say(unit, says)


def _fold_all(draft: Draft, goal: int) -> None:
    over = draft.total - goal
    for unit, span in enumerate(draft.units):
        if over <= 0:
            break
        stays = draft.stay.messages.intersection(range(*span))
        if draft.started in range(*span) and not stays and draft.bare_calls():
            before = draft.total
            draft.give_back_thinking()
            over += draft.total - before
        if draft.may_fold(unit):
            over -= draft.fold(unit, Says.IN_SHORT)
    draft.keep_turns_alternating()


def _remove_results(draft: Draft, goal: int) -> None:
    """Nothing is left of old results but that they were there, the oldest first."""
    over = draft.total - goal
    for at, message in enumerate(draft.messages):
        for index, part in enumerate(message.parts):
            if over <= 0:
                return
            if part.kind not in (Kind.RESULT, Kind.ENVIRONMENT) or at in draft.folded:
                continue
            if not draft.may_shorten(at, index):
                continue
            stands = draft.texts_of(at).get(index, part.text) or ""
            if len(stands) >= _WORTH_A_BRIEF_STUB:
                over -= draft.shorten(at, {index: texts.brief_stub(part)})
