"""Which JSON api.anthropic.com takes at all."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from loopback.refusal import names
from loopback.rules_anthropic.view import Block, Body, View

EXTRA = "Extra inputs are not permitted"
REQUIRED = "Field required"

_TOP = names(
    "cache_control container context_management diagnostics inference_geo max_tokens mcp_servers"
    " messages metadata model output_config output_format service_tier speed stop_sequences stream"
    " system temperature thinking tool_choice tools top_k top_p"
)
_TOP_COUNT = names(
    "cache_control context_management mcp_servers messages model output_config output_format"
    " speed system thinking tool_choice tools"
)
_BETA_TOP = {"context_management", "diagnostics", "mcp_servers", "speed"}

_TOP_TYPES: dict[str, tuple[tuple[type, ...], str]] = {
    "model": ((str,), "Input should be a valid string"),
    "max_tokens": ((int,), "Input should be a valid integer"),
    "messages": ((list,), "Input should be a valid list"),
    "metadata": ((dict,), "Input should be an object"),
    "stop_sequences": ((list,), "Input should be a valid list"),
    "stream": ((bool,), "Input should be a valid boolean"),
    "system": ((str, list), "Input should be a valid list"),
    "temperature": ((int, float), "Input should be a valid number"),
    "thinking": ((dict,), "Input should be an object"),
    "tool_choice": ((dict,), "Input should be an object"),
    "tools": ((list,), "Input should be a valid list"),
    "top_k": ((int,), "Input should be a valid integer"),
    "top_p": ((int, float), "Input should be a valid number"),
}

# Per type of block: what it must have, what it may have beside that.
_BLOCKS: dict[str, tuple[frozenset[str], frozenset[str]]] = {
    "text": (frozenset({"text"}), frozenset({"cache_control", "citations"})),
    "image": (frozenset({"source"}), frozenset({"cache_control"})),
    "document": (
        frozenset({"source"}),
        frozenset({"cache_control", "citations", "context", "title"}),
    ),
    "search_result": (
        frozenset({"source", "title", "content"}),
        frozenset({"cache_control", "citations"}),
    ),
    "thinking": (frozenset({"thinking", "signature"}), frozenset()),
    "redacted_thinking": (frozenset({"data"}), frozenset()),
    "tool_use": (frozenset({"id", "name", "input"}), frozenset({"cache_control", "caller"})),
    "tool_result": (
        frozenset({"tool_use_id"}),
        frozenset({"content", "is_error", "cache_control"}),
    ),
    "server_tool_use": (frozenset({"id", "name", "input"}), frozenset({"cache_control", "caller"})),
    "web_search_tool_result": (
        frozenset({"tool_use_id", "content"}),
        frozenset({"cache_control", "caller"}),
    ),
    "container_upload": (frozenset({"file_id"}), frozenset({"cache_control"})),
    "compaction": (frozenset({"content"}), frozenset({"cache_control"})),
}
_IN_RESULT = frozenset({"text", "image", "document", "search_result"})
_ASSISTANT_ONLY = frozenset({"tool_use", "thinking", "redacted_thinking", "server_tool_use"})
_MESSAGE_KEYS = frozenset({"role", "content"})
_SYSTEM_MESSAGE_KEYS = _MESSAGE_KEYS | {"output_config"}
_TEXTS = {
    "text": ("text",),
    "thinking": ("thinking", "signature"),
    "redacted_thinking": ("data",),
    "tool_use": ("id", "name"),
    "tool_result": ("tool_use_id",),
}
_ID = re.compile(r"[a-zA-Z0-9_-]+")


def top_level(view: View) -> Iterator[str]:
    """Only known keys, of their types, and those that must be there."""
    known = _TOP_COUNT if view.counting else _TOP
    for key, value in view.body.items():
        if key not in known or (key in _BETA_TOP and not view.betas):
            yield f"{key}: {EXTRA}"
        elif key in _TOP_TYPES and value is not None:
            types, complaint = _TOP_TYPES[key]
            if not isinstance(value, types) or (isinstance(value, bool) and bool not in types):
                yield f"{key}: {complaint}"
    for key in ("model", "messages") if view.counting else ("model", "messages", "max_tokens"):
        if view.body.get(key) is None:
            yield f"{key}: {REQUIRED}"
    if not view.counting and view.body["max_tokens"] < 1:
        yield "max_tokens: Input should be greater than or equal to 1"


def thinking_budget(view: View) -> Iterator[str]:
    """The budget for thinking is a part of the output."""
    thinking = view.body.get("thinking") or {}
    if thinking.get("type") == "enabled" and not view.counting:
        budget = thinking.get("budget_tokens")
        if not isinstance(budget, int):
            yield f"thinking.enabled.budget_tokens: {REQUIRED}"
        elif budget < 1024:
            yield ("thinking.enabled.budget_tokens: Input should be greater than or equal to 1024")
        elif budget >= view.body["max_tokens"]:
            yield "`max_tokens` must be greater than `thinking.budget_tokens`."


def message_shapes(view: View) -> Iterator[str]:
    """Only known roles and keys; content is a string or a list of blocks."""
    if not view.messages:
        yield "messages: at least one message is required"
    for index, message in enumerate(view.messages):
        if not isinstance(message, dict):
            yield f"messages.{index}: Input should be an object"
            return
        yield from _message_shape(view, index, message)


def _message_shape(view: View, index: int, message: Body) -> Iterator[str]:
    where = f"messages.{index}"
    if "role" not in message:
        yield f"{where}.role: {REQUIRED}"
    elif message["role"] == "system" and not view.allows_system_messages():
        yield (
            'messages: Unexpected role "system". The Messages API accepts a top-level `system`'
            ' parameter, not "system" as an input message role.'
        )
    elif message["role"] not in ("user", "assistant", "system"):
        yield (
            f"messages: Unexpected role {message['role']!r}."
            ' Allowed roles are "user" or "assistant"'
        )
    allowed = _SYSTEM_MESSAGE_KEYS if message.get("role") == "system" else _MESSAGE_KEYS
    for key in message:
        if key not in allowed:
            yield f"{where}.{key}: {EXTRA}"
    if "content" not in message:
        yield f"{where}.content: {REQUIRED}"
    elif not isinstance(message["content"], str | list):
        yield f"{where}.content: Input should be a valid string"


def block_shapes(view: View) -> Iterator[str]:
    """Every block of a known type, with its keys, nothing else, and where it may stand."""
    for index, message in enumerate(view.messages):
        if isinstance(message["content"], list):
            for number, block in enumerate(message["content"]):
                where = f"messages.{index}.content.{number}"
                yield from _block_shape(where, block, frozenset(_BLOCKS))
                yield from _block_place(where, message["role"], block)
    if isinstance(view.body.get("system"), list):
        for number, block in enumerate(view.body["system"]):
            yield from _block_shape(f"system.{number}", block, frozenset({"text"}))


def _block_shape(where: str, block: Any, types: frozenset[str]) -> Iterator[str]:
    if not isinstance(block, dict):
        yield f"{where}: Input should be a valid dictionary or object to extract fields from"
        return
    kind = block.get("type")
    if kind is None:
        yield f"{where}.type: {REQUIRED}"
    if not isinstance(kind, str) or kind not in types:
        expected = ", ".join(f"'{name}'" for name in sorted(types))
        yield (
            f"{where}: Input tag {kind!r} found using 'type' does not match any of the expected"
            f" tags: {expected}"
        )
        return
    needed, possible = _BLOCKS[kind]
    for key in needed:
        if key not in block:
            yield f"{where}.{kind}.{key}: {REQUIRED}"
    for key in block:
        if key != "type" and key not in needed and key not in possible:
            yield f"{where}.{kind}.{key}: {EXTRA}"
    yield from _block_values(f"{where}.{kind}", block)


def _block_values(where: str, block: Block) -> Iterator[str]:
    for key in _TEXTS.get(block["type"], ()):
        if not isinstance(block[key], str):
            yield f"{where}.{key}: Input should be a valid string"
    for key in ("id", "tool_use_id"):
        if isinstance(block.get(key), str) and not _ID.fullmatch(block[key]):
            yield f"{where}.{key}: String should match pattern '^[a-zA-Z0-9_-]+$'"
    if block["type"] in ("tool_use", "server_tool_use") and not isinstance(block["input"], dict):
        yield f"{where}.input: Input should be a valid dictionary"
    marker = block.get("cache_control")
    if marker is not None:
        yield from _marker_shape(f"{where}.cache_control", marker)
    if block["type"] == "tool_result":
        yield from _result_shape(where, block)


def _result_shape(where: str, block: Block) -> Iterator[str]:
    content = block.get("content")
    if not isinstance(block.get("is_error"), bool | None):
        yield f"{where}.is_error: Input should be a valid boolean"
    if content is not None and not isinstance(content, str | list):
        yield f"{where}.content: Input should be a valid string"
    if isinstance(content, list):
        for number, inner in enumerate(content):
            yield from _block_shape(f"{where}.content.{number}", inner, _IN_RESULT)


def _marker_shape(where: str, marker: Any) -> Iterator[str]:
    if not isinstance(marker, dict):
        yield f"{where}: Input should be an object"
    elif marker.get("type") != "ephemeral":
        yield f"{where}: Input tag {marker.get('type')!r} found using 'type' does not match"
    elif marker.get("ttl", "5m") not in ("5m", "1h"):
        yield f"{where}.ephemeral.ttl: Input should be '5m' or '1h'"


def _block_place(where: str, role: str, block: Block) -> Iterator[str]:
    kind = block["type"]
    if kind in _ASSISTANT_ONLY and role != "assistant":
        yield f"{where}: `{kind}` blocks can only be in `assistant` messages"
    if kind == "tool_result" and role != "user":
        yield f"{where}: `tool_result` blocks can only be in `user` messages"


def tool_shapes(view: View) -> Iterator[str]:
    """A tool of the caller's has a name and a schema; names are unique."""
    taken: set[str] = set()
    for number, tool in enumerate(view.body.get("tools") or []):
        if not isinstance(tool, dict):
            yield f"tools.{number}: Input should be an object"
            return
        if tool.get("type", "custom") != "custom":
            continue
        for key in ("name", "input_schema"):
            if key not in tool:
                yield f"tools.{number}.custom.{key}: {REQUIRED}"
        if not isinstance(tool["name"], str):
            yield f"tools.{number}.custom.name: Input should be a valid string"
        if tool["name"] in taken:
            yield "tools: Tool names must be unique."
        taken.add(tool["name"])
