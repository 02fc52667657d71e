"""Loaded into a mitmproxy behind the addon: measures how long the addon holds the event loop.

What runs on the loop between two points at which others may run is one *hold*: a hook that is a
plain function, or a step of one that is a coroutine, of a task that the addon began, or of a
callback of its own. Each is timed by the wall and by the thread's own clock. On a busy machine the
former has in it what other processes and threads took, so both are told. Garbage collection counts
where it falls; a hold that was mostly that says so. What the addon does when it is loaded anew is
told apart: mitmproxy's own part of that, the import of all modules, holds the loop for much longer.

`http://watch.test/` through the proxy gives the figures so far, in milliseconds.
"""

from __future__ import annotations

import asyncio
import gc
import inspect
import json
import sys
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterator
from typing import Any, Final

from mitmproxy import addonmanager, hooks
from mitmproxy.http import HTTPFlow, Response

HOST: Final = "watch.test"
_OURS: Final = "mitmcontext"
# Figures are kept as counts of a hundredth of a millisecond, so that an hour takes no memory.
_GRAIN: Final = 100
_TICK_SECONDS: Final = 0.01
_LOADING: Final = ("load", "configure", "running", "done")
_WORST: Final = 5
_GARBAGE: Final = ", collecting garbage"


class Times:
    """How often something took how long."""

    def __init__(self) -> None:
        self.counts: Counter[int] = Counter()
        self.longest: dict[str, float] = {}

    def add(self, seconds: float, what: str = "") -> None:
        """Take note of one."""
        milliseconds = seconds * 1_000
        self.counts[round(milliseconds * _GRAIN)] += 1
        if milliseconds > self.longest.get(what, 0.0):
            self.longest[what] = milliseconds

    def snapshot(self) -> dict[str, Any]:
        """Number, percentiles and maximum, in milliseconds, and the most of what took longest."""
        total, seen = self.counts.total(), 0
        longest = sorted(self.longest.items(), key=lambda one: one[1], reverse=True)
        worst = {what: round(most, 2) for what, most in longest[:_WORST]}
        found = {"count": total, "max": max(worst.values(), default=0.0), "worst": worst}
        wanted = {"p50": 0.5 * total, "p99": 0.99 * total, "p999": 0.999 * total}
        for value, count in sorted(self.counts.items()):
            seen += count
            for name in [name for name, at in wanted.items() if seen >= at]:
                found[name] = value / _GRAIN
                del wanted[name]
        return found


class Stepped:
    """A coroutine's steps, each one timed."""

    def __init__(self, work: Awaitable[Any], hold: Callable[..., Any], what: str) -> None:
        self._work = work.__await__()
        self._hold = hold
        self._what = what

    def __await__(self) -> Generator[Any, Any, Any]:
        sent: Any = None
        raised: BaseException | None = None
        while True:
            try:
                if raised is not None:
                    given = self._hold(self._what, self._work.throw, raised)
                else:
                    given = self._hold(self._what, self._work.send, sent)
            except StopIteration as end:
                return end.value
            raised = None
            try:
                sent = yield given
            except BaseException as error:  # noqa: BLE001 - handed on to the coroutine
                raised = error


class Watch:
    """Times what the addon does on the loop, and how late the loop is for anybody's sake."""

    def __init__(self) -> None:
        self.wall, self.cpu, self.late, self.collected = Times(), Times(), Times(), Times()
        self.loading = Times()
        self.ticker: asyncio.Task[None] | None = None
        self._began = 0.0
        # Seconds of the loop's own clock that collecting garbage has taken on it so far.
        self._collected = 0.0
        self._loop = threading.get_ident()
        self._real_hooks = addonmanager.AddonManager._iter_hooks
        self._real_create = asyncio.create_task

    def running(self) -> None:
        """Begin, once the addon is there."""
        watch = self

        def iter_hooks(
            manager: addonmanager.AddonManager, addon: Any, event: hooks.Hook
        ) -> Iterator[tuple[Any, Callable[..., Any]]]:
            for one, hook in watch._real_hooks(manager, addon, event):
                yield one, (watch.timed(hook) if _is_ours(hook) else hook)

        def create_task(work: Coroutine[Any, Any, Any], **named: Any) -> asyncio.Task[Any]:
            code = getattr(work, "cr_code", None)
            if code is not None and _OURS in code.co_filename:
                work = _whole(Stepped(work, watch.hold, code.co_qualname))
            return watch._real_create(work, **named)

        addonmanager.AddonManager._iter_hooks = iter_hooks  # type: ignore[method-assign, assignment]
        asyncio.create_task = create_task  # type: ignore[assignment]
        gc.callbacks.append(self.collecting)
        self.ticker = self._real_create(self.tick())

    def timed(self, hook: Callable[..., Any]) -> Callable[..., Any]:
        """The same hook, timed."""
        name = getattr(hook, "__qualname__", "?")

        def call(*given: Any) -> Any:
            found = self.hold(name, hook, *given)
            return Stepped(found, self.hold, name) if inspect.isawaitable(found) else found

        return call

    def hold(self, what: str, work: Callable[..., Any], *given: Any) -> Any:
        """Do some work and note how long it took."""
        collected, wall, cpu = self._collected, time.perf_counter(), time.thread_time()
        try:
            return work(*given)
        finally:
            cpu, wall = time.thread_time() - cpu, time.perf_counter() - wall
            if self._collected - collected > cpu / 2:
                what += _GARBAGE
            if what.removesuffix(_GARBAGE).rpartition(".")[2] in _LOADING:
                self.loading.add(cpu, what)
            else:
                self.cpu.add(cpu, what)
                self.wall.add(wall, what)

    def collecting(self, phase: str, _: dict[str, int]) -> None:
        """Note how long the collector of garbage takes, in whatever thread."""
        is_loop = threading.get_ident() == self._loop
        if phase == "start":
            self._began = time.perf_counter()
            self._collected -= time.thread_time() if is_loop else 0.0
        else:
            self.collected.add(time.perf_counter() - self._began)
            self._collected += time.thread_time() if is_loop else 0.0

    async def tick(self) -> None:
        """Note how much later than it should be the loop comes round, for whatever reason."""
        while True:
            due = time.perf_counter() + _TICK_SECONDS
            await asyncio.sleep(_TICK_SECONDS)
            self.late.add(max(0.0, time.perf_counter() - due))

    def request(self, flow: HTTPFlow) -> None:
        """Tell what was measured."""
        if flow.request.pretty_host == HOST:
            figures = {
                "held": self.wall.snapshot(),
                "held_cpu": self.cpu.snapshot(),
                "loading_cpu": self.loading.snapshot(),
                "loop_late": self.late.snapshot(),
                "garbage": self.collected.snapshot(),
                "threads": len(sys._current_frames()),
                "tasks": len(asyncio.all_tasks()),
            }
            flow.response = Response.make(200, json.dumps(figures))


async def _whole(work: Awaitable[Any]) -> Any:
    return await work


def _is_ours(hook: Callable[..., Any]) -> bool:
    return (getattr(hook, "__module__", "") or "").startswith(_OURS)


addons = [Watch()]
