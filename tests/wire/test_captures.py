"""What real clients send, where recordings of it are at hand: each request is read whole."""

from __future__ import annotations

import gzip
import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from demo.session import encode
from loopback import rules_responses
from mitmcontext.condense.units import unpaired
from mitmcontext.values import Kind, Standing
from mitmcontext.wire import api_for
from mitmcontext.wire.anthropic import MESSAGES
from mitmcontext.wire.api import Api, system_texts, tool_count
from mitmcontext.wire.bedrock import CONVERSE
from mitmcontext.wire.cohere import CHAT as COHERE
from mitmcontext.wire.gemini import GENERATE
from mitmcontext.wire.openai_chat import CHAT
from mitmcontext.wire.openai_responses import RESPONSES

CAPTURES = Path(__file__).parents[2] / "../shared/data/captures"
MISSING = "needs the captures of real clients"


def rows_of(path: Path) -> list[dict[str, Any]]:
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def captured(api: Api) -> list[Any]:
    """The recorded requests that are for this API, one case each."""
    found = []
    for path in sorted(CAPTURES.glob("*.jsonl.gz")):
        for row in rows_of(path):
            where = str(row.get("path", "")).partition("?")[0]
            if api_for(str(row.get("method")), where) is api:
                found.append(pytest.param(row, id=f"{path.name[:-9]}-{row['seq']}"))
    return found or [pytest.param({}, marks=pytest.mark.skip(MISSING))]


@pytest.mark.parametrize("row", captured(MESSAGES))
def test_messages_are_read_whole(row: dict[str, Any]) -> None:
    found = MESSAGES.read(encode(row["body"]))
    messages = [MESSAGES.parse(found.raw(at)) for at in range(len(found.spans))]
    assert [m.role for m in messages] == [m["role"] for m in row["body"]["messages"]]
    kinds = {part.kind for message in messages for part in message.parts}
    assert Kind.OPAQUE not in kinds
    assert Kind.TYPED in kinds
    assert all(message.editable or message.role == "system" for message in messages)
    assert all(part.text for message in messages for part in message.parts)
    if row["body"].get("system"):
        assert all(said for _, said in system_texts(found))
    assert tool_count(found) == len(row["body"].get("tools") or [])


@pytest.mark.parametrize("row", captured(CHAT))
def test_chats_are_read_whole(row: dict[str, Any]) -> None:
    found = CHAT.read(encode(row["body"]))
    messages = [CHAT.parse(found.raw(at)) for at in range(len(found.spans))]
    assert [m.role for m in messages] == [m["role"] for m in row["body"]["messages"]]
    assert all(message.editable and message.parts for message in messages)
    assert all(part.kind is not Kind.OPAQUE for m in messages for part in m.parts)


@pytest.mark.parametrize("name", ["default-opus-5-5", "haiku-multiturn"])
def test_turns_extend_each_other(name: str) -> None:
    path = next(iter(CAPTURES.glob(f"claude-code-*__{name}.jsonl.gz")), None)
    if path is None:
        pytest.skip(MISSING)
    rows = [row for row in rows_of(path) if row["path"].startswith("/v1/messages?")]
    requests = [MESSAGES.read(encode(row["body"])) for row in rows]
    chains = [[MESSAGES.parse(r.raw(at)).digest for at in range(len(r.spans))] for r in requests]
    assert len(chains) > 2
    assert all(after[: len(before)] == before for before, after in pairwise(chains))


def gemini_kind(row: dict[str, Any]) -> Standing:
    """What a recorded request is, by what is known of its client."""
    if row["path"].endswith(":countTokens"):
        return Standing.NO_TURN
    # gemini-cli asks a small model which model to ask.
    return Standing.ALONE if "flash-lite:generateContent" in row["path"] else Standing.TURN


@pytest.mark.parametrize("row", captured(GENERATE))
def test_gemini_contents_are_read_whole(row: dict[str, Any]) -> None:
    body, path = row["body"], row["path"].partition("?")[0]
    found = GENERATE.read(encode(body))
    assert GENERATE.model_in_path(path).startswith("gemini-")
    assert GENERATE.standing(path, {}, found)[0] is gemini_kind(row)
    messages = [GENERATE.parse(found.raw(at)) for at in range(len(found.spans))]
    roles = {"user": "user", "model": "assistant"}
    assert [m.role for m in messages] == [roles[c["role"]] for c in body["contents"]]
    assert all(message.editable and message.parts for message in messages)
    assert all(part.kind is not Kind.OPAQUE for m in messages for part in m.parts)
    assert unpaired(messages) == frozenset()
    system = body.get("systemInstruction") or body.get("system_instruction")
    assert bool(system_texts(found)) == bool(system)
    declared = [one for tool in body.get("tools", []) for one in tool["functionDeclarations"]]
    assert tool_count(found) == len(declared)


