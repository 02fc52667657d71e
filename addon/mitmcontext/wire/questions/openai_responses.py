"""Asking by OpenAI Responses. Nothing of ours is stored there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from mitmcontext.values import Request
from mitmcontext.wire.asking import (
    THINKING,
    Asking,
    Fault,
    Prompt,
    Said,
    answers_in_text,
    dumped,
    fields_of,
    mapped,
    raw,
    same_path,
    text_in,
    with_last,
    without,
)


def alone(request: Request, prompt: Prompt) -> bytes:
    """The prompt as an input of its own."""
    return dumped(
        {
            "model": prompt.model,
            "instructions": prompt.system,
            "input": [_message(prompt)],
            "max_output_tokens": prompt.limit * THINKING,
            "store": False,
        }
    )


def _message(prompt: Prompt) -> dict[str, Any]:
    content = [{"type": "input_text", "text": prompt.text}]
    return {"type": "message", "role": "user", "content": content}


def behind(request: Request, prompt: Prompt) -> bytes | None:
    """The prompt behind the conversation's items."""
    listed = request.body[request.array.start : request.array.start + 1] == b"["
    if not listed or request.hidden or not answers_in_text(request):
        return None
    fields = without(fields_of(request.body), "stream", "stream_options", "background")
    fields["input"] = with_last(request, dumped(_message(prompt)))
    fields |= {"store": raw(False), "max_output_tokens": raw(prompt.limit * THINKING)}
    return dumped(fields)


def said(answer: Mapping[str, Any]) -> Said:
    """The texts of the messages among an answer's items."""
    output = answer.get("output")
    if not isinstance(output, list):
        return Said(fault=Fault.SHAPE)
    if answer.get("status") == "incomplete":
        why = mapped(answer.get("incomplete_details")).get("reason")
        return Said(fault=Fault.REFUSAL if why == "content_filter" else Fault.CUT_OFF)
    items = [mapped(item) for item in output]
    if any(str(item.get("type")).endswith("_call") for item in items):
        return Said(fault=Fault.TOOL)
    spoken = [item for item in items if item.get("type") == "message"]
    if any(item.get("role") != "assistant" for item in spoken):
        return Said(fault=Fault.ROLE)
    if any(text_in(item.get("content"), "refusal") for item in spoken):
        return Said(fault=Fault.REFUSAL)
    return Said("\n\n".join(text_in(item.get("content")) for item in spoken))


ASKING: Final = Asking(same_path, alone, behind, said)
