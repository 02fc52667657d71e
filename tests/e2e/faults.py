"""Loaded into a mitmproxy before the addon: lets the n-th operation at one of its seams fail.

`http://faults.test/arm?seam=...&n=...` through the proxy chooses the operation, and forgets what
was chosen before; `/done` says how many operations there were since, whether one failed, and
whether the request had been read by then. `/patience` lets as much time pass, for what is set aside
because it failed, as that is left alone for.

An order is taken once no request is under way, nor anything that the addon does beside and behind
requests. So all that is counted between two orders belongs to what was sent there, and belongs to
it whole, however slow the machine.

Two seams are where the world begins: the clock and the disk. The others are the calls of the
addon's own functions: what fails there may be anything, such as want of memory.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
import sys
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import ContextVar
from pathlib import Path
from types import CodeType, CoroutineType
from typing import Any, Final

from mitmproxy.http import HTTPFlow, Response

HOST: Final = "faults.test"
YEAR: Final = 365 * 86_400.0
PACKAGE: Final = Path(__file__).parents[2] / "addon" / "mitmcontext"

# Which functions of the addon a seam is made of: files and folders of the package.
FUNCTIONS: Final[Mapping[str, tuple[str, ...]]] = {
    "cache": (
        *("stores/memory.py", "stores/memory_store.py", "stores/tiers.py", "stores/sealed.py"),
        *("proxy/counts.py", "known.py"),
    ),
    "parser": ("wire", "proxy/bodies.py", "recollect.py"),
    "model": (
        *("proxy/asking.py", "proxy/rounds.py", "proxy/summaries.py", "proxy/notes.py"),
        *("condense/summaries", "summarising.py", "wire/questions"),
    ),
    "sending": ("proxy/asking.py", "proxy/rounds.py"),
    "behind reading": (
        *("proxy/money.py", "proxy/deciding.py", "proxy/assessing.py", "proxy/outcomes.py"),
        *("proxy/prefixes.py", "proxy/words.py", "models/prices.py"),
    ),
    "commit": ("proxy/resend.py",),
    "log": ("proxy/quotes.py",),
    "all": ("",),
}
# What is frozen has been laid over a request when this begins.
READ: Final = "proxy/work.py Worker.decide"
# A guard cannot guard itself: the hooks and what stands for one, what says that there is a fault,
# and what they count and say of it.
GUARDS: Final = (
    *("proxy/guard.py", "proxy/tee.py Tee.__call__", "proxy/answers.py Answers.ends"),
    *("proxy/answers.py Answers.breaks_off", "proxy/answers.py Answers.clear_up"),
    "proxy/quotes.py _unquoted",
)
SPARED: Final = ("request", "response", "responseheaders", "requestheaders", "error")
# Longer than anything is set aside for before it is tried again.
AWAY_SECONDS: Final = 10.0
# What goes on beside the requests for as long as the proxy runs.
ENDLESS: Final = ("ContextAddon._clean_up", "Display._watch")
_LOOK_SECONDS: Final = 0.002

ERRORS: Final[Mapping[str, Callable[[str], BaseException]]] = {
    "MemoryError": MemoryError,
    "RecursionError": RecursionError,
    "OSError": lambda says: OSError(5, says),
    "SystemExit": lambda says: SystemExit(1),
    "CancelledError": asyncio.CancelledError,
}


class Plan:
    """Which operation is to fail, how, and how many there were.

    With `each`, a function counts once; with `behind`, only what begins when the request has been
    read. What is raised says `says`.
    """

    def __init__(
        self,
        seam: str,
        n: int,
        error: str,
        says: str = "",
        *,
        each: bool = False,
        lasts: bool = False,
        behind: bool = False,
    ) -> None:
        self.seam = seam
        self.n = n
        self.error = error
        self.says = says
        self.lasts = lasts
        self.count = 0
        self.failed = ""
        self.read = False
        self.behind = False
        self._only_behind = behind
        self._seen: set[CodeType] | None = set() if each else None
        self._lock = threading.Lock()

    def fails(self, seam: str, what: str, code: CodeType | None = None) -> bool:
        """Whether this operation is the one, or with `lasts` one behind it."""
        with self._lock:
            if seam != self.seam or (code is not None and self._seen and code in self._seen):
                return False
            if (self._only_behind and not self.read) or _of_ours.get():
                return False
            if self._seen is not None and code is not None:
                self._seen.add(code)
            self.count += 1
            due = self.count == self.n or (self.lasts and self.count > self.n)
            if due and not self.failed:
                self.failed = what
                self.behind = self.read
            return due


NOTHING: Final = Plan("", 0, "")
# Whether it is our own orders that something is done for.
_of_ours: ContextVar[bool] = ContextVar("_of_ours", default=False)


class Underway:
    """What is not over yet: requests, work in threads, tasks of the addon's."""

    def __init__(self) -> None:
        self._flows: list[HTTPFlow] = []
        self._work: set[Future[Any]] = set()
        submit = ThreadPoolExecutor.submit

        def submitted(*given: Any, **named: Any) -> Future[Any]:
            future: Future[Any] = submit(*given, **named)
            self._work.add(future)
            future.add_done_callback(self._work.discard)
            return future

        ThreadPoolExecutor.submit = submitted  # type: ignore[method-assign]

    def began(self, flow: HTTPFlow) -> None:
        """A request came."""
        self._flows.append(flow)

    def is_over(self) -> bool:
        """Whether nothing is left."""
        self._flows = [flow for flow in self._flows if flow.live]
        return not (self._flows or self._work or any(map(_is_of_the_addon, asyncio.all_tasks())))


