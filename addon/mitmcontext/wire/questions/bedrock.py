"""Asking by Bedrock's Converse, with a bearer key; signed bodies are never ours to make."""

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
    dumped,
    mapped,
    never_behind,
    text_in,
)

_PATH: Final = re.compile(r"(/model/)([^/]+)/converse(?:-stream)?\Z")
_FAULTS: Final = {
    "max_tokens": Fault.CUT_OFF,
    "model_context_window_exceeded": Fault.CUT_OFF,
    "tool_use": Fault.TOOL,
    "guardrail_intervened": Fault.REFUSAL,
    "content_filtered": Fault.REFUSAL,
}


def path(path: str, model: str) -> str:
    """The path of a plain answer from the model asked."""
    found = _PATH.search(path)
    if found is None:
        return path
    name = quote(model, safe="") if model else found[2]
    return f"{path[: found.start()]}{found[1]}{name}/converse"


def alone(request: Request, prompt: Prompt) -> bytes:
    """The prompt as a conversation of its own."""
    return dumped(
        {
            "system": [{"text": prompt.system}],
            "messages": [{"role": "user", "content": [{"text": prompt.text}]}],
            "inferenceConfig": {"maxTokens": prompt.limit},
        }
    )


def said(answer: Mapping[str, Any]) -> Said:
    """The texts of the output's message."""
    message = mapped(answer.get("output")).get("message")
    if not isinstance(message, dict):
        return Said(fault=Fault.SHAPE)
    if message.get("role") != "assistant":
        return Said(fault=Fault.ROLE)
    if fault := _FAULTS.get(str(answer.get("stopReason"))):
        return Said(fault=fault)
    return Said(text_in(message.get("content")))


ASKING: Final = Asking(path, alone, never_behind, said)
