"""OpenAI Responses over a WebSocket through the whole proxy: as Codex speaks, in all settings."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from tests.e2e import forms
from tests.e2e.forms import Story

from loopback.answers import Call, Reply
from loopback.child import REPOSITORY, Child
from loopback.client import Connection
from loopback.provider import Provider, with_windows
from loopback.websocket import Socket

Json = dict[str, Any]
StartProxy = Callable[..., Child]
Connect = Callable[..., Connection]
Stats = Callable[[Child], Json]

WINDOW = 24_000
WINDOWS = f"context_windows=gpt-*={WINDOW}"
CONDENSE, OBSERVE, FALLBACK = (
    f"context_websocket={name}" for name in ("condense", "observe", "fallback")
)
MODEL = "gpt-6.1-sol"
CAPTURES = REPOSITORY.parent / "shared" / "data" / "captures"


class Codex:
    """A client that keeps its own history and sends only what the provider does not have."""

    def __init__(self, socket: Socket, story: Story) -> None:
        self.socket = socket
        self.history: list[Json] = []
        self.previous = ""
        self.sent: list[str] = []
        self.came: list[list[str]] = []
        tools = [{"type": "function", **tool["function"]} for tool in forms.functions()]
        self.body: Json = {
            "type": "response.create",
            "model": MODEL,
            "stream": True,
            "instructions": story.system,
            "tools": tools,
            "tool_choice": "auto",
            "reasoning": {"effort": "low", "context": "all_turns"},
            "store": False,
            "include": ["reasoning.encrypted_content"],
            "prompt_cache_key": "quay",
            "client_metadata": {"x-codex-turn-metadata": '{"request_kind":"turn"}'},
        }

    def warm_up(self) -> None:
        """Open the conversation before there is anything to say."""
        self.say([], generate=False)

    def say(self, items: Sequence[Json], **more: Any) -> list[Json]:
        """One turn; the events of its answer."""
        self.history += items
        # As Codex has it: what it goes on from stands before what is new.
        goes_on: Json = {"previous_response_id": self.previous} if self.previous else {}
        given = list(items) if self.previous else list(self.history)
        frame = {**self.body, **goes_on, "input": given, **more}
        self.sent.append(json.dumps(frame, ensure_ascii=False, separators=(",", ":")))
        self.came.append(self.socket.turn(self.sent[-1]))
        events: list[Json] = [json.loads(one) for one in self.came[-1]]
        self.previous = ""
        if events[-1]["type"] == "response.completed":
            self.previous = events[-1]["response"]["id"]
            done = [one for one in events if one["type"] == "response.output_item.done"]
            self.history += [resent(one["item"]) for one in done]
        return events

    def again(self, socket: Socket) -> None:
        """Go on with another connection."""
        self.socket, self.previous = socket, ""


def resent(item: Json) -> Json:
    """An item of an answer as Codex sends it back: without what it has no use for."""
    kept = {key: value for key, value in item.items() if key != "internal"}
    if kept["type"] == "message":
        texts = [{"type": "output_text", "text": part["text"]} for part in kept["content"]]
        kept = {"type": "message", "id": kept["id"], "role": "assistant", "content": texts}
    return kept


def turns(story: Story) -> Iterator[tuple[list[Json], Reply]]:
    """What the client has to say at each turn, and what the model answers."""
    before = 0
    for cut in story.cuts:
        new = [item for one in story.messages[before:cut] for item in in_form(one)]
        yield new, reply(story.messages[cut])
        before = cut + 1


def in_form(message: Json) -> Iterator[Json]:
    """What a user's message is as items."""
    for block in forms.blocks(message):
        if block["type"] == "tool_result":
            said, call = forms.result_text(block), block["tool_use_id"]
            yield {"type": "function_call_output", "call_id": call, "output": said}
        elif block["type"] == "text":
            said = {"type": "input_text", "text": block["text"]}
            yield {"type": "message", "role": "user", "content": [said]}


def reply(message: Json) -> Reply:
    """What the provider is to say so that the story goes on."""
    calls = forms.of_kind(message, "tool_use")
    thoughts = forms.of_kind(message, "thinking")
    return Reply(
        text=forms.text_of(message) or ("" if calls else "Done."),
        calls=tuple(Call(call["name"], call["input"], call["id"]) for call in calls),
        thinking=thoughts[0]["thinking"] if thoughts else "",
    )


def played(codex: Codex, provider: Provider, story: Story, most: int = 1_000) -> None:
    """Tell a story turn by turn."""
    for number, (items, said) in enumerate(turns(story)):
        if number == most:
            return
        provider.replies.append(said)
        codex.say(items)


@pytest.fixture
def opened(connect: Connect) -> Callable[..., Socket]:
    """A function that opens a WebSocket through a proxy."""

    def open_(proxy: Child, host: str = "api.openai.com", **named: Any) -> Socket:
        return Socket(connect(proxy, host), **named)

    return open_


Opened = Callable[..., Socket]


def frames_at(provider: Provider) -> list[str]:
    """The frames that the provider got."""
    return [record.wire.body.decode() for record in provider.records if record.wire.method == "GET"]


def refusals(provider: Provider) -> list[Any]:
    return [record.refusal for record in provider.records if record.refusal]


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
    assert found["requests"]["failed_open"] == 0
    assert found["failures"] == {}
    assert found["prefix_breaks_unexplained"] == 0
    assert found["tokens"]["forwarded"] < found["tokens"]["sent"]
    # Every frame is the client's own but those that carried a step.
    changed = [
        frame for frame, sent in zip(frames_at(provider), codex.sent, strict=True) if frame != sent
    ]
    assert len(changed) == found["steps"]
    assert all("previous_response_id" not in json.loads(frame) for frame in changed)
    assert len(provider.breaks) <= found["steps"]
