"""More requests than the proxy can look at: what surely fits passes unread, nothing else does."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.e2e.fixture_types import Json, Stats
from tests.e2e.judging import AMPLE, OPTION, Line, bodies
from tests.e2e.waiting import wait_for

from loopback import child
from loopback.certificates import Certificates
from loopback.child import Child
from loopback.client import Connection
from loopback.echo import answering
from loopback.provider import HOSTS, Provider, with_windows

CLIENTS = 16
UNREAD = "unread under load: it surely fits"
HEADERS = (("authorization", "Bearer k"), ("content-type", "application/json"))


@pytest.fixture
def proxy(provider: Provider, leaf: Certificates, tmp_path: Path) -> Iterator[Child]:
    """One that finds the strict provider, and for OpenAI one that answers everything at once."""
    provider.models = with_windows({"*": 1_000_000})
    with answering(leaf) as port:
        running = child.start(
            {HOSTS[0]: provider.tls_port, HOSTS[1]: port},
            tmp_path / "proxy",
            provider_authority=leaf.authority,
            addon=AMPLE,
            options=[OPTION],
            environment={"CONTEXT_CACHE_DIR": str(tmp_path / "cache")},
            arguments=["--set", "flow_detail=0"],
        )
        yield running
        running.stop()


@contextmanager
def flood(proxy: Child) -> Iterator[list[int]]:
    """Many clients who send one small request after the other; how each was answered."""
    over = threading.Event()
    answers: list[int] = []
    text = "Which of these books belong on the lower shelf? " * 40

    def run(number: int) -> None:
        line = Connection(proxy.port, proxy.authority, HOSTS[1])
        for turn in range(100_000):
            if over.is_set():
                return
            asked = {"role": "user", "content": f"{number} {turn}: {text}"}
            body = json.dumps({"model": "gpt-4o", "messages": [asked]}).encode()
            answers.append(line.post("/v1/chat/completions", HEADERS, body).status)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(CLIENTS)]
    for thread in threads:
        thread.start()
    try:
        yield answers
    finally:
        over.set()
        for thread in threads:
            thread.join()


def test_what_fits_passes_unread_and_what_does_not_is_condensed(
    proxy: Child, provider: Provider, stats: Stats
) -> None:
    def unread() -> int:
        left: Json = stats(proxy)["left_alone"]
        return int(left.get(UNREAD, 0))

    line = Line(provider, "a-key")
    connection = Connection(proxy.port, proxy.authority, HOSTS[0])
    with flood(proxy) as answers:
        wait_for(lambda: unread() > 100, seconds=150)
        before = unread()
        for body in bodies()[24:28]:
            assert line.send(connection, body).changed, "a step, and what is frozen"
        wait_for(lambda: unread() > before, seconds=150)
    assert line.breaks() == []
    assert line.complaints() == []
    assert set(answers) == {200}

    requests = stats(proxy)["requests"]
    assert requests["left_alone"] == unread(), "for nothing else"
    assert requests["recognised"] == len(answers) + 4
    assert stats(proxy)["failures"] == {}
    # When it is over, everything is read again.
    time.sleep(0.3)
    quiet = unread()
    for body in bodies()[:3]:
        line.send(connection, body)
    assert unread() == quiet
