"""Google Gemini: what each shape of request is read as."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.way import count
from tests.wire.bodies import dumped
from tests.wire.gemini_bodies import PATH, Json, json_values, text

from mitmcontext.known import Known
from mitmcontext.stores.memory import MemoryStore, lru
from mitmcontext.tokens.families import family_of
from mitmcontext.values import Standing, Unreadable
from mitmcontext.wire import api_for
from mitmcontext.wire.api import system_texts, tool_count
from mitmcontext.wire.gemini import GENERATE


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


def test_on_vertex_the_project_is_the_principal() -> None:
    path = (
        "/v1/projects/my-project/locations/europe-west1/publishers/google/models/m:generateContent"
    )
    read = GENERATE.read(dumped({"contents": [{"role": "user", "parts": [{"text": "x"}]}]}))
    assert GENERATE.principal(path, read) == "project my-project"
    assert GENERATE.principal("/v1beta/models/m:generateContent", read) == ""


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