def test_gemini_clis_turns_extend_each_other() -> None:
    path = next(iter(CAPTURES.glob("gemini-cli-*__default.jsonl.gz")), None)
    if path is None:
        pytest.skip(MISSING)
    rows = [row for row in rows_of(path) if ":stream" in row["path"]]
    requests = [GENERATE.read(encode(row["body"])) for row in rows]
    chains = [[GENERATE.parse(r.raw(at)).digest for at in range(len(r.spans))] for r in requests]
    assert len(chains) > 2
    assert all(after[: len(before)] == before for before, after in pairwise(chains))


@pytest.mark.parametrize("row", captured(RESPONSES))
def test_responses_are_read_whole(row: dict[str, Any]) -> None:
    body, headers = row["body"], dict(row["headers"])
    found = RESPONSES.read(encode(body))
    items = [RESPONSES.parse(found.raw(at)) for at in range(len(found.spans))]
    given = [body["input"]] if isinstance(body["input"], str) else body["input"]
    assert len(items) == len(given)
    assert not found.hidden
    compacts = isinstance(given[-1], dict) and given[-1].get("type") == "compaction_trigger"
    standing, _ = RESPONSES.standing(row["path"], headers, found)
    assert standing is (Standing.NO_TURN if compacts else Standing.TURN)
    whole = {"additional_tools", "compaction", "compaction_trigger"}
    for item, read in zip(given, items, strict=True):
        kept = isinstance(item, dict) and item.get("type") in whole
        assert read.editable is not kept
        assert [part.kind for part in read.parts].count(Kind.OPAQUE) == kept
    assert any(part.kind is Kind.TYPED for item in items for part in item.parts)
    assert not unpaired(items)
    assert rules_responses.check(body) is None


@pytest.mark.parametrize("name", ["chatgpt-auth-http", "compaction-http", "context-400"])
def test_codex_turns_extend_each_other_until_it_compacts(name: str) -> None:
    path = next(iter(CAPTURES.glob(f"codex-*__{name}.jsonl.gz")), None)
    if path is None:
        pytest.skip(MISSING)
    rows = [row for row in rows_of(path) if row["method"] == "POST"]
    requests = [RESPONSES.read(encode(row["body"])) for row in rows]
    chains = [[RESPONSES.parse(r.raw(at)).digest for at in range(len(r.spans))] for r in requests]
    assert len(chains) > 1
    for (row, before), (_, after) in pairwise(zip(rows, chains, strict=True)):
        compacted = row["body"]["input"][-1]["type"] == "compaction_trigger"
        assert (after[: len(before)] == before) is not compacted


# Requests of further APIs, recorded with the input size that the provider reported.
RECORDED: dict[str, tuple[Api, str]] = {
    "cohere.chat": (COHERE, "messages"),
    "bedrock.converse": (CONVERSE, "messages"),
}


@pytest.mark.parametrize("name", RECORDED)
def test_recorded_requests_are_read_whole_and_their_usage_is_the_reported_one(name: str) -> None:
    path = CAPTURES.parent / "tokens" / "dev.jsonl.gz"
    if not path.is_file():
        pytest.skip("needs the recorded requests")
    api, key = RECORDED[name]
    rows = [row for row in rows_of(path) if row["api"] == name and key in row["request"]]
    assert len(rows) > 50
    for row in rows:
        found = api.read(encode(row["request"]))
        messages = [api.parse(found.raw(at)) for at in range(len(found.spans))]
        assert [m.role for m in messages] == [m["role"] for m in row["request"][key]]
        assert all(message.editable and message.parts for message in messages)
        assert Kind.OPAQUE not in {part.kind for message in messages for part in message.parts}
        usage = api.usage_of({"usage": row["usage"]})
        assert usage is not None
        assert usage.input_tokens == row["reported_input_tokens"]
