"""Anthropic Messages: what answers report and refuse."""

from __future__ import annotations

from typing import Any

import pytest
from tests.wire.bodies import dumped

from mitmcontext.values import Usage
from mitmcontext.wire.anthropic import MESSAGES


@pytest.mark.parametrize(
    ("event", "usage"),
    [
        pytest.param(
            {
                "type": "message_start",
                "message": {
                    "usage": {
                        "input_tokens": 7,
                        "cache_read_input_tokens": 100,
                        "cache_creation_input_tokens": 20,
                        "output_tokens": 1,
                    }
                },
            },
            Usage(127, 1, 100, 20),
            id="the start of a stream",
        ),
        pytest.param(
            {"type": "message_delta", "usage": {"output_tokens": 9}},
            Usage(None, 9, None, None),
            id="its end",
        ),
        pytest.param(
            {"type": "message", "usage": {"input_tokens": 7, "output_tokens": 2}},
            Usage(7, 2, None, None),
            id="a plain answer",
        ),
        pytest.param({"input_tokens": 2095}, Usage(2095), id="a count"),
        pytest.param({"type": "content_block_delta", "delta": {"text": "x"}}, None, id="a delta"),
        pytest.param({"type": "error", "error": {}}, None, id="an error"),
        pytest.param({"usage": None}, None, id="no usage"),
        pytest.param({"message": "x", "usage": {"output_tokens": 1}}, Usage(None, 1), id="odd"),
    ],
)
def test_usage_is_read_from_any_answer(event: dict[str, Any], usage: Usage | None) -> None:
    assert MESSAGES.usage_of(event) == usage


def error(said: str, kind: str = "invalid_request_error") -> bytes:
    return dumped({"type": "error", "error": {"type": kind, "message": said}})


@pytest.mark.parametrize(
    ("status", "body", "shape"),
    [
        (400, error("messages.3.content.0: unexpected `tool_use_id` found"), True),
        (400, error("messages: text content blocks must be non-empty"), True),
        (422, error("messages.1.content: Input should be a valid string"), True),
        (400, error("prompt is too long: 210000 tokens > 200000 maximum"), False),
        (400, error("input length and `max_tokens` exceed context limit: 1 + 2 > 3"), False),
        (400, error("Your credit balance is too low"), False),
        (401, error("invalid x-api-key", "authentication_error"), False),
        (429, error("This request would exceed your rate limit", "rate_limit_error"), False),
        (400, error("invalid x-api-key"), False),
        (413, error("Request exceeds the maximum size", "request_too_large"), False),
        (529, error("Overloaded", "overloaded_error"), False),
        (400, b"<html>", False),
        (200, error("messages"), False),
    ],
)
def test_a_refused_shape_is_told_from_other_refusals(status: int, body: bytes, shape: bool) -> None:
    assert MESSAGES.refuses_shape(status, body) == shape
