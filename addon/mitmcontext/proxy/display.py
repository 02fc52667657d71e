"""What people see beside the flow list: histories, originals, the live page, alerts, summaries.

Requests cost it a few dict operations; all else happens when somebody looks, or once in a while.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from mitmproxy import http

from mitmcontext.known import Known
from mitmcontext.proxy import listing
from mitmcontext.proxy.bands import Band, alerts, bands, shown
from mitmcontext.proxy.carried import Carried
from mitmcontext.proxy.figures import Figures
from mitmcontext.proxy.guard import guarded
from mitmcontext.proxy.history import History, Point
from mitmcontext.proxy.job import Result
from mitmcontext.proxy.listing import Descriptions, Row
from mitmcontext.proxy.mitmweb import LivePage, live_page
from mitmcontext.proxy.originals import Originals
from mitmcontext.proxy.recorded import was_rewritten
from mitmcontext.proxy.safe import line
from mitmcontext.proxy.summary import summary
from mitmcontext.settings import Settings
from mitmcontext.values import Money, Unreadable

_WATCH_SECONDS: Final = 10.0
_log: Final = logging.getLogger(__name__)


class Display:
    """Everything that is shown of one proxy, but the flows themselves.

    Args:
        kept: what outlasts a live reload.
        figures: what is counted.
        stores: what the stores hold and how they fare; may take a while.
        settings: as they are at the moment.
    """

    def __init__(
        self,
        kept: Carried,
        figures: Figures,
        stores: Callable[[], Mapping[str, Any]],
        settings: Callable[[], Settings],
    ) -> None:
        self.history = History(kept["history"])
        self.descriptions = Descriptions()
        self.originals = Originals(kept["originals"], lambda: settings().context_max_body)
        self._figures = figures
        self._stores = stores
        self._settings = settings
        self._missed: set[str] = kept["missed"]
        self._page: LivePage | None = None
        self._watching: asyncio.Task[None] | None = None

    def start(self, master: Any) -> None:
        """Put the page into mitmweb, if this is one, and watch the bands."""
        self._page = live_page(master, self)
        self._watching = asyncio.create_task(self._watch())

    def stop(self) -> None:
        """Take the page out again."""
        if self._page is not None:
            self._page.close()
        if self._watching is not None:
            self._watching.cancel()

    @property
    def has_page(self) -> bool:
        """Whether there is a live page."""
        return self._page is not None

    def note(self, result: Result, host: str, flow: str) -> None:
        """A request that was counted."""
        job, links = result.ready.job, result.ready.laid.sent.links
        self.history.note(links, job.at, host, flow, result.outcome)
        self.history.sample(time.time(), *self._figures.totals())

    def billed(self, result: Result, money: Money) -> None:
        """What a request has cost and saved."""
        self.history.billed(result.ready.laid.sent.links, money)

    def compared(self, result: Result, estimated: int, reported: int) -> None:
        """What the provider itself counted."""
        self.history.compared(result.ready.laid.sent.links, estimated, reported)

    async def news(self, since: int) -> Mapping[str, Any]:
        """All figures, and the conversations that changed after a revision."""
        stores = await asyncio.to_thread(self._stores)
        figures = self._figures.snapshot() | {"stores": stores}
        revision = self.history.revision
        return {
            # What was forgotten since is to vanish from the page, too.
            "whole": since == 0 or since < self.history.cleared,
            "revision": revision,
            "now": time.time(),
            "mode": self._settings().context_mode,
            "warning": self._settings().condensation_warning_threshold,
            "figures": figures | {"steps_freed": figures["steps_freed"][-20:]},
            "bands": [_band(band) for band in bands(figures)],
            "samples": [
                *(list(sample) for sample in self.history.samples()),
                [time.time(), *self._figures.totals()],
            ],
            "conversations": [_shown(talk) for talk in self.history.conversations(since)],
        }

    def original(self, flow: str) -> bytes | None:
        """The body of a flow as the client sent it, where that is kept."""
        return self.originals.find(flow)

    def rows(self, flow: http.HTTPFlow, known: Known) -> list[Row]:
        """A request message by message, as the client sent it; empty where that is not kept."""
        if flow.websocket is not None:
            return []
        try:
            sent = self.originals.find(flow.id)
            if sent is None and was_rewritten(flow.metadata):
                return []
            return listing.rows(flow, sent, known, self.descriptions, self._settings())
        except Unreadable:
            return []

    def conversations(self) -> Iterator[str]:
        """The latest conversations, one line each."""
        for talk in self.history.conversations():
            newest = Point(*talk["points"][-1])
            saved = f", saved ${talk['saved']:,.4f}" if talk["priced"] else ""
            yield (
                f"#{talk['id']} {line(talk['model'])} at {line(talk['host'])}: "
                f"{talk['requests']:,} requests, {newest.after / newest.room:.0%} full, "
                f"{newest.sent:,} → {newest.after:,} tokens, {talk['steps']} steps{saved}"
            )

    def summary(self) -> list[str]:
        """The figures in a few sentences."""
        return list(summary(self._figures.snapshot()))

    def clear(self) -> None:
        """Forget everything that was shown."""
        self.history.clear()
        self.originals.clear()
        self._missed.clear()

    async def _watch(self) -> None:
        """Say in the log where a band is newly missed."""
        while True:
            await asyncio.sleep(_WATCH_SECONDS)
            with guarded(self._figures.failed):
                self.look_at_bands()

    def look_at_bands(self) -> None:
        """Once."""
        for sentence in alerts(bands(self._figures.snapshot()), self._missed):
            _log.warning("mitmcontext: %s", sentence)


def _shown(talk: Mapping[str, Any]) -> dict[str, Any]:
    """A conversation for the page: names made safe, points as lists."""
    safe = {name: line(talk[name]) for name in ("model", "api", "host")}
    return {**talk, **safe, "points": [list(point) for point in talk["points"]]}


def _band(band: Band) -> dict[str, Any]:
    target = band.target
    return {
        "name": target.name,
        "title": target.title,
        "value": shown(band.value, target.unit),
        "cases": band.cases,
        "least": target.least,
        "rating": band.rating,
        "missed": band.missed,
        "excellent": shown(target.excellent, target.unit),
        "good": shown(target.good, target.unit),
        "rises": target.rises,
        "advice": target.advice if band.missed else "",
    }
