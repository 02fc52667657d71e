"""One request through the pipeline: on which thread, under which deadline, down which ladder.

Reading and laying frozen edits over a request always happens, since without them the client's whole
history would go out. Counting and planning a new step has a deadline, and is put off until after
forwarding where size alone proves that nothing needs to be done.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from functools import partial
from typing import Any, Final, TypeVar

import msgspec
from cachetools import LRUCache, TTLCache

from mitmcontext import pipeline
from mitmcontext.condense.assess import calls_for_step
from mitmcontext.condense.ledger import Found, Ledger, home
from mitmcontext.known import Known
from mitmcontext.models.windows import SMALLEST, Window, window_of
from mitmcontext.pipeline import Assessment, Laid, Market, Step
from mitmcontext.proxy import bodies
from mitmcontext.proxy.carried import Carried, sized
from mitmcontext.proxy.counts import KeptCounts, uncounted
from mitmcontext.proxy.job import (
    Claim,
    Estimated,
    EstimatedAs,
    Grown,
    Job,
    Ready,
    Result,
    because,
    encoded,
    may_step,
)
from mitmcontext.proxy.money import Tab, Tabs, cache_of, prices_for, settle
from mitmcontext.proxy.prefixes import Break, Prefixes, mark_of
from mitmcontext.proxy.reports import Answered, Reports, chain_of
from mitmcontext.proxy.shelves import Shelves
from mitmcontext.proxy.tenant import keyed
from mitmcontext.recollect import Recollection, Recollections
from mitmcontext.settings import Settings
from mitmcontext.stores.base import Figures, hit_ratio
from mitmcontext.stores.memory import MemoryStore
from mitmcontext.stores.memory_store import Memory, cells
from mitmcontext.tokens import vocabulary
from mitmcontext.tokens.calibration import Report, Shape
from mitmcontext.tokens.estimate import Count
from mitmcontext.tokens.families import Asked, family_of
from mitmcontext.values import (
    Action,
    Broken,
    Change,
    Money,
    Outcome,
    Request,
    Standing,
    TooLong,
    Usage,
)
from mitmcontext.wire.api import digest, message_of

# Reading a body of this size takes well below a millisecond. In a thread it takes half of one
# more, since the body has to come into another core's cache.
_INLINE: Final = 64 << 10
# The same, where all but the end of it was read before.
_INLINE_KNOWN: Final = 512 << 10
# Counting this much takes a millisecond or two.
_COUNT_INLINE: Final = 4 << 10
# Counting a megabyte that was never seen takes up to a quarter of a second on a slow machine.
_STEP_SECONDS: Final = 2.0
# So many bytes per token of the window seldom fit: prose and code have three to four and a half.
_BYTES_OF_OVERFLOW: Final = 4.5
_OVERFLOW_SECONDS: Final = 10.0
# Far beyond what reading needs: only for a machine that stands still.
_READ_SECONDS: Final = 20.0
_THREADS: Final = 2
# An entry's time to live is renewed at most so often, since that writes it to the disk.
_CONFIRM_SECONDS: Final = 3_600.0
_RECOLLECTIONS_SIZE: Final = 32 << 20
_CHANGES_SIZE: Final = 16 << 20

# A request that was refused as too long, without figures, is taken to be this much over.
_REFUSED: Final = 0.95
# A conversation of a hundred and forty messages; an assessment of two thousand.
_COUNTS_OF_ONE: Final = 48 << 10
_ANALYSIS: Final = 16 << 10
# Two states of the calibration that correct these estimates alike are alike.
_PROBES: Final = (2_000, 200_000)
# Longer than anything else is kept.
_EPOCH_KEPT: Final = 400 * 86_400.0
_ASSESSMENT: Final = msgspec.msgpack.Decoder(Assessment)

_T = TypeVar("_T")
_log: Final = logging.getLogger(__name__)


class Worker:
    """Runs the pipeline for one proxy. Its caches are the carried ones."""

    def __init__(self, kept: Carried, shelves: Shelves, settings: Settings) -> None:
        ledger_ttl = settings.context_ledger_ttl
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="mitmcontext")
        # Planning may take seconds, and must not hold up what is frozen already.
        self._readers = ThreadPoolExecutor(_THREADS, thread_name_prefix="mitmcontext-read")
        self._tokenizer = settings.context_tokenizer
        self._loading = threading.Lock()
        self._encodings: dict[str, vocabulary.Encoder] = {}
        self._ledger = Ledger(
            Memory(kept["near"]), shelves.far, shared=shelves.shared, kept=ledger_ttl
        )
        self._changes: LRUCache[bytes, tuple[Change, ...]] = LRUCache(
            _CHANGES_SIZE, getsizeof=_size_of
        )
        self._changes_lock = threading.Lock()
        self._recollections = Recollections(_RECOLLECTIONS_SIZE)
        self._prefixes = Prefixes(kept["prefixes"])
        self._tabs = Tabs(kept["tabs"])
        self._refused = kept["refused"]
        self._windows = kept["windows"]
        self._key = shelves.tenants
        self._far = shelves.far
        self._shared = shelves.shared
        self._named_epoch = keyed(shelves.tenants, [b"epoch"])
        # None: not asked for yet.
        self._epoch: bytes | None = None
        self._reports = Reports(shelves.far, shelves.shared, self._named_report, ledger_ttl)
        self._confirmed: TTLCache[bytes, bool] = TTLCache(
            10_000, min(_CONFIRM_SECONDS, ledger_ttl / 4)
        )
        counts = sized(kept, settings.tiktoken_cache_size * _COUNTS_OF_ONE)
        self._messages = MemoryStore(counts)
        self.known = Known(self._messages, self._count)
        self._kept_counts = (
            KeptCounts(shelves.far, self._named_counts, ledger_ttl) if shelves.far else None
        )
        self._analyses = Memory(cells(settings.context_cache_size * _ANALYSIS))
        self._analysis_ttl = settings.context_analysis_cache_ttl

    def warm_up(self) -> None:
        """Load the vocabulary that most models need, off the event loop."""
        self._pool.submit(self._count, "o200k_base")

    async def look(self, job: Job, settings: Settings) -> Ready:
        """Decode, read, and lay over it what is frozen.

        Raises:
            Unreadable: it is not a request that we understand.
            Broken: what is frozen does not fit.
            TimeoutError: the machine stands still.
        """
        if "content-encoding" not in job.headers and self._is_quick(job.raw):
            ready = self._read(job, settings)
            certain, found = self._ledger.near(ready.laid.sent.links)
            if certain or ready.standing is Standing.ALONE:
                return self._lay(ready, found)
            return await self._in_time(partial(self._lay_far, ready))
        return await self._in_time(lambda: self._lay_far(self._read(job, settings)))

    async def decide(self, ready: Ready) -> Result:
        """Count, assess, plan; whatever fails, the result is at least what is frozen."""
        began = time.perf_counter()
        ready = self._on_its_tab(ready)
        try:
            if self._is_cheap(ready):
                assessment = self._assess(ready)
                if not calls_for_step(assessment.level):
                    return self._timed(self._shown(ready, assessment), began)
            elif self._is_surely_safe(ready):
                return self._uncounted(ready)
            result = await self._decide_in_time(ready)
        except TimeoutError:
            result = self._base(ready, "no step in time")
        except Broken as fault:
            result = self._base(ready, f"a step failed its check: {fault}")
        except Exception as error:  # noqa: BLE001 - what is frozen must be forwarded all the same
            result = self._base(ready, type(error).__name__)
        return self._timed(result, began)

    async def _decide_in_time(self, ready: Ready) -> Result:
        """What a thread decides, unless it has frozen nothing when the time is up.

        Raises:
            TimeoutError: nothing was frozen, and nothing will be.
        """
        claim = Claim()
        decision = asyncio.ensure_future(self._run(partial(self._decide, ready, claim)))
        done, _ = await asyncio.wait({decision}, timeout=self._patience(ready))
        if not done and claim.take():
            decision.cancel()
            raise TimeoutError
        return await decision

    def _on_its_tab(self, ready: Ready) -> Ready:
        """The request with its prices and the state of the provider's cache; notes that it goes."""
        links, at, prices = ready.laid.sent.links, ready.job.at, prices_for(ready)
        tab = self._tabs.find(links)
        ready = replace(ready, prices=prices, cache=cache_of(tab, at, prices.keeps))
        if ready.standing is Standing.TURN:
            self._tabs.keep(links, Tab(at) if tab is None else tab._replace(at=at))
        return ready

    def bill(self, result: Result, usage: Usage) -> Money | None:
        """What a request has cost and saved; None where it was no request to a model."""
        links = result.ready.laid.sent.links
        settled = settle(result, usage, self._tabs.find(links))
        if settled is None:
            return None
        tab, money = settled
        self._tabs.keep(links, tab)
        return money

    def _is_surely_safe(self, ready: Ready) -> bool:
        window, settings = self._window(ready), ready.settings
        thresholds, budget = settings.thresholds, settings.context_budget
        return pipeline.is_surely_safe(ready.laid, window, thresholds, budget)

    def _patience(self, ready: Ready) -> float:
        """Seconds that a request may wait for a step.

        Longer where it would be refused without, and right after the start, while the vocabulary
        is still being loaded.
        """
        if ready.laid.sent.family.encoding not in self._encodings:
            return _OVERFLOW_SECONDS
        request = ready.laid.forwarded.request
        room = self._window(ready).room(request.max_output)
        too_long = len(request.body) > _BYTES_OF_OVERFLOW * room
        return _OVERFLOW_SECONDS if too_long else _STEP_SECONDS

    async def _in_time(self, work: Callable[[], _T]) -> _T:
        async with asyncio.timeout(_READ_SECONDS):
            return await asyncio.get_running_loop().run_in_executor(self._readers, work)

    async def count_later(self, result: Result) -> Result:
        """Count a request that was forwarded uncounted."""
        return await self._run(partial(self._assessed, result.ready))

    async def explain(self, result: Result) -> Result:
        """The same with the changes told that an earlier start of the proxy made."""
        changes = await self._run(partial(self._explained, result.ready))
        return replace(result, outcome=replace(result.outcome, changes=changes))

    def prefix_break(self, result: Result) -> Break | None:
        """Take note of what is forwarded; say why a forwarded prefix changed, if it did."""
        sent = result.ready.laid.sent.links
        forwarded = sent if result.ready.observed else result.forwarded.links
        found = result.ready.laid.found
        return self._prefixes.note(sent, forwarded, mark_of(found.entry) if found else (0, 0))

    def is_unproven(self, result: Result) -> bool:
        """Whether what we made of a request may be at fault: nothing like it was accepted yet."""
        found = result.ready.laid.found
        if result.raw is None or found is None:
            return False
        return result.before is not None or self._proof(result, found) not in self._confirmed

    def _proof(self, result: Result, found: Found) -> bytes:
        return result.ready.laid.sent.links[found.at] + bytes([found.entry.step % 256])

    async def step_back(self, result: Result) -> bytes:
        """The last form that the provider took, or what the client sent."""
        before = result.before
        if before is None or before.found is None:
            return result.ready.job.raw
        ready = replace(result.ready, laid=before)
        return await self._run(partial(encoded, ready)) or result.ready.job.raw

    async def step_further(self, result: Result, too_long: TooLong) -> Result | None:
        """The strongest step for a request that the provider found too long; None if none helps.

        What its refusal says of the window and of the request's size is learned first.
        """
        if not result.counted:
            result = await self.count_later(result)
        self._learn_length(result, too_long)
        if not may_step(result):
            return None
        try:
            further = await self._decide_in_time(result.ready)
        except (TimeoutError, Broken) as fault:
            _log.warning("mitmcontext: no step for what is too long: %s", type(fault).__name__)
            return None
        if further.outcome.action is not Action.CONDENSED:
            return None
        reason = f"too long for the provider; {further.outcome.reason}"
        return replace(further, outcome=replace(further.outcome, reason=reason))

    def _learn_length(self, result: Result, too_long: TooLong) -> None:
        key = self._calibration_key(result.ready)
        answered = self._answered(result, too_long.sent or 0)
        if answered is not None and result.estimated is not None:
            # No anchor casts doubt on what the provider says when it refuses.
            chain = chain_of(result.ready.laid.sent.links)
            self._reports.learn(result.estimated.by._replace(anchor=None), answered, chain)
        window = too_long.window
        if window is None:
            # What was refused as too long does not fit, whatever the table says.
            window = int(_REFUSED * result.outcome.forwarded)
        if window >= SMALLEST:
            self._windows[key] = window

    async def retract(self, result: Result) -> None:
        """Take back the newest step of a conversation, and take none there any more."""
        laid = result.ready.laid
        if laid.found is not None:
            await self._run(partial(self._ledger.retract, laid.sent.links, laid.found))
            self._refused[laid.sent.links[laid.found.at]] = True
            self._prefixes.forget(laid.sent.links)

    async def confirm(self, result: Result) -> None:
        """The provider took this request: what is frozen of its conversation lives on."""
        laid = result.ready.laid
        if laid.found is None:
            return
        link = self._proof(result, laid.found)
        if link not in self._confirmed and await self._run(
            partial(self._ledger.confirm, laid.sent.links, laid.found)
        ):
            self._confirmed[link] = True

    def learn(self, result: Result, reported: int) -> None:
        """Correct later estimates by what the provider reported for this request."""
        answered = self._answered(result, reported)
        if answered is None or result.estimated is None:
            return
        chain = chain_of(result.ready.laid.sent.links)
        write = self._reports.learn(result.estimated.by, answered, chain)
        if write is not None:
            self._pool.submit(write)

    def _answered(self, result: Result, reported: int) -> Answered | None:
        estimated, ready = result.estimated, result.ready
        if estimated is None or ready.request.hidden or reported <= 0:
            return None
        went = ready.laid.sent if ready.observed else result.forwarded
        links, grown = ready.laid.sent.links, estimated.grown
        report = Report(
            estimated=estimated.tokens,
            reported=reported,
            grown=grown.tokens if grown else None,
            grown_size=grown.size if grown else 0,
            grown_expected=grown.expected if grown else 0,
            new=estimated.new,
            notes=estimated.notes,
            forwarded=went.links[-1],
        )
        return Answered(links[-1], report, estimated.expected, estimated.scale)

    def forget(self, link: bytes) -> tuple[int, bool]:
        """Remove what is frozen of the conversation of a link.

        How many entries there were, and whether it is certain that none is left anywhere.
        """
        self._confirmed.clear()
        # Excerpts, and what was forwarded before: nothing of it is to show, or to be missed.
        self._changes.clear()
        self._prefixes.clear()
        forgotten = self._ledger.forget(link)
        self._new_epoch()
        return forgotten

    async def clean_up(self) -> None:
        """Remove what has expired."""
        await self._run(self._ledger.clean_up)

    def stores(self) -> dict[str, Any]:
        """What each store holds and how it fares: counts only."""
        known = self.known
        counts = Figures(len(self._messages), self._messages.size, known.hits, known.misses)
        every = {"token counts": counts, "assessments": self._analyses.figures()}
        every |= self._ledger.figures()
        return {
            name: {"hit_ratio": hit_ratio(figures), **asdict(figures)}
            for name, figures in every.items()
        }

    def clear(self) -> bool:
        """Forget every frozen edit and every count; whether it is certain that all is gone."""
        everywhere = self._ledger.clear()
        self._new_epoch()
        self._forget_nearby()
        return everywhere

    def _forget_nearby(self) -> None:
        """Forget what is in this process's memory beside the ledger."""
        self.known.clear()
        self._analyses.clear()
        self._reports.clear()
        self._recollections.clear()
        self._changes.clear()
        self._refused.clear()
        self._windows.clear()
        self._confirmed.clear()
        self._prefixes.clear()
        self._tabs.clear()

    def _new_epoch(self) -> None:
        """Tell the proxies that share a store to forget what they hold apart from it."""
        if self._far is not None and self._shared:
            self._epoch = secrets.token_bytes(8)
            self._far.set(self._named_epoch, self._epoch, _EPOCH_KEPT)

    def _follow_epoch(self) -> None:
        """Where another proxy cleared or forgot something, hold only what is still shared."""
        if self._far is None or not self._shared:
            return
        found = self._far.get_latest([self._named_epoch]).get(self._named_epoch, b"")
        if found and found != self._epoch:
            if self._epoch is not None:
                self._ledger.forget_nearby()
                self._forget_nearby()
            self._epoch = found
        elif self._epoch is None:
            self._epoch = found

    async def _run(self, work: Callable[[], _T]) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._pool, work)

    def _count(self, encoding: str) -> Count:
        if encoding not in self._encodings:
            with self._loading:
                if encoding not in self._encodings:
                    self._encodings[encoding] = vocabulary.load(encoding, self._tokenizer)
        return partial(vocabulary.count, self._encodings[encoding])

    def _is_quick(self, raw: bytes) -> bool:
        """Whether reading takes so little that a hop to a thread would cost more."""
        if len(raw) <= _INLINE:
            return True
        return len(raw) <= _INLINE_KNOWN and self._recollections.is_likely(raw)

    def _is_cheap(self, ready: Ready) -> bool:
        """Whether what was never counted is so little that a hop to a thread would cost more."""
        sent, forwarded = ready.laid.sent, ready.laid.forwarded
        if "content-encoding" in ready.job.headers or sent.family.encoding not in self._encodings:
            return False
        new = self.known.lacks(sent.family, sent.request, sent.facts)
        if forwarded is not sent:
            new += self.known.lacks(sent.family, forwarded.request, forwarded.facts)
        return new <= _COUNT_INLINE

    @staticmethod
    def _timed(result: Result, began: float) -> Result:
        spent = (time.perf_counter() - began) * 1000
        return replace(result, outcome=replace(result.outcome, milliseconds=spent))

    def _read(self, job: Job, settings: Settings) -> Ready:
        """Decode and read; nothing is laid over the request yet."""
        coding = job.headers.get("content-encoding")
        body = bodies.decode(job.raw, coding, settings.context_max_body)
        recollection = Recollection(self._recollections, body)
        request = job.api.read(body, recollection.elements)
        if not request.model:
            request = replace(request, model=job.api.model_in_path(job.path))
        standing, why = job.api.standing(job.path, job.headers, request)
        observed = job.observed or self._attested(request, job, settings)
        # What is only observed has a ledger of its own, by links of its own.
        names = [job.api.name, request.model, "observed" if observed else "condensed"]
        if job.login and (principal := job.api.principal(job.path, request)):
            job = replace(job, tenant=keyed(self._key, [job.place, principal.encode()]))
        seed = keyed(self._key, [job.tenant, *(name.encode() for name in names)])
        family = family_of(request.model, job.api.name, _asked(settings))
        sent = pipeline.read(job.api, family, request, seed, self.known, recollection.stretch)
        return Ready(job, settings, Laid(sent, sent, None), seed, observed, standing, why)

    def _lay(self, ready: Ready, found: Found | None) -> Ready:
        if ready.standing is Standing.ALONE:
            return ready
        laid = pipeline.lay_found(ready.laid.sent, found, ready.seed, self.known)
        pipeline.keep(laid, ready.seed, self._recollections)
        ready = replace(ready, laid=laid)
        return replace(ready, raw=encoded(ready))

    def _lay_far(self, ready: Ready) -> Ready:
        self._follow_epoch()
        self._reports.read(self._calibration_key(ready), ready.laid.sent.links)
        return self._lay(ready, self._ledger.find(ready.laid.sent.links))

    def _named_report(self, name: bytes) -> bytes:
        return keyed(self._key, [b"report", name])

    def _named_counts(self, name: bytes) -> bytes:
        return keyed(self._key, [b"counts", name])

    def _attested(self, request: Request, job: Job, settings: Settings) -> str:
        """Why a request with the client's attestation over its body is only observed, or ""."""
        if not request.attested or settings.context_attested == "condense":
            return ""
        if settings.context_attested == "observe":
            return "attested by the client (context_attested is observe)"
        if job.login:
            return (
                "attested by the client, with a subscription login; "
                "set context_attested to condense to change that"
            )
        return ""

    def _window(self, ready: Ready) -> Window:
        if ready.request.window is not None:
            asked = ready.request.window
            return Window(asked, None, asked, known=True, source="the request asks for it")
        named = ready.job.api.model_name(ready.job.headers, ready.request)
        window = window_of(named, ready.settings.context_windows)
        learned = self._windows.get(self._calibration_key(ready))
        if learned is None or learned >= window.input:
            return window
        total = min(window.total, learned) if window.total is not None else None
        return replace(window, input=learned, total=total, known=True, source="a refusal")

    def _decide(self, ready: Ready, claim: Claim) -> Result:
        """Assess and, where that calls for it, take a step. Runs in a thread."""
        assessment = self._assess_far(ready)
        result = self._shown(ready, assessment)
        if ready.standing is not Standing.TURN:
            return result
        if any(link in self._refused for link in ready.laid.sent.links):
            return because(result, "the provider refused a step of this conversation before")
        if len(ready.request.spans) < ready.settings.condensation_min_messages:
            return result
        settings, prices = ready.settings, ready.prices
        market = Market(prices, prices.known, ready.cache, must_pay=settings.context_budget > 0)
        step = pipeline.plan_step(
            ready.laid, assessment, settings.thresholds, self.known, ready.seed, market
        )
        if isinstance(step, str):
            return because(result, step) if step else result
        return self._stepped(ready, assessment, step, claim)

    def _stepped(self, ready: Ready, assessment: Assessment, step: Step, claim: Claim) -> Result:
        """Freeze a step, last of all; where another one was faster, that one holds.

        Raises:
            TimeoutError: the time was up before.
        """
        laid = ready.laid
        links = laid.sent.links
        ledger = self._ledger
        planned = Found(home(step.entry, laid.found), step.entry)
        stepped = replace(ready, laid=Laid(laid.sent, step.forwarded, planned))
        stepped = replace(stepped, raw=encoded(stepped))
        after = replace(assessment, forwarded=step.entry.after, estimates=step.estimates)
        result = self._shown(stepped, after)
        outcome = replace(
            result.outcome,
            action=Action.OBSERVED if ready.observed else Action.CONDENSED,
            reason=f"{assessment.level.value}: {assessment.forwarded / assessment.room:.0%} full",
            freed=step.entry.before - step.entry.after,
            changes=step.changes,
            predicted=step.forecast.net if step.forecast else None,
        )
        if not claim.take():
            raise TimeoutError
        frozen = ledger.freeze(links, step.entry, laid.found)
        if frozen.entry is not step.entry:
            return self._assessed(self._lay_far(ready))
        self._tell(links[frozen.at], step.changes)
        return replace(result, outcome=outcome, before=laid, shared=step.shared)

    def _assess_far(self, ready: Ready) -> Assessment:
        """The same where much may have to be counted: with what was counted before a restart."""
        kept, sent = self._kept_counts, ready.laid.sent
        if kept is None:
            return self._assess(ready)
        kept.take_over(sent, self.known)
        new = uncounted(sent)
        assessment = self._assess(ready)
        if new:
            kept.keep(sent, self.known, new)
        return assessment

    def _assess(self, ready: Ready) -> Assessment:
        window, thresholds = self._window(ready), ready.settings.thresholds
        budget = ready.settings.context_budget
        estimated_as = self._estimated_as(ready)
        scale_of = partial(self._reports.scale, estimated_as)
        probes = [scale_of(probe, 0) for probe in _PROBES]
        name = _named_analysis(ready, (window, budget, thresholds, estimated_as, probes))
        kept = self._analyses.get_many([name]).get(name)
        if kept is not None:
            return _ASSESSMENT.decode(kept)
        assessment = pipeline.assess(ready.laid, window, thresholds, self.known, scale_of, budget)
        self._analyses.set(name, msgspec.msgpack.encode(assessment), self._analysis_ttl)
        return assessment

    def _estimated(self, ready: Ready, assessment: Assessment) -> Estimated:
        by, laid, fixed = self._estimated_as(ready), ready.laid, assessment.estimate_fixed
        went, each, expected = laid.forwarded, assessment.estimates, assessment.forwarded
        if ready.observed:
            went, each, expected = laid.sent, assessment.sent_estimates, assessment.sent
        links, notes = went.links, 0
        if went is not laid.sent and laid.found is not None:
            notes = pipeline.notes_of(laid.sent, laid.found.entry.edits, each)
        grown = None
        if by.anchor is not None and by.anchor.forwarded in links:
            # What came since stands at the end, of what the client sent as of what is forwarded.
            new = len(links) - 1 - links.index(by.anchor.forwarded)
            places = ready.request.spans[len(ready.request.spans) - new :]
            grown = Grown(
                tokens=sum(each[len(each) - new :]),
                size=sum(end - start for start, end in places),
                expected=sum(assessment.sent_tokens[len(assessment.sent_tokens) - new :]),
            )
        tokens = fixed + sum(each)
        known = len(assessment.scale.ratios) // 2
        each, told = assessment.sent_estimates[known:], assessment.sent_tokens[known:]
        pairs = tuple(zip(each, told, strict=True))
        return Estimated(by, tokens, grown, pairs, notes, expected, assessment.scale)

    def _estimated_as(self, ready: Ready) -> EstimatedAs:
        request = ready.request
        places = (request.tools, request.choice, request.schema)
        beside = [request.body[slice(*place)] if place else b"" for place in places]
        kinds = ("tools" if beside[0] else "no tools", "schema" if beside[2] else "no schema")
        coarse = ", ".join((*kinds, "thinks" if request.thinks else "does not think"))
        shape = Shape(coarse, f"{coarse} {digest(beside).hex()[:16]}")
        return self._reports.estimated_as(
            self._calibration_key(ready), shape, ready.laid.sent.links
        )

    def _calibration_key(self, ready: Ready) -> str:
        return f"{ready.job.tenant.hex()} {ready.request.model}"

    def _assessed(self, ready: Ready) -> Result:
        """The request with what is frozen, counted. Runs in a thread."""
        return self._shown(ready, self._assess_far(ready))

    def _shown(self, ready: Ready, assessment: Assessment) -> Result:
        laid = ready.laid
        outcome = replace(
            self._outcome(ready),
            level=assessment.level,
            room=assessment.room,
            sent=assessment.sent,
            forwarded=assessment.forwarded,
        )
        return Result(
            outcome=outcome,
            ready=ready,
            raw=ready.raw,
            forwarded=laid.forwarded,
            estimated=self._estimated(ready, assessment),
        )

    def _outcome(self, ready: Ready) -> Outcome:
        found = ready.laid.found
        if ready.standing is Standing.ALONE:
            action = Action.LEFT_ALONE
        elif found is None:
            action = Action.UNDER_THRESHOLD
        else:
            action = Action.OBSERVED if ready.observed else Action.REAPPLIED
        return Outcome(
            action=action,
            reason=ready.why or ready.observed,
            api=ready.job.api.name,
            model=ready.request.model,
            messages=len(ready.request.spans),
            steps=found.entry.step if found else 0,
            changes=self._changes_of(ready),
        )

    def _explained(self, ready: Ready) -> tuple[Change, ...]:
        found, sent = ready.laid.found, ready.laid.sent
        if found is None:
            return ()
        messages = [message_of(sent.api, ready.request.raw(at)) for at in range(len(sent.facts))]
        tokens = self.known.count(sent.api, sent.family, sent.request, sent.facts)
        held = found.entry.edits
        changes = pipeline.changes_of(messages, tokens, held, held, self.known, sent.family)
        self._tell(sent.links[found.at], changes)
        return changes

    def _tell(self, link: bytes, changes: tuple[Change, ...]) -> None:
        with self._changes_lock:
            if _size_of(changes) <= self._changes.maxsize:
                self._changes[link] = changes

    def _changes_of(self, ready: Ready) -> tuple[Change, ...]:
        """The changes of the steps that hold, as they were shown when the newest was taken."""
        found = ready.laid.found
        with self._changes_lock:
            kept = self._changes.get(ready.laid.sent.links[found.at]) if found else None
        return tuple(replace(change, new=False) for change in kept or ())

    def _uncounted(self, ready: Ready) -> Result:
        room = self._window(ready).room(ready.request.max_output)
        room = pipeline.within(room, ready.settings.context_budget)
        outcome = replace(self._outcome(ready), room=room)
        return Result(outcome, ready, None, ready.laid.forwarded, counted=False)

    def _base(self, ready: Ready, reason: str) -> Result:
        """One rung down: only what is frozen."""
        _log.warning("mitmcontext: no new step: %s", reason)
        outcome = replace(self._outcome(ready), action=Action.FAILED_OPEN, reason=reason)
        return Result(outcome, ready, ready.raw, ready.laid.forwarded)


def _named_analysis(ready: Ready, asked: object) -> bytes:
    """Everything that an assessment depends on, as one digest."""
    request, laid = ready.request, ready.laid
    places = (request.system, request.tools, request.choice, request.schema)
    beside = [request.body[slice(*place)] if place else b"" for place in places]
    links = (laid.sent.links[-1], laid.forwarded.links[-1])
    family = f"{laid.sent.family.name}/{laid.sent.family.mark}".encode()
    return digest([*links, *beside, family, repr((asked, request.max_output)).encode()])


def _asked(settings: Settings) -> Asked:
    """How the user wants tokens to be counted."""
    return Asked(
        settings.enable_accurate_token_counting,
        settings.base_image_tokens,
        settings.image_tokens_per_char,
        settings.enable_dynamic_image_tokens,
    )


def _size_of(changes: tuple[Change, ...]) -> int:
    """About how many bytes changes take: their excerpts, and the values around them."""
    return sum(2 * (len(change.before) + len(change.after)) + 400 for change in changes)
