"""OpenAI Responses over a WebSocket through the whole proxy: as Codex speaks, in all settings."""

from __future__ import annotations

import gzip
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from tests import noisy
from tests.e2e import forms
from tests.e2e.forms import Story

from loopback.answers import Call, Reply
from loopback.child import REPOSITORY, Child
from loopback.client import Connection
from loopback.provider import Behaviour, Provider, with_windows
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
# So many requests of the made-up session are too long for the window; fewer for a tight one.
LONG, TIGHTLY_LONG = 25, 20
TIGHT = 20_000
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


@pytest.fixture
def opened(connect: Connect) -> Callable[..., Socket]:
    """A function that opens a WebSocket through a proxy."""

    def open_(proxy: Child, host: str = "api.openai.com", **named: Any) -> Socket:
        return Socket(connect(proxy, host), **named)

    return open_


Opened = Callable[..., Socket]


def frames_at(provider: Provider) -> list[str]:
    """The frames that the provider got, on all connections."""
    return [str(frame) for line in provider.lines for frame in line.came]


def refusals(provider: Provider) -> list[Any]:
    """What the provider refused, and how."""
    return [record.refusal for record in provider.records if record.refusal]


def faults(found: Json) -> list[str]:
    """What went wrong. On a busy machine a step may come too late, which is no fault."""
    return [reason for reason in found["failures"] if reason != "no step in time"]


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


# What the real Codex sent, played once more.


RECORDED = ("websocket", "chatgpt-auth-websocket", "compaction-websocket")
OUTPUTS = ("function_call_output", "custom_tool_call_output")


def recorded(name: str) -> list[Json]:
    """The upgrade and the frames of a session of the real Codex; no answers were recorded."""
    file = CAPTURES / f"codex-0.169.0__{name}.jsonl.gz"
    if not file.exists():
        pytest.skip("the recorded requests are not on this machine")
    with gzip.open(file, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def replayed(
    name: str, provider: Provider, socket: Socket, more: int = 0
) -> tuple[list[str], list[str]]:
    """Play a session, and go on with its last turn; the client's frames and the provider's.

    Where a frame goes on from a response or answers a call, it is made to be the provider's: the
    session's own answers are not known.
    """
    frames: list[Json] = [one["body"] for one in recorded(name)[1:]]
    frames += [another(frames[-1], number) for number in range(more)]
    sent: list[str] = []
    came: list[str] = []
    previous = ""
    for frame, following in zip(frames, [*frames[1:], None], strict=True):
        if frame["input"]:
            provider.replies.append(calling(following["input"] if following else []))
        if "previous_response_id" in frame:
            frame["previous_response_id"] = previous
        sent.append(json.dumps(frame, ensure_ascii=False, separators=(",", ":")))
        came += socket.turn(sent[-1])
        previous = json.loads(came[-1]).get("response", {}).get("id", "")
    return sent, came


def another(frame: Json, number: int) -> Json:
    """The same turn once more: the output of another call."""
    text = json.dumps(frame)
    for item in frame["input"]:
        for own in filter(None, (item.get("id"), item.get("call_id"))):
            text = text.replace(own, f"{own[:40]}_{number}")
    found: Json = json.loads(text)
    return found


def calling(items: Sequence[Json]) -> Reply:
    """What a model says that is answered by these items."""
    calls = [item["call_id"] for item in items if item.get("type") in OUTPUTS]
    script = {"input": "text(await tools.exec_command({cmd: 'cat notes.txt'}))"}
    return Reply("Next.", tuple(Call("exec", script, id_) for id_ in calls), "What comes next?")


def let_in(opened: Opened, proxy: Child, name: str) -> Socket:
    """A WebSocket with the very headers of a recorded one."""
    upgrade = recorded(name)[0]
    ours = ("host", "connection", "upgrade", "authorization")
    headers = [
        (key, value)
        for key, value in upgrade["headers"]
        if key.lower() not in ours and not key.lower().startswith("sec-websocket")
    ]
    headers.append(("authorization", "Bearer k"))
    return opened(proxy, upgrade["host"], path=upgrade["path"], headers=headers)


@pytest.mark.parametrize("setting", [OBSERVE, CONDENSE])
def test_recorded_sessions_pass_while_there_is_room(
    setting: str, provider: Provider, start_proxy: StartProxy, opened: Opened, stats: Stats
) -> None:
    proxy = start_proxy(setting)
    for name in RECORDED:
        sent, came = replayed(name, provider, let_in(opened, proxy, name))
        assert provider.lines[-1].came == sent
        assert provider.lines[-1].sent == came
    assert refusals(provider) == []
    found = stats(proxy)
    assert faults(found) == []
    # The two sessions that begin with an empty turn.
    assert list(found["left_alone"].values()) == [2]


def test_recorded_sessions_are_sent_back_to_post(
    provider: Provider, start_proxy: StartProxy, opened: Opened
) -> None:
    proxy = start_proxy(FALLBACK)
    for name in RECORDED:
        assert let_in(opened, proxy, name).status == 426
    assert provider.number == 0


@pytest.mark.parametrize("name", ["websocket", "chatgpt-auth-websocket"])
def test_recorded_sessions_that_go_on_are_condensed(
    name: str, provider: Provider, start_proxy: StartProxy, opened: Opened, stats: Stats
) -> None:
    # Four fifths of its first turn are tools and prompts.
    window = 48_000
    provider.models = with_windows({"*": window})
    proxy = start_proxy(f"context_windows=gpt-*={window}", CONDENSE)

    sent, came = replayed(name, provider, let_in(opened, proxy, name), more=40)

    assert refusals(provider) == []
    assert max(record.tokens for record in provider.records) <= window
    assert provider.lines[0].sent == came
    found = stats(proxy)
    assert found["steps"] >= 2
    assert faults(found) == []
    assert found["prefix_breaks_unexplained"] == 0
    changed = sum(a != b for a, b in zip(sent, provider.lines[0].came, strict=True))
    assert changed == found["steps"]
