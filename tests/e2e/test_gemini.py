"""Gemini through the whole proxy: streams in both forms, Code Assist's envelope, keys in URLs."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Iterator, Sequence

import pytest
from tests.e2e import forms
from tests.e2e.fixture_types import Connect, Json, StartProxy, Stats
from tests.e2e.forms import STORIES, Story
from tests.e2e.streaming import REPLY, in_time

from demo.session import TOOLS, encode
from loopback.answers import Reply
from loopback.counting import Model
from loopback.provider import Behaviour, Provider, with_windows
from mitmcontext.wire.gemini import GENERATE

WINDOW = 24_000
OPTION = f"context_windows=gemini-*={WINDOW}"
STUDIO, ASSIST = "generativelanguage.googleapis.com", "cloudcode-pa.googleapis.com"
VERTEX = "us-central1-aiplatform.googleapis.com"
MODEL = "gemini-3.8-flash"
PLAIN = f"/v1beta/models/{MODEL}:generateContent"
ARRAY = f"/v1beta/models/{MODEL}:streamGenerateContent"
EVENTS = f"{ARRAY}?alt=sse"
COUNT = f"/v1beta/models/{MODEL}:countTokens"
OF_PROJECT = f"/v1/projects/p/locations/us-central1/publishers/google/models/{MODEL}"
GAP = 0.15
HEADERS = (("x-goog-api-key", "k"), ("content-type", "application/json"))


def told(story: Story) -> Iterator[Json]:
    """The requests of a story as gemini-cli sends them."""
    declared = [
        {
            "name": tool["name"],
            "description": tool["description"],
            "parametersJsonSchema": tool["input_schema"],
        }
        for tool in TOOLS
    ]
    for messages in story.turns():
        yield {
            "contents": list(in_form(messages)),
            "systemInstruction": {"parts": [{"text": story.system or "Be brief."}], "role": "user"},
            "tools": [{"functionDeclarations": declared}],
            "generationConfig": {"temperature": 1, "thinkingConfig": {"includeThoughts": True}},
        }


def in_form(messages: Sequence[Json]) -> Iterator[Json]:
    """Anthropic's messages as contents: each step's first call is signed, as Gemini 3 wants it."""
    names: dict[str, str] = {}
    for message in messages:
        calls = forms.of_kind(message, "tool_use")
        names |= {call["id"]: call["name"] for call in calls}
        parts: list[Json] = [
            {
                "functionResponse": {
                    "name": names.get(block["tool_use_id"], "run"),
                    "response": {
                        "error" if block.get("is_error") else "output": forms.result_text(block)
                    },
                    "id": block["tool_use_id"],
                }
            }
            for block in forms.of_kind(message, "tool_result")
        ]
        parts += [
            {"text": block["thinking"], "thought": True}
            for block in forms.of_kind(message, "thinking")
            if block["thinking"]
        ]
        parts += [
            {"text": text} for block in forms.of_kind(message, "text") if (text := block["text"])
        ]
        for number, call in enumerate(calls):
            called = {"name": call["name"], "args": call["input"], "id": call["id"]}
            signed = {} if number else {"thoughtSignature": signature(call["id"])}
            parts.append({"functionCall": called, **signed})
        if parts:
            yield {"role": "model" if message["role"] == "assistant" else "user", "parts": parts}


def signature(id_: str) -> str:
    """What looks like a provider's signature; the loopback provider learns it at first sight."""
    return base64.b64encode(hashlib.sha512(id_.encode()).digest()).decode()


@pytest.fixture(autouse=True)
def windows(provider: Provider) -> None:
    """All models have the small window."""
    provider.models = with_windows({"*": WINDOW})


@pytest.mark.parametrize("tell", STORIES)
def test_a_long_conversation_in_every_form_of_an_answer(
    tell: Callable[[], Story],
    provider: Provider,
    start_proxy: StartProxy,
    connect: Connect,
    stats: Stats,
) -> None:
    # The largest exchange of the recorded one takes 22,000 tokens.
    room = 32_000
    provider.models = with_windows({"*": room})
    proxy = start_proxy(f"context_windows=gemini-*={room}")
    bodies = list(told(tell()))

    post = forms.poster(connect(proxy, STUDIO), HEADERS, EVENTS, ARRAY, PLAIN)
    forms.play(GENERATE, bodies, post, provider, lambda: stats(proxy), room, least_steps=2)

    forms.raw_prefixes_hold(GENERATE, provider, stats(proxy)["steps"])


def test_a_login_whose_tokens_rotate_keeps_its_conversation(
    provider: Provider, start_proxy: StartProxy, connect: Connect, stats: Stats
) -> None:
    proxy = start_proxy(OPTION)
    connection = connect(proxy, ASSIST)
    for number, request in enumerate(list(told(forms.made_up()))[:45]):
        body = {"model": MODEL, "project": "my-project", "user_prompt_id": "u", "request": request}
        token = (("authorization", f"Bearer ya29.token-{number // 7}"), *HEADERS[1:])
        answer = connection.post("/v1internal:streamGenerateContent?alt=sse", token, encode(body))
        assert (answer.status, answer.body) == (200, provider.records[-1].answer)

    found = stats(proxy)
    assert provider.refused == []
    assert max(record.tokens for record in provider.records) <= WINDOW
    assert found["steps"] >= 2
    assert found["requests"]["failed_open"] == 0
    assert found["prefix_breaks_unexplained"] == 0
    forms.raw_prefixes_hold(GENERATE, provider, found["steps"])


