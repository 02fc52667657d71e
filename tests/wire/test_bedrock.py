"""Bedrock's Converse: requests and answers; Messages under Bedrock's and Vertex's paths."""

from __future__ import annotations

from typing import Any

import pytest
from tests.wire.bodies import dumped

from mitmcontext.values import Standing, TooLong, Unreadable, Usage
from mitmcontext.wire import api_for
from mitmcontext.wire.anthropic import MESSAGES
from mitmcontext.wire.api import Api, system_texts, tool_count
from mitmcontext.wire.bedrock import CONVERSE


def test_a_request_is_found_where_it_stands() -> None:
    body = (
        b' {"messages" :[ {"role":"user","content":[{"text":"a"}]} ],"system":[{"text":"Be."},'
        b'{"cachePoint":{"type":"default"}}],"inferenceConfig":{"maxTokens":7},'
        b'"toolConfig":{"tools":[{"toolSpec":{}},{"toolSpec":{}}]}} '
    )
    found = CONVERSE.read(body)
    assert found.raw(0) == b'{"role":"user","content":[{"text":"a"}]}'
    assert (found.model, found.max_output, tool_count(found)) == ("", 7, 2)
    assert system_texts(found)[0] == (b'"Be."', "Be.")
    assert CONVERSE.standing("/model/x/converse", {}, found) == (Standing.TURN, "")


def test_settings_may_be_left_out_or_null() -> None:
    body = b'{"messages":[{}],"system":null,"inferenceConfig":null,"toolConfig":null}'
    found = CONVERSE.read(body)
    assert (found.max_output, tool_count(found), system_texts(found)) == (None, 0, [])


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"{}", id="no messages"),
        pytest.param(b'{"messages":[]}', id="empty messages"),
        pytest.param(b'{"messages":"hi"}', id="messages a string"),
        pytest.param(b'{"messages":["hi"]}', id="messages of strings"),
        pytest.param(b'{"messages":[{}],"inferenceConfig":3}', id="settings a number"),
        pytest.param(b'{"messages":[{}],"toolConfig":[]}', id="tools a list"),
        pytest.param(b'{"messages":[{}],"messages":[{}]}', id="two messages"),
        pytest.param(
            b'{"messages":[{}],"inferenceConfig":{"maxTokens":1,"maxTokens":2}}', id="two"
        ),
        pytest.param(b'{"messages":[{"a":"\xff"}]}', id="not UTF-8"),
    ],
)
def test_what_is_no_request_is_unreadable(body: bytes) -> None:
    with pytest.raises(Unreadable):
        CONVERSE.read(body)


ID = "us.anthropic.claude-sonnet-4-5-20250929-v1:0"
ARN = f"arn:aws:bedrock:us-east-1:123456789012:inference-profile/{ID}"


@pytest.mark.parametrize(
    ("path", "api", "model"),
    [
        (f"/model/{ID}/converse", CONVERSE, ID),
        (f"/model/{ID.replace(':', '%3A')}/converse-stream", CONVERSE, ID),
        (f"/model/{ARN.replace(':', '%3A').replace('/', '%2F')}/converse", CONVERSE, ARN),
        (f"/model/{ARN}/converse", CONVERSE, ARN),
        (f"/model/{ID}/invoke", MESSAGES, ID),
        (f"/model/{ID.replace(':', '%3A')}/invoke-with-response-stream", MESSAGES, ID),
        (
            "/v1/projects/p/publishers/anthropic/models/claude-sonnet-4-5@20250929:rawPredict",
            MESSAGES,
            "claude-sonnet-4-5@20250929",
        ),
        (
            "/v1/projects/p/locations/l/publishers/anthropic/models/claude-x%40y:streamRawPredict",
            MESSAGES,
            "claude-x@y",
        ),
        ("/v1/messages", MESSAGES, ""),
        (f"/model/{ID}/async-invoke", None, ""),
        (f"/model/{ID}/count-tokens", None, ""),
        ("/model-invocation-job", None, ""),
        ("/v1/projects/p/locations/l/publishers/mistralai/models/m:rawPredict", None, ""),
        ("/v1/projects/p/locations/l/endpoints/1:rawPredict", None, ""),
    ],
)
def test_paths_say_which_api_and_which_model(path: str, api: Api | None, model: str) -> None:
    assert api_for("POST", path) is api
    assert api_for("GET", path) is None
    if api is not None:
        assert api.model_in_path(path) == model


