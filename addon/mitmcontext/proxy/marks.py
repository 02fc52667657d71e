"""What is said of a request: on its flow, in the log, in the figures and in the history."""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from mitmproxy import ctx, http
from mitmproxy.hooks import UpdateHook

from mitmcontext.proxy import logs, recorded, words
from mitmcontext.proxy.hosts import host_of
from mitmcontext.proxy.job import Result
from mitmcontext.proxy.state import State
from mitmcontext.values import Action, Money, Outcome

_log: Final = logging.getLogger(__name__)


class Marks:
    """Says it. In a team nothing of it stands where others could see it."""

    def __init__(self, state: State) -> None:
        self._state = state

    def show(self, flow: http.HTTPFlow, outcome: Outcome) -> None:
        """A request was looked at: count it, and say on its flow what became of it."""
        known = self._state.at_work().known
        self._state.figures.counted(*known.take())
        self._state.figures_of(flow).record(outcome)
        flow.metadata.pop(recorded.KEY, None)  # of an earlier turn on a WebSocket
        self.mark(flow, outcome)
        if outcome.action == Action.CONDENSED:
            self.log_step(flow, outcome)

    def mark(self, flow: http.HTTPFlow, outcome: Outcome) -> None:
        """A flow's comment, its mark, and what its content view shows."""
        if self._state.team is not None:
            return
        flow.comment = words.comment(outcome)
        flow.metadata[recorded.KEY] = recorded.to_metadata(outcome) | recorded.told_by_provider(
            flow.metadata
        )
        flow.marked = words.mark(outcome) or flow.marked

    def report(self, flow: http.HTTPFlow, estimated: int, reported: int) -> None:
        """Beside these: the provider's own count, in tokens."""
        if self._state.team is None and recorded.KEY in flow.metadata:
            flow.metadata[recorded.KEY] |= recorded.report_to_metadata(estimated, reported)

    def money(self, flow: http.HTTPFlow, money: Money) -> None:
        """Beside these: what the request has cost and saved."""
        if self._state.team is None and recorded.KEY in flow.metadata:
            flow.metadata[recorded.KEY] |= recorded.money_to_metadata(money)

    def failed(self, flow: http.HTTPFlow, reason: str) -> None:
        """The request goes out as it came; say so, by the kind of the fault alone."""
        _log.warning("mitmcontext: a request was left as it came (%s)", reason)
        outcome = Outcome(Action.FAILED_OPEN, reason)
        self._state.figures_of(flow).record(outcome)
        self.mark(flow, outcome)

    def note(self, flow: http.HTTPFlow, result: Result) -> None:
        """Take note of a request that was counted, unless there are others who could see it."""
        for line in logs.lines(result.outcome, self._state.settings):
            _log.info("mitmcontext: %s", line)
        if self._state.team is None:
            self._state.shown().note(result, result.ready.job.host, flow.id)

    def log_step(self, flow: http.HTTPFlow, outcome: Outcome) -> None:
        """One line in the log about a step."""
        host, team = host_of(flow.request), self._state.team
        line = words.log_line(outcome, host) if team is None else team.log_line(outcome)
        _log.info("mitmcontext: %s", line)

    def keep_original(self, flow: http.HTTPFlow, raw: bytes | None) -> None:
        """Keep what the client sent, where somebody can ask for it."""
        if raw and self._state.team is None and getattr(ctx.master, "view", None) is not None:
            coding = flow.request.headers.get("content-encoding", "")
            self._state.later(
                asyncio.to_thread(self._state.shown().originals.keep, flow.id, raw, coding)
            )


def updated(flow: http.HTTPFlow) -> None:
    """Have a flow shown anew, where flows are shown."""
    if getattr(ctx.master, "view", None) is not None:
        ctx.master.addons.trigger(UpdateHook([flow]))
