"""Anthropic Messages: what each shape of request and message is read as."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mitmcontext.values import MEDIA, Kind, Span, Standing, Unreadable, Usage
from mitmcontext.wire import api_for
from mitmcontext.wire.anthropic import MESSAGES
from mitmcontext.wire.api import system_texts, tool_count

MARK: dict[str, Any] = {"cache_control": {"type": "ephemeral"}}
LOG = "\n".join(f"  {n}: state={n * 7}; path=/srv/app/{n}.py" for n in range(100))


def dumped(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()


def message(role: str, content: Any, **others: Any) -> bytes:
    return dumped({"role": role, "content": content, **others})


def text(said: str, **others: Any) -> dict[str, Any]:
    return {"type": "text", "text": said, **others}


def result(content: Any = None, id_: str = "toolu_1", **others: Any) -> dict[str, Any]:
    held = {} if content is None else {"content": content}
    return {"type": "tool_result", "tool_use_id": id_, **held, **others}


def call(id_: str = "toolu_1", **others: Any) -> dict[str, Any]:
    return {"type": "tool_use", "id": id_, "name": "Read", "input": {"path": "a b"}, **others}


IMAGE = {
    "type": "image",
    "source": {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo" * 300},
}
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
    found = MESSAGES.parse(raw)
    assert [(p.kind, p.text, p.value is not None) for p in found.parts] == parts
    assert found.editable
    assert found.role == json.loads(raw)["role"]
    for part in found.parts:
        value = part.value or part.span
        assert part.span.start <= value.start < value.end <= part.span.end
        if part.value and part.kind not in (Kind.RESULT, *MEDIA):
            assert json.loads(raw[slice(*value)]) == part.text


@pytest.mark.parametrize(("raw", "parts"), SHAPES)
def test_a_stub_changes_the_value_and_nothing_else(raw: bytes, parts: object) -> None:
    for index, part in enumerate(MESSAGES.parse(raw).parts):
        if part.value is None:
            continue
        start, end = part.value
        new = MESSAGES.in_place_of(part, raw[start:end], 'short "text"\n')
        after = MESSAGES.parse(raw[:start] + new + raw[end:])
        assert after.parts[index].text == 'short "text"\n'
        assert after.markers == MESSAGES.parse(raw).markers
        others = [p.digest for at, p in enumerate(after.parts) if at != index]
        before = MESSAGES.parse(raw).parts
        assert others == [p.digest for at, p in enumerate(before) if at != index]


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


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["type", "text", "content", "id", "input", "tool_use_id", "x"]),
            inner | st.sampled_from(["text", "tool_use", "tool_result", "thinking", "image"]),
            max_size=4,
        )
    ),
    max_leaves=12,
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


# The same message, sent again.


@pytest.mark.parametrize(
    ("one", "other"),
    [
        pytest.param("x", [text("x")], id="a string is a single text"),
        pytest.param([text("x", **MARK)], "x", id="a marker goes and the block becomes a string"),
        pytest.param([text("x"), call(**MARK)], [text("x", **MARK), call()], id="a marker moves"),
        pytest.param([result("x", **MARK)], [result("x")], id="a marker leaves a result"),
        pytest.param([result("x")], [result([text("x")])], id="a result as string or text"),
        pytest.param(
            [result([text("x", **MARK)])], [result("x", **MARK)], id="a marker within a result"
        ),
        pytest.param(
            [result([text("x", **MARK), IMAGE])],
            [result([text("x"), IMAGE])],
            id="a marker beside an image",
        ),
        pytest.param(
            [text("x", cache_control={"type": "ephemeral", "ttl": "1h"})],
            [text("x", **MARK)],
            id="another time to live",
        ),
    ],
)
@pytest.mark.parametrize("role", ["user", "assistant", "system"])
def test_equal_content_has_equal_digests(role: str, one: Any, other: Any) -> None:
    first, second = (MESSAGES.parse(message(role, content)) for content in (one, other))
    assert first.digest == second.digest
    assert [p.digest for p in first.parts] == [p.digest for p in second.parts]


def test_the_order_of_keys_does_not_matter() -> None:
    one = b'{"role":"user","content":[{"type":"text","text":"x"}]}'
    other = b'{ "content" : [ {"text":"x", "type":"text"} ] , "role":"user"}'
    assert MESSAGES.parse(one).digest == MESSAGES.parse(other).digest


@pytest.mark.parametrize(
    ("one", "other"),
    [
        pytest.param(message("user", "x"), message("assistant", "x"), id="roles"),
        pytest.param(message("user", "x"), message("user", "y"), id="texts"),
        pytest.param(message("user", "xy"), message("user", [text("x"), text("y")]), id="a cut"),
        pytest.param(
            message("user", [result("x", "a")]), message("user", [result("x", "b")]), id="ids"
        ),
        pytest.param(
            message("user", [result("x")]), message("user", [result("x", is_error=True)]), id="flag"
        ),
        pytest.param(message("user", [result("x")]), message("user", [text("x")]), id="kinds"),
        pytest.param(message("system", "x", a=1), message("system", "x", b=1), id="other keys"),
        pytest.param(
            rb'{"role":"user","content":"\ud800"}',
            rb'{"role":"user","content":"\ud801"}',
            id="lone surrogates",
        ),
        pytest.param(
            message("user", [result([{"type": "text", "text": "x"}])]),
            message("user", [result([{"type": "html", "text": "x"}])]),
            id="a block that only looks like a text",
        ),
    ],
)
def test_other_content_has_other_digests(one: bytes, other: bytes) -> None:
    assert MESSAGES.parse(one).digest != MESSAGES.parse(other).digest


# Requests.


def request(**others: Any) -> bytes:
    body = {"model": "claude-opus-4-5", "max_tokens": 100, "messages": [], **others}
    body["messages"] = others.get("messages", [{"role": "user", "content": "hi"}])
    return dumped(body)


def test_a_request_is_found_where_it_stands() -> None:
    body = (
        b' {"model" : "claude-x", "temperature":1E2,"messages": [ {"role":"user","content":"a"} ,\n'
        b'{"role":"assistant","content":[]}],"system":"be brief","tools":[{"name":"t"}],'
        b'"stream":true,"max_tokens":4096} '
    )
    found = MESSAGES.read(body)
    assert found.raw(0) == b'{"role":"user","content":"a"}'
    assert found.raw(1) == b'{"role":"assistant","content":[]}'
    assert body[slice(*found.array)].startswith(b"[ {")
    assert (found.model, found.max_output, found.stream) == ("claude-x", 4096, True)
    assert found.system is not None
    assert body[slice(*found.system)] == b'"be brief"'
    assert (system_texts(found), tool_count(found)) == ([(b'"be brief"', "be brief")], 1)
    assert not found.attested


def test_a_system_prompt_in_pieces() -> None:
    found = MESSAGES.read(request(system=[text("one"), text("two", **MARK)]))
    assert [said for _, said in system_texts(found)] == ["one", "two"]
    assert [raw for raw, _ in system_texts(found)] == [b'"one"', b'"two"']


@pytest.mark.parametrize(
    ("system", "attested"),
    [
        ([text("x-anthropic-billing-header: cc_version=2.1; cch=1a2b3;"), text("You are")], True),
        ([text("x-anthropic-billing-header: cc_version=2.1;"), text("cch=1")], False),
        ("You are", False),
        (None, False),
    ],
)
def test_attested_requests_are_told_apart(system: Any, attested: bool) -> None:
    assert MESSAGES.read(request(system=system)).attested == attested


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"[]", id="an array"),
        pytest.param(b'{"messages":[{"role":"user","content":"x"}]}', id="no model"),
        pytest.param(b'{"model":"m"}', id="no messages"),
        pytest.param(b'{"model":"m","messages":[]}', id="empty messages"),
        pytest.param(b'{"model":"m","messages":{}}', id="messages an object"),
        pytest.param(b'{"model":"m","messages":null}', id="messages null"),
        pytest.param(b'{"model":"m","messages":["x"]}', id="messages of strings"),
        pytest.param(b'{"model":["m"],"messages":[{}]}', id="model a list"),
        pytest.param(b'{"model":"m","messages":[{}],"messages":[{}]}', id="two messages"),
        pytest.param(rb'{"model":"m","messages":[{}],"m\u0065ssages":[{}]}', id="one escaped"),
        pytest.param(b'{"model":"m","model":"n","messages":[{}]}', id="two models"),
        pytest.param(
            b'{"model":"m","messages":[{}],"max_tokens":1,"max_tokens":2}', id="two limits"
        ),
        pytest.param(b'{"model":"\xff","messages":[{}]}', id="not UTF-8"),
        pytest.param(b'{"model":"m","messages":[{}]', id="cut off"),
        pytest.param(b'{"model":"m","messages":[{}]}{}', id="two values"),
    ],
)
def test_what_is_no_request_is_unreadable(body: bytes) -> None:
    with pytest.raises(Unreadable):
        MESSAGES.read(body)


def test_keys_that_decide_nothing_may_repeat() -> None:
    body = rb'{"x":1,"model":"m","x":"\ud800","messages":[{"role":"user","content":"\udc00"}]}'
    found = MESSAGES.read(body)
    assert found.raw(0) == rb'{"role":"user","content":"\udc00"}'
    assert found.body is body


@pytest.mark.parametrize(("value", "limit"), [("x", None), (1.5, None), (True, None), (None, None)])
def test_an_odd_output_limit_is_none(value: Any, limit: int | None) -> None:
    assert MESSAGES.read(request(max_tokens=value)).max_output is limit


def test_a_message_of_ours_is_a_users_text() -> None:
    said = 'a "b"\n\U0001f600\x00\u2028'
    found = MESSAGES.parse(MESSAGES.user_message(said))
    assert (found.role, [p.text for p in found.parts]) == ("user", [said])


# Which requests, and what they are.


@pytest.mark.parametrize(
    ("method", "path", "ours"),
    [
        ("POST", "/v1/messages", True),
        ("POST", "/v1/messages/count_tokens", True),
        ("POST", "/api/anthropic/v1/messages", True),
        ("GET", "/v1/messages", False),
        ("POST", "/v1/messages/batches", False),
        ("POST", "/v1/messages/batches/b_1/results", False),
        ("POST", "/v1/messages/", False),
        ("POST", "/v1/complete", False),
        ("POST", "/api/event_logging/v2/batch", False),
        ("PUT", "/v1/messages", False),
    ],
)
def test_recognised_by_method_and_path(method: str, path: str, ours: bool) -> None:
    assert (api_for(method, path) is MESSAGES) == ours


@pytest.mark.parametrize(
    ("path", "headers", "body", "standing"),
    [
        pytest.param("/v1/messages", {}, {}, Standing.TURN, id="a turn"),
        pytest.param("/v1/messages/count_tokens", {}, {}, Standing.NO_TURN, id="counting"),
        pytest.param(
            "/v1/messages",
            {"x-claude-code-request-class": "main"},
            {},
            Standing.TURN,
            id="Claude Code's own turn",
        ),
        pytest.param(
            "/v1/messages",
            {"x-claude-code-request-class": "compaction", "x-claude-code-compaction": "auto"},
            {},
            Standing.NO_TURN,
            id="Claude Code's compaction",
        ),
        pytest.param(
            "/v1/messages",
            {"x-claude-code-request-class": "title"},
            {},
            Standing.ALONE,
            id="Claude Code's side request",
        ),
        pytest.param(
            "/v1/messages",
            {},
            {"context_management": {"edits": [{"type": "clear_tool_uses_20250919"}]}},
            Standing.NO_TURN,
            id="the provider clears results itself",
        ),
        pytest.param(
            "/v1/messages",
            {},
            {"context_management": {"edits": [{"type": "compact_20260112"}]}},
            Standing.NO_TURN,
            id="the provider compacts itself",
        ),
        pytest.param(
            "/v1/messages",
            {},
            {"context_management": {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]}},
            Standing.TURN,
            id="the provider clears thinking",
        ),
        pytest.param(
            "/v1/messages",
            {},
            {
                "messages": [
                    {"role": "user", "content": '"context_management" "compact_20260112" please'}
                ]
            },
            Standing.TURN,
            id="somebody speaks of it",
        ),
    ],
)
def test_what_a_request_is_to_its_conversation(
    path: str, headers: Mapping[str, str], body: dict[str, Any], standing: Standing
) -> None:
    found, why = MESSAGES.standing(path, headers, MESSAGES.read(request(**body)))
    assert found is standing
    assert bool(why) == (standing is not Standing.TURN)


# Answers.


@pytest.mark.parametrize(
    ("event", "usage"),
    [
        pytest.param(
            {
                "type": "message_start",
                "message": {
                    "usage": {
                        "input_tokens": 7,
                        "cache_read_input_tokens": 100,
                        "cache_creation_input_tokens": 20,
                        "output_tokens": 1,
                    }
                },
            },
            Usage(127, 1, 100, 20),
            id="the start of a stream",
        ),
        pytest.param(
            {"type": "message_delta", "usage": {"output_tokens": 9}},
            Usage(None, 9, None, None),
            id="its end",
        ),
        pytest.param(
            {"type": "message", "usage": {"input_tokens": 7, "output_tokens": 2}},
            Usage(7, 2, None, None),
            id="a plain answer",
        ),
        pytest.param({"input_tokens": 2095}, Usage(2095), id="a count"),
        pytest.param({"type": "content_block_delta", "delta": {"text": "x"}}, None, id="a delta"),
        pytest.param({"type": "error", "error": {}}, None, id="an error"),
        pytest.param({"usage": None}, None, id="no usage"),
        pytest.param({"message": "x", "usage": {"output_tokens": 1}}, Usage(None, 1), id="odd"),
    ],
)
def test_usage_is_read_from_any_answer(event: dict[str, Any], usage: Usage | None) -> None:
    assert MESSAGES.usage_of(event) == usage


def error(said: str, kind: str = "invalid_request_error") -> bytes:
    return dumped({"type": "error", "error": {"type": kind, "message": said}})


@pytest.mark.parametrize(
    ("status", "body", "shape"),
    [
        (400, error("messages.3.content.0: unexpected `tool_use_id` found"), True),
        (400, error("messages: text content blocks must be non-empty"), True),
        (422, error("messages.1.content: Input should be a valid string"), True),
        (400, error("prompt is too long: 210000 tokens > 200000 maximum"), False),
        (400, error("input length and `max_tokens` exceed context limit: 1 + 2 > 3"), False),
        (400, error("Your credit balance is too low"), False),
        (401, error("invalid x-api-key", "authentication_error"), False),
        (429, error("This request would exceed your rate limit", "rate_limit_error"), False),
        (400, error("invalid x-api-key"), False),
        (413, error("Request exceeds the maximum size", "request_too_large"), False),
        (529, error("Overloaded", "overloaded_error"), False),
        (400, b"<html>", False),
        (200, error("messages"), False),
    ],
)
def test_a_refused_shape_is_told_from_other_refusals(status: int, body: bytes, shape: bool) -> None:
    assert MESSAGES.refuses_shape(status, body) == shape


def test_no_span_where_nothing_stands() -> None:
    found = MESSAGES.read(b'{"model":"m","messages":[{"role":"user","content":"x"}]}')
    assert (found.system, found.tools, found.stream) == (None, None, False)
    assert found.array == Span(24, 55)


# Who sends it.

DEVICE, ACCOUNT = "d" * 64, "0a1b2c3d-0000-4000-8000-000000000001"


@pytest.mark.parametrize(
    ("user", "found"),
    [
        ({"device_id": DEVICE, "account_uuid": ACCOUNT, "session_id": "s"}, f"{ACCOUNT} {DEVICE}"),
        (f"user_{DEVICE}_account_{ACCOUNT}_session_s", f"{ACCOUNT} {DEVICE}"),
        ({"device_id": DEVICE, "account_uuid": "", "session_id": "s"}, ""),
        ({"account_uuid": ACCOUNT}, ""),
        ("somebody", ""),
        ("[" * 10_000, ""),
        (7, ""),
        (None, ""),
        ("\ud800", ""),
    ],
    ids=[
        "json",
        "one line",
        "no account",
        "no device",
        "a name",
        "deep",
        "a number",
        "null",
        "odd",
    ],
)
def test_the_account_is_what_claude_code_names(user: Any, found: str) -> None:
    named = json.dumps(user) if isinstance(user, dict) else user
    told = {"model": "m", "messages": [{"role": "user", "content": "x"}]}
    body = json.dumps({**told, "metadata": {"user_id": named}}).encode()
    assert MESSAGES.principal("/v1/messages", MESSAGES.read(body)) == found


def test_no_metadata_names_no_account() -> None:
    body = json.dumps({"model": "m", "messages": [{"role": "user", "content": "x"}]}).encode()
    assert MESSAGES.principal("/v1/messages", MESSAGES.read(body)) == ""
