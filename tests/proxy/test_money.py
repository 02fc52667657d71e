"""What requests cost and save, by hand: the usage of a provider against the same unshortened."""

from __future__ import annotations

from typing import Any

import pytest
from cachetools import LRUCache
from msgspec.structs import replace

from mitmcontext.condense.cost import Cache
from mitmcontext.models.prices import prices_of
from mitmcontext.pipeline import Laid, Reading
from mitmcontext.proxy.job import Job, Ready, Result
from mitmcontext.proxy.money import Tab, Tabs, cache_of, prices_for, settle
from mitmcontext.settings import Settings
from mitmcontext.tokens.families import family_of
from mitmcontext.values import Action, Outcome, Standing, Usage
from mitmcontext.wire.anthropic import MESSAGES
from mitmcontext.wire.api import Api
from mitmcontext.wire.ollama import CHAT as OLLAMA

SONNET = "claude-sonnet-4-6"  # 3, reading 0.3, writing 3.75, output 15


def ready(model: str = SONNET, *, api: Api = MESSAGES, extra: str = "", **values: Any) -> Ready:
    said = '{"model":"%s","max_tokens":9,"messages":[{"role":"user","content":"Hi"}]%s}'
    request = api.read((said % (model, extra)).encode())
    family = family_of(model, api.name)
    sent = Reading(api, family, request, [], [b"1"])
    job = Job(api, "/v1/messages", b"", b"", {}, b"", at=values.pop("at", 0.0))
    found = Ready(job, Settings(), Laid(sent, sent, None), b"", "", Standing.TURN, "")
    return replace(found, prices=prices_of(model), **values)


def sent(
    estimated: int, forwarded: int, *, observed: bool = False, shared: int | None = None, **at: Any
) -> Result:
    made = ready(observed="observe mode" if observed else "", **at)
    action = Action.OBSERVED if observed else Action.REAPPLIED
    outcome = Outcome(action, "", sent=estimated, forwarded=forwarded)
    return Result(outcome, made, None, made.laid.forwarded, shared=shared)


def dollars(fresh: int, read: int, written: int, output: int = 100) -> float:
    return (fresh * 3 + read * 0.3 + written * 3.75 + output * 15) / 1e6


def usage(fresh: int, read: int, written: int, output: int = 100) -> Usage:
    return Usage(fresh + read + written, output, read, written)


def test_a_conversation_that_was_never_shortened_saves_nothing_to_the_last_digit() -> None:
    first = settle(sent(10_000, 10_000), usage(10, 0, 9_990), None)
    assert first is not None
    tab, money = first
    assert money.cost == pytest.approx(dollars(10, 0, 9_990))
    assert (money.saved, money.saved_so_far) == (0, 0)
    second = settle(sent(11_000, 11_000), usage(10, 9_990, 1_000), tab)
    assert second is not None
    tab, money = second
    assert money.saved == 0
    assert money.cost_so_far == pytest.approx(dollars(10, 0, 9_990) + dollars(10, 9_990, 1_000))


def test_a_step_costs_at_first_and_saves_on_each_turn_after() -> None:
    tab = Tab(0.0, went=29_000, other=29_000, cached=True, billed=True)
    # 30,000 became 16,000; the head of 4,000 stood in the cache.
    found = settle(sent(30_000, 16_000, shared=4_000), usage(0, 4_000, 12_000), tab)
    assert found is not None
    tab, money = found
    assert money.cost == pytest.approx(dollars(0, 4_000, 12_000))
    assert money.saved == pytest.approx(dollars(0, 29_000, 1_000) - dollars(0, 4_000, 12_000))
    assert money.saved < 0
    then = settle(sent(31_000, 17_000), usage(0, 16_000, 1_000), tab)
    assert then is not None
    assert then[1].saved == pytest.approx(14_000 * 0.3e-6)
    assert then[1].saved_so_far == pytest.approx(money.saved + 14_000 * 0.3e-6)


