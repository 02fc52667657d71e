"""One request through the pipeline, and what its answer means for the next one.

What belongs together has a module: `reading` lays frozen edits over a request, `deciding` takes
steps, `assessing` counts, `estimates` learns, `outcomes` says what to show. Here they are put
together, and what is known of a conversation beside them is kept: what was forwarded, what it cost,
what the provider took and what it refused.
"""

from __future__ import annotations

from collections.abc import Coroutine, Iterator
from dataclasses import asdict
from functools import partial
from typing import Any, Final

from cachetools import LRUCache, TTLCache
from msgspec.structs import replace

from mitmcontext.births import Births
from mitmcontext.condense.entries import Found
from mitmcontext.condense.ledger import Ledger
from mitmcontext.known import Known
from mitmcontext.pipeline import Laid
from mitmcontext.proxy import threads
from mitmcontext.proxy.asking import Asker
from mitmcontext.proxy.assessing import Assessor
from mitmcontext.proxy.carried import Carried, ledger, pool, sized
from mitmcontext.proxy.counts import KeptCounts
from mitmcontext.proxy.deciding import Decider
from mitmcontext.proxy.encoders import Encoders
from mitmcontext.proxy.epoch import Epoch
from mitmcontext.proxy.estimates import Estimates
from mitmcontext.proxy.guard import is_the_end
from mitmcontext.proxy.job import Job, Ready, Result, encoded
from mitmcontext.proxy.money import Tabs
from mitmcontext.proxy.notes import Notes
from mitmcontext.proxy.outcomes import Outcomes
from mitmcontext.proxy.prefixes import Break, Prefixes, mark_of
from mitmcontext.proxy.purse import Purse
from mitmcontext.proxy.questions import Questions
from mitmcontext.proxy.reading import Reader
from mitmcontext.proxy.reports import Reports
from mitmcontext.proxy.shelves import Shelves
from mitmcontext.proxy.summaries import Summaries
from mitmcontext.proxy.tenant import keyed
from mitmcontext.proxy.unread import Unread
from mitmcontext.settings import Settings
from mitmcontext.stores.base import Figures, hit_ratio
from mitmcontext.stores.memory import MemoryStore
from mitmcontext.stores.memory_store import Memory
from mitmcontext.values import Action, Money, Outcome, TooLong, Usage

# An entry's time to live is renewed at most so often, since that writes it to the disk.
_CONFIRM_SECONDS: Final = 3_600.0
_TAKEN: Final = 10_000
# A conversation of a hundred and forty messages.
_COUNTS_OF_ONE: Final = 48 << 10