# Anthropic's bodies under those paths.


def test_a_version_stands_in_the_models_place() -> None:
    messages = [{"role": "user", "content": "x"}]
    found = MESSAGES.read(dumped({"anthropic_version": "bedrock-2023-05-31", "messages": messages}))
    assert (found.model, found.window) == ("", None)
    long = {"anthropic_version": "x", "anthropic_beta": ["context-1m-2025-08-07"]}
    assert MESSAGES.read(dumped({**long, "messages": messages})).window == 1_000_000


@pytest.mark.parametrize(
    "body",
    [
        {"inputText": "x"},
        {"prompt": "x", "max_gen_len": 5},
        {
            "schemaVersion": "messages-v1",
            "messages": [{"role": "user", "content": [{"text": "x"}]}],
        },
    ],
    ids=["titan", "llama", "nova"],
)
def test_other_vendors_bodies_are_unreadable(body: dict[str, Any]) -> None:
    with pytest.raises(Unreadable):
        MESSAGES.read(dumped(body))


def test_a_count_at_vertex_is_no_turn() -> None:
    body = {"model": "claude-x", "messages": [{"role": "user", "content": "x"}]}
    found = MESSAGES.read(dumped(body))
    path = "/v1/projects/p/locations/l/publishers/anthropic/models/count-tokens:rawPredict"
    assert MESSAGES.standing(path, {}, found)[0] is Standing.NO_TURN


# Answers.


@pytest.mark.parametrize(
    ("event", "usage"),
    [
        pytest.param(
            {"usage": {"inputTokens": 25, "outputTokens": 10, "totalTokens": 35}},
            Usage(25, 10),
            id="plain",
        ),
        pytest.param(
            {
                "usage": {
                    "inputTokens": 12,
                    "outputTokens": 250,
                    "cacheReadInputTokens": 1_028,
                    "cacheWriteInputTokens": 100,
                },
                "metrics": {"latencyMs": 5},
            },
            Usage(1_140, 250, 1_028, 100),
            id="cached",
        ),
        pytest.param({"usage": {"inputTokens": "25"}}, Usage(), id="no number"),
        pytest.param({"usage": None}, None, id="null"),
        pytest.param({"contentBlockIndex": 0, "delta": {"text": "x"}}, None, id="a piece"),
    ],
)
def test_usage_is_read_from_any_answer(event: dict[str, Any], usage: Usage | None) -> None:
    assert CONVERSE.usage_of(event) == usage


@pytest.mark.parametrize(
    ("api", "status", "said", "shape", "length"),
    [
        (
            CONVERSE,
            400,
            "The model returned the following errors: Input is too long for requested model.",
            False,
            TooLong(),
        ),
        (
            CONVERSE,
            400,
            "The model returned: prompt is too long: 212345 tokens > 200000 maximum",
            False,
            TooLong(212_345, 200_000),
        ),
        (
            CONVERSE,
            400,
            "input length and `max_tokens` exceed context limit: 190000 + 32000 > 200000",
            False,
            TooLong(190_000, 200_000),
        ),
        (
            CONVERSE,
            400,
            "This model's maximum context length is 8192 tokens. Please reduce the length",
            False,
            TooLong(None, 8_192),
        ),
        (
            CONVERSE,
            400,
            "Expected toolResult blocks at messages.2.content for the following Ids: a",
            True,
            None,
        ),
        (
            CONVERSE,
            400,
            "A conversation must alternate between user and assistant roles.",
            True,
            None,
        ),
        (CONVERSE, 403, "The request signature we calculated does not match", False, None),
        (CONVERSE, 429, "Too many tokens, please wait before trying again.", False, None),
        (MESSAGES, 400, "Input is too long for requested model.", False, TooLong()),
        (MESSAGES, 400, "messages.2: `tool_use` ids were found without", True, None),
    ],
)
def test_refusals_are_told_apart(
    api: Api, status: int, said: str, shape: bool, length: TooLong | None
) -> None:
    body = dumped({"message": said})
    assert api.refuses_shape(status, body) == shape
    assert api.refuses_length(status, body) == length


def test_a_title_is_left_alone() -> None:
    body = {"system": [{"text": "You are a title generator. Be brief."}], "messages": [{}]}
    found = CONVERSE.read(dumped(body))
    assert CONVERSE.standing("/model/x/converse", {}, found)[0] is Standing.ALONE