def _is_of_the_addon(task: asyncio.Task[Any]) -> bool:
    """Whether a task is something that the addon does beside the requests, and that has an end."""
    work = task.get_coro()
    if not isinstance(work, CoroutineType):
        return False
    code = work.cr_code
    return Path(code.co_filename).is_relative_to(PACKAGE) and code.co_qualname not in ENDLESS


class Faults:
    """The seams, and the way to choose an operation."""

    def __init__(self) -> None:
        self.plan = NOTHING
        self._underway = Underway()
        self._patience = 0.0
        self._real_monotonic = time.monotonic
        time.monotonic = self._monotonic
        self._real_time = time.time
        time.time = self._time
        self._real_connect = sqlite3.connect
        sqlite3.connect = self._connect  # type: ignore[assignment]
        sys.monitoring.use_tool_id(4, "faults")
        start = sys.monitoring.events.PY_START
        sys.monitoring.register_callback(4, start, self._called)

    # Each hook begins here, in a task that the addon's part of it runs in, too.

    def requestheaders(self, flow: HTTPFlow) -> None:
        """See whose request it is."""
        _of_ours.set(flow.request.pretty_host == HOST)

    responseheaders = response = error = requestheaders

    async def request(self, flow: HTTPFlow) -> None:
        """Take orders."""
        self.requestheaders(flow)
        if not _of_ours.get():
            self._underway.began(flow)
            return
        while not self._underway.is_over():  # noqa: ASYNC110 - nobody says when a flow is over
            await asyncio.sleep(_LOOK_SECONDS)
        said: dict[str, Any] = {}
        match flow.request.path.partition("?")[0]:
            case "/patience":
                self._patience += AWAY_SECONDS
            case "/arm":
                self._arm(flow.request.query)
            case "/done":
                before = self._choose(NOTHING)
                said = {"count": before.count, "failed": before.failed, "behind": before.behind}
        flow.response = Response.make(200, json.dumps(said))

    def _arm(self, asked: Mapping[str, str]) -> None:
        plan = Plan(
            asked["seam"],
            int(asked["n"]),
            asked.get("error", "MemoryError"),
            asked.get("says", "injected"),
            each="each" in asked,
            lasts="lasts" in asked,
            behind="behind" in asked,
        )
        self._choose(plan)

    def _choose(self, plan: Plan) -> Plan:
        """Put a plan into force; the one before."""
        before, self.plan = self.plan, plan
        watched = sys.monitoring.events.PY_START if plan.seam in FUNCTIONS else 0
        sys.monitoring.set_events(4, watched)
        sys.monitoring.restart_events()
        return before

    # The seams.

    def _monotonic(self) -> float:
        now = self._real_monotonic()
        caller = sys._getframe(1).f_globals.get("__name__", "")
        return now + self._patience if caller == "mitmcontext.stores.breaker" else now

    def _time(self) -> float:
        now = self._real_time()
        caller = sys._getframe(1).f_globals.get("__name__", "")
        if caller.startswith("mitmcontext") and self.plan.fails("clock", caller):
            return now + (YEAR if self.plan.error == "forward" else -YEAR)
        return now

    def _connect(self, *given: Any, **named: Any) -> sqlite3.Connection:
        self._disk("connect")
        faults = self

        class Connection(sqlite3.Connection):
            def execute(self, *given: Any) -> sqlite3.Cursor:
                faults._disk("execute")
                return super().execute(*given)

            def executemany(self, *given: Any) -> sqlite3.Cursor:
                faults._disk("executemany")
                return super().executemany(*given)

            def commit(self) -> None:
                faults._disk("commit")
                super().commit()

        return self._real_connect(*given, factory=Connection, **named)

    def _disk(self, what: str) -> None:
        if self.plan.fails("disk", what):
            error = sqlite3.OperationalError("disk I/O error")
            codes = {"full": sqlite3.SQLITE_FULL, "busy": sqlite3.SQLITE_BUSY}
            error.sqlite_errorcode = codes.get(self.plan.error, sqlite3.SQLITE_IOERR)
            raise error

    def _called(self, code: CodeType, _: int) -> object:
        try:
            place = Path(code.co_filename).relative_to(PACKAGE).as_posix()
        except ValueError:
            return sys.monitoring.DISABLE
        plan = self.plan
        parts = FUNCTIONS.get(plan.seam, ())
        spared = place == "proxy/addon.py" and code.co_name in SPARED
        what = f"{place} {code.co_qualname}"
        spared = spared or what.startswith(GUARDS)
        try:
            if spared or not place.startswith(parts):
                return sys.monitoring.DISABLE
            if plan.fails(plan.seam, what, code):
                raise ERRORS[plan.error](plan.says)
            return None
        finally:
            # Where it cannot even begin, there is nobody yet to hand on what was laid.
            plan.read = plan.read or what == READ


addons = [Faults()]
