"""A step within the window is taken where it pays or the cache is cold; one at its end always."""

from __future__ import annotations

import pytest
from tests.conversations import Talk, long_talk
from tests.way import SEED, Way, by, window

from mitmcontext import pipeline
from mitmcontext.condense.cost import Cache
from mitmcontext.models.prices import prices_of
from mitmcontext.pipeline import Market, Step
from mitmcontext.values import Level

SONNET = prices_of("claude-sonnet-4-6")
NOBODYS = prices_of("nobody-knows")


def planned(
    talk: Talk, budget: int, limit: int, market: Market | None
) -> tuple[pipeline.Assessment, Step | str]:
    way = Way()
    laid = way.lay(talk.api, talk.request())
    found = pipeline.assess(laid, window(limit), way.thresholds, way.known, by(1.0), budget)
    return found, pipeline.plan_step(laid, found, way.thresholds, way.known, SEED, market)


def test_a_budget_is_the_room_and_never_an_overflow() -> None:
    found, step = planned(long_talk(12), budget=6_000, limit=1_000_000, market=None)
    assert (found.room, found.limit, found.level) == (6_000, 1_000_000, Level.CRITICAL)
    assert isinstance(step, Step)
    assert step.entry.after < 0.85 * 6_000
    found, _ = planned(long_talk(12), budget=9_000_000, limit=100_000, market=None)
    assert (found.room, found.limit) == (100_000, 100_000)


@pytest.mark.parametrize(
    ("turns", "limit", "market", "taken"),
    [
        pytest.param(12, 10**6, Market(SONNET, True, Cache.WARM, True), False, id="too dear"),
        pytest.param(12, 10**6, Market(SONNET, True, Cache.COLD, True), True, id="cold anyway"),
        pytest.param(12, 10**6, Market(SONNET, True, Cache.NONE, True), True, id="no cache"),
        pytest.param(90, 10**6, Market(SONNET, True, Cache.WARM, True), True, id="it pays"),
        pytest.param(12, 10**6, Market(SONNET, True, Cache.WARM), True, id="need not pay"),
        pytest.param(12, 10**6, Market(NOBODYS, False, Cache.WARM, True), False, id="who knows"),
        pytest.param(12, 10**6, Market(NOBODYS, False, Cache.COLD, True), True, id="cold, unknown"),
        pytest.param(12, 15_500, Market(SONNET, True, Cache.WARM, True), True, id="forced"),
        pytest.param(12, 15_500, Market(NOBODYS, False, Cache.WARM, True), True, id="forced too"),
    ],
)
def test_what_decides_about_a_step(turns: int, limit: int, market: Market, taken: bool) -> None:
    talk = long_talk(turns)
    way = Way()
    size = way.tokens(talk.api, talk.request())
    budget = int(size / 0.95)
    found, step = planned(talk, budget, limit, market)
    assert found.level is Level.CRITICAL
    assert isinstance(step, Step) is taken
    if isinstance(step, Step):
        assert 0 < step.shared < step.entry.after
        assert (step.forecast is not None) is market.known
    else:
        assert step.startswith("within the window")
