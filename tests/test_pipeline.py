"""The laws of the way: what a rewritten history keeps, and when a forwarded one may change."""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from tests.conversations import (
    SEED,
    Sent,
    Talk,
    Way,
    anthropic_talks,
    by,
    laws,
    long_talk,
    markers,
    memory_of,
    talks,
    window,
    words,
)

from loopback.prefix import extends, fingerprints, first_difference
from loopback.rules_anthropic import count_markers
from mitmcontext import pipeline
from mitmcontext.condense.assess import may_not_fit
from mitmcontext.condense.entries import Found
from mitmcontext.condense.invariants import broken
from mitmcontext.condense.ledger import Ledger
from mitmcontext.condense.texts import OPENING
from mitmcontext.condense.units import last_typed
from mitmcontext.known import Known
from mitmcontext.models.windows import Window
from mitmcontext.pipeline import Step
from mitmcontext.rewrite import rewritten
from mitmcontext.stores.memory import MemoryStore, lru
from mitmcontext.stores.memory_store import Memory, cells
from mitmcontext.tokens.families import family_of
from mitmcontext.values import Kind, Level, Message
from mitmcontext.wire.anthropic import MESSAGES
from mitmcontext.wire.api import Api

fullness = st.integers(80, 140)


def parsed(api: Api, body: bytes) -> list[Message]:
    request = api.read(body)
    return [api.parse(request.raw(at)) for at in range(len(request.spans))]


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


# Two at once.


