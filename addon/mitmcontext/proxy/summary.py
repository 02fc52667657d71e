"""The figures in a few sentences: what mitmdump says at its end, `context.stats` at any time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from mitmcontext.proxy.bands import bands, shown
from mitmcontext.proxy.page import dollars


def summary(figures: Mapping[str, Any]) -> Iterator[str]:
    """One line for each thing that there is to say.

    Args:
        figures: as `stats.json` has them.
    """
    requests = figures["requests"]
    yield (
        f"{requests['seen']:,} requests, {requests['recognised']:,} of them to LLMs: "
        f"{requests['under_threshold'] + requests['no_step']:,} as they came, "
        f"{requests['condensed']:,} condensed, {requests['reapplied']:,} with earlier steps, "
        f"{requests['observed']:,} observed, {requests['left_alone']:,} left alone, "
        f"{requests['failed_open']:,} failed open"
    )
    if not requests["recognised"]:
        return
    yield from _saved(figures)
    yield from _estimates(figures["estimates"])
    for name, title in (("failures", "went wrong"), ("left_alone", "left alone")):
        if figures[name]:
            reasons = ", ".join(f"{count:,} x {why}" for why, count in figures[name].items())
            yield f"{title}: {reasons}"
    for band in bands(figures):
        if band.missed:
            value = shown(band.value, band.target.unit)
            yield f"{band.target.title}: {value}, {band.rating}: {band.target.advice}"


def _saved(figures: Mapping[str, Any]) -> Iterator[str]:
    tokens, money = figures["tokens"], figures["money"]
    sent, saved = tokens["sent"], tokens["saved"]
    steps = figures["steps"]
    yield (
        f"tokens: {sent:,} sent, {tokens['forwarded']:,} forwarded"
        + (f", {saved:,} saved ({saved / sent:.1%})" if saved else "")
        + (f", {tokens['would_save']:,} would be saved" if tokens["would_save"] else "")
        + f"; {steps:,} {'step' if steps == 1 else 'steps'}"
    )
    if money["requests_priced"]:
        would = f", {dollars(money['would_save'])} would be saved" if money["would_save"] else ""
        yield (
            f"money: {dollars(money['cost'])} spent, {dollars(money['saved'])} saved after "
            f"cache effects (estimated){would}"
        )
    processing = figures["processing"]
    if processing["requests"]:
        most = f"{processing['max_ms']:.0f} ms at most"
        yield f"time: {processing['avg_ms']:.1f} ms per request, {most}"


def _estimates(found: Mapping[str, Any]) -> Iterator[str]:
    if found["compared"]:
        yield (
            f"estimates: {found['compared']:,} compared with the provider's own count, "
            f"{found['within_2_percent']:.0%} within 2 %, {found['within_5_percent']:.0%} within "
            f"5 %, median error {found['median_error']:.1%}"
        )
