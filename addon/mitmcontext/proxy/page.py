"""The figures for whoever uses the proxy: http://context.mitm/, its stats.json and metrics.

mitmproxy asks nobody for a password here, so that there is nothing here but counts. For a team it
does ask, and each of its people has a page of their own (see `team`).
"""

from __future__ import annotations

import html
import json
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, MutableMapping
from typing import Any

from mitmcontext.proxy import metrics

type Scope = Mapping[str, Any]
type Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
type Send = Callable[[dict[str, Any]], Awaitable[None]]
type App = Callable[[Scope, Receive, Send], Awaitable[None]]

HEADERS = (
    (b"cache-control", b"no-store"),
    (
        b"content-security-policy",
        (
            b"default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; "
            b"frame-ancestors 'none'; base-uri 'none'"
        ),
    ),
    # With no-referrer the browser would not say that a form of ours is ours.
    (b"referrer-policy", b"same-origin"),
    (b"x-content-type-options", b"nosniff"),
)
TEXT = "text/plain; charset=utf-8"
HTML = "text/html; charset=utf-8"
JSON = "application/json"

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
    "refused_length": "refused by the provider as too long",
    "sent": "sent by clients",
    "forwarded": "forwarded",
    "saved": "saved",
    "reduced_at_birth.results": "results",
    "reduced_at_birth.tokens": "tokens saved on each turn from then on",
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
    "opted_out": "opted out",
    "predicted": "steps were expected to save",
    "requests_priced": "requests with a known price",
    "requests_of_unknown_price": "requests of unknown price",
    "steps_of_unknown_price": "steps of unknown price",
    "no_step": "full, but no step would have helped",
    "avg_ms": "on average",
    "max_ms": "at most",
    "attempts": "steps tried",
    "money.questions": "cost of questions to models",
    "questions.success_rate": "summaries that were good enough",
    "questions.avg_answer_ms": "time per answer, ms",
    "questions.avg_tokens_saved": "tokens freed by each that was used",
    "questions.price": "cost, US dollars",
    "questions.waiting_ms": "waiting in all, ms",
    "questions.prepared": "summaries made ahead of need",
    "questions.used": "of these used",
    "questions.wasted": "of these never used",
    "questions.late": "answers that came too late",
    "questions.shed": "put off, since too many were under way",
    "questions.stopped": "given up, since nobody waited any more",
}
_SECTIONS = {
    "requests": "Requests",
    "tokens": "Tokens (estimated)",
    "money": "Money, in US dollars (cost as reported, savings estimated after cache effects)",
    "condensation_stats": "Steps",
    "processing": "Time per LLM request, ms",
    "changes": "What steps did, or would have done",
    "reduced_at_birth": "Results reduced when they were new",
    "estimates": "Estimates, against what the provider reported",
    "questions": "Questions to models",
    "left_alone": "Left alone, and why",
    "failures": "What went wrong",
}
_WHERE_USED = ("questions", "reduced_at_birth")
_SHARES = (
    "within_2_percent",
    "within_5_percent",
    "median_error",
    "success_rate",
    "cache_hit_ratio",
    "error_rate",
)


