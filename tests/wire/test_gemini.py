"""Google Gemini: what each shape of request and content is read as."""

from __future__ import annotations

import base64
import copy
import json
import random
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.conversations import Style, Way, count, laws, seeds, styles, window, words

from loopback import rules_gemini
from mitmcontext import pipeline
from mitmcontext.condense.units import units, unpaired
from mitmcontext.known import Known
from mitmcontext.stores.memory import MemoryStore, lru
from mitmcontext.tokens.families import family_of
from mitmcontext.values import Kind, Span, Standing, TooLong, Unreadable, Usage
from mitmcontext.wire import api_for
from mitmcontext.wire.api import message_of, system_texts, tool_count
from mitmcontext.wire.gemini import GENERATE

Json = dict[str, Any]

PATH = "/v1beta/models/gemini-3.8-flash:generateContent"
SIGNATURE = base64.b64encode(b"a signature of the provider's").decode()


def dumped(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()


def content(role: str, *parts: Any, **others: Any) -> bytes:
    return dumped({"role": role, "parts": list(parts), **others})


def text(said: str, **others: Any) -> Json:
    return {"text": said, **others}


def call(name: str = "run", **others: Any) -> Json:
    return {"functionCall": {"name": name, "args": {"a": 1}, **others}}


def response(said: Any, name: Any = "run", **others: Any) -> Json:
    return {"functionResponse": {"name": name, "response": said, **others}}


def signed(part: Json, signature: str = SIGNATURE) -> Json:
    return {**part, "thoughtSignature": signature}


PNG = {"inlineData": {"mimeType": "image/png", "data": "iVBO" * 900}}
WAV = {"inlineData": {"mimeType": "audio/wav", "data": "AAAA" * 900}}
PDF = {"inlineData": {"mimeType": "application/pdf", "data": "AA__" * 900}}
CSV = {"inlineData": {"mimeType": "text/csv", "data": base64.b64encode(b"a,b\n1,2").decode()}}
STORED = {"fileData": {"mimeType": "application/pdf", "fileUri": "https://x/files/1"}}
CODE = {"executableCode": {"language": "PYTHON", "code": "print(1)"}}
RAN = {"codeExecutionResult": {"outcome": "OUTCOME_OK", "output": "1"}}

# Each content with what its parts are: kind, text, and whether a shorter text may take its place.
SHAPES: list[Any] = [
    pytest.param(content("user", text("Fix it")), [(Kind.TYPED, "Fix it", True)], id="a text"),
    pytest.param(
        content("user", text("Fix"), text("it")),
        [(Kind.TYPED, "Fix", True), (Kind.TYPED, "it", True)],
        id="texts",
    ),
    pytest.param(
        dumped({"parts": [{"text": "Fix it"}]}), [(Kind.TYPED, "Fix it", True)], id="no role"
    ),
    pytest.param(
        dumped({"role": None, "parts": [{"text": "Fix it"}]}),
        [(Kind.TYPED, "Fix it", True)],
        id="a role that is null",
    ),
    pytest.param(
        dumped({"role": "user", "parts": {"text": "Fix it"}}),
        [(Kind.TYPED, "Fix it", True)],
        id="a single part",
    ),
    pytest.param(
        content("user", text("<environment_details>x"), text("Observation: done")),
        [
            (Kind.ENVIRONMENT, "<environment_details>x", True),
            (Kind.RESULT, "Observation: done", True),
        ],
        id="a result as text, and an environment block",
    ),
    pytest.param(content("model", text("Sure.")), [(Kind.PROSE, "Sure.", True)], id="an answer"),
    pytest.param(
        content("model", text("Hm.", thought=True), text("Sure.", thought=False)),
        [(Kind.THINKING, "Hm.", False), (Kind.PROSE, "Sure.", True)],
        id="a thought",
    ),
    pytest.param(
        content("model", signed(text("Hm.", thought=True))),
        [(Kind.THINKING, "Hm.", False)],
        id="a signed thought",
    ),
    pytest.param(
        content("model", signed(text("Sure."))),
        [(Kind.PROSE, "Sure.", False), (Kind.THINKING, "", False)],
        id="a signed text",
    ),
    pytest.param(
        content("model", signed(text("")), {"thoughtSignature": SIGNATURE}),
        [(Kind.THINKING, "", False), (Kind.THINKING, "", False)],
        id="nothing but signatures",
    ),
    pytest.param(
        content("model", signed(call()), call("look")),
        [
            (Kind.CALL, 'run {"a": 1}', False),
            (Kind.THINKING, "", False),
            (Kind.CALL, 'look {"a": 1}', False),
        ],
        id="parallel calls, the first one signed",
    ),
    pytest.param(
        dumped({"role": "model", "parts": [{"function_call": {"name": "run"}}]}),
        [(Kind.CALL, "run ", False)],
        id="a call without arguments, in snake case",
    ),
    pytest.param(
        dumped({"role": "model", "parts": [{"function_call": {}, "thought_signature": "aa"}]}),
        [(Kind.CALL, " ", False), (Kind.THINKING, "", False)],
        id="a call without anything",
    ),
    pytest.param(
        content("user", response({"output": "one\ntwo"})),
        [(Kind.RESULT, "one\ntwo", True)],
        id="a result",
    ),
    pytest.param(
        content("function", response({"result": "done"}, id="c1")),
        [(Kind.RESULT, "done", True)],
        id="a result in the older role",
    ),
    pytest.param(
        content("user", response({"error": "no such file"})),
        [(Kind.RESULT, "error: no such file", True)],
        id="an error",
    ),
    pytest.param(
        content("user", response({"output": "x", "code": 0, "more": {"a": [1]}})),
        [(Kind.RESULT, 'output: x\ncode: 0\nmore: {"a": [1]}', True)],
        id="a result of several things",
    ),
    pytest.param(
        content("user", response({"output": 5})), [(Kind.RESULT, "5", True)], id="a number"
    ),
    pytest.param(
        content("user", response(None)), [(Kind.RESULT, "", False)], id="a result that is null"
    ),
    pytest.param(
        content("user", response({"output": "see"}, parts=[PNG])),
        [(Kind.RESULT, "see", False)],
        id="a result with an image",
    ),
    pytest.param(
        content("user", response({"output": "x"}, willContinue=True)),
        [(Kind.RESULT, "x", False)],
        id="a result that goes on",
    ),
    pytest.param(
        content("user", PNG, text("What is it?")),
        [(Kind.IMAGE, "", True), (Kind.TYPED, "What is it?", True)],
        id="an image",
    ),
    pytest.param(
        dumped({"parts": [{"inline_data": {"mime_type": "image/png", "data": "iVBO"}}]}),
        [(Kind.IMAGE, "", True)],
        id="an image in snake case",
    ),
    pytest.param(
        content("user", PDF, CSV, STORED),
        [
            (Kind.DOCUMENT, "application/pdf", True),
            (Kind.DOCUMENT, "a,b\n1,2", True),
            (
                Kind.DOCUMENT,
                '{"mimeType": "application/pdf", "fileUri": "https://x/files/1"}',
                True,
            ),
        ],
        id="documents",
    ),
    pytest.param(
        content("user", {**WAV, "videoMetadata": {"fps": 2}}, {"fileData": {"fileUri": "x"}}),
        [(Kind.OPAQUE, "audio/wav", False), (Kind.OPAQUE, '{"fileUri": "x"}', False)],
        id="sound, and something stored",
    ),
    pytest.param(
        content("model", CODE, RAN),
        [(Kind.OPAQUE, dumped(CODE).decode(), False), (Kind.OPAQUE, dumped(RAN).decode(), False)],
        id="the server's own code",
    ),
    pytest.param(
        content("model", {"dream": 1}), [(Kind.OPAQUE, '{"dream": 1}', False)], id="unknown"
    ),
    pytest.param(
        content("user", {"text": "x", "tone": "low"}),
        [(Kind.OPAQUE, '{"text": "x", "tone": "low"}', False)],
        id="a text with something unknown",
    ),
    pytest.param(content("user", {}), [(Kind.OPAQUE, "{}", False)], id="an empty part"),
    pytest.param(content("user"), [], id="no part"),
    pytest.param(dumped({"role": "user", "parts": None}), [], id="parts that are null"),
    pytest.param(dumped({"role": "user"}), [], id="no parts"),
]


@pytest.mark.parametrize(("raw", "parts"), SHAPES)
def test_contents_are_read_as_what_they_are(
    raw: bytes, parts: list[tuple[Kind, str, bool]]
) -> None:
    found = GENERATE.parse(raw)
    assert [(p.kind, p.text, p.value is not None) for p in found.parts] == parts
    assert found.editable
    for part in found.parts:
        json.loads(raw[slice(*part.span)])
        if part.value:
            assert part.span.start <= part.value.start < part.value.end <= part.span.end


@pytest.mark.parametrize(("raw", "parts"), SHAPES)
def test_a_stub_changes_the_value_and_nothing_else(raw: bytes, parts: object) -> None:
    before = GENERATE.parse(raw)
    for index, part in enumerate(before.parts):
        if part.value is None:
            continue
        start, end = part.value
        new = GENERATE.in_place_of(part, raw[start:end], 'short "text"\n')
        after = GENERATE.parse(raw[:start] + new + raw[end:])
        assert after.parts[index].text == 'short "text"\n'
        pairs = zip(before.parts, after.parts, strict=True)
        assert [a.digest == b.digest for a, b in pairs] == [
            at != index for at in range(len(before.parts))
        ]


def test_a_response_stays_an_object() -> None:
    assert GENERATE.replacement(b'{"a":1}', 'a "b"') == rb'{"output":"a \"b\""}'
    assert GENERATE.replacement(b'"a"', "b") == b'"b"'


@pytest.mark.parametrize(
    ("raw", "role"),
    [
        (content("user", text("x")), "user"),
        (content("model", text("x")), "assistant"),
        (content("function", response({})), "function"),
        (dumped({"parts": [text("x")]}), "user"),
        (content("model", response({})), "function"),
        (content("model", call(), response({})), "assistant"),
    ],
)
def test_roles_have_the_names_that_all_apis_share(raw: bytes, role: str) -> None:
    assert GENERATE.parse(raw).role == role


CALLED = content("model", call("a"), call("b", id="c1"))


@pytest.mark.parametrize(
    ("answers", "paired"),
    [
        ([content("user", response({}, "a"), response({}, "b"))], True),
        ([content("user", response({}, "a"), response({}, "b", id="c1"))], True),
        ([content("user", response({}, "a")), content("user", response({}, "b"))], True),
        ([content("model", response({}, "a"), response({}, "b"))], True),
        ([content("user", response({}, "a"))], False),
        ([content("user", text("no"))], False),
        ([], False),
    ],
)
def test_calls_and_results_are_tied_by_their_number(answers: list[bytes], paired: bool) -> None:
    history = [content("user", text("x")), CALLED, *answers, content("user", text("y"))]
    messages = [GENERATE.parse(raw) for raw in history]
    assert (not unpaired(messages)) == paired
    if paired:
        assert Span(1, 2 + len(answers)) in units(messages)


def test_results_without_calls_are_noticed() -> None:
    assert unpaired([GENERATE.parse(content("user", response({})))])


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(rb'{"role":"user","parts":[{"text":"\ud800"}]}', id="in a text"),
        pytest.param(
            rb'{"role":"model","parts":[{"functionCall":{"name":"f","args":{"a":"\udc00"}}}]}',
            id="in a call",
        ),
        pytest.param(
            rb'{"parts":[{"functionResponse":{"name":"f","response":{"output":"\ud800"}}}]}',
            id="in a result",
        ),
    ],
)
def test_lone_surrogates_are_not_edited_and_hinder_nothing(raw: bytes) -> None:
    assert not GENERATE.parse(raw).editable


