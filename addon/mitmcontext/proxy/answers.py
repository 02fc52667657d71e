"""What happens to an answer: it passes, is read along, or is asked for once more.

An answer is held only where it may have to be replaced: a refusal of what we made of a request.
"""

from __future__ import annotations

import logging
from contextlib import suppress
from typing import Final

from mitmproxy import ctx, http
from msgspec.structs import replace

from mitmcontext.proxy import bodies
from mitmcontext.proxy.aftermath import Aftermath
from mitmcontext.proxy.guard import guarded
from mitmcontext.proxy.job import Result, headers_of, may_step
from mitmcontext.proxy.marks import Marks
from mitmcontext.proxy.resend import commit, resend, tls_context, upstream_proxy
from mitmcontext.proxy.state import State
from mitmcontext.proxy.tee import HELD, Handling, Tee, handling
from mitmcontext.values import Action, TooLong, Unreadable
from mitmcontext.wire import api_for

_LARGEST_REFUSAL: Final = 1 << 20
# A model's complete answer may take minutes; clients give up after ten.
_RESEND_SECONDS: Final = 600.0
_log: Final = logging.getLogger(__name__)


class Answers:
    """The way back.

    Args:
        state: what the hooks share.
        marks: says what became of a request.
        aftermath: learns from what providers report.
    """

    def __init__(self, state: State, marks: Marks, aftermath: Aftermath) -> None:
        self._state = state
        self._marks = marks
        self._aftermath = aftermath

    def begins(self, flow: http.HTTPFlow) -> None:
        """Let an answer through as it arrives, and read its usage on the side."""
        result = self._state.pending.get(flow.id)
        answer = flow.response
        if answer is None or flow.websocket is not None or not flow.live:
            return
        replaced = result is not None and (result.raw is not None or may_step(result))
        headers = headers_of(answer)
        kind = headers.get("content-type")
        path = flow.request.path.partition("?")[0]
        recognised = result is not None or api_for(flow.request.method, path) is not None
        how = handling(
            answer.status_code,
            kind,
            recognised=recognised,
            rewritten=replaced,
            length=headers.get("content-length"),
        )
        if how == Handling.STREAM or (how == Handling.TEE and result is None):
            answer.stream = True
        elif how in (Handling.TEE, Handling.READ) and result is not None:
            tee = Tee(
                result.ready.job.api.usage_of,
                lambda usage: self._aftermath.learn(flow, usage),
                self._state.figures_of(flow).failed,
                content_type=kind,
                content_encoding=headers.get("content-encoding"),
            )
            self._state.tees[flow.id] = tee
            # With stream_large_bodies even a small one may be streamed already.
            if how == Handling.TEE or answer.stream:
                answer.stream = tee

    async def ends(self, flow: http.HTTPFlow) -> None:
        """Send once more what was refused for its shape; clear up after an answer."""
        try:
            with guarded(self._state.figures.failed):
                tee = self._state.tees.get(flow.id)
                if tee is not None and flow.response is not None and not flow.response.stream:
                    tee.read(flow.response.raw_content or b"")
                await self._refused(flow)
                self._accepted(flow)
        finally:
            self.clear_up(flow)

    def breaks_off(self, flow: http.HTTPFlow) -> None:
        """Clear up after an exchange that broke off."""
        with guarded(self._state.figures.failed):
            tee = self._state.tees.get(flow.id)
            if tee is not None:
                tee.finish()
        self.clear_up(flow)

    def clear_up(self, flow: http.HTTPFlow) -> None:
        """Forget what was known of a flow while it was in flight."""
        with guarded(self._state.figures.failed):
            self._state.tees.pop(flow.id, None)
            self._state.pending.pop(flow.id, None)
            self._state.passed()
            self._state.eviction.finished(flow, self._state.settings.context_keep_flows)

    def _accepted(self, flow: http.HTTPFlow) -> None:
        """The provider took a request: what is frozen lives on, and the next step is prepared."""
        result = self._state.pending.get(flow.id)
        if result is None or flow.response is None:
            return
        if flow.response.status_code < 300:
            for work in self._state.at_work().accepted(result):
                self._state.later(work)

    async def _refused(self, flow: http.HTTPFlow) -> None:
        """Where the provider refused the length or the shape of a request, send it once more."""
        result = self._state.pending.get(flow.id)
        answer = flow.response
        if answer is None or answer.raw_content is None or answer.status_code not in HELD:
            return
        if result is None:
            self._refused_unread(flow, answer)
            return
        said, api = _said(answer), result.ready.job.api
        too_long = api.refuses_length(answer.status_code, said)
        if too_long is not None:
            await self._step_further(flow, result, too_long)
        elif self._state.at_work().is_unproven(result) and api.refuses_shape(
            answer.status_code, said
        ):
            await self._step_back(flow, result)

    def _refused_unread(self, flow: http.HTTPFlow, answer: http.Response) -> None:
        """Where the length of a request was refused that nobody read, the next ones are read."""
        path = flow.request.path.partition("?")[0]
        api = api_for(flow.request.method, path)
        with suppress(Unreadable):
            too_long = api and api.refuses_length(answer.status_code, _said(answer))
            if api is not None and too_long is not None:
                self._state.at_work().unread.was_too_long(api, path, flow.request)

    async def _step_further(self, flow: http.HTTPFlow, result: Result, too_long: TooLong) -> None:
        """Take the strongest step that the provider's own figures call for, once.

        Where that does not help, the client gets the refusal as it came.
        """
        worker, counted = self._state.at_work(), self._aftermath.is_counted(flow, result)
        self._state.figures_of(flow).refused_length()
        further = await worker.step_further(result, too_long)
        if further is None or further.raw is None:
            return
        again = await self._send_again(flow, further.raw)
        if again is None or again.status_code >= 400:
            return
        flow.response = again
        self._marks.keep_original(flow, further.ready.job.raw)
        commit(flow.request, further.raw)
        self._state.pending[flow.id] = further
        worker.prefix_break(further)
        self._aftermath.stepped(flow, further.outcome, counted=counted)
        self._marks.note(flow, further)
        self._marks.mark(flow, further.outcome)
        self._marks.log_step(flow, further.outcome)

    async def _send_again(self, flow: http.HTTPFlow, raw: bytes) -> http.Response | None:
        mode = flow.client_conn.proxy_mode.full_spec
        again = await resend(
            flow.request,
            raw,
            seconds=_RESEND_SECONDS,
            verify=tls_context(ctx.options),
            proxy=upstream_proxy([mode], ctx.options.upstream_auth),
            largest=self._state.settings.context_max_body,
        )
        if again is None:
            _log.warning("mitmcontext: a refused request could not be sent again")
        return again

    async def _step_back(self, flow: http.HTTPFlow, result: Result) -> None:
        """Go one rung down, once.

        Only when the answer to that is better was the step at fault, and is taken back.
        """
        self._state.figures_of(flow).refused()
        worker = self._state.at_work()
        again = await self._send_again(flow, await worker.step_back(result))
        if again is None:
            return
        if result.ready.job.api.refuses_length(again.status_code, _said(again)) is not None:
            return  # no news to the client, who knows nothing of the length that was saved
        flow.response = again
        if again.status_code < 400:
            await worker.retract(result)
            reason = "the provider refused the rewritten request; sent again without the step"
            _log.warning("mitmcontext: %s", reason)
            outcome = replace(result.outcome, action=Action.FAILED_OPEN, reason=reason)
            self._marks.mark(flow, outcome)


def _said(answer: http.Response) -> bytes:
    """The body of an answer, as far as it is one of a refusal.

    Raises:
        Unreadable: it is longer, or damaged.
    """
    coding = answer.headers.get("content-encoding")
    return bodies.decode(answer.raw_content or b"", coding, _LARGEST_REFUSAL)
