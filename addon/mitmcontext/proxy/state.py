"""What the hooks share while the proxy runs."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Coroutine, MutableMapping
from typing import Any

from mitmproxy import http

from mitmcontext.proxy.carried import Carried
from mitmcontext.proxy.display import Display
from mitmcontext.proxy.eviction import Eviction
from mitmcontext.proxy.figures import Figures
from mitmcontext.proxy.garbage import Garbage
from mitmcontext.proxy.guard import guarded
from mitmcontext.proxy.job import Result
from mitmcontext.proxy.load import Load
from mitmcontext.proxy.team import Team
from mitmcontext.proxy.tee import Tee
from mitmcontext.proxy.work import Worker
from mitmcontext.settings import Settings
from mitmcontext.values import Usage


class State:
    """Settings and figures, who works and shows, and the requests in flight.

    Attributes:
        settings: as they are at the moment.
        figures: what is counted, of all who use the proxy.
        key: what tenants are keyed with.
        worker: takes requests through the pipeline; None until the settings were read.
        team: the people behind the proxy; None where they are one.
        display: what people see beside the flows; None until the addon is loaded.
        pending: by the flow's id, what became of a request that is not answered yet.
        tees: by the flow's id, what reads along with its answer.
        flows: those that were looked at and are still there.
        uncounted: by the flow's id, what was reported of a request before it was counted.
        load: how much there is to do.
        eviction: removes finished flows from mitmweb, where there may be only so many.
    """

    def __init__(self) -> None:
        self.settings = Settings()
        self.figures = Figures(time.monotonic)
        self.key = b""
        self.worker: Worker | None = None
        self.team: Team | None = None
        self.display: Display | None = None
        self.pending: dict[str, Result] = {}
        self.tees: dict[str, Tee] = {}
        self.flows: MutableMapping[str, http.HTTPFlow] = {}
        self.uncounted: dict[str, Usage] = {}
        self.load = Load()
        self.eviction = Eviction()
        self._garbage = Garbage()
        self._tasks: set[asyncio.Task[None]] = set()

    def take_over(self, kept: Carried) -> None:
        """Go on with what an earlier load of the addon left."""
        self.pending, self.tees, self.flows = kept["pending"], kept["tees"], kept["flows"]
        self.figures = Figures(time.monotonic, kept["figures"])
        self.display = Display(
            kept, self.figures, lambda: self.at_work().stores(), lambda: self.settings
        )
        self.eviction = Eviction(kept["finished"], self.display.originals.forget)

    def at_work(self) -> Worker:
        """The worker.

        Raises:
            RuntimeError: there is none yet.
        """
        if self.worker is None:
            raise RuntimeError("not loaded")
        return self.worker

    def shown(self) -> Display:
        """The display.

        Raises:
            RuntimeError: there is none yet.
        """
        if self.display is None:
            raise RuntimeError("not loaded")
        return self.display

    def figures_of(self, flow: http.HTTPFlow) -> Figures:
        """Where what becomes of a flow counts: in a team, for whoever sent it."""
        return self.figures if self.team is None else self.team.figures_of(flow)

    def snapshot(self) -> dict[str, Any]:
        """All figures, as `stats.json` has them."""
        stores = self.worker.stores() if self.worker is not None else {}
        return self.figures.snapshot() | {"stores": stores}

    def passed(self) -> None:
        """A request came to its end."""
        if self._garbage.is_due():
            self.later(self._garbage.search())

    def later(self, work: Coroutine[Any, Any, None]) -> None:
        """Do something beside the requests; if it fails, only that is missing."""
        task = asyncio.create_task(self._beside(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _beside(self, work: Coroutine[Any, Any, None]) -> None:
        """Count a failure by its kind: else asyncio would log its text, or end upon SystemExit.

        Whose threads are ended at a reload is cancelled, which is no failure.
        """
        with guarded(self.figures.failed), contextlib.suppress(asyncio.CancelledError):
            await work
