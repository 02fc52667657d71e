"""Frames on a WebSocket that cannot be followed for certain: they pass."""

from __future__ import annotations

import json

from tests.e2e import forms
from tests.e2e.codex import CONDENSE, LONG, WINDOWS, Codex, faults, full, refusals, spoken
from tests.e2e.fixture_types import Json, Opened, StartProxy, Stats

from loopback.provider import Provider

DOUBTS: dict[str, Json] = {
    "the provider stores this conversation": {"store": True},
    "the provider keeps this conversation": {"conversation": "conv_1"},
    "several conversations share the connection": {"stream_id": "a"},
    "the provider adds a prompt of its own": {"prompt": {"id": "pmpt_1"}},
    "the provider edits this history itself": {"context_management": [{"type": "compaction"}]},
    "it goes on from a response that was not followed": {"previous_response_id": "resp_elsewhere"},
    "an item stands for one that the provider has kept": {
        "input": [{"type": "item_reference", "id": "msg_1"}]
    },
    "a frame that is no turn": {"type": "response.inject"},
    "an input that is neither text nor items": {"input": {"type": "message"}},
}


def test_in_doubt_frames_pass(
    provider: Provider, start_proxy: StartProxy, opened: Opened, stats: Stats
) -> None:
    proxy = start_proxy(WINDOWS, CONDENSE)
    story = forms.made_up()
    items = full(story, story.cuts[LONG])

    for doubt in DOUBTS.values():
        codex = Codex(opened(proxy), story)
        odd = json.dumps({**codex.body, "input": items, **doubt})
        codex.socket.turn(odd)
        assert provider.lines[-1].came == [odd]

    found = stats(proxy)
    assert found["left_alone"] == dict.fromkeys(DOUBTS, 1)
    assert found["requests"]["condensed"] == 0
    assert faults(found) == []


def test_nothing_is_known_until_a_frame_brings_everything(
    provider: Provider, start_proxy: StartProxy, opened: Opened, stats: Stats
) -> None:
    proxy = start_proxy(WINDOWS, CONDENSE)
    story = forms.made_up()
    # What the connection was opened for says nothing of the turns.
    opened_for = ("x-codex-turn-metadata", '{"request_kind":"compaction"}')
    socket = opened(proxy, headers=(("authorization", "Bearer k"), opened_for))
    codex = Codex(socket, story)
    codex.say([spoken("Hello.")])
    codex.body["store"] = True
    codex.say([spoken("Keep this.")])
    codex.body["store"] = False

    codex.say(full(story, story.cuts[LONG]))
    assert provider.lines[0].came == codex.sent
    codex.previous = ""
    codex.say([spoken("And now?")])

    assert provider.lines[0].came[:-1] == codex.sent[:-1]
    assert len(provider.lines[0].came[-1]) < len(codex.sent[-1])
    assert refusals(provider) == []
    assert stats(proxy)["steps"] == 1


def test_frames_that_are_none_pass(
    provider: Provider, start_proxy: StartProxy, opened: Opened, stats: Stats
) -> None:
    proxy = start_proxy(WINDOWS, CONDENSE)
    for junk in (b"\x00\xff", "no JSON", '{"type": "response.create"', "[]"):
        socket = opened(proxy)
        socket.turn(junk)
        assert provider.lines[-1].came == [junk]
    assert stats(proxy)["requests"]["left_alone"] == 4


def test_two_turns_at_once_are_not_followed(
    provider: Provider, start_proxy: StartProxy, opened: Opened, stats: Stats
) -> None:
    proxy = start_proxy(WINDOWS, CONDENSE)
    story = forms.made_up()
    codex = Codex(opened(proxy), story)
    first, second = (
        json.dumps({**codex.body, "input": [spoken(said)]})
        for said in ("Hello.", "Is anybody there?")
    )

    answers = codex.socket.turn(first, second)
    codex.previous = json.loads(answers[-1])["response"]["id"]
    codex.say(full(story, story.cuts[LONG]))

    assert provider.lines[0].came == [first, second, *codex.sent]
    assert stats(proxy)["left_alone"] == {
        "more than one response in flight": 1,
        "it goes on from a response that was not followed": 1,
    }
