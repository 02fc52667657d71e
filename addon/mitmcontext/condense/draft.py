"""A plan in the making: what becomes of each message, and what the whole then weighs."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import replace
from enum import IntEnum
from typing import Final

from mitmcontext.condense import texts
from mitmcontext.condense.conversation import (
    Conversation,
    folded_by,
    said,
    stubs_of,
    with_texts,
)
from mitmcontext.condense.entries import WHOLE, FrozenEdit
from mitmcontext.condense.media import OldMedia
from mitmcontext.condense.results import OldResults
from mitmcontext.condense.runs import parting, runs_of
from mitmcontext.condense.thinking import turn_started
from mitmcontext.condense.units import Kept
from mitmcontext.values import MEDIA, Kind, Message, Place, Span

_TELLING: Final = 12
# Tokens of the line that stands for an image in a result.
_LINE: Final = 40.0
# A note's own words have fewer tokens a character than messages with their keys and escapes.
_PLAIN: Final = 0.87
# Tokens of a note's first line, with the message around it.
_OPENING: Final = 70.0


class Says(IntEnum):
    """What a note says of a unit, from most to least."""

    AT_LENGTH = 0
    IN_SHORT = 1
    TYPED = 2
    CLIPPED = 3


class Draft:
    """A plan in the making: which units are folded, what is left of results, what it all weighs.

    Weights are estimated while the plan changes and counted when it is settled.

    Attributes:
        messages: the client's.
        units: of these messages.
        stay: what must stay.
        media: the images and documents.
        results: the old results.
        folded: the messages that are folded away.
        says: what the note says of each folded unit.
        started: the last message that has begun a turn; thinking goes only of turns before it.
    """

    def __init__(self, conversation: Conversation, stay: Kept) -> None:
        self._conversation = conversation
        self.messages = conversation.messages
        self.media = OldMedia(conversation, stay)
        self.stay = replace(stay, parts=stay.parts | self.media.newest)
        self.units = stay.units
        self._unit_of = {at: n for n, unit in enumerate(stay.units) for at in range(*unit)}
        self.folded = set(folded_by(conversation.frozen))
        self.says = {self._unit_of[at]: Says.AT_LENGTH for at in sorted(self.folded)}
        self.results = OldResults(self.messages, self.media.beside, self._old_results())
        self._shortened = self._held_stubs()
        # Results whose images are gone; of their texts the old results know.
        self._unshown = self._held_unshown()
        # Thinking goes of turns that this message ended; it stays while their calls stand.
        self.started = turn_started(self.messages, self.folded)
        self._last_said = _last_said(self.messages)
        size = sum(map(_size, self.messages))
        self._usual_rate = _PLAIN * sum(self.media.beside) / max(1, size)
        # Estimates; what a change of the plan makes wrong is thrown away.
        self._weights: dict[int, float] = {}
        self._note_weights: dict[int, float] = {}

    def _old_results(self) -> list[tuple[int, int]]:
        return [
            (at, index)
            for at, message in enumerate(self.messages)
            for index, part in enumerate(message.parts)
            if part.kind == Kind.RESULT and (at in self.folded or self.may_shorten(at, index))
        ]

    def may_shorten(self, at: int, index: int) -> bool:
        """Whether another text may take the place of a part."""
        message = self.messages[at]
        place = at, index
        return (
            message.editable
            and message.parts[index].value is not None
            and place not in self.stay.parts
        )

    def may_fold(self, unit: int) -> bool:
        """Whether a unit may fold: nothing of it has to stay, or is folded."""
        indices = set(range(*self.units[unit]))
        if self.started in indices and self.bare_calls():
            return False
        return not indices & self.stay.messages and not indices & self.folded

    def _held_stubs(self) -> dict[int, dict[int, str | None]]:
        """What is frozen of parts that are none of the old results, as after going back."""
        return {
            at: held
            for at, changed in stubs_of(self._conversation.frozen).items()
            if (held := {i: text for i, text in changed.items() if (at, i) not in self.results.at})
        }

    def _held_unshown(self) -> set[tuple[int, int]]:
        places = {(edit.message, edit.part) for edit in self._conversation.frozen}
        return places & self.media.tokens.keys() & self.results.at.keys()

    # Weights.

    @property
    def total(self) -> float:
        """Estimated tokens of the whole request as planned."""
        count = len(self.messages)
        standing = sum(self._weight(at) for at in range(count) if at not in self.folded)
        notes = sum(map(self._note_weight, self.says))
        return self._conversation.fixed + standing + notes + _OPENING * len(runs_of(self.folded))

    def counted(self) -> int:
        """The same, counted from the texts as they are planned."""
        weigh = self._conversation.weigh
        standing = sum(
            weigh(with_texts(self.messages[at], changed), at) if changed else tokens
            for at, tokens in enumerate(self._conversation.tokens)
            if at not in self.folded
            for changed in (self.texts_of(at),)
        )
        notes = sum(weigh(said(self._run_text(run)), None) for run in runs_of(self.folded))
        return self._conversation.fixed + standing + notes

    def _weight(self, at: int) -> float:
        """The tokens of a message that stands."""
        if at not in self._weights:
            message, tokens = self.messages[at], float(self._conversation.tokens[at])
            shortened = self._shortened.get(at, {})
            for index in range(len(message.parts)):
                if index in shortened:
                    tokens -= self._freed(at, index, shortened[index])
                elif (one := self.results.at.get((at, index))) is not None:
                    tokens -= self.results.freed(one)
                    if self._is_unshown(at, index, one):
                        tokens -= self.media.tokens[at, index] - _LINE
            self._weights[at] = tokens
        return self._weights[at]

    def _freed(self, at: int, index: int, text: str | None) -> float:
        """The tokens that a text in the place of a part saves; without one it goes."""
        if text is None:
            return self._conversation.weigh(
                Message("assistant", (self.messages[at].parts[index],), b""), None
            ) - self._conversation.weigh(said(""), None)
        part, shown = self.messages[at].parts[index], self.media.tokens.get((at, index), 0.0)
        if part.kind in MEDIA:
            return shown - len(text) * self._usual_rate
        rate = self.media.beside[at] / max(1, _size(self.messages[at]))
        return shown + (len(part.text) - len(text)) * rate

    def _is_unshown(self, at: int, index: int, one: int) -> bool:
        """Whether a result has lost its images, for themselves or with a piece of its text."""
        place = at, index
        return place in self.media.tokens and (
            place in self._unshown or self.results.is_shortened(one)
        )

    def _note_weight(self, unit: int) -> float:
        """The tokens of what a note says of a unit."""
        if unit not in self._note_weights:
            tokens = len(self._note(unit, quote=False)) * self._usual_rate
            if self.says[unit] in (Says.AT_LENGTH, Says.IN_SHORT):
                tokens += sum(map(self.results.quoted_tokens, self._results_of(unit)))
            self._note_weights[unit] = tokens
        return self._note_weights[unit]

    def _results_of(self, unit: int) -> Iterator[int]:
        for at in range(*self.units[unit]):
            for index in range(len(self.messages[at].parts)):
                if at in self.folded and (at, index) in self.results.at:
                    yield self.results.at[at, index]

    # Changes.

    def shorten(self, at: int, texts: Mapping[int, str | None]) -> float:
        """Put texts in the place of parts of a message, None removes one; the tokens freed."""
        before = self._weight(at)
        self._shortened.setdefault(at, {}).update(texts)
        self._weights.pop(at, None)
        return before - self._weight(at)

    def tell(self, place: Place) -> float:
        """An image or a document becomes a line of text; the tokens that this frees."""
        at, index = place
        if place not in self.results.at:
            return self.shorten(at, {index: self.media.line(place)})
        before = self._weight(at)
        self._unshown.add(place)
        self._weights.pop(at, None)
        return before - self._weight(at)

    def is_changed(self, place: Place) -> bool:
        """Whether a text stands in the place of a part, or it is gone, or its images are."""
        return place[1] in self._shortened.get(place[0], {}) or place in self._unshown

    def leave_out(self, tokens: float) -> bool:
        """Leave blocks of old results out to free about so many tokens; whether any were left."""
        changed = self.results.leave_out(tokens)
        for one in changed:
            at = self.results.places[one][0]
            self._weights.pop(at, None)
            self._note_weights.pop(self._unit_of[at], None)
        return bool(changed)

    def fold(self, unit: int, says: Says) -> float:
        """Fold a unit and return the tokens that it frees."""
        indices = range(*self.units[unit])
        standing = sum(map(self._weight, indices))
        self.folded |= set(indices)
        self.says[unit] = says
        self._note_weights.pop(unit, None)
        return standing - self._note_weight(unit)

    def say(self, unit: int, says: Says) -> float:
        """Say less of a folded unit and return the tokens that it frees."""
        if self.says[unit] >= says:
            return 0
        before = self._note_weight(unit)
        self.says[unit] = says
        self._note_weights.pop(unit, None)
        return before - self._note_weight(unit)

    def bare_calls(self) -> list[int]:
        """The messages whose calls stand without the thinking that was beside them."""
        return [
            at
            for at, changed in self._shortened.items()
            if None in changed.values()
            and at not in self.folded
            and any(part.kind == Kind.CALL for part in self.messages[at].parts)
        ]

    def give_back_thinking(self) -> None:
        """The calls of a turn have their thinking again, so that what ended it may fold."""
        for at in self.bare_calls():
            held = self._shortened[at].items()
            self._shortened[at] = {index: text for index, text in held if text is not None}
            self._weights.pop(at, None)

    def keep_turns_alternating(self) -> None:
        """Leave a model's plain message at either end of a run where that parts user from user."""
        back = parting(self.messages, self.folded)
        self.folded -= back
        for unit in {self._unit_of[at] for at in back}:
            self._note_weights.pop(unit, None)
            if self.folded.isdisjoint(range(*self.units[unit])):
                del self.says[unit]

    # What comes out.

    def edits(self) -> tuple[FrozenEdit, ...]:
        """The plan as edits, in the order of the conversation."""
        found = [
            FrozenEdit(at, index, self.messages[at].parts[index].digest, text)
            for at in range(len(self.messages))
            if at not in self.folded
            for index, text in self.texts_of(at).items()
        ]
        for run in runs_of(self.folded):
            text = self._run_text(run)
            for at in range(*run):
                held = text if at == run.start else None
                found.append(FrozenEdit(at, WHOLE, self.messages[at].digest, held))
        return tuple(sorted(found, key=lambda edit: (edit.message, edit.part)))

    def texts_of(self, at: int) -> dict[int, str | None]:
        """The texts that stand in the place of parts of a message; None where one is removed."""
        changed: dict[int, str | None] = {}
        for index, part in enumerate(self.messages[at].parts):
            one = self.results.at.get((at, index))
            if one is not None and self.results.is_shortened(one):
                text = self.results.stub(one)
                if len(text) < len(part.text) or part.images:
                    changed[index] = text
            elif (at, index) in self._unshown:
                changed[index] = self.media.line((at, index))
        return changed | self._shortened.get(at, {})

    def _note(self, unit: int, *, quote: bool = True) -> str:
        """What a note says of a unit; without quotations, to weigh the rest of it."""
        span, says = self.units[unit], self.says[unit]
        messages = [(at, self.messages[at]) for at in range(*span) if at in self.folded]
        if says == Says.TYPED:
            return texts.typed_note(message for _, message in messages)
        if says == Says.CLIPPED:
            return texts.clipped_note(message for _, message in messages)

        def result(at: int, index: int) -> str | None:
            one = self.results.at.get((at, index))
            if one is None:
                return None
            return self.results.quoted(one) if quote else ""

        saying = texts.AT_LENGTH if says == Says.AT_LENGTH else texts.IN_SHORT
        return texts.note(messages, saying, _Later(self._last_said, span.end), result)

    def _run_text(self, run: Span) -> str:
        notes = [
            self._note(unit)
            for unit in sorted(self.says)
            if self.units[unit].start < run.end and self.units[unit].end > run.start
        ]
        return "\n".join([texts.fold_opening(run.end - run.start), *filter(None, notes)])


class _Later(Container[str]):
    """The lines that the agent says again from a message on."""

    def __init__(self, last: Mapping[str, int], end: int) -> None:
        self._last = last
        self._end = end

    def __contains__(self, line: object) -> bool:
        return isinstance(line, str) and self._last.get(line, -1) >= self._end


def _size(message: Message) -> int:
    """The characters of a message's text, without those of documents."""
    return sum(len(part.text) for part in message.parts if part.kind not in MEDIA)


def _last_said(messages: Sequence[Message]) -> dict[str, int]:
    """Each line of some length that the agent said, and the last message that holds it."""
    return {
        line: at
        for at, message in enumerate(messages)
        if message.role == "assistant"
        for part in message.parts
        if part.kind in (Kind.PROSE, Kind.CALL)
        for raw in texts.decoded(part).split("\n")
        if len(line := raw.strip()) >= _TELLING
    }
