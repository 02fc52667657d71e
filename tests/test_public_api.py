"""The specification's names, as its own snippets use them once their imports are adjusted."""

from __future__ import annotations

import asyncio
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import mitmcontext

ADDON = Path(__file__).parents[1] / "addon"

# Section 14 of the specification: names and signatures.
SIGNATURES = {
    "apply_intelligent_context_management": ["messages", "is_vision"],
    "get_context_performance_stats": [],
    "get_performance_metrics": [],
    "PerformanceMonitor": [],
    "AccurateTokenCounter": [],
    "batch_token_count": ["messages_batch"],
    "select_optimal_strategy": ["context_utilization", "message_count", "content_type"],
    "optimize_cache_size": ["requests_per_minute", "avg_message_length"],
    "MultiTierCache": [],
    "warm_up_caches": [],
    "load_test": ["base_url", "concurrent_requests", "total_requests"],
    "PerformanceBenchmark": [],
}
ASYNCHRONOUS = {
    "apply_intelligent_context_management",
    "batch_token_count",
    "warm_up_caches",
    "load_test",
}


@pytest.mark.parametrize("name", SIGNATURES)
def test_every_name_is_there_and_takes_what_it_must(name: str) -> None:
    found = getattr(mitmcontext, name)
    wanted = SIGNATURES[name]
    parameters = list(inspect.signature(found).parameters.values())
    assert [one.name for one in parameters[: len(wanted)]] == wanted
    for more in parameters[len(wanted) :]:
        assert more.default is not inspect.Parameter.empty
    assert asyncio.iscoroutinefunction(found) == (name in ASYNCHRONOUS)
    assert inspect.getdoc(found)


def test_nothing_else_is_there() -> None:
    assert set(SIGNATURES) < set(mitmcontext.__all__)
    with pytest.raises(AttributeError, match="nonsense"):
        _ = mitmcontext.nonsense


def test_importing_the_package_loads_nothing() -> None:
    """The addon pays for none of this."""
    program = (
        "import sys, mitmcontext; "
        "print([name for name in ('mitmproxy', 'httpx', 'tiktoken') if name in sys.modules])"
    )
    said = subprocess.run(
        [sys.executable, "-c", program],
        env={"PYTHONPATH": str(ADDON)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert said.stdout.strip() == "[]"


# The specification's rule, and its own example.
@pytest.mark.parametrize(
    ("utilization", "count", "content", "strategy"),
    [
        (0.79, 50, "code", None),
        (0.85, 15, "code", "key_point_extraction"),
        (0.85, 50, "technical", "key_point_extraction"),
        (0.85, 21, "general", "progressive_summarization"),
        (0.96, 15, "general", "smart_truncation"),
        (0.85, 15, "general", "conversation_summary"),
        # Where its order contradicted its aim, speed comes first.
        (0.96, 50, "code", "smart_truncation"),
    ],
)
def test_the_rule_that_selects_a_strategy(
    utilization: float, count: int, content: str, strategy: str | None
) -> None:
    assert mitmcontext.select_optimal_strategy(utilization, count, content) == strategy
