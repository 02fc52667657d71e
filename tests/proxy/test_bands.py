"""The specification's bands: its own bounds, and one alert for each time that one is missed."""

from __future__ import annotations

from typing import Any

import pytest

from mitmcontext.proxy.bands import alerts, bands
from mitmcontext.proxy.figures import Figures
from mitmcontext.proxy.summary import summary


def figures(**values: Any) -> dict[str, Any]:
    """Those of a proxy that has had enough to do to be judged."""
    found = Figures(lambda: 0.0).snapshot()
    found["requests"]["recognised"] = 1_000
    found["stores"] = {"token counts": {"hits": 1_000, "misses": 0}}
    found["cache_hit_ratio"] = values.get("hits", 1.0)
    found["condensation_stats"] |= {"attempts": 50, "success_rate": values.get("success", 1.0)}
    found["processing"] |= {"requests": 1_000, "avg_ms": values.get("ms", 1.0)}
    found["error_rate"] = values.get("errors", 0.0)
    return found


# From the specification: hit ratio, success rate, processing time in ms, error rate.
@pytest.mark.parametrize(
    ("name", "key", "value", "rating"),
    [
        ("cache_hit_ratio", "hits", 0.951, "excellent"),
        ("cache_hit_ratio", "hits", 0.95, "good"),
        ("cache_hit_ratio", "hits", 0.801, "good"),
        ("cache_hit_ratio", "hits", 0.80, "needs optimisation"),
        ("condensation_success_rate", "success", 0.96, "excellent"),
        ("condensation_success_rate", "success", 0.91, "good"),
        ("condensation_success_rate", "success", 0.89, "needs attention"),
        ("processing_time_ms", "ms", 49.9, "excellent"),
        ("processing_time_ms", "ms", 99.9, "good"),
        ("processing_time_ms", "ms", 100.1, "needs optimisation"),
        ("error_rate", "errors", 0.009, "excellent"),
        ("error_rate", "errors", 0.049, "good"),
        ("error_rate", "errors", 0.051, "needs attention"),
    ],
)
def test_each_indicator_has_its_bands(name: str, key: str, value: float, rating: str) -> None:
    found = {band.target.name: band for band in bands(figures(**{key: value}))}
    assert found[name].rating == rating
    assert found[name].missed == rating.startswith("needs")


def test_a_handful_of_cases_says_nothing() -> None:
    assert {band.rating for band in bands(Figures(lambda: 0.0).snapshot())} == {"undecided"}
    assert not alerts(bands(Figures(lambda: 0.0).snapshot()), set())


def test_an_alert_comes_once_and_again_only_after_better_times() -> None:
    missed: set[str] = set()
    bad, fine = bands(figures(errors=0.2)), bands(figures())
    (said,) = alerts(bad, missed)
    assert said.startswith("errors per LLM request: 20.0 %, above 5.0 %: needs attention. ")
    assert not alerts(bad, missed)
    assert not alerts(fine, missed)
    assert len(alerts(bad, missed)) == 1


def test_the_summary_tells_what_is_missed() -> None:
    assert any("needs optimisation" in line for line in summary(figures(ms=250.0)))
    assert not any("needs" in line for line in summary(figures()))
    (line,) = summary(Figures(lambda: 0.0).snapshot())
    assert line.startswith("0 requests, 0 of them to LLMs: 0 as they came, 0 condensed")
