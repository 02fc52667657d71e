"""OpenAI Responses: what each type of item is read as."""

from __future__ import annotations

from typing import Any

import pytest
from tests.wire.bodies import dumped
from tests.wire.reading import read_as, stub_changes_its_part
from tests.wire.responses_bodies import NOTED, PRINTED, Json, call, message, output, reasoning, text

from mitmcontext.values import Kind
from mitmcontext.wire.openai_responses import RESPONSES

IMAGE = {"type": "input_image", "image_url": "data:image/png;base64," + "iVBO" * 900}
FILE = {"type": "input_file", "filename": "a.pdf", "file_id": "file_1"}
CITED = text(
    "See there.", "output_text", annotations=[{"type": "url_citation", "url": "https://x"}]
)
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
    found = read_as(RESPONSES, dumped(item), parts)
    assert (found.role, found.item) == (role, True)


@pytest.mark.parametrize(("item", "role", "parts"), SHAPES)
def test_a_stub_changes_the_value_and_nothing_else(item: Json, role: str, parts: object) -> None:
    # Texts of an output are one part, so that the image's line would join them.
    stub_changes_its_part(
        RESPONSES, dumped(item), lambda part: part.kind is Kind.IMAGE and bool(part.call_id)
    )


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
