"""What conversations cost, and what they would have cost otherwise.

A request's cost is what its provider reports: tokens read from its cache, written to it, and
neither. What it would have cost without us (or, in observe mode, with us) is an estimate: the same
request with the other content, and with the cache as that content's own history would have left it.
Where nothing was ever changed, both are the same to the last digit.

The cache is not certain to have what it might (OpenAI's and Gemini's miss now and then). So the
share of what could be read that was read is measured on the requests themselves, and the other
history is taken to fare no better.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from cachetools import LRUCache
from msgspec.structs import replace

from mitmcontext.condense.cost import Billed, Cache, billed_of, cost_of, imagined
from mitmcontext.models.prices import Prices, prices_of
from mitmcontext.proxy.job import Ready, Result
from mitmcontext.recollect import wants_an_hour
from mitmcontext.values import Action, Money, Standing, Usage

# So many requests that nothing was read for, and a provider keeps nothing of a conversation.
_MISSES: Final = 2
# Providers keep nothing smaller (OpenAI from 1,024 tokens on, Anthropic and Google up to 4,096).
_LEAST: Final = 5_000
# Who runs a model at home pays no list price.
_AT_HOME: Final = "Ollama"


class Tab(NamedTuple):
    """A conversation up to a request: what of it is in the provider's cache, and what it has cost.

    `at` is when it was sent, in seconds. `went` and `other` are the tokens that the cache can have
    of what went out and would have of the other content. `hit` is the share of `went` that was read
    last time; `cached` says that something was read or written at least once, `misses` how often
    nothing was although it could have been. `billed` says that any of this is known. `cost` and
    `saved` are in dollars, of the whole conversation so far.
    """

    at: float
    went: int = 0
    other: int = 0
    hit: float = 1.0
    cached: bool = False
    misses: int = 0
    billed: bool = False
    cost: float = 0.0
    saved: float = 0.0


class Tabs:
    """The latest tab of each conversation, by its links as the client sent them.

    The cache holds plain tuples, which outlast a live reload.
    """

    def __init__(self, kept: LRUCache[bytes, tuple[float, ...]]) -> None:
        self._kept = kept

    def find(self, links: Sequence[bytes]) -> Tab | None:
        """What is known of a conversation before this request."""
        found = next((self._kept[link] for link in reversed(links) if link in self._kept), None)
        return None if found is None else Tab(*found)  # type: ignore[arg-type]  # as it was put in

    def keep(self, links: Sequence[bytes], tab: Tab) -> None:
        """Take note of a conversation as of this request."""
        self._kept[links[-1]] = tuple(tab)

    def opened(self, ready: Ready) -> Ready:
        """The request with its prices and the state of the provider's cache; notes that it goes."""
        links, at, prices = ready.laid.sent.links, ready.job.at, prices_for(ready)
        tab = self.find(links)
        ready = replace(ready, prices=prices, cache=cache_of(tab, at, prices.keeps))
        if ready.standing == Standing.TURN:
            self.keep(links, Tab(at) if tab is None else tab._replace(at=at))
        return ready

    def bill(self, result: Result, usage: Usage) -> Money | None:
        """What a request has cost and saved; None where it was no request to a model."""
        links = result.ready.laid.sent.links
        settled = settle(result, usage, self.find(links))
        if settled is None:
            return None
        tab, money = settled
        self.keep(links, tab)
        return money

    def clear(self) -> None:
        """Forget everything."""
        self._kept.clear()


def prices_for(ready: Ready) -> Prices:
    """What this request's tokens cost."""
    api, request = ready.job.api, ready.request
    if api.name.startswith(_AT_HOME):
        return prices_of("")
    prices = prices_of(api.model_name(ready.job.headers, request))
    if prices.hour_write is not None and wants_an_hour(request, ready.laid.sent.stretch):
        return prices.kept_an_hour()
    return prices


def cache_of(tab: Tab | None, at: float, keeps: float) -> Cache:
    """What the provider's cache has of a conversation; warm where nobody knows.

    Args:
        tab: the conversation's latest.
        at: now, on the clock that the tab's time is of.
        keeps: for how many seconds without use the provider may keep it.
    """
    if tab is None:
        return Cache.WARM
    if not tab.cached and tab.misses >= _MISSES:
        return Cache.NONE
    return Cache.COLD if at - tab.at > keeps else Cache.WARM


def settle(result: Result, usage: Usage, tab: Tab | None) -> tuple[Tab, Money] | None:
    """What a request has cost and what it has saved; None where it was no request to a model.

    Args:
        result: what was sent.
        usage: what the provider reported.
        tab: the conversation's latest, without this request.
    """
    ready, outcome = result.ready, result.outcome
    if not usage.input_tokens or usage.output_tokens is None:
        return None
    prices = ready.prices
    writes = usage.cache_write_tokens is not None
    billed = billed_of(
        usage.input_tokens,
        usage.output_tokens,
        usage.cache_read_tokens,
        usage.cache_write_tokens,
    )
    observed = outcome.action == Action.OBSERVED or bool(ready.observed)
    stepped = result.shared is not None
    before = tab if tab is not None and tab.billed else None
    hit = _hit(before, billed, measurable=observed or not stepped)
    cached = bool(billed.read or billed.written or (before and before.cached))
    difference = _difference(result, usage.input_tokens, observed=observed)
    if difference == 0 and (before is None or before.went == before.other):
        would = billed
    else:
        warm = ready.cache != Cache.COLD
        reusable: float | None = None
        if observed and result.shared is not None:
            reusable = result.shared * hit
        elif before is not None:
            reusable = before.other * hit if warm or billed.read else 0.0
        would = imagined(billed, difference, reusable, cached=cached, writes=writes)
    cost, other = cost_of(billed, prices), cost_of(would, prices)
    saved = cost - other if observed else other - cost
    missed = before is not None and before.went >= _LEAST and usage.cache_read_tokens == 0
    last = before or Tab(ready.job.at)
    now = Tab(
        at=ready.job.at,
        went=_in_cache(billed, writes=writes),
        other=_in_cache(would, writes=writes),
        hit=hit,
        cached=cached,
        misses=last.misses + missed,
        billed=True,
        cost=last.cost + cost,
        saved=last.saved + saved,
    )
    money = Money(prices.known, cost, saved, now.cost, now.saved)
    return now, money


def _hit(before: Tab | None, billed: Billed, *, measurable: bool) -> float:
    """Of what could be read from the cache, the share that was."""
    if before is None:
        return 1.0
    if not measurable or before.went < _LEAST:
        return before.hit
    return min(1.0, billed.read / before.went)


def _in_cache(billed: Billed, *, writes: bool) -> int:
    return billed.read + billed.written if writes else billed.input


def _difference(result: Result, reported: int, *, observed: bool) -> int:
    """How many tokens more the other content has, by the provider's measure."""
    outcome = result.outcome
    less = outcome.sent - outcome.forwarded
    went = outcome.sent if observed else outcome.forwarded
    if less == 0 or went == 0 or result.ready.request.hidden:
        return 0
    more = round(less * reported / went)
    return -more if observed else more
