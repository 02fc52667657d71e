"""The figures for whoever uses the proxy: http://context.mitm/ and its stats.json.

mitmproxy asks nobody for a password here, so that there is nothing here but counts.
"""

from __future__ import annotations

import html
import json
from collections.abc import Awaitable, Callable, Iterator, Mapping, MutableMapping
from typing import Any

type Scope = Mapping[str, Any]
type Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
type Send = Callable[[dict[str, Any]], Awaitable[None]]
type App = Callable[[Scope, Receive, Send], Awaitable[None]]

_HEADERS = (
    (b"cache-control", b"no-store"),
    (b"content-security-policy", b"default-src 'none'; style-src 'unsafe-inline'"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
)
_TEXT = "text/plain; charset=utf-8"

# In the reader's words; what has none is shown by its name.
_LABELS = {
    "seen": "requests seen",
    "recognised": "of these, LLM requests",
    "left_alone": "left alone",
    "under_threshold": "fit as they were",
    "condensed": "condensed by a new step",
    "reapplied": "earlier steps re-applied",
    "observed": "observed only",
    "failed_open": "failed open",
    "refused_after_rewrite": "refused by the provider after a rewrite",
    "sent": "sent by clients",
    "forwarded": "forwarded",
    "saved": "saved",
    "would_save": "would be saved, in observe mode",
    "success_rate": "steps that succeeded",
    "avg_processing_time_ms": "time per step, ms",
    "avg_tokens_saved": "tokens freed per step",
    "steps": "steps taken",
    "prefix_breaks_unexplained": "unexplained prefix breaks",
    "cache_hit_ratio": "message counts known already",
    "memory_usage_mb": "memory, MB",
    "error_rate": "errors per LLM request",
    "uptime_seconds": "running for, seconds",
}
_SECTIONS = {
    "requests": "Requests",
    "tokens": "Tokens (estimated)",
    "condensation_stats": "Steps",
    "left_alone": "Left alone, and why",
    "failures": "What went wrong",
}
_SHARES = ("success_rate", "cache_hit_ratio", "error_rate")


def page(snapshot: Callable[[], Mapping[str, Any]]) -> App:
    """An ASGI app that serves this snapshot as a page and as JSON."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        status, kind, text = answer(scope["method"], scope["path"], snapshot)
        body = text.encode()
        headers = [
            (b"content-type", kind.encode()),
            (b"content-length", str(len(body)).encode()),
            *_HEADERS,
        ]
        if status == 405:
            headers.append((b"allow", b"GET, HEAD"))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send(
            {"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body}
        )

    return app


def answer(
    method: str, path: str, snapshot: Callable[[], Mapping[str, Any]]
) -> tuple[int, str, str]:
    """Status, content type and text for a request."""
    if method not in ("GET", "HEAD"):
        return 405, _TEXT, "only GET and HEAD\n"
    if path == "/stats.json":
        return 200, "application/json", json.dumps(snapshot(), indent=2) + "\n"
    if path == "/":
        return 200, "text/html; charset=utf-8", as_html(snapshot())
    return 404, _TEXT, "there are / and /stats.json\n"


def as_html(figures: Mapping[str, Any]) -> str:
    """The figures as a page that needs no script."""
    return "\n".join(_page(figures)) + "\n"


def _page(figures: Mapping[str, Any]) -> Iterator[str]:
    yield "<!doctype html>"
    yield '<html lang="en"><head><meta charset="utf-8"><title>mitmcontext</title>'
    yield '<meta name="viewport" content="width=device-width">'
    yield (
        "<style>body{font:16px/1.5 system-ui,sans-serif;max-width:40rem;margin:2rem auto;"
        "padding:0 1rem;color-scheme:light dark}table{width:100%;border-collapse:collapse}"
        "td{padding:.15rem 0;border-bottom:1px solid #8884}"
        "td+td{text-align:right;font-variant-numeric:tabular-nums}h2{margin:2rem 0 .3rem}</style>"
    )
    yield "</head><body><h1>mitmcontext</h1>"
    yield '<p>Counts since the start, never content. Also <a href="/stats.json">as JSON</a>.</p>'
    for name, title in _SECTIONS.items():
        section = figures.get(name)
        if isinstance(section, Mapping) and section:
            yield from _table(title, section)
    rest = {name: value for name, value in figures.items() if isinstance(value, int | float)}
    yield from _table("The proxy", rest)
    yield "</body></html>"


def _table(title: str, figures: Mapping[str, Any]) -> Iterator[str]:
    yield f"<h2>{html.escape(title)}</h2><table>"
    for name, value in figures.items():
        label = html.escape(_LABELS.get(name, name.replace("_", " ")))
        yield f"<tr><td>{label}</td><td>{html.escape(_number(name, value))}</td></tr>"
    yield "</table>"


def _number(name: str, value: object) -> str:
    if name in _SHARES and isinstance(value, int | float):
        return f"{100 * value:.1f} %"
    if isinstance(value, float):
        return f"{value:,.1f}"
    return f"{value:,}" if isinstance(value, int) else str(value)