def test_what_is_unknown_beside_the_parts_is_kept_whole() -> None:
    assert not GENERATE.parse(content("user", text("x"), mood="calm")).editable


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(b"[]", id="an array"),
        pytest.param(b'"x"', id="a string"),
        pytest.param(content("critic", text("x")), id="an unknown role"),
        pytest.param(b'{"role":7,"parts":[]}', id="a role that is a number"),
        pytest.param(b'{"role":"user","parts":"x"}', id="parts that are a text"),
        pytest.param(b'{"role":"user","parts":["x"]}', id="a part that is a text"),
        pytest.param(content("user", {"text": 1}), id="a text of numbers"),
        pytest.param(content("model", {"text": "x", "thought": "yes"}), id="thought is a text"),
        pytest.param(
            content("model", {"text": "x", "thoughtSignature": 1}), id="signed by a number"
        ),
        pytest.param(content("model", {"functionCall": "f"}), id="a bare call"),
        pytest.param(content("model", {"functionCall": {"name": 1}}), id="a name of 1"),
        pytest.param(content("user", {"functionResponse": []}), id="a response that is a list"),
        pytest.param(content("user", response("done")), id="a response that is a text"),
        pytest.param(content("user", response({}, name=[])), id="a name that is a list"),
        pytest.param(content("user", response({}, parts="x")), id="media that are a text"),
        pytest.param(content("user", {"inlineData": "x"}), id="media without a type"),
        pytest.param(
            content("user", {"inlineData": {"mimeType": 1}}), id="a type that is a number"
        ),
        pytest.param(
            content("user", {"inlineData": {"mimeType": "text/csv", "data": 1}}), id="data of 1"
        ),
        pytest.param(b'{"role":"user","role":"model","parts":[]}', id="two roles"),
        pytest.param(rb'{"role":"user","parts":[],"p\u0061rts":[]}', id="one of two escaped"),
        pytest.param(
            b'{"parts":[{"functionCall":{"name":"f"},"function_call":{"name":"g"}}]}',
            id="both spellings",
        ),
        pytest.param(
            b'{"role":"user","parts":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
            id="nested too deeply",
        ),
    ],
)
def test_what_is_no_content_is_unreadable(raw: bytes) -> None:
    with pytest.raises(Unreadable):
        GENERATE.parse(raw)