def page(snapshot: Callable[[], Mapping[str, Any]]) -> App:
    """An ASGI app that serves this snapshot as a page and as JSON."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        status, kind, text = answer(scope["method"], scope["path"], snapshot)
        body = text.encode()
        headers = [
            (b"content-type", kind.encode()),
            (b"content-length", str(len(body)).encode()),
            *HEADERS,
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
        return 405, TEXT, "only GET and HEAD\n"
    if path == "/stats.json":
        return 200, JSON, json.dumps(snapshot(), indent=2) + "\n"
    if path == "/metrics":
        return 200, metrics.TEXT, metrics.metrics(snapshot())
    if path == "/":
        return 200, HTML, as_html(snapshot())
    return 404, TEXT, "there are /, /stats.json and /metrics\n"


def as_html(figures: Mapping[str, Any], more: Iterable[str] = ()) -> str:
    """The figures as a page that needs no script; `more` is HTML that comes before them."""
    return "\n".join(_page(figures, more)) + "\n"


def person(user: str, *, out: bool, fixed: bool, operator: bool) -> Iterator[str]:
    """What one of a team's people is told and may choose, as HTML.

    Args:
        user: the proxy user.
        out: whether this user's requests are left alone.
        fixed: whether that is not theirs to change.
        operator: whether this user may see the counts of all.
    """
    yield f"<p>These are the figures of <b>{html.escape(user)}</b> at this proxy.</p>"
    if operator:
        yield '<p><a href="/team">The counts of everybody</a></p>'
    if fixed:
        yield "<p>Whoever runs this proxy has opted you out: your requests go out as they came.</p>"
    elif out:
        yield "<p>You have opted out: your requests go out as they came.</p>"
        yield _form("/opt-in", "Opt in again")
    else:
        yield (
            "<p>If you opt out, your requests go out as they came, also those of conversations "
            "that were shortened before.</p>"
        )
        yield _form("/opt-out", "Opt out")


def _form(action: str, label: str) -> str:
    return f'<form method="post" action="{action}"><button>{html.escape(label)}</button></form>'


def team_as_html(rows: Mapping[str, Mapping[str, Any]], others: Mapping[str, Any]) -> str:
    """The counts of everybody, one row for each."""
    return "\n".join(_team(rows, others)) + "\n"


def _team(rows: Mapping[str, Mapping[str, Any]], others: Mapping[str, Any]) -> Iterator[str]:
    yield from _top()
    yield '<p>Counts at this proxy, never content. Also <a href="/team.json">as JSON</a>.</p>'
    columns = next(iter(rows.values()), {})
    yield "<table><tr><td>user</td>"
    yield from (f"<td>{html.escape(_LABELS.get(name, name))}</td>" for name in columns)
    yield "</tr>"
    for name, row in (*rows.items(), *([("all others", others)] if others else [])):
        cells = (f"<td>{html.escape(_number(key, value))}</td>" for key, value in row.items())
        yield f"<tr><td>{html.escape(name)}</td>{''.join(cells)}</tr>"
    yield "</table></body></html>"


def _page(figures: Mapping[str, Any], more: Iterable[str]) -> Iterator[str]:
    yield from _top()
    yield (
        '<p>Counts since the start, never content. Also <a href="/stats.json">as JSON</a> and '
        '<a href="/metrics">for Prometheus</a>.</p>'
    )
    yield from more
    for name, title in _SECTIONS.items():
        section = figures.get(name)
        if isinstance(section, Mapping) and section:
            section = dict(_flat(section))
            if name in _WHERE_USED and not any(section.values()):
                continue
            yield from _table(title, section, _amount if name == "money" else _number, name)
    rest = {name: value for name, value in figures.items() if isinstance(value, int | float)}
    yield from _table("The proxy", rest)
    yield "</body></html>"


def _flat(section: Mapping[str, Any]) -> Iterator[tuple[str, object]]:
    """A section's figures, those by reason each behind the name that they share."""
    for name, value in section.items():
        if isinstance(value, Mapping):
            label = name.replace("_", " ")
            yield from ((f"{label}: {reason}", count) for reason, count in value.items())
        else:
            yield name, value


def _top() -> Iterator[str]:
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


def _table(
    title: str,
    figures: Mapping[str, Any],
    shown: Callable[[str, object], str] | None = None,
    section: str = "",
) -> Iterator[str]:
    yield f"<h2>{html.escape(title)}</h2><table>"
    for name, value in figures.items():
        common = _LABELS.get(name, name.replace("_", " "))
        label = html.escape(_LABELS.get(f"{section}.{name}", common))
        text = (shown or _number)(name, value)
        yield f"<tr><td>{label}</td><td>{html.escape(text)}</td></tr>"
    yield "</table>"


def _amount(name: str, value: object) -> str:
    return dollars(value) if isinstance(value, float) else _number(name, value)


def dollars(amount: float) -> str:
    """An amount, down to what a small request costs; a saving may be negative."""
    return f"{'-' if amount < 0 else ''}${abs(amount):,.4f}"


def _number(name: str, value: object) -> str:
    if name in _SHARES and isinstance(value, int | float):
        return f"{100 * value:.1f} %"
    if isinstance(value, bool):
        return "yes" if value else ""
    if isinstance(value, float):
        return f"{value:,.1f}"
    return f"{value:,}" if isinstance(value, int) else str(value)
