"""Loaded into a mitmproxy before the addon: lets the n-th operation at one of its seams fail.

`http://faults.test/arm?seam=...&n=...` through the proxy chooses the operation, and forgets what
was chosen before; `/done` says how many operations there were since, whether one failed, and
whether the request had been read by then.

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
from pathlib import Path
from types import CodeType
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
    "behind reading": (
        *("proxy/money.py", "proxy/deciding.py", "proxy/assessing.py", "proxy/outcomes.py"),
        *("proxy/prefixes.py", "proxy/words.py", "models/prices.py"),
    ),
    "all": ("",),
}
# What is frozen has been laid over a request when this begins.
READ: Final = "proxy/work.py Worker.decide"
# A guard cannot guard itself: the hooks and what stands for one, what says that there is a fault,
# and what they count and say of it.
GUARDS: Final = (
    *("proxy/guard.py", "proxy/tee.py Tee.__call__", "proxy/answers.py Answers.ends"),
    *("proxy/answers.py Answers.breaks_off", "proxy/answers.py Answers.clear_up"),
)
SPARED: Final = ("request", "response", "responseheaders", "requestheaders", "error")

ERRORS: Final[Mapping[str, Callable[[str], BaseException]]] = {
    "MemoryError": MemoryError,
    "RecursionError": RecursionError,
    "OSError": lambda says: OSError(5, says),
    "SystemExit": lambda says: SystemExit(1),
    "CancelledError": asyncio.CancelledError,
}


class Plan:
    """Which operation is to fail, how, and how many there were.

    With `each`, a function counts once. What is raised says `says`.
    """

    def __init__(
        self, seam: str, n: int, error: str, says: str = "", *, each: bool, lasts: bool
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
        self._seen: set[CodeType] | None = set() if each else None
        self._lock = threading.Lock()

    def fails(self, seam: str, what: str, code: CodeType | None = None) -> bool:
        """Whether this operation is the one, or with `lasts` one behind it."""
        with self._lock:
            if seam != self.seam or (code is not None and self._seen and code in self._seen):
                return False
            if self._seen is not None and code is not None:
                self._seen.add(code)
            self.count += 1
            due = self.count == self.n or (self.lasts and self.count > self.n)
            if due:
                self.failed = what
                self.behind = self.read
            return due


NOTHING: Final = Plan("", 0, "", each=False, lasts=False)


class Faults:
    """The seams, and the way to choose an operation."""

    def __init__(self) -> None:
        self.plan = NOTHING
        self._real_time = time.time
        time.time = self._time
        self._real_connect = sqlite3.connect
        sqlite3.connect = self._connect  # type: ignore[assignment]
        sys.monitoring.use_tool_id(4, "faults")
        start = sys.monitoring.events.PY_START
        sys.monitoring.register_callback(4, start, self._called)

    def request(self, flow: HTTPFlow) -> None:
        """Take orders."""
        if flow.request.pretty_host != HOST:
            return
        before, asked = self.plan, flow.request.query
        self.plan = NOTHING
        watched = 0
        if flow.request.path.startswith("/arm"):
            self.plan = Plan(
                asked["seam"],
                int(asked["n"]),
                asked.get("error", "MemoryError"),
                asked.get("says", "injected"),
                each="each" in asked,
                lasts="lasts" in asked,
            )
            watched = sys.monitoring.events.PY_START if asked["seam"] in FUNCTIONS else 0
        sys.monitoring.set_events(4, watched)
        sys.monitoring.restart_events()
        said = {"count": before.count, "failed": before.failed, "behind": before.behind}
        flow.response = Response.make(200, json.dumps(said))

    # The seams.

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
