"""What to ask a model, and what its answers make: the oldest stretch that may fold, as a summary.

The stretch is as long as it takes to come down to the target. Where something that must stay parts
it, the largest part is taken, and smart_truncation does the rest. A long stretch is asked about in
pieces side by side, each of so many messages, and the answers are joined; behind a warm cache it is
asked about whole. A summary that stands before it is brought up to date (progressive), or left as
it is until such notes take too much of the target.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, NamedTuple

from mitmcontext.condense.conversation import (
    Conversation,
    Room,
    said,
    stubs_of,
    with_texts,
)
from mitmcontext.condense.summaries import note, prompts
from mitmcontext.condense.summaries.fold import Summary, folds, standing
from mitmcontext.condense.summaries.gate import Accepted, Rejection, judged_names, judged_text
from mitmcontext.condense.summaries.identifiers import recurring
from mitmcontext.condense.summaries.prompts import Question
from mitmcontext.condense.summaries.selection import PROGRESSIVE
from mitmcontext.condense.summaries.transcript import announced, transcript
from mitmcontext.condense.units import Kept, kept
from mitmcontext.values import Kind, Message, Span

# A summary may have this share of what it replaces, within bounds (the specification's original
# has 600 to 1,000 tokens for some 4,000). On recorded dialogues 0.25 kept more of the answers to
# questions than smart_truncation at the same size, where 0.15 kept as much.
_SHARE: Final = 0.25
_SMALLEST: Final = 250
_LARGEST: Final = 2_000
_OF_TARGET: Final = 0.25
_OF_A_PIECE: Final = 150
# Less than this is not worth a question.
_WORTH: Final = 800
# When summaries that stand take more of the target than this, they are brought up to date.
_NOTES: Final = 0.4
_MOST_PIECES: Final = 12
_CHARACTERS: Final = 3
_BOUNDARY: Final = 160


class Wanted(NamedTuple):
    """What the user asked for.

    `messages` go into one question, fewer than `least` are not worth one; `threshold` is what the
    gate asks for; `tokens` is what a question may hold.
    """

    strategy: str
    messages: int
    least: int
    threshold: float
    tokens: int


@dataclass(frozen=True, slots=True)
class Stretch:
    """Messages that one note is to stand for, `end` exclusive.

    `earlier` is what a summary says of those before `fresh`; `size` are the tokens for the text.
    """

    first: int
    end: int
    fresh: int
    earlier: str
    size: int


@dataclass(frozen=True, slots=True)
class SummaryPlan:
    """What to ask, and of what.

    Attributes:
        conversation: that is to be condensed.
        wanted: by the user.
        stretch: what the answers are to stand for.
        pieces: the questions on its transcript, to be asked side by side.
        whole: one question in place of all pieces, to be asked behind the conversation itself.
    """

    conversation: Conversation
    wanted: Wanted
    stretch: Stretch
    pieces: tuple[Question, ...]
    whole: Question

    def tokens(self, question: Question) -> int:
        """The estimated tokens of a question on a transcript."""
        return self.conversation.weigh(said(f"{question.system}\n{question.prompt}"), None)

    def then(self, answers: Sequence[str]) -> Question | None:
        """What else to ask once the pieces are answered: to bring all into one."""
        stretch = self.stretch
        if not stretch.earlier or len(answers) < 2:
            return None
        told = announced([(f"part {n}", text) for n, text in enumerate(answers, 1)])
        return prompts.joining(self.wanted.strategy, stretch.earlier, told, stretch.size)

    def finish(self, answers: Sequence[str]) -> Summary | Rejection:
        """The summary, if the answers to its questions pass the gate."""
        for answer in answers:
            if (fault := judged_text(answer)) is not None:
                return fault
        stretch, conversation = self.stretch, self.conversation
        text = "\n".join(note.lines_of("\n\n".join(answer.strip() for answer in answers)))
        stood = conversation.messages[stretch.first : stretch.end]
        pinned = note.pinned(stood)
        names = recurring(stood, conversation.messages[stretch.end :], len(text))
        passed = judged_names(
            text, [name for name in names if name not in pinned], self.wanted.threshold
        )
        written = note.written(stood, text, passed.index if isinstance(passed, Accepted) else ())
        weight = conversation.weigh(said(written), None)
        if weight >= sum(_standing_weights(conversation)[stretch.first : stretch.end]):
            return Rejection.LONGER
        if conversation.weigh(said(text), None) > stretch.size * prompts.SLACK:
            return Rejection.TOO_LONG
        if isinstance(passed, Rejection):
            return passed
        return Summary(stretch.first, stretch.end, written)


def plan(
    conversation: Conversation, room: Room, wanted: Wanted, ahead: int = 0
) -> SummaryPlan | str:
    """What to ask a model so that the conversation comes down to the target; or why nothing is.

    Args:
        conversation: as it is now.
        room: what to come down to.
        wanted: by the user.
        ahead: tokens that will have come by the time that the answers are used.
    """
    stretch = _chosen(conversation, room, wanted, ahead)
    if stretch is None:
        return "there is no stretch that is long enough to be summarised"
    return SummaryPlan(
        conversation=conversation,
        wanted=wanted,
        stretch=stretch,
        pieces=_pieces(conversation, stretch, wanted),
        whole=_whole(conversation, stretch, wanted),
    )


def _chosen(conversation: Conversation, room: Room, wanted: Wanted, ahead: int) -> Stretch | None:
    """The largest run of units that may fold, as far as it takes to meet the target."""
    messages, stay = conversation.messages, kept(conversation.messages)
    weights = _standing_weights(conversation)
    too_much = conversation.fixed + sum(weights) + ahead - room.target
    earlier = standing(conversation.frozen)
    notes = sum(conversation.weigh(said(one.text), None) for one in earlier)
    updates = wanted.strategy == PROGRESSIVE or notes > _NOTES * room.target
    blocked = {at for one in earlier if not updates for at in range(one.first, one.end)}
    runs: list[Span] = []
    freed: list[int] = []
    for unit in stay.units:
        if not _may_fold(unit, stay, blocked):
            continue
        told = _is_within(unit, earlier)
        if runs and freed[-1] >= too_much and not told:
            break
        follows = bool(runs) and runs[-1].end == unit.start
        stands = conversation.weigh(said(note.pinned(messages[slice(*unit)])), None)
        gain = max(0, int(sum(weights[slice(*unit)]) * (1 - _SHARE)) - stands)
        # What is brought up to date stays about as long as it was.
        gain = 0 if told else gain
        if follows:
            runs[-1], freed[-1] = Span(runs[-1].start, unit.end), freed[-1] + gain
        else:
            runs.append(unit)
            freed.append(gain)
    if not runs:
        return None
    run = runs[freed.index(max(freed))]
    found = _stretch(conversation, _between_turns(messages, run), weights, room)
    fresh = found.end - max(found.first, found.fresh)
    worth = sum(weights[found.first : found.end]) >= _WORTH
    return found if fresh >= wanted.least and worth else None


def _may_fold(unit: Span, stay: Kept, blocked: set[int]) -> bool:
    indices = set(range(*unit))
    return not indices & stay.messages and not indices & blocked


def _is_within(unit: Span, earlier: Sequence[Summary]) -> bool:
    return any(one.first < unit.end and unit.start < one.end for one in earlier)


def _stretch(conversation: Conversation, run: Span, weights: Sequence[int], room: Room) -> Stretch:
    """A run as a stretch; what an earlier summary in it says is not asked about again."""
    inside = [one for one in standing(conversation.frozen) if run.start <= one.first < run.end]
    fresh = run.start
    told: list[str] = []
    for one in inside:
        if one.first == fresh or not told:
            told.append(note.summary_in(one.text))
            fresh = one.end
    stands = conversation.weigh(said(note.pinned(conversation.messages[slice(*run)])), None)
    size = int(_SHARE * max(0, sum(weights[slice(*run)]) - stands))
    size = min(max(_SMALLEST, size), _LARGEST, int(_OF_TARGET * room.target))
    if told and inside[0].first != run.start:
        # It would have to be told after what comes before it: then everything is told anew.
        return Stretch(run.start, run.end, run.start, "", size)
    return Stretch(run.start, run.end, fresh, "\n\n".join(told), size)


def _between_turns(messages: Sequence[Message], run: Span) -> Span:
    """The run without a model's plain message at either end that parts user from user.

    A note is a user's message, and some servers insist on user and assistant taking turns.
    """
    start, end = run
    if _is_plain(messages[start]) and _next_role(messages, start, -1) == "user":
        start += 1
    if end > start and _is_plain(messages[end - 1]) and _next_role(messages, end - 1, 1) == "user":
        end -= 1
    return Span(start, end)


def _is_plain(message: Message) -> bool:
    calls = any(part.kind == Kind.CALL for part in message.parts)
    return message.role == "assistant" and not calls and not message.item


def _next_role(messages: Sequence[Message], at: int, step: int) -> str:
    at += step
    while 0 <= at < len(messages):
        if messages[at].role not in ("system", "developer"):
            return messages[at].role
        at += step
    return ""


def _pieces(conversation: Conversation, stretch: Stretch, wanted: Wanted) -> tuple[Question, ...]:
    spans = _cut(conversation, stretch, wanted)
    sizes = _sizes(stretch.size, len(spans), wanted.strategy)
    alone = len(spans) == 1
    return tuple(
        prompts.about(
            wanted.strategy,
            transcript(
                conversation.messages[slice(*span)], span.start, wanted.tokens * _CHARACTERS
            ),
            size,
            stretch.earlier if alone else "",
        )
        for span, size in zip(spans, sizes, strict=True)
    )


def _cut(conversation: Conversation, stretch: Stretch, wanted: Wanted) -> list[Span]:
    """The stretch in pieces of so many messages and tokens, no unit being cut through."""
    most = max(wanted.messages, -(-(stretch.end - stretch.fresh) // _MOST_PIECES))
    units = kept(conversation.messages).units
    starts = [unit.start for unit in units if stretch.fresh < unit.start < stretch.end]
    bounds = [stretch.fresh]
    for start, following in pairwise([*starts, stretch.end]):
        tokens = sum(conversation.tokens[bounds[-1] : following])
        if following - bounds[-1] > most or tokens > wanted.tokens:
            bounds.append(start)
    return [Span(a, b) for a, b in pairwise([*bounds, stretch.end])]


def _sizes(size: int, count: int, strategy: str) -> list[int]:
    """How many tokens the text of each piece may have; progressive ones grow towards the newest."""
    shares = [1.0 + (at / count if strategy == PROGRESSIVE else 0.0) for at in range(count)]
    return [max(_OF_A_PIECE, int(size * share / sum(shares))) for share in shares]


def _whole(conversation: Conversation, stretch: Stretch, wanted: Wanted) -> Question:
    messages = conversation.messages[stretch.first : stretch.end]
    spoken = [one for one in messages if one.role == "assistant"] or list(messages)
    texts = (part.text for one in reversed(spoken) for part in one.parts)
    words = next((" ".join(text.split()) for text in texts if text.strip()), "")
    boundary = f"> {words[:_BOUNDARY]}"
    updates = bool(stretch.earlier)
    return prompts.behind(wanted.strategy, boundary, stretch.size, updates=updates)


def _standing_weights(conversation: Conversation) -> list[int]:
    """The tokens of each message as it is forwarded now; a note's are its first message's."""
    weights = list(conversation.tokens)
    for at, changed in stubs_of(conversation.frozen).items():
        weights[at] = conversation.weigh(with_texts(conversation.messages[at], changed), at)
    for run in folds(conversation.frozen):
        weights[run.first : run.end] = [0] * (run.end - run.first)
        weights[run.first] = conversation.weigh(said(run.text), None)
    return weights
