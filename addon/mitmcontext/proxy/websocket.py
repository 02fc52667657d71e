"""OpenAI Responses over a WebSocket, which is how Codex speaks.

A turn's frame brings only what is new; the provider keeps the rest for the connection. So the
conversation is mirrored, and each turn goes through the same worker as a POST that brings all of
it: the same ledger, steps, checks and figures. Where a step is due, the frame goes out with the
whole condensed input and goes on from nothing, as Codex itself does it after its own compaction.
Later frames go on from the answer to that one, as they came. In any doubt frames pass.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any, Final

import msgspec
from cachetools import LRUCache
from mitmproxy import ctx, http
from mitmproxy.proxy.layers.websocket import Fragmentizer
from mitmproxy.websocket import WebSocketMessage
from msgspec.structs import replace

from mitmcontext.proxy.aftermath import Aftermath
from mitmcontext.proxy.guard import is_the_end
from mitmcontext.proxy.job import Job, Result
from mitmcontext.proxy.marks import Marks
from mitmcontext.proxy.state import State
from mitmcontext.values import Action, Outcome, Standing, TooLong, Unreadable
from mitmcontext.wire import responses_socket
from mitmcontext.wire.api import Api
from mitmcontext.wire.openai_responses import RESPONSES
from mitmcontext.wire.responses_socket import Event, Frame, Mirror

# Reading this much takes a millisecond or two.
_INLINE: Final = 256 << 10
_LINE: Final = 1_000
# Which turn the connection was opened for says nothing of the turns that came later.
_OF_ONE_TURN: Final = "x-codex-turn-metadata"
_log: Final = logging.getLogger(__name__)


class Line(msgspec.Struct, frozen=True):
    """One connection.

    Attributes:
        mirror: its conversation as the client has it.
        held: the frozen edits that the provider's history carries, as a mark; b"" for none.
        going: the same for the turn in flight.
        original: the frame as the client sent it, where another one went out and nothing came back.
        injected: a frame of ours that mitmproxy is about to show us.
        again: whether the turn went out once more.
        blamed: whether that was without its step.
    """

    mirror: Mirror = msgspec.field(default_factory=Mirror)
    held: bytes = b""
    going: bytes = b""
    original: bytes | None = None
    injected: bytes | None = None
    again: bool = False
    blamed: bool = False

    @property
    def size(self) -> int:
        """About how many bytes it takes."""
        frames = sum(len(one) for one in (self.original, self.injected) if one)
        return _LINE + self.mirror.size + frames


Lines = LRUCache[str, Line]


def is_upgrade(flow: http.HTTPFlow) -> bool:
    """Whether a request asks for a WebSocket to Responses."""
    request = flow.request
    if request.method != "GET" or not responses_socket.upgrades(request.path.partition("?")[0]):
        return False
    wanted: str = request.headers.get("upgrade", "")
    return wanted.lower() == "websocket"


def refusal() -> http.Response:
    """What sends a client back to POST: Codex does so at once, for the whole session."""
    return http.Response.make(
        426,
        b"This proxy wants these requests by POST (context_websocket is fallback).\n",
        {"Content-Type": "text/plain; charset=utf-8", "Upgrade": "HTTP/1.1"},
    )


class Sockets:
    """The turns on all connections, each of which shares its way with a request.

    Args:
        state: what the hooks share.
        marks: says what became of a turn.
        aftermath: takes note of it.
        job_of: what of a flow goes into the pipeline, with another path and body.
        passes: whether a flow is none to look at.
        lines: everything that is kept of the connections.
    """

    def __init__(
        self,
        state: State,
        marks: Marks,
        aftermath: Aftermath,
        job_of: Callable[[http.HTTPFlow, Api, str, bytes], Job],
        passes: Callable[[http.HTTPFlow], Coroutine[Any, Any, bool]],
        lines: Lines,
    ) -> None:
        self._state = state
        self._marks = marks
        self._aftermath = aftermath
        self._job_of = job_of
        self._passes = passes
        self._lines = lines

    def opened(self, flow: http.HTTPFlow) -> None:
        """Answer an upgrade where turns are to come by POST."""
        settings = self._state.settings
        if settings.context_websocket == "fallback" and settings.context_mode == "condense":
            reason = "a WebSocket, sent back to come by POST (context_websocket is fallback)"
            self._marks.show(flow, Outcome(Action.LEFT_ALONE, reason, api=RESPONSES.name))
            flow.response = refusal()
        else:
            self._state.figures_of(flow).saw()

    async def message(self, flow: http.HTTPFlow) -> None:
        """Follow a message, and put another one in its place where a step is due.

        mitmproxy delivers the messages of a connection one after the other: while this waits,
        those behind it wait, too.
        """
        if flow.websocket is None or not flow.websocket.messages:
            return
        message = flow.websocket.messages[-1]
        came = message.content
        try:
            if not message.from_client:
                if flow.id in self._lines and not message.injected:
                    await self._from_server(flow, message)
            elif is_upgrade(flow):
                await self._from_client(flow, message)
        except BaseException as error:
            if is_the_end(error):
                raise
            message.content, message.dropped = came, False
            mirror = (self._lines.get(flow.id) or Line()).mirror
            self._lines[flow.id] = Line(responses_socket.lost(mirror, opened=message.from_client))
            self._state.pending.pop(flow.id, None)
            self._state.figures_of(flow).failed(type(error).__name__)
            if message.from_client:
                reason = type(error).__name__
                self._marks.show(flow, Outcome(Action.FAILED_OPEN, reason, api=RESPONSES.name))

    def closed(self, flow: http.HTTPFlow) -> None:
        """Nothing more comes on this connection.

        Where the provider refused a turn and hung up before it could be sent again, the client has
        not heard of the refusal and comes again: then without the step.
        """
        line, result = self._lines.pop(flow.id, None), self._state.pending.get(flow.id)
        if line is not None and line.blamed and line.mirror.open and result is not None:
            self._state.later(self._state.at_work().retract(result))

    # Turns.

    async def _from_client(self, flow: http.HTTPFlow, message: WebSocketMessage) -> None:
        line = self._lines.get(flow.id) or Line()
        if message.injected and message.content == line.injected:
            self._keep(flow, replace(line, injected=None))
            return
        if await self._passes(flow):
            self._lines.pop(flow.id, None)
            self._state.figures_of(flow).saw()
            return
        try:
            frame = await self._frame(message)
        except Unreadable as why:
            aside = isinstance(why, responses_socket.Aside)
            self._give_up(flow, line, str(why), opened=not aside)
            return
        if frame is not None:
            await self._turn(flow, message, line, frame)

    async def _frame(self, message: WebSocketMessage) -> Frame | None:
        content = message.content
        if not message.is_text:
            raise Unreadable("a frame that is not text")
        if message.injected:
            raise Unreadable("a frame that was injected by hand")
        if len(content) > self._state.settings.context_max_body:
            raise Unreadable("larger than context_max_body")
        if len(content) <= _INLINE:
            return responses_socket.frame_of(content)
        return await asyncio.to_thread(responses_socket.frame_of, content)

    async def _turn(
        self, flow: http.HTTPFlow, message: WebSocketMessage, line: Line, frame: Frame
    ) -> None:
        settings = self._state.settings
        mirror, doubt = responses_socket.asked(line.mirror, frame)
        items = mirror.coming
        if items is None or mirror.size > settings.context_max_body:
            self._give_up(flow, line, doubt or "larger than context_max_body")
            return
        held = line.held if frame.previous else b""
        line = Line(mirror, held=held, going=held)
        if not items:
            self._pass(flow, line, "nothing to look at yet: the client warms the provider up")
            return
        worker = self._state.at_work()
        try:
            ready = await worker.look(self._job(flow, frame.whole(items)), settings)
        except Unreadable as why:
            self._give_up(flow, line, str(why), opened=0)
            return
        if ready.standing == Standing.ALONE:
            self._pass(flow, line, ready.why)
            return
        result = await worker.decide(ready)
        replaced = _is_replaced(result, frame, held)
        if replaced:
            line = replace(line, going=_mark_of(result), original=message.content)
        self._keep(flow, line)
        self._state.pending[flow.id] = result
        if replaced and result.raw is not None:
            message.content = _sendable(result.raw)
        try:
            self._aftermath.conclude(flow, result)
        except Exception as error:  # noqa: BLE001 - the frame is right; only showing it failed
            self._state.figures_of(flow).failed(type(error).__name__)

    def _job(self, flow: http.HTTPFlow, whole: bytes) -> Job:
        job = self._job_of(flow, RESPONSES, flow.request.path.partition("?")[0], whole)
        headers = {name: value for name, value in job.headers.items() if name != _OF_ONE_TURN}
        observed = job.observed
        if self._state.settings.context_websocket != "condense":
            observed = observed or "a WebSocket (context_websocket is observe)"
        return replace(job, headers=headers, observed=observed)

    def _pass(self, flow: http.HTTPFlow, line: Line, reason: str) -> None:
        """Nothing is done with this turn, and it is known what it stands for."""
        self._state.pending.pop(flow.id, None)
        self._keep(flow, line)
        self._marks.show(flow, Outcome(Action.LEFT_ALONE, reason, api=RESPONSES.name))

    def _give_up(self, flow: http.HTTPFlow, line: Line, reason: str, opened: int = 1) -> None:
        """Nothing is known of the conversation until a frame brings its full input."""
        self._pass(flow, Line(responses_socket.lost(line.mirror, opened=opened)), reason)

    def _keep(self, flow: http.HTTPFlow, line: Line) -> None:
        try:
            self._lines[flow.id] = line
        except ValueError:  # larger than all of them together may be
            self._lines[flow.id] = Line(responses_socket.lost(line.mirror))

    # What comes back.

    async def _from_server(self, flow: http.HTTPFlow, message: WebSocketMessage) -> None:
        line = self._lines[flow.id]
        if not line.mirror.open:
            return
        try:
            event = responses_socket.event_of(message.content)
        except Unreadable:
            self._keep(flow, Line(responses_socket.lost(line.mirror)))
            return
        if event is None:
            return
        if responses_socket.is_failed(event) and await self._again(flow, message, line, event):
            return
        if responses_socket.is_created(event):
            line = replace(line, original=None)
        known = line.mirror.coming is not None
        completed = responses_socket.is_completed(event)
        mirror = responses_socket.told(line.mirror, event)
        held = line.going if completed else line.held
        self._keep(flow, replace(line, mirror=mirror, held=held))
        if completed:
            await self._completed(flow, line, event, known=known)

    async def _completed(
        self, flow: http.HTTPFlow, line: Line, event: Event, *, known: bool
    ) -> None:
        """Learn from what the provider reports; what it took is as good as confirmed."""
        result = self._state.pending.get(flow.id)
        if result is None or not known:
            return
        usage = responses_socket.usage_of_whole(event)
        if usage is not None and not line.blamed:
            self._aftermath.learn(flow, usage)
        worker = self._state.at_work()
        if line.blamed:
            # Before the client hears of it: its next turn is not to meet with the step again.
            await worker.retract(result)
        else:
            self._state.later(worker.confirm(result))

    async def _again(
        self, flow: http.HTTPFlow, message: WebSocketMessage, line: Line, event: Event
    ) -> bool:
        """Where the provider refuses a turn for its length or shape, send it once more.

        Only where the client has not yet heard of this response, so that it sees just the answer
        to the second one.
        """
        result = self._state.pending.get(flow.id)
        if result is None or line.mirror.coming is None or line.again:
            return False
        too_long = RESPONSES.refuses_length(200, message.content)
        if too_long is not None:
            return await self._step_further(flow, message, line, result, too_long)
        refused = RESPONSES.refuses_shape(responses_socket.status_of(event), message.content)
        if line.original is None or not refused:
            return False
        self._state.figures_of(flow).refused()
        reason = "the provider refused the rewritten turn; sent again as it came"
        _log.warning("mitmcontext: %s", reason)
        self._marks.mark(flow, replace(result.outcome, action=Action.FAILED_OPEN, reason=reason))
        again = replace(line, going=line.held, original=None, blamed=True)
        self._send_again(flow, message, again, line.original)
        return True

    async def _step_further(
        self,
        flow: http.HTTPFlow,
        message: WebSocketMessage,
        line: Line,
        result: Result,
        too_long: TooLong,
    ) -> bool:
        counted = self._aftermath.is_counted(flow, result)
        self._state.figures_of(flow).refused_length()
        further = await self._state.at_work().step_further(result, too_long)
        if further is None or further.raw is None or line.mirror.created:
            return False
        self._state.pending[flow.id] = further
        self._state.at_work().prefix_break(further)
        self._aftermath.stepped(flow, further.outcome, counted=counted)
        self._marks.mark(flow, further.outcome)
        again = replace(line, going=_mark_of(further), original=None)
        self._send_again(flow, message, again, further.raw)
        return True

    def _send_again(
        self, flow: http.HTTPFlow, message: WebSocketMessage, line: Line, frame: bytes
    ) -> None:
        frame = _sendable(frame)
        self._keep(flow, replace(line, injected=frame, again=True))
        message.drop()
        ctx.master.commands.call("inject.websocket", flow, False, frame, True)


def _sendable(frame: bytes) -> bytes:
    """A frame of ours in a form that mitmproxy leaves whole.

    It cuts what was changed into pieces of so many bytes, and a character that is cut in two is
    lost. Clients send a turn in one piece, which servers may count on: for that mitmproxy lets
    addons set the size.
    """
    frame = responses_socket.in_ascii(frame)
    Fragmentizer.FRAGMENT_SIZE = max(Fragmentizer.FRAGMENT_SIZE, len(frame))
    return frame


def _is_replaced(result: Result, frame: Frame, held: bytes) -> bool:
    """Whether the provider would otherwise go on from another history than it should see."""
    if result.raw is None:
        return False
    if not frame.previous:
        return True
    return result.ready.standing == Standing.TURN and _mark_of(result) != held


def _mark_of(result: Result) -> bytes:
    """The frozen edits that are laid over a conversation; equal marks stand for equal ones."""
    link = result.link
    found = result.ready.laid.found
    if link is None or found is None or result.ready.observed:
        return b""
    births = len(result.ready.laid.births)
    return link + found.entry.step.to_bytes(4, "big") + births.to_bytes(4, "big")