KEYS = [
    "text",
    "thought",
    "thoughtSignature",
    "functionCall",
    "functionResponse",
    "function_response",
    "inlineData",
    "fileData",
    "name",
    "args",
    "response",
    "output",
    "mimeType",
    "data",
    "parts",
]
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(KEYS), inner | st.sampled_from(["image/png", "text/csv"]), max_size=4
        )
    ),
    max_leaves=12,
)


@given(st.sampled_from(["user", "model", "function"]), json_values, st.booleans())
def test_whatever_stands_in_a_content_is_read_or_refused(
    role: str, value: Any, listed: bool
) -> None:
    raw = dumped({"role": role, "parts": [value] if listed else value})
    try:
        found = GENERATE.parse(raw)
    except Unreadable:
        return
    for part in found.parts:
        json.loads(raw[slice(*part.span)])
        if part.value:
            new = GENERATE.replacement(raw[slice(*part.value)], "x")
            json.loads(raw[: part.value.start] + new + raw[part.value.end :])


# The same content, sent again.


@pytest.mark.parametrize(
    ("one", "other"),
    [
        pytest.param(content("user", text("x")), dumped({"parts": [text("x")]}), id="no role"),
        pytest.param(
            content("user", text("x")), dumped({"role": "user", "parts": text("x")}), id="one part"
        ),
        pytest.param(
            content("model", signed(call())),
            b'{"parts":[{"thought_signature":"' + SIGNATURE.encode() + b'","function_call":'
            b'{"name": "run", "args": {"a": 1}}}],"role":"model"}',
            id="spellings and order",
        ),
        pytest.param(
            content("model", {"text": "x", "thought": None}), content("model", text("x")), id="null"
        ),
    ],
)
def test_equal_content_has_equal_digests(one: bytes, other: bytes) -> None:
    first, second = GENERATE.parse(one), GENERATE.parse(other)
    assert first.digest == second.digest
    assert [p.digest for p in first.parts] == [p.digest for p in second.parts]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        pytest.param(content("user", text("x")), content("model", text("x")), id="roles"),
        pytest.param(content("user", text("x")), content("user", text("y")), id="texts"),
        pytest.param(
            content("user", text("xy")), content("user", text("x"), text("y")), id="a cut"
        ),
        pytest.param(
            content("model", text("x", thought=True)), content("model", text("x")), id="thoughts"
        ),
        pytest.param(content("model", signed(call())), content("model", call()), id="unsigned"),
        pytest.param(
            content("model", signed(call())),
            content("model", signed(call(), "aa")),
            id="signatures",
        ),
        pytest.param(
            content("model", signed(call())), content("model", signed(call("f"))), id="calls"
        ),
        pytest.param(
            content("user", response({"output": "x"})),
            content("user", response({"result": "x"})),
            id="where a result stands",
        ),
        pytest.param(
            content("user", text("x")), content("user", text("x"), mood="calm"), id="other keys"
        ),
        pytest.param(
            rb'{"parts":[{"text":"\ud800"}]}',
            rb'{"parts":[{"text":"\ud801"}]}',
            id="lone surrogates",
        ),
    ],
)
def test_other_content_has_other_digests(one: bytes, other: bytes) -> None:
    assert GENERATE.parse(one).digest != GENERATE.parse(other).digest


