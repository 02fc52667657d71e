"""What is counted, told and learned of a request once it is as it will be forwarded."""

from __future__ import annotations

import logging
from typing import Final

from mitmproxy import http
from msgspec.structs import replace

from mitmcontext.proxy import logs
from mitmcontext.proxy.commands import LINK
from mitmcontext.proxy.job import Result
from mitmcontext.proxy.marks import Marks, updated
from mitmcontext.proxy.prefixes import Break
from mitmcontext.proxy.state import State
from mitmcontext.values import Action, Outcome, Usage

# Bytes of requests that wait to be counted, a second's work; further ones never are.
_WAITING: Final = 8 << 20
_log: Final = logging.getLogger(__name__)


class Aftermath:
    """Takes note of requests."""

    def __init__(self, state: State, marks: Marks) -> None:
        self._state = state
        self._marks = marks
        # The flows that are being counted after they were forwarded.
        self._counting: set[str] = set()
        self._waiting = 0

    def conclude(self, flow: http.HTTPFlow, result: Result) -> None:
        """Show what was done. The request is as it will be forwarded."""
        broken = self._state.at_work().prefix_break(result)
        if broken == Break.UNEXPLAINED:
            self._state.figures_of(flow).broke_prefix()
            _log.warning("mitmcontext: a forwarded prefix changed without a step")
        elif broken == Break.STEP and result.outcome.action == Action.REAPPLIED:
            self._state.figures_of(flow).resumed_step()
        self._marks.show(flow, result.outcome)
        if (link := result.link) is not None and self._state.team is None:
            flow.metadata[LINK] = link.hex()
        if not result.counted:
            size = len(result.ready.request.body)
            room = not self._waiting or self._waiting + size <= _WAITING
            if room and not self._state.load.is_heavy:
                self._counting.add(flow.id)
                self._waiting += size
                self._state.later(self._count(flow, result))
            return
        self._marks.note(flow, result)
        of_steps = any(change.what != "birth" for change in result.outcome.changes)
        if result.outcome.steps and not of_steps and self._state.team is None:
            self._state.later(self._explain(flow, result))

    def is_counted(self, flow: http.HTTPFlow, result: Result) -> bool:
        """Whether the tokens of a request are in the figures, or will be."""
        return result.counted or flow.id in self._counting

    def stepped(self, flow: http.HTTPFlow, outcome: Outcome, *, counted: bool) -> None:
        """A step was taken for a request that was concluded, after the provider refused it.

        Where it was not counted then it counts now, as it would have been without the step.
        """
        figures = self._state.figures_of(flow)
        if not counted:
            figures.recount(replace(outcome, forwarded=outcome.forwarded + outcome.freed))
        figures.stepped(outcome)

    def learn(self, flow: http.HTTPFlow, usage: Usage) -> None:
        """The provider said what the request of a flow used."""
        result = self._state.pending.get(flow.id)
        if result is not None and usage.input_tokens:
            if result.counted:
                self._learned(flow, result, usage)
                updated(flow)
            elif flow.id in self._counting:
                self._state.uncounted[flow.id] = usage

    async def _count(self, flow: http.HTTPFlow, result: Result) -> None:
        """Count, after forwarding, what needed no count before."""
        try:
            counted = await self._state.at_work().count_later(result)
        finally:
            self._counting.discard(flow.id)
            self._waiting -= len(result.ready.request.body)
            reported = self._state.uncounted.pop(flow.id, None)
        spent = result.outcome.milliseconds
        counted = replace(counted, outcome=replace(counted.outcome, milliseconds=spent))
        self._state.figures_of(flow).recount(counted.outcome)
        self._marks.note(flow, counted)
        newest = self._state.pending.get(flow.id, result)
        if newest is not result:
            return  # another turn on a WebSocket meanwhile
        if flow.id in self._state.pending:
            self._state.pending[flow.id] = counted
        self._marks.mark(flow, counted.outcome)
        if reported is not None:
            self._learned(flow, counted, reported)
        updated(flow)

    async def _explain(self, flow: http.HTTPFlow, result: Result) -> None:
        """Tell, after forwarding, what steps did that were taken before the last start."""
        explained = await self._state.at_work().explain(result)
        self._marks.mark(flow, explained.outcome)
        updated(flow)

    def _learned(self, flow: http.HTTPFlow, result: Result, usage: Usage) -> None:
        """The provider said how large a request was that had been estimated."""
        worker, outcome, reported = self._state.at_work(), result.outcome, usage.input_tokens or 0
        worker.learn(result, reported)
        money = worker.bill(result, usage)
        if money is not None:
            self._state.figures_of(flow).billed(money, observed=bool(result.ready.observed))
            self._marks.money(flow, money)
            self._state.shown().billed(result, money)
        estimated = outcome.sent if outcome.action == Action.OBSERVED else outcome.forwarded
        if estimated and not result.ready.request.hidden:
            self._state.figures_of(flow).compared(estimated, reported)
            self._marks.report(flow, estimated, reported)
            for line in logs.reported(estimated, reported, self._state.settings):
                _log.info("mitmcontext: %s", line)
            self._state.shown().compared(result, estimated, reported)
