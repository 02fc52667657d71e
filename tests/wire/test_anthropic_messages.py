"""Anthropic Messages: what each shape of message is read as."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.drawn import values_with
from tests.wire.anthropic_bodies import IMAGE, MARK, call, message, result
from tests.wire.bodies import text
from tests.wire.reading import read_as, stub_changes_its_part

from mitmcontext.values import MEDIA, Kind, Unreadable
from mitmcontext.wire.anthropic import MESSAGES

LOG = "\n".join(f"  {n}: state={n * 7}; path=/srv/app/{n}.py" for n in range(100))
THINKING = {"type": "thinking", "thinking": "Hm.", "signature": "c2ln"}

# Each message with what its parts are: kind, text, and whether a shorter text may take its place.
SHAPES: list[Any] = [
    pytest.param(
        message("user", "Fix the bug"), [(Kind.TYPED, "Fix the bug", True)], id="a string"
    ),
    pytest.param(
        message("user", [text("Fix"), text("it", **MARK)]),
        [(Kind.TYPED, "Fix", True), (Kind.TYPED, "it", True)],
        id="texts",
    ),
    pytest.param(
        message("user", [text("<system-reminder>\nx\n</system-reminder>"), text("Do it")]),
        [
            (Kind.ENVIRONMENT, "<system-reminder>\nx\n</system-reminder>", True),
            (Kind.TYPED, "Do it", True),
        ],
        id="a client's reminder before what was typed",
    ),
    pytest.param(
        message("user", [text("<environment_details>\n# Files\n</environment_details>")]),
        [(Kind.ENVIRONMENT, "<environment_details>\n# Files\n</environment_details>", True)],
        id="an environment block",
    ),
    pytest.param(
        message("user", "Observation: 1 file\n"),
        [(Kind.RESULT, "Observation: 1 file\n", True)],
        id="an observation as text",
    ),
    pytest.param(message("user", LOG), [(Kind.RESULT, LOG, True)], id="a log as text"),
    pytest.param(message("assistant", "Sure."), [(Kind.PROSE, "Sure.", True)], id="an answer"),
    pytest.param(
        message("assistant", "Observation: I never say that"),
        [(Kind.PROSE, "Observation: I never say that", True)],
        id="an answer that looks like an observation",
    ),
    pytest.param(
        message("assistant", [THINKING, text("I read it."), call(**MARK)]),
        [
            (Kind.THINKING, "Hm.", False),
            (Kind.PROSE, "I read it.", True),
            (Kind.CALL, 'Read {"path": "a b"}', False),
        ],
        id="thinking, text and a call",
    ),
    pytest.param(
        message("assistant", [{"type": "redacted_thinking", "data": "xyz"}]),
        [(Kind.THINKING, "", False)],
        id="redacted thinking",
    ),
    pytest.param(
        message("user", [result("one\ntwo", is_error=True)]),
        [(Kind.RESULT, "one\ntwo", True)],
        id="a result",
    ),
    pytest.param(
        message("user", [result([text("one"), text("two", **MARK)])]),
        [(Kind.RESULT, "one\ntwo", True)],
        id="a result in blocks",
    ),
    pytest.param(message("user", [result()]), [(Kind.RESULT, "", False)], id="an empty result"),
    pytest.param(message("user", [result([])]), [(Kind.RESULT, "", True)], id="a result of none"),
    pytest.param(
        message("user", [result([text("shot"), IMAGE])]),
        [(Kind.RESULT, "shot", True)],
        id="a result with an image",
    ),
    pytest.param(
        message("user", [result([text("x", citations=[])])]),
        [(Kind.RESULT, "x", False)],
        id="a result with something unknown about its text",
    ),
    pytest.param(
        message("user", [result("1"), result("2", "toolu_2", **MARK), text("and now?")]),
        [(Kind.RESULT, "1", True), (Kind.RESULT, "2", True), (Kind.TYPED, "and now?", True)],
        id="results and what was typed meanwhile",
    ),
    pytest.param(
        message("user", [IMAGE, text("What is it?")]),
        [(Kind.IMAGE, "", True), (Kind.TYPED, "What is it?", True)],
        id="an image",
    ),
    pytest.param(
        message("user", [{"type": "document", "source": {"type": "url", "url": "u"}}]),
        [(Kind.DOCUMENT, '{"type": "document", "source": {"type": "url", "url": "u"}}', True)],
        id="a document",
    ),
    pytest.param(
        message("assistant", [{"type": "server_tool_use", "id": "s", "name": "w", "input": {}}]),
        [(Kind.OPAQUE, '{"type": "server_tool_use", "id": "s", "name": "w", "input": {}}', False)],
        id="a call of the provider's own tool",
    ),
    pytest.param(
        message("assistant", [text("x", citations=[{"type": "char_location"}])]),
        [
            (
                Kind.OPAQUE,
                '{"type": "text", "text": "x", "citations": [{"type": "char_location"}]}',
                False,
            )
        ],
        id="a text with citations",
    ),
    pytest.param(
        message("assistant", [{"type": "compaction", "content": "so far"}]),
        [(Kind.OPAQUE, '{"type": "compaction", "content": "so far"}', False)],
        id="the provider's own compaction",
    ),
    pytest.param(
        message("assistant", [{"type": "tool_use", "id": "toolu_1", "name": "Read"}]),
        [(Kind.OPAQUE, '{"type": "tool_use", "id": "toolu_1", "name": "Read"}', False)],
        id="a call without input",
    ),
    pytest.param(
        message("user", [{"type": "text"}]),
        [(Kind.OPAQUE, '{"type": "text"}', False)],
        id="a text without text",
    ),
    pytest.param(message("user", []), [], id="nothing"),
]


@pytest.mark.parametrize(("raw", "parts"), SHAPES)
def test_messages_are_read_as_what_they_are(
    raw: bytes, parts: list[tuple[Kind, str, bool]]
) -> None:
    found = read_as(MESSAGES, raw, parts)
    assert found.role == json.loads(raw)["role"]
    for part in found.parts:
        assert part.span.start < part.span.end
        if part.value and part.kind not in (Kind.RESULT, *MEDIA):
            assert json.loads(raw[slice(*part.value)]) == part.text


@pytest.mark.parametrize(("raw", "parts"), SHAPES)
def test_a_stub_changes_the_value_and_nothing_else(raw: bytes, parts: object) -> None:
    stub_changes_its_part(MESSAGES, raw)


def test_calls_and_results_are_tied_by_id() -> None:
    called = MESSAGES.parse(message("assistant", [call("toolu_a"), call("toolu_b")]))
    assert [(p.call_id, p.name) for p in called.parts] == [("toolu_a", "Read"), ("toolu_b", "Read")]
    answered = MESSAGES.parse(message("user", [result("x", "toolu_b"), text("go on")]))
    assert [p.call_id for p in answered.parts] == ["toolu_b", ""]


def test_markers_are_counted_where_they_stand() -> None:
    raw = message("user", [result("x", **MARK), text("a"), text("b", **MARK)])
    found = MESSAGES.parse(raw)
    assert ([p.marked for p in found.parts], found.markers) == ([True, False, True], 2)


def test_a_marker_within_a_result_stays_when_it_is_shortened() -> None:
    raw = message("user", [result([text("one"), text("two", **MARK)])])
    (part,) = MESSAGES.parse(raw).parts
    assert part.value
    new = json.loads(MESSAGES.replacement(raw[slice(*part.value)], "stub"))
    assert new == [text("stub", **MARK)]


def test_images_are_counted() -> None:
    (part,) = MESSAGES.parse(message("user", [result([IMAGE, text("x"), IMAGE])])).parts
    assert part.images == 2
    (part,) = MESSAGES.parse(message("user", [IMAGE])).parts
    assert part.images == 1


def test_data_of_an_unknown_item_does_not_count_as_text() -> None:
    document = {"type": "document", "source": {"type": "base64", "data": "QUJD" * 5_000}}
    (part,) = MESSAGES.parse(message("user", [document])).parts
    assert len(part.text) < 100


# Odd messages are kept whole, and hinder nothing.


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(message("system", "Be brief."), id="role system"),
        pytest.param(
            message("system", [text("x", **MARK)], output_config={"effort": "high"}),
            id="role system with a setting",
        ),
        pytest.param(message("user", "x", id="msg_1"), id="an unknown key"),
        pytest.param(rb'{"role":"user","content":"\ud800"}', id="a lone surrogate"),
        pytest.param(
            rb'{"role":"user","content":[{"type":"tool_result","tool_use_id":"a",'
            rb'"content":[{"type":"text","text":"\udfff"}]}]}',
            id="a lone surrogate within a result",
        ),
        pytest.param(message("tool", "x"), id="an unknown role"),
    ],
)
def test_what_is_odd_is_not_edited(raw: bytes) -> None:
    assert not MESSAGES.parse(raw).editable


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(b"[]", id="an array"),
        pytest.param(b"{}", id="an empty object"),
        pytest.param(b'{"role":"user"}', id="no content"),
        pytest.param(b'{"content":"x"}', id="no role"),
        pytest.param(b'{"role":1,"content":"x"}', id="a role that is a number"),
        pytest.param(b'{"role":"user","content":null}', id="content null"),
        pytest.param(b'{"role":"user","content":1}', id="content a number"),
        pytest.param(b'{"role":"user","content":{}}', id="content an object"),
        pytest.param(b'{"role":"user","content":["x"]}', id="a block that is a string"),
        pytest.param(b'{"role":"user","content":[{}]}', id="a block without type"),
        pytest.param(b'{"role":"user","content":[{"type":null}]}', id="a type that is null"),
        pytest.param(
            b'{"role":"user","content":[{"type":"text","text":{}}]}', id="a text that is none"
        ),
        pytest.param(b'{"role":"user","content":"x","content":"y"}', id="two contents"),
        pytest.param(
            rb'{"role":"user","content":"x","c\u006fntent":"y"}', id="one of them escaped"
        ),
        pytest.param(
            b'{"role":"user","content":[{"type":"text","text":"a","text":"b"}]}', id="two texts"
        ),
        pytest.param(
            b'{"role":"user","content":[{"type":"tool_result","tool_use_id":"a","content":1}]}',
            id="a result that is a number",
        ),
        pytest.param(
            b'{"role":"user","content":[{"type":"tool_result","tool_use_id":1}]}',
            id="a call id that is a number",
        ),
        pytest.param(
            b'{"role":"user","content":[{"type":"tool_result","tool_use_id":"a","content":["x"]}]}',
            id="a result of bare strings",
        ),
        pytest.param(
            b'{"role":"user","content":[{"type":"x","y":'
            + b"[" * 100_000
            + b"]" * 100_000
            + b"}]}",
            id="nested too deeply",
        ),
    ],
)
def test_what_is_no_message_is_unreadable(raw: bytes) -> None:
    with pytest.raises(Unreadable):
        MESSAGES.parse(raw)


json_values = values_with(
    ["type", "text", "content", "id", "input", "tool_use_id", "x"],
    ["text", "tool_use", "tool_result", "thinking", "image"],
)


@given(st.sampled_from(["user", "assistant", "system", "?"]), json_values)
def test_whatever_stands_in_a_message_is_read_or_refused(role: str, content: Any) -> None:
    raw = message(role, content)
    try:
        found = MESSAGES.parse(raw)
    except Unreadable:
        return
    for part in found.parts:
        json.loads(raw[slice(*part.span)])
