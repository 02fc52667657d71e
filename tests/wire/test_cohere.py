"""Cohere: what each shape of request is read as, and what answers say."""

from __future__ import annotations

from typing import Any

import pytest
from tests.wire.bodies import dumped, message

from mitmcontext.values import Standing, TooLong, Unreadable, Usage
from mitmcontext.wire import api_for
from mitmcontext.wire.api import system_texts, tool_count
from mitmcontext.wire.cohere import CHAT


def test_a_request_is_found_where_it_stands() -> None:
    body = (
        b' {"messages" :[ {"role":"user","content":"a"} ],"model":"command-a-03-2025",'
        b'"stream": true,"max_tokens":7,"tools":[{}], "documents":[{"data":{"a":"b"}},{"id":"2"}]} '
    )
    found = CHAT.read(body)
    assert found.raw(0) == b'{"role":"user","content":"a"}'
    assert (found.model, found.max_output, found.stream) == ("command-a-03-2025", 7, True)
    assert (found.hidden, found.window, tool_count(found)) == (False, None, 1)
    assert [said for _, said in system_texts(found)] == ['{"data":{"a":"b"}}', '{"id":"2"}']
    assert CHAT.standing("/v2/chat", {}, found) == (Standing.TURN, "")


@pytest.mark.parametrize("documents", [b"null", b"[]", b'["a"]', b'"a"', b'[{"a":1},"b"]'])
def test_documents_of_another_form_hinder_nothing(documents: bytes) -> None:
    body = b'{"messages":[{"role":"user"}],"model":"m","documents":' + documents + b"}"
    assert system_texts(CHAT.read(body)) == []


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b'{"model":"m"}', id="no messages"),
        pytest.param(b'{"message":"hi","model":"m"}', id="version 1"),
        pytest.param(b'{"messages":[{}]}', id="no model"),
        pytest.param(b'{"model":"m","messages":[]}', id="empty messages"),
        pytest.param(b'{"model":"m","messages":"hi"}', id="messages a string"),
        pytest.param(b'{"model":"m","messages":[[]]}', id="messages of lists"),
        pytest.param(b'{"model":1,"messages":[{}]}', id="model a number"),
        pytest.param(b'{"model":"m","messages":[{}],"messages":[{}]}', id="two messages"),
        pytest.param(b'{"model":"m","messages":[{}],"documents":[],"documents":[]}', id="two more"),
        pytest.param(b'{"model":"\xff","messages":[{}]}', id="not UTF-8"),
    ],
)
def test_what_is_no_request_is_unreadable(body: bytes) -> None:
    with pytest.raises(Unreadable):
        CHAT.read(body)


@pytest.mark.parametrize(
    ("method", "path", "ours"),
    [
        ("POST", "/v2/chat", True),
        ("POST", "/cohere/v2/chat", True),
        ("GET", "/v2/chat", False),
        ("POST", "/v1/chat", False),
        ("POST", "/v2/embed", False),
        ("POST", "/v2/rerank", False),
    ],
)
def test_recognised_by_method_and_path(method: str, path: str, ours: bool) -> None:
    assert (api_for(method, path) is CHAT) == ours


# Answers.

USAGE = {
    "billed_units": {"input_tokens": 8, "output_tokens": 2},
    "tokens": {"input_tokens": 503, "output_tokens": 4.0},
    "cached_tokens": 480,
}


@pytest.mark.parametrize(
    ("event", "usage"),
    [
        pytest.param({"usage": USAGE}, Usage(503, 4, 480), id="plain"),
        pytest.param(
            {"type": "message-end", "delta": {"finish_reason": "COMPLETE", "usage": USAGE}},
            Usage(503, 4, 480),
            id="the end of a stream",
        ),
        pytest.param({"usage": {"billed_units": {"input_tokens": 8}}}, Usage(), id="only billed"),
        pytest.param({"usage": {"tokens": {"input_tokens": True}}}, Usage(), id="no number"),
        pytest.param({"type": "content-delta", "delta": {"message": {}}}, None, id="a piece"),
        pytest.param({"message": "too many tokens"}, None, id="an error"),
    ],
)
def test_usage_is_read_from_any_answer(event: dict[str, Any], usage: Usage | None) -> None:
    assert CHAT.usage_of(event) == usage


LONG = (
    "too many tokens: total number of tokens in the prompt cannot exceed 4081 - received 4292."
    " Try using a shorter prompt, or enabling prompt truncating."
)


@pytest.mark.parametrize(
    ("status", "said", "shape", "length"),
    [
        (400, LONG, False, TooLong(4_292, 4_081)),
        (
            400,
            "too many tokens: total number of tokens in the prompt cannot exceed 128000",
            False,
            TooLong(None, 128_000),
        ),
        (400, "too many tokens: size limit exceeded by 5 tokens", False, TooLong()),
        (
            400,
            "too many tokens: max tokens must be less than or equal to 4096, the maximum output",
            False,
            None,
        ),
        (400, "invalid request: An assistant message with 'tool_calls' must be", True, None),
        (422, "unknown field: parameter 'x' is not a valid field", True, None),
        (401, "invalid api token", False, None),
        (400, "invalid api token", False, None),
        (429, "You are using a Trial key, which is limited to 10 API calls", False, None),
    ],
)
def test_refusals_are_told_apart(
    status: int, said: str, shape: bool, length: TooLong | None
) -> None:
    body = dumped({"id": "x", "message": said})
    assert CHAT.refuses_shape(status, body) == shape
    assert CHAT.refuses_length(status, body) == length


def test_a_title_is_left_alone() -> None:
    said = [message("system", "You are a title generator. Brief."), message("user", "x")]
    body = b'{"model":"m","messages":[' + b",".join(said) + b"]}"
    assert CHAT.standing("/v2/chat", {}, CHAT.read(body))[0] is Standing.ALONE