def test_a_signature_is_thinking_of_its_own_part() -> None:
    """So that the invariants see it altered, lost, or put on another part."""
    one, other = GENERATE.parse(content("model", signed(call()), signed(call("look")))).parts[1::2]
    assert {one.kind, other.kind} == {Kind.THINKING}
    assert one.digest != other.digest


# Requests.


def test_a_request_is_found_where_it_stands() -> None:
    body = (
        b' {"safetySettings":[], "contents" :[ {"role":"user","parts":[{"text":"a"}]} ],'
        b'"systemInstruction":{"parts":[{"text":"Be brief."},{"text":"Be kind."}],"role":"user"},'
        b'"tools":[{"googleSearch":{}},{"functionDeclarations":[{"name":"a"},{"name":"b"}]}],'
        b'"generationConfig":{"maxOutputTokens": 7,"temperature":1E0}} '
    )
    found = GENERATE.read(body)
    assert found.raw(0) == b'{"role":"user","parts":[{"text":"a"}]}'
    assert (found.model, found.max_output, found.hidden) == ("", 7, False)
    assert [said for _, said in system_texts(found)] == ["Be brief.", "Be kind."]
    assert tool_count(found) == 2


def test_the_same_in_snake_case() -> None:
    body = (
        b'{"contents":[{"parts":[{"text":"a"}]}],"system_instruction":{"parts":{"text":"Be"}},'
        b'"tools":{"function_declarations":[{"name":"a"}]},'
        b'"generation_config":{"max_output_tokens":7}}'
    )
    found = GENERATE.read(body)
    assert [said for _, said in system_texts(found)] == ["Be"]
    assert (found.max_output, tool_count(found)) == (7, 1)


@pytest.mark.parametrize(
    ("others", "texts"),
    [
        ({"systemInstruction": "Be brief."}, ["Be brief."]),
        ({"systemInstruction": None}, []),
        ({"systemInstruction": {}}, []),
        ({"systemInstruction": {"parts": []}}, []),
        ({"systemInstruction": {"parts": [{"inlineData": {}}]}}, ['{"inlineData": {}}']),
        ({}, []),
    ],
)
def test_system_prompts_in_every_form(others: Json, texts: list[str]) -> None:
    found = GENERATE.read(dumped({"contents": [{"parts": [text("x")]}], **others}))
    assert [said for _, said in system_texts(found)] == texts


@pytest.mark.parametrize(
    ("tools", "number"),
    [
        (None, 0),
        ([], 0),
        ([{"googleSearch": {}}], 0),
        ([{"functionDeclarations": None}, {"functionDeclarations": [{}]}], 1),
        ("x", 0),
    ],
)
def test_tools_in_every_form(tools: Any, number: int) -> None:
    found = GENERATE.read(dumped({"contents": [{"parts": [text("x")]}], "tools": tools}))
    assert tool_count(found) == number


def test_code_assists_envelope() -> None:
    body = {
        "model": "gemini-3.8-flash",
        "project": "my-project",
        "user_prompt_id": "u",
        "request": {
            "contents": [{"role": "user", "parts": [text("a")]}],
            "systemInstruction": {"role": "user", "parts": [text("Be brief.")]},
            "session_id": "s",
        },
    }
    found = GENERATE.read(dumped(body))
    assert (found.model, GENERATE.principal("/v1internal:generateContent", found)) == (
        "gemini-3.8-flash",
        "my-project",
    )
    assert json.loads(found.raw(0)) == body["request"]["contents"][0]  # type: ignore[index]
    assert [said for _, said in system_texts(found)] == ["Be brief."]
    odd = dumped(body).replace(b'"my-project"', b'"\\ud83d"')
    assert GENERATE.principal("/v1internal:generateContent", GENERATE.read(odd)) == ""
    for project in (None, 7, ["x"]):
        assert (
            GENERATE.principal(
                "/v1internal:generateContent", GENERATE.read(dumped({**body, "project": project}))
            )
            == ""
        )


