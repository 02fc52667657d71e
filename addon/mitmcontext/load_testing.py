"""The specification's load test: many small chat requests at once to one address.

So many workers send one request after the other; no more than that are ever under way, and nothing
but figures is kept of what came back. Since a slow answer holds its worker up, this measures what a
fixed number of patient clients see, not what a fixed rate of arrivals would.
"""

from __future__ import annotations

import asyncio
import math
import time
from array import array
from collections.abc import Callable, Sequence
from typing import Any, Final

import httpx

PERCENTILES: Final = (50, 90, 95, 99)
MODEL: Final = "glm-4.5"
_SECONDS: Final = 60.0
_LARGEST_ANSWER: Final = 1 << 20


async def load_test(
    base_url: str,
    concurrent_requests: int = 50,
    total_requests: int = 1000,
    *,
    model: str = MODEL,
    api_key: str = "test_key",
    timeout: float = _SECONDS,  # noqa: ASYNC109 - of a request, handed on to the client
    verify: Any = True,
    on_result: Callable[[dict[str, Any]], None] | None = None,
) -> dict[str, Any]:
    """Send chat requests to `{base_url}/v1/chat/completions` and say how that went.

    Args:
        base_url: such as http://127.0.0.1:5000.
        concurrent_requests: how many are under way at a time.
        total_requests: how many in all.
        model: of the requests.
        api_key: sent as a bearer token.
        timeout: seconds for one request.
        verify: as httpx takes it, for https.
        on_result: told of each request: `request_id`, `status`, `processing_time_ms`,
            `tokens_used`, and `error` where there was no answer.

    Returns:
        Counts, shares and milliseconds. Averages and percentiles are of the requests that
        succeeded, which are those with status 200; a percentile is None where there were too few
        requests to tell it (100 for the 99th).

    Raises:
        ValueError: not even one request at a time, or none at all.
    """
    if concurrent_requests < 1 or total_requests < 1:
        raise ValueError("at least one request, and one at a time")
    url = f"{base_url.rstrip('/')}/v1/chat/completions"
    limits = httpx.Limits(max_connections=concurrent_requests)
    took, numbers = array("d"), iter(range(total_requests))

    async def work(client: httpx.AsyncClient) -> None:
        for number in numbers:
            result = await _request(client, url, number, model)
            if result["status"] == 200:
                took.append(result["processing_time_ms"])
            if on_result is not None:
                on_result(result)

    headers = {"Authorization": f"Bearer {api_key}"}
    began = time.perf_counter()
    async with httpx.AsyncClient(
        limits=limits, timeout=timeout, headers=headers, verify=verify, trust_env=False
    ) as client:
        workers = min(concurrent_requests, total_requests)
        await asyncio.gather(*(work(client) for _ in range(workers)))
    return summary_of(took, total_requests, time.perf_counter() - began)


async def _request(client: httpx.AsyncClient, url: str, number: int, model: str) -> dict[str, Any]:
    body = {
        "model": model,
        "messages": [{"role": "user", "content": f"Test message {number}"}],
        "max_tokens": 100,
    }
    began = time.perf_counter()
    result: dict[str, Any] = {"request_id": number, "status": "error", "tokens_used": 0}
    try:
        async with client.stream("POST", url, json=body) as answer:
            result["status"] = answer.status_code
            result["tokens_used"] = _tokens_of(await _read(answer))
    except httpx.HTTPError as error:
        result |= {"status": "error", "error": type(error).__name__}
    result["processing_time_ms"] = (time.perf_counter() - began) * 1_000
    return result


async def _read(answer: httpx.Response) -> bytes:
    """The answer, or nothing of one that is larger than any of these should be."""
    held = bytearray()
    async for piece in answer.aiter_bytes():
        if len(held) <= _LARGEST_ANSWER:
            held += piece
    return bytes(held) if len(held) <= _LARGEST_ANSWER else b""


def _tokens_of(body: bytes) -> int:
    try:
        usage = httpx.Response(200, content=body).json()["usage"]
        return int(usage["total_tokens"])
    except (ValueError, KeyError, TypeError):
        return 0


def summary_of(milliseconds: Sequence[float], total: int, seconds: float) -> dict[str, Any]:
    """What `load_test` gives back.

    Args:
        milliseconds: what each request that succeeded took.
        total: how many there were, with those that failed.
        seconds: that all of it took.
    """
    took = sorted(milliseconds)
    succeeded = len(took)
    return {
        "total_requests": total,
        "successful_requests": succeeded,
        "failed_requests": total - succeeded,
        "success_rate": succeeded / total,
        "avg_processing_time_ms": sum(took) / succeeded if succeeded else 0,
        "max_processing_time_ms": took[-1] if succeeded else 0,
        "min_processing_time_ms": took[0] if succeeded else 0,
        "requests_per_second": total / seconds,
        **{f"p{rank}_processing_time_ms": percentile(took, rank) for rank in PERCENTILES},
    }


def percentile(ordered: Sequence[float], rank: int) -> float | None:
    """The smallest value that at least `rank` percent do not exceed (the nearest-rank method).

    Args:
        ordered: the values, smallest first.
        rank: 1 to 99.

    Returns:
        None where there are too few values for one of them to stand for the rest.
    """
    if len(ordered) < 100 / (100 - rank):
        return None
    return ordered[math.ceil(rank / 100 * len(ordered)) - 1]
