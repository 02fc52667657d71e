"""The strict provider's rules for Cohere."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from tests.drawn import anything_with

from loopback.answers import Call, Reply, Usage
from loopback.counting import Model, count, model_named
from loopback.http1 import Wire
from loopback.rules_cohere import Memory, answer, check, head, say
from mitmcontext.wire.cohere import CHAT

ANY = model_named("command-a")


def request(*messages: Any, **others: Any) -> dict[str, Any]:
    return {"model": "command-a", "messages": list(messages), **others}


def message(role: str, content: Any = "hi", **others: Any) -> dict[str, Any]:
    return {"role": role, "content": content, **others}


def calls(*ids: str) -> dict[str, Any]:
    listed = [{"id": i, "type": "function", "function": {"name": "f"}} for i in ids]
    return {"role": "assistant", "tool_plan": "x", "tool_calls": listed}


def result(id_: str, content: Any = "done") -> dict[str, Any]:
    return message("tool", content, tool_call_id=id_)


def document(data: Any) -> dict[str, Any]:
    return {"type": "document", "document": {"data": data}}


def judged(body: Any, model: Model = ANY) -> str:
    refusal = check(body, Memory(), None, model)
    return refusal.message if refusal else ""


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(request(message("user")), id="a question"),
        pytest.param(
            request(message("user"), calls("a", "b"), result("b"), result("a")), id="parallel calls"
        ),
        pytest.param(
            request(message("user"), calls("a"), result("a", [document({"a": 1}), document("x")])),
            id="documents",
        ),
        pytest.param(
            request(message("user"), documents=[{"data": {"a": "b"}}], safety_mode="NONE"),
            id="settings",
        ),
    ],
)
def test_takes(body: dict[str, Any]) -> None:
    assert judged(body) == ""


@pytest.mark.parametrize(
    ("body", "words"),
    [
        pytest.param(
            request(message("user"), calls("a"), message("user")),
            "invalid request: An assistant message with 'tool_calls' must be followed by tool"
            " messages responding to each 'tool_call_id'. The following tool_call_ids did not have"
            " response messages: a",
            id="a call without a result",
        ),
        pytest.param(
            request(message("user"), result("a")), "messages with role 'tool'", id="no call"
        ),
        pytest.param(
            request(message("user", "")), "must have non-empty content", id="an empty text"
        ),
        pytest.param(
            request(message("user", [{"type": "text", "text": ""}])), "empty text", id="another"
        ),
        pytest.param(request(message("assistant", "")), "no content, plan", id="says nothing"),
        pytest.param(request(message("robot")), "invalid role", id="a role"),
        pytest.param(
            request(message("user", [document("x")])), "block of type 'document'", id="a block"
        ),
        pytest.param(
            request(message("user", name="x")),
            "unknown field: parameter 'messages[0].name' is not a valid field",
            id="a key of a message",
        ),
        pytest.param(request(message("user"), foo=1), "parameter 'foo' is not", id="a key"),
        pytest.param(
            request(message("user"), calls("a"), result("a", [document(1)])), "data", id="data"
        ),
        pytest.param(request(), "messages must not be empty", id="no messages"),
        pytest.param({"model": "m", "message": "hi"}, "parameter 'message' is not", id="version 1"),
        pytest.param({"messages": [message("user")]}, "a model parameter is required", id="model"),
        pytest.param([], "should be of type object", id="no object"),
    ],
)
def test_refuses(body: Any, words: str) -> None:
    assert words in judged(body)


def test_a_prompt_that_is_too_long_is_refused_with_both_sizes() -> None:
    body = request(message("user", "word " * 500))
    refusal = check(body, Memory(), None, Model("*", 1.0, 100))
    assert refusal is not None
    assert refusal.too_long
    tokens = count({**head(body), "messages": body["messages"]}, Model("*", 1.0, 100))
    said = json.dumps(say(refusal, 1)).encode()
    assert CHAT.refuses_length(400, said) == (tokens, 100)


def test_what_results_hold_is_counted_by_its_length() -> None:
    short, long = (result("a", [document("word " * size)]) for size in (10, 5_000))
    sizes = [count(request(one), ANY) for one in (short, long)]
    assert sizes[1] - sizes[0] > 4_000


WIRE = Wire("POST", "/v2/chat", b"", (), b"", b"")
USAGE = Usage(700, 300, 0, 7)


@pytest.mark.parametrize("calls", [(), (Call("f", {"a": 1}),)], ids=["says", "calls"])
def test_streams_and_plain_answers_tell_the_same_usage(calls: tuple[Call, ...]) -> None:
    reply = Reply("Done so far.", calls, pieces=3)
    body = request(message("user"))
    plain = answer(WIRE, body, 1, reply, USAGE, Memory()).value
    streamed = answer(WIRE, {**body, "stream": True}, 1, reply, USAGE, Memory())
    assert streamed.pieces is not None
    pieces = [piece.split(b"data: ")[1].strip() for piece in streamed.pieces]
    assert pieces.pop() == b"[DONE]"
    events = [json.loads(piece) for piece in pieces]
    assert CHAT.usage_of(plain) == CHAT.usage_of(events[-1])
    found = CHAT.usage_of(plain)
    assert found is not None
    assert (found.input_tokens, found.output_tokens, found.cache_read_tokens) == (1_000, 7, 300)
    assert [CHAT.usage_of(event) for event in events[:-1]] == [None] * (len(events) - 1)
    assert plain["finish_reason"] == ("TOOL_CALL" if calls else "COMPLETE")


JSON = anything_with(
    "role content type text document data tool_calls function", "user assistant tool text document"
)


@settings(max_examples=200)
@given(JSON)
def test_any_json_gets_an_answer(value: Any) -> None:
    for body in (
        value,
        {"model": "m", "messages": value},
        request(value),
        request(calls("a"), value),
    ):
        check(body, Memory(), None, ANY)
    check(request(message("user"), tools=value, documents=value), Memory(), None, ANY)
