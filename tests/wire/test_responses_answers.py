"""OpenAI Responses: what answers report, add to the history, and refuse."""

from __future__ import annotations

import pytest
from tests.wire.bodies import dumped
from tests.wire.responses_bodies import SAID, Json, reasoning

from mitmcontext.values import TooLong, Usage
from mitmcontext.wire.openai_responses import RESPONSES
from mitmcontext.wire.responses_answers import items_added

REPORTED = {
    "input_tokens": 900,
    "input_tokens_details": {"cached_tokens": 512},
    "output_tokens": 2,
}


@pytest.mark.parametrize(
    ("event", "usage"),
    [
        pytest.param({"object": "response", "usage": REPORTED}, Usage(900, 2, 512), id="plain"),
        pytest.param(
            {"type": "response.completed", "response": {"usage": REPORTED}},
            Usage(900, 2, 512),
            id="streamed",
        ),
        pytest.param(
            {"type": "response.incomplete", "response": {"usage": REPORTED}},
            Usage(900, 2, 512),
            id="incomplete",
        ),
        pytest.param({"usage": {"input_tokens": 9, "output_tokens": 1}}, Usage(9, 1), id="bare"),
        pytest.param(
            {"object": "response.input_tokens", "input_tokens": 9}, Usage(9), id="a count"
        ),
        pytest.param(
            {"response": {"usage": REPORTED, "previous_response_id": "resp_1"}},
            Usage(output_tokens=2),
            id="with history that the provider added",
        ),
        pytest.param(
            {"usage": REPORTED, "conversation": {"id": "conv_1"}},
            Usage(output_tokens=2),
            id="in a conversation of the provider's",
        ),
        pytest.param(
            {"usage": REPORTED, "output": [{"type": "web_search_call"}]},
            Usage(output_tokens=2),
            id="summed over a server's tools",
        ),
        pytest.param({"type": "response.created", "response": {"usage": None}}, None, id="begun"),
        pytest.param({"type": "response.output_text.delta", "delta": "x"}, None, id="a piece"),
    ],
)
def test_usage_is_read_from_any_answer(event: Json, usage: Usage | None) -> None:
    assert RESPONSES.usage_of(event) == usage


@pytest.mark.parametrize(
    ("event", "items"),
    [
        pytest.param({"type": "response.output_item.done", "item": SAID}, (SAID,), id="one"),
        pytest.param(
            {"type": "response.completed", "response": {"output": [reasoning(), SAID]}},
            (reasoning(), SAID),
            id="all",
        ),
        pytest.param({"type": "response.completed", "response": {"output": []}}, (), id="none"),
        pytest.param({"type": "response.completed", "response": {}}, (), id="not told"),
        pytest.param({"type": "response.output_item.added", "item": SAID}, (), id="only begun"),
        pytest.param({"type": "response.failed", "response": {"output": [SAID]}}, (), id="failed"),
        pytest.param({"type": "response.output_item.done", "item": "x"}, (), id="odd"),
        pytest.param({"type": "response.completed", "response": {"output": 7}}, (), id="odder"),
        pytest.param({}, (), id="nothing"),
    ],
)
def test_which_items_an_event_adds(event: Json, items: tuple[Json, ...]) -> None:
    assert items_added(event) == items


def error(said: str, code: str | None = None) -> bytes:
    found = {"message": said, "type": "invalid_request_error", "param": "input", "code": code}
    return dumped({"error": found})


TOO_LONG = "Your input exceeds the context window of this model. Please adjust your input."
FAILED = {
    "type": "response.failed",
    "response": {"error": {"code": "context_length_exceeded", "message": TOO_LONG}},
}
SSE = (
    b"event: response.created\ndata: {}\n\nevent: response.failed\ndata: "
    + dumped(FAILED)
    + b"\n\n"
)
STREAMED_ERROR = b"data: " + dumped({"type": "error", "error": {"message": TOO_LONG}}) + b"\n\n"
SAYS_SO = dumped(
    {"type": "response.output_text.done", "text": f'"error" {TOO_LONG} context_length_exceeded'}
)


@pytest.mark.parametrize(
    ("status", "raw", "shape", "length"),
    [
        (400, error("Item 'rs_1' of type 'reasoning' was provided without its"), True, None),
        (400, error("No tool output found for function call call_1."), True, None),
        (400, error("Could not be verified.", "invalid_encrypted_content"), True, None),
        (400, error(TOO_LONG, "context_length_exceeded"), False, TooLong()),
        (400, error(TOO_LONG), False, TooLong()),
        (
            400,
            error("This model's maximum context length is 128000 tokens. However, your messages"
                  " resulted in 130000 tokens."),
            False,
            TooLong(130_000, 128_000),
        ),
        (401, error("Incorrect API key provided"), False, None),
        (429, error("Rate limit reached"), False, None),
        (404, error("Item with id 'rs_1' not found."), False, None),
        (200, SSE, False, TooLong()),
        (200, dumped(FAILED), False, TooLong()),
        (200, STREAMED_ERROR, False, TooLong()),
        (200, SAYS_SO, False, None),
        (200, b"data: " + SAYS_SO + b"\n\n", False, None),
        (200, b'data: {"error"\n\n', False, None),
        (200, b"", False, None),
    ],
)  # fmt: skip
def test_refusals(status: int, raw: bytes, shape: bool, length: TooLong | None) -> None:
    assert RESPONSES.refuses_shape(status, raw) == shape
    assert RESPONSES.refuses_length(status, raw) == length
