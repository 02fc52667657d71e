"""The laws of the way: what a rewritten history keeps, and when a forwarded one may change."""

from __future__ import annotations

import json
from dataclasses import dataclass

from hypothesis import assume, given, settings
from hypothesis import strategies as st
from tests.conversations import Talk, fullness, laws, markers, memory_of, talks, words
from tests.way import Sent, Way, parsed

from loopback.prefix import extends, fingerprints, first_difference
from loopback.rules_anthropic import count_markers
from mitmcontext.condense.assess import may_not_fit
from mitmcontext.condense.entries import Found
from mitmcontext.condense.invariants import broken
from mitmcontext.condense.texts import OPENING
from mitmcontext.condense.units import last_typed
from mitmcontext.pipeline import Step
from mitmcontext.values import Kind
from mitmcontext.wire.api import Api


def raws(api: Api, body: bytes) -> list[bytes]:
    request = api.read(body)
    return [request.raw(at) for at in range(len(request.spans))]


@given(talks)
@laws
def test_the_histories_of_these_tests_are_valid(talk: Talk) -> None:
    memory = memory_of(talk)
    for cut in talk.cuts:
        assert talk.refusal(talk.request(cut), memory) is None


# One step.


@dataclass(frozen=True)
class Taken:
    """A step that was taken, and the way that it took."""

    talk: Talk
    others: list[int]
    way: Way
    sent: Sent
    step: Step

    @property
    def forced(self) -> bool:
        """Whether the request might not have fitted without it."""
        return may_not_fit(self.sent.assessment.forwarded, self.sent.assessment.room)


def every_invariant_is_kept(taken: Taken) -> None:
    talk, sent = taken.talk, taken.sent
    before, after = parsed(talk.api, sent.body), parsed(talk.api, sent.forwarded)
    assert broken(before, after, typed=not taken.forced) == ""


def a_strict_provider_takes_it(taken: Taken) -> None:
    sent = taken.sent
    assert taken.talk.refusal(sent.forwarded, memory_of(taken.talk)) is None
    assert count_markers(json.loads(sent.forwarded)) <= count_markers(json.loads(sent.body))


def nothing_outside_the_messages_changes(taken: Taken) -> None:
    api, sent = taken.talk.api, taken.sent
    before, after = api.read(sent.body), api.read(sent.forwarded)
    assert sent.body[: before.array.start] == sent.forwarded[: after.array.start]
    assert sent.body[before.array.end :] == sent.forwarded[after.array.end :]


def messages_that_no_edit_mentions_stay_to_the_byte(taken: Taken) -> None:
    api, sent = taken.talk.api, taken.sent
    edited = {edit.message for edit in taken.step.entry.edits}
    kept = [raw for at, raw in enumerate(raws(api, sent.body)) if at not in edited]
    rest = iter(raws(api, sent.forwarded))
    assert all(raw in rest for raw in kept), "in their order"


def what_must_stay_stays(taken: Taken) -> None:
    api, sent = taken.talk.api, taken.sent
    before, after = raws(api, sent.body), raws(api, sent.forwarded)
    messages = parsed(api, sent.body)
    newest = messages[-1].parts[-1].call_id
    first = next(at for at, message in enumerate(messages) if message.role == "user")
    assert before[-1] == after[-1]
    assert before[: first + 1] == after[: first + 1]
    typed = [p.digest for p in messages[last_typed(messages)].parts if p.kind is Kind.TYPED]
    stands = [part.digest for message in parsed(api, sent.forwarded) for part in message.parts]
    assert set(typed) <= set(stands)
    for raw, message in zip(before, messages, strict=True):
        opaque = any(part.kind is Kind.OPAQUE for part in message.parts)
        if opaque or message.role in ("system", "developer") or not message.editable:
            assert raw in after
    if newest:
        assert any(newest.encode() in raw for raw in after[:-1])


