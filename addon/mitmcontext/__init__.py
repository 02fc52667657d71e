"""mitmcontext keeps every LLM tool's requests inside the model's context window.

As a mitmproxy addon it is started with `mitmdump -s addon/context.py`. What it is made of can be
used on its own: `wire` reads a provider's request, `tokens` and `models` say how large it is and
how much the model can take, `condense` plans what to shorten, `pipeline` puts these together.

For programs there are the names of the specification, imported from here:

    from mitmcontext import apply_intelligent_context_management, get_performance_metrics

Each is loaded when it is first asked for, since the addon itself needs none of them.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mitmcontext.accurate_token_counter import (
        AccurateTokenCounter,
        batch_token_count,
        optimize_cache_size,
        warm_up_caches,
    )
    from mitmcontext.condense.summaries.selection import select_optimal_strategy
    from mitmcontext.context_window_manager import (
        ContextManagementResult,
        apply_intelligent_context_management,
        get_context_performance_stats,
    )
    from mitmcontext.load_testing import load_test
    from mitmcontext.multi_tier_cache import MultiTierCache
    from mitmcontext.performance_benchmark import PerformanceBenchmark
    from mitmcontext.performance_monitor import PerformanceMonitor, get_performance_metrics

__version__ = "0.1.0"
__all__ = [
    "AccurateTokenCounter",
    "ContextManagementResult",
    "MultiTierCache",
    "PerformanceBenchmark",
    "PerformanceMonitor",
    "apply_intelligent_context_management",
    "batch_token_count",
    "get_context_performance_stats",
    "get_performance_metrics",
    "load_test",
    "optimize_cache_size",
    "select_optimal_strategy",
    "warm_up_caches",
]

_PLACES = {
    "AccurateTokenCounter": "accurate_token_counter",
    "ContextManagementResult": "context_window_manager",
    "MultiTierCache": "multi_tier_cache",
    "PerformanceBenchmark": "performance_benchmark",
    "PerformanceMonitor": "performance_monitor",
    "apply_intelligent_context_management": "context_window_manager",
    "batch_token_count": "accurate_token_counter",
    "get_context_performance_stats": "context_window_manager",
    "get_performance_metrics": "performance_monitor",
    "load_test": "load_testing",
    "optimize_cache_size": "accurate_token_counter",
    "select_optimal_strategy": "condense.summaries.selection",
    "warm_up_caches": "accurate_token_counter",
}


def __getattr__(name: str) -> Any:
    """Load one of the specification's names.

    Raises:
        AttributeError: it is none of them.
    """
    place = _PLACES.get(name)
    if place is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{place}"), name)
