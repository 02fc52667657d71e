"""The strict provider's rules for Bedrock, and for Anthropic's bodies at Bedrock and Vertex."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from tests.drawn import anything_with

from loopback import rules_anthropic
from loopback.answers import Call, Reply, Usage
from loopback.counting import Model, count, model_named
from loopback.http1 import Wire
from loopback.rules_bedrock import (
    EVENT_STREAM,
    Memory,
    answer,
    answer_invoke,
    check,
    check_invoke,
    head,
    history,
    signed,
)
from mitmcontext.wire.anthropic import MESSAGES
from mitmcontext.wire.bedrock import CONVERSE
from mitmcontext.wire.event_stream import EventStreamReader, unwrapped

Json = dict[str, Any]

ANY = model_named("claude-sonnet-4-5")
POINT: Json = {"cachePoint": {"type": "default"}}
TOOLS: Json = {"toolConfig": {"tools": [{"toolSpec": {"name": "f"}}]}}


def user(*blocks: Any) -> Json:
    return {"role": "user", "content": list(blocks) or [{"text": "hi"}]}


def model(*blocks: Any) -> Json:
    return {"role": "assistant", "content": list(blocks) or [{"text": "yes"}]}


def use(id_: str = "a", given_: Any = None) -> Json:
    return {"toolUse": {"toolUseId": id_, "name": "f", "input": {} if given_ is None else given_}}


def result(id_: str = "a", *content: Any) -> Json:
    return {"toolResult": {"toolUseId": id_, "content": list(content) or [{"text": "done"}]}}


def thought(text: str, signature: str) -> Json:
    return {"reasoningContent": {"reasoningText": {"text": text, "signature": signature}}}


def request(*messages: Any, **others: Any) -> Json:
    return {"messages": list(messages), **others}


def judged(body: Any, memory: Memory | None = None) -> str:
    refusal = check(body, memory or Memory(), None, ANY)
    return refusal.message if refusal else ""


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(request(user()), id="a question"),
        pytest.param(
            request(user(), model(use("a"), use("b")), user(result("b"), result("a")), **TOOLS),
            id="parallel calls",
        ),
        pytest.param(
            request(user({"text": "x"}, POINT), model(thought("Hm.", "s"), {"text": "x"}), user()),
            id="thoughts and a cache point",
        ),
        pytest.param(
            request(user(), model(use()), user(result("a", {"json": {"a": 1}}), POINT), **TOOLS),
            id="a result in JSON",
        ),
    ],
)
def test_takes(body: Json) -> None:
    assert judged(body) == ""


@pytest.mark.parametrize(
    ("body", "words"),
    [
        pytest.param(
            request(user(), user()),
            "A conversation must alternate between user and assistant roles.",
            id="two of a user's",
        ),
        pytest.param(request(model(), user()), "must start with a user message", id="begins"),
        pytest.param(
            request(user(), model(use()), user(), **TOOLS),
            "Expected toolResult blocks at messages.2.content for the following Ids: a",
            id="a call without a result",
        ),
        pytest.param(
            request(user(), model(), user(result()), **TOOLS),
            "The number of toolResult blocks at messages.2.content exceeds the number of toolUse",
            id="a result without a call",
        ),
        pytest.param(
            request(user(), model(use()), user(result())),
            "The toolConfig field must be defined",
            id="tools no longer declared",
        ),
        pytest.param(
            request(user({"text": " "})),
            "The text field in the ContentBlock object at messages.0.content.0 is blank.",
            id="blank",
        ),
        pytest.param(
            request({"role": "user", "content": []}),
            "The content field in the Message object at messages.0 is empty.",
            id="empty",
        ),
        pytest.param(request(user({"text": "a", "image": {}})), "is invalid", id="two keys"),
        pytest.param(request(user(use())), "is invalid", id="a call of a user's"),
        pytest.param(
            request(user(), model(use("no spaces")), user()), "regular expression", id="an id"
        ),
        pytest.param(request(user(), model(use("a", "x"))), "toolUse.input is invalid", id="input"),
        pytest.param(
            request(user(POINT, {"text": "x"}), system=[{"text": "x"}, *[POINT] * 4]),
            "A maximum of 4 blocks with cache_control may be provided. Found 5.",
            id="cache points",
        ),
        pytest.param(request(user(), stream=True), "extraneous key [stream]", id="a key"),
        pytest.param(request(), "The messages field is empty", id="no messages"),
        pytest.param([], "Malformed input request", id="no object"),
    ],
)
def test_refuses(body: Any, words: str) -> None:
    assert words in judged(body)


def test_what_was_signed_must_stay_as_it_was() -> None:
    memory = Memory()
    signature = memory.sign("Hm.")
    assert judged(request(user(), model(thought("Hm.", signature), {"text": "x"})), memory) == ""
    other = request(user(), model(thought("Aha.", signature), {"text": "x"}))
    assert "messages.1.content.0: Invalid `signature`" in judged(other, memory)


def test_too_long_is_too_long() -> None:
    body = request(user({"text": "word " * 500}))
    refusal = check(body, Memory(), None, Model("*", 1.0, 100))
    assert refusal is not None
    assert refusal.too_long
    assert CONVERSE.refuses_length(400, refusal.message.encode()) is not None


def test_cache_points_and_media_do_not_count_by_their_bytes() -> None:
    def tokens(body: Json) -> int:
        return count({**head(body), "messages": history(body)}, ANY)

    image = {"image": {"format": "png", "source": {"bytes": "iVBO" * 9_000}}}
    assert tokens(request(user({"text": "x"}, POINT))) == tokens(request(user({"text": "x"})))
    assert 1_000 < tokens(request(user(image))) < 3_000
    assert 1_000 < tokens(request(user(result("a", image)))) < 3_000


def test_a_signed_body_must_arrive_as_it_was_signed() -> None:
    body = request(user())
    raw = json.dumps(body).encode()
    for sent, status in ((raw, 0), (raw + b" ", 403)):
        headers = ((b"authorization", signed(raw).encode()),)
        wire = Wire("POST", "/model/x/converse", b"", headers, sent, sent)
        for judge in (
            check(body, Memory(), wire, ANY),
            check_invoke({**ANTHROPIC}, rules_anthropic.Memory(), wire, ANY),
        ):
            assert (judge.status if judge else 0) == status


ANTHROPIC: Json = {
    "anthropic_version": "bedrock-2023-05-31",
    "max_tokens": 64,
    "messages": [{"role": "user", "content": "hi"}],
}


@pytest.mark.parametrize(
    ("path", "body", "words"),
    [
        ("/model/x/invoke", ANTHROPIC, ""),
        ("/publishers/anthropic/models/x:rawPredict", {**ANTHROPIC, "stream": True}, ""),
        ("/model/x/invoke", {**ANTHROPIC, "stream": True}, "stream: Extra inputs"),
        ("/model/x/invoke", {**ANTHROPIC, "model": "x"}, "model: Extra inputs"),
        ("/publishers/anthropic/models/x:rawPredict", {**ANTHROPIC, "model": "x"}, "model: Extra"),
        ("/model/x/invoke", {"inputText": "hi"}, "required key [anthropic_version] not found"),
        ("/model/x/invoke", {**ANTHROPIC, "messages": []}, "at least one message"),
    ],
)
def test_anthropics_bodies_are_judged_as_anthropic_judges(
    path: str, body: Json, words: str
) -> None:
    wire = Wire("POST", path, b"", (), b"", b"")
    refusal = check_invoke(body, rules_anthropic.Memory(), wire, ANY)
    assert words in (refusal.message if refusal else "")
    assert (refusal is None) == (not words)


REPLY = Reply("Done so far.", (Call("f", {"a": 1}),), thinking="Hm.", pieces=3)
USAGE = Usage(700, 300, 20, 7)


def wire_to(path: str) -> Wire:
    return Wire("POST", path, b"", (), b"", b"")


def test_converse_streams_and_answers_tell_the_same_usage() -> None:
    plain = answer(wire_to("/model/x/converse"), {}, 1, REPLY, USAGE, Memory()).value
    said = answer(wire_to("/model/x/converse-stream"), {}, 1, REPLY, USAGE, Memory())
    assert said.pieces is not None
    assert said.content_type == EVENT_STREAM
    messages = EventStreamReader().feed(b"".join(said.pieces))
    assert messages[0].headers[":event-type"] == "messageStart"
    assert messages[-1].headers[":event-type"] == "metadata"
    events = [json.loads(message.payload) for message in messages]
    assert CONVERSE.usage_of(events[-1]) == CONVERSE.usage_of(plain)
    found = CONVERSE.usage_of(plain)
    assert found is not None
    assert (found.input_tokens, found.output_tokens) == (1_020, 7)
    texts = [event["delta"].get("text", "") for event in events if "delta" in event]
    assert "".join(texts) == REPLY.text
    kinds = [next(iter(block)) for block in plain["output"]["message"]["content"]]
    assert kinds == ["reasoningContent", "text", "toolUse"]


def test_invoke_wraps_anthropics_events() -> None:
    memory = rules_anthropic.Memory()
    path = "/model/us.anthropic.claude-x/invoke-with-response-stream"
    said = answer_invoke(wire_to(path), ANTHROPIC, 1, REPLY, USAGE, memory)
    assert said.pieces is not None
    messages = EventStreamReader().feed(b"".join(said.pieces))
    assert {message.headers[":event-type"] for message in messages} == {"chunk"}
    events = [json.loads(unwrapped(message.payload)) for message in messages]
    assert [event["type"] for event in (events[0], events[-1])] == ["message_start", "message_stop"]
    found = MESSAGES.usage_of(events[0])
    assert found is not None
    assert found.input_tokens == 1_020


def test_vertex_streams_as_anthropic_does() -> None:
    memory = rules_anthropic.Memory()
    path = "/v1/publishers/anthropic/models/claude-x:streamRawPredict"
    said = answer_invoke(wire_to(path), {**ANTHROPIC, "stream": True}, 1, REPLY, USAGE, memory)
    assert said.pieces is not None
    assert said.content_type.startswith("text/event-stream")
    assert next(iter(said.pieces)).startswith(b"event: message_start\n")
    plain = answer_invoke(wire_to(path), ANTHROPIC, 1, REPLY, USAGE, memory).value
    assert plain["model"] == "claude-x"


JSON = anything_with("role content text toolUse toolResult toolUseId cachePoint", "user assistant")


@settings(max_examples=200)
@given(JSON)
def test_any_json_gets_an_answer(value: Any) -> None:
    for body in (
        value,
        {"messages": value},
        request(value),
        request(user(value)),
        request(user(), model(value), user(result("a", value))),
        request(user(), system=value),
        request(user(), toolConfig=value),
        request(user(), toolConfig={"tools": value}),
        request(user(), model(thought(value, value))),
    ):
        check(body, Memory(), None, ANY)
    for body in (value, {**ANTHROPIC, "messages": value}, {**ANTHROPIC, "anthropic_beta": value}):
        check_invoke(body, rules_anthropic.Memory(), None, ANY)
