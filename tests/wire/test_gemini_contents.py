"""Google Gemini: what each shape of content is read as."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.wire.bodies import dumped
from tests.wire.gemini_bodies import (
    CODE,
    CSV,
    PDF,
    PNG,
    RAN,
    SIGNATURE,
    STORED,
    WAV,
    call,
    content,
    json_values,
    response,
    signed,
    text,
)
from tests.wire.reading import read_as, stub_changes_its_part

from mitmcontext.values import Kind, Unreadable
from mitmcontext.wire.gemini import GENERATE

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
    read_as(GENERATE, raw, parts)


@pytest.mark.parametrize(("raw", "parts"), SHAPES)
def test_a_stub_changes_the_value_and_nothing_else(raw: bytes, parts: object) -> None:
    stub_changes_its_part(GENERATE, raw)


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
