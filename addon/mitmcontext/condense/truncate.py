"""smart_truncation: local, deterministic, always there.

Not a cut at the front. In this order, each only until the target is met: environment blocks that a
newer one follows go; old tool results keep their telling blocks and become stubs; the oldest units
fold into a note that keeps what people typed and what the agent said and called; the note says less
of the oldest, and then only what people typed; what may not fold (an agent's calls since the last
typed turn that hold thinking) keeps a line of each result; and, where the request could not be sent
at all otherwise, long typed texts in the note are clipped.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from itertools import pairwise
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
from mitmcontext.condense.ledger import WHOLE, FrozenEdit
from mitmcontext.condense.telling import Telling, decoded
from mitmcontext.condense.units import Kept, kept
from mitmcontext.values import Kind, Message, Part, Span

# Twice what a brief stub has.
_WORTH_A_BRIEF_STUB: Final = 320
# Estimates of what a block frees are a little off; so often the rest is looked for.
_ROUNDS: Final = 8
# A unit folds early where its note is so much smaller.
_WELL: Final = 0.4
# Characters: a stub of less would hardly be smaller.
_WORTH_A_STUB: Final = 600
_TELLING: Final = 12

Note = Callable[[Sequence[Message], Container[str]], str]


def smart_truncation(conversation: Conversation, room: Room) -> tuple[FrozenEdit, ...]:
    """All edits that bring the conversation to the target, or as near as the rules allow.

    Edits that hold already stay, unless what they shorten is folded or shortened further now.
    """
    draft = _Draft(conversation, kept(conversation.messages))
    draft.fold_environment(room.target)
    draft.leave_out_blocks(room.target)
    draft.fold(room.target, texts.note, _WELL)
    draft.fold(room.target, texts.note, math.inf)
    draft.say_less(texts.short_note, room.target)
    draft.say_less(texts.typed_note, room.target)
    draft.remove_results(room.target)
    if room.fits is not None:
        draft.say_less(texts.clipped_note, room.fits)
    return draft.edits()


class _Later(Container[str]):
    """The lines that the agent says again from a message on."""

    def __init__(self, last: Mapping[str, int], end: int) -> None:
        self._last = last
        self._end = end

    def __contains__(self, line: object) -> bool:
        return isinstance(line, str) and self._last.get(line, -1) >= self._end


def _last_said(messages: Sequence[Message]) -> dict[str, int]:
    """Each line of some length that the agent said, and the last message that holds it."""
    return {
        line: at
        for at, message in enumerate(messages)
        if message.role == "assistant"
        for part in message.parts
        if part.kind in (Kind.PROSE, Kind.CALL)
        for raw in decoded(part).split("\n")
        if len(line := raw.strip()) >= _TELLING
    }


class _Draft:
    """A plan in the making: which parts are stubs, which units are folded, what it all weighs."""

    def __init__(self, conversation: Conversation, stay: Kept) -> None:
        self._conversation = conversation
        self._messages = conversation.messages
        self._stay = stay
        self._stubs = stubs_of(conversation.frozen)
        self._folded = folded_by(conversation.frozen)
        self._weights = list(conversation.tokens)
        for at, changed in self._stubs.items():
            self._weights[at] = conversation.weigh(with_texts(self._messages[at], changed), at)
        self._notes: dict[int, tuple[str, int]] = {}
        self._last_said = _last_said(self._messages)
        self._opening_weight = conversation.weigh(
            said(texts.fold_opening(len(self._messages))), None
        )
        for unit in self._folded_units():
            self._write(unit, texts.note)

    @property
    def total(self) -> int:
        """Estimated tokens of the whole request as planned."""
        standing = sum(weight for at, weight in enumerate(self._weights) if at not in self._folded)
        notes = sum(self._notes[unit.start][1] for unit in self._folded_units())
        openings = self._opening_weight * len(self._runs())
        return self._conversation.fixed + standing + notes + openings

    def fold_environment(self, target: int) -> None:
        """Environment blocks go, but for the newest."""
        blocks = [
            (at, index)
            for at, message in enumerate(self._messages)
            for index, part in enumerate(message.parts)
            if part.kind is Kind.ENVIRONMENT
        ]
        self._replace(blocks[:-1], texts.environment_stub, target)

    def remove_results(self, target: int) -> None:
        """Nothing is left of old results but that they were there, the oldest first."""
        self._replace([*self._places(Kind.RESULT, Kind.ENVIRONMENT)], texts.brief_stub, target)

    def _replace(
        self, places: Sequence[tuple[int, int]], stub: Callable[[Part], str], target: int
    ) -> None:
        total = self.total
        for at, index in places:
            if total <= target:
                return
            if self._may_shorten(at, index) and (
                len(self._standing(at, index)) >= _WORTH_A_BRIEF_STUB
            ):
                total -= self._shorten(at, index, stub(self._messages[at].parts[index]))

    def leave_out_blocks(self, target: int) -> None:
        """Old results lose the blocks that are the least likely to be needed."""
        need = self.total - target
        if need <= 0:
            return
        places = [
            place
            for place in self._places(Kind.RESULT)
            if len(self._standing(*place)) > _WORTH_A_STUB
        ]
        stubs = {
            (at, index): self._stubs[at][index]
            for at, index in places
            if index in self._stubs.get(at, {})
        }
        telling = Telling(self._messages, self._conversation.tokens, places, stubs)
        for _ in range(_ROUNDS):
            changed = telling.leave_out(need)
            for one in sorted(changed):
                place = telling.places[one]
                self._shorten(*place, telling.text(one))
            need = self.total - target
            if need <= 0 or not changed:
                return

    def _places(self, *kinds: Kind) -> Iterator[tuple[int, int]]:
        """What may be shortened, of these kinds, in the order of the conversation."""
        for at, message in enumerate(self._messages):
            for index, part in enumerate(message.parts):
                if part.kind in kinds and self._may_shorten(at, index):
                    yield at, index

    def _standing(self, at: int, index: int) -> str:
        return self._stubs.get(at, {}).get(index, self._messages[at].parts[index].text)

    def _may_shorten(self, at: int, index: int) -> bool:
        message, part = self._messages[at], self._messages[at].parts[index]
        return (
            message.editable
            and part.value is not None
            and at not in self._folded
            and (at, index) not in self._stay.parts
            and not texts.is_ours(part.text)
        )

    def _shorten(self, at: int, index: int, text: str) -> int:
        """Put a stub in and return the tokens that it frees."""
        changed = {**self._stubs.get(at, {}), index: text}
        weight = self._conversation.weigh(with_texts(self._messages[at], changed), at)
        freed = self._weights[at] - weight
        if freed <= 0 or len(text) > len(self._standing(at, index)):
            return 0
        self._stubs[at] = changed
        self._weights[at] = weight
        return freed

    def fold(self, target: int, note: Note, most: float) -> None:
        """The oldest units fold into notes, where a note weighs at most such a share of them."""
        total = self.total
        for unit in self._stay.units:
            if total <= target:
                break
            if self._may_fold(unit):
                standing = sum(self._weights[at] for at in range(*unit))
                marks = set(range(*unit))
                self._folded |= marks
                weight = self._write(unit, note)
                opened = unit.start - 1 in self._folded
                if weight + (0 if opened else self._opening_weight) > most * standing:
                    self._folded -= marks
                    del self._notes[unit.start]
                else:
                    total -= standing - weight
        self._keep_turns_alternating(note)

    def say_less(self, note: Note, target: int) -> None:
        """What the notes say of the oldest units becomes less."""
        total = self.total
        for unit in self._folded_units():
            if total <= target:
                return
            before = self._notes[unit.start][1]
            total -= before - self._write(unit, note)

    def edits(self) -> tuple[FrozenEdit, ...]:
        """The plan as edits, in the order of the conversation."""
        found = [
            FrozenEdit(at, index, self._messages[at].parts[index].digest, text)
            for at, changed in self._stubs.items()
            if at not in self._folded
            for index, text in changed.items()
        ]
        for run in self._runs():
            text = self._note_text(run)
            for at in range(*run):
                held = text if at == run.start else None
                found.append(FrozenEdit(at, WHOLE, self._messages[at].digest, held))
        return tuple(sorted(found, key=lambda edit: (edit.message, edit.part)))

    def _may_fold(self, unit: Span) -> bool:
        indices = set(range(*unit))
        return not indices & self._stay.messages and not indices & self._folded

    def _folded_units(self) -> list[Span]:
        return [unit for unit in self._stay.units if not self._folded.isdisjoint(range(*unit))]

    def _write(self, unit: Span, note: Note) -> int:
        """Say what the note keeps of a unit, and return what that weighs."""
        folded = [self._messages[at] for at in range(*unit) if at in self._folded]
        text = note(folded, _Later(self._last_said, unit.end))
        weight = self._conversation.weigh(said(text), None)
        self._notes[unit.start] = text, weight
        return weight

    def _runs(self) -> list[Span]:
        """The folded messages as unbroken runs."""
        marks = sorted(self._folded)
        if not marks:
            return []
        breaks = [(a, b) for a, b in pairwise(marks) if b != a + 1]
        starts = [marks[0], *(b for _, b in breaks)]
        ends = [*(a for a, _ in breaks), marks[-1]]
        return [Span(start, end + 1) for start, end in zip(starts, ends, strict=True)]

    def _note_text(self, run: Span) -> str:
        notes = [
            self._notes[unit.start][0]
            for unit in self._folded_units()
            if unit.start < run.end and unit.end > run.start
        ]
        return "\n".join([texts.fold_opening(run.end - run.start), *filter(None, notes)])

    def _keep_turns_alternating(self, note: Note) -> None:
        """Leave a model's plain message at either end of a run where that parts user from user.

        Some servers' chat templates insist on user and assistant taking turns. A note is a user's
        message; a run may begin behind, or end before, a message of the model that calls nothing.
        """
        back: set[int] = set()
        for run in self._runs():
            if self._is_plain(run.start) and self._is_users_turn(run.start, -1):
                back.add(run.start)
            if self._is_plain(run.end - 1) and self._is_users_turn(run.end - 1, 1):
                back.add(run.end - 1)
        self._folded -= back
        for unit in self._folded_units():
            if not back.isdisjoint(range(*unit)):
                self._write(unit, note)

    def _is_users_turn(self, at: int, step: int) -> bool:
        """Whether a user speaks next, from a message on or back; system messages are no turns."""
        at += step
        while 0 <= at < len(self._messages):
            role = self._messages[at].role
            if role not in ("system", "developer"):
                return role == "user"
            at += step
        return False

    def _is_plain(self, at: int) -> bool:
        message = self._messages[at]
        calls = any(part.kind is Kind.CALL for part in message.parts)
        # An item is not a whole turn: reasoning, say, must not be left behind without its message.
        return message.role == "assistant" and not calls and not message.item