def test_vertex_is_the_same_under_another_path(
    provider: Provider, start_proxy: StartProxy, connect: Connect, stats: Stats
) -> None:
    proxy = start_proxy(OPTION)
    connection = connect(proxy, VERTEX)
    bodies = [encode(body) for body in list(told(forms.made_up()))[:30]]
    for body in bodies:
        assert connection.post(f"{OF_PROJECT}:generateContent", HEADERS, body).status == 200
    assert stats(proxy)["steps"] >= 1
    assert provider.refused == []


def test_two_keys_in_urls_share_nothing(
    provider: Provider, start_proxy: StartProxy, connect: Connect
) -> None:
    provider.models = with_windows({"*": 1_000_000})
    connection = connect(start_proxy(OPTION), STUDIO)
    bodies = [encode(body) for body in list(told(forms.made_up()))[:40]]
    large, small = bodies[-1], bodies[5]
    content = HEADERS[1:]

    connection.post(f"{PLAIN}?key=one", content, large)
    assert len(provider.records[-1].wire.body) < len(large)
    frozen = GENERATE.read(provider.records[-1].wire.body)

    connection.post(f"{PLAIN}?key=two", content, small)
    assert provider.records[-1].wire.body == small
    # The same key finds what was frozen, wherever in the query it stands.
    connection.post(f"{EVENTS}&key=one", content, bodies[-1])
    again = GENERATE.read(provider.records[-1].wire.body)
    assert again.body == frozen.body


QUESTION: Json = {"contents": [{"role": "user", "parts": [{"text": "hi"}]}]}


LEFT_ALONE = {**QUESTION, "cachedContent": "cachedContents/1"}
NOT_READ = {"contents": {"parts": {"text": "hi"}}}


@pytest.mark.parametrize(
    ("path", "body", "kind", "coding"),
    [
        pytest.param(EVENTS, QUESTION, "text/event-stream", "", id="events"),
        pytest.param(ARRAY, QUESTION, "application/json", "", id="an array"),
        pytest.param(ARRAY, QUESTION, "application/json", "gzip", id="an array in gzip"),
        pytest.param(ARRAY, LEFT_ALONE, "application/json", "", id="for one that is left alone"),
        pytest.param(ARRAY, NOT_READ, "application/json", "", id="for one that is not read"),
    ],
)
def test_streams_keep_their_bytes_and_pauses(
    path: str,
    body: Json,
    kind: str,
    coding: str,
    provider: Provider,
    share_proxy: StartProxy,
    connect: Connect,
) -> None:
    provider.default = REPLY
    provider.behaviour = Behaviour(encoding=coding, gap=GAP)
    connection = connect(share_proxy(), STUDIO)
    sent = encode(body)
    for record, response in in_time(provider, GAP, lambda: connection.post(path, HEADERS, sent)):
        assert response.status == 200
        assert (response.header("content-encoding"), record.wire.body) == (coding, sent)
        assert response.header("content-type").startswith(kind)
        assert response.body == record.answer


def test_what_is_no_turn_and_what_is_left_alone(
    provider: Provider, start_proxy: StartProxy, connect: Connect, stats: Stats
) -> None:
    proxy = start_proxy(OPTION)
    connection = connect(proxy, STUDIO)
    body = list(told(forms.made_up()))[40]
    router = {"parts": [{"text": "You are a specialized Task Routing AI."}], "role": "user"}
    router_body = encode({"contents": body["contents"][:1], "systemInstruction": router})

    connection.post(COUNT, HEADERS, encode({"contents": body["contents"]}))
    before = json.loads(provider.records[-1].answer)["totalTokens"]
    connection.post(EVENTS, HEADERS, encode(body))
    connection.post(COUNT, HEADERS, encode({"contents": body["contents"]}))
    after = json.loads(provider.records[-1].answer)["totalTokens"]
    cached = {**body, "cachedContent": "cachedContents/1"}
    del cached["systemInstruction"], cached["tools"]
    for alone in (router_body, encode(cached)):
        connection.post(PLAIN, HEADERS, alone)
        assert provider.records[-1].wire.body == alone

    assert before > WINDOW > after
    found = stats(proxy)
    assert (found["steps"], found["requests"]["left_alone"]) == (1, 2)


def test_a_refused_shape_goes_out_once_more_without_the_step(
    provider: Provider, start_proxy: StartProxy, connect: Connect, stats: Stats
) -> None:
    provider.models = with_windows({"*": 1_000_000})
    proxy = start_proxy(OPTION)
    connection = connect(proxy, STUDIO, port=provider.tls_port)
    body = encode(list(told(forms.made_up()))[30])
    said = "Please ensure that the number of function response parts is equal to the number"
    error = {"error": {"code": 400, "message": said, "status": "INVALID_ARGUMENT"}}

    provider.replies.append(Reply(status=400, error=error))
    answer = connection.post(ARRAY, HEADERS, body)

    assert answer.status == 200
    assert json.loads(answer.body)[-1]["usageMetadata"]["promptTokenCount"] > WINDOW
    rewritten, original = [record.wire.body for record in provider.records][-2:]
    assert len(rewritten) < len(body) == len(original)
    assert stats(proxy)["requests"]["refused_after_rewrite"] == 1


@pytest.mark.parametrize("path", [EVENTS, ARRAY])
def test_what_a_stream_reports_corrects_later_estimates(
    path: str, provider: Provider, start_proxy: StartProxy, connect: Connect, stats: Stats
) -> None:
    """Of a provider that counts twice what we estimate; without its reports we would be at half."""
    provider.models = (Model("*", 2.1, 1_000_000),)
    proxy = start_proxy("context_windows=gemini-*=1000000")
    connection = connect(proxy, STUDIO)
    bodies = [encode(body) for body in list(told(forms.made_up()))[:12]]
    for body in bodies:
        connection.post(path, HEADERS, body)
    reported = sum(record.tokens for record in provider.records)
    assert stats(proxy)["tokens"]["sent"] > 0.75 * reported
