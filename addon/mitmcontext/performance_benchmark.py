"""The specification's benchmark suite: how fast tokens are counted and conversations condensed.

Its texts are those of the specification, but no two messages are alike: of equal ones all but the
first would be known, and the figures would be those of a cache.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from itertools import count
from typing import Any, Final

from mitmcontext.accurate_token_counter import AccurateTokenCounter, warm_up_caches
from mitmcontext.context_window_manager import apply_intelligent_context_management

ITERATIONS: Final = 100

# So full is the window for which a conversation is condensed.
_FULL: Final = 0.95
_SMALLEST_WINDOW: Final = 2_000
_log: Final = logging.getLogger(__name__)

type Results = dict[str, dict[str, dict[str, float]]]
type Progress = Callable[[str, int, int], None]


def _content_types() -> list[Callable[[int], Any]]:
    """The four kinds of content, each with a number in it."""
    return [
        lambda number: f"Short text {number}",
        lambda number: f"{number} " + "Medium length message " * 50,
        lambda number: f"{number} " + "Very long message " * 500,
        lambda number: [{"type": "text", "text": f"List content {number}"}],
    ]


class PerformanceBenchmark:
    """Measures on this machine; `results` fill as the parts are run.

    Args:
        progress: told of each step: what is measured, how many steps are done, of how many.
        iterations: how many messages of each kind are counted.
    """

    def __init__(self, progress: Progress | None = None, iterations: int = ITERATIONS) -> None:
        self.results: Results = {}
        self._progress = progress or (lambda what, done, of: None)
        self._iterations = iterations

    async def benchmark_token_counting(self) -> dict[str, dict[str, float]]:
        """Milliseconds per message and tokens per second, of four kinds of messages."""
        await warm_up_caches()
        found = self.results.setdefault("token_counting", {})
        kinds = _content_types()
        for at, content in enumerate(kinds):
            counter, tokens, spent = AccurateTokenCounter(), 0, 0.0
            for number in range(self._iterations):
                message = {"role": "user", "content": content(number)}
                began = time.perf_counter()
                tokens += await counter.count_tokens_async(message)
                spent += time.perf_counter() - began
            found[f"message_type_{at}"] = {
                "avg_time_ms": 1_000 * spent / self._iterations,
                "tokens_per_second": tokens / spent if spent else 0.0,
            }
            self._progress("token counting", at + 1, len(kinds))
        return found

    async def benchmark_condensation(self) -> dict[str, dict[str, float]]:
        """Milliseconds, tokens saved and tokens managed per second, of three conversations.

        Each is measured in a window that it fills to 95 %, since in a larger one nothing is
        condensed. Two messages are never condensed.
        """
        await warm_up_caches()
        found = self.results.setdefault("condensation", {})
        sizes = (
            [f"Hello {next(_numbers)}", f"Hi there {next(_numbers)}"],
            [f"{next(_numbers)} " + "Question " * 100 for _ in range(20)],
            [f"{next(_numbers)} " + "Long message " * 1_000 for _ in range(50)],
        )
        counter = AccurateTokenCounter()
        # The engine loads its vocabulary with the first conversation; that is no figure of these.
        await apply_intelligent_context_management([{"role": "user", "content": "Hello"}])
        for at, texts in enumerate(sizes):
            roles = ("user", "assistant")
            messages = [
                {"role": roles[place % 2], "content": text} for place, text in enumerate(texts)
            ]
            tokens = sum([await counter.count_tokens_async(message) for message in messages])
            window = max(_SMALLEST_WINDOW, int(tokens / _FULL))
            began = time.perf_counter()
            result = await apply_intelligent_context_management(messages, window=window)
            spent = time.perf_counter() - began
            found[f"conversation_size_{at}"] = {
                "processing_time_ms": 1_000 * spent,
                "tokens_saved": result.tokens_saved,
                "tokens_per_second": result.original_tokens / spent if spent else 0.0,
            }
            self._progress("condensation", at + 1, len(sizes))
        return found

    async def run_all_benchmarks(self) -> Results:
        """Both parts; the log says when it begins and when it is done."""
        _log.info("mitmcontext: the benchmarks begin")
        await self.benchmark_token_counting()
        await self.benchmark_condensation()
        _log.info("mitmcontext: the benchmarks are done")
        return self.results


# No conversation is the same as one that was measured before.
_numbers: Final = count(1)
