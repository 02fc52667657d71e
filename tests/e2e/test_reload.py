"""Editing the package takes effect when context.py is touched, and no request notices."""

from __future__ import annotations

import itertools
import operator
import os
import threading
import time
from collections import deque
from pathlib import Path

import httpx
import pytest
from tests.e2e.fixture_types import Connect, StartProxy, Stats
from tests.e2e.judging import OPTION, PATH, WINDOW, Line, bodies
from tests.e2e.waiting import wait_for

from demo.session import encode
from loopback import loop_watch
from loopback.answers import Reply
from loopback.child import Child
from loopback.client import Connection, Response
from loopback.provider import Behaviour, Provider, with_windows

HEADERS = (("x-api-key", "k"), ("content-type", "application/json"))
BODY = encode(
    {
        "model": "claude-sonnet-4-5",
        "max_tokens": 64,
        "messages": [{"role": "user", "content": "hi"}],
        "stream": True,
    }
)


RELOADS = int(os.environ.get("MITMCONTEXT_RELOADS", "10"))
"""How often the addon is loaded anew under load; a hundred times take two minutes."""

SLACK = 2
"""How many more descriptors, threads or tasks there may be after eight reloads and more."""

# mitmproxy looks once a second.
HASTY = """
from mitmproxy.addons import script
script.ReloadInterval = 0.05
"""
BROKEN = ("(", "import nothing_of_the_kind", "1 / 0")


def test_a_reload_harms_no_request_and_keeps_the_counts(
    provider: Provider,
    start_proxy: StartProxy,
    connect: Connect,
    stats: Stats,
    tmp_path: Path,
    addon: Path,
) -> None:
    provider.default = Reply("slowly now", pieces=10)
    provider.behaviour = Behaviour(gap=0.05)
    proxy = start_proxy(addon=addon / "context.py")
    answers: list[bytes] = []
    failures: list[BaseException] = []
    stop = threading.Event()

    def talk() -> None:
        try:
            connection = connect(proxy)
            while not stop.is_set():
                response = connection.post("/v1/messages", HEADERS, BODY)
                assert response.status == 200
                assert b"message_stop" in response.body
                answers.append(response.body)
        except BaseException as error:  # noqa: BLE001 -- shown by the assertion below
            failures.append(error)

    talkers = [threading.Thread(target=talk) for _ in range(3)]
    for talker in talkers:
        talker.start()
    try:
        for number in range(2):
            wait_for(lambda: len(answers) >= 3)
            _reload(addon, tmp_path / f"loaded-{number}", proxy)
            answers.clear()
            wait_for(lambda: len(answers) >= 3)
    finally:
        stop.set()
        for talker in talkers:
            talker.join(20)

    assert failures == []
    assert provider.refused == []
    assert stats(proxy)["requests"]["recognised"] == len(provider.records)
    assert "Addon error" not in proxy.said()
    assert "Traceback" not in proxy.said()


@pytest.mark.parametrize("there_was_one", [False, True])
def test_what_is_frozen_outlives_a_reload_without_a_folder(
    provider: Provider,
    start_proxy: StartProxy,
    connect: Connect,
    tmp_path: Path,
    addon: Path,
    there_was_one: bool,
) -> None:
    provider.models = with_windows({"*": WINDOW})
    mount = tmp_path / "mount"
    if not there_was_one:
        mount.touch()
    proxy = start_proxy(
        OPTION,
        addon=addon / "context.py",
        environment={"CONTEXT_CACHE_DIR": str(mount / "kept")},
    )
    line, connection = Line(provider, "key"), connect(proxy)
    assert line.send(connection, bodies()[24]).changed
    if there_was_one:
        mount.rename(tmp_path / "gone")
        mount.touch()
    _reload(addon, tmp_path / "loaded", proxy)
    assert line.send(connection, bodies()[25]).changed
    assert line.complaints() == []
    assert line.breaks() == []
    assert "nothing survives a restart" in proxy.said()


def _reload(addon: Path, sign: Path, proxy: Child) -> None:
    """Edit a module of the package so that it leaves a sign, and touch what is watched."""
    module = addon / "mitmcontext" / "values.py"
    module.write_text(f"{module.read_text()}\nopen({str(sign)!r}, 'w').close()\n")
    later = time.time() + 2
    os.utime(module, (later, later))
    # Two saves within a second would look like one to whoever polls once a second.
    time.sleep(1.1)
    (addon / "context.py").touch()
    wait_for(sign.exists)
    assert proxy.process.poll() is None


def _during_a_reload(
    provider: Provider, proxy: Child, connection: Connection, body: bytes, tmp_path: Path
) -> Response:
    """Send a request that the provider answers once the addon was loaded anew."""
    sign, seen = tmp_path / "loaded", provider.number
    provider.behaviour = Behaviour(may=sign.exists)
    answers: list[Response] = []
    sender = threading.Thread(
        target=lambda: answers.append(connection.post(PATH, HEADERS, body)), daemon=True
    )
    sender.start()
    wait_for(lambda: provider.number > seen)
    _reload(tmp_path / "addon", sign, proxy)
    sender.join(20)
    return answers[0]


