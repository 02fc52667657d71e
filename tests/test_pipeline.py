"""Which of two steps holds, when one is due, and what is left alone."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from tests.conversations import (
    Talk,
    anthropic_talks,
    fullness,
    laws,
    long_talk,
    markers,
    memory_of,
    talks,
    words,
)
from tests.way import SEED, Way, by, parsed, window

from mitmcontext import pipeline
from mitmcontext.condense.entries import Found
from mitmcontext.condense.ledger import Ledger
from mitmcontext.condense.texts import OPENING
from mitmcontext.known import Known
from mitmcontext.models.windows import Window
from mitmcontext.rewrite import rewritten
from mitmcontext.stores.memory import MemoryStore, lru
from mitmcontext.stores.memory_store import Memory, cells
from mitmcontext.tokens.families import family_of
from mitmcontext.values import Kind, Level
from mitmcontext.wire.anthropic import MESSAGES

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
