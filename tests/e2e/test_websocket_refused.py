"""Turns on a WebSocket that the provider refuses, for their shape or for their length."""

from __future__ import annotations

import json
import time

import pytest
from tests.e2e import forms
from tests.e2e.codex import (
    CONDENSE,
    LONG,
    OBSERVE,
    TIGHTLY_LONG,
    WINDOWS,
    Codex,
    frames_at,
    full,
    refusals,
    spoken,
)
from tests.e2e.fixture_types import Opened, StartProxy, Stats

from loopback.answers import Reply
from loopback.provider import Behaviour, Provider, with_windows

TIGHT = 20_000


def test_a_turn_that_is_refused_for_its_shape_goes_out_as_it_came(
    provider: Provider, start_proxy: StartProxy, opened: Opened, stats: Stats
) -> None:
    proxy = start_proxy(WINDOWS, CONDENSE)
    story = forms.made_up()
    codex = Codex(opened(proxy), story)
    codex.warm_up()
    items = full(story, story.cuts[LONG])
    error = {"message": "Invalid value.", "type": "invalid_request_error", "code": "invalid_value"}
    provider.replies.append(Reply(status=400, error={"error": error}))

    events = codex.say(items)
    again = codex.say([spoken("And now?")])

    # The client hears only of the second one.
    assert [event["type"] for event in events].count("error") == 0
    assert events[-1]["type"] == "response.completed"
    warm, refused, came, later = frames_at(provider)
    assert refused != codex.sent[1]
    assert json.loads(came) == json.loads(codex.sent[1])
    # The step was at fault, so none is taken in this conversation any more.
    assert again[-1]["type"] == "response.completed"
    assert later == codex.sent[2]
    found = stats(proxy)
    assert found["requests"]["refused_after_rewrite"] == 1
    assert warm == codex.sent[0]


def test_who_is_hung_up_on_behind_a_refusal_comes_again_without_the_step(
    provider: Provider, start_proxy: StartProxy, opened: Opened
) -> None:
    """The refusal was held back, and there is nobody any more to send the turn to once more."""
    proxy = start_proxy(WINDOWS, CONDENSE)
    story = forms.made_up()
    provider.behaviour = Behaviour(hangs_up=True)
    codex = Codex(opened(proxy), story)
    codex.warm_up()
    error = {"message": "Invalid value.", "type": "invalid_request_error", "code": "invalid_value"}
    provider.replies.append(Reply(status=400, error={"error": error}))
    with pytest.raises(ConnectionError):
        codex.say(full(story, story.cuts[LONG]))
    refused = frames_at(provider)[-1]
    assert refused != codex.sent[-1]

    # The step is taken back in a thread, and whoever was hung up on waits a moment.
    time.sleep(1)
    codex.again(opened(proxy))
    events = codex.say([])

    assert events[-1]["type"] == "response.completed"
    assert frames_at(provider)[-1] == codex.sent[-1]


def test_a_turn_that_is_too_long_for_the_provider_is_shortened_at_once(
    provider: Provider, start_proxy: StartProxy, opened: Opened, stats: Stats
) -> None:
    provider.models = with_windows({"*": TIGHT})
    proxy = start_proxy("context_windows=gpt-*=200000", CONDENSE)
    story = forms.made_up()
    codex = Codex(opened(proxy), story)
    codex.warm_up()

    events = codex.say(full(story, story.cuts[TIGHTLY_LONG]))
    later = codex.say([spoken("And now?")])

    assert [one.too_long for one in refusals(provider)] == [True]
    assert events[-1]["type"] == later[-1]["type"] == "response.completed"
    assert all(event["type"] != "error" for event in events)
    _, long, short, after = frames_at(provider)
    assert long == codex.sent[1]
    assert len(short) < len(long)
    assert after == codex.sent[2]
    found = stats(proxy)
    assert found["steps"] == 1
    assert found["requests"]["refused_length"] == 1


def test_what_is_observed_and_too_long_teaches_the_window(
    provider: Provider, start_proxy: StartProxy, opened: Opened, stats: Stats
) -> None:
    provider.models = with_windows({"*": TIGHT})
    proxy = start_proxy("context_windows=gpt-*=200000", OBSERVE)
    story = forms.made_up()
    codex = Codex(opened(proxy), story)
    items = full(story, story.cuts[TIGHTLY_LONG])

    refused = codex.say(items)
    codex.history.clear()
    codex.say(items)

    assert refused[-1]["error"]["code"] == "context_length_exceeded"
    assert frames_at(provider) == codex.sent
    found = stats(proxy)
    assert found["requests"]["refused_length"] == 2
    assert found["tokens"]["would_save"] > 0
