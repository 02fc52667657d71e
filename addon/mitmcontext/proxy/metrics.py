"""The figures in Prometheus' plain text format: counts and shares, never a name from a request.

The format, version 0.0.4: https://prometheus.io/docs/instrumenting/exposition_formats/
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

TEXT: Final = "text/plain; version=0.0.4; charset=utf-8"

# What each figure is called and what it says: counters first.
_REQUESTS: Final = ("seen", "recognised", "refused_after_rewrite", "refused_length")


def metrics(figures: Mapping[str, Any]) -> str:
    """All of `stats.json` that is a number, for a Prometheus to fetch."""
    return "".join(f"{line}\n" for line in _lines(figures)) if figures else ""


def _lines(figures: Mapping[str, Any]) -> Iterator[str]:
    requests, tokens, money = figures["requests"], figures["tokens"], figures["money"]
    yield from _counter("requests_total", "Requests seen.", {"": requests["seen"]})
    yield from _counter("llm_requests_total", "LLM requests.", {"": requests["recognised"]})
    actions = {name: count for name, count in requests.items() if name not in _REQUESTS}
    yield from _counter("actions_total", "What became of requests.", _labelled("action", actions))
    refused = {"shape": requests["refused_after_rewrite"], "length": requests["refused_length"]}
    yield from _counter(
        "refusals_total", "Refused by a provider, by what it objected to.", _labelled("to", refused)
    )
    yield from _counter("tokens_total", "Estimated tokens.", _labelled("kind", _but_saved(tokens)))
    yield from _gauge("tokens_saved", "Estimated tokens saved.", {"": tokens["saved"]})
    yield from _counter("cost_dollars_total", "Cost as reported.", {"": money["cost"]})
    yield from _gauge("saved_dollars", "Saved after cache effects.", {"": money["saved"]})
    yield from _counter("steps_total", "Steps taken.", {"": figures["steps"]})
    breaks = figures["prefix_breaks_unexplained"]
    yield from _counter("prefix_breaks_total", "Unexplained prefix breaks.", {"": breaks})
    yield from _counter("left_alone_total", "By reason.", _labelled("why", figures["left_alone"]))
    yield from _counter("failures_total", "By reason.", _labelled("why", figures["failures"]))
    yield from _questions(figures["questions"])
    yield from _shares(figures)
    for name, what in (("hits", "found"), ("misses", "not found")):
        each = {store: held[name] for store, held in figures.get("stores", {}).items()}
        yield from _counter(f"store_{name}_total", f"Keys {what}.", _labelled("store", each))
    held = {store: one["size"] or 0 for store, one in figures.get("stores", {}).items()}
    yield from _gauge("store_bytes", "What a store holds.", _labelled("store", held))


def _questions(found: Mapping[str, Any]) -> Iterator[str]:
    counts = {name: found[name] for name in ("asked", "answered", "prepared", "used", "late")}
    yield from _counter("questions_total", "Questions to models.", _labelled("what", counts))
    yield from _counter("questions_dollars_total", "What they cost.", {"": found["price"]})
    for name in ("rejected", "not_asked"):
        reasons = _labelled("why", found[name])
        yield from _counter(f"questions_{name}_total", "By reason.", reasons)


def _shares(figures: Mapping[str, Any]) -> Iterator[str]:
    estimates, processing = figures["estimates"], figures["processing"]
    steps = figures["condensation_stats"]
    for name, help_, value in (
        ("cache_hit_ratio", "Message counts that were known.", figures["cache_hit_ratio"]),
        ("condensation_success_ratio", "Steps that succeeded.", steps["success_rate"]),
        ("error_ratio", "Errors per LLM request.", figures["error_rate"]),
        ("estimates_compared", "Estimates with a report.", estimates["compared"]),
        ("estimates_within_5_percent_ratio", "Near ones.", estimates["within_5_percent"]),
        ("processing_avg_seconds", "Time per LLM request.", processing["avg_ms"] / 1_000),
        ("processing_max_seconds", "The longest of them.", processing["max_ms"] / 1_000),
        ("memory_bytes", "Memory of the process.", figures["memory_usage_mb"] * 2**20),
        ("uptime_seconds", "Since counting began.", figures["uptime_seconds"]),
    ):
        yield from _gauge(name, help_, {"": value})


def _but_saved(tokens: Mapping[str, int]) -> dict[str, int]:
    return {name: count for name, count in tokens.items() if name in ("sent", "forwarded")}


def _labelled(label: str, values: Mapping[str, float]) -> dict[str, float]:
    return {f'{{{label}="{_escaped(name)}"}}': value for name, value in values.items()}


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def _counter(name: str, help_: str, values: Mapping[str, float]) -> Iterator[str]:
    yield from _family(name, help_, "counter", values)


def _gauge(name: str, help_: str, values: Mapping[str, float]) -> Iterator[str]:
    yield from _family(name, help_, "gauge", values)


def _family(name: str, help_: str, kind: str, values: Mapping[str, float]) -> Iterator[str]:
    if not values:
        return
    yield f"# HELP mitmcontext_{name} {help_}"
    yield f"# TYPE mitmcontext_{name} {kind}"
    yield from (f"mitmcontext_{name}{labels} {value}" for labels, value in values.items())
