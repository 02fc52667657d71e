"""More requests than the proxy can look at: what surely fits passes unread, nothing else does."""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path

import pytest
from tests.e2e.fixture_types import Json, Stats
from tests.e2e.judging import AMPLE, OPTION, PATH, Line, bodies, with_key
from tests.e2e.waiting import wait_for

from loopback import child
from loopback.certificates import Certificates
from loopback.child import Child
from loopback.client import Connection
from loopback.echo import answering
from loopback.provider import HOSTS, Provider, with_windows

CLIENTS = 16
LARGE = "context_windows=claude-*=1000000"
UNREAD = "unread under load: it surely fits"
HEADERS = (("authorization", "Bearer k"), ("content-type", "application/json"))


Start = Callable[[str], AbstractContextManager[Child]]


@pytest.fixture
def started(provider: Provider, leaf: Certificates, tmp_path: Path) -> Iterator[Start]:
    """One that finds the strict provider, and for OpenAI one that answers everything at once.

    All of them have the same folder.
    """
    provider.models = with_windows({"*": 1_000_000})
    with answering(leaf) as port:

        @contextmanager
        def start(option: str) -> Iterator[Child]:
            running = child.start(
                {HOSTS[0]: provider.tls_port, HOSTS[1]: port},
                tmp_path / f"proxy-{time.monotonic_ns()}",
                provider_authority=leaf.authority,
                addon=AMPLE,
                options=[option],
                environment={"CONTEXT_CACHE_DIR": str(tmp_path / "cache")},
                arguments=["--set", "flow_detail=0"],
            )
            try:
                yield running
            finally:
                running.stop()

        yield start


@pytest.fixture
def proxy(started: Start) -> Iterator[Child]:
    """One with a small window."""
    with started(OPTION) as running:
        yield running


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


def unread_by(figures: Json) -> int:
    """How many requests passed unread."""
    return int(figures["left_alone"].get(UNREAD, 0))


def test_what_fits_passes_unread_and_what_does_not_is_condensed(
    proxy: Child, provider: Provider, stats: Stats
) -> None:
    def unread() -> int:
        return unread_by(stats(proxy))

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


@pytest.mark.parametrize("sizes_are_kept", [True, False])
def test_what_was_frozen_for_a_small_window_holds_in_a_large_one_under_load(
    started: Start, provider: Provider, stats: Stats, tmp_path: Path, sizes_are_kept: bool
) -> None:
    """Also in a folder of a version that did not keep for how little something is frozen."""
    line = Line(provider, "a-key")
    with started(OPTION) as proxy:
        assert line.send(Connection(proxy.port, proxy.authority, HOSTS[0]), bodies()[24]).changed
    if not sizes_are_kept:
        with closing(sqlite3.connect(tmp_path / "cache" / "ledger.db")) as ledger:
            assert ledger.execute("DELETE FROM entries WHERE key = ?", (b"smallest",)).rowcount == 1
            ledger.commit()
    with started(LARGE) as proxy:
        connection = Connection(proxy.port, proxy.authority, HOSTS[0])
        with flood(proxy) as answers:
            if sizes_are_kept:
                wait_for(lambda: unread_by(stats(proxy)) > 100, seconds=150)
            wait_for(lambda: len(answers) > 500, seconds=150)
            for body in bodies()[25:28]:
                assert line.send(connection, body).changed
        assert (unread_by(stats(proxy)) > 0) == sizes_are_kept
    assert line.breaks() == []


def test_after_a_refusal_of_what_was_to_fit_the_next_ones_are_read(
    started: Start, provider: Provider, stats: Stats
) -> None:
    provider.models = with_windows({"*": 12_000})
    with started(LARGE) as proxy:
        connection = Connection(proxy.port, proxy.authority, HOSTS[0], provider.tls_port)
        with flood(proxy):
            wait_for(lambda: unread_by(stats(proxy)) > 100, seconds=150)
            # A share of what comes is read all the same, right after a pause.
            found = [
                connection.post(PATH, with_key("a-key"), body).status for body in bodies()[24:30]
            ]
    assert found in ([400] + [200] * 5, [200] * 6)
