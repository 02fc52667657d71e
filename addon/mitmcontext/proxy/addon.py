"""The hooks: what mitmproxy calls, and the one place where a request is changed.

Every hook is guarded. Whatever goes wrong inside, the request goes out one rung further down: with
the new step, with what is frozen already, as the client sent it. All work is done on copies; the
only change to a request is `_commit`, which comes last.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import time
from collections.abc import Coroutine, MutableMapping
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import Any, Final

from mitmproxy import contentviews, ctx, exceptions, http
from mitmproxy.addonmanager import Loader
from mitmproxy.addons.asgiapp import serve
from mitmproxy.hooks import UpdateHook

from mitmcontext.proxy import bodies, logs, options, recorded, running, view, words
from mitmcontext.proxy.asking import Asker, Asks
from mitmcontext.proxy.carried import Carried, carried, drop_finished, was_carried
from mitmcontext.proxy.commands import LINK, Commands, Reach
from mitmcontext.proxy.display import Display
from mitmcontext.proxy.eviction import Eviction
from mitmcontext.proxy.figures import Figures
from mitmcontext.proxy.hosts import host_of
from mitmcontext.proxy.job import Job, Ready, Result, may_step
from mitmcontext.proxy.listing import Row
from mitmcontext.proxy.page import page
from mitmcontext.proxy.prefixes import Break
from mitmcontext.proxy.resend import resend, tls_context, upstream_proxy
from mitmcontext.proxy.saved import Saved
from mitmcontext.proxy.shelves import shelves
from mitmcontext.proxy.team import Team, objections
from mitmcontext.proxy.tee import HELD, Handling, Tee, handling
from mitmcontext.proxy.tenant import is_subscription, keyed, tenant
from mitmcontext.proxy.websocket import Lent, Sockets, is_upgrade
from mitmcontext.proxy.work import Worker
from mitmcontext.settings import BadSetting, Settings, load
from mitmcontext.values import Action, Money, Outcome, Standing, TooLong, Unreadable, Usage
from mitmcontext.wire import api_for
from mitmcontext.wire.api import Api

HOST: Final = "context.mitm"
_PORT: Final = 80
# Headers that say that something outside the body depends on its bytes.
_SIGNATURES: Final = ("content-md5", "digest", "content-digest", "x-amz-content-sha256")
_LARGEST_REFUSAL: Final = 1 << 20
# A model's complete answer may take minutes; clients give up after ten.
_RESEND_SECONDS: Final = 600.0
_log: Final = logging.getLogger(__name__)


class ContextAddon:
    """mitmcontext as mitmproxy sees it."""

    name = "mitmcontext"

    def __init__(self) -> None:
        self._settings = Settings()
        self._running = False
        self._is_first = False
        self._figures = Figures(time.monotonic)
        self._worker: Worker | None = None
        self._asker: Asker | None = None
        self._team: Team | None = None
        self._kept: Carried | None = None
        self._key = b""
        self._pending: dict[str, Result] = {}
        self._tees: dict[str, Tee] = {}
        self._flows: MutableMapping[str, http.HTTPFlow] = {}
        # What was reported before the request was counted.
        self._uncounted: dict[str, Usage] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._cleaner: asyncio.Task[None] | None = None
        self._eviction = Eviction()
        self._sockets: Sockets | None = None
        self._saved: Saved | None = None
        self._display: Display | None = None
        self._page = page(self._shown_to_all)
        self.addons = [Commands(self._reach())]

    # What mitmproxy does once, and on a live reload.

    def load(self, loader: Loader) -> None:
        """Declare options and the content view; take over what an earlier load left."""
        options.declare(loader)
        self._is_first = not was_carried(loader.master)
        self._kept = kept = carried(loader.master)
        drop_finished(kept)
        self._pending, self._tees, self._flows = kept["pending"], kept["tees"], kept["flows"]
        self._figures = Figures(time.monotonic, kept["figures"])
        self._sockets = Sockets(self._lent(), kept["lines"])
        self._display = Display(
            kept,
            self._figures,
            lambda: self._at_work().stores(),
            lambda: self._settings,
        )
        self._eviction = Eviction(kept["finished"], self._display.originals.forget)
        contentviews.add(view.ContextView(self._rows))
        contentviews.add(view.OriginalView(lambda flow: self._shown().original(flow.id)))

    def configure(self, updated: set[str]) -> None:
        """Read the settings.

        Raises:
            OptionsError: while running: mitmproxy shows it and puts the old value back. During the
                start it would print a traceback around it, but an error in the log ends the start.
        """
        try:
            settings = load(options.those_set(ctx.options), os.environ)
            self._check_team(settings)
            self._settings = settings
            if self._asker is not None:
                self._asker.forget()
            if self._worker is None and self._kept is not None:
                self._open(self._kept)
        except BadSetting as error:
            if self._running:
                raise exceptions.OptionsError(str(error)) from None
            _log.error("mitmcontext: %s", error)

    def _check_team(self, settings: Settings) -> None:
        """Let nothing through that would show some people of a team what others send.

        Raises:
            BadSetting: something would.
        """
        if self._running and settings.context_team != (self._team is not None):
            raise BadSetting("context_team is read at the start")
        if settings.context_team:
            keeps_flows = getattr(ctx.master, "view", None) is not None
            for objection in objections(ctx.options, keeps_flows=keeps_flows):
                raise BadSetting(objection)

    def _open(self, kept: Carried) -> None:
        """Open what survives a restart; requests may come from now on.

        Raises:
            BadSetting: a key file or an address that cannot be.
        """
        opened = shelves(self._settings, os.environ)
        self._key = opened.tenants
        self._asker = Asker(lambda: tls_context(ctx.options))
        self._worker = Worker(kept, opened, self._settings, self._asker)
        if self._settings.context_team:
            self._team = Team(
                kept["figures"], self._figures, opened.choices, self._key, shared=opened.shared
            )
        if opened.note:
            _log.warning("mitmcontext: nothing survives a restart: %s", opened.note)

    def running(self) -> None:
        """Say what looks like a slip, keep bodies for mitmweb, and load the vocabulary."""
        self._running = True
        for sentence in options.misspelt(ctx.options.deferred, os.environ):
            _log.warning("mitmcontext: %s", sentence)
        if getattr(ctx.master, "view", None) is not None:
            # Answers are streamed, and mitmweb could not show them otherwise.
            ctx.options.update(store_streamed_bodies=True)
            self._at_work().known.tell = self._shown().descriptions.note
        if self._worker is not None:
            self._worker.warm_up()
            self._cleaner = asyncio.create_task(self._clean_up(self._worker))
        running.began(self._snapshot)
        display = self._shown()
        display.start(ctx.master)
        # A full collection looks at everything there is: 50 ms of the event loop, most of it for
        # modules that stay as long as the process. What there is at the start is looked at no more.
        # After a reload there is old code among it, which requests in flight may still hold.
        gc.collect()
        if self._is_first:
            gc.freeze()
        where = f"http://{HOST}/" + (", live at /context of mitmweb" if display.has_page else "")
        _log.info("mitmcontext: %s; figures at %s", self._settings.context_mode, where)

    # The way of a request.

    async def request(self, flow: http.HTTPFlow) -> None:
        """Forward a request that fits, by whatever rung of the ladder holds."""
        if not flow.live:
            await self._look_at_saved(flow)
            return
        if flow.response or flow.error:
            return
        try:
            if host_of(flow.request) == HOST:
                await self._serve(flow)
            else:
                await self._request(flow)
        except (asyncio.CancelledError, KeyboardInterrupt):
            raise
        except BaseException as error:  # noqa: BLE001 - a request is never lost to a fault of ours
            self._failed(flow, type(error).__name__)

    async def _serve(self, flow: http.HTTPFlow) -> None:
        """A page of ours, for whoever asks the proxy for it."""
        if self._team is not None:
            await self._team.serve(flow, self._settings, self._snapshot())
        elif flow.request.port == _PORT:
            await serve(self._page, flow)

    async def _look_at_saved(self, flow: http.HTTPFlow) -> None:
        """In mitmdump, say of saved flows what condensing would have done with them."""
        off = self._settings.context_mode == "off" or not self._is_watched(flow)
        if off or self._team is not None or getattr(ctx.master, "view", None) is not None:
            return
        try:
            path = flow.request.path.partition("?")[0]
            api, raw = api_for(flow.request.method, path), flow.request.raw_content
            job = None if api is None or raw is None else self._job(flow, api, path, raw)
            if self._saved is None:
                self._saved = Saved(self._settings)
            await self._saved.look(flow, job, self._settings)
        except Exception as error:  # noqa: BLE001 - the other flows are to be read all the same
            self._figures.failed(type(error).__name__)

    async def _request(self, flow: http.HTTPFlow) -> None:
        began = time.perf_counter()
        request = flow.request
        path = request.path.partition("?")[0]
        api = api_for(request.method, path)
        upgrade = is_upgrade(flow)
        if (api is None and not upgrade) or await self._passes(flow):
            self._figures_of(flow).saw()
            return
        self._flows[flow.id] = flow
        if upgrade and self._sockets is not None:
            self._sockets.opened(flow)
        if api is None:
            return
        reason = self._why_not(flow)
        if reason or request.raw_content is None:
            self._show(flow, _alone(api, reason or "too large, or streamed by mitmproxy"))
            return
        worker = self._at_work()
        try:
            ready = await worker.look(
                self._job(flow, api, path, request.raw_content), self._settings
            )
        except Unreadable as why:
            self._show(flow, _alone(api, str(why)))
            return
        if ready.standing is Standing.ALONE:
            self._show(flow, _alone(api, ready.why, ready))
            return
        result = await worker.decide(ready, began)
        self._pending[flow.id] = result
        if result.raw is not None:
            self._keep_original(flow, request.raw_content)
            _commit(request, result.raw)
        try:
            self._conclude(flow, result)
        except Exception as error:  # noqa: BLE001 - the request is right; only showing it failed
            self._figures_of(flow).failed(type(error).__name__)

    async def _passes(self, flow: http.HTTPFlow) -> bool:
        """Whether a flow is none to look at: by the settings, or since somebody opted out."""
        if self._settings.context_mode == "off" or not self._is_watched(flow):
            return True
        return self._team is not None and await self._team.is_out(flow, self._settings)

    def _conclude(self, flow: http.HTTPFlow, result: Result) -> None:
        """Show what was done. The request is as it will be forwarded."""
        broken = self._at_work().prefix_break(result)
        if broken is Break.UNEXPLAINED:
            self._figures_of(flow).broke_prefix()
            _log.warning("mitmcontext: a forwarded prefix changed without a step")
        elif broken is Break.STEP and result.outcome.action is Action.REAPPLIED:
            self._figures_of(flow).resumed_step()
        self._show(flow, result.outcome)
        if (link := result.link) is not None and self._team is None:
            flow.metadata[LINK] = link.hex()
        if not result.counted:
            self._later(self._count(flow, result))
            return
        self._note(flow, result)
        of_steps = any(change.what != "birth" for change in result.outcome.changes)
        if result.outcome.steps and not of_steps and self._team is None:
            self._later(self._explain(flow, result))

    async def _count(self, flow: http.HTTPFlow, result: Result) -> None:
        """Count, after forwarding, what needed no count before."""
        try:
            counted = await self._at_work().count_later(result)
        except (Unreadable, RuntimeError) as error:
            # RuntimeError: the pool was closed by a live reload meanwhile.
            self._uncounted.pop(flow.id, None)
            self._figures.failed(type(error).__name__)
            return
        spent = result.outcome.milliseconds
        counted = replace(counted, outcome=replace(counted.outcome, milliseconds=spent))
        self._figures_of(flow).recount(counted.outcome)
        self._note(flow, counted)
        reported = self._uncounted.pop(flow.id, None)
        newest = self._pending.get(flow.id, result)
        if newest is not result:
            return  # another turn on a WebSocket meanwhile
        if flow.id in self._pending:
            self._pending[flow.id] = counted
        self._mark(flow, counted.outcome)
        if reported is not None:
            self._learned(flow, counted, reported)
        _updated(flow)

    async def _explain(self, flow: http.HTTPFlow, result: Result) -> None:
        """Tell, after forwarding, what steps did that were taken before the last start."""
        try:
            explained = await self._at_work().explain(result)
        except (Unreadable, RuntimeError) as error:
            self._figures.failed(type(error).__name__)
            return
        self._mark(flow, explained.outcome)
        _updated(flow)

    def _job(self, flow: http.HTTPFlow, api: Api, path: str, raw: bytes) -> Job:
        request = flow.request
        headers = {name.lower(): value for name, value in request.headers.items()}
        host = host_of(request)
        where = [request.scheme, host.lower(), str(request.port)]
        observed = "observe mode" if self._settings.context_mode == "observe" else _signed(headers)
        return Job(
            api=api,
            path=path,
            place=keyed(self._key, [piece.encode() for piece in where]),
            tenant=tenant(
                self._key,
                request.scheme,
                host,
                request.port,
                headers,
                in_query=request.query.get("key", "") if "?" in request.path else "",
            ),
            headers=headers,
            raw=raw,
            observed=observed,
            login=is_subscription(headers),
            at=time.time() if flow.live else request.timestamp_start,
            host=host,
            asks=self._asks(flow),
        )

    def _asks(self, flow: http.HTTPFlow) -> Asks | None:
        """What it takes to ask a model on behalf of a flow."""
        if not flow.live or flow.websocket is not None or is_upgrade(flow):
            return None
        return Asks(
            flow.request,
            is_gone=lambda: not flow.client_conn.connected,
            paid=self._figures_of(flow).paid,
        )

    def _is_watched(self, flow: http.HTTPFlow) -> bool:
        hosts = self._settings.context_hosts
        if not hosts:
            return True
        host = host_of(flow.request).lower()
        return any(fnmatchcase(host, glob) for glob in hosts)

    def _why_not(self, flow: http.HTTPFlow) -> str:
        """Why a request for an LLM's path is not even read, or ""."""
        if flow.is_replay == "request":
            return "a replay"
        if self._at_work().is_ours(flow.request.raw_content or b""):
            return "a question of our own"
        if flow.request.stream:
            return "streamed by mitmproxy, so never seen whole"
        if len(flow.request.raw_content or b"") > self._settings.context_max_body:
            return "larger than context_max_body"
        return ""

    # The way back.

    def requestheaders(self, flow: http.HTTPFlow) -> None:
        """Let what is too large to look at pass through without being held in memory."""
        if flow.response is not None:  # refused already, for want of a login; or saved
            return
        try:
            path = flow.request.path.partition("?")[0]
            if api_for(flow.request.method, path) is None:
                return
            size = flow.request.headers.get("content-length", "")
            if size.isdecimal() and int(size) > self._settings.context_max_body:
                flow.request.stream = True
        except Exception as error:  # noqa: BLE001 - as in `request`
            self._figures.failed(type(error).__name__)

    def responseheaders(self, flow: http.HTTPFlow) -> None:
        """Let an answer through as it arrives, and read its usage on the side."""
        try:
            self._responseheaders(flow)
        except Exception as error:  # noqa: BLE001 - as in `request`
            self._figures.failed(type(error).__name__)

    def _responseheaders(self, flow: http.HTTPFlow) -> None:
        result = self._pending.get(flow.id)
        answer = flow.response
        if answer is None or flow.websocket is not None or not flow.live:
            return
        replaced = result is not None and (result.raw is not None or may_step(result))
        kind = answer.headers.get("content-type")
        path = flow.request.path.partition("?")[0]
        recognised = api_for(flow.request.method, path) is not None
        how = handling(
            answer.status_code,
            kind,
            recognised=recognised,
            rewritten=replaced,
            length=answer.headers.get("content-length"),
        )
        if how is Handling.STREAM or (how is Handling.TEE and result is None):
            answer.stream = True
        elif how in (Handling.TEE, Handling.READ) and result is not None:
            tee = Tee(
                result.ready.job.api.usage_of,
                lambda usage: self._learn(flow, usage),
                self._figures_of(flow).failed,
                content_type=kind,
                content_encoding=answer.headers.get("content-encoding"),
            )
            self._tees[flow.id] = tee
            if how is Handling.TEE:
                answer.stream = tee

    def _learn(self, flow: http.HTTPFlow, usage: Usage) -> None:
        result = self._pending.get(flow.id)
        if result is not None and usage.input_tokens:
            if result.counted:
                self._learned(flow, result, usage)
                _updated(flow)
            else:
                self._uncounted[flow.id] = usage

    def _learned(self, flow: http.HTTPFlow, result: Result, usage: Usage) -> None:
        """The provider said how large a request was that had been estimated."""
        worker, outcome, reported = self._at_work(), result.outcome, usage.input_tokens or 0
        worker.learn(result, reported)
        money = worker.bill(result, usage)
        if money is not None:
            self._figures_of(flow).billed(money, observed=bool(result.ready.observed))
            self._mark_money(flow, money)
            self._shown().billed(result, money)
        estimated = outcome.sent if outcome.action is Action.OBSERVED else outcome.forwarded
        if estimated and not result.ready.request.hidden:
            self._figures_of(flow).compared(estimated, reported)
            self._mark_report(flow, estimated, reported)
            for line in logs.reported(estimated, reported, self._settings):
                _log.info("mitmcontext: %s", line)
            self._shown().compared(result, estimated, reported)

    async def response(self, flow: http.HTTPFlow) -> None:
        """Send once more what was refused for its shape; clear up after an answer."""
        try:
            tee = self._tees.get(flow.id)
            if tee is not None and flow.response is not None and not flow.response.stream:
                tee.read(flow.response.raw_content or b"")
            await self._refused(flow)
            self._accepted(flow)
        except Exception as error:  # noqa: BLE001 - as in `request`
            self._figures.failed(type(error).__name__)
        finally:
            self._clear_up(flow)

    def _accepted(self, flow: http.HTTPFlow) -> None:
        """Where the provider took a request, what is frozen of its conversation lives on."""
        result = self._pending.get(flow.id)
        if result is None or result.link is None or flow.response is None:
            return
        if flow.response.status_code < 300:
            self._later(self._at_work().confirm(result))
            self._later(self._at_work().prepare(result))

    async def _refused(self, flow: http.HTTPFlow) -> None:
        """Where the provider refused the length or the shape of a request, send it once more."""
        result = self._pending.get(flow.id)
        answer = flow.response
        if result is None or answer is None or answer.raw_content is None:
            return
        if answer.status_code not in HELD:
            return
        coding = answer.headers.get("content-encoding")
        said = bodies.decode(answer.raw_content, coding, _LARGEST_REFUSAL)
        api = result.ready.job.api
        too_long = api.refuses_length(answer.status_code, said)
        if too_long is not None:
            await self._step_further(flow, result, too_long)
        elif self._at_work().is_unproven(result) and api.refuses_shape(answer.status_code, said):
            await self._step_back(flow, result)

    async def _step_further(self, flow: http.HTTPFlow, result: Result, too_long: TooLong) -> None:
        """Take the strongest step that the provider's own figures call for, once.

        Where that does not help, the client gets the refusal as it came.
        """
        figures, worker = self._figures_of(flow), self._at_work()
        figures.refused_length()
        further = await worker.step_further(result, too_long)
        if further is None or further.raw is None:
            return
        again = await self._send_again(flow, further.raw)
        if again is None or again.status_code >= 400:
            return
        flow.response = again
        self._keep_original(flow, further.ready.job.raw)
        _commit(flow.request, further.raw)
        self._pending[flow.id] = further
        worker.prefix_break(further)
        figures.stepped(further.outcome)
        self._note(flow, further)
        self._mark(flow, further.outcome)
        self._log_step(flow, further.outcome)

    async def _send_again(self, flow: http.HTTPFlow, raw: bytes) -> http.Response | None:
        mode = flow.client_conn.proxy_mode.full_spec
        again = await resend(
            flow.request,
            raw,
            seconds=_RESEND_SECONDS,
            verify=tls_context(ctx.options),
            proxy=upstream_proxy([mode], ctx.options.upstream_auth),
            largest=self._settings.context_max_body,
        )
        if again is None:
            _log.warning("mitmcontext: a refused request could not be sent again")
        return again

    async def _step_back(self, flow: http.HTTPFlow, result: Result) -> None:
        """Go one rung down, once.

        Only when the answer to that is better was the step at fault, and is taken back.
        """
        self._figures_of(flow).refused()
        worker = self._at_work()
        again = await self._send_again(flow, await worker.step_back(result))
        if again is None:
            return
        said = bodies.decode(
            again.raw_content or b"", again.headers.get("content-encoding"), _LARGEST_REFUSAL
        )
        if result.ready.job.api.refuses_length(again.status_code, said) is not None:
            return  # no news to the client, who knows nothing of the length that was saved
        flow.response = again
        if again.status_code < 400:
            await worker.retract(result)
            reason = "the provider refused the rewritten request; sent again without the step"
            _log.warning("mitmcontext: %s", reason)
            outcome = replace(result.outcome, action=Action.FAILED_OPEN, reason=reason)
            self._mark(flow, outcome)

    def error(self, flow: http.HTTPFlow) -> None:
        """Clear up after an exchange that broke off."""
        try:
            tee = self._tees.get(flow.id)
            if tee is not None:
                tee.finish()
        finally:
            self._clear_up(flow)

    def _clear_up(self, flow: http.HTTPFlow) -> None:
        self._tees.pop(flow.id, None)
        self._pending.pop(flow.id, None)
        try:
            self._eviction.finished(flow, self._settings.context_keep_flows)
        except Exception as error:  # noqa: BLE001 - as in `request`
            self._figures.failed(type(error).__name__)

    # Turns on a WebSocket.

    async def websocket_message(self, flow: http.HTTPFlow) -> None:
        """Follow a conversation that is not sent by POST."""
        if self._sockets is not None and flow.live:
            await self._sockets.message(flow)

    def websocket_end(self, flow: http.HTTPFlow) -> None:
        """Clear up after a connection."""
        if self._sockets is not None:
            self._sockets.closed(flow)
        self._clear_up(flow)

    def _lent(self) -> Lent:
        return Lent(
            worker=self._at_work,
            settings=lambda: self._settings,
            job=self._job,
            figures=self._figures_of,
            conclude=self._conclude,
            show=self._show,
            mark=self._mark,
            learn=self._learn,
            later=self._later,
            passes=self._passes,
            pending=lambda: self._pending,
        )

    # What a user sees.

    def _reach(self) -> Reach:
        return Reach(
            worker=self._at_work,
            display=self._shown,
            figures=lambda: self._figures,
            team=lambda: self._team,
            settings=lambda: self._settings,
        )

    def _shown(self) -> Display:
        if self._display is None:
            raise RuntimeError("not loaded")
        return self._display

    def _note(self, flow: http.HTTPFlow, result: Result) -> None:
        """Take note of a request that was counted, unless there are others who could see it."""
        for line in logs.lines(result.outcome, self._settings):
            _log.info("mitmcontext: %s", line)
        if self._team is None:
            self._shown().note(result, result.ready.job.host, flow.id)

    def _rows(self, flow: http.HTTPFlow) -> list[Row]:
        return self._shown().rows(flow, self._at_work().known)

    def _keep_original(self, flow: http.HTTPFlow, raw: bytes | None) -> None:
        """Keep what the client sent, where somebody can ask for it."""
        if raw and self._team is None and getattr(ctx.master, "view", None) is not None:
            coding = flow.request.headers.get("content-encoding", "")
            self._later(asyncio.to_thread(self._shown().originals.keep, flow.id, raw, coding))

    def _snapshot(self) -> dict[str, Any]:
        stores = self._worker.stores() if self._worker is not None else {}
        return self._figures.snapshot() | {"stores": stores}

    def _shown_to_all(self) -> dict[str, Any]:
        """What mitmproxy shows to whoever asks: nothing, where people see their own."""
        return self._snapshot() if self._team is None else {}

    def _figures_of(self, flow: http.HTTPFlow) -> Figures:
        return self._figures if self._team is None else self._team.figures_of(flow)

    def _show(self, flow: http.HTTPFlow, outcome: Outcome) -> None:
        known = self._at_work().known
        self._figures.counted(*known.take())
        self._figures_of(flow).record(outcome)
        flow.metadata.pop(recorded.KEY, None)  # of an earlier turn on a WebSocket
        self._mark(flow, outcome)
        if outcome.action is Action.CONDENSED:
            self._log_step(flow, outcome)

    def _log_step(self, flow: http.HTTPFlow, outcome: Outcome) -> None:
        host, team = host_of(flow.request), self._team
        line = words.log_line(outcome, host) if team is None else team.log_line(outcome)
        _log.info("mitmcontext: %s", line)

    def _mark(self, flow: http.HTTPFlow, outcome: Outcome) -> None:
        if self._team is not None:
            return
        flow.comment = words.comment(outcome)
        flow.metadata[recorded.KEY] = recorded.to_metadata(outcome) | recorded.told_by_provider(
            flow.metadata
        )
        flow.marked = words.mark(outcome) or flow.marked

    def _mark_report(self, flow: http.HTTPFlow, estimated: int, reported: int) -> None:
        if self._team is None and recorded.KEY in flow.metadata:
            flow.metadata[recorded.KEY] |= recorded.report_to_metadata(estimated, reported)

    def _mark_money(self, flow: http.HTTPFlow, money: Money) -> None:
        if self._team is None and recorded.KEY in flow.metadata:
            flow.metadata[recorded.KEY] |= recorded.money_to_metadata(money)

    def _failed(self, flow: http.HTTPFlow, reason: str) -> None:
        """The request goes out as it came; say so, by the kind of the fault alone."""
        _log.warning("mitmcontext: a request was left as it came (%s)", reason)
        outcome = Outcome(Action.FAILED_OPEN, reason)
        self._figures_of(flow).record(outcome)
        self._mark(flow, outcome)

    def _at_work(self) -> Worker:
        if self._worker is None:
            raise RuntimeError("not loaded")
        return self._worker

    async def _clean_up(self, worker: Worker) -> None:
        """Remove what has expired, now and then."""
        while True:
            await asyncio.sleep(self._settings.cache_cleanup_interval)
            await worker.clean_up()
            self._say_how_caches_fare()

    def done(self) -> None:
        """End what runs beside the requests; those in flight finish on this code."""
        # After a reload this code is garbage.
        gc.unfreeze()
        running.ended(self._snapshot)
        display = self._shown()
        display.stop()
        if ctx.master.should_exit.is_set():
            of_team = self._team.summary(self._settings) if self._team is not None else ()
            in_all = display.summary() if self._saved is None else []
            for line in (*in_all, *of_team):
                _log.info("mitmcontext: %s", line)
        for line in self._saved.summary() if self._saved is not None else ():
            _log.info("mitmcontext: %s", line)
        self._say_how_caches_fare()
        if self._cleaner is not None:
            self._cleaner.cancel()

    def _say_how_caches_fare(self) -> None:
        if self._worker is None or not self._settings.cache_enable_logging:
            return
        for name, cache in self._worker.stores().items():
            if cache["hits"] + cache["misses"]:
                ratio, size = cache["hit_ratio"], (cache["size"] or 0) / 2**20
                _log.info("mitmcontext: %s: %.1f %% found, %.1f MB", name, 100 * ratio, size)

    def _later(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _alone(api: Api, reason: str, ready: Ready | None = None) -> Outcome:
    model = ready.request.model if ready else ""
    count = len(ready.request.spans) if ready else 0
    return Outcome(Action.LEFT_ALONE, reason, api=api.name, model=model, messages=count)


def _signed(headers: dict[str, str]) -> str:
    """Why a body must stay as it is: something signs it. "" where nothing does."""
    if headers.get("authorization", "").startswith("AWS4-"):
        return "signed by the client (SigV4)"
    if any(name in headers for name in _SIGNATURES):
        return "a header holds a digest of the body"
    return ""


def _updated(flow: http.HTTPFlow) -> None:
    """Have a flow shown anew, where flows are shown."""
    if getattr(ctx.master, "view", None) is not None:
        ctx.master.addons.trigger(UpdateHook([flow]))


def _commit(request: http.Request, raw: bytes) -> None:
    """The only change to a request: its body, and its length where it states one."""
    request.raw_content = raw
    if "content-length" in request.headers:
        request.headers["content-length"] = str(len(raw))
