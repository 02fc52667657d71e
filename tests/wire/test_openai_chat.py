"""OpenAI Chat Completions: what each shape of request is read as, and what answers say."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.wire.bodies import dumped

from mitmcontext.values import Standing, Unreadable, Usage
from mitmcontext.wire import api_for
from mitmcontext.wire.api import tool_count
from mitmcontext.wire.openai_chat import CHAT


def test_a_request_is_found_where_it_stands() -> None:
    body = (
        b' {"n":1E2, "messages" :[ {"role":"user","content":"a"} ],"model":"gpt-4o",'
        b'"stream": true,"max_tokens":5,"max_completion_tokens":7,"tools":[{},{}]} '
    )
    found = CHAT.read(body)
    assert found.raw(0) == b'{"role":"user","content":"a"}'
    assert (found.model, found.max_output, found.stream) == ("gpt-4o", 7, True)
    assert (found.system, found.attested, tool_count(found)) == (None, False, 2)


def test_older_and_missing_names() -> None:
    found = CHAT.read(b'{"messages":[{"role":"user"}],"functions":[{}],"max_tokens":5}')
    assert (found.model, found.max_output, tool_count(found)) == ("", 5, 1)


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"model=x", id="a form"),
        pytest.param(b'{"model":"m"}', id="no messages"),
        pytest.param(b'{"model":"m","messages":[]}', id="empty messages"),
        pytest.param(b'{"model":"m","messages":"hi"}', id="messages a string"),
        pytest.param(b'{"model":"m","messages":[[]]}', id="messages of lists"),
        pytest.param(b'{"model":1,"messages":[{}]}', id="model a number"),
        pytest.param(b'{"messages":[{}],"messages":[{}]}', id="two messages"),
        pytest.param(rb'{"m\u0065ssages":[{}],"messages":[{}]}', id="one of them escaped"),
        pytest.param(b'{"messages":[{}],"tools":[],"tools":[]}', id="two tools"),
        pytest.param(b'{"messages":[{}],"functions":[],"functions":[]}', id="two functions"),
        pytest.param(b'{"messages":[{}],"model":"\xff"}', id="not UTF-8"),
    ],
)
def test_what_is_no_request_is_unreadable(body: bytes) -> None:
    with pytest.raises(Unreadable):
        CHAT.read(body)


@pytest.mark.parametrize(
    ("method", "path", "ours"),
    [
        ("POST", "/v1/chat/completions", True),
        ("POST", "/chat/completions", True),
        ("POST", "/api/v1/chat/completions", True),
        ("POST", "/openai/deployments/gpt-4o/chat/completions", True),
        ("POST", "/api/coding/paas/v4/chat/completions", True),
        ("GET", "/v1/chat/completions", False),
        ("POST", "/v1/chat/completions/abc", False),
        ("POST", "/v1/completions", False),
        ("POST", "/v1/responses", False),
        ("POST", "/v1/embeddings", False),
        ("POST", "/v1/batches", False),
    ],
)
def test_recognised_by_method_and_path(method: str, path: str, ours: bool) -> None:
    assert (api_for(method, path) is CHAT) == ours


def test_each_request_is_a_turn() -> None:
    found = CHAT.read(b'{"messages":[{"role":"user","content":"x"}]}')
    assert CHAT.standing("/v1/chat/completions", {}, found) == (Standing.TURN, "")


# Answers.


@pytest.mark.parametrize(
    ("event", "usage"),
    [
        pytest.param(
            {"usage": {"prompt_tokens": 9, "completion_tokens": 2}}, Usage(9, 2), id="plain"
        ),
        pytest.param(
            {
                "choices": [],
                "usage": {
                    "prompt_tokens": 900,
                    "completion_tokens": 2,
                    "prompt_tokens_details": {"cached_tokens": 512},
                },
            },
            Usage(900, 2, 512),
            id="cached",
        ),
        pytest.param(
            {"x_groq": {"usage": {"prompt_tokens": 9, "completion_tokens": 1}}},
            Usage(9, 1),
            id="groq",
        ),
        pytest.param({"choices": [{"delta": {"content": "usage"}}]}, None, id="a chunk"),
        pytest.param({"usage": None, "choices": []}, None, id="null"),
        pytest.param({"usage": {"prompt_tokens_details": None}}, Usage(), id="empty"),
        pytest.param({"x_groq": {"id": "x"}}, None, id="groq without usage"),
    ],
)
def test_usage_is_read_from_any_answer(event: dict[str, Any], usage: Usage | None) -> None:
    assert CHAT.usage_of(event) == usage


def error(said: str, code: str | None = None) -> bytes:
    return dumped({"error": {"message": said, "type": "invalid_request_error", "code": code}})


@pytest.mark.parametrize(
    ("status", "body", "shape"),
    [
        (400, error("An assistant message with 'tool_calls' must be followed by ..."), True),
        (400, error("Invalid parameter: messages with role 'tool' must be a response"), True),
        (422, error("Input should be a valid string"), True),
        (400, error("This model's maximum context length is 128000 tokens."), False),
        (400, error("Too many tokens", "context_length_exceeded"), False),
        (400, error("Input tokens exceed the configured limit", "context_length_exceeded"), False),
        (401, error("Incorrect API key provided"), False),
        (400, error("Incorrect API key provided"), False),
        (429, error("You exceeded your current quota"), False),
        (500, error("The server had an error"), False),
        (400, b"<html>Bad Request</html>", False),
    ],
)
def test_a_refused_shape_is_told_from_other_refusals(status: int, body: bytes, shape: bool) -> None:
    assert CHAT.refuses_shape(status, body) == shape


def test_a_refused_length_is_that_of_the_messages() -> None:
    said = (
        "This model's maximum context length is 8192 tokens. However, you requested 30000 tokens "
        "(2000 in the messages, 28000 in the completion). Please reduce the length."
    )
    body = json.dumps({"error": {"message": said, "code": "context_length_exceeded"}}).encode()
    assert CHAT.refuses_length(400, body) == (2_000, 8_192)
    assert CHAT.refuses_length(429, body) is None