def test_after_a_pause_both_would_have_been_written_anew() -> None:
    tab = Tab(0.0, went=29_000, other=29_000, cached=True, billed=True)
    result = sent(30_000, 16_000, shared=4_000, at=400.0, cache=Cache.COLD)
    found = settle(result, usage(0, 0, 16_000), tab)
    assert found is not None
    assert found[1].saved == pytest.approx(14_000 * 3.75e-6)


def test_what_was_observed_would_have_saved() -> None:
    tab = Tab(0.0, went=29_000, other=29_000, cached=True, billed=True)
    result = sent(30_000, 16_000, observed=True, shared=4_000)
    found = settle(result, usage(0, 29_000, 1_000), tab)
    assert found is not None
    tab, money = found
    assert money.saved == pytest.approx(dollars(0, 29_000, 1_000) - dollars(0, 4_000, 12_000))
    then = settle(sent(31_000, 17_000, observed=True), usage(0, 30_000, 1_000), tab)
    assert then is not None
    assert then[1].saved == pytest.approx(14_000 * 0.3e-6)


def test_a_cache_that_misses_would_have_missed_the_other_too() -> None:
    tab = Tab(0.0, went=16_000, other=30_000, cached=True, billed=True)
    found = settle(sent(31_000, 17_000), usage(0, 0, 17_000), tab)
    assert found is not None
    assert found[1].saved == pytest.approx(14_000 * 3.75e-6)


def test_without_markers_each_token_costs_the_plain_price() -> None:
    found = settle(sent(30_000, 16_000, shared=4_000), usage(16_000, 0, 0), None)
    assert found is not None
    assert found[1].saved == pytest.approx(14_000 * 3e-6)


def test_of_a_conversation_that_comes_shortened_the_other_is_taken_to_fare_alike() -> None:
    found = settle(sent(30_000, 15_000), usage(0, 12_000, 3_000), None)
    assert found is not None
    assert found[1].saved == pytest.approx(dollars(0, 24_000, 6_000) - dollars(0, 12_000, 3_000))


def test_no_saving_is_claimed_where_no_price_is_known() -> None:
    result = sent(30_000, 15_000, model="somebodys-model")
    found = settle(result, usage(15_000, 0, 0), None)
    assert found is not None
    assert found[1] == (False, 0, 0, 0, 0)


def test_a_count_of_tokens_costs_nothing() -> None:
    assert settle(sent(30_000, 30_000), Usage(input_tokens=30_000), None) is None
    assert settle(sent(30_000, 30_000), Usage(output_tokens=30), None) is None


@pytest.mark.parametrize(
    ("tab", "at", "cache"),
    [
        (None, 0.0, Cache.WARM),
        (Tab(0.0), 299.0, Cache.WARM),
        (Tab(0.0), 301.0, Cache.COLD),
        (Tab(0.0, misses=1), 10.0, Cache.WARM),
        (Tab(0.0, misses=2), 10.0, Cache.NONE),
        (Tab(0.0, misses=9, cached=True), 10.0, Cache.WARM),
    ],
)
def test_what_the_cache_has(tab: Tab | None, at: float, cache: Cache) -> None:
    assert cache_of(tab, at, 300.0) is cache


def test_an_hour_is_asked_for_by_a_marker_and_not_by_a_text() -> None:
    marked = ready(extra=',"system":[{"type":"text","text":"x","cache_control":{"ttl":"1h"}}]')
    assert prices_for(marked).keeps == 3_600
    assert prices_for(ready(extra=',"system":"{\\"ttl\\":\\"1h\\"}"')).keeps == 300


def test_who_runs_a_model_at_home_pays_no_list_price() -> None:
    assert prices_for(ready("gpt-4o")).known
    assert not prices_for(ready("gpt-4o", api=OLLAMA)).known


def test_the_latest_tab_is_found_by_the_history() -> None:
    tabs = Tabs(LRUCache(10))
    tabs.keep([b"1", b"2"], Tab(7.0, cost=1.5))
    assert tabs.find([b"1", b"2", b"3"]) == Tab(7.0, cost=1.5)
    assert tabs.find([b"1", b"3"]) is None
    tabs.clear()
    assert tabs.find([b"1", b"2", b"3"]) is None
