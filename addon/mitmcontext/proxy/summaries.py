"""Asking models for summaries: who is asked, when, at what price, and what becomes of the answers.

One conversation is asked about once at a time, whoever waits for it (a *flight*). A flight belongs
to no request: requests wait for it within their deadline and go on without it, and what it brings
home late serves the next step. It ends when nobody wants it any more, which is when the clients of
all who waited have hung up.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Final

from mitmcontext.condense.cost import Cache
from mitmcontext.condense.summaries.fold import Summary, standing
from mitmcontext.condense.summaries.gate import Rejection
from mitmcontext.condense.summaries.plan import Wanted
from mitmcontext.condense.summaries.selection import TRUNCATION
from mitmcontext.known import Known
from mitmcontext.pipeline import Assessment, Market
from mitmcontext.proxy import threads
from mitmcontext.proxy.asking import Asker, Trouble
from mitmcontext.proxy.assessing import Assessor
from mitmcontext.proxy.endpoint import whom
from mitmcontext.proxy.guard import contained, is_the_end
from mitmcontext.proxy.job import Ready, Result
from mitmcontext.proxy.money import Tabs
from mitmcontext.proxy.notes import Notes
from mitmcontext.proxy.patience import Patience
from mitmcontext.proxy.purse import Purse, root_of
from mitmcontext.proxy.questions import Questions
from mitmcontext.proxy.rounds import LATE, Bill, Rounds, Wish, provider_of
from mitmcontext.stores.lease import Leases
from mitmcontext.summarising import summary_plan, way_to_ask
from mitmcontext.values import Action, Level, Standing

# Conversations that are asked about at once.
_FLIGHTS: Final = 12
_TURNS_AHEAD: Final = 3
_LOOK: Final = 0.25
_WAITS: Final = {"warning": (Level.WARNING, Level.CRITICAL), "critical": (Level.CRITICAL,)}
_log: Final = logging.getLogger(__name__)


@dataclass(slots=True)
class _Flight:
    """Questions under way about one conversation. `wanted` by somebody who does not wait."""

    task: asyncio.Task[None]
    waiting: int = 0
    wanted: bool = False


class Summaries:
    """Asks, keeps, counts.

    Args:
        pool: threads beside those that clients wait for.
        asker: sends questions.
        known: what is known of messages.
        assessor: says how full the window is.
        tabs: what conversations have cost.
        purse: what our questions have cost.
        notes: where summaries are kept.
        leases: who asks, where several proxies share a store; None where there is one.
        named: makes a key of a link for the leases.
        questions: counts.
    """

    def __init__(
        self,
        pool: ThreadPoolExecutor,
        asker: Asker,
        known: Known,
        assessor: Assessor,
        tabs: Tabs,
        purse: Purse,
        notes: Notes,
        leases: Leases | None,
        named: Callable[[bytes], bytes],
        questions: Questions,
    ) -> None:
        self._asker = asker
        self._known = known
        self._assessor = assessor
        self._tabs = tabs
        self._purse = purse
        self._notes = notes
        self._leases = leases
        self._named = named
        self._questions = questions
        self._patience = Patience(time.monotonic)
        self._rounds = Rounds(asker, self._patience, questions)
        self._flights: dict[bytes, _Flight] = {}
        self._pool = pool

    # In a thread, at a step.

    def prepared(self, ready: Ready) -> tuple[bytes, tuple[Summary, ...]] | None:
        """What is ready for this request's conversation, and the link that it belongs to."""
        if not self._is_on(ready):
            return None
        found = self._notes.find(ready.laid.sent.links)
        if found is None:
            return None
        laid = ready.laid.found
        held = standing(laid.entry.edits) if laid is not None else ()
        return None if all(one in held for one in found[1]) else found

    def may_wait(self, ready: Ready, assessment: Assessment) -> bool:
        """Whether a request that is so full may wait for a model."""
        levels = _WAITS.get(ready.settings.condensation_wait, ())
        return self._is_on(ready) and assessment.level in levels

    def used(self, link: bytes, freed: int) -> None:
        """A step was taken with the summaries of a link."""
        self._questions.use(link, freed)

    def failed(self, reason: str) -> None:
        """Something of ours broke while a request had to do with summaries."""
        self._questions.reason("not_asked", reason)

    def wish(self, ready: Ready, assessment: Assessment, within: int | None = None) -> Wish | None:
        """What to ask for a request; None where nothing is, for reasons that are counted."""
        found = self._wish(ready, assessment, within)
        if isinstance(found, str):
            if found:
                self._questions.reason("not_asked", found)
            return None
        return found

    def _wish(self, ready: Ready, assessment: Assessment, within: int | None) -> Wish | str:
        settings, links = ready.settings, ready.laid.sent.links
        asked = whom(ready, os.environ)
        if isinstance(asked, str):
            return asked
        if not self._patience.is_over(root_of(links)):
            return "an answer was of no use a while ago"
        if not self._patience.is_over(provider_of(ready, asked)):
            return "the provider was busy or refused a while ago"
        tab = self._tabs.find(links)
        allowed = settings.condensation_max_cost * (tab.cost if tab is not None else 0.0)
        if allowed <= 0 and not asked.free:
            return "more than condensation_max_cost"
        wanted = Wanted(
            strategy=settings.condensation_default_strategy,
            messages=settings.condensation_max_messages,
            least=settings.condensation_min_messages,
            threshold=settings.condensation_quality_threshold,
            tokens=asked.tokens,
        )
        prices = ready.prices
        market = Market(prices, prices.known, ready.cache, must_pay=settings.context_budget > 0)
        plan = summary_plan(
            ready.laid, assessment, settings.thresholds, self._known, wanted, market, within
        )
        if isinstance(plan, str):
            return plan
        warm = tab is not None and tab.cached and ready.cache == Cache.WARM
        way = way_to_ask(plan, ready.laid, assessment, asked.prices, model=asked.other, cached=warm)
        return Wish(ready, way, asked, allowed)

    def _is_on(self, ready: Ready) -> bool:
        settings = ready.settings
        local = settings.condensation_default_strategy == TRUNCATION
        turn = ready.standing == Standing.TURN and not ready.observed
        return settings.enable_ai_condensation and not local and turn

    # On the loop.

    async def wait(self, wish: Wish) -> float:
        """Wait for the summaries that a request wants, no longer than its deadline allows.

        How many milliseconds that was.
        """
        began = time.monotonic()
        deadline = began + wish.ready.settings.condensation_timeout
        flight = self._flight(wish)
        if flight is None:
            return 0.0
        flight.waiting += 1
        gone = False
        try:
            while not flight.task.done() and not gone and (left := deadline - time.monotonic()) > 0:
                await asyncio.wait({flight.task}, timeout=min(left, _LOOK))
                gone = wish.whom.asks.is_gone()
        finally:
            flight.waiting -= 1
            if not gone and not flight.task.done():
                self._questions.count("late")
                flight.wanted = True
            elif gone and not flight.waiting and not flight.wanted and not flight.task.done():
                self._questions.count("stopped")
                flight.task.cancel()
        spent = (time.monotonic() - began) * 1000
        self._questions.count("waited")
        self._questions.count("waiting_ms", spent)
        return spent

    def may_prepare(self, result: Result) -> bool:
        """Whether warning is near, and summaries might be had until it comes."""
        ready, outcome = result.ready, result.outcome
        near = outcome.level in (Level.CAUTION, Level.WARNING) and result.counted
        if not near or not self._is_on(ready) or outcome.action == Action.CONDENSED:
            return False
        return self._under_way(root_of(ready.laid.sent.links)) is None

    async def prepare(self, result: Result) -> None:
        """Have summaries ready when warning comes. Nobody waits for it."""
        ready = result.ready
        wish = await threads.run(self._pool, partial(self._ahead, ready))
        flight = self._flight(wish) if wish is not None else None
        if flight is not None:
            flight.wanted = True

    def _ahead(self, ready: Ready) -> Wish | None:
        if self.prepared(ready) is not None:
            return None
        return self.wish(ready, self._assessor.assess(ready), _TURNS_AHEAD)

    def _flight(self, wish: Wish) -> _Flight | None:
        """The flight of a conversation, begun if there is none; None where none is to begin."""
        root = wish.root
        flight = self._under_way(root)
        if flight is not None:
            return flight
        if self._notes.has(wish.link):
            return None  # it came home since this was wished for
        if len(self._flights) >= _FLIGHTS:
            self._questions.count("shed")
            return None
        # Where several proxies share a store, another one may be asking already, at no cost here.
        if self._leases is None and not self._pays(wish):
            return None
        flight = self._flights[root] = _Flight(
            asyncio.ensure_future(contained(self._fly(wish), self.failed))
        )
        return flight

    def _under_way(self, root: bytes) -> _Flight | None:
        """The flight of a conversation, if there is one; those that have ended are forgotten.

        Nobody is told when one ends: what fails there would leave it standing for good.
        """
        for one in [root for root, flight in self._flights.items() if flight.task.done()]:
            del self._flights[one]
        return self._flights.get(root)

    def _pays(self, wish: Wish) -> bool:
        """Set aside what the questions may cost, if that is allowed."""
        if self._purse.take(wish.root, wish.way.price, wish.allowed):
            return True
        self._questions.reason("not_asked", "more than condensation_max_cost")
        return False

    async def _fly(self, wish: Wish) -> None:
        """Ask, judge, keep. Whatever goes wrong is counted, and the conversation left alone."""
        bill, seconds = Bill(), wish.ready.settings.condensation_timeout * LATE
        paid, reason = self._leases is None, ""
        try:
            async with asyncio.timeout(seconds):
                if not await self._is_mine(wish, seconds):
                    return  # what another proxy brought home is in the store
                paid = paid or self._pays(wish)
                if not paid:
                    return
                self._questions.count("attempts")
                reason = await self._bring(wish, bill)
        except TimeoutError:
            reason = Trouble.LATE
        except BaseException as error:
            if is_the_end(error):
                raise
            reason = type(error).__name__
        finally:
            if paid:
                self._purse.settle(wish.root, wish.way.price, bill.cost)
            if bill.cost:
                wish.whom.asks.paid(bill.cost)
            if self._leases is not None:
                self._pool.submit(self._leases.give_back, self._named(wish.root))
        if reason:
            self._questions.reason("rejected", reason)
            self._patience.failed(wish.root)
        else:
            self._patience.succeeded(wish.root)

    async def _is_mine(self, wish: Wish, seconds: float) -> bool:
        """Whether this proxy asks. Where another one does, wait until it has an answer."""
        if self._leases is None:
            return True
        lease = partial(self._leases.lease, self._named(wish.root), seconds)
        ready = partial(self.prepared, wish.ready)
        while not await threads.run(self._pool, lease):
            if await threads.run(self._pool, ready) is not None:
                return False
            await asyncio.sleep(2 * _LOOK)
        # It may have come home, and the lease been given back, since that was looked up.
        return await threads.run(self._pool, ready) is None

    async def _bring(self, wish: Wish, bill: Bill) -> str:
        """The reason why nothing was brought home, or ""."""
        plan = wish.way.plan
        answers = await self._rounds.answers(wish, bill)
        if answers is None:
            return next(one.fault for one in bill.answers if one.fault)
        judged = await threads.run(self._pool, partial(plan.finish, answers))
        if isinstance(judged, Rejection):
            return judged.value
        self._questions.count("accepted")
        seconds = wish.ready.settings.condensation_cache_ttl
        self._questions.kept(wish.link, seconds)
        await threads.run(self._pool, partial(self._notes.keep, wish.link, [judged], seconds))
        return ""

    # What is kept.

    def is_ours(self, body: bytes) -> bool:
        """Whether a request is a question of our own that came by here."""
        return self._asker.is_ours(body)

    def clear(self) -> None:
        """Forget what is ready, what was paid, and whom not to ask."""
        self._notes.clear()
        self._purse.clear()
        self._patience.clear()
