"""OpenAI Chat Completions: what each shape of message is read as, and which are the same."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.drawn import values_with
from tests.wire.bodies import message, text
from tests.wire.reading import read_as, stub_changes_its_part

from mitmcontext.values import MEDIA, Kind, Unreadable
from mitmcontext.wire.openai_chat import CHAT

MARK: dict[str, Any] = {"cache_control": {"type": "ephemeral"}}


def call(id_: str = "call_1", arguments: str = '{"a": 1}') -> dict[str, Any]:
    return {"id": id_, "type": "function", "function": {"name": "run", "arguments": arguments}}


IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "iVBO" * 900}}
AUDIO = {"type": "input_audio", "input_audio": {"data": "AAAA" * 900, "format": "wav"}}

# Each message with what its parts are: kind, text, and whether a shorter text may take its place.
SHAPES: list[Any] = [
    pytest.param(message("user", "Fix it"), [(Kind.TYPED, "Fix it", True)], id="a string"),
    pytest.param(message("system", "Be brief"), [(Kind.SYSTEM, "Be brief", True)], id="system"),
    pytest.param(
        message("developer", [text("Be brief")]), [(Kind.SYSTEM, "Be brief", True)], id="developer"
    ),
    pytest.param(
        message("user", [text("Fix", **MARK), text("it")], name="ann"),
        [(Kind.TYPED, "Fix", True), (Kind.TYPED, "it", True)],
        id="texts",
    ),
    pytest.param(
        message("user", [text("What is it?"), IMAGE]),
        [(Kind.TYPED, "What is it?", True), (Kind.IMAGE, "", True)],
        id="an image",
    ),
    pytest.param(
        message("user", "<returncode>0</returncode>\n<output>\nx\n</output>"),
        [(Kind.RESULT, "<returncode>0</returncode>\n<output>\nx\n</output>", True)],
        id="an observation as text",
    ),
    pytest.param(
        message("user", [text("[read_file for 'a.py'] Result:"), text("<environment_details>x")]),
        [
            (Kind.RESULT, "[read_file for 'a.py'] Result:", True),
            (Kind.ENVIRONMENT, "<environment_details>x", True),
        ],
        id="a result as text, and an environment block",
    ),
    pytest.param(message("assistant", "Sure."), [(Kind.PROSE, "Sure.", True)], id="an answer"),
    pytest.param(
        message("assistant", None, tool_calls=[call()]),
        [(Kind.CALL, 'run {"a": 1}', False)],
        id="a call",
    ),
    pytest.param(
        message("assistant", tool_calls=[call()]),
        [(Kind.CALL, 'run {"a": 1}', False)],
        id="a call without content",
    ),
    pytest.param(
        message("assistant", "", tool_calls=[call(), call("call_2")]),
        [
            (Kind.PROSE, "", True),
            (Kind.CALL, 'run {"a": 1}', False),
            (Kind.CALL, 'run {"a": 1}', False),
        ],
        id="parallel calls",
    ),
    pytest.param(
        message(
            "assistant",
            None,
            tool_calls=[{"id": "c", "type": "custom", "custom": {"name": "sh", "input": "ls -l"}}],
        ),
        [(Kind.CALL, "sh ls -l", False)],
        id="a custom tool",
    ),
    pytest.param(
        message("assistant", "x", tool_calls=None, function_call=None, refusal=None, audio=None),
        [(Kind.PROSE, "x", True)],
        id="nulls",
    ),
    pytest.param(message("assistant", "x", tool_calls=[]), [(Kind.PROSE, "x", True)], id="no call"),
    pytest.param(
        message("assistant", None, function_call={"name": "run", "arguments": "{}"}),
        [(Kind.CALL, "run {}", False)],
        id="the older form of a call",
    ),
    pytest.param(
        message("function", "done", name="run"), [(Kind.RESULT, "done", True)], id="and its result"
    ),
    pytest.param(
        message("tool", "one\ntwo", tool_call_id="call_1"),
        [(Kind.RESULT, "one\ntwo", True)],
        id="a result",
    ),
    pytest.param(
        message("tool", [text("one"), text("two")], tool_call_id="call_1"),
        [(Kind.RESULT, "one", True), (Kind.RESULT, "two", True)],
        id="a result in parts",
    ),
    pytest.param(
        message("tool", [IMAGE], tool_call_id="call_1"),
        [(Kind.IMAGE, "", True)],
        id="a result that is an image",
    ),
    pytest.param(
        message("assistant", None, refusal="No."), [(Kind.OPAQUE, '"No."', False)], id="a refusal"
    ),
    pytest.param(
        message("assistant", None, audio={"id": "audio_1"}),
        [(Kind.OPAQUE, '{"id": "audio_1"}', False)],
        id="a spoken answer",
    ),
    pytest.param(
        message("user", [AUDIO]),
        [
            (
                Kind.OPAQUE,
                '{"type": "input_audio", "input_audio": {"data": "", "format": "wav"}}',
                False,
            )
        ],
        id="spoken input, its data left out",
    ),
    pytest.param(
        message("assistant", [{"type": "refusal", "refusal": "No."}]),
        [(Kind.OPAQUE, '{"type": "refusal", "refusal": "No."}', False)],
        id="a refusal as a part",
    ),
    pytest.param(
        message("user", [{"type": "text"}]), [(Kind.OPAQUE, '{"type": "text"}', False)], id="odd"
    ),
    pytest.param(
        message("assistant", "x", reasoning_content="Hm."),
        [(Kind.PROSE, "x", True), (Kind.ENVIRONMENT, "Hm.", False)],
        id="reasons",
    ),
    pytest.param(message("user", None), [], id="null"),
    pytest.param(message("user"), [], id="nothing"),
    pytest.param(message("user", []), [], id="no parts"),
]


@pytest.mark.parametrize(("raw", "parts"), SHAPES)
def test_messages_are_read_as_what_they_are(
    raw: bytes, parts: list[tuple[Kind, str, bool]]
) -> None:
    for part in read_as(CHAT, raw, parts).parts:
        assert part.span.start < part.span.end
        if part.value and part.kind not in MEDIA:
            assert json.loads(raw[slice(*part.value)]) == part.text


@pytest.mark.parametrize(("raw", "parts"), SHAPES)
def test_a_stub_changes_the_value_and_nothing_else(raw: bytes, parts: object) -> None:
    stub_changes_its_part(CHAT, raw)


def test_calls_and_results_are_tied() -> None:
    called = CHAT.parse(message("assistant", None, tool_calls=[call("a"), call("b")]))
    assert [(p.call_id, p.name) for p in called.parts] == [("a", "run"), ("b", "run")]
    answered = CHAT.parse(message("tool", [text("x"), IMAGE], tool_call_id="b"))
    assert [p.call_id for p in answered.parts] == ["b", "b"]
    older = CHAT.parse(message("assistant", None, function_call={"name": "f", "arguments": ""}))
    result = CHAT.parse(message("function", "x", name="f"))
    assert [(p.call_id, p.name) for p in (*older.parts, *result.parts)] == [("", "f"), ("", "f")]


def test_markers_are_counted_where_they_stand() -> None:
    parts = CHAT.parse(message("user", [text("a", **MARK), text("b"), {**IMAGE, **MARK}]))
    assert ([p.marked for p in parts.parts], parts.markers) == ([True, False, True], 2)
    assert CHAT.parse(message("tool", "x", tool_call_id="a", **MARK)).markers == 1


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(rb'{"role":"user","content":"\ud800"}', id="in a text"),
        pytest.param(
            rb'{"role":"assistant","tool_calls":[{"id":"a","function":{"name":"f",'
            rb'"arguments":"\udc00"}}]}',
            id="in a call",
        ),
        pytest.param(
            rb'{"role":"tool","tool_call_id":"a","content":[{"type":"text","text":"\ud800"}]}',
            id="in a result",
        ),
        pytest.param(rb'{"role":"user","content":"x","name":"\ud800"}', id="elsewhere"),
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
        pytest.param(b'{"role":null,"content":"x"}', id="a role that is null"),
        pytest.param(b'{"role":"critic","content":"x"}', id="an unknown role"),
        pytest.param(b'{"role":"user","content":1}', id="content a number"),
        pytest.param(b'{"role":"user","content":{"text":"x"}}', id="content an object"),
        pytest.param(b'{"role":"user","content":["x"]}', id="a part that is a string"),
        pytest.param(
            b'{"role":"user","content":[{"type":"text","text":1}]}', id="a text of numbers"
        ),
        pytest.param(b'{"role":"user","role":"tool","content":"x"}', id="two roles"),
        pytest.param(rb'{"role":"user","content":"x","c\u006fntent":"y"}', id="one of two escaped"),
        pytest.param(
            b'{"role":"tool","content":"x","tool_call_id":7}', id="an id that is a number"
        ),
        pytest.param(b'{"role":"assistant","tool_calls":[{"type":"function"}]}', id="no id"),
        pytest.param(b'{"role":"assistant","tool_calls":["x"]}', id="a call that is a string"),
        pytest.param(
            b'{"role":"assistant","tool_calls":[{"id":"a","function":{"name":1}}]}',
            id="a name of 1",
        ),
        pytest.param(
            b'{"role":"assistant","tool_calls":[{"id":"a","function":"f"}]}', id="a bare function"
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


json_values = values_with(
    ["type", "text", "id", "function", "name", "arguments", "custom"],
    ["text", "function", "image_url"],
)


@given(
    st.sampled_from(["user", "assistant", "tool", "function"]),
    st.dictionaries(
        st.sampled_from(
            ["content", "tool_calls", "function_call", "refusal", "audio", "name", "tool_call_id"]
        ),
        json_values,
    ),
)
def test_whatever_stands_in_a_message_is_read_or_refused(role: str, others: dict[str, Any]) -> None:
    raw = message(role, **others)
    try:
        found = CHAT.parse(raw)
    except Unreadable:
        return
    for part in found.parts:
        # A result without content stands nowhere, and answers its call all the same.
        if part.span != (0, 0):
            json.loads(raw[slice(*part.span)])
        else:
            assert part.kind is Kind.RESULT
            assert "content" not in others


# The same message, sent again.


@pytest.mark.parametrize(
    ("one", "other"),
    [
        pytest.param(message("user", "x"), message("user", [text("x")]), id="string or text"),
        pytest.param(message("user", [text("x", **MARK)]), message("user", "x"), id="a marker"),
        pytest.param(message("tool", "x", **MARK), message("tool", "x"), id="beside the content"),
        pytest.param(
            message("assistant", None, tool_calls=[call()]),
            message("assistant", tool_calls=[call()]),
            id="null or nothing",
        ),
        pytest.param(
            message("assistant", "x", refusal=None, audio=None, tool_calls=None),
            message("assistant", "x"),
            id="more nulls",
        ),
        pytest.param(
            b'{"role":"user","content":"x"}', b'{ "content":"x", "role":"user" }', id="order"
        ),
    ],
)
def test_equal_content_has_equal_digests(one: bytes, other: bytes) -> None:
    first, second = CHAT.parse(one), CHAT.parse(other)
    assert first.digest == second.digest
    assert [p.digest for p in first.parts] == [p.digest for p in second.parts]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        pytest.param(message("user", "x"), message("assistant", "x"), id="roles"),
        pytest.param(message("user", "x"), message("user", "y"), id="texts"),
        pytest.param(message("user", "xy"), message("user", [text("x"), text("y")]), id="a cut"),
        pytest.param(message("user", "x"), message("user", "x", name="ann"), id="names"),
        pytest.param(
            message("tool", "x", tool_call_id="a"), message("tool", "x", tool_call_id="b"), id="ids"
        ),
        pytest.param(
            message("assistant", None, tool_calls=[call(arguments="1")]),
            message("assistant", None, tool_calls=[call(arguments="2")]),
            id="arguments",
        ),
        pytest.param(
            message("assistant", None, tool_calls=[call("a")]),
            message("assistant", None, tool_calls=[call("b")]),
            id="ids of calls",
        ),
        pytest.param(
            message("assistant", "x", refusal="No."), message("assistant", "x"), id="a refusal"
        ),
        pytest.param(
            message("assistant", "x", reasoning_content="a"),
            message("assistant", "x", reasoning_content="b"),
            id="other keys",
        ),
        pytest.param(
            rb'{"role":"user","content":"\ud800"}',
            rb'{"role":"user","content":"\ud801"}',
            id="lone surrogates",
        ),
    ],
)
def test_other_content_has_other_digests(one: bytes, other: bytes) -> None:
    assert CHAT.parse(one).digest != CHAT.parse(other).digest
