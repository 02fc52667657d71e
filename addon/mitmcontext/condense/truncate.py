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

from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from enum import IntEnum
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
from mitmcontext.condense.media import OldMedia
from mitmcontext.condense.results import OldResults
from mitmcontext.condense.thinking import old_thinking, turn_started
from mitmcontext.condense.units import Kept, kept
from mitmcontext.values import MEDIA, Kind, Message, Span

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
_TELLING: Final = 12
# Tokens of the line that stands for an image in a result.
_LINE: Final = 40.0
# What a gap costs is known only once all are: so often the rest is looked for.
_ROUNDS: Final = 4
# A note's own words have fewer tokens a character than messages with their keys and escapes.
_PLAIN: Final = 0.87
# Estimates are a little off, and less is better than more.
_NEARLY: Final = 0.98
# Tokens of a note's first line, with the message around it.
_OPENING: Final = 70.0


class _Says(IntEnum):
    """What a note says of a unit, from most to least."""

    AT_LENGTH = 0
    IN_SHORT = 1
    TYPED = 2
    CLIPPED = 3


def smart_truncation(conversation: Conversation, room: Room) -> tuple[FrozenEdit, ...]:
    """All edits that bring the conversation to the target, or as near as the rules allow.

    What is folded already stays folded. The plan goes by estimates: of a stretch of a text as many
    tokens as it has characters of it. Only where the request might not be sent at all otherwise is
    the result counted, and corrected.
    """
    if not conversation.messages or _held(conversation) <= room.target:
        return conversation.frozen
    draft = _Draft(conversation, kept(conversation.messages))
    draft.reduce(draft.goal(room))
    if room.fits is not None:
        off = draft.counted() / max(1, draft.total)
        draft.reduce(int(min(draft.goal(room), room.fits) / max(1.0, off)))
        draft.say_less(_Says.CLIPPED, int(room.fits / max(1.0, off)))
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


