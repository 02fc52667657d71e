"""The addon is loaded anew in the middle of a turn on a WebSocket: nobody notices."""

from __future__ import annotations

import itertools
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.e2e import forms
from tests.e2e.codex import (
    CONDENSE,
    LONG,
    TIGHTLY_LONG,
    WINDOW,
    WINDOWS,
    Codex,
    faults,
    frames_at,
    full,
    played,
    refusals,
    spoken,
)
from tests.e2e.fixture_types import Opened, StartProxy, Stats
from tests.e2e.test_reload import HASTY
from tests.e2e.test_websocket import said_in
from tests.e2e.test_websocket_refused import TIGHT
from tests.e2e.waiting import wait_for

from loopback.child import Child
from loopback.provider import Behaviour, Provider, with_windows


def loaded(proxy: Child) -> int:
    """How often the addon was loaded."""
    return proxy.said().count("figures at")


def within_a_turn(
    provider: Provider, proxy: Child, script: Path, held_from: int, turn: Callable[[], object]
) -> None:
    """Load the addon anew while the provider holds back all but so many events of its answer."""
    free = threading.Event()
    line = provider.lines[-1]
    came, sent, before = len(line.came), len(line.sent), loaded(proxy)
    provider.behaviour = Behaviour(may=free.is_set, held_from=held_from)
    ended: list[object] = []
    client = threading.Thread(target=lambda: ended.append(turn()), daemon=True)
    client.start()
    wait_for(lambda: len(line.came) > came and len(line.sent) == sent + held_from)
    os.utime(script)
    wait_for(lambda: loaded(proxy) > before)
    assert ended == []
    free.set()
    client.join(30)
    assert len(ended) == 1
    provider.behaviour = Behaviour()


@pytest.mark.parametrize("held_from", [0, 2])
def test_a_turn_with_a_step_ends_and_what_it_froze_holds(
    held_from: int,
    provider: Provider,
    start_proxy: StartProxy,
    opened: Opened,
    stats: Stats,
    addon: Path,
) -> None:
    """Before the answer begins, and behind its first two events."""
    provider.models = with_windows({"*": WINDOW})
    script = addon / "context.py"
    proxy = start_proxy(WINDOWS, CONDENSE, addon=script)
    story = forms.made_up()
    codex = Codex(opened(proxy), story)
    codex.warm_up()

    within_a_turn(
        provider, proxy, script, held_from, lambda: codex.say(full(story, story.cuts[LONG]))
    )
    assert len(provider.lines[0].came[-1]) < len(codex.sent[-1])
    went = provider.records[-1].body["input"]
    # What the provider has is followed over the reload: the next turns pass, and one is enough.
    codex.say([spoken("And now?")])
    within_a_turn(provider, proxy, script, held_from, lambda: codex.say([spoken("And then?")]))
    assert provider.lines[0].came[2:] == codex.sent[2:]
    # Another connection brings all that the client has.
    codex.again(opened(proxy))
    codex.say([spoken("Where were we?")])

    assert refusals(provider) == []
    assert [event for came in codex.came for event in came] == [
        event for line in provider.lines for event in line.sent
    ]
    again = provider.records[-1].body["input"]
    assert [said_in(item) for item in again[: len(went)]] == [said_in(item) for item in went]
    found = stats(proxy)
    assert found["steps"] == 1
    assert found["requests"]["reapplied"] == 3
    assert found["prefix_breaks_unexplained"] == 0
    # The sizes that the provider reports are learned from, whoever sent the turn.
    assert found["estimates"]["compared"] == 4
    assert faults(found) == []


def test_a_turn_that_is_refused_after_a_reload_is_shortened_all_the_same(
    provider: Provider, start_proxy: StartProxy, opened: Opened, stats: Stats, addon: Path
) -> None:
    provider.models = with_windows({"*": TIGHT})
    script = addon / "context.py"
    proxy = start_proxy("context_windows=gpt-*=200000", CONDENSE, addon=script)
    story = forms.made_up()
    codex = Codex(opened(proxy), story)
    codex.warm_up()

    within_a_turn(
        provider, proxy, script, 0, lambda: codex.say(full(story, story.cuts[TIGHTLY_LONG]))
    )
    codex.say([spoken("And now?")])

    assert [one.too_long for one in refusals(provider)] == [True]
    assert [came[-1].partition(",")[0] for came in codex.came[1:]] == [
        '{"type": "response.completed"'
    ] * 2
    _, long, short, after = frames_at(provider)
    assert long == codex.sent[1]
    assert len(short) < len(long)
    assert after == codex.sent[2]
    found = stats(proxy)
    assert found["steps"] == 1
    assert found["requests"]["refused_length"] == 1
    assert faults(found) == []


def test_a_session_goes_on_while_the_addon_is_loaded_again_and_again(
    provider: Provider,
    start_proxy: StartProxy,
    opened: Opened,
    stats: Stats,
    tmp_path: Path,
    addon: Path,
) -> None:
    """At whatever moment of a turn that is: each fifth one from when it is sent on."""
    provider.models = with_windows({"*": WINDOW})
    (tmp_path / "hasty.py").write_text(HASTY)
    script = addon / "context.py"
    proxy = start_proxy(
        WINDOWS, CONDENSE, addon=tmp_path / "hasty.py", arguments=["-s", str(script)]
    )
    story = forms.made_up()
    codex = Codex(opened(proxy), story)
    stop = threading.Event()

    def touch() -> None:
        for number in itertools.count(1):
            before, later = loaded(proxy), time.time() + number
            while len(codex.sent) < 5 * number:
                if stop.wait(0.002):
                    return
            os.utime(script, (later, later))
            while loaded(proxy) == before:
                if stop.wait(0.02):
                    return

    toucher = threading.Thread(target=touch, daemon=True)
    toucher.start()
    try:
        codex.warm_up()
        played(codex, provider, story)
    finally:
        stop.set()
        toucher.join(20)

    assert loaded(proxy) > 5
    assert len(codex.sent) > 60
    assert refusals(provider) == []
    assert max(record.tokens for record in provider.records) <= WINDOW
    assert [one for came in codex.came for one in came] == provider.lines[0].sent
    found = stats(proxy)
    assert found["steps"] >= 2
    assert faults(found) == []
    assert found["prefix_breaks_unexplained"] == 0
    assert len(provider.breaks) <= found["steps"]
    assert "Addon error" not in proxy.said()
