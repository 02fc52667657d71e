"""Editing the package takes effect when context.py is touched, and no request notices."""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
from tests.e2e.judging import OPTION, PATH, bodies

from demo.session import encode
from loopback import loop_watch
from loopback.answers import Reply
from loopback.child import ADDON, Child
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

# mitmproxy looks once a second.
HASTY = """
from mitmproxy.addons import script
script.ReloadInterval = 0.05
"""
BROKEN = ("(", "import nothing_of_the_kind", "1 / 0")


def _until(condition: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


def test_a_reload_harms_no_request_and_keeps_the_counts(
    provider: Provider,
    start_proxy: Callable[..., Child],
    connect: Callable[..., Connection],
    stats: Callable[[Child], dict[str, Any]],
    tmp_path: Path,
) -> None:
    addon = tmp_path / "addon"
    shutil.copytree(ADDON.parent, addon, ignore=shutil.ignore_patterns("__pycache__"))
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
            _until(lambda: len(answers) >= 3)
            _reload(addon, tmp_path / f"loaded-{number}", proxy)
            answers.clear()
            _until(lambda: len(answers) >= 3)
    finally:
        stop.set()
        for talker in talkers:
            talker.join(20)

    assert failures == []
    assert provider.refused == []
    assert stats(proxy)["requests"]["recognised"] == len(provider.records)
    assert "Addon error" not in proxy.said()
    assert "Traceback" not in proxy.said()


def _reload(addon: Path, sign: Path, proxy: Child) -> None:
    """Edit a module of the package so that it leaves a sign, and touch what is watched."""
    module = addon / "mitmcontext" / "values.py"
    module.write_text(f"{module.read_text()}\nopen({str(sign)!r}, 'w').close()\n")
    later = time.time() + 2
    os.utime(module, (later, later))
    # Two saves within a second would look like one to whoever polls once a second.
    time.sleep(1.1)
    (addon / "context.py").touch()
    _until(sign.exists)
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
    _until(lambda: provider.number > seen)
    _reload(tmp_path / "addon", sign, proxy)
    sender.join(20)
    return answers[0]


def test_what_is_refused_as_too_long_after_a_reload_is_helped_all_the_same(
    provider: Provider,
    start_proxy: Callable[..., Child],
    connect: Callable[..., Connection],
    stats: Callable[[Child], dict[str, Any]],
    tmp_path: Path,
) -> None:
    """Steps were taken before; the request in flight carries them, and the old code's values."""
    addon = tmp_path / "addon"
    shutil.copytree(ADDON.parent, addon, ignore=shutil.ignore_patterns("__pycache__"))
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
    start_proxy: Callable[..., Child],
    connect: Callable[..., Connection],
    stats: Callable[[Child], dict[str, Any]],
    tmp_path: Path,
) -> None:
    """The provider reports the size of what went out, and that is what the client sent."""
    addon = tmp_path / "addon"
    shutil.copytree(ADDON.parent, addon, ignore=shutil.ignore_patterns("__pycache__"))
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
    start_proxy: Callable[..., Child],
    connect: Callable[..., Connection],
    tmp_path: Path,
) -> None:
    """Each third time in a state that does not load: then requests pass as they came."""
    addon = tmp_path / "addon"
    shutil.copytree(ADDON.parent, addon, ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "hasty.py").write_text(HASTY)
    script, text = addon / "context.py", (addon / "context.py").read_text()
    proxy = start_proxy(
        "flow_detail=0",
        addon=tmp_path / "hasty.py",
        arguments=["-s", str(script), "-s", str(Path(loop_watch.__file__))],
    )
    statuses: list[int] = []
    stop = threading.Event()

    def talk() -> None:
        connection = connect(proxy)
        while not stop.is_set():
            statuses.append(connection.post("/v1/messages", HEADERS, BODY).status)

    def taken() -> tuple[int, int, int]:
        inside = httpx.get("http://watch.test/", proxy=proxy.url, trust_env=False).json()
        descriptors = len(list((proxy.proc / "fd").iterdir()))
        return descriptors, inside["threads"], inside["tasks"]

    def save(more: str) -> None:
        """Save the script with something behind it; without that it leaves a sign."""
        errors = proxy.said().count("rror in script")
        sign = tmp_path / f"loaded-{time.monotonic_ns()}"
        part = script.with_suffix(".part")
        part.write_text(text + f"\nopen({str(sign)!r}, 'w').close()\n{more}\n")
        later = time.time() + 10 + number
        os.utime(part, (later, later))
        part.rename(script)
        if more:
            _until(lambda: proxy.said().count("rror in script") > errors)
        else:
            _until(sign.exists)
        answered = len(statuses)
        _until(lambda: len(statuses) > answered + 3)

    talkers = [threading.Thread(target=talk) for _ in range(3)]
    for talker in talkers:
        talker.start()
    try:
        for number in range(RELOADS):
            if number == 3:
                early = taken()
            if number % 3 == 2:
                save(BROKEN[number // 3 % len(BROKEN)])
            save("")
        late = taken()
    finally:
        stop.set()
        for talker in talkers:
            talker.join(20)
    assert set(statuses) == {200}
    assert provider.refused == []
    # The threads of what was replaced end once their work is done, and with them what they hold.
    assert [a for a, b in zip(late, early, strict=True) if a > b + 12] == [], (early, late)
    assert httpx.get("http://context.mitm/stats.json", proxy=proxy.url, trust_env=False).is_success
