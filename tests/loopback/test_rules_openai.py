"""The provider's rules for /v1/chat/completions."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from tests.drawn import anything_with

from loopback.counting import Model
from loopback.rules_openai import check, say


def request(*messages: Any, **others: Any) -> dict[str, Any]:
    return {"model": "gpt-4o", "messages": list(messages), **others}


def message(role: str, content: Any = "hi", **others: Any) -> dict[str, Any]:
    return {"role": role, "content": content, **others}


def call(id_: str, arguments: Any = "{}") -> dict[str, Any]:
    return {"id": id_, "type": "function", "function": {"name": "f", "arguments": arguments}}


def calls(*ids: str, content: Any = None) -> dict[str, Any]:
    return message("assistant", content, tool_calls=[call(id_) for id_ in ids])


def answer(id_: str) -> dict[str, Any]:
    return message("tool", "done", tool_call_id=id_)


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(request(message("user")), id="a question"),
        pytest.param(
            request(message("user"), calls("a", "b"), answer("b"), answer("a")), id="parallel calls"
        ),
        pytest.param(
            request(
                message("developer"),
                message("user", [{"type": "text", "text": "x"}]),
                message("assistant", None, refusal="no"),
            ),
            id="parts, and a refusal without content",
        ),
        pytest.param(
            request(
                message("user"),
                message("assistant", None, function_call={"name": "f", "arguments": "{}"}),
                message("function", "1", name="f"),
            ),
            id="the older form of calls",
        ),
    ],
)
def test_takes(body: dict[str, Any]) -> None:
    assert check(body) is None


CASES: list[tuple[str, dict[str, Any], str, str | None, str | None]] = [
    (
        "a call without a result",
        request(message("user"), calls("a"), message("user")),
        (
            "An assistant message with 'tool_calls' must be followed by tool messages responding to"
            " each 'tool_call_id'. The following tool_call_ids did not have response messages: a"
        ),
        "messages.[2].role",
        None,
    ),
    (
        "one of two parallel calls unanswered",
        request(message("user"), calls("a", "b"), answer("a")),
        "did not have response messages: b",
        "messages.[3].role",
        None,
    ),
    (
        "a result without a call",
        request(message("user"), answer("a")),
        (
            "Invalid parameter: messages with role 'tool' must be a response to a preceeding"
            " message with 'tool_calls'."
        ),
        "messages.[1].role",
        None,
    ),
    (
        "a result for another call",
        request(message("user"), calls("a"), answer("x")),
        "'tool_call_id' of 'x' not found in 'tool_calls' of previous message",
        "messages.[2].tool_call_id",
        None,
    ),
    (
        "a result given twice",
        request(message("user"), calls("a"), answer("a"), answer("a")),
        "'tool_call_id' of 'a' not found",
        "messages.[3].tool_call_id",
        None,
    ),
    (
        "no content",
        request(message("user", None)),
        "Invalid value for 'content': expected a string, got null.",
        "messages.[0].content",
        None,
    ),
    (
        "an unknown key of a message",
        request(message("user", stub=True)),
        "Additional properties are not allowed ('stub' was unexpected) - 'messages.0'",
        None,
        None,
    ),
    (
        "an unknown key",
        request(message("user"), foo=1),
        "Unrecognized request argument supplied: foo",
        None,
        None,
    ),
    (
        "an unknown role",
        request(message("robot")),
        (
            "Invalid value: 'robot'. Supported values are: 'system', 'assistant', 'user',"
            " 'function', 'tool', and 'developer'."
        ),
        "messages[0].role",
        "invalid_value",
    ),
    (
        "no messages",
        request(),
        (
            "Invalid 'messages': empty array. Expected an array with minimum length 1, but got an"
            " empty array instead."
        ),
        "messages",
        "empty_array",
    ),
    (
        "arguments that are no text",
        request(message("user"), message("assistant", None, tool_calls=[call("a", {})])),
        (
            "Invalid type for 'messages[1].tool_calls[0].function.arguments': expected a string,"
            " but got an object instead."
        ),
        "messages[1].tool_calls[0].function.arguments",
        "invalid_type",
    ),
    (
        "an id that is too long",
        request(message("user"), calls("x" * 41)),
        "string too long. Expected a string with maximum length 40, but got a string with length",
        "messages[1].tool_calls[0].id",
        "string_above_max_length",
    ),
    (
        "the old name of the limit for a model that reasons",
        request(message("user"), model="gpt-5", max_tokens=5),
        "Unsupported parameter: 'max_tokens' is not supported with this model.",
        "max_tokens",
        "unsupported_parameter",
    ),
]


@pytest.mark.parametrize(
    ("body", "words", "param", "code"), [pytest.param(*case[1:], id=case[0]) for case in CASES]
)
def test_refuses(body: dict[str, Any], words: str, param: str | None, code: str | None) -> None:
    refusal = check(body)

    assert refusal is not None
    assert words in refusal.message
    assert (refusal.param, refusal.code) == (param, code)


def test_a_context_that_is_too_long_has_a_code_of_its_own() -> None:
    small = Model("*", 1.0, 100)
    refusal = check(request(message("user", "word " * 500)), model=small)

    assert refusal is not None
    assert refusal.too_long
    error = say(refusal)["error"]
    assert error["code"] == "context_length_exceeded"
    assert error["message"].startswith("This model's maximum context length is 100 tokens. However")


JSON = anything_with(
    "role content type text id name tool_calls tool_call_id function arguments",
    "user assistant tool system text function",
)


@settings(max_examples=300)
@given(JSON)
def test_any_json_gets_an_answer(value: Any) -> None:
    check(value)
    check({"model": "gpt-4o", "messages": value})
    check(request(value))
    check(request(message("user"), message("assistant", None, tool_calls=value)))
