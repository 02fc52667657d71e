"""OpenAI Responses: what is no item, or only nearly one."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.wire.bodies import dumped
from tests.wire.responses_bodies import Json, call, json_values, message, output

from loopback import rules_responses
from mitmcontext.values import Unreadable
from mitmcontext.wire.openai_responses import RESPONSES


@pytest.mark.parametrize(
    "raw",
    [
        rb'{"role":"user","content":"\ud800"}',
        rb'{"type":"function_call","call_id":"a","name":"f","arguments":"\udc00"}',
        rb'{"type":"function_call_output","call_id":"a","output":[{"type":"input_text","text":"\ud800"}]}',
        rb'"\ud800"',
    ],
    ids=["in a text", "in a call", "in an output", "in a bare string"],
)
def test_lone_surrogates_are_not_edited_and_hinder_nothing(raw: bytes) -> None:
    assert not RESPONSES.parse(raw).editable
    twin = raw.replace(b"ud800", b"ud801").replace(b"udc00", b"udc01")
    assert RESPONSES.parse(twin).digest != RESPONSES.parse(raw).digest


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(b"[]", id="an array"),
        pytest.param(b"7", id="a number"),
        pytest.param(dumped({"type": 7, "role": "user"}), id="a type that is a number"),
        pytest.param(dumped(message("critic", "x")), id="an unknown role"),
        pytest.param(dumped(message("user", 1)), id="content a number"),
        pytest.param(dumped(message("user", {"text": "x"})), id="content an object"),
        pytest.param(dumped(message("user", ["x"])), id="a part that is a string"),
        pytest.param(
            dumped(message("user", [{"type": "input_text", "text": 1}])), id="a text of 1"
        ),
        pytest.param(dumped(message("user", [{"type": 1}])), id="a part of type 1"),
        pytest.param(b'{"role":"user","role":"system","content":"x"}', id="two roles"),
        pytest.param(rb'{"role":"user","content":"x","c\u006fntent":"y"}', id="one of two escaped"),
        pytest.param(dumped({"type": "function_call", "name": "f", "arguments": ""}), id="no id"),
        pytest.param(dumped(call(name="f", arguments={"a": 1})), id="arguments an object"),
        pytest.param(dumped(call(name=1, arguments="")), id="a name of 1"),
        pytest.param(dumped(call(name="f")), id="no arguments"),
        pytest.param(dumped({**call(), "call_id": 7}), id="an id that is a number"),
        pytest.param(dumped(output({"a": 1})), id="an output that is an object"),
        pytest.param(dumped({"type": "function_call_output", "output": "x"}), id="whose output?"),
        pytest.param(dumped(output("x", kind="shell_call_output")), id="a shell's a string"),
        pytest.param(dumped(output(["x"], kind="shell_call_output")), id="a shell's of strings"),
        pytest.param(dumped(output("x", kind="computer_call_output")), id="a screenshot a string"),
        pytest.param(dumped({"type": "reasoning", "summary": "x"}), id="a summary a string"),
        pytest.param(dumped({"type": "reasoning", "summary": ["x"]}), id="a summary of strings"),
        pytest.param(
            b'{"role":"user","content":' + b"[" * 99_999 + b"]" * 99_999 + b"}", id="deep"
        ),
    ],
)
def test_what_is_no_item_is_unreadable(raw: bytes) -> None:
    with pytest.raises(Unreadable):
        RESPONSES.parse(raw)


known_types = sorted(rules_responses.ITEMS)


@given(
    st.sampled_from([*known_types, "new", None]),
    st.dictionaries(
        st.sampled_from(
            [
                "role",
                "content",
                "call_id",
                "output",
                "name",
                "arguments",
                "input",
                "action",
                "summary",
                "encrypted_content",
                "id",
                "results",
                "outputs",
                "code",
                "queries",
                "approval_request_id",
                "error",
                "operation",
                "phase",
            ]
        ),
        json_values | st.sampled_from(["user", "assistant"]),
    ),
)
def test_whatever_stands_in_an_item_is_read_or_refused(kind: str | None, others: Json) -> None:
    raw = dumped({"type": kind, **others})
    try:
        found = RESPONSES.parse(raw)
    except Unreadable:
        return
    for part in found.parts:
        json.loads(raw[slice(*part.span)])
        if part.value is not None:
            value = raw[slice(*part.value)]
            json.loads(RESPONSES.replacement(value, "short"))
