"""OpenAI Responses: what each shape of request and item is read as."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.conversations import Way, laws, words

from loopback import rules_responses
from mitmcontext.condense.units import kept, units, unpaired
from mitmcontext.values import Kind, Message, Standing, TooLong, Unreadable, Usage
from mitmcontext.wire import api_for
from mitmcontext.wire.api import message_of, system_texts, tool_count
from mitmcontext.wire.openai_responses import RESPONSES
from mitmcontext.wire.responses_answers import items_added

Json = dict[str, Any]
PATH = "/v1/responses"


def dumped(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()


def message(role: str, content: Any, **others: Any) -> Json:
    return {"type": "message", "role": role, "content": content, **others}


def text(said: str, kind: str = "input_text", **others: Any) -> Json:
    return {"type": kind, "text": said, **others}


def call(id_: str = "call_1", kind: str = "function_call", **others: Any) -> Json:
    given_ = others or {"name": "run", "arguments": '{"a": 1}'}
    return {"type": kind, "call_id": id_, **given_}


def output(said: Any, id_: str = "call_1", kind: str = "function_call_output") -> Json:
    return {"type": kind, "call_id": id_, "output": said}


def reasoning(id_: str = "rs_1", sealed: str = "gAAA" * 300, **others: Any) -> Json:
    return {
        "type": "reasoning",
        "id": id_,
        "summary": [{"type": "summary_text", "text": "Look first."}],
        "encrypted_content": sealed,
        **others,
    }


IMAGE = {"type": "input_image", "image_url": "data:image/png;base64," + "iVBO" * 900}
FILE = {"type": "input_file", "filename": "a.pdf", "file_id": "file_1"}
CITED = text(
    "See there.", "output_text", annotations=[{"type": "url_citation", "url": "https://x"}]
)
EXIT = {"type": "exit", "exit_code": 1}
PRINTED = {"stdout": "one\ntwo", "stderr": "oh", "outcome": EXIT}
NOTED = {"internal_chat_message_metadata_passthrough": {"turn_id": "t"}}
FILE_TEXT = '{"type": "input_file", "filename": "a.pdf", "file_id": "file_1"}'

# Each item with its role and what its parts are: kind, text, and whether it may become shorter.
SHAPES: list[Any] = [
    pytest.param(
        {"role": "user", "content": "Fix it"}, "user", [(Kind.TYPED, "Fix it", True)], id="easy"
    ),
    pytest.param(
        message("user", [text("Fix"), text("it")], id="msg_1", **NOTED),
        "user",
        [(Kind.TYPED, "Fix", True), (Kind.TYPED, "it", True)],
        id="texts, with what Codex notes",
    ),
    pytest.param(
        message("developer", [text("Be brief")]),
        "developer",
        [(Kind.SYSTEM, "Be brief", True)],
        id="developer",
    ),
    pytest.param(
        {"role": "system", "content": "Be brief"},
        "system",
        [(Kind.SYSTEM, "Be brief", True)],
        id="system",
    ),
    pytest.param(
        message("user", [text("<environment_context>\n  <cwd>/x</cwd>"), text("Go on")]),
        "user",
        [
            (Kind.ENVIRONMENT, "<environment_context>\n  <cwd>/x</cwd>", True),
            (Kind.TYPED, "Go on", True),
        ],
        id="an environment block",
    ),
    pytest.param(
        message("assistant", [text("Sure.", "output_text", annotations=[], logprobs=[])]),
        "assistant",
        [(Kind.PROSE, "Sure.", True)],
        id="an answer",
    ),
    pytest.param(
        {"role": "assistant", "content": "Sure.", "type": None, "phase": "commentary"},
        "assistant",
        [(Kind.PROSE, "Sure.", True)],
        id="an easy answer",
    ),
    pytest.param(
        message("assistant", [CITED]),
        "assistant",
        [(Kind.PROSE, "See there.", False)],
        id="an answer with citations, which point into it",
    ),
    pytest.param(
        message("assistant", [{"type": "refusal", "refusal": "No."}]),
        "assistant",
        [(Kind.OPAQUE, '{"type": "refusal", "refusal": "No."}', False)],
        id="a refusal",
    ),
    pytest.param(
        message("user", [text("What is it?"), IMAGE, FILE]),
        "user",
        [
            (Kind.TYPED, "What is it?", True),
            (Kind.IMAGE, "", True),
            (Kind.DOCUMENT, FILE_TEXT, True),
        ],
        id="an image and a file",
    ),
    pytest.param(message("user", []), "user", [], id="no parts"),
    pytest.param(message("user", None), "user", [], id="null"),
    pytest.param(call(), "assistant", [(Kind.CALL, 'run {"a": 1}', False)], id="a call"),
    pytest.param(
        call(kind="custom_tool_call", name="exec", input="ls -l", id="ctc_1", status="completed"),
        "assistant",
        [(Kind.CALL, "exec ls -l", False)],
        id="a custom tool",
    ),
    pytest.param(
        call(kind="local_shell_call", action={"type": "exec", "command": ["ls"]}),
        "assistant",
        [(Kind.CALL, 'local_shell {"type": "exec", "command": ["ls"]}', False)],
        id="a local shell",
    ),
    pytest.param(
        call(kind="shell_call", action={"commands": ["ls"]}),
        "assistant",
        [(Kind.CALL, 'shell {"commands": ["ls"]}', False)],
        id="a shell",
    ),
    pytest.param(
        call(kind="apply_patch_call", operation={"type": "delete_file", "path": "a"}),
        "assistant",
        [(Kind.CALL, 'apply_patch {"type": "delete_file", "path": "a"}', False)],
        id="a patch",
    ),
    pytest.param(
        call(kind="computer_call", action={"type": "wait"}, pending_safety_checks=[]),
        "assistant",
        [(Kind.CALL, 'computer {"type": "wait"}', False)],
        id="a computer",
    ),
    pytest.param(output("one\ntwo"), "tool", [(Kind.RESULT, "one\ntwo", True)], id="an output"),
    pytest.param(
        output([text("Script completed"), text("one")], kind="custom_tool_call_output"),
        "tool",
        [(Kind.RESULT, "Script completed\none", True)],
        id="an output in texts is one result",
    ),
    pytest.param(
        output([text("one"), IMAGE]),
        "tool",
        [(Kind.RESULT, "one", True), (Kind.IMAGE, "", True)],
        id="an output with an image",
    ),
    pytest.param(output([]), "tool", [(Kind.RESULT, "", False)], id="an output without parts"),
    pytest.param(output(None), "tool", [(Kind.RESULT, "", False)], id="an output that is null"),
    pytest.param(
        output("done", kind="apply_patch_call_output"),
        "tool",
        [(Kind.RESULT, "done", True)],
        id="what a patch did",
    ),
    pytest.param(
        {"type": "local_shell_call_output", "id": "call_1", "output": "done"},
        "tool",
        [(Kind.RESULT, "done", True)],
        id="a local shell's output, by id",
    ),
    pytest.param(
        output([PRINTED], kind="shell_call_output"),
        "tool",
        [(Kind.RESULT, "one\ntwo\noh", True)],
        id="what a shell printed",
    ),
    pytest.param(
        output([{**PRINTED, "created_by": "x"}], kind="shell_call_output"),
        "tool",
        [(Kind.RESULT, "one\ntwo\noh", False)],
        id="with something unknown beside it",
    ),
    pytest.param(
        output({"type": "computer_screenshot", "image_url": "x"}, kind="computer_call_output"),
        "tool",
        [(Kind.IMAGE, "", False)],
        id="a screenshot",
    ),
    pytest.param(
        reasoning(sealed="", content=[{"type": "reasoning_text", "text": "Hm."}]),
        "assistant",
        [(Kind.THINKING, "Look first.\nHm.", False)],
        id="reasoning in the open",
    ),
    pytest.param(
        {"type": "web_search_call", "id": "ws_1", "action": {"query": "x"}},
        "assistant",
        [(Kind.PROSE, 'web_search {"query": "x"}', False)],
        id="a search",
    ),
    pytest.param(
        {"type": "file_search_call", "id": "fs_1", "queries": ["x"], "results": [{"text": "y"}]},
        "assistant",
        [(Kind.PROSE, 'file_search ["x"]', False), (Kind.RESULT, '[{"text": "y"}]', False)],
        id="a search in files",
    ),
    pytest.param(
        {
            "type": "code_interpreter_call",
            "id": "ci_1",
            "code": "1+1",
            "container_id": "c",
            "outputs": None,
        },
        "assistant",
        [(Kind.PROSE, "code_interpreter 1+1", False)],
        id="a program",
    ),
    pytest.param(
        {
            "type": "mcp_call",
            "id": "mcp_1",
            "server_label": "docs",
            "name": "get",
            "arguments": "{}",
            "output": "a page",
            "error": None,
        },
        "assistant",
        [(Kind.PROSE, "mcp docs get {}", False), (Kind.RESULT, "a page", True)],
        id="a remote tool and what it said",
    ),
    pytest.param(
        {"type": "image_generation_call", "id": "ig_1", "result": "iVBO" * 900},
        "assistant",
        [(Kind.IMAGE, "", False)],
        id="a picture",
    ),
]


@pytest.mark.parametrize(("item", "role", "parts"), SHAPES)
def test_items_are_read_as_what_they_are(
    item: Json, role: str, parts: list[tuple[Kind, str, bool]]
) -> None:
    raw = dumped(item)
    found = RESPONSES.parse(raw)
    assert (found.role, found.editable, found.item) == (role, True, True)
    assert [(p.kind, p.text, p.value is not None) for p in found.parts] == parts
    for part in found.parts:
        json.loads(raw[slice(*part.span)])
        if part.value is not None:
            assert part.span.start <= part.value.start < part.value.end <= part.span.end


@pytest.mark.parametrize(("item", "role", "parts"), SHAPES)
def test_a_stub_changes_the_value_and_nothing_else(item: Json, role: str, parts: object) -> None:
    raw = dumped(item)
    before = RESPONSES.parse(raw)
    for index, part in enumerate(before.parts):
        # Texts of an output are one part, so that the image's line would join them.
        if part.value is None or (part.kind is Kind.IMAGE and part.call_id):
            continue
        start, end = part.value
        new = RESPONSES.in_place_of(part, raw[start:end], 'short "text"\n')
        after = RESPONSES.parse(raw[:start] + new + raw[end:])
        assert after.parts[index].text == 'short "text"\n'
        assert (after.role, after.parts[index].call_id) == (before.role, part.call_id)
        pairs = zip(before.parts, after.parts, strict=True)
        assert [a.digest == b.digest for a, b in pairs] == [
            at != index for at in range(len(before.parts))
        ]
        assert after.digest != before.digest


@pytest.mark.parametrize(
    ("item", "role"),
    [
        (
            {"type": "additional_tools", "role": "developer", "tools": [{"type": "custom"}]},
            "developer",
        ),
        ({"type": "configuration_update", "reasoning": {"effort": "low"}}, "developer"),
        ({"type": "compaction", "id": "cmp_1", "encrypted_content": "gAAA"}, "developer"),
        ({"type": "compaction_trigger"}, "developer"),
        ({"type": "mcp_list_tools", "id": "mcpl_1", "server_label": "x", "tools": []}, "developer"),
        ({"type": "mcp_approval_request", "id": "mcpr_1", "name": "x"}, "assistant"),
        ({"type": "mcp_approval_response", "approval_request_id": "mcpr_1"}, "user"),
        ({"type": "item_reference", "id": "msg_1"}, "assistant"),
        ({"id": "msg_1"}, "assistant"),
        ({"type": "program", "call_id": "call_1", "code": "1"}, "assistant"),
        ({"type": "something_new", "role": "user", "content": "x"}, "assistant"),
    ],
    ids=lambda value: value.get("type", "a bare id") if isinstance(value, dict) else value,
)
def test_what_only_the_server_understands_is_kept_whole(item: Json, role: str) -> None:
    found = RESPONSES.parse(dumped(item))
    assert (found.role, found.editable, found.item) == (role, False, True)
    assert [(p.kind, p.value, p.call_id) for p in found.parts] == [(Kind.OPAQUE, None, "")]


@pytest.mark.parametrize(
    "item",
    [
        pytest.param({**call(), "caller": {"type": "program"}}, id="of a call"),
        pytest.param({**output("x"), "extra": 1}, id="of an output"),
        pytest.param(message("user", "x", name="ann"), id="of a message"),
        pytest.param(reasoning(extra=1), id="of reasoning"),
    ],
)
def test_with_an_unknown_field_an_item_is_not_edited(item: Json) -> None:
    assert not RESPONSES.parse(dumped(item)).editable


def test_an_approved_remote_call_stays_with_what_approved_it() -> None:
    item = {"type": "mcp_call", "id": "mcp_1", "name": "x", "approval_request_id": "mcpr_1"}
    assert [p.kind for p in RESPONSES.parse(dumped(item)).parts] == [Kind.OPAQUE]


def test_a_bare_string_is_one_typed_message() -> None:
    found = RESPONSES.parse(dumped('Fix "it"'))
    assert [(p.kind, p.text) for p in found.parts] == [(Kind.TYPED, 'Fix "it"')]
    same = [
        dumped({"role": "user", "content": 'Fix "it"'}),
        dumped(message("user", [text('Fix "it"')])),
    ]
    assert [RESPONSES.parse(raw).digest for raw in same] == [found.digest] * 2


def test_sealed_reasoning_weighs_what_it_holds() -> None:
    """Three bytes in four signs, 650 of them the seal, four bytes to a token."""
    part = RESPONSES.parse(dumped(reasoning(sealed="A" * 8_000))).parts[0]
    assert part.text.count("sealed") == pytest.approx((6_000 - 650) / 4, rel=0.01)
    small = RESPONSES.parse(dumped(reasoning(sealed="A" * 100))).parts[0]
    assert small.text == "Look first."
    history = RESPONSES.parse(dumped({"type": "compaction", "encrypted_content": "A" * 8_000}))
    assert history.parts[0].text.count("sealed") > 1_000


# What belongs together.


def history(*items: Any) -> list[Message]:
    return [message_of(RESPONSES, dumped(item)) for item in items]


SAID = message("assistant", [text("I look.", "output_text")], id="msg_2")


@pytest.mark.parametrize(
    ("items", "expected"),
    [
        pytest.param([reasoning(), SAID], [(0, 1), (1, 3)], id="reasoning and what is said"),
        pytest.param(
            [reasoning(), call(), output("x"), reasoning("rs_2"), SAID],
            [(0, 1), (1, 4), (4, 6)],
            id="reasoning, a call and its output",
        ),
        pytest.param(
            [SAID, call("a"), call("b"), output("x", "b"), output("x", "a"), SAID],
            [(0, 1), (1, 6), (6, 7)],
            id="parallel calls",
        ),
        pytest.param(
            [call("a"), message("user", "wait"), output("x", "a"), SAID],
            [(0, 1), (1, 4), (4, 5)],
            id="a word thrown in before the output",
        ),
        pytest.param(
            [reasoning(), {"type": "something_new"}, SAID], [(0, 1), (1, 4)], id="something new"
        ),
        pytest.param(
            [reasoning(), {"type": "web_search_call", "id": "ws_1"}, SAID],
            [(0, 1), (1, 4)],
            id="a search by the server",
        ),
    ],
)
def test_units(items: list[Json], expected: list[tuple[int, int]]) -> None:
    messages = history(message("user", "Look"), *items)
    assert [tuple(unit) for unit in units(messages)] == expected
    assert not unpaired(messages)


@pytest.mark.parametrize(
    "items",
    [
        pytest.param([call("a")], id="no output"),
        pytest.param([output("x", "a")], id="no call"),
        pytest.param([output("x", "a"), call("a")], id="the output first"),
    ],
)
def test_what_the_client_left_unpaired_is_seen(items: list[Json]) -> None:
    assert unpaired(history(message("user", "Look"), *items)) == {"a"}


def test_opaque_items_and_prompts_stay() -> None:
    compacted = {"type": "compaction", "encrypted_content": "x"}
    tools = {"type": "additional_tools", "role": "developer", "tools": []}
    items = [tools, message("developer", "x"), message("user", "a"), compacted, SAID]
    items += [message("user", "b"), SAID, message("user", "c"), SAID]
    assert {0, 1, 2, 3} <= kept(history(*items)).messages
    assert 5 not in kept(history(*items)).messages


# The same content, sent again.


@pytest.mark.parametrize(
    ("one", "other"),
    [
        pytest.param(message("user", "x"), message("user", [text("x")]), id="string or text"),
        pytest.param(
            {"role": "assistant", "content": "x"},
            message("assistant", [text("x", "output_text", annotations=[])], id="msg_1"),
            id="an answer, easy or as it came",
        ),
        pytest.param(
            {**call(), "id": "fc_1", "status": "completed"}, call(), id="ids of the server"
        ),
        pytest.param(output("x"), output([text("x")]), id="an output as a string or a text"),
        pytest.param({**output("x"), **NOTED}, output("x"), id="what Codex notes"),
        pytest.param(
            {"type": "additional_tools", "id": "at_1", "tools": [1]},
            {"type": "additional_tools", "id": "at_2", "tools": [1]},
            id="ids of items that are made anew",
        ),
    ],
)
def test_equal_content_has_equal_digests(one: Json, other: Json) -> None:
    first, second = (RESPONSES.parse(dumped(item)) for item in (one, other))
    assert first.digest == second.digest


@pytest.mark.parametrize(
    ("one", "other"),
    [
        pytest.param(message("user", "x"), message("assistant", "x"), id="roles"),
        pytest.param(message("user", "xy"), message("user", [text("x"), text("y")]), id="a cut"),
        pytest.param(call(), call("call_2"), id="ids of calls"),
        pytest.param(
            call(name="f", arguments="1"),
            call(kind="custom_tool_call", name="f", input="1"),
            id="kinds",
        ),
        pytest.param(output("x"), output("x", "call_2"), id="ids of outputs"),
        pytest.param(
            output("x"), output("x", kind="custom_tool_call_output"), id="kinds of outputs"
        ),
        pytest.param(
            output([text("x"), text("y")]), output([text("x\ny")]), id="two texts and one"
        ),
        pytest.param(message("user", "x"), output("x"), id="a text and an output"),
        pytest.param(reasoning(sealed="AAAA"), reasoning(sealed="AAAB"), id="what is sealed"),
        pytest.param(
            message("assistant", "x", phase="commentary"), message("assistant", "x"), id="phases"
        ),
        pytest.param(
            {"type": "compaction", "encrypted_content": "A"},
            {"type": "compaction", "encrypted_content": "B"},
            id="compactions",
        ),
        pytest.param({"type": "new", "id": "1"}, {"type": "new", "id": "2"}, id="unknown items"),
    ],
)
def test_other_content_has_other_digests(one: Json, other: Json) -> None:
    assert RESPONSES.parse(dumped(one)).digest != RESPONSES.parse(dumped(other)).digest


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


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["type", "text", "annotations", "stdout", "stderr", "outcome"]),
            inner | st.sampled_from(["input_text", "output_text", "input_image"]),
            max_size=4,
        )
    ),
    max_leaves=12,
)
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


# Requests.


def body(*items: Any, **others: Any) -> bytes:
    return dumped({"model": "gpt-5.1", "input": list(items) or [message("user", "x")], **others})


def test_a_request_is_found_where_it_stands() -> None:
    raw = (
        b' {"n":1E2, "input" :[ {"role":"user","content":"a"} ],"model":"gpt-5.1",'
        b'"stream": true,"max_output_tokens":5,"instructions":"Be brief.","tools":[{},{}],'
        b'"previous_response_id":null,"conversation":null} '
    )
    found = RESPONSES.read(raw)
    assert found.raw(0) == b'{"role":"user","content":"a"}'
    assert raw[slice(*found.array)] == b'[ {"role":"user","content":"a"} ]'
    assert (found.model, found.max_output, found.stream) == ("gpt-5.1", 5, True)
    assert ([said for _, said in system_texts(found)], tool_count(found)) == (["Be brief."], 2)
    assert (found.hidden, found.edited_by_server) == (False, False)


def test_an_input_that_is_a_string() -> None:
    found = RESPONSES.read(b'{"model":"m","input": "hi" ,"instructions":null}')
    assert [found.raw(at) for at in range(len(found.spans))] == [b'"hi"']
    assert (found.array, found.system) == (found.spans[0], None)


@pytest.mark.parametrize(
    ("others", "hidden"),
    [
        ({"previous_response_id": "resp_1"}, True),
        ({"conversation": "conv_1"}, True),
        ({"conversation": {"id": "conv_1"}}, True),
        ({"input": [{"type": "item_reference", "id": "msg_1"}, message("user", "x")]}, True),
        ({"input": [message("user", 'a text with "item_reference" in it')]}, False),
        ({"previous_response_id": None, "conversation": None, "store": True}, False),
    ],
    ids=["response", "conversation", "conversation object", "reference", "only a word", "none"],
)
def test_who_holds_the_history(others: Json, hidden: bool) -> None:
    found = RESPONSES.read(body(**others))
    assert found.hidden is hidden
    standing, why = RESPONSES.standing(PATH, {}, found)
    assert (standing is Standing.NO_TURN, bool(why)) == (hidden, hidden)


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"model=x", id="a form"),
        pytest.param(b"[]", id="a list"),
        pytest.param(b'{"model":"m"}', id="no input"),
        pytest.param(b'{"input":"x"}', id="no model"),
        pytest.param(b'{"model":"m","input":[]}', id="an empty input"),
        pytest.param(b'{"model":"m","input":null}', id="an input that is null"),
        pytest.param(b'{"model":"m","input":{"role":"user"}}', id="an object"),
        pytest.param(b'{"model":"m","input":["x"]}', id="an input of strings"),
        pytest.param(b'{"model":1,"input":"x"}', id="model a number"),
        pytest.param(b'{"model":"m","input":"x","input":"y"}', id="two inputs"),
        pytest.param(rb'{"model":"m","inp\u0075t":"x","input":"y"}', id="one of them escaped"),
        pytest.param(
            b'{"model":"m","input":"x","previous_response_id":null,"previous_response_id":"a"}',
            id="two histories",
        ),
        pytest.param(b'{"model":"m","input":"\xff"}', id="not UTF-8"),
    ],
)
def test_what_is_no_request_is_unreadable(raw: bytes) -> None:
    with pytest.raises(Unreadable):
        RESPONSES.read(raw)


@pytest.mark.parametrize("wrong", [1, True, None, {}, {"a": 1}])
def test_wrong_types_beside_the_items_hinder_nothing(wrong: Any) -> None:
    others = {"instructions": wrong, "tools": wrong, "max_output_tokens": "5", "stream": "yes"}
    found = RESPONSES.read(body(**others))
    assert (found.system, found.tools, found.max_output, found.stream) == (None, None, None, False)


def test_a_message_of_ours_is_a_users_text() -> None:
    said = 'a "b"\n\U0001f600\x00\u2028'
    found = RESPONSES.parse(RESPONSES.user_message(said))
    assert (found.role, [p.text for p in found.parts]) == ("user", [said])


@pytest.mark.parametrize(
    ("method", "path", "ours"),
    [
        ("POST", "/v1/responses", True),
        ("POST", "/responses", True),
        ("POST", "/openai/v1/responses", True),
        ("POST", "/openai/responses", True),
        ("POST", "/api/v1/responses", True),
        ("POST", "/backend-api/codex/responses", True),
        ("POST", "/backend-api/codex/responses/compact", True),
        ("POST", "/v1/responses/input_tokens", True),
        ("GET", "/v1/responses", False),
        ("POST", "/v1/responses/resp_1/cancel", False),
        ("POST", "/v1/batches", False),
        ("POST", "/v1/conversations", False),
    ],
)
def test_recognised_by_method_and_path(method: str, path: str, ours: bool) -> None:
    assert (api_for(method, path) is RESPONSES) == ours


TURN = {"x-codex-turn-metadata": '{"request_kind":"turn"}'}
COMPACTION = {"x-codex-turn-metadata": '{"request_kind":"compaction"}'}


@pytest.mark.parametrize(
    ("path", "headers", "raw", "standing"),
    [
        pytest.param(PATH, {}, body(), Standing.TURN, id="a turn"),
        pytest.param(PATH, TURN, body(client_metadata=TURN), Standing.TURN, id="Codex's turn"),
        pytest.param(PATH, COMPACTION, body(), Standing.NO_TURN, id="Codex's header"),
        pytest.param(
            PATH, TURN, body(client_metadata=COMPACTION), Standing.NO_TURN, id="Codex's metadata"
        ),
        pytest.param(
            PATH,
            {},
            body(message("user", "x"), {"type": "compaction_trigger"}),
            Standing.NO_TURN,
            id="Codex's last item",
        ),
        pytest.param(
            PATH,
            {"x-codex-turn-metadata": "{"},
            body(message("user", "compaction_trigger"), client_metadata=[TURN]),
            Standing.TURN,
            id="what only looks like it",
        ),
        pytest.param(
            PATH,
            {},
            rb'{"model":"m","input":"\ud800","client_metadata":{"x-codex-turn-metadata":'
            rb'"{\"request_kind\":\"compaction\"}","request_kind":"\ud800"}}',
            Standing.NO_TURN,
            id="beside lone surrogates",
        ),
        pytest.param(f"{PATH}/compact", {}, body(), Standing.NO_TURN, id="compact"),
        pytest.param(f"{PATH}/input_tokens", {}, body(), Standing.NO_TURN, id="a count"),
        pytest.param(
            PATH,
            {},
            body(context_management=[{"type": "compaction", "compact_threshold": 9}]),
            Standing.NO_TURN,
            id="the server compacts",
        ),
        pytest.param(
            PATH,
            {},
            body(instructions="You are a title generator. Be short."),
            Standing.ALONE,
            id="a title",
        ),
        pytest.param(
            PATH,
            {},
            body(
                message("developer", "You are a context summarization agent."), message("user", "x")
            ),
            Standing.NO_TURN,
            id="OpenCode's compaction",
        ),
        pytest.param(
            PATH,
            {},
            body(instructions="You are a title generator.", tools=[{}]),
            Standing.TURN,
            id="with tools it is an agent",
        ),
        pytest.param(PATH, {}, body({"type": 7}), Standing.TURN, id="an odd first item"),
    ],
)
def test_what_a_request_is_to_its_conversation(
    path: str, headers: dict[str, str], raw: bytes, standing: Standing
) -> None:
    found, why = RESPONSES.standing(path, headers, RESPONSES.read(raw))
    assert found is standing
    assert bool(why) == (standing is not Standing.TURN)


# Answers.

REPORTED = {
    "input_tokens": 900,
    "input_tokens_details": {"cached_tokens": 512},
    "output_tokens": 2,
}


@pytest.mark.parametrize(
    ("event", "usage"),
    [
        pytest.param({"object": "response", "usage": REPORTED}, Usage(900, 2, 512), id="plain"),
        pytest.param(
            {"type": "response.completed", "response": {"usage": REPORTED}},
            Usage(900, 2, 512),
            id="streamed",
        ),
        pytest.param(
            {"type": "response.incomplete", "response": {"usage": REPORTED}},
            Usage(900, 2, 512),
            id="incomplete",
        ),
        pytest.param({"usage": {"input_tokens": 9, "output_tokens": 1}}, Usage(9, 1), id="bare"),
        pytest.param(
            {"object": "response.input_tokens", "input_tokens": 9}, Usage(9), id="a count"
        ),
        pytest.param(
            {"response": {"usage": REPORTED, "previous_response_id": "resp_1"}},
            Usage(output_tokens=2),
            id="with history that the provider added",
        ),
        pytest.param(
            {"usage": REPORTED, "conversation": {"id": "conv_1"}},
            Usage(output_tokens=2),
            id="in a conversation of the provider's",
        ),
        pytest.param(
            {"usage": REPORTED, "output": [{"type": "web_search_call"}]},
            Usage(output_tokens=2),
            id="summed over a server's tools",
        ),
        pytest.param({"type": "response.created", "response": {"usage": None}}, None, id="begun"),
        pytest.param({"type": "response.output_text.delta", "delta": "x"}, None, id="a piece"),
    ],
)
def test_usage_is_read_from_any_answer(event: Json, usage: Usage | None) -> None:
    assert RESPONSES.usage_of(event) == usage


@pytest.mark.parametrize(
    ("event", "items"),
    [
        pytest.param({"type": "response.output_item.done", "item": SAID}, (SAID,), id="one"),
        pytest.param(
            {"type": "response.completed", "response": {"output": [reasoning(), SAID]}},
            (reasoning(), SAID),
            id="all",
        ),
        pytest.param({"type": "response.completed", "response": {"output": []}}, (), id="none"),
        pytest.param({"type": "response.completed", "response": {}}, (), id="not told"),
        pytest.param({"type": "response.output_item.added", "item": SAID}, (), id="only begun"),
        pytest.param({"type": "response.failed", "response": {"output": [SAID]}}, (), id="failed"),
        pytest.param({"type": "response.output_item.done", "item": "x"}, (), id="odd"),
        pytest.param({"type": "response.completed", "response": {"output": 7}}, (), id="odder"),
        pytest.param({}, (), id="nothing"),
    ],
)
def test_which_items_an_event_adds(event: Json, items: tuple[Json, ...]) -> None:
    assert items_added(event) == items


def error(said: str, code: str | None = None) -> bytes:
    found = {"message": said, "type": "invalid_request_error", "param": "input", "code": code}
    return dumped({"error": found})


TOO_LONG = "Your input exceeds the context window of this model. Please adjust your input."
FAILED = {
    "type": "response.failed",
    "response": {"error": {"code": "context_length_exceeded", "message": TOO_LONG}},
}
SSE = (
    b"event: response.created\ndata: {}\n\nevent: response.failed\ndata: "
    + dumped(FAILED)
    + b"\n\n"
)
STREAMED_ERROR = b"data: " + dumped({"type": "error", "error": {"message": TOO_LONG}}) + b"\n\n"
SAYS_SO = dumped(
    {"type": "response.output_text.done", "text": f'"error" {TOO_LONG} context_length_exceeded'}
)


@pytest.mark.parametrize(
    ("status", "raw", "shape", "length"),
    [
        (400, error("Item 'rs_1' of type 'reasoning' was provided without its"), True, None),
        (400, error("No tool output found for function call call_1."), True, None),
        (400, error("Could not be verified.", "invalid_encrypted_content"), True, None),
        (400, error(TOO_LONG, "context_length_exceeded"), False, TooLong()),
        (400, error(TOO_LONG), False, TooLong()),
        (
            400,
            error("This model's maximum context length is 128000 tokens. However, your messages"
                  " resulted in 130000 tokens."),
            False,
            TooLong(130_000, 128_000),
        ),
        (401, error("Incorrect API key provided"), False, None),
        (429, error("Rate limit reached"), False, None),
        (404, error("Item with id 'rs_1' not found."), False, None),
        (200, SSE, False, TooLong()),
        (200, dumped(FAILED), False, TooLong()),
        (200, STREAMED_ERROR, False, TooLong()),
        (200, SAYS_SO, False, None),
        (200, b"data: " + SAYS_SO + b"\n\n", False, None),
        (200, b'data: {"error"\n\n', False, None),
        (200, b"", False, None),
    ],
)  # fmt: skip
def test_refusals(status: int, raw: bytes, shape: bool, length: TooLong | None) -> None:
    assert RESPONSES.refuses_shape(status, raw) == shape
    assert RESPONSES.refuses_length(status, raw) == length


# Laws: whatever is condensed, the strict provider takes.

seeds = st.integers(0, 1 << 16)


@st.composite
def talks(draw: st.DrawFn) -> list[Json]:
    """A long history: prompts, reasoning, calls of all kinds with their outputs, answers."""
    items: list[Json] = []
    if draw(st.booleans()):
        items.append({"type": "additional_tools", "id": "at_1", "role": "developer", "tools": []})
    items.append(draw(st.sampled_from([message("developer", "Be brief."), message("system", "x")])))
    reasons = draw(st.booleans())
    for turn in range(draw(st.integers(1, 4))):
        said = words(draw(seeds), draw(st.integers(5, 900)))
        items.append(draw(st.sampled_from([message("user", said), message("user", [text(said)])])))
        for step in range(draw(st.integers(0, 6))):
            items += draw(steps(f"{turn}_{step}", reasons=reasons))
        if draw(st.booleans()):
            items += [reasoning(f"rs_{turn}_end")] if reasons else []
            items.append(message("assistant", [text("Done.", "output_text")], id=f"msg_{turn}"))
    return items


@st.composite
def steps(draw: st.DrawFn, name: str, *, reasons: bool) -> list[Json]:
    said = words(draw(seeds), draw(st.sampled_from([0, 300, 1_600, 6_000])))
    outputs: dict[str, tuple[Json, Any]] = {
        "function_call": ({"name": "read", "arguments": "{}"}, said),
        "custom_tool_call": ({"name": "exec", "input": "ls"}, [text("Done:"), text(said)]),
        "shell_call": ({"action": {"commands": ["ls"]}}, [{**PRINTED, "stdout": said}]),
        "apply_patch_call": ({"operation": {"type": "update_file", "path": "a"}}, said),
        "local_shell_call": ({"action": {"command": ["ls"]}}, said),
    }
    found: list[Json] = [reasoning(f"rs_{name}")] if reasons else []
    if draw(st.booleans()):
        found.append(message("assistant", "I look.", id=f"msg_{name}"))
    if not reasons and draw(st.integers(0, 5)) == 0:
        found.append({"type": "something_new", "id": f"new_{name}"})
    kinds = draw(st.lists(st.sampled_from(sorted(outputs)), min_size=1, max_size=3))
    for number, kind in enumerate(kinds):
        given_, _ = outputs[kind]
        prefix = "fc" if kind == "function_call" else "x"
        found.append(
            {**call(f"call_{name}_{number}", kind, **given_), "id": f"{prefix}_{name}_{number}"}
        )
    answers = [
        output(outputs[kind][1], f"call_{name}_{number}", f"{kind}_output")
        for number, kind in enumerate(kinds)
    ]
    return [*found, *draw(st.permutations(answers))]


def refusal(raw: bytes, memory: rules_responses.Memory) -> object:
    read = json.loads(raw)
    read["input"] = [item for item in read["input"] if item.get("type") != "something_new"]
    return rules_responses.check(read, memory)


@laws
@given(talks(), st.integers(600, 6_000))
def test_what_is_condensed_is_taken(items: list[Json], room: int) -> None:
    way, memory = Way(), rules_responses.Memory()
    for cut in sorted({len(items) // 2, len(items)}):
        whole = items[: cut + _answers(items[cut:])]
        sent = body(*whole, tools=[{"type": "function", "name": "read"}])
        assert refusal(sent, memory) is None
        found = way.send(RESPONSES, sent, room)
        assert refusal(found.forwarded, memory) is None
        again = way.lay(RESPONSES, sent).forwarded.request.body
        assert again == found.forwarded


def _answers(rest: list[Json]) -> int:
    """How many more items belong to the answer that a cut fell into, up to the next prompt."""
    return next((at for at, item in enumerate(rest) if item.get("role") == "user"), len(rest))


def places(value: Any) -> list[tuple[Any, Any]]:
    """Every container in a piece of JSON, with each key or index in it."""
    found: list[tuple[Any, Any]] = []
    if isinstance(value, dict):
        found += [(value, key) for key in value]
        for inner in value.values():
            found += places(inner)
    elif isinstance(value, list):
        found += [(value, at) for at in range(len(value))]
        for inner in value:
            found += places(inner)
    return found


@laws
@given(talks(), st.data())
def test_a_mutated_body_is_left_alone_or_taken(items: list[Json], data: st.DataObject) -> None:
    read = {"model": "gpt-5.1", "input": copy.deepcopy(items), "tools": [{"type": "custom"}]}
    for _ in range(data.draw(st.integers(1, 3))):
        held, key = data.draw(st.sampled_from(places(read)))
        if data.draw(st.booleans()):
            held[key] = data.draw(json_values)
        elif isinstance(held, dict):
            del held[key]
        if not places(read):
            return
    sent = dumped(read)
    way = Way()
    try:
        found = way.send(RESPONSES, sent, 900)
    except Unreadable:
        return
    if found.forwarded == sent:
        return
    if refusal(sent, rules_responses.Memory()) is None:
        assert refusal(found.forwarded, rules_responses.Memory()) is None
