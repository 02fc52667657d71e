"""Saved flows: what condensing would have saved, and what it would have lost.

`mitmdump -nr flows.mitm -s addon/context.py` sends each of them down the way of a request in
observe mode, in their order and at the times that they were recorded. Nothing of them is changed,
and nothing is kept: the ledger and all caches live in memory, for this pass alone.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Iterator, Mapping
from typing import Any, Final

from mitmproxy import http
from msgspec.structs import replace

from mitmcontext.proxy import recorded, words
from mitmcontext.proxy.carried import carried
from mitmcontext.proxy.figures import Figures
from mitmcontext.proxy.hosts import host_of
from mitmcontext.proxy.job import Job, Result
from mitmcontext.proxy.page import dollars
from mitmcontext.proxy.shelves import Shelves
from mitmcontext.proxy.tee import Tee
from mitmcontext.proxy.work import Worker
from mitmcontext.settings import Settings
from mitmcontext.values import Action, Outcome, Standing, Unreadable, Usage

_OURS: Final = (Action.CONDENSED.value, Action.REAPPLIED.value)
_log: Final = logging.getLogger(__name__)


class _Own:
    """What the caches of a pass hang on."""


class Saved:
    """One pass over saved flows."""

    def __init__(self, settings: Settings) -> None:
        key = secrets.token_bytes(32)
        self._worker = Worker(carried(_Own()), Shelves(key, None, False, ""), settings)
        self._figures = Figures(time.monotonic)
        self._steps = 0
        self._freed = 0
        self._predicted = 0.0
        self._told = 0
        self._shortened = 0

    async def look(self, flow: http.HTTPFlow, job: Job | None, settings: Settings) -> None:
        """Take note of one flow; `job` is None for what is no LLM request."""
        if job is None:
            self._figures.saw()
            return
        worker, figures = self._worker, self._figures
        try:
            ready = await worker.look(replace(job, observed="a saved flow"), settings)
        except Unreadable as why:
            figures.record(Outcome(Action.LEFT_ALONE, str(why), api=job.api.name))
            return
        if ready.standing == Standing.ALONE:
            figures.record(Outcome(Action.LEFT_ALONE, ready.why, api=job.api.name))
            return
        result = await worker.decide(ready)
        if not result.counted:
            result = await worker.count_later(result)
        figures.record(result.outcome)
        self._note(flow, result.outcome)
        if flow.response is not None and flow.response.status_code < 300:
            await worker.confirm(result)
            self._read_usage(flow.response, result)

    def _note(self, flow: http.HTTPFlow, outcome: Outcome) -> None:
        kept = flow.metadata.get(recorded.KEY)
        self._shortened += isinstance(kept, Mapping) and kept.get("action") in _OURS
        if outcome.action != Action.OBSERVED or not outcome.freed:
            return
        self._steps += 1
        self._freed += outcome.freed
        self._predicted += outcome.predicted or 0.0
        _log.info("mitmcontext: %s", words.log_line(outcome, host_of(flow.request)))

    def _read_usage(self, answer: http.Response, result: Result) -> None:
        tee = Tee(
            result.ready.job.api.usage_of,
            lambda usage: self._learn(result, usage),
            self._figures.failed,
            content_type=answer.headers.get("content-type"),
            content_encoding=answer.headers.get("content-encoding"),
        )
        tee.read(answer.raw_content or b"")

    def _learn(self, result: Result, usage: Usage) -> None:
        if not usage.input_tokens:
            return
        self._worker.learn(result, usage.input_tokens)
        money = self._worker.bill(result, usage)
        if money is not None:
            self._told += 1
            self._figures.billed(money, observed=True)

    def summary(self) -> Iterator[str]:
        """What came of it, for people to read."""
        found = self._figures.snapshot()
        yield from _counts(found, self._shortened)
        sent, less = found["tokens"]["sent"], found["tokens"]["would_save"]
        if sent:
            yield (
                f"saved flows: {sent:,} tokens sent; condensing would have forwarded "
                f"{sent - less:,}, {less / sent:.1%} less, by {self._steps:,} steps"
            )
        yield from _money(found, self._predicted, self._told)
        lost = ", ".join(f"{count:,} x {what}" for what, count in found["changes"].items())
        yield f"saved flows: what would have been shortened: {lost or 'nothing'}"


def _counts(found: Mapping[str, Any], shortened: int) -> Iterator[str]:
    requests = found["requests"]
    alone, failed = requests["left_alone"], requests["failed_open"]
    yield (
        f"saved flows: {requests['seen']:,} requests, {requests['recognised']:,} of them to LLMs; "
        f"{alone:,} left alone, {requests['observed']:,} would have been shortened"
        + (f", {failed:,} failed open" if failed else "")
    )
    if shortened:
        yield f"saved flows: {shortened:,} were saved as this addon had already shortened them"


def _money(found: Mapping[str, Any], predicted: float, told: int) -> Iterator[str]:
    money = found["money"]
    turns = found["requests"]["recognised"] - found["requests"]["left_alone"]
    if money["requests_priced"]:
        cost, less = money["cost"], money["would_save"]
        yield (
            f"saved flows: they cost {dollars(cost)}; condensing would have saved "
            f"{dollars(less)} ({less / cost if cost else 0:.1%}) after cache effects, "
            f"{dollars(predicted)} predicted"
        )
    if money["requests_of_unknown_price"]:
        count = money["requests_of_unknown_price"]
        yield f"saved flows: {count:,} requests of models whose prices are not known"
    if turns > told:
        yield f"saved flows: {turns - told:,} requests without a report of what they used"