def test_envelopes_of_counts() -> None:
    contents = [{"parts": [text("a")]}]
    of_code_assist = {"request": {"model": "models/gemini-2.5-pro", "contents": contents}}
    of_studio = {"generateContentRequest": {"model": "models/other", "contents": contents}}
    assert GENERATE.read(dumped(of_code_assist)).model == "gemini-2.5-pro"
    # The path decides here, as it does for the turns of the same conversation.
    assert GENERATE.read(dumped(of_studio)).model == ""
    assert (
        GENERATE.principal(
            "/v1internal:generateContent",
            GENERATE.read(dumped({"project": "p", "contents": contents})),
        )
        == ""
    )


@pytest.mark.parametrize(
    ("path", "model"),
    [
        ("/v1beta/models/gemini-2.5-flash:generateContent", "gemini-2.5-flash"),
        ("/v1/models/gemini-3.8-flash:streamGenerateContent", "gemini-3.8-flash"),
        (
            "/v1/projects/p/locations/l/publishers/google/models/gemini-2.5-pro:countTokens",
            "gemini-2.5-pro",
        ),
        ("/v1beta/tunedModels/mine-1:generateContent", "mine-1"),
        ("/v1/projects/p/locations/l/endpoints/123:generateContent", "123"),
        ("/v1internal:generateContent", ""),
    ],
)
def test_paths_name_models(path: str, model: str) -> None:
    assert GENERATE.model_in_path(path) == model


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"[]", id="a list"),
        pytest.param(b"{}", id="no contents"),
        pytest.param(b'{"contents":[]}', id="empty contents"),
        pytest.param(b'{"contents":null}', id="contents that are null"),
        pytest.param(b'{"contents":"hi"}', id="a text"),
        pytest.param(b'{"contents":{"parts":[{"text":"x"}]}}', id="a single content"),
        pytest.param(b'{"contents":["hi"]}', id="a content that is a text"),
        pytest.param(b'{"contents":[{}],"contents":[{}]}', id="contents twice"),
        pytest.param(b'{"contents":[{}],"request":{"contents":[{}]}}', id="two places"),
        pytest.param(b'{"request":"x"}', id="an envelope with a text in it"),
        pytest.param(b'{"request":{"contents":[{}],"model":1}}', id="a model that is a number"),
        pytest.param(
            b'{"contents":[{}],"systemInstruction":{},"system_instruction":{}}', id="two systems"
        ),
        pytest.param(b'{"contents":[{}],"systemInstruction":5}', id="a system that is a number"),
        pytest.param(b'{"contents":[{}],"systemInstruction":{"parts":5}}', id="system parts of 5"),
        pytest.param(
            b'{"contents":[{}],"systemInstruction":{"parts":[{"text":5}]}}', id="a system text of 5"
        ),
        pytest.param(
            b'{"contents":[{}],"generationConfig":[]}', id="a configuration that is a list"
        ),
        pytest.param(b'{"contents":[{}],"tools":["x"]}', id="a tool that is a text"),
        pytest.param(b'{"contents":[{}]', id="broken off"),
        pytest.param(b'{"contents":[{"a":"\xff"}]}', id="not UTF-8"),
    ],
)
def test_what_is_no_request_is_unreadable(body: bytes) -> None:
    with pytest.raises(Unreadable):
        GENERATE.read(body)


@given(
    st.dictionaries(
        st.sampled_from(
            ["contents", "request", "systemInstruction", "tools", "generationConfig", "project"]
        ),
        json_values | st.just([{"parts": [{"text": "x"}]}]),
    )
)
def test_whatever_stands_in_a_request_is_read_or_refused(body: Json) -> None:
    raw = dumped(body)
    try:
        found = GENERATE.read(raw)
    except Unreadable:
        return
    assert all(json.loads(found.raw(at)) is not None for at in range(len(found.spans)))
    known = Known(MemoryStore(lru(1 << 20)), count)
    assert known.fixed(family_of("gemini-2.5-pro"), found) >= 0
    GENERATE.standing(PATH, {}, found)
    assert isinstance(GENERATE.principal("/v1internal:generateContent", found), str)


@pytest.mark.parametrize(
    ("method", "path", "ours"),
    [
        ("POST", PATH, True),
        ("POST", "/v1/models/gemini-2.5-flash:streamGenerateContent", True),
        ("POST", "/v1beta/models/gemini-2.5-flash:countTokens", True),
        ("POST", "/v1/projects/p/locations/l/publishers/google/models/m:generateContent", True),
        ("POST", "/v1internal:streamGenerateContent", True),
        ("POST", "/v1internal:countTokens", True),
        ("GET", PATH, False),
        ("POST", "/v1internal:loadCodeAssist", False),
        ("POST", "/v1beta/models/gemini-2.5-flash:batchGenerateContent", False),
        ("POST", "/v1beta/models/gemini-2.5-flash:embedContent", False),
        ("POST", "/v1/projects/p/publishers/anthropic/models/claude:rawPredict", False),
        ("POST", "/v1beta/models/gemini-2.5-flash:predict", False),
        ("POST", "/v1beta/cachedContents", False),
    ],
)
def test_recognised_by_method_and_path(method: str, path: str, ours: bool) -> None:
    assert (api_for(method, path) is GENERATE) == ours


