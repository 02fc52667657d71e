"""What is frozen survives the proxy, moves between proxies, and lies nowhere in the open."""

from __future__ import annotations

import base64
import json
import os
import secrets
import shutil
import signal
import socket
import stat
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from demo.session import Session, encode
from loopback.child import Child
from loopback.client import Connection
from loopback.prefix import extends
from loopback.provider import Provider, with_windows

StartProxy = Callable[..., Child]
Connect = Callable[..., Connection]
Stats = Callable[[Child], dict[str, Any]]

WINDOW = 24_000
OPTION = f"context_windows=claude-*={WINDOW}"
PATH = "/v1/messages?beta=true"
KEY = "sk-ant-a-planted-canary-3141592653"
HEADERS = (("x-api-key", KEY), ("content-type", "application/json"))


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


def test_what_lies_on_the_disk_and_in_the_log_says_nothing(
    provider: Provider, start_proxy: StartProxy, connect: Connect, stats: Stats, tmp_path: Path
) -> None:
    provider.models = with_windows({"*": WINDOW})
    folder = tmp_path / "kept"
    proxy = start_proxy(OPTION, environment={"CONTEXT_CACHE_DIR": str(folder)})
    connection = connect(proxy)
    canary = f"the-harbour-canary-{secrets.token_hex(8)}"
    for body in Session().requests():
        told = json.loads(encode(body))
        told["messages"][0]["content"] = json.loads(
            json.dumps(told["messages"][0]["content"]).replace("quayside", canary)
        )
        text = encode(told).replace(b"quayside", canary.encode())
        connection.post(PATH, HEADERS, text)
    assert stats(proxy)["steps"] >= 2

    shapes = [
        form
        for word in (canary, KEY, "berths.py")
        for form in (word.encode(), base64.b64encode(word.encode())[:-4], json.dumps(word).encode())
    ]
    files = [path for path in folder.iterdir() if path.is_file()]
    assert {path.name for path in files} >= {"key", "ledger.db"}
    for path in files:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        held = path.read_bytes()
        assert [shape for shape in shapes if shape in held] == []
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert [shape for shape in shapes if shape in proxy.said().encode()] == []


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


@pytest.fixture
def redis_address(tmp_path: Path) -> Iterator[str]:
    """A real Redis on a port of its own."""
    program = shutil.which("redis-server") or shutil.which("valkey-server")
    if program is None:
        reason = "there is no redis-server on this machine"
        if os.environ.get("MITMCONTEXT_REQUIRE_REDIS"):
            pytest.fail(reason)
        pytest.skip(reason)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [program, "--port", str(port), "--bind", "127.0.0.1", "--save", ""]
    with subprocess.Popen([*command, "--dir", str(tmp_path)], stdout=subprocess.DEVNULL) as server:
        try:
            for _ in range(100):
                with socket.socket() as probe:
                    if probe.connect_ex(("127.0.0.1", port)) == 0:
                        break
                time.sleep(0.05)
            yield f"redis://127.0.0.1:{port}/0"
        finally:
            server.terminate()


def test_a_conversation_moves_between_two_proxies(
    provider: Provider,
    start_proxy: StartProxy,
    connect: Connect,
    stats: Stats,
    tmp_path: Path,
    redis_address: str,
) -> None:
    provider.models = with_windows({"*": WINDOW})
    key = tmp_path / "key"
    key.write_text(secrets.token_hex(32))
    key.chmod(0o600)
    shared = {"CONTEXT_REDIS_URL": redis_address, "CONTEXT_KEY_FILE": str(key)}
    proxies = [start_proxy(OPTION, environment=shared) for _ in range(2)]
    connections = [connect(proxy) for proxy in proxies]

    for turn, body in enumerate(bodies()):
        connections[turn % 2].post(PATH, HEADERS, body)

    found = [stats(proxy) for proxy in proxies]
    steps = sum(one["steps"] for one in found)
    assert steps >= 4
    assert min(one["requests"]["reapplied"] for one in found) >= 20
    assert [one["prefix_breaks_unexplained"] for one in found] == [0, 0]
    judge(provider, steps)


def test_redis_without_a_key_stops_the_start(start_proxy: StartProxy) -> None:
    with pytest.raises(Exception, match="CONTEXT_KEY_FILE"):
        start_proxy(OPTION, environment={"CONTEXT_REDIS_URL": "redis://127.0.0.1:1/0"})
