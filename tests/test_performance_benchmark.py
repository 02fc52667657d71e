"""The specification's benchmark suite: its parts, its fields, and tokens where it says tokens."""

from __future__ import annotations

import logging

import pytest

from mitmcontext import AccurateTokenCounter, PerformanceBenchmark


async def test_both_parts_are_run_and_all_fields_filled(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "mitmcontext")
    seen: list[tuple[str, int, int]] = []
    benchmark = PerformanceBenchmark(lambda *step: seen.append(step), iterations=3)
    assert benchmark.results == {}
    results = await benchmark.run_all_benchmarks()
    assert results is benchmark.results
    counting, condensation = results["token_counting"], results["condensation"]
    assert list(counting) == [f"message_type_{at}" for at in range(4)]
    assert list(condensation) == [f"conversation_size_{at}" for at in range(3)]
    for one in counting.values():
        assert set(one) == {"avg_time_ms", "tokens_per_second"}
    for one in condensation.values():
        assert set(one) == {"processing_time_ms", "tokens_saved", "tokens_per_second"}
    saved = [one["tokens_saved"] for one in condensation.values()]
    assert saved[0] == 0
    assert 0 < saved[1] < saved[2]
    assert seen[-1] == ("condensation", 3, 3)
    assert any("begin" in line for line in caplog.messages)
    assert any("done" in line for line in caplog.messages)


async def test_it_is_tokens_that_are_counted_per_second() -> None:
    found = await PerformanceBenchmark(iterations=4).benchmark_token_counting()
    long = found["message_type_2"]
    tokens = long["tokens_per_second"] * long["avg_time_ms"] / 1_000
    message = {"role": "user", "content": "0 " + "Very long message " * 500}
    counted = await AccurateTokenCounter().count_tokens_async(message)
    assert counted > 1_000
    assert tokens == pytest.approx(counted, abs=1)
