"""Bedrock's Converse: what each shape is read as; Messages under Bedrock's and Vertex's paths."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.drawn import values_with
from tests.wire.bodies import dumped
from tests.wire.reading import read_as, stub_changes_its_part

from loopback import rules_bedrock
from loopback.counting import model_named
from mitmcontext.condense.entries import WHOLE, FrozenEdit
from mitmcontext.condense.invariants import broken
from mitmcontext.rewrite import rewritten, sources
from mitmcontext.values import Kind, Standing, TooLong, Unreadable, Usage
from mitmcontext.wire import api_for
from mitmcontext.wire.anthropic import MESSAGES
from mitmcontext.wire.api import Api, system_texts, tool_count
from mitmcontext.wire.bedrock import CONVERSE

POINT: dict[str, Any] = {"cachePoint": {"type": "default"}}


def message(role: str, *blocks: Any, **others: Any) -> bytes:
    return dumped({"role": role, "content": list(blocks), **others})


def use(id_: str = "a", **given_: Any) -> dict[str, Any]:
    return {"toolUse": {"toolUseId": id_, "name": "run", "input": given_}}


def result(*content: Any, id_: str = "a", **others: Any) -> dict[str, Any]:
    return {"toolResult": {"toolUseId": id_, "content": list(content), **others}}


def thought(text: str, signature: str = "c2ln") -> dict[str, Any]:
    return {"reasoningContent": {"reasoningText": {"text": text, "signature": signature}}}


IMAGE = {"image": {"format": "png", "source": {"bytes": "iVBO" * 900}}}
DOCUMENT = {"document": {"format": "txt", "name": "a", "source": {"bytes": "aGk=" * 900}}}

# Each message with what its parts are: kind, text, and whether a shorter text may take its place.
SHAPES: list[Any] = [
    pytest.param(message("user", {"text": "Fix it"}), [(Kind.TYPED, "Fix it", True)], id="a text"),
    pytest.param(
        message("user", {"text": "Fix"}, POINT, {"text": "it"}, POINT),
        [(Kind.TYPED, "Fix", True), (Kind.TYPED, "it", True)],
        id="cache points are no parts",
    ),
    pytest.param(
        message("user", {"text": "Observation: x"}),
        [(Kind.RESULT, "Observation: x", True)],
        id="told",
    ),
    pytest.param(
        message("user", {"text": "What?"}, IMAGE),
        [(Kind.TYPED, "What?", True), (Kind.IMAGE, "", True)],
        id="an image",
    ),
    pytest.param(
        message("assistant", thought("Hm."), {"text": "Sure."}, use(a=1)),
        [
            (Kind.THINKING, "Hm.", False),
            (Kind.PROSE, "Sure.", True),
            (Kind.CALL, 'run {"a": 1}', False),
        ],
        id="thinks, says, calls",
    ),
    pytest.param(
        message("assistant", {"reasoningContent": {"redactedContent": "c2VhbGVk"}}),
        [(Kind.THINKING, "", False)],
        id="sealed thoughts",
    ),
    pytest.param(
        message("user", result({"text": "one"}, {"text": "two"}, status="success")),
        [(Kind.RESULT, "one\ntwo", True)],
        id="a result",
    ),
    pytest.param(
        message("user", result({"json": {"rows": [1]}})),
        [(Kind.RESULT, '{"rows": [1]}', True)],
        id="a result in JSON",
    ),
    pytest.param(
        message("user", result({"text": "see"}, IMAGE)),
        [(Kind.RESULT, "see", True)],
        id="a result with an image",
    ),
    pytest.param(message("user", result()), [(Kind.RESULT, "", False)], id="an empty result"),
    pytest.param(
        message("user", {"guardContent": {"text": {"text": "x"}}}),
        [(Kind.OPAQUE, '{"guardContent": {"text": {"text": "x"}}}', False)],
        id="guarded",
    ),
    pytest.param(
        message("assistant", {"citationsContent": {"content": [{"text": "x"}]}}),
        [(Kind.OPAQUE, '{"citationsContent": {"content": [{"text": "x"}]}}', False)],
        id="cited",
    ),
    pytest.param(
        message("user", {"hologram": {"depth": 3}}),
        [(Kind.OPAQUE, '{"hologram": {"depth": 3}}', False)],
        id="unknown",
    ),
    pytest.param(
        message("user", {"text": "x", "more": 1}),
        [(Kind.OPAQUE, '{"text": "x", "more": 1}', False)],
        id="two keys",
    ),
    pytest.param(message("user"), [], id="no blocks"),
]


@pytest.mark.parametrize(("raw", "parts"), SHAPES)
def test_messages_are_read_as_what_they_are(
    raw: bytes, parts: list[tuple[Kind, str, bool]]
) -> None:
    read_as(CONVERSE, raw, parts)


@pytest.mark.parametrize(("raw", "parts"), SHAPES)
def test_a_stub_changes_the_value_and_nothing_else(raw: bytes, parts: object) -> None:
    stub_changes_its_part(CONVERSE, raw)


def test_documents_count_without_their_data() -> None:
    (part,) = CONVERSE.parse(message("user", DOCUMENT)).parts
    assert (part.kind, part.value) == (Kind.DOCUMENT, part.span)
    assert len(part.text) < 100


def test_cache_points_are_counted_and_make_no_difference() -> None:
    plain = CONVERSE.parse(message("user", {"text": "a"}, result({"text": "b"})))
    marked = CONVERSE.parse(
        message("user", POINT, {"text": "a"}, POINT, result({"text": "b"}), POINT)
    )
    assert (plain.markers, marked.markers) == (0, 3)
    assert plain.digest == marked.digest
    assert [p.digest for p in plain.parts] == [p.digest for p in marked.parts]


def test_calls_and_results_are_tied() -> None:
    asked = CONVERSE.parse(message("assistant", use("x"), use("y")))
    assert [(p.call_id, p.name) for p in asked.parts] == [("x", "run"), ("y", "run")]
    answered = CONVERSE.parse(message("user", result(IMAGE, id_="y"), result(id_="x")))
    assert [(p.call_id, p.images) for p in answered.parts] == [("y", 1), ("x", 0)]


def test_unknown_keys_are_kept_whole() -> None:
    odd = CONVERSE.parse(message("user", {"text": "x"}, mood="good"))
    assert not odd.editable
    assert odd.digest != CONVERSE.parse(message("user", {"text": "x"})).digest


@pytest.mark.parametrize(
    "raw",
    [
        rb'{"role":"user","content":[{"text":"\ud800"}]}',
        rb'{"role":"user","content":[{"toolResult":{"toolUseId":"a","content":[{"text":"\ud800"}]}}]}',
        rb'{"role":"assistant","content":[{"toolUse":{"toolUseId":"a","name":"f","input":{"a":"\udc00"}}}]}',
    ],
)
def test_lone_surrogates_are_not_edited_and_hinder_nothing(raw: bytes) -> None:
    assert not CONVERSE.parse(raw).editable


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(b"[]", id="an array"),
        pytest.param(b"{}", id="an empty object"),
        pytest.param(b'{"content":[]}', id="no role"),
        pytest.param(b'{"role":"user"}', id="no content"),
        pytest.param(b'{"role":"system","content":[]}', id="system"),
        pytest.param(b'{"role":1,"content":[]}', id="a role of 1"),
        pytest.param(b'{"role":"user","content":"x"}', id="content a string"),
        pytest.param(b'{"role":"user","content":["x"]}', id="a block that is a string"),
        pytest.param(b'{"role":"user","content":[{"text":1}]}', id="a text of 1"),
        pytest.param(b'{"role":"user","content":[{"toolUse":"x"}]}', id="a bare call"),
        pytest.param(b'{"role":"assistant","content":[{"toolUse":{"name":"f"}}]}', id="no id"),
        pytest.param(
            b'{"role":"assistant","content":[{"toolUse":{"toolUseId":1,"name":"f","input":{}}}]}',
            id="an id of 1",
        ),
        pytest.param(
            b'{"role":"user","content":[{"toolResult":{"content":[]}}]}', id="no id at all"
        ),
        pytest.param(
            b'{"role":"user","content":[{"toolResult":{"toolUseId":"a","content":"x"}}]}',
            id="a result as text",
        ),
        pytest.param(
            b'{"role":"user","content":[{"toolResult":{"toolUseId":"a","content":[{"text":1}]}}]}',
            id="a result of 1",
        ),
        pytest.param(b'{"role":"assistant","content":[{"reasoningContent":"x"}]}', id="thoughts"),
        pytest.param(b'{"role":"user","content":[{"text":"x","text":"y"}]}', id="two texts"),
        pytest.param(b'{"role":"user","role":"user","content":[]}', id="two roles"),
        pytest.param(
            b'{"role":"user","content":' + b"[" * 100_000 + b"]" * 100_000 + b"}", id="deep"
        ),
    ],
)
def test_what_is_no_message_is_unreadable(raw: bytes) -> None:
    with pytest.raises(Unreadable):
        CONVERSE.parse(raw)


json_values = values_with(
    ["text", "toolUse", "toolResult", "toolUseId", "content", "name", "input", "json"],
    more=lambda inner: st.builds(lambda held: result(*held), st.lists(inner, max_size=3)),
)


@given(
    st.sampled_from(["user", "assistant"]), st.lists(json_values, max_size=4), st.text(min_size=1)
)
def test_whatever_stands_in_a_message_is_refused_or_as_good_when_it_is_shortened(
    role: str, blocks: list[Any], said: str
) -> None:
    raw = message(role, *blocks)
    try:
        found = CONVERSE.parse(raw)
    except Unreadable:
        return
    for part in found.parts:
        if part.value is None:
            continue
        start, end = part.value
        made = raw[:start] + CONVERSE.replacement(raw[start:end], f"x{said}") + raw[end:]
        again = CONVERSE.parse(made)
        assert [p.call_id for p in again.parts] == [p.call_id for p in found.parts]
        assert accepts(made) or not accepts(raw)


def accepts(raw: bytes) -> bool:
    """Whether the strict provider takes a conversation with this message in its place."""
    read = json.loads(raw)
    ids = [held["toolUseId"] for block in read["content"] if (held := block.get("toolResult"))]
    asked = {"role": "assistant", "content": [use(id_) for id_ in ids] or [{"text": "x"}]}
    opening = {"role": "user", "content": [{"text": "x"}]}
    messages = [opening, asked, read] if read["role"] == "user" else [opening, read]
    body = {"messages": messages, "toolConfig": {"tools": [{"toolSpec": {}}]}}
    return rules_bedrock.check(body, rules_bedrock.Memory(), None, model_named("x")) is None


@pytest.mark.parametrize(
    ("one", "other"),
    [
        pytest.param(
            message("user", {"text": "x"}), message("assistant", {"text": "x"}), id="roles"
        ),
        pytest.param(message("user", {"text": "x"}), message("user", {"text": "y"}), id="texts"),
        pytest.param(
            message("user", result({"text": "x"})),
            message("user", result({"text": "x"}, status="error")),
            id="status",
        ),
        pytest.param(message("assistant", use(a=1)), message("assistant", use(a=2)), id="inputs"),
        pytest.param(
            message("assistant", thought("a")), message("assistant", thought("a", "x")), id="signed"
        ),
    ],
)
def test_other_content_has_other_digests(one: bytes, other: bytes) -> None:
    assert CONVERSE.parse(one).digest != CONVERSE.parse(other).digest


# Turns: two of one role in a row are refused, so a note is parted from a user's message.


@pytest.mark.parametrize(
    ("first", "last"),
    [
        pytest.param(1, 2, id="behind a user, before the model"),
        pytest.param(1, 3, id="behind a user, before one"),
        pytest.param(2, 2, id="behind the model, before it"),
        pytest.param(2, 3, id="behind the model, before a user"),
    ],
)
def test_a_note_never_stands_beside_a_users_message(first: int, last: int) -> None:
    roles = ["user", "assistant"] * 4
    said = [json.loads(message(role, {"text": f"{at}"})) for at, role in enumerate(roles)]
    request = CONVERSE.read(dumped({"messages": said}))
    digests = [CONVERSE.parse(request.raw(at)).digest for at in range(8)]
    edits = [
        FrozenEdit(at, WHOLE, digests[at], "note" if at == first else None)
        for at in range(first, last + 1)
    ]
    made = json.loads(rewritten(CONVERSE, request, edits))["messages"]
    found = [one["role"] for one in made]
    assert all(a != b for a, b in pairwise(found))
    assert {"role": "user", "content": [{"text": "note"}]} in made
    kept = [one for one in made if one in said]
    assert kept == said[:first] + said[last + 1 :]
    assert [one not in said for one in made] == [
        at is None for at in sources(CONVERSE, request, edits)
    ]


def test_two_of_one_role_in_a_row_break_what_was_in_turn() -> None:
    before = [
        CONVERSE.parse(message(role, {"text": role})) for role in ("user", "assistant", "user")
    ]
    after = [before[0], before[2]]
    assert broken(before, after, in_turn=True) == "turns no longer alternate"
    twice = [before[0], before[0], *before[1:]]
    assert broken(twice, twice, in_turn=True) == ""


# Requests.


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
