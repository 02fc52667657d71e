"""smart_truncation: local, deterministic, always there.

Not a cut at the front. In this order, each only until the target is met: old tool results become
stubs, the oldest units fold into a note that keeps what people typed, what the note says of the
oldest units is dropped, what may not fold (an agent's calls since the last typed turn that hold
thinking) keeps a line of each result, and, where the request could not be sent at all otherwise,
long typed texts in the note are clipped.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
from mitmcontext.condense.units import Kept, kept
from mitmcontext.values import Kind, Message, Part, Span

# Shorter results are not worth a stub, which alone has up to 1,400 characters.
_WORTH_A_STUB: Final = 1_500
# Twice what a brief stub has.
_WORTH_A_BRIEF_STUB: Final = 320
_SHORTENED: Final = (Kind.RESULT, Kind.ENVIRONMENT)

Note = Callable[[Sequence[Message]], str]


def smart_truncation(conversation: Conversation, room: Room) -> tuple[FrozenEdit, ...]:
    """All edits that bring the conversation to the target, or as near as the rules allow.

    Edits that hold already stay, unless what they shorten is folded now.
    """
    draft = _Draft(conversation, kept(conversation.messages))
    draft.shorten(room.target, texts.stub, _WORTH_A_STUB)
    draft.fold(room.target)
    draft.say_less(texts.typed_note, room.target)
    draft.shorten(room.target, texts.brief_stub, _WORTH_A_BRIEF_STUB)
    if room.fits is not None:
        draft.say_less(texts.clipped_note, room.fits)
    return draft.edits()


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

    def shorten(self, target: int, stub: Callable[[Part], str], least: int) -> None:
        """Old results of `least` characters and more become stubs, the oldest first."""
        total = self.total
        for at, message in enumerate(self._messages):
            for index, part in enumerate(message.parts):
                if total <= target:
                    return
                standing = self._stubs.get(at, {}).get(index, part.text)
                if (
                    message.editable
                    and at not in self._folded
                    and part.kind in _SHORTENED
                    and part.value is not None
                    and len(standing) >= least
                    and (at, index) not in self._stay.parts
                    and not texts.is_ours(part.text)
                ):
                    total -= self._shorten(at, index, stub(part))

    def _shorten(self, at: int, index: int, text: str) -> int:
        """Put a stub in and return the tokens that it frees."""
        changed = {**self._stubs.get(at, {}), index: text}
        weight = self._conversation.weigh(with_texts(self._messages[at], changed), at)
        freed = self._weights[at] - weight
        if freed <= 0:
            return 0
        self._stubs[at] = changed
        self._weights[at] = weight
        return freed

    def fold(self, target: int) -> None:
        """The oldest units fold into notes."""
        total = self.total
        for unit in self._stay.units:
            if total <= target:
                break
            if self._may_fold(unit):
                standing = sum(self._weights[at] for at in range(*unit))
                self._folded |= set(range(*unit))
                total -= standing - self._write(unit, texts.note)
        self._keep_turns_alternating()

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
        text = note([self._messages[at] for at in range(*unit) if at in self._folded])
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

    def _keep_turns_alternating(self) -> None:
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
                self._write(unit, texts.note)

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
