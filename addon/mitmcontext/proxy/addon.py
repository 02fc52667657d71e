"""The hooks: what mitmproxy calls, and the one place where a request is changed.

Every hook is guarded. Whatever goes wrong inside, the request goes out one rung further down: with
the new step, with what is frozen already, as the client sent it. All work is done on copies; the
only change to a request is `commit`, which comes last.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from fnmatch import fnmatchcase
from typing import Any, Final

from mitmproxy import contentviews, ctx, exceptions, http
from mitmproxy.addonmanager import Loader
from mitmproxy.addons.asgiapp import serve

from mitmcontext.proxy import garbage, memory, options, quotes, running, view
from mitmcontext.proxy.aftermath import Aftermath
from mitmcontext.proxy.answers import Answers
from mitmcontext.proxy.asking import Asker, Asks
from mitmcontext.proxy.carried import Carried, carried, drop_finished, was_carried
from mitmcontext.proxy.commands import Commands, Reach
from mitmcontext.proxy.guard import guarded, is_the_end
from mitmcontext.proxy.hosts import host_of
from mitmcontext.proxy.job import Job, Ready, headers_of
from mitmcontext.proxy.listing import Row
from mitmcontext.proxy.marks import Marks
from mitmcontext.proxy.page import page
from mitmcontext.proxy.resend import commit, tls_context
from mitmcontext.proxy.saved import Saved
from mitmcontext.proxy.shelves import check_folder, shelves
from mitmcontext.proxy.state import State
from mitmcontext.proxy.team import Team, objections
from mitmcontext.proxy.tenant import is_subscription, keyed_before, tenant
from mitmcontext.proxy.unread import UNREAD
from mitmcontext.proxy.websocket import Sockets, is_upgrade
from mitmcontext.proxy.work import Worker
from mitmcontext.settings import BadSetting, Settings, load
from mitmcontext.values import Action, Outcome, Standing, Unreadable
from mitmcontext.wire import api_for
from mitmcontext.wire.api import Api

HOST: Final = "context.mitm"
_PORT: Final = 80
# Headers that say that something outside the body depends on its bytes.
_SIGNATURES: Final = ("content-md5", "digest", "content-digest", "x-amz-content-sha256")
_log: Final = logging.getLogger(__name__)


class ContextAddon:
    """mitmcontext as mitmproxy sees it."""

    name = "mitmcontext"

    def __init__(self) -> None:
        self._state = State()
        self._marks = Marks(self._state)
        self._aftermath = Aftermath(self._state, self._marks)
        self._answers = Answers(self._state, self._marks, self._aftermath)
        self._running = False
        self._is_first = False
        self._asker: Asker | None = None
        self._kept: Carried | None = None
        self._cleaner: asyncio.Task[None] | None = None
        self._sockets: Sockets | None = None
        self._saved: Saved | None = None
        self._page = page(self._shown_to_all)
        self.addons = [Commands(self._reach())]

    # What mitmproxy does once, and on a live reload.

    def load(self, loader: Loader) -> None:
        """Declare options and the content view; take over what an earlier load left."""
        options.declare(loader)
        self._is_first = not was_carried(loader.master)
        if self._is_first:
            memory.give_back()
        self._kept = kept = carried(loader.master)
        drop_finished(kept)
        quotes.leave_out()
        self._state.take_over(kept)
        self._sockets = Sockets(
            self._state, self._marks, self._aftermath, self._job, self._passes, kept["lines"]
        )
        contentviews.add(view.ContextView(self._rows))
        contentviews.add(view.OriginalView(lambda flow: self._state.shown().original(flow.id)))

    def configure(self, updated: set[str]) -> None:
        """Read the settings.

        Raises:
            OptionsError: while running: mitmproxy shows it and puts the old value back. During the
                start it would print a traceback around it, but an error in the log ends the start.
        """
        try:
            settings = load(options.those_set(ctx.options), os.environ)
            self._check_team(settings)
            check_folder(settings)
            self._state.settings = settings
            if self._asker is not None:
                self._asker.forget()
            if self._state.worker is None and self._kept is not None:
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
        if self._running and settings.context_team != (self._state.team is not None):
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
        opened = shelves(self._state.settings, os.environ, kept["spare_key"])
        kept["spare_key"] = opened.key
        self._state.key = opened.tenants
        self._asker = Asker(lambda: tls_context(ctx.options))
        self._state.worker = Worker(kept, opened, self._state.settings, self._asker)
        if self._state.settings.context_team:
            self._state.team = Team(
                kept["figures"],
                self._state.figures,
                opened.choices,
                self._state.key,
                shared=opened.shared,
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
            self._state.at_work().known.tell = self._state.shown().descriptions.note
        if self._state.worker is not None:
            self._state.worker.warm_up()
            self._cleaner = asyncio.create_task(self._clean_up(self._state.worker))
        running.began(self._state.snapshot)
        display = self._state.shown()
        display.start(ctx.master)
        garbage.set_aside()
        where = f"http://{HOST}/" + (", live at /context of mitmweb" if display.has_page else "")
        _log.info("mitmcontext: %s; figures at %s", self._state.settings.context_mode, where)

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
        except BaseException as error:
            if is_the_end(error):
                raise
            self._marks.failed(flow, type(error).__name__)

    async def _serve(self, flow: http.HTTPFlow) -> None:
        """A page of ours, for whoever asks the proxy for it."""
        if self._state.team is not None:
            await self._state.team.serve(flow, self._state.settings, self._state.snapshot())
        elif flow.request.port == _PORT:
            await serve(self._page, flow)

    async def _look_at_saved(self, flow: http.HTTPFlow) -> None:
        """In mitmdump, say of saved flows what condensing would have done with them."""
        off = self._state.settings.context_mode == "off" or not self._is_watched(flow)
        if off or self._state.team is not None or getattr(ctx.master, "view", None) is not None:
            return
        try:
            path = flow.request.path.partition("?")[0]
            api, raw = api_for(flow.request.method, path), flow.request.raw_content
            job = None if api is None or raw is None else self._job(flow, api, path, raw)
            if self._saved is None:
                self._saved = Saved(self._state.settings)
            await self._saved.look(flow, job, self._state.settings)
        except Exception as error:  # noqa: BLE001 - the other flows are to be read all the same
            self._state.figures.failed(type(error).__name__)

    async def _request(self, flow: http.HTTPFlow) -> None:
        began = time.perf_counter()
        request = flow.request
        path = request.path.partition("?")[0]
        api = api_for(request.method, path)
        upgrade = is_upgrade(flow)
        if (api is None and not upgrade) or await self._passes(flow):
            self._state.figures_of(flow).saw()
            return
        self._state.flows[flow.id] = flow
        if upgrade and self._sockets is not None:
            self._sockets.opened(flow)
        if api is None:
            return
        reason = self._why_not(flow)
        if reason or request.raw_content is None:
            self._marks.show(flow, _alone(api, reason or "too large, or streamed by mitmproxy"))
            return
        if self._may_go_unread(flow, api, path):
            self._marks.show(flow, _alone(api, UNREAD))
            return
        worker = self._state.at_work()
        try:
            ready = await worker.look(
                self._job(flow, api, path, request.raw_content), self._state.settings
            )
        except Unreadable as why:
            self._marks.show(flow, _alone(api, str(why)))
            return
        if ready.standing == Standing.ALONE:
            self._marks.show(flow, _alone(api, ready.why, ready))
            return
        result, came = await worker.decide(ready, began), request.raw_content
        if result.raw is not None:
            try:
                commit(request, result.raw)
            except BaseException as error:
                if is_the_end(error):
                    raise
                # It has changed nothing, and without what is frozen the whole history would go.
                commit(request, result.raw)
        # The request is right: from here on only showing it can fail.
        with guarded(self._state.figures_of(flow).failed):
            self._state.pending[flow.id] = result
            if result.raw is not None:
                self._marks.keep_original(flow, came)
            self._aftermath.conclude(flow, result)

    def _may_go_unread(self, flow: http.HTTPFlow, api: Api, path: str) -> bool:
        """Whether there is too much to do to read what surely needs nothing."""
        # A fault here is not to cost what is frozen: then it is read.
        with guarded(self._state.figures_of(flow).failed):
            load, settings = self._state.load, self._state.settings
            load.came(flow.client_conn.id)
            unread = self._state.at_work().unread
            return load.is_heavy and unread.is_safe(api, path, flow.request, settings)
        return False

    async def _passes(self, flow: http.HTTPFlow) -> bool:
        """Whether a flow is none to look at: by the settings, or since somebody opted out."""
        if self._state.settings.context_mode == "off" or not self._is_watched(flow):
            return True
        return self._state.team is not None and await self._state.team.is_out(
            flow, self._state.settings
        )

    def _job(self, flow: http.HTTPFlow, api: Api, path: str, raw: bytes) -> Job:
        request = flow.request
        headers = headers_of(request)
        host = host_of(request)
        where = (request.scheme.encode(), host.lower().encode(), b"%d" % request.port)
        observed = (
            "observe mode" if self._state.settings.context_mode == "observe" else _signed(headers)
        )
        return Job(
            api=api,
            path=path,
            place=keyed_before(self._state.key, where),
            tenant=tenant(
                self._state.key,
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
            paid=self._state.figures_of(flow).paid,
        )

    def _is_watched(self, flow: http.HTTPFlow) -> bool:
        hosts = self._state.settings.context_hosts
        if not hosts:
            return True
        host = host_of(flow.request).lower()
        return any(fnmatchcase(host, glob) for glob in hosts)

    def _why_not(self, flow: http.HTTPFlow) -> str:
        """Why a request for an LLM's path is not even read, or ""."""
        if flow.is_replay == "request":
            return "a replay"
        if flow.request.stream:
            return "streamed by mitmproxy, so never seen whole"
        # Before anything else is done with it: one that came in chunks may have any size.
        if len(flow.request.raw_content or b"") > self._state.settings.context_max_body:
            return "larger than context_max_body"
        if self._state.at_work().is_ours(flow.request.raw_content or b""):
            return "a question of our own"
        return ""

    # The way back.

    def requestheaders(self, flow: http.HTTPFlow) -> None:
        """Let what is too large to look at pass through without being held in memory."""
        if flow.response is not None:  # refused already, for want of a login; or saved
            return
        with guarded(self._state.figures.failed):
            size = flow.request.headers.get("content-length", "")
            if not size.isdecimal() or int(size) <= self._state.settings.context_max_body:
                return
            path = flow.request.path.partition("?")[0]
            if api_for(flow.request.method, path) is not None:
                flow.request.stream = True

    def responseheaders(self, flow: http.HTTPFlow) -> None:
        """Let an answer through as it arrives, and read its usage on the side."""
        with guarded(self._state.figures.failed):
            self._answers.begins(flow)

    async def response(self, flow: http.HTTPFlow) -> None:
        """Send once more what was refused for its shape; clear up after an answer."""
        await self._answers.ends(flow)

    def error(self, flow: http.HTTPFlow) -> None:
        """Clear up after an exchange that broke off."""
        self._answers.breaks_off(flow)

    # Turns on a WebSocket.

    async def websocket_message(self, flow: http.HTTPFlow) -> None:
        """Follow a conversation that is not sent by POST."""
        if self._sockets is not None and flow.live:
            await self._sockets.message(flow)

    def websocket_end(self, flow: http.HTTPFlow) -> None:
        """Clear up after a connection."""
        with guarded(self._state.figures.failed):
            if self._sockets is not None:
                self._sockets.closed(flow)
        self._answers.clear_up(flow)

    # What a user sees.

    def _reach(self) -> Reach:
        return Reach(
            worker=self._state.at_work,
            display=self._state.shown,
            figures=lambda: self._state.figures,
            team=lambda: self._state.team,
            settings=lambda: self._state.settings,
        )

    def _rows(self, flow: http.HTTPFlow) -> list[Row]:
        return self._state.shown().rows(flow, self._state.at_work().known)

    def _shown_to_all(self) -> dict[str, Any]:
        """What mitmproxy shows to whoever asks: nothing, where people see their own."""
        return self._state.snapshot() if self._state.team is None else {}

    async def _clean_up(self, worker: Worker) -> None:
        """Remove what has expired, now and then."""
        while True:
            await asyncio.sleep(self._state.settings.cache_cleanup_interval)
            with guarded(self._state.figures.failed):
                await worker.clean_up()
                self._say_how_caches_fare()

    def done(self) -> None:
        """End what runs beside the requests; those in flight finish on this code."""
        garbage.take_back()
        quotes.quote_again()
        running.ended(self._state.snapshot)
        display = self._state.shown()
        display.stop()
        if ctx.master.should_exit.is_set():
            team = self._state.team
            of_team = team.summary(self._state.settings) if team is not None else ()
            in_all = display.summary() if self._saved is None else []
            for line in (*in_all, *of_team):
                _log.info("mitmcontext: %s", line)
        for line in self._saved.summary() if self._saved is not None else ():
            _log.info("mitmcontext: %s", line)
        self._say_how_caches_fare()
        if self._cleaner is not None:
            self._cleaner.cancel()

    def _say_how_caches_fare(self) -> None:
        if self._state.worker is None or not self._state.settings.cache_enable_logging:
            return
        for name, cache in self._state.worker.stores().items():
            if cache["hits"] + cache["misses"]:
                ratio, size = cache["hit_ratio"], (cache["size"] or 0) / 2**20
                _log.info("mitmcontext: %s: %.1f %% found, %.1f MB", name, 100 * ratio, size)


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
