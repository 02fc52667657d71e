"""Tools are found whatever the API calls them, and shown as the models see them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mitmcontext.tokens.tools import Choice, Schema, Tool, chosen, listed, wanted
from mitmcontext.tokens.typescript import namespace, response_format

PARAMETERS = {"type": "object", "properties": {"a": {"type": "string"}}}
SAME = Tool("f", "Does it.", PARAMETERS, strict=False)
BARE = {"name": "f", "description": "Does it."}


@pytest.mark.parametrize(
    "one",
    [
        pytest.param({**BARE, "input_schema": PARAMETERS}, id="Anthropic"),
        pytest.param(
            {"type": "function", "function": {**BARE, "parameters": PARAMETERS}}, id="chat"
        ),
        pytest.param({**BARE, "parameters": PARAMETERS}, id="chat's functions, and Gemini"),
        pytest.param({"type": "function", **BARE, "parameters": PARAMETERS}, id="Responses"),
        pytest.param({**BARE, "parametersJsonSchema": PARAMETERS}, id="Gemini, with a JSON schema"),
        pytest.param({"toolSpec": {**BARE, "inputSchema": {"json": PARAMETERS}}}, id="Bedrock"),
    ],
)
def test_a_tool_is_the_same_in_every_api(one: Any) -> None:
    assert listed(json.dumps([one, {"type": "web_search"}, 7, None])) == [SAME]


@pytest.mark.parametrize("text", ["", "{}", "null", "[", '"x"', "[[]]", '[{"function":7}]'])
def test_what_is_no_list_of_tools_has_none(text: str) -> None:
    assert listed(text) == []


@pytest.mark.parametrize(
    ("said", "choice"),
    [
        pytest.param("auto", Choice(), id="a word"),
        pytest.param("required", Choice("any"), id="OpenAI's word"),
        pytest.param("REQUIRED", Choice("any"), id="Cohere's word"),
        pytest.param("none", Choice("none"), id="none"),
        pytest.param({"type": "any"}, Choice("any"), id="Anthropic"),
        pytest.param({"type": "tool", "name": "f"}, Choice("any", "f"), id="Anthropic, named"),
        pytest.param({"type": "none"}, Choice("none"), id="Anthropic, none"),
        pytest.param(
            {"type": "function", "function": {"name": "f"}}, Choice("any", "f"), id="chat"
        ),
        pytest.param({"name": "f"}, Choice("any", "f"), id="chat's functions"),
        pytest.param({"type": "function", "name": "f"}, Choice("any", "f"), id="Responses"),
        pytest.param({"functionCallingConfig": {"mode": "ANY"}}, Choice("any"), id="Gemini"),
        pytest.param({"function_calling_config": {"mode": "NONE"}}, Choice("none"), id="in snakes"),
        pytest.param({"any": {}}, Choice("any"), id="Bedrock"),
        pytest.param({"tool": {"name": "f"}}, Choice("any", "f"), id="Bedrock, named"),
        pytest.param({"auto": {}}, Choice(), id="Bedrock, free"),
        pytest.param(7, Choice(), id="a number"),
        pytest.param(["any"], Choice(), id="a list"),
        pytest.param({"type": 7, "name": {}}, Choice(), id="nonsense"),
    ],
)
def test_a_choice_is_understood(said: Any, choice: Choice) -> None:
    assert chosen(json.dumps(said)) == choice


ASKED = {"type": "object", "properties": {"n": {"type": "integer"}}}


@pytest.mark.parametrize(
    ("said", "schema"),
    [
        pytest.param(
            {"type": "json_schema", "json_schema": {"name": "a", "schema": ASKED}},
            Schema("a", "", ASKED),
            id="chat",
        ),
        pytest.param(
            {"type": "json_schema", "name": "a", "description": "b", "schema": ASKED},
            Schema("a", "b", ASKED),
            id="Responses",
        ),
        pytest.param(
            {"type": "json_schema", "schema": ASKED}, Schema("", "", ASKED), id="Anthropic"
        ),
        pytest.param(
            {"type": "json_object", "json_schema": ASKED}, Schema("", "", ASKED), id="Cohere"
        ),
        pytest.param(ASKED, Schema("", "", ASKED), id="the schema itself"),
        pytest.param({"type": "text"}, None, id="text"),
        pytest.param({"type": "json_object"}, None, id="any JSON"),
        pytest.param("json", None, id="Ollama's word"),
        pytest.param(None, None, id="null"),
    ],
)
def test_a_schema_is_found(said: Any, schema: Schema | None) -> None:
    assert wanted(json.dumps(said)) == schema


def shown(properties: Any, **more: Any) -> str:
    parameters = {"type": "object", "properties": properties, **more}
    whole = namespace([Tool("f", "Does it.", parameters, strict=False)])
    start, end = (
        "namespace functions {\n\n// Does it.\ntype f = ",
        " => any;\n\n} // namespace functions",
    )
    assert whole.startswith(start)
    assert whole.endswith(end)
    return whole.removeprefix(start).removesuffix(end)


CITY = {"type": "string", "description": "Where"}


@pytest.mark.parametrize(
    ("properties", "more", "text"),
    [
        pytest.param({}, {}, "()", id="nothing"),
        pytest.param(
            {"a": {"type": "integer"}}, {}, "(_: { a?: number })", id="no comment: one line"
        ),
        pytest.param(
            {"a": {"type": "string"}, "b": {"type": "boolean"}},
            {"required": ["a"]},
            "(_: { a: string, b?: boolean })",
            id="what must be given",
        ),
        pytest.param({"a": CITY}, {}, "(_: {\n// Where\na?: string,\n})", id="a description"),
        pytest.param(
            {"a": {**CITY, "title": "City"}},
            {},
            "(_: {\n// City\n//\n// Where\na?: string,\n})",
            id="a title before it",
        ),
        pytest.param(
            {"a": {}}, {"title": "Given"}, "(_: {\n// Given\na?: any,\n})", id="its own title"
        ),
        pytest.param(
            {"a": {**CITY, "description": "Where\n\n    exactly?\n"}},
            {},
            "(_: {\n// Where\n// exactly?\na?: string,\n})",
            id="several lines",
        ),
        pytest.param(
            {"a": {**CITY, "default": "Kiel"}, "b": {"type": "number", "default": None}},
            {},
            '(_: {\n// Where\na?: string, // default: "Kiel"\nb?: number, // default: null\n})',
            id="defaults",
        ),
        pytest.param({"a": {"enum": ["x", 1]}}, {}, '(_: { a?: "x" | 1 })', id="an enumeration"),
        pytest.param(
            {"a": {"anyOf": [{"type": "string"}, {"type": "null"}]}},
            {},
            "(_: { a?: string | null })",
            id="either or",
        ),
        pytest.param(
            {"a": {"type": ["string", "null"]}},
            {},
            "(_: { a?: string | null })",
            id="several types",
        ),
        pytest.param(
            {"a": {"type": "array", "items": {"type": "integer"}}},
            {},
            "(_: { a?: number[] })",
            id="a list",
        ),
        pytest.param({"a": {"type": "array"}}, {}, "(_: { a?: any[] })", id="a list of anything"),
        pytest.param({"a": {"type": "object"}}, {}, "(_: { a?: object })", id="any object"),
        pytest.param(
            {"a": {"type": "object", "properties": {"b": CITY}}},
            {},
            "(_: {\na?: {\n  // Where\n  b?: string,\n},\n})",
            id="an object inside",
        ),
        pytest.param(
            {"a": {"$ref": "#/$defs/City"}},
            {"$defs": {"City": CITY}},
            "(_: {\n// Where\na?: string,\n})",
            id="a reference",
        ),
        pytest.param(
            {"a": {"$ref": "#/definitions/City", "description": "There"}},
            {"definitions": {"City": CITY}},
            "(_: {\n// There\na?: string,\n})",
            id="what stands beside a reference wins",
        ),
        pytest.param(
            {"a": {"$ref": "nowhere"}}, {}, "(_: { a?: any })", id="a reference to nothing"
        ),
        pytest.param({"a": 7}, {"required": 7}, "(_: { a?: any })", id="what is no schema"),
    ],
)
def test_a_tool_is_shown_as_a_type(properties: Any, more: Any, text: str) -> None:
    assert shown(properties, **more) == text


def test_a_schema_that_holds_itself_comes_to_an_end() -> None:
    node = {"type": "object", "properties": {"next": {"$ref": "#/$defs/Node"}}}
    assert 100 < len(shown({"a": {"$ref": "#/$defs/Node"}}, **{"$defs": {"Node": node}})) < 2_000


def test_what_goes_without_saying_is_left_out_of_a_schema() -> None:
    inner = {
        "type": "object",
        "properties": {"required": {"type": "string"}},
        "required": ["required"],
    }
    schema = {**inner, "additionalProperties": False, "items": [inner], "$schema": "x"}
    bare = '{"type":"object","properties":{"required":{"type":"string"}}'
    assert response_format(Schema("answer", "As I like it.", schema)) == (
        "# Response Formats\n\n## answer\n\n// As I like it.\n" + bare + f',"items":[{bare}}}]}}'
    )


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "name",
                    "type",
                    "function",
                    "parameters",
                    "properties",
                    "items",
                    "$ref",
                    "enum",
                    "anyOf",
                    "title",
                    "description",
                    "default",
                    "schema",
                    "json_schema",
                    "required",
                ]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=25,
)


@given(JSON)
def test_nothing_that_a_client_may_send_is_too_odd(value: Any) -> None:
    text = json.dumps(value)
    offered = listed(text)
    assert namespace(offered).startswith("namespace functions {")
    assert chosen(text).mode in ("auto", "any", "none")
    schema = wanted(text)
    assert schema is None or "# Response Formats" in response_format(schema)
