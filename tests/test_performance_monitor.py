"""The specification's monitor: what it counts, and that it counts rightly."""

from __future__ import annotations

import time
from typing import Any

import pytest

from mitmcontext import PerformanceMonitor, get_performance_metrics
from mitmcontext.context_window_manager import _engine

# The specification's own demonstration.
CONVERSATION: list[dict[str, Any]] = [
    {"role": "system", "content": "You are a helpful assistant."},
    {"role": "user", "content": "Hello! " * 1000},
    {"role": "assistant", "content": "I am here to help you. " * 1000},
]


@pytest.fixture(autouse=True)
def engine() -> None:
    _engine.cache_clear()


async def test_nothing_yet() -> None:
    assert PerformanceMonitor().get_performance_summary() == {"status": "No requests processed"}
    metrics = get_performance_metrics()
    assert metrics.pop("memory_usage_mb") > 10
    assert metrics == {
        "cache_hit_ratio": 0,
        "condensation_success_rate": 0,
        "avg_processing_time_ms": 0,
        "tokens_saved_per_request": 0,
        "error_rate": 0,
    }


async def test_the_specifications_demonstration() -> None:
    monitor, began, saved = PerformanceMonitor(), time.monotonic(), 0
    for _ in range(100):
        saved += (await monitor.monitored_request(CONVERSATION, window=8_000)).tokens_saved
    spent = time.monotonic() - began
    metrics = monitor.metrics
    assert metrics["request_count"] == 100
    assert metrics["total_tokens_saved"] == saved
    assert 0 < metrics["total_processing_time"] <= 1_000 * spent
    assert metrics["errors"] == 0
    assert abs(metrics["start_time"] - time.time()) < 60
    summary = monitor.get_performance_summary()
    assert set(summary) == {
        "requests_per_second",
        "avg_processing_time_ms",
        "avg_tokens_saved",
        "error_rate",
        "total_requests",
        "runtime_seconds",
    }
    assert summary["total_requests"] == 100
    assert summary["avg_tokens_saved"] == saved / 100
    assert summary["runtime_seconds"] >= spent
    per_second = 100 / summary["runtime_seconds"]
    assert summary["requests_per_second"] == pytest.approx(per_second, rel=0.05)


async def test_errors_are_among_the_attempts() -> None:
    monitor = PerformanceMonitor()
    await monitor.monitored_request(CONVERSATION)
    with pytest.raises(ValueError, match="messages"):
        await monitor.monitored_request(["text"])  # type: ignore[list-item]  # on purpose
    summary = monitor.get_performance_summary()
    assert (summary["total_requests"], summary["error_rate"]) == (2, 0.5)
    assert monitor.metrics["errors"] == 1
