"""The load test, against a real server: what it sends, how much at a time, and what it says."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from loopback import certificates
from loopback.answers import Reply
from loopback.provider import HOSTS, Behaviour, Provider, serving
from mitmcontext import load_test
from mitmcontext.load_testing import percentile

FIELDS = {
    "total_requests",
    "successful_requests",
    "failed_requests",
    "success_rate",
    "avg_processing_time_ms",
    "max_processing_time_ms",
    "min_processing_time_ms",
    "requests_per_second",
}


@pytest.fixture(scope="module")
def leaf(tmp_path_factory: pytest.TempPathFactory) -> certificates.Certificates:
    return certificates.make(tmp_path_factory.mktemp("provider"), HOSTS)


async def test_every_request_arrives_and_is_told(leaf: certificates.Certificates) -> None:
    told: list[dict[str, Any]] = []
    with serving(Provider(), leaf) as provider:
        url = f"http://127.0.0.1:{provider.plain_port}/"
        found = await load_test(url, 5, 120, on_result=told.append)
        bodies = [record.body for record in provider.requests("openai")]
        keys = {record.key for record in provider.requests("openai")}
    assert set(found) > FIELDS
    assert (found["total_requests"], found["successful_requests"]) == (120, 120)
    assert (found["failed_requests"], found["success_rate"]) == (0, 1.0)
    texts = {body["messages"][0]["content"] for body in bodies}
    assert texts == {f"Test message {number}" for number in range(120)}
    assert {(body["model"], body["max_tokens"]) for body in bodies} == {("glm-4.5", 100)}
    assert keys == {"test_key"}
    assert {one["request_id"] for one in told} == set(range(120))
    assert all(one["tokens_used"] > 0 for one in told)
    took = sorted(one["processing_time_ms"] for one in told)
    assert found["min_processing_time_ms"] == took[0]
    assert found["max_processing_time_ms"] == took[-1]
    assert found["avg_processing_time_ms"] == pytest.approx(sum(took) / 120)
    assert found["p50_processing_time_ms"] == took[59]
    assert found["p99_processing_time_ms"] == took[118]


async def test_no_more_than_so_many_are_under_way(leaf: certificates.Certificates) -> None:
    with serving(Provider(behaviour=Behaviour(gap=0.05)), leaf) as provider:
        url = f"http://127.0.0.1:{provider.plain_port}"
        running = asyncio.create_task(load_test(url, 3, 30))
        most = 0
        while not running.done():
            most = max(most, len(provider._connections))
            await asyncio.sleep(0.002)
    assert 1 < most <= 3
    assert running.result()["successful_requests"] == 30


async def test_refusals_and_silence_are_failures(leaf: certificates.Certificates) -> None:
    told: list[dict[str, Any]] = []
    with serving(Provider(), leaf) as provider:
        provider.replies.extend([Reply(status=529)] * 4)
        url = f"http://127.0.0.1:{provider.plain_port}"
        found = await load_test(url, 2, 10, on_result=told.append)
    assert (found["successful_requests"], found["failed_requests"]) == (6, 4)
    assert sorted({one["status"] for one in told}) == [200, 529]
    silent = await load_test(url, 2, 4, on_result=told.append)
    assert (silent["successful_requests"], silent["avg_processing_time_ms"]) == (0, 0)
    assert silent["p50_processing_time_ms"] is None
    assert told[-1]["status"] == "error"
    assert told[-1]["error"] == "ConnectError"


async def test_nothing_to_do_is_said_at_once() -> None:
    for arguments in ((0, 10), (10, 0)):
        with pytest.raises(ValueError, match="at least one request"):
            await load_test("http://127.0.0.1:1", *arguments)


def test_a_percentile_needs_enough_to_stand_for() -> None:
    values = [float(number) for number in range(1, 101)]
    assert [percentile(values, rank) for rank in (50, 90, 95, 99)] == [50, 90, 95, 99]
    assert percentile(values[:99], 99) is None
    assert percentile(values[:19], 95) is None
    assert percentile([], 50) is None
    assert percentile([3.0, 4.0], 50) == 3.0
