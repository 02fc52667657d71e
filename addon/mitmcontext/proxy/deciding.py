"""Whether a request needs a step, and the step: in a thread, under a deadline.

Where size alone proves that nothing needs to be done, counting is put off until after forwarding.
Whatever fails, the result is at least what is frozen.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, MutableMapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Final

from msgspec.structs import replace

from mitmcontext import pipeline
from mitmcontext.births import Births
from mitmcontext.condense.assess import calls_for_step
from mitmcontext.condense.entries import Found, home
from mitmcontext.condense.ledger import Ledger
from mitmcontext.condense.summaries.fold import Summary
from mitmcontext.known import Known
from mitmcontext.pipeline import Assessment, Laid, Market, Step
from mitmcontext.proxy import threads
from mitmcontext.proxy.assessing import Assessor
from mitmcontext.proxy.encoders import Encoders
from mitmcontext.proxy.estimates import Estimates
from mitmcontext.proxy.guard import is_the_end
from mitmcontext.proxy.job import Claim, Ready, Result, because, encoded, may_step
from mitmcontext.proxy.outcomes import Outcomes
from mitmcontext.proxy.rounds import Wish
from mitmcontext.proxy.summaries import Summaries
from mitmcontext.values import Action, Broken, Standing, TooLong, Unreadable

# Counting a megabyte that was never seen takes up to a quarter of a second on a slow machine.
_STEP_SECONDS: Final = 2.0
# So many bytes per token of the window seldom fit: prose and code have three to four and a half.
_BYTES_OF_OVERFLOW: Final = 4.5
_OVERFLOW_SECONDS: Final = 10.0
_log: Final = logging.getLogger(__name__)


class Decider:
    """Takes steps.

    Args:
        pool: the threads that count and plan.
        ledger: where steps are frozen.
        known: what is known of messages.
        births: what becomes of new results.
        encoders: the vocabularies that are loaded.
        estimates: what corrects estimates and windows.
        assessor: says how full the window is.
        outcomes: makes the results.
        lay_far: lays over a request what is frozen of it by now.
        refused: the links of entries that the provider refused; outlives a reload.
        summaries: asks models; None where nobody is ever asked.
    """

    def __init__(
        self,
        pool: ThreadPoolExecutor,
        ledger: Ledger,
        known: Known,
        births: Births,
        encoders: Encoders,
        estimates: Estimates,
        assessor: Assessor,
        outcomes: Outcomes,
        lay_far: Callable[[Ready], Ready],
        refused: MutableMapping[bytes, bool],
        summaries: Summaries | None = None,
    ) -> None:
        self._pool = pool
        self._ledger = ledger
        self._known = known
        self._births = births
        self._encoders = encoders
        self._estimates = estimates
        self._assessor = assessor
        self._outcomes = outcomes
        self._lay_far = lay_far
        self._refused = refused
        self._summaries = summaries

    async def decide(self, ready: Ready, began: float | None = None) -> Result:
        """Count, assess, plan; whatever fails, the result is at least what is frozen.

        `began` is when the request came, by `time.perf_counter`; None: now.
        """
        began = time.perf_counter() if began is None else began
        try:
            result = await self._decide(ready)
        except TimeoutError:
            result = self._outcomes.base(ready, "no step in time")
        except Broken as fault:
            result = self._outcomes.base(ready, f"a step failed its check: {fault}")
        except Unreadable as why:
            # Its messages were read, so it is what stands beside them.
            result = self._outcomes.base(ready, f"what stands beside the messages: {why}")
        except Exception as error:  # noqa: BLE001 - what is frozen must be forwarded all the same
            result = self._outcomes.base(ready, type(error).__name__)
        spent = (time.perf_counter() - began) * 1000
        own = max(0.0, spent - result.outcome.waited)
        return replace(result, outcome=replace(result.outcome, milliseconds=own))

    async def step_further(self, result: Result, too_long: TooLong) -> Result | None:
        """The strongest step for a request that the provider found too long; None if none helps.

        What its refusal says of the window and of the request's size is learned first.
        """
        if not result.counted:
            result = await threads.run(self._pool, partial(self.assessed, result.ready))
        self._estimates.learn_length(result, too_long)
        if not may_step(result):
            return None
        try:
            further = await self._step_in_time(result.ready)
        except (TimeoutError, Broken) as fault:
            _log.warning("mitmcontext: no step for what is too long: %s", type(fault).__name__)
            return None
        if further.outcome.action != Action.CONDENSED:
            return None
        reason = f"too long for the provider; {further.outcome.reason}"
        return replace(further, outcome=replace(further.outcome, reason=reason))

    def assessed(self, ready: Ready) -> Result:
        """The request with what is frozen, counted. Runs in a thread."""
        return self._outcomes.shown(ready, self._assessor.assess_far(ready))

    async def _decide(self, ready: Ready) -> Result:
        if self._assessor.is_cheap(ready):
            assessment = self._assessor.assess(ready)
            if not calls_for_step(assessment.level):
                return self._outcomes.shown(ready, assessment)
        elif self._assessor.is_surely_safe(ready):
            return self._outcomes.uncounted(ready)
        if self._summaries is None:
            return await self._step_in_time(ready)
        try:
            return await self._with_summaries(ready, self._summaries)
        except (TimeoutError, Broken):
            raise
        except BaseException as error:
            if is_the_end(error):
                raise
            # Without a summary there is the same step.
            self._summaries.failed(type(error).__name__)
            return await self._step_in_time(ready, alone=True)

    async def _with_summaries(self, ready: Ready, summaries: Summaries) -> Result:
        found = await self._in_time(ready, may_wait=True)
        if not isinstance(found, Wish):
            return found
        waited = await summaries.wait(found)
        if found.whom.asks.is_gone():
            # A step now would be a local one, and hold for all others who still wait for a model.
            shown = await threads.run(self._pool, partial(self.assessed, ready))
            result = because(shown, "its client has hung up")
        else:
            result = await self._step_in_time(ready)
        return replace(result, outcome=replace(result.outcome, waited=waited))

    async def _step_in_time(self, ready: Ready, *, alone: bool = False) -> Result:
        """As `_in_time`, with what is there: nobody waits for a model."""
        found = await self._in_time(ready, may_wait=False, alone=alone)
        if isinstance(found, Wish):
            raise TypeError
        return found

    async def _in_time(self, ready: Ready, *, may_wait: bool, alone: bool = False) -> Result | Wish:
        """What a thread decides, unless it has frozen nothing when the time is up.

        Where it decides alone no summary has part in it, not even one that is ready.

        Raises:
            TimeoutError: nothing was frozen, and nothing will be.
        """
        claim = Claim()
        work = partial(self._step, ready, claim, may_wait=may_wait, alone=alone)
        decision = asyncio.ensure_future(threads.run(self._pool, work))
        done, _ = await asyncio.wait({decision}, timeout=self._patience(ready))
        if not done and claim.take():
            decision.cancel()
            raise TimeoutError
        return await decision

    def _patience(self, ready: Ready) -> float:
        """Seconds that a request may wait for a step.

        Longer where it would be refused without, and right after the start, while the vocabulary
        is still being loaded.
        """
        if ready.laid.sent.family.encoding not in self._encoders:
            return _OVERFLOW_SECONDS
        request = ready.laid.forwarded.request
        room = self._estimates.window(ready).room(request.max_output)
        too_long = len(request.body) > _BYTES_OF_OVERFLOW * room
        return _OVERFLOW_SECONDS if too_long else _STEP_SECONDS

    # In a thread.

    def _step(self, ready: Ready, claim: Claim, *, may_wait: bool, alone: bool) -> Result | Wish:
        """Assess and, where that calls for it, take a step, or say what to ask before."""
        assessment = self._assessor.assess_far(ready)
        result = self._outcomes.shown(ready, assessment)
        if ready.standing != Standing.TURN:
            return result
        if any(link in self._refused for link in ready.laid.sent.links):
            return because(result, "the provider refused a step of this conversation before")
        if len(ready.request.spans) < ready.settings.condensation_min_messages:
            return result
        told = None if alone else self._told(ready, assessment)
        if told is None and may_wait and (wish := self._wish(ready, assessment)) is not None:
            return wish
        step = self._planned(ready, assessment, told[1] if told else ())
        if isinstance(step, str):
            return because(result, step) if step else result
        found = self._frozen(ready, assessment, step, claim)
        if told and step.summarised and found.shared is not None and self._summaries is not None:
            self._summaries.used(told[0], found.outcome.freed)
        return found

    def _told(
        self, ready: Ready, assessment: Assessment
    ) -> tuple[bytes, tuple[Summary, ...]] | None:
        """The summaries that are ready, where a step is due."""
        if self._summaries is None or not calls_for_step(assessment.level):
            return None
        return self._summaries.prepared(ready)

    def _wish(self, ready: Ready, assessment: Assessment) -> Wish | None:
        """What to ask before the step, where the request may wait for it."""
        if self._summaries is None or not self._summaries.may_wait(ready, assessment):
            return None
        return self._summaries.wish(ready, assessment)

    def _planned(self, ready: Ready, assessment: Assessment, told: Sequence[Summary]) -> Step | str:
        settings, prices = ready.settings, ready.prices
        market = Market(prices, prices.known, ready.cache, must_pay=settings.context_budget > 0)
        return pipeline.plan_step(
            ready.laid,
            assessment,
            settings.thresholds,
            self._known,
            ready.seed,
            market,
            told,
            self._births,
        )

    def _frozen(self, ready: Ready, assessment: Assessment, step: Step, claim: Claim) -> Result:
        """Freeze a step, last of all; where another one was faster, that one holds.

        Raises:
            TimeoutError: the time was up before.
        """
        laid = ready.laid
        links = laid.sent.links
        planned = Found(home(step.entry, laid.found), step.entry)
        births = {at: born for at, born in laid.births.items() if at > planned.at}
        stepped = replace(ready, laid=Laid(laid.sent, step.forwarded, planned, births))
        stepped = replace(stepped, raw=encoded(stepped))
        after = replace(assessment, forwarded=step.entry.after, estimates=step.estimates)
        result = self._outcomes.shown(stepped, after)
        outcome = replace(
            result.outcome,
            action=Action.OBSERVED if ready.observed else Action.CONDENSED,
            reason=_reason(assessment, step),
            freed=step.entry.before - step.entry.after,
            changes=(*pipeline.changes_at_birth(stepped.laid, after), *step.changes),
            predicted=step.forecast.net if step.forecast else None,
        )
        if not claim.take():
            raise TimeoutError
        size = pipeline.size_to(laid.sent, planned.at)
        frozen = self._ledger.freeze(links, step.entry, laid.found, size)
        if frozen.entry is not step.entry:
            return self.assessed(self._lay_far(ready))
        self._outcomes.tell(links[frozen.at], step.changes)
        return replace(result, outcome=outcome, before=laid, shared=step.shared)


def _reason(assessment: Assessment, step: Step) -> str:
    """Why a step was taken, and whether a model had part in it."""
    full = f"{assessment.level.value}: {assessment.forwarded / assessment.room:.0%} full"
    return f"{full}; with a model's summary" if step.summarised else full