@given(talks, markers, markers, fullness, st.data())
@laws
def test_of_two_steps_at_once_one_wins_and_both_use_it(
    talk: Talk, marks: list[int], others: list[int], full: int, data: st.DataObject
) -> None:
    way = Way()
    cuts = talk.cuts[-3:]
    bodies = [
        talk.request(data.draw(st.sampled_from(cuts)), marks),
        talk.request(data.draw(st.sampled_from(cuts)), others),
    ]
    room = max(1, way.tokens(talk.api, bodies[0]) * 100 // full)
    laid = [way.lay(talk.api, body) for body in bodies]
    plans = [way.plan(one, room)[1] for one in laid]
    first, second = plans
    assume(not isinstance(first, str))
    assume(not isinstance(second, str))
    assert not isinstance(first, str)
    assert not isinstance(second, str)
    won = way.ledger.freeze(laid[0].sent.links, first.entry, laid[0].found)
    lost = way.ledger.freeze(laid[1].sent.links, second.entry, laid[1].found)
    assert won.entry == first.entry
    if won.at < len(laid[1].sent.links) - 1:
        assert lost == won, "the second one sees what the first one left"
    again = [way.lay(talk.api, body) for body in bodies]
    assert again[0].forwarded.request.body == first.forwarded.request.body or lost != won
    assert again[1].found == lost
    assert talk.refusal(again[1].forwarded.request.body, memory_of(talk)) is None


def test_many_threads_freeze_one_step() -> None:
    """All of them plan on the same ledger, from requests of different lengths."""
    talk = long_talk(turns=30)
    way = Way()
    cuts = talk.cuts[-3:] * 2
    laid = [way.lay(talk.api, talk.request(cut)) for cut in cuts]
    room = way.tokens(talk.api, talk.request(cuts[0])) * 100 // 95
    plans = [way.plan(one, room)[1] for one in laid]
    for _ in range(40):
        ledger = Way().ledger
        start = threading.Barrier(len(laid))
        used: list[Found] = []

        def freeze(at: int) -> None:
            plan = plans[at]
            assert not isinstance(plan, str)
            start.wait()  # noqa: B023 - the threads end before the next round
            used.append(ledger.freeze(laid[at].sent.links, plan.entry, None))  # noqa: B023

        threads = [threading.Thread(target=freeze, args=(at,)) for at in range(len(laid))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(used) == len(laid)
        assert all(one == used[0] for one in used)


# Cases.


@pytest.mark.parametrize("thinks", [False, True])
def test_one_prompt_followed_by_many_calls_can_be_condensed(thinks: bool) -> None:
    way = Way()
    talk = long_talk(thinks=thinks)
    body = talk.request()
    sent = way.send(talk.api, body, way.tokens(talk.api, body) * 100 // 90)
    assert sent.step is not None
    assert sent.step.entry.after <= 0.55 * sent.assessment.room
    after = parsed(talk.api, sent.forwarded)
    results = [part for m in after for part in m.parts if part.kind is Kind.RESULT]
    assert [OPENING in part.text for part in results[-3:]] == [False] * 3
    assert OPENING in results[0].text
    assert talk.refusal(sent.forwarded, memory_of(talk)) is None


@pytest.mark.parametrize("full", [10, 70, 79])
def test_below_warning_no_step_is_due(full: int) -> None:
    way = Way()
    talk = long_talk()
    body = talk.request()
    sent = way.send(talk.api, body, way.tokens(talk.api, body) * 100 // full + 1)
    assert (sent.step, sent.reason) == (None, "")


def test_a_history_that_is_broken_as_it_came_is_left_alone() -> None:
    way = Way()
    talk = long_talk()
    del talk.messages[2]
    sent = way.send(talk.api, talk.request(), 100)
    assert sent.step is None
    assert "do not match" in sent.reason
    assert sent.forwarded == sent.body


def test_a_history_of_nothing_but_what_must_stay_is_left_alone() -> None:
    way = Way()
    talk = Talk(MESSAGES, "claude-opus-4-5", head={"max_tokens": 1000})
    talk.messages = [{"role": "user", "content": words(1, 40_000)}]
    talk.cuts = [1]
    sent = way.send(talk.api, talk.request(), 2_000)
    assert sent.step is None
    assert "must stay" in sent.reason


def test_a_step_that_frees_too_little_is_not_taken() -> None:
    way = Way()
    talk = long_talk(turns=5, size=1_700)
    talk.messages[0]["content"] = words(7, 60_000)
    body = talk.request()
    sent = way.send(talk.api, body, way.tokens(talk.api, body) * 100 // 95)
    assert sent.step is None
    assert sent.reason
    assert sent.forwarded == body


def test_what_earlier_answers_taught_is_taken_into_account() -> None:
    way = Way()
    talk = long_talk()
    laid = way.lay(talk.api, talk.request())
    room = way.tokens(talk.api, talk.request()) * 2
    plain = pipeline.assess(laid, window(room), way.thresholds, way.known, by(1.0))
    taught = pipeline.assess(laid, window(room), way.thresholds, way.known, by(1.85))
    assert (plain.level, taught.level) == (Level.SAFE, Level.CRITICAL)
    assert taught.sent == pytest.approx(plain.sent * 1.85, rel=0.001)
    step = pipeline.plan_step(laid, taught, way.thresholds, way.known, SEED)
    assert not isinstance(step, str)
    assert step.entry.after <= 0.55 * room


@given(talks)
@laws
def test_what_size_alone_proves_safe_is_safe(talk: Talk) -> None:
    """With a tokenizer that makes a token of each byte, and a family that adds nothing to it."""
    known = Known(MemoryStore(lru(64 << 20)), lambda _: lambda text: len(text.encode()))
    way = Way()
    way.known = known
    laid = way.lay(talk.api, talk.request())
    tight = Window((len(talk.request()) + 2_000) * 10 // 7 + 20, None, None, True, "test")
    assume(pipeline.is_surely_safe(laid, tight, way.thresholds))
    factor = 1 / max(1.0, *(laid.sent.family.weights[of] for of in ("text", "tool_text")))
    assessment = pipeline.assess(laid, tight, way.thresholds, known, by(factor))
    assert assessment.level is Level.SAFE


@pytest.mark.parametrize(
    "content",
    [
        [{"type": "image", "source": {"type": "url", "url": "u"}}],
        [{"type": "document", "source": {"type": "file", "file_id": "f"}}],
    ],
)
def test_media_is_never_surely_safe(content: Any) -> None:
    way = Way()
    talk = Talk(MESSAGES, "claude-opus-4-5", [{"role": "user", "content": content}], [1])
    laid = way.lay(talk.api, talk.request())
    assert not pipeline.is_surely_safe(laid, window(10**9), way.thresholds)


def test_what_is_frozen_is_never_surely_safe() -> None:
    way = Way()
    talk = long_talk()
    body = talk.request()
    way.send(talk.api, body, way.tokens(talk.api, body) * 100 // 90)
    laid = way.lay(talk.api, body)
    assert laid.found is not None
    assert not pipeline.is_surely_safe(laid, window(10**9), way.thresholds)


@given(anthropic_talks(), markers, fullness)
@laws
def test_what_was_recalled_is_what_would_have_been_counted(
    talk: Talk, marks: list[int], full: int
) -> None:
    """Counts kept by a message's bytes give the same figures as counting afresh."""
    way = Way()
    for cut in talk.cuts:
        way.tokens(talk.api, talk.request(cut, marks))
    assert way.tokens(talk.api, talk.request()) == Way().tokens(talk.api, talk.request())


def test_two_tenants_share_nothing() -> None:
    way = Way()
    talk = long_talk()
    body = talk.request()
    way.send(talk.api, body, way.tokens(talk.api, body) * 100 // 90)
    request = talk.api.read(body)
    other = pipeline.read(talk.api, family_of(request.model), request, b"\1" * 32, way.known)
    assert pipeline.lay(other, way.ledger, b"\1" * 32, way.known).found is None


def test_a_step_is_the_same_on_every_machine() -> None:
    """Plans depend on nothing but the request: no clock, no order of sets, no chance."""
    talk = long_talk()
    body = talk.request()
    bodies = {Way().send(talk.api, body, 9_000).forwarded for _ in range(3)}
    assert len(bodies) == 1
    entries = Way().plan(Way().lay(talk.api, body), 9_000)[1]
    assert not isinstance(entries, str)
    assert rewritten(talk.api, talk.api.read(body), entries.entry.edits) in bodies


def test_a_ledger_that_was_cleared_leaves_requests_as_they_came() -> None:
    way = Way()
    talk = long_talk()
    body = talk.request()
    way.send(talk.api, body, way.tokens(talk.api, body) * 100 // 90)
    way.ledger = Ledger(Memory(cells(1 << 20)))
    assert way.lay(talk.api, body).forwarded.request.body is body
