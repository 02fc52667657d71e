"""From a request to a question, and from any answer to a request that the provider takes."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.conversations import Talk, laws, long_talk, memory_of, talks
from tests.way import SEED, Way, by, window

from mitmcontext import pipeline
from mitmcontext.condense.assess import Thresholds
from mitmcontext.condense.cost import Cache
from mitmcontext.condense.summaries import note
from mitmcontext.condense.summaries.fold import Summary
from mitmcontext.condense.summaries.plan import SummaryPlan, Wanted
from mitmcontext.models.prices import prices_of
from mitmcontext.pipeline import Assessment, Laid, Market, Step
from mitmcontext.summarising import AUTO, summary_plan, way_to_ask

PRICES = prices_of("claude-sonnet-4-5")
MARKET = Market(PRICES, known=True, cache=Cache.WARM)
ROOMY = Thresholds(0.2, 0.3, 0.95, 0.25)


def wanted(strategy: str = AUTO) -> Wanted:
    return Wanted(strategy, 1_000, 3, 0.8, 100_000)


def planned(
    way: Way, laid: Laid, assessment: Assessment, within: int | None = None, strategy: str = AUTO
) -> SummaryPlan | str:
    return summary_plan(
        laid, assessment, way.thresholds, way.known, wanted(strategy), MARKET, within
    )


def told(found: SummaryPlan | str, text: str) -> Sequence[Summary]:
    """What an answer would make, whatever the gate thinks of it."""
    if isinstance(found, str):
        return ()
    first, end = found.stretch.first, found.stretch.end
    return [Summary(first, end, note.written(found.conversation.messages[first:end], text))]


def assessed(way: Way, talk: Talk, room: int) -> tuple[Laid, Assessment]:
    laid = way.lay(talk.api, talk.request())
    return laid, pipeline.assess(laid, window(room), way.thresholds, way.known, by(1.0))


@laws
@given(talks, st.text(max_size=600), st.integers(40, 100), st.data())
def test_whatever_a_model_says_the_provider_takes_what_is_made_of_it(
    talk: Talk, text: str, share: int, data: st.DataObject
) -> None:
    way = Way(ROOMY)
    room = max(1, way.tokens(talk.api, talk.request()) * share // 100)
    memory = memory_of(talk)
    cuts = data.draw(st.lists(st.sampled_from(talk.cuts), min_size=1, max_size=4, unique=True))
    for cut in sorted(cuts):
        laid = way.lay(talk.api, talk.request(cut))
        assessment = pipeline.assess(laid, window(room), way.thresholds, way.known, by(1.0))
        summaries = told(planned(way, laid, assessment), text)
        step = pipeline.plan_step(
            laid, assessment, way.thresholds, way.known, SEED, summaries=summaries
        )
        made = laid.forwarded.request.body
        if isinstance(step, Step):
            made = step.forwarded.request.body
            way.ledger.freeze(laid.sent.links, step.entry, laid.found)
            again = way.lay(talk.api, talk.request(cut)).forwarded.request.body
            assert again == made
        assert talk.refusal(made, memory) is None


def test_a_step_says_whether_summaries_are_part_of_it() -> None:
    talk = long_talk(turns=30)
    way = Way()
    room = int(way.tokens(talk.api, talk.request()) / 0.85)
    laid, assessment = assessed(way, talk, room)
    summaries = told(planned(way, laid, assessment), "They read files. " * 5)
    assert summaries
    step = pipeline.plan_step(
        laid, assessment, way.thresholds, way.known, SEED, summaries=summaries
    )
    assert isinstance(step, Step)
    assert step.summarised
    assert b"| They read files." in step.forwarded.request.body
    assert step.entry.after <= 0.52 * room


def test_what_does_not_hold_is_done_without_the_summary() -> None:
    talk = long_talk(turns=30)
    way = Way()
    room = int(way.tokens(talk.api, talk.request()) / 0.85)
    laid, assessment = assessed(way, talk, room)
    newest = [Summary(1, len(talk.messages), note.written([], "It folds the newest exchange."))]
    step = pipeline.plan_step(laid, assessment, way.thresholds, way.known, SEED, summaries=newest)
    assert isinstance(step, Step)
    assert not step.summarised
    assert b"It folds" not in step.forwarded.request.body


def test_what_would_not_fit_is_done_without_the_summary() -> None:
    talk = long_talk(turns=30)
    way = Way()
    room = way.tokens(talk.api, talk.request()) // 2
    laid, assessment = assessed(way, talk, room)
    found = planned(way, laid, assessment, strategy="conversation_summary")
    summaries = told(found, "word " * room * 4)
    assert summaries
    step = pipeline.plan_step(
        laid, assessment, way.thresholds, way.known, SEED, summaries=summaries
    )
    assert isinstance(step, Step)
    assert not step.summarised
    assert step.entry.after <= room


@pytest.mark.parametrize(
    ("share", "within", "due"),
    [
        pytest.param(0.72, 3, True, id="warning is two turns away"),
        pytest.param(0.5, 3, False, id="it is far away"),
        pytest.param(0.5, None, True, id="it is reached"),
    ],
)
def test_it_is_asked_ahead_only_where_warning_is_near(
    share: float, within: int | None, due: bool
) -> None:
    talk = long_talk(turns=20)
    way = Way()
    room = int(way.tokens(talk.api, talk.request()) / share)
    laid, assessment = assessed(way, talk, room)
    found = planned(way, laid, assessment, within, "conversation_summary")
    # With all the room that it wants there is nothing to summarise, but that is found out later.
    assert (found != "") is due


def test_the_cheaper_form_is_taken() -> None:
    talk = long_talk(turns=40)
    way = Way()
    room = int(way.tokens(talk.api, talk.request()) / 0.85)
    laid, assessment = assessed(way, talk, room)
    found = planned(way, laid, assessment)
    assert isinstance(found, SummaryPlan)
    warm = way_to_ask(found, laid, assessment, PRICES, model="", cached=True)
    assert warm.behind is not None
    cold = way_to_ask(found, laid, assessment, PRICES, model="", cached=False)
    assert cold.behind is None
    assert warm.price < cold.price
    other = way_to_ask(found, laid, assessment, PRICES, model="cheaper", cached=True)
    assert other.behind is None


def test_where_a_step_would_not_pay_nobody_is_asked() -> None:
    talk = long_talk(turns=4)
    way = Way()
    room = int(way.tokens(talk.api, talk.request()) / 0.85)
    laid = way.lay(talk.api, talk.request())
    assessment = pipeline.assess(
        laid, window(100 * room), way.thresholds, way.known, by(1.0), budget=room
    )
    market = Market(PRICES, known=True, cache=Cache.WARM, must_pay=True)
    found = summary_plan(laid, assessment, way.thresholds, way.known, wanted(), market)
    assert found == "within the window, and a step would not pay for itself"
