"""The specification's monitoring: metrics of all requests, and a monitor of one's own calls."""

from __future__ import annotations

import time
from typing import Any, TypedDict

from mitmcontext.context_window_manager import (
    ContextManagementResult,
    Messages,
    apply_intelligent_context_management,
    get_context_performance_stats,
)


def get_performance_metrics() -> dict[str, float]:
    """The figures that are worth watching; 0 for what there is nothing to say of yet.

    Shares are between 0 and 1; `avg_processing_time_ms` is that of a condensing step.
    """
    stats = get_context_performance_stats()
    steps = stats.get("condensation_stats", {})
    return {
        "cache_hit_ratio": stats.get("cache_hit_ratio", 0),
        "condensation_success_rate": steps.get("success_rate", 0),
        "avg_processing_time_ms": steps.get("avg_processing_time_ms", 0),
        "tokens_saved_per_request": steps.get("avg_tokens_saved", 0),
        "memory_usage_mb": stats.get("memory_usage_mb", 0),
        "error_rate": stats.get("error_rate", 0),
    }


class Metrics(TypedDict):
    """What a monitor counts: times in milliseconds, `start_time` in seconds of the wall clock."""

    request_count: int
    total_processing_time: float
    total_tokens_saved: int
    errors: int
    start_time: float


class PerformanceMonitor:
    """Counts and times calls of `apply_intelligent_context_management`."""

    def __init__(self) -> None:
        self.metrics = Metrics(
            request_count=0,
            total_processing_time=0.0,
            total_tokens_saved=0,
            errors=0,
            start_time=time.time(),
        )
        self._began = time.monotonic()

    async def monitored_request(
        self, messages: Messages, is_vision: bool = False, **named: Any
    ) -> ContextManagementResult:
        """Manage a conversation, and take note of how long that took and what it saved.

        Raises:
            ValueError: whatever `apply_intelligent_context_management` raises; it is counted.
        """
        began = time.perf_counter()
        try:
            result = await apply_intelligent_context_management(messages, is_vision, **named)
        except Exception:
            self.metrics["errors"] += 1
            raise
        self.metrics["request_count"] += 1
        self.metrics["total_processing_time"] += (time.perf_counter() - began) * 1_000
        self.metrics["total_tokens_saved"] += result.tokens_saved
        return result

    def get_performance_summary(self) -> dict[str, Any]:
        """Averages over the requests that succeeded, and the errors among all attempts."""
        succeeded, errors = self.metrics["request_count"], self.metrics["errors"]
        attempts = succeeded + errors
        if not attempts:
            return {"status": "No requests processed"}
        runtime = time.monotonic() - self._began
        return {
            "requests_per_second": attempts / runtime if runtime else 0.0,
            "avg_processing_time_ms": self.metrics["total_processing_time"] / max(1, succeeded),
            "avg_tokens_saved": self.metrics["total_tokens_saved"] / max(1, succeeded),
            "error_rate": errors / attempts,
            "total_requests": attempts,
            "runtime_seconds": runtime,
        }
