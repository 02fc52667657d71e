"""What is frozen survives the proxy."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from tests.e2e.fixture_types import Connect, StartProxy, Stats

from demo.session import Session, encode
from loopback.prefix import extends
from loopback.provider import Provider, with_windows

WINDOW = 24_000
OPTION = f"context_windows=claude-*={WINDOW}"
PATH = "/v1/messages?beta=true"
HEADERS = (("x-api-key", "k"), ("content-type", "application/json"))


def bodies() -> list[bytes]:
    return [encode(body) for body in Session().requests()]


def judge(provider: Provider, steps: int) -> None:
    """Nothing was refused, and no prefix changed but for a step."""
    assert [record.refusal for record in provider.requests() if record.refusal] == []
    assert len(provider.breaks) <= steps


def test_a_killed_proxy_goes_on_with_the_same_bytes(
    provider: Provider, start_proxy: StartProxy, connect: Connect, stats: Stats, tmp_path: Path
) -> None:
    provider.models = with_windows({"*": WINDOW})
    kept = {"CONTEXT_CACHE_DIR": str(tmp_path / "kept")}
    sent = bodies()
    first = start_proxy(OPTION, environment=kept)
    connection = connect(first)
    for body in sent[:46]:
        connection.post(PATH, HEADERS, body)
    steps = stats(first)["steps"]
    assert steps >= 2
    last = provider.records[-1].body

    os.kill(first.pid, signal.SIGKILL)
    first.process.wait(10)
    second = start_proxy(OPTION, environment=kept)
    connection = connect(second)
    connection.post(PATH, HEADERS, sent[46])

    found = stats(second)
    assert found["requests"]["reapplied"] + found["steps"] == 1
    if not found["steps"]:
        assert extends(last, provider.records[-1].body)
    for body in sent[47:]:
        connection.post(PATH, HEADERS, body)
    judge(provider, steps + stats(second)["steps"])
    assert stats(second)["prefix_breaks_unexplained"] == 0


def test_a_folder_that_cannot_be_used_costs_only_durability(
    provider: Provider, start_proxy: StartProxy, connect: Connect, stats: Stats, tmp_path: Path
) -> None:
    provider.models = with_windows({"*": WINDOW})
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    environment = {"CONTEXT_CACHE_DIR": str(tmp_path / "link")}
    proxy = start_proxy(OPTION, environment=environment)
    connection = connect(proxy)
    for body in bodies()[:30]:
        connection.post(PATH, HEADERS, body)
    assert "nothing survives a restart" in proxy.said()
    assert list((tmp_path / "elsewhere").iterdir()) == []
    assert stats(proxy)["steps"] >= 2
    judge(provider, stats(proxy)["steps"])


def test_redis_without_a_key_stops_the_start(start_proxy: StartProxy) -> None:
    with pytest.raises(Exception, match="CONTEXT_KEY_FILE"):
        start_proxy(OPTION, environment={"CONTEXT_REDIS_URL": "redis://127.0.0.1:1/0"})
