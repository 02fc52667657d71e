"""The specification's bands: how well the proxy does, and what helps where it does not.

From its monitoring part: excellent, good, and otherwise a need with advice from its remedies. A
share of a handful of cases says nothing, so that each band has a number of cases below which it
stays undecided.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final


@dataclass(frozen=True, slots=True)
class Target:
    """An indicator: where it becomes good and excellent, and from how many cases on it counts.

    `unit` is "share" or "ms"; of a share of successes more is better (`rises`).
    """

    name: str
    title: str
    excellent: float
    good: float
    unit: str
    rises: bool
    least: int
    need: str
    advice: str


@dataclass(frozen=True, slots=True)
class Band:
    """An indicator as it stands: `rating` is "excellent", "good", the need, or "undecided"."""

    target: Target
    value: float
    cases: int
    rating: str

    @property
    def missed(self) -> bool:
        """Whether something is to be done."""
        return self.rating == self.target.need


TARGETS: Final = (
    Target(
        "cache_hit_ratio",
        "message counts that were known",
        0.95,
        0.80,
        "share",
        True,
        500,
        "needs optimisation",
        "context_profile=better_hit_ratio, or a larger tiktoken_cache_size, keeps the counts of "
        "more conversations; many short ones are all new and keep this low whatever is set",
    ),
    Target(
        "condensation_success_rate",
        "steps that succeeded",
        0.95,
        0.90,
        "share",
        True,
        10,
        "needs attention",
        "the reasons stand under errors; where the provider refused a rewritten request, the "
        "conversation goes on without steps, and the flow's comment says so",
    ),
    Target(
        "processing_time_ms",
        "time spent per LLM request",
        50.0,
        100.0,
        "ms",
        False,
        20,
        "needs optimisation",
        "context_profile=faster_responses; enable_context_performance_logging tells which "
        "requests take long: a busy machine, a slow disk under context_cache_dir or a far Redis "
        "are the usual causes",
    ),
    Target(
        "error_rate",
        "errors per LLM request",
        0.01,
        0.05,
        "share",
        False,
        20,
        "needs attention",
        "the reasons stand under errors; each of these requests went out one rung further down",
    ),
)


def bands(figures: Mapping[str, Any]) -> list[Band]:
    """Each indicator against its target.

    Args:
        figures: as `stats.json` has them.
    """
    recognised = figures["requests"]["recognised"]
    counts = figures["stores"].get("token counts") if "stores" in figures else None
    values: dict[str, tuple[float, int]] = {
        "cache_hit_ratio": (
            figures["cache_hit_ratio"],
            counts["hits"] + counts["misses"] if counts else recognised,
        ),
        "condensation_success_rate": (
            figures["condensation_stats"]["success_rate"],
            figures["condensation_stats"]["attempts"],
        ),
        "processing_time_ms": (
            figures["processing"]["avg_ms"],
            figures["processing"]["requests"],
        ),
        "error_rate": (figures["error_rate"], recognised),
    }
    return [_band(target, *values[target.name]) for target in TARGETS]


def _band(target: Target, value: float, cases: int) -> Band:
    if cases < target.least:
        return Band(target, value, cases, "undecided")
    sign = 1 if target.rises else -1
    if sign * value > sign * target.excellent:
        rating = "excellent"
    else:
        rating = "good" if sign * value > sign * target.good else target.need
    return Band(target, value, cases, rating)


def shown(value: float, unit: str) -> str:
    """A value with its unit, as the specification prints it: with one decimal."""
    return f"{100 * value:.1f} %" if unit == "share" else f"{value:.1f} ms"


def alerts(found: Iterable[Band], missed: set[str]) -> list[str]:
    """A sentence for each band that is newly missed; `missed` is brought up to date.

    Args:
        found: the bands as they stand.
        missed: the names of those that were missed at the last look.
    """
    said = []
    for band in found:
        target = band.target
        if not band.missed:
            missed.discard(target.name)
        elif target.name not in missed:
            missed.add(target.name)
            bound = shown(target.good, target.unit)
            said.append(
                f"{target.title}: {shown(band.value, target.unit)}, "
                f"{'below' if target.rises else 'above'} {bound}: {target.need}. {target.advice}"
            )
    return said