FUNCTIONS = [{"functionDeclarations": [{"name": "run"}]}]
ROUTER = {"parts": [{"text": "\nYou are a specialized Task Routing AI. Score it."}]}
SUMMARISER = {"parts": [{"text": "You distill chat history into a <state_snapshot>."}]}
ASKED = {"parts": [{"text": "First, reason. Then, generate the <state_snapshot>."}]}
OTHER_SUMMARISER = {"parts": [{"text": "You are a context summarization agent. Go."}]}


@pytest.mark.parametrize(
    ("path", "others", "expected"),
    [
        pytest.param(PATH, {}, Standing.TURN, id="a turn"),
        pytest.param("/v1beta/models/m:countTokens", {}, Standing.NO_TURN, id="a count"),
        pytest.param(PATH, {"systemInstruction": ROUTER}, Standing.ALONE, id="a router"),
        pytest.param(
            PATH, {"systemInstruction": ROUTER, "tools": FUNCTIONS}, Standing.TURN, id="no router"
        ),
        pytest.param(PATH, {"systemInstruction": SUMMARISER}, Standing.NO_TURN, id="compression"),
        pytest.param(
            PATH,
            {"contents": [{"parts": [text("x")]}, ASKED]},
            Standing.NO_TURN,
            id="compression, asked for at the end",
        ),
        pytest.param(
            PATH,
            {"contents": [{"parts": [text("<state_snapshot>")]}, {"parts": [text("x")]}]},
            Standing.TURN,
            id="what a compression left",
        ),
        pytest.param(
            PATH, {"contents": [ASKED], "tools": FUNCTIONS}, Standing.TURN, id="tools and a word"
        ),
        pytest.param(
            PATH, {"systemInstruction": OTHER_SUMMARISER}, Standing.NO_TURN, id="another client's"
        ),
        pytest.param(PATH, {"cachedContent": "cachedContents/1"}, Standing.ALONE, id="a cache"),
        pytest.param(PATH, {"cached_content": "cachedContents/1"}, Standing.ALONE, id="in snake"),
        pytest.param(PATH, {"cachedContent": None}, Standing.TURN, id="no cache"),
    ],
)
def test_what_a_request_is_to_its_conversation(path: str, others: Json, expected: Standing) -> None:
    found = GENERATE.read(dumped({"contents": [{"parts": [text("x")]}], **others}))
    standing, why = GENERATE.standing(path, {}, found)
    assert standing is expected
    assert bool(why) == (standing is not Standing.TURN)
    assert found.hidden == ("cache" in why)


# Answers.


@pytest.mark.parametrize(
    ("event", "usage"),
    [
        pytest.param(
            {"usageMetadata": {"promptTokenCount": 9, "candidatesTokenCount": 2}},
            Usage(9, 2),
            id="plain",
        ),
        pytest.param(
            {
                "usageMetadata": {
                    "promptTokenCount": 900,
                    "cachedContentTokenCount": 512,
                    "candidatesTokenCount": 2,
                    "thoughtsTokenCount": 30,
                    "totalTokenCount": 932,
                }
            },
            Usage(900, 32, 512),
            id="cached, and thought about",
        ),
        pytest.param(
            {"response": {"usageMetadata": {"promptTokenCount": 9}}}, Usage(9), id="code assist"
        ),
        pytest.param({"usageMetadata": {"trafficType": "ON_DEMAND"}}, Usage(), id="a first piece"),
        pytest.param({"totalTokens": 31, "totalBillableCharacters": 96}, Usage(31), id="a count"),
        pytest.param({"candidates": []}, None, id="nothing told"),
        pytest.param({"response": "x", "usageMetadata": 5}, None, id="odd"),
        pytest.param({"usageMetadata": {"promptTokenCount": "9"}}, Usage(), id="odd numbers"),
    ],
)
def test_usage_is_read_from_any_answer(event: Json, usage: Usage | None) -> None:
    assert GENERATE.usage_of(event) == usage


def error(said: str, status: str = "INVALID_ARGUMENT", code: int = 400) -> bytes:
    return dumped({"error": {"code": code, "message": said, "status": status}})


TOO_LONG = "The input token count (1200293) exceeds the maximum number of tokens allowed (1048576)."


@pytest.mark.parametrize(
    ("status", "body", "shape", "length"),
    [
        (400, error("Please ensure that the number of function response parts"), True, None),
        (400, b"[" + error("* GenerateContentRequest.contents[0].parts: x") + b"]", True, None),
        (400, error("Function call is missing a thought_signature"), True, None),
        (400, error(TOO_LONG), False, TooLong(1_200_293, 1_048_576)),
        (400, b"[" + error(TOO_LONG) + b"]", False, TooLong(1_200_293, 1_048_576)),
        (
            400,
            error(
                "Unable to submit request because the input token count is 1300 but model only"
                " supports up to 1000. Reduce the input token count and try again."
            ),
            False,
            TooLong(1_300, 1_000),
        ),
        (
            400,
            error("The input token count exceeds the maximum number of tokens allowed 131072."),
            False,
            TooLong(None, 131_072),
        ),
        (
            400,
            error("The input token count exceeds the maximum number of tokens allowed."),
            False,
            TooLong(),
        ),
        (400, error("Request payload size exceeds the limit: 20971520 bytes."), False, None),
        (400, error("API key not valid. Please pass a valid API key."), False, None),
        (400, error("User location is not supported.", "FAILED_PRECONDITION"), False, None),
        (403, error("Permission denied", "PERMISSION_DENIED", 403), False, None),
        (429, error("Resource has been exhausted", "RESOURCE_EXHAUSTED", 429), False, None),
        (500, error("input token count (5) number of tokens allowed (4)"), False, None),
        (400, b"<html>Bad Request</html>", False, None),
    ],
)
def test_refusals_are_told_apart(
    status: int, body: bytes, shape: bool, length: TooLong | None
) -> None:
    assert GENERATE.refuses_shape(status, body) == shape
    assert GENERATE.refuses_length(status, body) == length


