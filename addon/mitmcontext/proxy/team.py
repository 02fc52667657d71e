"""One proxy for many people: who is who, what each of them sees, and what is never shown.

mitmproxy's own `proxyauth` lets people in; here their names are labels of figures and nothing else.
Whose conversation it is, is still said by the provider's credential (see `tenant`).
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from cachetools import LRUCache
from mitmproxy import http
from mitmproxy.proxy.mode_specs import ProxyMode

from mitmcontext.proxy import page, words
from mitmcontext.proxy.figures import Figures
from mitmcontext.proxy.optouts import MOST, SHARED_SECONDS, OptOuts
from mitmcontext.settings import Settings
from mitmcontext.stores.base import Store
from mitmcontext.values import Outcome

USERS: Final = 10_000
"""So many users have figures of their own; those of all others are one."""

HEADER: Final = "x-mitmcontext"
"""A request that changes something has this header, which no page of another site can send."""

_ORIGIN: Final = "http://context.mitm"
_LONGEST_NAME: Final = 200
_STEPS_KEPT: Final = 50
_SUMMARY_LINES: Final = 100
# Modes in which mitmproxy asks everyone who they are, whatever they send.
_MODES: Final = ("regular", "upstream", "socks5")
# What of all figures says something of the proxy, and not of one user's requests.
_OF_THE_PROXY: Final = ("memory_usage_mb", "cache_hit_ratio")
# Options that save, show or mix up what many people send, and why each must not be set.
_FORBIDDEN: Final = {
    "save_stream_file": "it saves everybody's requests",
    "hardump": "it saves everybody's requests",
    "proxy_debug": "it writes what is sent into the log",
    "stickyauth": "it gives one person's credentials to the others",
    "stickycookie": "it gives one person's cookies to the others",
}
_log: Final = logging.getLogger(__name__)


def objections(options: Any, *, keeps_flows: bool) -> Iterator[str]:
    """Why these options of mitmproxy's will not do for a team, each as a sentence.

    Args:
        options: mitmproxy's.
        keeps_flows: whether it runs with a list of everybody's flows, as in mitmweb.
    """
    auth = getattr(options, "proxyauth", None)
    if not auth:
        yield (
            "a team's proxy must know who is who; set proxyauth, such as "
            "--proxyauth @team.htpasswd (a file made with htpasswd -B)"
        )
    elif auth == "any":
        yield (
            "proxyauth=any lets everybody in under any name; set it to a file made with "
            "htpasswd -B, such as --proxyauth @team.htpasswd"
        )
    for spec in options.mode:
        if ProxyMode.parse(spec).type_name not in _MODES:
            yield f"a team's proxy cannot ask for names in mode {spec}; use {', '.join(_MODES)}"
    if keeps_flows:
        yield "a team's proxy runs as mitmdump, since mitmweb and the console keep all requests"
    for name, why in _FORBIDDEN.items():
        if getattr(options, name, None):
            yield f"{name} must not be set for a team: {why}"
    if getattr(options, "flow_detail", 0) > 0:
        yield "flow_detail must be 0 for a team: it shows URLs, which may hold keys"
    if getattr(options, "termlog_verbosity", "") == "debug":
        yield "termlog_verbosity must not be debug for a team: it shows parts of what is sent"


def user_of(flow: http.HTTPFlow) -> str:
    """The proxy user who sent this request, as mitmproxy has verified it; "" if there is none."""
    found = flow.metadata.get("proxyauth")
    return str(found[0]) if isinstance(found, tuple | list) and found else ""


class Team:
    """The people behind one proxy.

    Args:
        kept: the carried figures, in which those of each user live as well.
        total: the figures of all together.
        stores: where users' choices survive a restart.
        key: what names are digested with for those stores.
        shared: whether other proxies use a store, too.
    """

    def __init__(
        self,
        kept: dict[str, Any],
        total: Figures,
        stores: Sequence[Store],
        key: bytes,
        *,
        shared: bool,
    ) -> None:
        self._users: dict[str, dict[str, Any]] = kept.setdefault("users", {})
        self._others: dict[str, Any] = kept.setdefault("others", {})
        self._total = total
        self._shared = shared
        choices = kept.setdefault("choices", LRUCache(MOST))
        self._optouts = OptOuts(choices, stores, key, shared=shared)

    async def is_out(self, flow: http.HTTPFlow, settings: Settings) -> bool:
        """Whether this flow's user is to be left alone."""
        user = user_of(flow)
        return user in settings.context_opt_out or (bool(user) and await self._optouts.has(user))

    def figures_of(self, flow: http.HTTPFlow) -> Figures:
        """Where to count what concerns this flow; it counts in the total as well."""
        user = user_of(flow)
        if not user:
            return self._total
        if user not in self._users:
            if len(self._users) >= USERS or len(user) > _LONGEST_NAME:
                return self._figures(self._others)
            self._users[user] = {}
        return self._figures(self._users[user])

    def _figures(self, kept: dict[str, Any]) -> Figures:
        return Figures(time.monotonic, kept, self._total, _STEPS_KEPT)

    def clear(self) -> None:
        """Forget the figures of all users, but not who wants to be left alone."""
        self._users.clear()
        self._others.clear()

    def log_line(self, outcome: Outcome) -> str:
        """One line for a condensed request: counts, and neither who nor where."""
        return f"{words.comment(outcome)} · {outcome.milliseconds:.0f} ms"

    def rows(self, settings: Settings) -> dict[str, dict[str, Any]]:
        """Each user's counts in brief, those of the busiest first."""
        rows = {
            user: self._figures(kept).brief() | {"opted_out": self._is_out_now(user, settings)}
            for user, kept in list(self._users.items())
        }
        return dict(sorted(rows.items(), key=lambda row: -row[1]["seen"]))

    def others(self) -> dict[str, int]:
        """The counts of all who have none of their own."""
        return self._figures(self._others).brief() if self._others else {}

    def summary(self, settings: Settings) -> Iterator[str]:
        """What is logged at the end: a line for each of the busiest users."""
        rows = self.rows(settings)
        for user, row in list(rows.items())[:_SUMMARY_LINES]:
            yield f"{json.dumps(user)}: {_in_words(row)}"
        if len(rows) > _SUMMARY_LINES:
            yield f"and {len(rows) - _SUMMARY_LINES:,} users more"
        if self._others:
            yield f"all other users: {_in_words(self.others())}"

    def _is_out_now(self, user: str, settings: Settings) -> bool:
        return user in settings.context_opt_out or self._optouts.has_at_hand(user)

    async def serve(
        self, flow: http.HTTPFlow, settings: Settings, totals: Mapping[str, Any]
    ) -> None:
        """Answer a request for http://context.mitm/, each user with their own figures."""
        if flow.request.port != 80:
            return
        try:
            user = user_of(flow)
            if user:
                flow.response = await self._answer(flow.request, user, settings, totals)
            else:
                flow.response = _plain(403, "nobody has logged in")
        except Exception as error:  # noqa: BLE001 - never anybody else's page
            _log.warning("mitmcontext: the page failed (%s)", type(error).__name__)
            flow.response = _plain(500, "the page failed")

    async def _answer(
        self, request: http.Request, user: str, settings: Settings, totals: Mapping[str, Any]
    ) -> http.Response:
        path = request.path.partition("?")[0]
        if path in ("/opt-out", "/opt-in"):
            return await self._choose(request, user, settings, out=path == "/opt-out")
        if path not in ("/", "/stats.json", "/team", "/team.json"):
            return _plain(404, "there are /, /stats.json, /opt-out and /opt-in")
        if request.method not in ("GET", "HEAD"):
            return _plain(405, "only GET and HEAD", {"allow": "GET, HEAD"})
        operator = user in settings.context_operators
        if path.startswith("/team"):
            if not operator:
                return _plain(403, "this is for those whom context_operators names")
            rows = self.rows(settings)
            if path == "/team":
                return _html(page.team_as_html(rows, self.others()))
            return _json({"totals": totals, "users": rows, "others": self.others()})
        out = user in settings.context_opt_out or await self._optouts.has(user)
        own = self._own(user)
        if path == "/stats.json":
            return _json({"user": user, "opted_out": out} | own)
        fixed = user in settings.context_opt_out
        return _html(page.as_html(own, page.person(user, out=out, fixed=fixed, operator=operator)))

    def _own(self, user: str) -> dict[str, Any]:
        """This user's figures; those of a user who is counted with others are nobody's to see."""
        figures = Figures(time.monotonic, self._users.get(user))
        own = {k: v for k, v in figures.snapshot().items() if k not in _OF_THE_PROXY}
        return own | {"uptime_seconds": self._total.uptime()}

    async def _choose(
        self, request: http.Request, user: str, settings: Settings, *, out: bool
    ) -> http.Response:
        """A user's own choice. No page of another site can make it for them."""
        if request.method != "POST":
            return _plain(405, "only POST", {"allow": "POST"})
        by_form = request.headers.get("origin") == _ORIGIN
        if not by_form and HEADER not in request.headers:
            return _plain(403, f"send the header {HEADER}: 1, or use the form at {_ORIGIN}/")
        if user in settings.context_opt_out:
            return _plain(409, "whoever runs this proxy has opted you out (context_opt_out)")
        everywhere = await self._optouts.choose(user, out=out)
        if by_form:
            return http.Response.make(303, b"", {"location": "/", "cache-control": "no-store"})
        said = "opted out: your requests go out as they came" if out else "opted in"
        if not everywhere:
            said += "; this could not be written down, and holds at this proxy until it restarts"
        elif self._shared:
            said += f"; the other proxies follow within {SHARED_SECONDS:.0f} seconds"
        return _plain(200, said)


def _in_words(row: Mapping[str, Any]) -> str:
    words = [
        f"{row['seen']:,} requests",
        f"{row['recognised']:,} of an LLM",
        f"{row['condensed']:,} condensed",
        f"{row['sent']:,} tokens sent",
        f"{row['forwarded']:,} forwarded",
    ]
    return ", ".join([*words, "opted out"] if row.get("opted_out") else words)


def _plain(status: int, text: str, headers: Mapping[str, str] | None = None) -> http.Response:
    return _response(status, page.TEXT, text + "\n", (headers or {}).items())


def _html(text: str) -> http.Response:
    return _response(200, page.HTML, text)


def _json(value: Mapping[str, Any]) -> http.Response:
    return _response(200, page.JSON, json.dumps(value, indent=2) + "\n")


def _response(
    status: int, kind: str, text: str, more: Iterable[tuple[str, str]] = ()
) -> http.Response:
    pairs = [(b"content-type", kind.encode()), *page.HEADERS]
    pairs += [(name.encode(), value.encode()) for name, value in more]
    return http.Response.make(status, text.encode("utf-8", "replace"), http.Headers(pairs))