def what_people_typed_can_be_read_word_for_word(taken: Taken) -> None:
    if taken.forced:
        return
    api, sent = taken.talk.api, taken.sent
    stands = [part.text for message in parsed(api, sent.forwarded) for part in message.parts]
    for message in parsed(api, sent.body):
        for part in message.parts:
            if part.kind is Kind.TYPED:
                quoted = "\n".join(f"> {line}" for line in part.text.split("\n"))
                assert any(part.text in text or quoted in text for text in stands)


def it_frees_what_it_says(taken: Taken) -> None:
    sent, entry = taken.sent, taken.step.entry
    assert entry.before == sent.assessment.forwarded
    assert entry.after == taken.way.tokens(taken.talk.api, sent.body)
    freed = entry.before - entry.after
    room = sent.assessment.room
    saved = may_not_fit(entry.before, room) and not may_not_fit(entry.after, room)
    assert freed >= 0.15 * room or saved
    assert entry.after < entry.before
    assert (entry.step, entry.level) == (1, sent.assessment.level)


def each_change_is_told(taken: Taken) -> None:
    changes = taken.step.changes
    assert changes
    messages = parsed(taken.talk.api, taken.sent.body)
    for change in changes:
        assert change.what in ("stub", "fold", "drop")
        assert change.new
        assert 0 <= change.first <= change.last < len(messages)
        assert len(change.before) <= 4_000
        assert len(change.after) <= 4_000
        assert change.tokens_before > 0
        assert OPENING in change.after if change.what != "drop" else change.after == ""
    told = {at for c in changes for at in range(c.first, c.last + 1)}
    edited = {edit.message for edit in taken.step.entry.edits}
    assert told <= edited
    assert told == edited or len(changes) >= 50


def laying_frozen_edits_again_gives_the_same_bytes(taken: Taken) -> None:
    talk, way, sent = taken.talk, taken.way, taken.sent
    again = way.lay(talk.api, sent.body)
    assert again.forwarded.request.body == sent.forwarded
    assert again.found is not None
    assert again.found.entry == taken.step.entry
    assert again.forwarded.links == taken.step.forwarded.links
    moved = way.lay(talk.api, talk.request(marks=taken.others))
    assert moved.forwarded.links == again.forwarded.links, "whatever the markers do"
    assert extends(json.loads(sent.forwarded), json.loads(moved.forwarded.request.body))


def frozen_edits_laid_over_their_own_result_change_nothing(taken: Taken) -> None:
    """As behind a second proxy: a forwarded history is a conversation of its own."""
    again = taken.way.lay(taken.talk.api, taken.sent.forwarded)
    assert again.forwarded.request.body == taken.sent.forwarded


LAWS_OF_A_STEP = (
    every_invariant_is_kept,
    a_strict_provider_takes_it,
    nothing_outside_the_messages_changes,
    messages_that_no_edit_mentions_stay_to_the_byte,
    what_must_stay_stays,
    what_people_typed_can_be_read_word_for_word,
    it_frees_what_it_says,
    each_change_is_told,
    laying_frozen_edits_again_gives_the_same_bytes,
    frozen_edits_laid_over_their_own_result_change_nothing,
)


