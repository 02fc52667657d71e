"""Summaries laid into a conversation, and smart_truncation for the rest.

A summary stands for an unbroken run of messages and is frozen like any other fold. To
smart_truncation it is one message that stays as it is: what lies before and behind it is stubbed
and folded as always, until the target is met.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from mitmcontext.condense.conversation import Conversation, Room, said
from mitmcontext.condense.entries import WHOLE, FrozenEdit
from mitmcontext.condense.summaries.note import is_summary
from mitmcontext.condense.truncate import smart_truncation
from mitmcontext.values import Kind, Medium, Message, Part, Span


@dataclass(frozen=True, slots=True)
class Summary:
    """The note that stands for the messages from `first` on, `end` exclusive."""

    first: int
    end: int
    text: str


def folds(edits: Iterable[FrozenEdit]) -> list[Summary]:
    """The runs of messages that edits fold, whoever wrote their notes."""
    found: list[Summary] = []
    for edit in edits:
        if edit.part != WHOLE:
            continue
        if edit.text is not None:
            found.append(Summary(edit.message, edit.message + 1, edit.text))
        elif found:
            found[-1] = replace(found[-1], end=edit.message + 1)
    return found


def standing(edits: Iterable[FrozenEdit]) -> tuple[Summary, ...]:
    """The summaries that are frozen already."""
    return tuple(one for one in folds(edits) if is_summary(one.text))


def together(old: Iterable[Summary], new: Sequence[Summary]) -> tuple[Summary, ...]:
    """All summaries in order; a new one takes the place of those that it overlaps."""
    stay = [one for one in old if not any(one.first < n.end and n.first < one.end for n in new)]
    return tuple(sorted([*stay, *new], key=lambda one: one.first))


def condensed(
    conversation: Conversation, room: Room, summaries: Sequence[Summary]
) -> tuple[FrozenEdit, ...]:
    """All edits that bring the conversation to the target, with these summaries among them.

    Args:
        conversation: the client's history; what is frozen in it outside of the summaries stays.
        room: what to come down to.
        summaries: in order, none overlapping another.
    """
    if not summaries:
        return smart_truncation(conversation, room)
    view = _View(conversation, summaries)
    edits = [
        replaced
        for edit in smart_truncation(view.conversation, room)
        if (replaced := view.moved_back(edit)) is not None
    ]
    for one in summaries:
        edits += _edits(conversation.messages, one)
    return tuple(sorted(edits, key=lambda edit: (edit.message, edit.part)))


class _View:
    """The conversation with each summarised run as one message that stays as it is."""

    def __init__(self, conversation: Conversation, summaries: Sequence[Summary]) -> None:
        messages: list[Message] = []
        tokens: list[int] = []
        # By index in this view: the index in the conversation; None for a note.
        self._places: list[int | None] = []
        at = 0
        for one in (*summaries, None):
            until = one.first if one is not None else len(conversation.messages)
            messages += conversation.messages[at:until]
            tokens += conversation.tokens[at:until]
            self._places += range(at, until)
            if one is not None:
                messages.append(_note(one.text))
                tokens.append(conversation.weigh(said(one.text), None))
                self._places.append(None)
                at = one.end
        here = {place: index for index, place in enumerate(self._places) if place is not None}
        frozen = tuple(
            _moved(edit, here[edit.message]) for edit in conversation.frozen if edit.message in here
        )

        def weigh(message: Message, index: int | None) -> int:
            place = None if index is None else self._places[index]
            return conversation.weigh(message, place)

        def shown(part: Part, index: int) -> tuple[Medium, ...]:
            place = self._places[index]
            return () if place is None else conversation.shown(part, place)

        self.conversation = replace(
            conversation, messages=messages, tokens=tokens, frozen=frozen, weigh=weigh, shown=shown
        )

    def moved_back(self, edit: FrozenEdit) -> FrozenEdit | None:
        place = self._places[edit.message]
        return None if place is None else _moved(edit, place)


def _note(text: str) -> Message:
    part = Part(Kind.OPAQUE, text, Span(0, 0))
    return Message("user", (part,), b"", editable=False)


def _moved(edit: FrozenEdit, message: int) -> FrozenEdit:
    return FrozenEdit(message, edit.part, edit.digest, edit.text)


def _edits(messages: Sequence[Message], one: Summary) -> list[FrozenEdit]:
    return [
        FrozenEdit(at, WHOLE, messages[at].digest, one.text if at == one.first else None)
        for at in range(one.first, one.end)
    ]
