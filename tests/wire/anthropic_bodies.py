"""Anthropic Messages: messages and requests, as tests build them."""

from __future__ import annotations

from typing import Any

from tests.wire.bodies import dumped

MARK: dict[str, Any] = {"cache_control": {"type": "ephemeral"}}


def message(role: str, content: Any, **others: Any) -> bytes:
    return dumped({"role": role, "content": content, **others})


def result(content: Any = None, id_: str = "toolu_1", **others: Any) -> dict[str, Any]:
    held = {} if content is None else {"content": content}
    return {"type": "tool_result", "tool_use_id": id_, **held, **others}


def call(id_: str = "toolu_1", **others: Any) -> dict[str, Any]:
    return {"type": "tool_use", "id": id_, "name": "Read", "input": {"path": "a b"}, **others}


IMAGE = {
    "type": "image",
    "source": {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo" * 300},
}


def request(**others: Any) -> bytes:
    body = {"model": "claude-opus-4-5", "max_tokens": 100, "messages": [], **others}
    body["messages"] = others.get("messages", [{"role": "user", "content": "hi"}])
    return dumped(body)
