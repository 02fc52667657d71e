"""The strict provider's rules for Ollama, and what it leaves out."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from tests.drawn import anything_with

from loopback.answers import Call, Reply, Usage
from loopback.counting import Model, model_named
from loopback.http1 import Wire
from loopback.rules_ollama import DEFAULT_WINDOW, Memory, answer, check, left_out, say

ANY = model_named("llama3")


def request(*messages: Any, **others: Any) -> dict[str, Any]:
    return {"model": "llama3", "messages": list(messages), **others}


def message(role: str, content: Any = "hi", **others: Any) -> dict[str, Any]:
    return {"role": role, "content": content, **others}


def call(arguments: Any) -> dict[str, Any]:
    return {"function": {"name": "f", "arguments": arguments}}


def judged(body: Any) -> str:
    refusal = check(body, Memory(), None, ANY)
    return refusal.message if refusal else ""


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(request(message("user")), id="a question"),
        pytest.param(request(message("User")), id="in any case"),
        pytest.param(request(message("user"), message("tool")), id="a result without a call"),
        pytest.param(
            request(message("assistant", "", tool_calls=[call({})]), message("user")),
            id="a call without a result",
        ),
        pytest.param(request(message("user", images=["aGk="]), surprise=1), id="an unknown key"),
        pytest.param({"model": "m", "prompt": "hi", "context": [1, 2]}, id="a completion"),
        pytest.param({"model": "m"}, id="loads the model"),
    ],
)
def test_takes(body: dict[str, Any]) -> None:
    assert judged(body) == ""


@pytest.mark.parametrize(
    ("body", "words"),
    [
        pytest.param(request(model=""), "model is required", id="no model"),
        pytest.param(request(message("thinking")), "Invalid role: thinking", id="a role"),
        pytest.param(
            request(message("user", [])),
            "json: cannot unmarshal array into Go struct field ChatRequest.messages.content of type"
            " string",
            id="content in parts",
        ),
        pytest.param(
            request(message("assistant", tool_calls=[call("{}")])),
            "json: cannot unmarshal string into Go struct field"
            " ChatRequest.messages.tool_calls.function.arguments of type map[string]interface {}",
            id="arguments as text",
        ),
        pytest.param(request(message("user", images=["?"])), "illegal base64 data", id="an image"),
        pytest.param(request(message("user"), options={"num_ctx": "8k"}), "num_ctx", id="a window"),
        pytest.param(request("hi"), "api.Message", id="a message that is none"),
        pytest.param([], "api.ChatRequest", id="no object"),
    ],
)
def test_refuses(body: Any, words: str) -> None:
    assert words in judged(body)
    refusal = check(body, Memory(), None, ANY)
    assert refusal is not None
    assert say(refusal, 1) == {"error": refusal.message}


def test_the_oldest_messages_are_left_out_and_nobody_is_told() -> None:
    long = [message("system"), *(message("user", "word " * 500) for _ in range(20))]
    memory = Memory()
    body = request(*long, options={"num_ctx": 2_000})
    assert check(body, memory, None, ANY) is None
    assert (memory.dropped, memory.truncated) == ([left_out(body, ANY)], 1)
    assert 14 <= memory.dropped[0] <= 19
    assert check(request(message("user")), memory, None, ANY) is None
    assert memory.truncated == 1


def test_the_default_window_is_a_small_machines() -> None:
    assert left_out(request(message("user", "x " * 3_000), message("user")), ANY) == 0
    assert left_out(request(message("user", "x " * 6_000), message("user")), ANY) == 1
    assert DEFAULT_WINDOW == 4_096


def test_the_last_message_stays_even_where_it_does_not_fit() -> None:
    assert left_out(request(message("user", "x " * 9_000)), ANY) == 0


def test_whoever_wants_no_truncation_is_refused() -> None:
    body = request(message("user", "x " * 9_000), truncate=False)
    refusal = check(body, Memory(), None, ANY)
    assert refusal is not None
    assert refusal.too_long
    assert "longer than the context length" in refusal.message


def wire(path: str) -> Wire:
    return Wire("POST", path, b"", (), b"", b"")


REPLY = Reply("Done so far.", (Call("f", {"a": 1}),), thinking="Hm.", pieces=3)
USAGE = Usage(5_000, 0, 0, 7)


def test_a_streamed_chat_is_lines_of_json_and_the_last_one_tells_usage() -> None:
    said = answer(wire("/api/chat"), request(message("user")), 1, REPLY, USAGE, Memory())
    assert said.content_type == "application/x-ndjson"
    assert said.pieces is not None
    lines = [json.loads(piece) for piece in said.pieces]
    assert "".join(line["message"]["content"] for line in lines) == REPLY.text
    assert [line["done"] for line in lines].count(True) == 1
    assert lines[-1]["done"]
    # What was left out was never evaluated.
    assert (lines[-1]["prompt_eval_count"], lines[-1]["eval_count"]) == (4_096, 7)


def test_a_plain_chat_says_the_same() -> None:
    body = request(message("user"), stream=False)
    said = answer(wire("/api/chat"), body, 1, REPLY, USAGE, Memory()).value
    assert said["message"]["content"] == REPLY.text
    assert said["message"]["thinking"] == REPLY.thinking
    assert said["message"]["tool_calls"] == [{"function": {"name": "f", "arguments": {"a": 1}}}]
    assert said["done"]


def test_a_completion_gives_its_history_back_as_tokens() -> None:
    body = {"model": "m", "prompt": "hi", "stream": False}
    said = answer(wire("/api/generate"), body, 1, REPLY, USAGE, Memory()).value
    assert said["response"] == REPLY.text
    assert said["context"]


JSON = anything_with(
    "role content tool_calls function arguments images", "user assistant tool system"
)


@settings(max_examples=200)
@given(JSON)
def test_any_json_gets_an_answer(value: Any) -> None:
    model = Model("*", 1.0, 100)
    for body in (value, {"model": "m", "messages": value}, request(value), request(options=value)):
        check(body, Memory(), None, model)
    check({"model": "m", "prompt": value, "context": value}, Memory(), None, model)