def test_what_is_refused_as_too_long_after_a_reload_is_helped_all_the_same(
    provider: Provider,
    start_proxy: StartProxy,
    connect: Connect,
    stats: Stats,
    tmp_path: Path,
    addon: Path,
) -> None:
    """Steps were taken before; the request in flight carries them, and the old code's values."""
    provider.models = with_windows({"*": 1_000_000})
    proxy = start_proxy(OPTION, addon=addon / "context.py")
    connection = connect(proxy, port=provider.tls_port)
    for body in bodies()[:20]:
        assert connection.post(PATH, HEADERS, body).status == 200
    before = stats(proxy)
    assert before["steps"] >= 1

    provider.models = with_windows({"*": int(0.8 * provider.records[-1].tokens)})
    answer = _during_a_reload(provider, proxy, connection, bodies()[20], tmp_path)

    after = stats(proxy)
    assert [refused.too_long for _, refused in provider.refused] == [True]
    assert answer.status == 200
    assert after["steps"] == before["steps"] + 1
    assert after["requests"]["refused_length"] == 1
    assert after["prefix_breaks_unexplained"] == 0
    assert after["failures"] == {}


def test_what_is_observed_over_a_reload_is_compared_with_what_was_sent(
    provider: Provider,
    start_proxy: StartProxy,
    connect: Connect,
    stats: Stats,
    tmp_path: Path,
    addon: Path,
) -> None:
    """The provider reports the size of what went out, and that is what the client sent."""
    provider.models = with_windows({"*": 1_000_000})
    proxy = start_proxy(OPTION, "context_mode=observe", addon=addon / "context.py")
    connection = connect(proxy, port=provider.tls_port)
    body = bodies()[30]

    assert _during_a_reload(provider, proxy, connection, body, tmp_path).status == 200

    assert provider.records[-1].wire.body == body
    found = stats(proxy)
    assert found["requests"]["observed"] == 1
    assert found["estimates"]["compared"] == 1
    assert found["estimates"]["median_error"] < 0.2


def test_reloads_without_end_leave_nothing_behind(
    provider: Provider,
    start_proxy: StartProxy,
    connect: Connect,
    stats: Stats,
    tmp_path: Path,
    addon: Path,
) -> None:
    """Each third time in a state that does not load: then requests pass as they came."""
    (tmp_path / "hasty.py").write_text(HASTY)
    script, text = addon / "context.py", (addon / "context.py").read_text()
    provider.models = with_windows({"*": 1_000_000})
    provider.records = deque(maxlen=100)
    proxy = start_proxy(
        OPTION,
        "flow_detail=0",
        addon=tmp_path / "hasty.py",
        arguments=["-s", str(script), "-s", str(Path(loop_watch.__file__))],
    )
    statuses: list[int] = []
    saves = itertools.count()
    stop, go, resting = threading.Event(), threading.Event(), threading.Barrier(4)

    def talk(who: int) -> None:
        """One conversation after the other, each with a step in its second turn."""
        connection = connect(proxy, port=provider.tls_port)
        for number in itertools.count():
            for body in bodies()[9:13]:
                if stop.is_set():
                    return
                if not go.is_set():
                    resting.wait(60)
                    go.wait()
                statuses.append(connection.post(PATH, _headers(f"{who}-{number}"), body).status)

    def taken() -> tuple[int, ...]:
        inside = httpx.get("http://watch.test/", proxy=proxy.url, trust_env=False).json()
        descriptors = len(list((proxy.proc / "fd").iterdir()))
        return descriptors, inside["threads"], inside["tasks"]

    def rest() -> None:
        """Let nobody talk, and load the code anew: how many threads it has depends on its work."""
        go.clear()
        resting.wait(60)
        save("")

    def save(more: str) -> None:
        """Save the script with something behind it; without that it leaves a sign."""
        errors = proxy.said().count("rror in script")
        sign = tmp_path / f"loaded-{time.monotonic_ns()}"
        part = script.with_suffix(".part")
        part.write_text(text + f"\nopen({str(sign)!r}, 'w').close()\n{more}\n")
        # Python takes a script of the same size and second for one that it has compiled already.
        later = time.time() + 10 + next(saves)
        os.utime(part, (later, later))
        part.rename(script)
        if more:
            wait_for(lambda: proxy.said().count("rror in script") > errors)
        else:
            wait_for(sign.exists)
        answered = len(statuses)
        wait_for(lambda: not go.is_set() or len(statuses) > answered + 6)

    go.set()
    talkers = [threading.Thread(target=talk, args=(who,), daemon=True) for who in range(3)]
    for talker in talkers:
        talker.start()
    try:
        for number in range(RELOADS):
            if number == 3:
                rest()
                early, steps = taken(), stats(proxy)["steps"]
                for _ in range(20):
                    time.sleep(0.1)
                    early = tuple(map(min, early, taken()))
                go.set()
            if number % 3 == 2:
                save(BROKEN[number // 3 % len(BROKEN)])
            save("")
        made = stats(proxy)["steps"] - steps
        rest()
        # The threads of what was replaced end once their work is done, and what they hold with
        # them. One of each for every reload would be eight at the least.
        allowed = tuple(most + SLACK for most in early)
        wait_for(lambda: all(map(operator.le, taken(), allowed)), 20, told=lambda: (early, taken()))
    finally:
        stop.set()
        go.set()
        for talker in talkers:
            talker.join(20)
    assert set(statuses) == {200}
    assert provider.refused == []
    assert made > RELOADS - 3


def _headers(key: str) -> tuple[tuple[str, str], ...]:
    return ("x-api-key", key), ("content-type", "application/json")
