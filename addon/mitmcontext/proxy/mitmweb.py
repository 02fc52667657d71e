"""The live page at /context, inside mitmweb and behind its login.

The routes are mitmweb's own kind of handlers, so that its token or cookie lets people in and
nothing else does. Page, script and style lie in `web/`; they ask nobody but this mitmweb. What
mitmweb offers for this is no public interface: where it is not as expected, there is no page.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import Awaitable, Mapping
from pathlib import Path
from typing import Any, ClassVar, Final, Protocol

from mitmcontext.proxy.guard import contained, guarded

PATH: Final = "/context"
_FOLDER: Final = Path(__file__).with_name("web")
_FILES: Final = {
    "": ("index.html", "text/html; charset=utf-8"),
    "/app.js": ("app.js", "text/javascript; charset=utf-8"),
    "/chart.js": ("chart.js", "text/javascript; charset=utf-8"),
    "/style.css": ("style.css", "text/css; charset=utf-8"),
}
_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self' {socket}; "
    "img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_SECONDS: Final = 1.0
# A browser that reads nothing is let go rather than written to for ever.
_MOST_WAITING: Final = 5
_log: Final = logging.getLogger(__name__)


class Source(Protocol):
    """What the page shows."""

    async def news(self, since: int) -> Mapping[str, Any]:
        """All figures, and the conversations that changed after a revision."""

    def original(self, flow: str) -> bytes | None:
        """The body of a flow as the client sent it."""


class LivePage:
    """The routes in one mitmweb, and what is sent to the browsers that look."""

    def __init__(self, master: Any, source: Source) -> None:
        self._source = source
        self._revision = 0
        self._router = master.app.default_router
        self._connections: set[Any] = set()
        self._sending: asyncio.Task[None] | None = None
        before = len(self._router.rules)
        master.app.add_handlers(r".*", self._routes())
        # The newest stand before the rule for everything else.
        self._rules = [rule for rule in self._router.rules[-2:] if len(self._router.rules) > before]
        self._rules = self._rules[:1]

    def close(self) -> None:
        """Take the routes out again, as a live reload needs it."""
        for rule in self._rules:
            with contextlib.suppress(ValueError):
                self._router.rules.remove(rule)
        for connection in list(self._connections):
            connection.close()
        if self._sending is not None:
            self._sending.cancel()

    def _routes(self) -> list[tuple[Any, ...]]:
        from mitmproxy.tools.web.app import RequestHandler, WebSocketEventBroadcaster

        page = self

        class Guarded(RequestHandler):
            def prepare(self) -> None:
                super().prepare()  # type: ignore[no-untyped-call]
                if is_foreign(self.request.headers):
                    self.send_error(403)

            def set_default_headers(self) -> None:
                super().set_default_headers()  # type: ignore[no-untyped-call]
                scheme = "wss" if self.request.protocol == "https" else "ws"
                socket = f"{scheme}://{host_of(self.request.headers)}"
                self.set_header("Content-Security-Policy", _POLICY.format(socket=socket))
                self.set_header("Referrer-Policy", "no-referrer")
                self.set_header("Cache-Control", "no-store")

        class Files(Guarded):
            def get(self, name: str) -> None:
                file, kind = _FILES[name]
                self.set_header("Content-Type", kind)
                self.write((_FOLDER / file).read_bytes())

        class Figures(Guarded):
            async def get(self) -> None:
                self.set_header("Content-Type", "application/json")
                self.write(as_json(await page._source.news(0)))

        class Original(Guarded):
            def get(self, flow: str) -> None:
                found = page._source.original(flow)
                if found is None:
                    self.send_error(404)
                    return
                self.set_header("Content-Type", "application/octet-stream")
                self.set_header("Content-Disposition", f'attachment; filename="{flow}.json"')
                self.write(found)

        class Live(WebSocketEventBroadcaster):
            connections: ClassVar[set[Any]] = page._connections

            def open(self, *args: str, **kwargs: str) -> None:
                super().open(*args, **kwargs)  # type: ignore[no-untyped-call]
                page.joined(self)

        return [
            (rf"{PATH}({'|'.join(name.replace('.', '[.]') for name in _FILES)})", Files),
            (rf"{PATH}/figures[.]json", Figures),
            (rf"{PATH}/original/([0-9a-f-]{{1,64}})", Original),
            (rf"{PATH}/live", Live),
        ]

    def joined(self, connection: Any) -> None:
        """A browser began to look: it gets everything, and from then on what is new."""
        _keep(asyncio.create_task(contained(self._welcome(connection), _untold)))
        if self._sending is None or self._sending.done():
            self._sending = asyncio.create_task(contained(self._send(), _untold))

    async def _welcome(self, connection: Any) -> None:
        connection.send(as_json(await self._source.news(0)))

    async def _send(self) -> None:
        """Tell all that look what is new, once a second, for as long as somebody does."""
        while self._connections:
            await asyncio.sleep(_SECONDS)
            # The next look may succeed.
            with guarded(_untold):
                self._tell(await self._source.news(self._revision))

    def _tell(self, news: Mapping[str, Any]) -> None:
        self._revision = int(news["revision"])
        message = as_json(news)
        for connection in list(self._connections):
            if connection._send_queue.qsize() < _MOST_WAITING:
                connection.send(message)
            else:
                connection.close()


def live_page(master: Any, source: Source) -> LivePage | None:
    """The page in this mitmweb; None in mitmdump, or where mitmweb is not as expected."""
    if getattr(master, "app", None) is None:
        return None
    try:
        return LivePage(master, source)
    except (ImportError, AttributeError) as error:
        _log.warning("mitmcontext: no page at %s in this mitmweb: %s", PATH, type(error).__name__)
        return None


def as_json(value: object) -> bytes:
    """Compact, and nothing in it ends a script should it ever stand in a page."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").encode()


def is_foreign(headers: Mapping[str, str]) -> bool:
    """Whether a page of another site asks; following a link or typing the address is fine."""
    site = headers.get("Sec-Fetch-Site", "none")
    return site in ("cross-site", "same-site") and headers.get("Sec-Fetch-Mode") != "navigate"


def host_of(headers: Mapping[str, str]) -> str:
    """The host that was asked, as it may stand in a policy."""
    host = headers.get("Host", "")
    return host if host and all(one.isalnum() or one in "-.:[]" for one in host) else "localhost"


def _untold(reason: str) -> None:
    _log.warning("mitmcontext: no figures for the page: %s", reason)


_running: Final[set[Awaitable[None]]] = set()


def _keep(task: asyncio.Task[None]) -> None:
    """Hold on to a task until it ends; the event loop itself does not."""
    _running.add(task)
    task.add_done_callback(_running.discard)