def test_a_long_refusal_is_read_in_no_time() -> None:
    body = error("input token count " * 50_000 + "x" * 1_000_000)
    assert GENERATE.refuses_length(400, body) is None


# Whole conversations.


@st.composite
def conversations(draw: st.DrawFn) -> list[Json]:
    """The contents of a conversation: typed texts, calls with results, answers, thoughts."""
    signs = draw(st.booleans())
    chance = random.Random(draw(seeds))
    contents: list[Json] = []
    for turn in range(draw(st.integers(1, 4))):
        if turn:
            contents.append({"role": "model", "parts": _answer(chance, signs)})
        contents.append({"role": "user", "parts": _typed(chance)})
        for _ in range(draw(st.integers(0, 9))):
            contents += _step(chance, signs)
    return contents


def _typed(chance: random.Random) -> list[Json]:
    said = text(words(chance.randrange(1 << 16), chance.choice([20, 400])))
    beside: list[list[Json]] = [
        [],
        [],
        [PNG],
        [text("<environment_details>\n" + words(chance.randrange(99), 900))],
        [WAV],
    ]
    return [*copy.deepcopy(chance.choice(beside)), said]


def _answer(chance: random.Random, signs: bool) -> list[Json]:
    said = text(words(chance.randrange(1 << 16), 200))
    parts = [text(words(chance.randrange(99), 200), thought=True)] if signs else []
    if signs:
        return [*parts, said, {"text": "", "thoughtSignature": SIGNATURE}]
    return [CODE, RAN, said] if chance.random() < 0.2 else [said]


def _step(chance: random.Random, signs: bool) -> list[Json]:
    names = chance.choices(["read", "run", "look"], k=chance.choice([1, 1, 2, 3]))
    calls = [call(name, **({"id": f"c{chance.random()}"} if signs else {})) for name in names]
    if signs:
        calls[0] = signed(calls[0], base64.b64encode(chance.randbytes(24)).decode())
    said = [text(words(chance.randrange(99), 90))] if chance.random() < 0.5 else []
    results = [response(_outcome(chance), name) for name in names]
    role = "function" if chance.random() < 0.1 else "user"
    if chance.random() < 0.1:
        spread = [{"role": role, "parts": [result]} for result in results]
        return [{"role": "model", "parts": [*said, *calls]}, *spread]
    return [{"role": "model", "parts": [*said, *calls]}, {"role": role, "parts": results}]


def _outcome(chance: random.Random) -> Json:
    said = words(chance.randrange(1 << 16), chance.choice([10, 1_600, 3_000, 9_000]))
    forms: list[Json] = [{"output": said}, {"result": said}, {"error": said}]
    forms.append({"output": said, "code": 0})
    return copy.deepcopy(chance.choice(forms))


def body_of(contents: list[Json], style: Style, envelope: bool = False) -> bytes:
    request = {
        "contents": contents,
        "systemInstruction": {"parts": [text("Be brief.")], "role": "user"},
        "tools": [{"functionDeclarations": [{"name": n} for n in ("read", "run", "look")]}],
        "generationConfig": {"temperature": 1},
    }
    if envelope:
        wrapped = {"model": "gemini-3.8-flash", "project": "p", "request": request}
        return style.dump(wrapped)
    return style.dump(request)


def refusal(body: bytes, memory: rules_gemini.Memory, model: str, path: str = PATH) -> Any:
    return rules_gemini.judge(json.loads(body), memory, path, model, None)


