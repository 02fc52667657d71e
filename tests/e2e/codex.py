"""Codex as it speaks over a WebSocket: what it keeps, what it sends, and a story in its form."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from tests.e2e import forms
from tests.e2e.fixture_types import Json
from tests.e2e.forms import Story

from loopback.answers import Call, Reply
from loopback.provider import Provider
from loopback.websocket import Socket

WINDOW = 24_000
WINDOWS = f"context_windows=gpt-*={WINDOW}"
CONDENSE, OBSERVE, FALLBACK = (
    f"context_websocket={name}" for name in ("condense", "observe", "fallback")
)
MODEL = "gpt-6.1-sol"
# So many requests of the made-up session are too long for the window; fewer for a tight one.
LONG, TIGHTLY_LONG = 25, 20


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
            yield spoken(block["text"])


def spoken(text: str) -> Json:
    """Something that a person types."""
    said = {"type": "input_text", "text": text}
    return {"type": "message", "role": "user", "content": [said]}


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


def full(story: Story, cut: int) -> list[Json]:
    """What stands in the input of a client that sends everything, up to a request of the story."""
    return list(history(story.messages[:cut]))


def history(messages: Sequence[Json]) -> Iterator[Json]:
    """Messages of both sides as items."""
    for at, message in enumerate(messages):
        if message["role"] == "user":
            yield from in_form(message)
            continue
        said = forms.text_of(message)
        if said:
            part = {"type": "output_text", "text": said}
            yield {"type": "message", "role": "assistant", "content": [part]}
        for call in forms.of_kind(message, "tool_use"):
            given = json.dumps(call["input"])
            own = {"type": "function_call", "id": f"fc_{at}_{call['id'][-8:]}"}
            yield {**own, "call_id": call["id"], "name": call["name"], "arguments": given}


def frames_at(provider: Provider) -> list[str]:
    """The frames that the provider got, on all connections."""
    return [str(frame) for line in provider.lines for frame in line.came]


def refusals(provider: Provider) -> list[Any]:
    """What the provider refused, and how."""
    return [record.refusal for record in provider.records if record.refusal]


def faults(found: Json) -> list[str]:
    """What went wrong. On a busy machine a step may come too late, which is no fault."""
    return [reason for reason in found["failures"] if reason != "no step in time"]
