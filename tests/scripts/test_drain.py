"""The launcher ends without cutting anybody off."""

from __future__ import annotations

import json
import shutil
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from tests.scripts import test_setup
from tests.scripts.test_setup import Started, free_port, started

from loopback.answers import Reply
from loopback.provider import Behaviour, Provider, serving

checkout, home = test_setup.checkout, test_setup.home

BODY = json.dumps(
    {
        "model": "claude-sonnet-4-5",
        "max_tokens": 64,
        "messages": [{"role": "user", "content": "hi"}],
        "stream": True,
    }
).encode()
GAP = 0.15


class Client:
    """Reads a stream in a thread; `held` is what it got, `over` is set when nothing more comes."""

    def __init__(self, port: int) -> None:
        self.held = b""
        self.over = threading.Event()
        self._socket = socket.create_connection(("127.0.0.1", port), 20)
        head = (
            f"POST /v1/messages HTTP/1.1\r\nHost: h\r\nx-api-key: k\r\nContent-Length: {len(BODY)}"
        )
        self._socket.sendall(f"{head}\r\nContent-Type: application/json\r\n\r\n".encode() + BODY)
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        with closing(self._socket):
            while data := self._socket.recv(65_536):
                self.held += data
        self.over.set()

    def until(self, words: bytes) -> None:
        """Wait for something in the answer."""
        end = time.monotonic() + 20
        while words not in self.held:
            assert time.monotonic() < end, self.held
            time.sleep(0.01)


@pytest.fixture
def provider() -> Iterator[Provider]:
    slow = Provider(behaviour=Behaviour(gap=GAP), default=Reply("word " * 40, pieces=12))
    with serving(slow):
        yield slow


@pytest.fixture
def proxy(provider: Provider, checkout: Path, home: Path) -> Iterator[tuple[Started, int]]:
    """The launcher's proxy in front of the provider."""
    shutil.copytree(test_setup.ROOT / "addon", checkout / "addon", dirs_exist_ok=True)
    port = free_port()
    modes = (
        "--mode",
        "regular@0",
        "--mode",
        f"reverse:http://127.0.0.1:{provider.plain_port}@{port}",
    )
    # A start without a proxy mode prints nothing to paste.
    with started(checkout, home, "--dump", *modes) as running:
        yield running, port


def read_until(running: Started, words: str) -> None:
    """Wait for a line that has these words."""
    assert running.process.stdout
    assert any(words in line for line in running.process.stdout)


def wait_until_closed(port: int) -> None:
    """Wait until nobody listens there."""
    end = time.monotonic() + 5
    while time.monotonic() < end:
        try:
            socket.create_connection(("127.0.0.1", port), 5).close()
        except ConnectionRefusedError:
            return
        time.sleep(0.02)
    pytest.fail("new connections are still taken")


@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGINT])
def test_a_running_stream_comes_to_its_end_and_nobody_new_is_let_in(
    sign: signal.Signals, proxy: tuple[Started, int], provider: Provider
) -> None:
    running, port = proxy
    clients = [Client(port) for _ in range(3)]
    for client in clients:
        client.until(b"word")
    running.process.send_signal(sign)
    read_until(running, "once 3 exchanges are over")
    wait_until_closed(port)
    assert not any(client.over.is_set() for client in clients)
    for client in clients:
        assert client.over.wait(20)
        assert client.held.endswith(b"\r\n0\r\n\r\n")
        assert b"message_stop" in client.held
    assert running.process.wait(20) == 0


def test_asked_twice_it_ends_at_once(proxy: tuple[Started, int], provider: Provider) -> None:
    provider.behaviour = Behaviour(gap=20)
    running, port = proxy
    client = Client(port)
    client.until(b"message_start")
    running.process.send_signal(signal.SIGTERM)
    read_until(running, "once 1 exchange is over")
    running.process.send_signal(signal.SIGTERM)
    assert running.process.wait(10) == 0
    assert b"message_stop" not in client.held


def test_with_nothing_under_way_it_ends_at_once_and_a_crash_would_leave_no_image(
    proxy: tuple[Started, int],
) -> None:
    running, port = proxy
    limits = Path(f"/proc/{running.process.pid}/limits")
    if limits.exists():
        [of_core] = [line for line in limits.read_text().splitlines() if "core file" in line]
        assert of_core.split()[4:6] == ["0", "0"]
    # A connection that is kept for later is no exchange.
    with closing(socket.create_connection(("127.0.0.1", port), 5)):
        running.process.send_signal(signal.SIGTERM)
        assert running.process.wait(10) == 0
    assert running.process.stdout
    assert "Ending" not in running.process.stdout.read()
