"""Ollama: what each shape of message is read as, and which are the same."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.drawn import values_with
from tests.wire.bodies import message
from tests.wire.reading import read_as, stub_changes_its_part

from loopback import rules_ollama
from loopback.counting import model_named
from mitmcontext.condense.units import units, unpaired
from mitmcontext.values import Kind, Unreadable
from mitmcontext.wire.ollama import CHAT

IMAGE = "iVBO" * 900


def call(**arguments: Any) -> dict[str, Any]:
    return {"function": {"name": "run", "arguments": arguments}}


# Each message with what its parts are: kind, text, and whether a shorter text may take its place.
SHAPES: list[Any] = [
    pytest.param(message("user", "Fix it"), [(Kind.TYPED, "Fix it", True)], id="a question"),
    pytest.param(message("User", "Fix it"), [(Kind.TYPED, "Fix it", True)], id="in any case"),
    pytest.param(message("system", "Be brief"), [(Kind.SYSTEM, "Be brief", True)], id="system"),
    pytest.param(
        message("user", "Observation: done"), [(Kind.RESULT, "Observation: done", True)], id="told"
    ),
    pytest.param(
        message("user", "What is it?", images=[IMAGE, IMAGE]),
        [(Kind.TYPED, "What is it?", True), (Kind.IMAGE, "", False), (Kind.IMAGE, "", False)],
        id="images",
    ),
    pytest.param(
        message("assistant", "Sure.", thinking="Hm."),
        [(Kind.THINKING, "Hm.", False), (Kind.PROSE, "Sure.", True)],
        id="thinks",
    ),
    pytest.param(
        message("assistant", "", tool_calls=[call(a=1), {"id": "x", **call(b=[])}]),
        [
            (Kind.PROSE, "", True),
            (Kind.CALL, 'run {"a": 1}', False),
            (Kind.CALL, 'run {"b": []}', False),
        ],
        id="calls",
    ),
    pytest.param(
        message("assistant", tool_calls=[{"function": {"name": "run", "arguments": "{}"}}]),
        [(Kind.CALL, "run {}", False)],
        id="arguments as text",
    ),
    pytest.param(
        message("tool", "one\ntwo", tool_name="run"), [(Kind.RESULT, "one\ntwo", True)], id="result"
    ),
    pytest.param(message("tool"), [(Kind.RESULT, "", False)], id="a result without text"),
    pytest.param(
        message("tool", "see", images=[IMAGE]),
        [(Kind.RESULT, "see", True), (Kind.IMAGE, "", False)],
        id="a result with an image",
    ),
    pytest.param(
        message("assistant", "x", thinking="", images=None, tool_calls=None),
        [(Kind.PROSE, "x", True)],
        id="nulls",
    ),
    pytest.param(message("user", None), [], id="null"),
    pytest.param(message("assistant"), [], id="nothing"),
]


@pytest.mark.parametrize(("raw", "parts"), SHAPES)
def test_messages_are_read_as_what_they_are(
    raw: bytes, parts: list[tuple[Kind, str, bool]]
) -> None:
    found = read_as(CHAT, raw, parts)
    assert found.markers == 0
    for part in found.parts:
        if part.value:
            assert json.loads(raw[slice(*part.value)]) == part.text


@pytest.mark.parametrize(("raw", "parts"), SHAPES)
def test_a_stub_changes_the_value_and_nothing_else(raw: bytes, parts: object) -> None:
    stub_changes_its_part(CHAT, raw)


def test_calls_and_results_are_tied_by_their_order() -> None:
    asked = CHAT.parse(message("assistant", "", tool_calls=[call(a=1), call(a=2)]))
    result = CHAT.parse(message("tool", "x", tool_name="run"))
    user = CHAT.parse(message("user", "a"))
    assert not unpaired([user, asked, result, result])
    assert [tuple(span) for span in units([user, asked, result, result, user])] == [
        (0, 1),
        (1, 4),
        (4, 5),
    ]
    assert unpaired([user, asked, result, user])
    assert unpaired([user, asked, result, result, result])
    assert unpaired([user, result])


def test_unknown_keys_are_kept_whole() -> None:
    plain, odd = CHAT.parse(message("user", "x")), CHAT.parse(message("user", "x", mood="good"))
    assert plain.editable
    assert not odd.editable
    assert plain.digest != odd.digest


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(rb'{"role":"user","content":"\ud800"}', id="in a text"),
        pytest.param(
            rb'{"role":"assistant","tool_calls":[{"function":{"name":"f","arguments":{"a":"\udc00"}}}]}',
            id="in a call",
        ),
        pytest.param(rb'{"role":"assistant","content":"x","thinking":"\ud800"}', id="in thinking"),
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
        pytest.param(b'{"role":1,"content":"x"}', id="a role of 1"),
        pytest.param(b'{"role":"thinking","content":"x"}', id="an unknown role"),
        pytest.param(b'{"role":"user","content":1}', id="content a number"),
        pytest.param(b'{"role":"user","content":["x"]}', id="content a list"),
        pytest.param(b'{"role":"user","content":"x","content":"y"}', id="two contents"),
        pytest.param(rb'{"role":"user","content":"x","c\u006fntent":"y"}', id="one of two escaped"),
        pytest.param(b'{"role":"user","content":"x","images":"y"}', id="images a string"),
        pytest.param(b'{"role":"assistant","thinking":["x"]}', id="thinking a list"),
        pytest.param(b'{"role":"assistant","tool_calls":{}}', id="calls an object"),
        pytest.param(b'{"role":"assistant","tool_calls":["x"]}', id="a call that is a string"),
        pytest.param(b'{"role":"assistant","tool_calls":[{}]}', id="a call of nothing"),
        pytest.param(b'{"role":"assistant","tool_calls":[{"function":"f"}]}', id="a bare function"),
        pytest.param(
            b'{"role":"assistant","tool_calls":[{"function":{"name":1}}]}', id="a name of 1"
        ),
        pytest.param(
            b'{"role":"user","content":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
            id="nested too deeply",
        ),
    ],
)
def test_what_is_no_message_is_unreadable(raw: bytes) -> None:
    with pytest.raises(Unreadable):
        CHAT.parse(raw)


json_values = values_with(["function", "name", "arguments", "id"])
KEYS = ["content", "thinking", "images", "tool_calls", "tool_name", "name"]


@given(
    st.sampled_from(["user", "assistant", "tool", "system"]),
    st.dictionaries(st.sampled_from(KEYS), json_values),
)
def test_whatever_stands_in_a_message_is_read_or_refused(role: str, others: dict[str, Any]) -> None:
    raw = message(role, **others)
    try:
        found = CHAT.parse(raw)
    except Unreadable:
        return
    for part in found.parts:
        if part.span != (0, 0):
            json.loads(raw[slice(*part.span)])


@given(st.dictionaries(st.sampled_from(KEYS), json_values), st.text())
def test_a_shortened_message_is_taken_wherever_the_first_one_was(
    others: dict[str, Any], text: str
) -> None:
    raw = message("user", **others)
    try:
        found = CHAT.parse(raw)
    except Unreadable:
        return
    for part in found.parts:
        if part.value is None:
            continue
        start, end = part.value
        made = raw[:start] + CHAT.replacement(raw[start:end], text) + raw[end:]
        assert json.loads(made) == {**json.loads(raw), "content": text}
        if accepts(raw):
            assert accepts(made)


def accepts(raw: bytes) -> bool:
    body = {"model": "m", "messages": [json.loads(raw)]}
    return rules_ollama.check(body, rules_ollama.Memory(), None, model_named("m")) is None


@pytest.mark.parametrize(
    ("one", "other"),
    [
        pytest.param(
            b'{"role":"user","content":"x"}', b'{ "content":"x", "role":"user" }', id="order"
        ),
        pytest.param(message("assistant", "x", thinking=""), message("assistant", "x"), id="empty"),
        pytest.param(message("USER", "x"), message("user", "x"), id="a role's case"),
        pytest.param(message("user", "x", images=None), message("user", "x"), id="null or nothing"),
    ],
)
def test_equal_content_has_equal_digests(one: bytes, other: bytes) -> None:
    assert CHAT.parse(one).digest == CHAT.parse(other).digest


@pytest.mark.parametrize(
    ("one", "other"),
    [
        pytest.param(message("user", "x"), message("assistant", "x"), id="roles"),
        pytest.param(message("user", "x"), message("user", "y"), id="texts"),
        pytest.param(
            message("tool", "x", tool_name="a"), message("tool", "x", tool_name="b"), id="names"
        ),
        pytest.param(
            message("assistant", "x", thinking="a"),
            message("assistant", "x", thinking="b"),
            id="thinking",
        ),
        pytest.param(
            message("user", "x", images=["aaaa"]),
            message("user", "x", images=["bbbb"]),
            id="images",
        ),
        pytest.param(
            message("assistant", tool_calls=[call(a=1)]),
            message("assistant", tool_calls=[call(a=2)]),
            id="arguments",
        ),
        pytest.param(
            message("assistant", tool_calls=[{"id": "a", **call()}]),
            message("assistant", tool_calls=[{"id": "b", **call()}]),
            id="ids of calls",
        ),
    ],
)
def test_other_content_has_other_digests(one: bytes, other: bytes) -> None:
    assert CHAT.parse(one).digest != CHAT.parse(other).digest
