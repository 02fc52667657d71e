"""Bedrock and Vertex through the whole proxy: bearer keys are condensed, signed bodies observed."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence

import pytest
from tests.e2e import forms
from tests.e2e.fixture_types import Connect, Json, StartProxy, Stats
from tests.e2e.forms import Story

from demo.session import Session, encode
from loopback.answers import Call, Reply
from loopback.provider import Behaviour, Provider, with_windows
from loopback.rules_bedrock import EVENT_STREAM, signed
from mitmcontext.wire.anthropic import MESSAGES
from mitmcontext.wire.bedrock import CONVERSE

WINDOW = 24_000
BEDROCK, VERTEX = "bedrock-runtime.us-east-1.amazonaws.com", "us-east5-aiplatform.googleapis.com"
MODEL = "us.anthropic.claude-sonnet-4-5-20250929-v1%3A0"
PROFILE = "arn%3Aaws%3Abedrock%3Aus-east-1%3A1%3Ainference-profile%2F" + MODEL
AT_VERTEX = (
    "/v1/projects/p/locations/us-east5/publishers/anthropic/models/claude-sonnet-4-5@20250929"
)
BEARER = (("authorization", "Bearer ABSKloopback"), ("content-type", "application/json"))
OPTION = f"context_windows=claude-sonnet-4-5={WINDOW}"
POINT = {"cachePoint": {"type": "default"}}


def told(story: Story) -> Iterator[Json]:
    """The requests of a story as a client of Converse sends them, cache points at the end."""
    tools = [
        {
            "toolSpec": {
                "name": tool["function"]["name"],
                "description": tool["function"]["description"],
                "inputSchema": {"json": tool["function"]["parameters"]},
            }
        }
        for tool in forms.functions()
    ]
    for messages in story.turns():
        told_ = list(in_form(messages))
        for message in [m for m in told_ if m["role"] == "user"][-2:]:
            message["content"].append(POINT)
        yield {
            "messages": told_,
            "system": [{"text": story.system or "You write code."}, POINT],
            "inferenceConfig": {"maxTokens": 2_000},
            "toolConfig": {"tools": tools},
        }


def in_form(messages: Sequence[Json]) -> Iterator[Json]:
    """Anthropic's messages in Converse's form."""
    for message in messages:
        content = [in_block(block) for block in forms.blocks(message)]
        yield {"role": message["role"], "content": content}


def in_block(block: Json) -> Json:
    match block["type"]:
        case "thinking":
            thought = {"text": block["thinking"], "signature": block["signature"]}
            return {"reasoningContent": {"reasoningText": thought}}
        case "tool_use":
            use = {"toolUseId": block["id"], "name": block["name"], "input": block["input"]}
            return {"toolUse": use}
        case "tool_result":
            failed = block.get("is_error", False)
            result = {
                "toolUseId": block["tool_use_id"],
                "content": [{"text": forms.result_text(block) or "done"}],
                "status": "error" if failed else "success",
            }
            return {"toolResult": result}
        case _:
            return {"text": block["text"]}


# The recorded one has an exchange that alone fills a smaller window.
@pytest.mark.parametrize(
    ("tell", "window"),
    [
        pytest.param(forms.made_up, WINDOW, id="made up"),
        pytest.param(lambda: forms.recorded(4), 40_000, id="recorded"),
    ],
)
def test_a_long_conversation(
    tell: Callable[[], Story],
    window: int,
    provider: Provider,
    start_proxy: StartProxy,
    connect: Connect,
    stats: Stats,
) -> None:
    provider.models = with_windows({"*": window})
    proxy = start_proxy(f"context_windows=claude-*={window}")
    path = f"/model/{PROFILE}/converse"
    bodies = list(told(tell()))

    post = forms.poster(connect(proxy, BEDROCK), BEARER, *[f"{path}-stream"] * 3, path)
    forms.play(CONVERSE, bodies, post, provider, lambda: stats(proxy), window, least_steps=2)


def invoked() -> Iterator[Json]:
    """The demo's requests as Bedrock takes them: a version in the model's place."""
    for body in Session().requests():
        rest = {key: body[key] for key in body if key not in ("model", "stream")}
        yield {"anthropic_version": "bedrock-2023-05-31", **copy.deepcopy(rest)}


@pytest.mark.parametrize(
    ("host", "path", "stream"),
    [
        pytest.param(BEDROCK, f"/model/{MODEL}/invoke-with-response-stream", None, id="Bedrock"),
        pytest.param(VERTEX, f"{AT_VERTEX}:streamRawPredict", True, id="Vertex"),
    ],
)
def test_anthropics_bodies_under_other_paths(
    host: str,
    path: str,
    stream: bool | None,
    provider: Provider,
    start_proxy: StartProxy,
    connect: Connect,
    stats: Stats,
) -> None:
    provider.models = with_windows({"*": WINDOW})
    proxy = start_proxy(OPTION)
    post = forms.poster(connect(proxy, host), BEARER, path)
    beside = {} if stream is None else {"stream": stream}
    bodies = [{**body, **beside} for body in invoked()][:50]
    forms.play(MESSAGES, bodies, post, provider, lambda: stats(proxy), WINDOW, least_steps=2)


@pytest.mark.parametrize("path", ["converse", "invoke"])
def test_a_signed_body_goes_out_byte_for_byte_and_its_figures_are_counted(
    path: str, provider: Provider, start_proxy: StartProxy, connect: Connect, stats: Stats
) -> None:
    provider.models = with_windows({"*": 1_000_000})
    proxy = start_proxy(OPTION)
    connection = connect(proxy, BEDROCK)
    made = told(forms.made_up()) if path == "converse" else invoked()
    bodies = [encode(body) for body in list(made)[30:44]]

    for body in bodies:
        headers = (("authorization", signed(body)), ("content-type", "application/json"))
        assert connection.post(f"/model/{MODEL}/{path}", headers, body).status == 200

    assert [record.wire.body for record in provider.records] == bodies
    assert provider.refused == []
    found = stats(proxy)
    assert found["requests"]["observed"] > 0
    assert found["tokens"]["sent"] == found["tokens"]["forwarded"] > 14 * 0.5 * WINDOW


def test_a_signed_body_that_was_changed_would_be_refused(
    provider: Provider, share_proxy: StartProxy, connect: Connect
) -> None:
    body = encode({"messages": [{"role": "user", "content": [{"text": "hi"}]}]})
    headers = (("authorization", signed(body + b" ")), ("content-type", "application/json"))
    answer = connect(share_proxy(), BEDROCK).post(f"/model/{MODEL}/converse", headers, body)
    assert answer.status == 403
    assert b"signature we calculated does not match" in answer.body


@pytest.mark.parametrize(
    "body",
    [
        {"inputText": "hi", "textGenerationConfig": {}},
        {
            "schemaVersion": "messages-v1",
            "messages": [{"role": "user", "content": [{"text": "x"}]}],
        },
    ],
    ids=["titan", "nova"],
)
def test_other_vendors_bodies_pass(
    body: Json, provider: Provider, start_proxy: StartProxy, connect: Connect, stats: Stats
) -> None:
    proxy = start_proxy()
    connect(proxy, BEDROCK).post("/model/amazon.nova-lite-v1%3A0/invoke", BEARER, encode(body))
    assert provider.records[-1].wire.body == encode(body)
    assert stats(proxy)["requests"]["left_alone"] == 1


def test_streams_keep_their_bytes(
    provider: Provider, share_proxy: StartProxy, connect: Connect
) -> None:
    calls = (Call("look", {"at": "it"}),)
    provider.default = Reply("word by word", calls, thinking="let me see", pieces=4)
    connection = connect(share_proxy(), BEDROCK)
    said: Json = {"role": "user", "content": [{"text": "hi"}]}
    plain: Json = {"role": "user", "content": "hi"}
    version = {"anthropic_version": "bedrock-2023-05-31", "max_tokens": 64}
    for path, body in (
        ("converse-stream", {"messages": [said]}),
        ("invoke-with-response-stream", {**version, "messages": [plain]}),
    ):
        for split in (0, 1, 7):
            provider.behaviour = Behaviour(split=split, gap=0.01)
            answer = connection.post(f"/model/{MODEL}/{path}", BEARER, encode(body))
            assert answer.status == 200
            assert answer.header("content-type") == EVENT_STREAM
            assert answer.body == provider.records[-1].answer
            assert len(answer.arrived) > 4