# Half of the examples are in want of room, and half are so full that they may not fit.
@given(talks, markers, markers, st.integers(81, 93) | fullness)
@settings(laws, max_examples=80)
def test_the_laws_of_a_step(talk: Talk, marks: list[int], others: list[int], full: int) -> None:
    """All on the same examples: making one takes longer than judging it by all of them."""
    way, body = Way(), talk.request(marks=marks)
    sent = way.send(talk.api, body, max(1, way.tokens(talk.api, body) * 100 // full))
    assume(sent.step is not None)
    assert sent.step is not None
    for law in LAWS_OF_A_STEP:
        law(Taken(talk, others, way, sent, sent.step))


# Again and again.


@given(talks, markers)
@laws
def test_below_the_threshold_nothing_is_touched(talk: Talk, marks: list[int]) -> None:
    way = Way()
    for cut in talk.cuts:
        body = talk.request(cut, marks)
        sent = way.send(talk.api, body, way.tokens(talk.api, body) * 100 // 79 + 10)
        assert sent.step is None
        assert sent.forwarded is body


@dataclass
class Seen:
    """One request as it was sent and as it was forwarded, message by message."""

    client: list[bytes]
    forwarded: list[bytes]
    found: Found | None


class Proxied:
    """Sends the requests of related conversations and holds the law of the prefix."""

    def __init__(self, talk: Talk, room: int) -> None:
        self.way = Way()
        self.room = room
        self.memory = memory_of(talk)
        self.seen: list[Seen] = []

    def send(self, talk: Talk, cut: int, marks: list[int]) -> Sent:
        body = talk.request(cut, marks)
        sent = self.way.send(talk.api, body, self.room)
        now = Seen(
            fingerprints(json.loads(body)),
            fingerprints(json.loads(sent.forwarded)),
            self.way.lay(talk.api, body).found,
        )
        begun = [s for s in self.seen if first_difference(s.client, now.client) is None]
        if begun:
            self.compare(max(begun, key=lambda seen: len(seen.client)), now)
        self.seen.insert(0, now)
        assert talk.refusal(sent.forwarded, self.memory) is None
        return sent

    @staticmethod
    def compare(before: Seen, now: Seen) -> None:
        """What was forwarded is still the beginning, or a step was taken in between."""
        if before.found == now.found:
            assert first_difference(before.forwarded, now.forwarded) is None
        else:
            assert now.found is not None
            assert now.found.entry.step > (before.found.entry.step if before.found else 0)


@given(talks, st.lists(markers, min_size=1, max_size=4), st.integers(25, 90))
@laws
def test_the_forwarded_history_grows_unless_a_step_is_taken(
    talk: Talk, marks: list[list[int]], share: int
) -> None:
    room = max(1, Way().tokens(talk.api, talk.request()) * share // 100)
    proxied = Proxied(talk, room)
    previous: Sent | None = None
    for turn, cut in enumerate(talk.cuts):
        sent = proxied.send(talk, cut, marks[turn % len(marks)])
        if previous is not None and sent.step is None:
            assert extends(json.loads(previous.forwarded), json.loads(sent.forwarded))
        previous = sent


@dataclass
class Branch:
    """A conversation and how far its client has come."""

    talk: Talk
    tip: int = 0

    @property
    def cut(self) -> int:
        return self.talk.cuts[self.tip]

    def advance(self) -> None:
        self.tip = min(self.tip + 1, len(self.talk.cuts) - 1)


def rewound(branch: Branch, back: int, number: int) -> Branch:
    """What a person does who goes back and says something else."""
    said = words(number, 600)
    answers = [
        {"role": "assistant", "content": said},
        {"role": "user", "content": f"No, {number}: {said}"},
    ]
    talk = branch.talk.fork(branch.talk.cuts[max(0, branch.tip - back)], answers)
    return Branch(talk, len(talk.cuts) - 1)


moves = st.tuples(st.integers(0, 9), st.integers(0, 3), st.integers(0, 8), markers)


@given(talks, st.integers(25, 90), st.lists(moves, min_size=5, max_size=30))
@laws
def test_forks_and_rewinds_share_what_they_share(
    talk: Talk, share: int, moves: list[tuple[int, int, int, list[int]]]
) -> None:
    room = max(1, Way().tokens(talk.api, talk.request()) * share // 100)
    proxied = Proxied(talk, room)
    branches = [Branch(talk)]
    for number, (choice, forks, back, marks) in enumerate(moves):
        branch = branches[choice % len(branches)]
        if forks == 3:
            branch = rewound(branch, back, number)
            branches.append(branch)
        else:
            branch.advance()
        proxied.send(branch.talk, branch.cut, marks)


@given(talks, markers)
@laws
def test_every_request_of_a_long_run_is_taken(talk: Talk, marks: list[int]) -> None:
    """Also in a window so small that each request overflows it."""
    proxied = Proxied(talk, 1_200)
    for cut in talk.cuts:
        proxied.send(talk, cut, marks)
