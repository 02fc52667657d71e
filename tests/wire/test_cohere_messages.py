"""Cohere: what each shape of message is read as, and which are the same."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.drawn import values_with
from tests.wire.bodies import message, text
from tests.wire.reading import read_as, stub_changes_its_part

from loopback import rules_cohere
from loopback.counting import model_named
from mitmcontext.values import Kind, Unreadable
from mitmcontext.wire.cohere import CHAT


def document(data: Any, **others: Any) -> dict[str, Any]:
    return {"type": "document", "document": {"data": data, **others}}


def call(id_: str = "run_1", arguments: Any = '{"a": 1}') -> dict[str, Any]:
    return {"id": id_, "type": "function", "function": {"name": "run", "arguments": arguments}}


IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "iVBO" * 900}}
CITATION = {"start": 0, "end": 4, "text": "Sure", "sources": [{"type": "tool", "id": "run_1:0"}]}

# Each message with what its parts are: kind, text, and whether a shorter text may take its place.
SHAPES: list[Any] = [
    pytest.param(message("user", "Fix it"), [(Kind.TYPED, "Fix it", True)], id="a string"),
    pytest.param(message("system", "Be brief"), [(Kind.SYSTEM, "Be brief", True)], id="system"),
    pytest.param(
        message("user", [text("What is it?"), IMAGE]),
        [(Kind.TYPED, "What is it?", True), (Kind.IMAGE, "", True)],
        id="an image",
    ),
    pytest.param(
        message("user", "Observation: done"),
        [(Kind.RESULT, "Observation: done", True)],
        id="an observation as text",
    ),
    pytest.param(
        message("assistant", [text("Sure.")], citations=[CITATION]),
        [(Kind.PROSE, "Sure.", True)],
        id="an answer with citations",
    ),
    pytest.param(
        message("assistant", [{"type": "thinking", "thinking": "Hm."}, text("Sure.")]),
        [(Kind.THINKING, "Hm.", False), (Kind.PROSE, "Sure.", True)],
        id="thinks",
    ),
    pytest.param(
        message("assistant", tool_plan="I look.", tool_calls=[call(), call("run_2")]),
        [
            (Kind.PROSE, "I look.", False),
            (Kind.CALL, 'run {"a": 1}', False),
            (Kind.CALL, 'run {"a": 1}', False),
        ],
        id="a plan and its calls",
    ),
    pytest.param(
        message("assistant", None, tool_calls=[call()], tool_plan=None),
        [(Kind.CALL, 'run {"a": 1}', False)],
        id="a call without a plan",
    ),
    pytest.param(
        message("tool", "one\ntwo", tool_call_id="run_1"),
        [(Kind.RESULT, "one\ntwo", True)],
        id="a result",
    ),
    pytest.param(
        message("tool", [document("one"), document("two", id="2")], tool_call_id="run_1"),
        [(Kind.RESULT, "one", True), (Kind.RESULT, "two", True)],
        id="a result in documents",
    ),
    pytest.param(
        message("tool", [document({"text": "one"})], tool_call_id="run_1"),
        [(Kind.RESULT, "one", True)],
        id="a document with a text",
    ),
    pytest.param(
        message("tool", [text("one"), IMAGE], tool_call_id="run_1"),
        [(Kind.RESULT, "one", True), (Kind.IMAGE, "", True)],
        id="a result with an image",
    ),
    pytest.param(
        message("tool", [], tool_call_id="run_1"), [(Kind.RESULT, "", False)], id="nothing came"
    ),
    pytest.param(
        message("tool", tool_call_id="run_1"), [(Kind.RESULT, "", False)], id="not even content"
    ),
    pytest.param(
        message("tool", [document([1, 2])], tool_call_id="run_1"),
        [(Kind.RESULT, "[1, 2]", False)],
        id="data that is a list",
    ),
    pytest.param(
        message("tool", [{"type": "document", "document": {"id": "x"}}], tool_call_id="run_1"),
        [(Kind.RESULT, '{"id": "x"}', False)],
        id="a document without data",
    ),
    pytest.param(
        message("user", [document("a page")]), [(Kind.DOCUMENT, "a page", False)], id="shown"
    ),
    pytest.param(
        message("user", [{"type": "audio", "data": "x"}]),
        [(Kind.OPAQUE, '{"type": "audio", "data": "x"}', False)],
        id="an unknown block",
    ),
    pytest.param(
        message("user", [{"type": "text"}]), [(Kind.OPAQUE, '{"type": "text"}', False)], id="odd"
    ),
    pytest.param(message("user", None), [], id="null"),
]
OF_AN_OBJECT = message("tool", [document({"rows": [1, 2], "of": "x"})], tool_call_id="run_1")


@pytest.mark.parametrize(("raw", "parts"), SHAPES)
def test_messages_are_read_as_what_they_are(
    raw: bytes, parts: list[tuple[Kind, str, bool]]
) -> None:
    for part in read_as(CHAT, raw, parts).parts:
        if part.value and part.kind is not Kind.IMAGE:
            assert json.loads(raw[slice(*part.value)]) == part.text


@pytest.mark.parametrize(("raw", "parts"), SHAPES)
def test_a_stub_changes_the_value_and_nothing_else(raw: bytes, parts: object) -> None:
    stub_changes_its_part(CHAT, raw)


def test_data_that_is_an_object_stays_one() -> None:
    (part,) = CHAT.parse(OF_AN_OBJECT).parts
    assert (part.kind, part.text) == (Kind.RESULT, '{"rows": [1, 2], "of": "x"}')
    assert part.value is not None
    start, end = part.value
    made = (
        OF_AN_OBJECT[:start] + CHAT.replacement(OF_AN_OBJECT[start:end], "x") + OF_AN_OBJECT[end:]
    )
    assert json.loads(made)["content"] == [document({"text": "x"})]
    assert [p.text for p in CHAT.parse(made).parts] == ["x"]


def test_calls_and_results_are_tied() -> None:
    called = CHAT.parse(message("assistant", tool_plan="x", tool_calls=[call("a"), call("b")]))
    assert [(p.call_id, p.name) for p in called.parts] == [("", ""), ("a", "run"), ("b", "run")]
    answered = CHAT.parse(message("tool", [document("x"), text("y"), IMAGE], tool_call_id="b"))
    assert [p.call_id for p in answered.parts] == ["b", "b", "b"]


def test_unknown_keys_are_kept_whole() -> None:
    plain, odd = CHAT.parse(message("user", "x")), CHAT.parse(message("user", "x", mood="good"))
    assert (plain.editable, odd.editable) == (True, False)
    assert plain.digest != odd.digest


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(rb'{"role":"user","content":"\ud800"}', id="in a text"),
        pytest.param(rb'{"role":"assistant","tool_plan":"\udc00"}', id="in a plan"),
        pytest.param(
            rb'{"role":"tool","tool_call_id":"a","content":[{"type":"document","document":'
            rb'{"data":{"a":"\ud800"}}}]}',
            id="in a document",
        ),
    ],
)
def test_lone_surrogates_are_not_edited_and_hinder_nothing(raw: bytes) -> None:
    assert not CHAT.parse(raw).editable


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(b"[]", id="an array"),
        pytest.param(b"{}", id="an empty object"),
        pytest.param(b'{"content":"x"}', id="no role"),
        pytest.param(b'{"role":"CHATBOT","content":"x"}', id="a role of version 1"),
        pytest.param(b'{"role":["user"],"content":"x"}', id="a role that is a list"),
        pytest.param(b'{"role":"user","content":1}', id="content a number"),
        pytest.param(b'{"role":"user","content":{"text":"x"}}', id="content an object"),
        pytest.param(b'{"role":"user","content":["x"]}', id="a block that is a string"),
        pytest.param(b'{"role":"user","content":[{"type":1}]}', id="a type of 1"),
        pytest.param(b'{"role":"user","content":[{"type":"text","text":1}]}', id="a text of 1"),
        pytest.param(
            b'{"role":"assistant","content":[{"type":"thinking","thinking":{}}]}', id="thinking"
        ),
        pytest.param(b'{"role":"assistant","tool_plan":["x"]}', id="a plan that is a list"),
        pytest.param(
            b'{"role":"tool","content":[{"type":"document","document":"x"}]}', id="a bare document"
        ),
        pytest.param(b'{"role":"tool","content":"x","tool_call_id":7}', id="an id of 7"),
        pytest.param(b'{"role":"assistant","tool_calls":[{"type":"function"}]}', id="no id"),
        pytest.param(b'{"role":"assistant","tool_calls":["x"]}', id="a call that is a string"),
        pytest.param(
            b'{"role":"assistant","tool_calls":[{"id":"a","function":{"name":1}}]}',
            id="a name of 1",
        ),
        pytest.param(b'{"role":"user","role":"tool","content":"x"}', id="two roles"),
        pytest.param(
            b'{"role":"user","content":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
            id="nested too deeply",
        ),
    ],
)
def test_what_is_no_message_is_unreadable(raw: bytes) -> None:
    with pytest.raises(Unreadable):
        CHAT.parse(raw)


KEYS = ["content", "tool_calls", "tool_plan", "tool_call_id", "citations"]
json_values = values_with(
    ["type", "text", "document", "data", "id", "function", "name"],
    ["text", "document", "image_url"],
    more=lambda inner: st.builds(document, inner) | st.builds(text, st.text(max_size=5)),
)


@given(
    st.sampled_from(["user", "assistant", "tool", "system"]),
    st.dictionaries(st.sampled_from(KEYS), json_values),
    st.text(min_size=1),
)
def test_whatever_stands_in_a_message_is_refused_or_as_good_when_it_is_shortened(
    role: str, others: dict[str, Any], said: str
) -> None:
    raw = message(role, **others)
    try:
        found = CHAT.parse(raw)
    except Unreadable:
        return
    for part in found.parts:
        if part.span != (0, 0):
            json.loads(raw[slice(*part.span)])
        if part.value is None:
            continue
        start, end = part.value
        made = raw[:start] + CHAT.replacement(raw[start:end], said) + raw[end:]
        again = CHAT.parse(made)
        assert [p.kind for p in again.parts if p.kind is Kind.RESULT] == [
            p.kind for p in found.parts if p.kind is Kind.RESULT
        ] or role == "user"
        assert accepts(made) or not accepts(raw)


def accepts(raw: bytes) -> bool:
    """Whether the strict provider takes a request with this message, its calls answered."""
    read = json.loads(raw)
    messages = [read]
    if read["role"] == "tool":
        asked = [call(str(read.get("tool_call_id")))]
        messages = [{"role": "assistant", "tool_calls": asked}, read]
    body = {"model": "command-a", "messages": messages}
    return rules_cohere.check(body, rules_cohere.Memory(), None, model_named("x")) is None


@pytest.mark.parametrize(
    ("one", "other"),
    [
        pytest.param(message("user", "x"), message("user", [text("x")]), id="string or text"),
        pytest.param(
            message("assistant", None, tool_calls=[call()], tool_plan=""),
            message("assistant", tool_calls=[call()]),
            id="null or nothing",
        ),
        pytest.param(
            b'{"role":"user","content":"x"}', b'{ "content":"x", "role":"user" }', id="order"
        ),
    ],
)
def test_equal_content_has_equal_digests(one: bytes, other: bytes) -> None:
    assert CHAT.parse(one).digest == CHAT.parse(other).digest


@pytest.mark.parametrize(
    ("one", "other"),
    [
        pytest.param(message("user", "x"), message("assistant", "x"), id="roles"),
        pytest.param(message("user", "x"), message("user", "y"), id="texts"),
        pytest.param(message("user", "xy"), message("user", [text("x"), text("y")]), id="a cut"),
        pytest.param(
            message("tool", "x", tool_call_id="a"), message("tool", "x", tool_call_id="b"), id="ids"
        ),
        pytest.param(
            message("tool", [document("x")], tool_call_id="a"),
            message("tool", [document("x", id="1")], tool_call_id="a"),
            id="documents",
        ),
        pytest.param(
            message("assistant", tool_plan="a", tool_calls=[call()]),
            message("assistant", tool_plan="b", tool_calls=[call()]),
            id="plans",
        ),
        pytest.param(
            message("assistant", "x", citations=[CITATION]),
            message("assistant", "x", citations=[]),
            id="citations",
        ),
    ],
)
def test_other_content_has_other_digests(one: bytes, other: bytes) -> None:
    assert CHAT.parse(one).digest != CHAT.parse(other).digest