class _Draft:
    """A plan in the making: which units are folded, what is left of results, what it all weighs.

    Weights are estimated while the plan changes and counted when it is settled.
    """

    def __init__(self, conversation: Conversation, stay: Kept) -> None:
        self._conversation = conversation
        self._messages = conversation.messages
        self._media = OldMedia(conversation, stay)
        self._stay = replace(stay, parts=stay.parts | self._media.newest)
        self._units = stay.units
        self._unit_of = {at: n for n, unit in enumerate(stay.units) for at in range(*unit)}
        self._folded = set(folded_by(conversation.frozen))
        self._says = {self._unit_of[at]: _Says.AT_LENGTH for at in sorted(self._folded)}
        self._ages = self._results_since()
        self._results = OldResults(self._messages, self._media.beside, self._old_results())
        self._shortened = self._held_stubs()
        # Results whose images are gone; of their texts the old results know.
        self._unshown = self._held_unshown()
        # Thinking goes of turns that this message ended; it stays while their calls stand.
        self._started = turn_started(self._messages, self._folded)
        self._last_said = _last_said(self._messages)
        size = sum(map(_size, self._messages))
        self._usual_rate = _PLAIN * sum(self._media.beside) / max(1, size)
        # Estimates; what a change of the plan makes wrong is thrown away.
        self._weights: dict[int, float] = {}
        self._note_weights: dict[int, float] = {}

    def _results_since(self) -> list[int]:
        """For each unit the results that were shown behind it."""
        found: list[int] = []
        shown = 0
        for unit in reversed(self._units):
            found.append(shown)
            parts = (part for at in range(*unit) for part in self._messages[at].parts)
            shown += sum(part.kind is Kind.RESULT for part in parts)
        return found[::-1]

    def _old_results(self) -> list[tuple[int, int]]:
        return [
            (at, index)
            for at, message in enumerate(self._messages)
            for index, part in enumerate(message.parts)
            if part.kind is Kind.RESULT and (at in self._folded or self._may_shorten(at, index))
        ]

    def _may_shorten(self, at: int, index: int) -> bool:
        message = self._messages[at]
        place = at, index
        return (
            message.editable
            and message.parts[index].value is not None
            and place not in self._stay.parts
        )

    def _held_stubs(self) -> dict[int, dict[int, str | None]]:
        """What is frozen of parts that are none of the old results, as after going back."""
        return {
            at: held
            for at, changed in stubs_of(self._conversation.frozen).items()
            if (held := {i: text for i, text in changed.items() if (at, i) not in self._results.at})
        }

    def _held_unshown(self) -> set[tuple[int, int]]:
        places = {(edit.message, edit.part) for edit in self._conversation.frozen}
        return places & self._media.tokens.keys() & self._results.at.keys()

    def goal(self, room: Room) -> int:
        """How far to go down: some old content is left in any case, as long as that is enough."""
        stays = sum(self._conversation.tokens[at] for at in self._stay.messages)
        wanted = self._conversation.fixed + stays + _OLD_SHARE * room.target
        least = room.target if room.least is None else room.least
        most = room.target if room.most is None else room.most
        return int(_NEARLY * max(least, min(most, wanted)))

    def reduce(self, goal: int) -> None:
        """Take the steps that the module's first lines name, until the goal is met."""
        if self.total <= goal:
            return
        self._shorten_environment()
        self._tell_media(goal)
        self._remove_thinking(goal)
        self._fold_oldest(goal)
        self._leave_out_blocks(goal)
        self.say_less(_Says.IN_SHORT, goal)
        self._fold_all(goal)
        self.say_less(_Says.TYPED, goal)
        self._remove_results(goal)

    # Weights.

    @property
    def total(self) -> float:
        """Estimated tokens of the whole request as planned."""
        count = len(self._messages)
        standing = sum(self._weight(at) for at in range(count) if at not in self._folded)
        notes = sum(map(self._note_weight, self._says))
        return self._conversation.fixed + standing + notes + _OPENING * len(self._runs())

    def counted(self) -> int:
        """The same, counted from the texts as they are planned."""
        weigh = self._conversation.weigh
        standing = sum(
            weigh(with_texts(self._messages[at], changed), at) if changed else tokens
            for at, tokens in enumerate(self._conversation.tokens)
            if at not in self._folded
            for changed in (self._texts_of(at),)
        )
        notes = sum(weigh(said(self._run_text(run)), None) for run in self._runs())
        return self._conversation.fixed + standing + notes

    def _weight(self, at: int) -> float:
        """The tokens of a message that stands."""
        if at not in self._weights:
            message, tokens = self._messages[at], float(self._conversation.tokens[at])
            shortened = self._shortened.get(at, {})
            for index in range(len(message.parts)):
                if index in shortened:
                    tokens -= self._freed(at, index, shortened[index])
                elif (one := self._results.at.get((at, index))) is not None:
                    tokens -= self._results.freed(one)
                    if self._is_unshown(at, index, one):
                        tokens -= self._media.tokens[at, index] - _LINE
            self._weights[at] = tokens
        return self._weights[at]

    def _freed(self, at: int, index: int, text: str | None) -> float:
        """The tokens that a text in the place of a part saves; without one it goes."""
        if text is None:
            return self._conversation.weigh(
                Message("assistant", (self._messages[at].parts[index],), b""), None
            ) - self._conversation.weigh(said(""), None)
        part, shown = self._messages[at].parts[index], self._media.tokens.get((at, index), 0.0)
        if part.kind in MEDIA:
            return shown - len(text) * self._usual_rate
        rate = self._media.beside[at] / max(1, _size(self._messages[at]))
        return shown + (len(part.text) - len(text)) * rate

    def _is_unshown(self, at: int, index: int, one: int) -> bool:
        """Whether a result has lost its images, for themselves or with a piece of its text."""
        place = at, index
        return place in self._media.tokens and (
            place in self._unshown or self._results.is_shortened(one)
        )

    def _note_weight(self, unit: int) -> float:
        """The tokens of what a note says of a unit."""
        if unit not in self._note_weights:
            tokens = len(self._note(unit, quote=False)) * self._usual_rate
            if self._says[unit] in (_Says.AT_LENGTH, _Says.IN_SHORT):
                tokens += sum(map(self._results.quoted_tokens, self._results_of(unit)))
            self._note_weights[unit] = tokens
        return self._note_weights[unit]

    def _results_of(self, unit: int) -> Iterator[int]:
        for at in range(*self._units[unit]):
            for index in range(len(self._messages[at].parts)):
                if at in self._folded and (at, index) in self._results.at:
                    yield self._results.at[at, index]

    def _forget(self, results: Iterable[int]) -> None:
        """What these results are part of weighs something else now."""
        for one in results:
            at = self._results.places[one][0]
            self._weights.pop(at, None)
            self._note_weights.pop(self._unit_of[at], None)

    # The reductions.

    def _shorten_environment(self) -> None:
        blocks = [
            (at, index)
            for at, message in enumerate(self._messages)
            for index, part in enumerate(message.parts)
            if part.kind is Kind.ENVIRONMENT
        ]
        for at, index in blocks[:-1]:
            part = self._messages[at].parts[index]
            if self._may_shorten(at, index):
                text = texts.environment_stub(part)
                if len(text) < len(part.text):
                    self._shortened.setdefault(at, {})[index] = text
                    self._weights.pop(at, None)

    def _tell_media(self, goal: int) -> None:
        """Old images and documents become a line of text, the oldest first."""
        over = self.total - goal
        for at, index in self._media.may_go:
            if over <= 0:
                return
            place, held = (at, index), self._shortened.get(at, {})
            if at in self._folded or index in held or place in self._unshown:
                continue
            before = self._weight(at)
            if place in self._results.at:
                self._unshown.add(place)
            else:
                self._shortened.setdefault(at, {})[index] = self._media.line(place)
            self._weights.pop(at, None)
            over -= before - self._weight(at)

    def _remove_thinking(self, goal: int) -> None:
        """Thinking of turns that are over goes whole, the oldest first."""
        over = self.total - goal if self._started not in self._folded else 0
        for places in old_thinking(self._messages, self._stay, self._started):
            if over <= 0:
                return
            at = places[0][0]
            if at in self._folded or places[0][1] in self._shortened.get(at, {}):
                continue
            before = self._weight(at)
            self._shortened.setdefault(at, {}).update(dict.fromkeys(i for _, i in places))
            self._weights.pop(at, None)
            over -= before - self._weight(at)

    def _fold_oldest(self, goal: int) -> None:
        """The oldest units fold, and what was called long ago is told in short.

        Both only as far as old results would have to lose too much instead.
        """
        need = self.total - goal
        blocks = self._results.tokens
        for unit, age in enumerate(self._ages):
            if need <= _LEFT_TO_RESULTS * blocks or age <= _RECENT:
                break
            if self._may_fold(unit):
                need -= self._fold(unit, _Says.AT_LENGTH)
        self._keep_turns_alternating()
        for unit in sorted(self._says):
            if need <= _MOST_LEFT_TO_RESULTS * blocks or self._ages[unit] <= _LONG_AGO:
                break
            need -= self._say(unit, _Says.IN_SHORT)

    def _leave_out_blocks(self, goal: int) -> None:
        for _ in range(_ROUNDS):
            over = self.total - goal
            changed = self._results.leave_out(over) if over > 0 else set()
            if not changed:
                return
            self._forget(changed)

    def say_less(self, says: _Says, goal: int) -> None:
        """What the notes say of the oldest units becomes less."""
        over = self.total - goal
        for unit in sorted(self._says):
            if over <= 0:
                return
            over -= self._say(unit, says)

    def _fold_all(self, goal: int) -> None:
        over = self.total - goal
        for unit in range(len(self._units)):
            if over <= 0:
                break
            stays = self._stay.messages.intersection(range(*self._units[unit]))
            if self._started in range(*self._units[unit]) and not stays and self._bare_calls():
                before = self.total
                self._give_back_thinking()
                over += self.total - before
            if self._may_fold(unit):
                over -= self._fold(unit, _Says.IN_SHORT)
        self._keep_turns_alternating()

    def _remove_results(self, goal: int) -> None:
        """Nothing is left of old results but that they were there, the oldest first."""
        over = self.total - goal
        for at, index in self._old_parts():
            if over <= 0:
                return
            changed = self._texts_of(at)
            part = self._messages[at].parts[index]
            if len(changed.get(index, part.text) or "") >= _WORTH_A_BRIEF_STUB:
                before = self._weight(at)
                self._shortened.setdefault(at, {})[index] = texts.brief_stub(part)
                self._weights.pop(at, None)
                over -= before - self._weight(at)

    def _old_parts(self) -> list[tuple[int, int]]:
        return [
            (at, index)
            for at, message in enumerate(self._messages)
            for index, part in enumerate(message.parts)
            if part.kind in (Kind.RESULT, Kind.ENVIRONMENT)
            and at not in self._folded
            and self._may_shorten(at, index)
        ]

    def _may_fold(self, unit: int) -> bool:
        indices = set(range(*self._units[unit]))
        if self._started in indices and self._bare_calls():
            return False
        return not indices & self._stay.messages and not indices & self._folded

    def _bare_calls(self) -> list[int]:
        """The messages whose calls stand without the thinking that was beside them."""
        return [
            at
            for at, changed in self._shortened.items()
            if None in changed.values()
            and at not in self._folded
            and any(part.kind is Kind.CALL for part in self._messages[at].parts)
        ]

    def _give_back_thinking(self) -> None:
        """The calls of a turn have their thinking again, so that what ended it may fold."""
        for at in self._bare_calls():
            held = self._shortened[at].items()
            self._shortened[at] = {index: text for index, text in held if text is not None}
            self._weights.pop(at, None)

    def _fold(self, unit: int, says: _Says) -> float:
        """Fold a unit and return the tokens that it frees."""
        indices = range(*self._units[unit])
        standing = sum(map(self._weight, indices))
        self._folded |= set(indices)
        self._says[unit] = says
        self._note_weights.pop(unit, None)
        return standing - self._note_weight(unit)

    def _say(self, unit: int, says: _Says) -> float:
        """Say less of a folded unit and return the tokens that it frees."""
        if self._says[unit] >= says:
            return 0
        before = self._note_weight(unit)
        self._says[unit] = says
        self._note_weights.pop(unit, None)
        return before - self._note_weight(unit)

    # What comes out.

    def edits(self) -> tuple[FrozenEdit, ...]:
        """The plan as edits, in the order of the conversation."""
        found = [
            FrozenEdit(at, index, self._messages[at].parts[index].digest, text)
            for at in range(len(self._messages))
            if at not in self._folded
            for index, text in self._texts_of(at).items()
        ]
        for run in self._runs():
            text = self._run_text(run)
            for at in range(*run):
                held = text if at == run.start else None
                found.append(FrozenEdit(at, WHOLE, self._messages[at].digest, held))
        return tuple(sorted(found, key=lambda edit: (edit.message, edit.part)))

    def _texts_of(self, at: int) -> dict[int, str | None]:
        """The texts that stand in the place of parts of a message; None where one is removed."""
        changed: dict[int, str | None] = {}
        for index, part in enumerate(self._messages[at].parts):
            one = self._results.at.get((at, index))
            if one is not None and self._results.is_shortened(one):
                text = self._results.stub(one)
                if len(text) < len(part.text) or part.images:
                    changed[index] = text
            elif (at, index) in self._unshown:
                changed[index] = self._media.line((at, index))
        return changed | self._shortened.get(at, {})

    def _note(self, unit: int, *, quote: bool = True) -> str:
        """What a note says of a unit; without quotations, to weigh the rest of it."""
        span, says = self._units[unit], self._says[unit]
        messages = [(at, self._messages[at]) for at in range(*span) if at in self._folded]
        if says is _Says.TYPED:
            return texts.typed_note(message for _, message in messages)
        if says is _Says.CLIPPED:
            return texts.clipped_note(message for _, message in messages)

        def result(at: int, index: int) -> str | None:
            one = self._results.at.get((at, index))
            if one is None:
                return None
            return self._results.quoted(one) if quote else ""

        saying = texts.AT_LENGTH if says is _Says.AT_LENGTH else texts.IN_SHORT
        return texts.note(messages, saying, _Later(self._last_said, span.end), result)

    def _runs(self) -> list[Span]:
        """The folded messages as unbroken runs."""
        marks = sorted(self._folded)
        if not marks:
            return []
        breaks = [(a, b) for a, b in pairwise(marks) if b != a + 1]
        starts = [marks[0], *(b for _, b in breaks)]
        ends = [*(a for a, _ in breaks), marks[-1]]
        return [Span(start, end + 1) for start, end in zip(starts, ends, strict=True)]

    def _run_text(self, run: Span) -> str:
        notes = [
            self._note(unit)
            for unit in sorted(self._says)
            if self._units[unit].start < run.end and self._units[unit].end > run.start
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
        for unit in {self._unit_of[at] for at in back}:
            self._note_weights.pop(unit, None)
            if self._folded.isdisjoint(range(*self._units[unit])):
                del self._says[unit]

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
