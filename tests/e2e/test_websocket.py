"""OpenAI Responses over a WebSocket through the whole proxy: as Codex speaks, in all settings."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest
from tests import noisy
from tests.e2e import forms
from tests.e2e.codex import (
    CONDENSE,
    FALLBACK,
    LONG,
    MODEL,
    OBSERVE,
    WINDOW,
    WINDOWS,
    Codex,
    faults,
    frames_at,
    full,
    played,
    refusals,
    spoken,
    turns,
)
from tests.e2e.fixture_types import Connect, Json, Opened, StartProxy, Stats
from tests.e2e.forms import Story

from loopback.child import Child
from loopback.provider import Provider, with_windows


def test_a_long_session_fits(
    provider: Provider, start_proxy: StartProxy, opened: Opened, stats: Stats
) -> None:
    provider.models = with_windows({"*": WINDOW})
    proxy = start_proxy(WINDOWS, CONDENSE)
    story = forms.made_up()
    codex = Codex(opened(proxy), story)

    codex.warm_up()
    played(codex, provider, story)

    assert len(codex.sent) > 60
    assert refusals(provider) == []
    assert max(record.tokens for record in provider.records) <= WINDOW
    # The client sees the provider's very words.
    assert [one for came in codex.came for one in came] == provider.lines[0].sent
    found = stats(proxy)
    assert found["steps"] >= 2
    assert faults(found) == []
    assert found["prefix_breaks_unexplained"] == 0
    assert found["tokens"]["forwarded"] < found["tokens"]["sent"]
    # Every frame is the client's own but those that carried a step.
    changed = [
        frame for frame, sent in zip(frames_at(provider), codex.sent, strict=True) if frame != sent
    ]
    assert len(changed) == found["steps"]
    assert not any("\ufffd" in frame for frame in changed)
    assert all("previous_response_id" not in json.loads(frame) for frame in changed)
    assert len(provider.breaks) <= found["steps"]


def test_new_results_are_reduced_before_the_provider_holds_them(
    provider: Provider, start_proxy: StartProxy, opened: Opened, stats: Stats
) -> None:
    provider.models = with_windows({"*": 1_000_000})
    proxy = start_proxy("context_windows=gpt-*=1000000", CONDENSE, "reduce_at_birth=true")
    told = forms.made_up()
    story = Story(told.system, noisy.messages(told.messages), told.cuts)
    codex = Codex(opened(proxy), story)

    codex.warm_up()
    played(codex, provider, story)

    assert refusals(provider) == []
    assert provider.breaks == []
    found = stats(proxy)
    assert faults(found) == []
    assert found["prefix_breaks_unexplained"] == 0
    assert found["reduced_at_birth"]["results"] >= 3
    changed = [
        frame for frame, sent in zip(frames_at(provider), codex.sent, strict=True) if frame != sent
    ]
    # Only those frames that bring such a result.
    assert 0 < len(changed) <= found["reduced_at_birth"]["results"]
    assert "make the very same call again" in json.dumps(provider.records[-1].body)


def test_what_is_observed_passes_byte_for_byte(
    provider: Provider, start_proxy: StartProxy, opened: Opened, stats: Stats
) -> None:
    proxy = start_proxy(WINDOWS, OBSERVE)
    story = forms.made_up()
    codex = Codex(opened(proxy, deflated=False), story)

    codex.warm_up()
    played(codex, provider, story, most=36)

    assert frames_at(provider) == codex.sent
    assert [one for came in codex.came for one in came] == provider.lines[0].sent
    found = stats(proxy)
    assert found["requests"]["recognised"] == len(codex.sent)
    assert found["requests"]["observed"] > 10
    assert found["tokens"]["would_save"] > WINDOW
    assert found["steps"] == 0
    assert faults(found) == []


def test_nothing_is_changed_while_there_is_room(
    provider: Provider, start_proxy: StartProxy, opened: Opened, stats: Stats
) -> None:
    proxy = start_proxy(CONDENSE)
    story = forms.made_up()
    codex = Codex(opened(proxy), story)

    codex.warm_up()
    played(codex, provider, story, most=12)

    assert frames_at(provider) == codex.sent
    assert stats(proxy)["requests"]["under_threshold"] == 12


def test_the_client_is_sent_back_to_post(
    provider: Provider, start_proxy: StartProxy, opened: Opened, stats: Stats, connect: Connect
) -> None:
    proxy = start_proxy(WINDOWS, FALLBACK)
    story = forms.made_up()

    for path in ("/v1/responses", "/backend-api/codex/responses?client_version=1"):
        assert opened(proxy, path=path).status == 426
    # Another WebSocket is none of ours: it gets the provider's own answer.
    assert opened(proxy, path="/v1/realtime?model=gpt-realtime").status == 404
    assert [record.wire.target for record in provider.records] == [
        "/v1/realtime?model=gpt-realtime"
    ]

    body = {"model": MODEL, "instructions": story.system, "input": "Hello.", "store": False}
    headers = (("authorization", "Bearer k"), ("content-type", "application/json"))
    answer = connect(proxy, "api.openai.com").post(
        "/v1/responses", headers, json.dumps(body).encode()
    )
    assert answer.status == 200
    found = stats(proxy)["requests"]
    assert (found["left_alone"], found["under_threshold"]) == (2, 1)


@pytest.mark.parametrize("mode", ["observe", "off"])
def test_no_mode_that_changes_nothing_sends_back(
    mode: str, provider: Provider, start_proxy: StartProxy, opened: Opened
) -> None:
    proxy = start_proxy(f"context_mode={mode}", FALLBACK)

    assert opened(proxy).status == 101


def test_another_connection_goes_on_with_what_was_shortened(
    provider: Provider, start_proxy: StartProxy, opened: Opened, stats: Stats
) -> None:
    provider.models = with_windows({"*": WINDOW})
    proxy = start_proxy(WINDOWS, CONDENSE)
    story = forms.made_up()
    codex = Codex(opened(proxy), story)
    told = list(turns(story))
    for items, said in told[:40]:
        provider.replies.append(said)
        codex.say(items)
    before = stats(proxy)
    went = provider.records[-1].body["input"]

    # All that the client has goes out at once, more than the window holds.
    codex.again(opened(proxy))
    provider.replies.append(told[40][1])
    codex.say(told[40][0])
    found = stats(proxy)

    assert refusals(provider) == []
    assert before["steps"] >= 1
    assert found["steps"] == before["steps"]
    assert found["requests"]["reapplied"] == before["requests"]["reapplied"] + 1
    assert found["prefix_breaks_unexplained"] == 0
    assert len(frames_at(provider)[40]) < len(codex.sent[40])
    now = provider.records[-1].body["input"]
    assert [said_in(item) for item in now[: len(went)]] == [said_in(item) for item in went]


def said_in(item: Json) -> Json:
    """What of an item counts: not how its provider and its client write it down."""
    noted = ("id", "status", "type", "annotations", "logprobs")
    kept = {key: value for key, value in item.items() if key not in noted}
    if isinstance(kept.get("content"), list):
        kept["content"] = [part.get("text") for part in kept["content"]]
    return kept


def test_what_was_shortened_stays_so_at_the_provider(
    provider: Provider,
    start_proxy: StartProxy,
    opened: Opened,
    stats: Stats,
    addon: Path,
) -> None:
    """Through a reload of the addon, and up to the client's own compaction."""
    provider.models = with_windows({"*": WINDOW})
    proxy = start_proxy(WINDOWS, CONDENSE, addon=addon / "context.py")
    story = forms.made_up()
    codex = Codex(opened(proxy), story)
    codex.warm_up()
    codex.say(full(story, story.cuts[LONG]))
    assert len(provider.lines[0].came[-1]) < len(codex.sent[-1])

    reload(proxy, addon / "context.py")
    codex.say([spoken("And now?")])
    codex.say([spoken("In short?"), {"type": "compaction_trigger"}])
    # As Codex does: what a person typed, and what the provider made of all the rest.
    compaction = codex.history[-1]
    assert compaction["type"] == "compaction"
    codex.previous, codex.history = "", []
    codex.say([spoken("Go on."), compaction])

    assert refusals(provider) == []
    assert provider.lines[0].came[2:] == codex.sent[2:]
    found = stats(proxy)
    assert found["steps"] == 1
    assert found["requests"]["reapplied"] == 2
    assert found["requests"]["under_threshold"] == 1
    assert faults(found) == []


def reload(proxy: Child, script: Path) -> None:
    """Touch the script, and wait until mitmproxy has loaded it."""
    before = proxy.said().count("figures at")
    os.utime(script)
    deadline = time.monotonic() + 30
    while proxy.said().count("figures at") == before:
        assert time.monotonic() < deadline, "it was not loaded again"
        time.sleep(0.1)