class Worker:
    """Runs the pipeline for one proxy. Its caches are the carried ones.

    Without an asker no model is ever asked.
    """

    def __init__(
        self, kept: Carried, shelves: Shelves, settings: Settings, asker: Asker | None = None
    ) -> None:
        far, key, ttl = shelves.far, shelves.tenants, settings.context_ledger_ttl

        def named(kind: bytes, name: bytes) -> bytes:
            return keyed(key, [kind, name])

        self._pool = pool(kept, "mitmcontext")
        self._encoders = Encoders(settings.context_tokenizer, kept["vocabularies"])
        self._ledger = Ledger(
            Memory(ledger(kept, only=far is None)),
            far,
            shared=shelves.shared,
            kept=ttl,
            sizes=kept["sizes"],
        )
        self._messages = MemoryStore(sized(kept, settings.tiktoken_cache_size * _COUNTS_OF_ONE))
        self.known = Known(self._messages, self._encoders.count)
        reports = Reports(far, shelves.shared, partial(named, b"report"), ttl)
        self._estimates = Estimates(reports, kept["windows"])
        counts = KeptCounts(far, partial(named, b"counts"), ttl) if far else None
        self._assessor = Assessor(self.known, self._encoders, self._estimates, counts, settings)
        self._outcomes = Outcomes(self.known, self._estimates)
        shared = far if shelves.shared else None
        self._epoch = Epoch(shared, keyed(key, [b"epoch"]), self._forget_what_is_not_shared)
        self._refused = kept["refused"]
        births = Births(self.known)
        self._reader = Reader(
            pool=pool(kept, "mitmcontext-read"),
            ledger=self._ledger,
            known=self.known,
            births=births,
            refused=self._refused,
            key=key,
            catch_up=self._catch_up,
        )
        self._tabs = Tabs(kept["tabs"])
        self._summaries: Summaries | None = None
        if asker is not None:
            self._summaries = Summaries(
                pool=pool(kept, "mitmcontext-ask"),
                asker=asker,
                known=self.known,
                assessor=self._assessor,
                tabs=self._tabs,
                purse=Purse(kept["purse"]),
                notes=Notes(kept["notes"], shared, partial(named, b"summary")),
                leases=shelves.leases,
                named=partial(named, b"asks"),
                questions=Questions(kept["figures"].setdefault("questions", {})),
            )
        self._decider = Decider(
            pool=self._pool,
            ledger=self._ledger,
            known=self.known,
            births=births,
            encoders=self._encoders,
            estimates=self._estimates,
            assessor=self._assessor,
            outcomes=self._outcomes,
            lay_far=self._reader.lay_far,
            refused=self._refused,
            summaries=self._summaries,
        )
        self.unread = Unread(self._pool, self._ledger, self._estimates)
        self._prefixes = Prefixes(kept["prefixes"])
        # By the link of a message with reduced results: the provider took them.
        self._taken: LRUCache[bytes, bool] = LRUCache(_TAKEN)
        self._confirmed: TTLCache[bytes, bool] = TTLCache(10_000, min(_CONFIRM_SECONDS, ttl / 4))

    def warm_up(self) -> None:
        """Load the vocabulary that most models need, off the event loop."""
        self._pool.submit(self._encoders.count, "o200k_base")

    # The way of a request.

    async def look(self, job: Job, settings: Settings) -> Ready:
        """Decode, read, and lay over it what is frozen.

        Raises:
            Unreadable: it is not a request that we understand.
            Broken: what is frozen does not fit.
            TimeoutError: the machine stands still.
        """
        return await self._reader.look(job, settings)

    async def decide(self, ready: Ready, began: float | None = None) -> Result:
        """Count, assess, plan; whatever fails, the result is at least what is frozen."""
        try:
            return await self._decider.decide(self._tabs.opened(ready), began)
        except BaseException as error:
            if is_the_end(error):
                raise
            outcome = Outcome(Action.FAILED_OPEN, type(error).__name__, ready.job.api.name)
            return Result(outcome, ready, ready.raw, ready.laid.forwarded)

    async def count_later(self, result: Result) -> Result:
        """Count a request that was forwarded uncounted."""
        return await threads.run(self._pool, partial(self._decider.assessed, result.ready))

    async def explain(self, result: Result) -> Result:
        """The same with the changes told that an earlier start of the proxy made."""
        changes = await threads.run(self._pool, partial(self._outcomes.explained, result.ready))
        told = (*result.outcome.changes, *changes)
        return replace(result, outcome=replace(result.outcome, changes=told))

    def prefix_break(self, result: Result) -> Break | None:
        """Take note of what is forwarded; say why a forwarded prefix changed, if it did."""
        sent = result.ready.laid.sent.links
        forwarded = sent if result.ready.observed else result.forwarded.links
        found = result.ready.laid.found
        return self._prefixes.note(sent, forwarded, mark_of(found.entry) if found else (0, 0))

    # The way back.

    def learn(self, result: Result, reported: int) -> None:
        """Correct later estimates by what the provider reported for this request."""
        write = self._estimates.learn(result, reported)
        if write is not None:
            self._pool.submit(write)

    def bill(self, result: Result, usage: Usage) -> Money | None:
        """What a request has cost and saved; None where it was no request to a model."""
        return self._tabs.bill(result, usage)

    def accepted(self, result: Result) -> Iterator[Coroutine[Any, Any, None]]:
        """The provider took this request: what is left to be done then, mostly nothing."""
        found = result.ready.laid.found
        if found is not None and not self._is_proven(result, found):
            yield self.confirm(result)
        if self._summaries is not None and self._summaries.may_prepare(result):
            yield self._summaries.prepare(result)

    async def confirm(self, result: Result) -> None:
        """The provider took this request: what is frozen of its conversation lives on."""
        laid = result.ready.laid
        if laid.found is None:
            return
        if laid.births:
            self._taken[newest_birth(laid)] = True
        link = _proof(result, laid.found)
        if link not in self._confirmed and await threads.run(
            self._pool, partial(self._ledger.confirm, laid.sent.links, laid.found)
        ):
            self._confirmed[link] = True

    def is_unproven(self, result: Result) -> bool:
        """Whether what we made of a request may be at fault: nothing like it was accepted yet."""
        found = result.ready.laid.found
        if result.raw is None or found is None:
            return False
        return result.before is not None or not self._is_proven(result, found)

    def _is_proven(self, result: Result, found: Found) -> bool:
        """Whether the provider took all that is laid over a request before."""
        laid = result.ready.laid
        if laid.births and newest_birth(laid) not in self._taken:
            return False
        return _proof(result, found) in self._confirmed

    async def step_back(self, result: Result) -> bytes:
        """The last form that the provider took, or what the client sent."""
        before = result.before
        if before is None or before.found is None:
            return result.ready.job.raw
        ready = replace(result.ready, laid=before)
        return await threads.run(self._pool, partial(encoded, ready)) or result.ready.job.raw

    async def step_further(self, result: Result, too_long: TooLong) -> Result | None:
        """The strongest step for a request that the provider found too long; None if none helps."""
        return await self._decider.step_further(result, too_long)

    async def retract(self, result: Result) -> None:
        """Take back the newest step of a conversation, and take none there any more."""
        laid = result.ready.laid
        if laid.found is not None:
            retract = partial(self._ledger.retract, laid.sent.links, laid.found)
            await threads.run(self._pool, retract)
            self._refused[laid.sent.links[laid.found.at]] = True
            self._prefixes.forget(laid.sent.links)

    def is_ours(self, body: bytes) -> bool:
        """Whether a request is a question of our own that came by here."""
        return self._summaries is not None and self._summaries.is_ours(body)

    # What is kept.

    def stores(self) -> dict[str, Any]:
        """What each store holds and how it fares: counts only."""
        known = self.known
        counts = Figures(len(self._messages), self._messages.size, known.hits, known.misses)
        every = {"token counts": counts, "assessments": self._assessor.figures()}
        every |= self._ledger.figures()
        return {
            name: {"hit_ratio": hit_ratio(figures), **asdict(figures)}
            for name, figures in every.items()
        }

    async def clean_up(self) -> None:
        """Remove what has expired."""
        await threads.run(self._pool, self._ledger.clean_up)

    def forget(self, link: bytes) -> tuple[int, bool]:
        """Remove what is frozen of the conversation of a link.

        How many entries there were, and whether it is certain that none is left anywhere.
        """
        self._confirmed.clear()
        # Excerpts, and what was forwarded before: nothing of it is to show, or to be missed.
        self._outcomes.clear()
        self._prefixes.clear()
        self.known.forget_messages()
        self._reader.clear()
        forgotten = self._ledger.forget(link)
        self._epoch.renew()
        return forgotten

    def clear(self) -> bool:
        """Forget every frozen edit and every count; whether it is certain that all is gone."""
        everywhere = self._ledger.clear()
        self._epoch.renew()
        self._forget_nearby()
        return everywhere

    def _forget_nearby(self) -> None:
        """Forget what is in this process's memory beside the ledger."""
        self._assessor.clear()
        self._estimates.clear()
        self._reader.clear()
        self._outcomes.clear()
        self._refused.clear()
        self._confirmed.clear()
        self._prefixes.clear()
        self._tabs.clear()
        if self._summaries is not None:
            self._summaries.clear()

    def _forget_what_is_not_shared(self) -> None:
        self._ledger.forget_nearby()
        self._forget_nearby()

    def _catch_up(self, ready: Ready) -> None:
        self._epoch.follow()
        self._estimates.read(ready)


def newest_birth(laid: Laid) -> bytes:
    """The link of the last message of which something is reduced since it is new."""
    return laid.sent.links[max(laid.births)]


def _proof(result: Result, found: Found) -> bytes:
    return result.ready.laid.sent.links[found.at] + bytes([found.entry.step % 256])