@laws
@given(conversations(), styles, st.booleans())
def test_whatever_is_condensed_is_taken_and_changes_nothing_else(
    contents: list[Json], style: Style, envelope: bool
) -> None:
    path = "/v1internal:generateContent" if envelope else PATH
    memory = rules_gemini.Memory()
    signs = any("thoughtSignature" in p for c in contents for p in c["parts"])
    model = "gemini-3.8-flash" if signs else "gemini-2.5-pro"
    whole = body_of(contents, style, envelope)
    assert refusal(whole, memory, model, path) is None
    way = Way()
    room = max(900, way.tokens(GENERATE, whole) * 2 // 3)
    forwarded: list[bytes] = []
    for cut in range(1, len(contents) + 1):
        if any("functionCall" in part for part in contents[cut - 1]["parts"]):
            continue  # A client sends results with the calls.
        body = body_of(contents[:cut], style, envelope)
        if refusal(body, memory, model, path):
            continue  # Results that are spread over several contents come together.
        sent = way.send(GENERATE, body, room)
        forwarded.append(sent.forwarded)
        assert refusal(sent.forwarded, memory, model, path) is None
        before, after = GENERATE.read(body), GENERATE.read(sent.forwarded)
        assert sent.forwarded[: after.array.start] == body[: before.array.start]
        assert sent.forwarded[after.array.end :] == body[before.array.end :]
        again = way.lay(GENERATE, body).forwarded.request.body
        assert again == sent.forwarded


def test_a_long_turn_is_condensed_and_keeps_its_signatures() -> None:
    contents: list[Json] = [{"role": "user", "parts": [text("Find the bug.")]}]
    for number in range(30):
        made = signed(call("read"), base64.b64encode(bytes([number] * 30)).decode())
        contents.append({"role": "model", "parts": [made]})
        contents.append({"role": "user", "parts": [response({"output": words(number, 4_000)})]})
    body = body_of(contents, Style())
    sent = Way().send(GENERATE, body, 20_000)
    assert sent.step is not None
    after = json.loads(sent.forwarded)["contents"]
    assert [c for c in after if c["role"] == "model"] == [
        c for c in contents if c["role"] == "model"
    ]
    assert after[-6:] == contents[-6:]
    stub = after[2]["parts"][0]["functionResponse"]
    assert stub["name"] == "run"
    assert list(stub["response"]) == ["output"]
    assert stub["response"]["output"].startswith("[mitmcontext:")


def test_older_turns_fold_whole() -> None:
    contents: list[Json] = []
    for number in range(8):
        made = signed(call("read"), base64.b64encode(bytes([number] * 30)).decode())
        contents += [
            {"role": "user", "parts": [text(f"Find bug {number}.")]},
            {"role": "model", "parts": [made, call("run")]},
            {"role": "user", "parts": [response({"output": "x " * 900}), response({"a": 1})]},
            {"role": "model", "parts": [text("Found it. " * 40)]},
        ]
    contents.append({"role": "user", "parts": [text("Thank you.")]})
    body = body_of(contents, Style())
    sent = Way().send(GENERATE, body, 3_300)
    assert sent.step is not None
    after = json.loads(sent.forwarded)["contents"]
    assert len(after) < len(contents)
    notes = [
        c["parts"][0]["text"] for c in after if len(c["parts"]) == 1 and "text" in c["parts"][0]
    ]
    assert any(note.startswith("[mitmcontext:") and "> Find bug 2." in note for note in notes)
    assert refusal(sent.forwarded, rules_gemini.Memory(), "gemini-3.8-flash") is None


def test_media_are_never_taken_for_small() -> None:
    """A picture may be short in bytes and long in tokens."""
    contents = [{"role": "user", "parts": [text("What is it?")]}]
    for media, safe in [([], True), ([PDF], False), ([STORED], False), ([WAV], False)]:
        body = body_of([*contents, {"role": "user", "parts": [*media, text("x")]}], Style())
        laid = Way().lay(GENERATE, body)
        assert pipeline.is_surely_safe(laid, window(1_000_000), Way().thresholds) == safe


# Requests that are broken somewhere.


@st.composite
def broken_bodies(draw: st.DrawFn) -> bytes:
    """A request with one value somewhere in its contents replaced, left out or doubled."""
    chance = random.Random(draw(seeds))
    contents = draw(conversations())
    while len(json.dumps(contents)) < 30_000:
        contents += [
            {"role": "model", "parts": [text("ok")]},
            {"role": "user", "parts": [text("go")]},
        ]
        contents += [content for _ in range(4) for content in _step(chance, False)]
    holders = list(_holders(contents))
    holder, key = chance.choice(holders)
    kind = chance.randrange(3)
    if kind == 0:
        del holder[key]
    elif kind == 1:
        holder[key] = draw(json_values)
    elif isinstance(holder, list):
        holder.insert(key, copy.deepcopy(holder[key]))
    else:
        holder[f"{key}_x"] = holder[key]
    return body_of(contents, Style())


def _holders(value: Any) -> Any:
    places = enumerate(value) if isinstance(value, list) else value.items()
    for key, item in list(places):
        yield value, key
        if isinstance(item, list | dict):
            yield from _holders(item)


@laws
@given(broken_bodies())
def test_a_broken_request_is_left_or_becomes_one_that_is_no_worse(body: bytes) -> None:
    memory = rules_gemini.Memory()
    was = refusal(body, memory, "gemini-2.5-pro")
    try:
        request = replace(GENERATE.read(body), model="gemini-2.5-pro")
    except Unreadable:
        return
    messages = [message_of(GENERATE, request.raw(at)) for at in range(len(request.spans))]
    if not messages:
        return
    way = Way()
    sent = way.send(GENERATE, body, max(900, way.tokens(GENERATE, body) // 2))
    if was is None:
        assert refusal(sent.forwarded, memory, "gemini-2.5-pro") is None
    else:
        json.loads(sent.forwarded)


def test_on_vertex_the_project_is_the_principal() -> None:
    path = (
        "/v1/projects/my-project/locations/europe-west1/publishers/google/models/m:generateContent"
    )
    read = GENERATE.read(dumped({"contents": [{"role": "user", "parts": [{"text": "x"}]}]}))
    assert GENERATE.principal(path, read) == "project my-project"
    assert GENERATE.principal("/v1beta/models/m:generateContent", read) == ""
