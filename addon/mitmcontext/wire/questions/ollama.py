"""Asking by Ollama's chat. What it has read it keeps, so that asking behind it costs little."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from mitmcontext.values import Request
from mitmcontext.wire.asking import (
    Asking,
    Fault,
    Fields,
    Prompt,
    Said,
    dumped,
    fields_of,
    raw,
    same_path,
    with_last,
    without,
)
from mitmcontext.wire.questions.openai_chat import messages, said_by


def _options(theirs: Fields, limit: int) -> msgspec.Raw:
    """The client's options: with another window the server would load the model anew."""
    fields = fields_of(bytes(theirs["options"])) if "options" in theirs else {}
    return msgspec.Raw(dumped({**without(fields, "stop"), "num_predict": raw(limit)}))


def alone(request: Request, prompt: Prompt) -> bytes:
    """The prompt as a conversation of its own."""
    options = _options(fields_of(request.body), prompt.limit)
    body = {"model": prompt.model, "messages": messages(prompt), "stream": False}
    return dumped({**body, "options": options})


def behind(request: Request, prompt: Prompt) -> bytes | None:
    """The prompt behind the conversation."""
    fields = fields_of(request.body)
    if bytes(fields.get("format", b'""')) not in (b'""', b"null"):
        return None
    fields["options"] = _options(fields, prompt.limit)
    fields["messages"] = with_last(request, dumped({"role": "user", "content": prompt.text}))
    fields["stream"] = raw(False)
    return dumped(fields)


def said(answer: Mapping[str, Any]) -> Said:
    """The content of the message."""
    if "message" not in answer or not answer.get("done"):
        return Said(fault=Fault.SHAPE)
    return said_by(answer["message"], answer.get("done_reason"))


ASKING: Final = Asking(same_path, alone, behind, said)
