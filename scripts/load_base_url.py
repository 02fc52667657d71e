"""The load test against any base URL, with a bar while it runs and a table at its end."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from array import array
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

CHECKOUT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(CHECKOUT / "addon"), str(CHECKOUT / "scripts")]

from lib.progress import Progress  # noqa: E402
from mitmcontext import load_test  # noqa: E402
from mitmcontext.load_testing import MODEL, PERCENTILES, summary_of  # noqa: E402

MOST_REQUESTS, MOST_AT_ONCE = 1_000_000, 1_000


class Tally:
    """What came back so far, in figures; so that an early end can still be told."""

    def __init__(self, total: int) -> None:
        self.milliseconds = array("d")
        self.said: Counter[str] = Counter()
        self.tokens = 0
        self.done = 0
        self.began = time.perf_counter()
        self._progress = Progress("requests", total, every=max(1, total // 200))

    def __call__(self, result: Mapping[str, Any]) -> None:
        """Take note of one request."""
        self.done += 1
        self.tokens += result["tokens_used"]
        if result["status"] == 200:
            self.milliseconds.append(result["processing_time_ms"])
        self.said[str(result.get("error", result["status"]))] += 1
        self._progress(self.done)

    def summary(self) -> dict[str, Any]:
        """The same figures as `load_test` gives, of those that are done."""
        return summary_of(self.milliseconds, self.done, time.perf_counter() - self.began)


def table(found: Mapping[str, Any], tally: Tally) -> Iterator[str]:
    """One line for each figure."""
    speed = f"{found['requests_per_second']:,.1f} a second"
    yield f"requests     {found['total_requests']:>10,}   {speed}"
    yield f"succeeded    {found['successful_requests']:>10,}   {found['success_rate']:.2%}"
    yield f"failed       {found['failed_requests']:>10,}"
    yield f"tokens used  {tally.tokens:>10,}"
    yield f"answers      {', '.join(f'{count:,} x {what}' for what, count in tally.said.items())}"
    yield "milliseconds of those that succeeded"
    for name in ("min", "avg", "max"):
        yield f"  {name:<10} {found[f'{name}_processing_time_ms']:>10,.1f}"
    for rank in PERCENTILES:
        value = found[f"p{rank}_processing_time_ms"]
        told = "   too few requests to tell" if value is None else f"{value:>10,.1f}"
        yield f"  {rank} %{'':<6} {told}"


def _number(most: int) -> Any:
    def read(text: str) -> int:
        number = int(text)
        if not 1 <= number <= most:
            raise argparse.ArgumentTypeError(f"must be 1 to {most:,}")
        return number

    return read


def _arguments(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="load", description=__doc__.split("\n")[0])
    parser.add_argument("base_url", metavar="BASE_URL")
    parser.add_argument("--requests", type=_number(MOST_REQUESTS), default=1_000, metavar="N")
    parser.add_argument("--concurrent", type=_number(MOST_AT_ONCE), default=50, metavar="N")
    parser.add_argument("--timeout", type=float, default=60.0, metavar="SECONDS")
    parser.add_argument("--model", default=MODEL)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there as well")
    asked = parser.parse_args(arguments)
    if not asked.base_url.startswith(("http://", "https://")):
        parser.error("BASE_URL begins with http:// or https://")
    return asked


def main(arguments: Sequence[str]) -> int:
    """Run it and print the table; 1 unless every request succeeded."""
    asked = _arguments(arguments)
    tally = Tally(asked.requests)
    run = load_test(
        asked.base_url,
        asked.concurrent,
        asked.requests,
        model=asked.model,
        timeout=asked.timeout,
        on_result=tally,
    )
    try:
        found = asyncio.run(run)
    except KeyboardInterrupt:
        print("\nended early", file=sys.stderr)
        if not tally.done:
            return 1
        found = tally.summary()
    print("\n".join(table(found, tally)))
    if asked.json:
        asked.json.write_text(json.dumps(found, indent=1), encoding="utf-8")
    return 0 if found["successful_requests"] == asked.requests else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
