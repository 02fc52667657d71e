"""Asking by Anthropic Messages; also InvokeModel and Vertex, whose paths name the model."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import quote

from mitmcontext.values import Request
from mitmcontext.wire.asking import (
    Asking,
    Fault,
    Prompt,
    Said,
    answers_in_text,
    dumped,
    fields_of,
    raw,
    text_in,
    with_last,
    without,
)

_ELSEWHERE: Final = re.compile(r"(/model/)([^/]+)(/invoke)(?:-with-response-stream)?\Z")
_VERTEX: Final = re.compile(r"(/publishers/anthropic/models/)([^/:]+)(?::streamRawPredict)\Z")
_FAULTS: Final = {
    "max_tokens": Fault.CUT_OFF,
    "model_context_window_exceeded": Fault.CUT_OFF,
    "refusal": Fault.REFUSAL,
    "tool_use": Fault.TOOL,
    "pause_turn": Fault.TOOL,
}


def path(path: str, model: str) -> str:
    """The path of a plain answer, from the model asked where the path names one."""
    if found := _ELSEWHERE.search(path):
        name = quote(model, safe="") if model else found[2]
        return f"{path[: found.start()]}{found[1]}{name}{found[3]}"
    if found := _VERTEX.search(path):
        return f"{path[: found.start()]}{found[1]}{model or found[2]}:rawPredict"
    return path


def alone(request: Request, prompt: Prompt) -> bytes:
    """The prompt as a message of its own."""
    theirs = fields_of(request.body)
    body: dict[str, Any] = {"max_tokens": prompt.limit, "system": prompt.system}
    body["messages"] = [{"role": "user", "content": prompt.text}]
    if "anthropic_version" in theirs:
        body["anthropic_version"] = theirs["anthropic_version"]
    else:
        body["model"] = prompt.model
    return dumped(body)


def behind(request: Request, prompt: Prompt) -> bytes | None:
    """The prompt behind the conversation.

    Whether the model thinks is left as it is, since the cached prefix depends on that; thoughts
    need the room that the client gave them.
    """
    if not answers_in_text(request):
        return None
    fields = without(fields_of(request.body), "stream", "stop_sequences")
    message = dumped({"role": "user", "content": [{"type": "text", "text": prompt.text}]})
    fields["messages"] = with_last(request, message)
    thinks = bytes(fields.get("thinking", b"")).find(b'"disabled"') < 0 and "thinking" in fields
    if not thinks:
        fields["max_tokens"] = raw(prompt.limit)
    return dumped(fields)


def said(answer: Mapping[str, Any]) -> Said:
    """The text blocks of an answer."""
    content = answer.get("content")
    if answer.get("type") != "message" or not isinstance(content, list):
        return Said(fault=Fault.SHAPE)
    if answer.get("role") != "assistant":
        return Said(fault=Fault.ROLE)
    if fault := _FAULTS.get(str(answer.get("stop_reason"))):
        return Said(fault=fault)
    if any(isinstance(block, dict) and "input" in block for block in content):
        return Said(fault=Fault.TOOL)
    texts = [b for b in content if isinstance(b, dict) and b.get("type") == "text"]
    return Said(text_in(texts))


ASKING: Final = Asking(path, alone, behind, said)
