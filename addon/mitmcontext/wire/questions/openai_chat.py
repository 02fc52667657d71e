"""Asking by OpenAI Chat Completions and the many that follow it; and by Cohere's chat."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from mitmcontext.values import Request
from mitmcontext.wire.asking import (
    THINKING,
    Asking,
    Fault,
    Fields,
    Prompt,
    Said,
    answers_in_text,
    dumped,
    fields_of,
    first,
    mapped,
    never_behind,
    raw,
    same_path,
    text_in,
    with_last,
    without,
)

# OpenAI's models that think take the limit under another name.
_THINKS: Final = re.compile(r"(?:.*/)?(?:o\d|gpt-[5-9]|codex)")
_NEWER, _OLDER = "max_completion_tokens", "max_tokens"
_OURS_TO_SAY: Final = (
    "stream",
    "stream_options",
    "stop",
    "n",
    "logprobs",
    "top_logprobs",
    "prediction",
    "modalities",
    "audio",
    _NEWER,
    _OLDER,
)
_FAULTS: Final = {
    "length": Fault.CUT_OFF,
    "tool_calls": Fault.TOOL,
    "function_call": Fault.TOOL,
    "content_filter": Fault.REFUSAL,
    "MAX_TOKENS": Fault.CUT_OFF,
    "TOOL_CALL": Fault.TOOL,
}


def messages(prompt: Prompt) -> list[dict[str, str]]:
    """The prompt as a system's and a user's message."""
    return [
        {"role": "system", "content": prompt.system},
        {"role": "user", "content": prompt.text},
    ]


def _limit(theirs: Fields, prompt: Prompt) -> dict[str, int]:
    thinks = _THINKS.match(prompt.model) is not None or "reasoning_effort" in theirs
    newer = _NEWER in theirs or (thinks and _OLDER not in theirs)
    return {_NEWER if newer else _OLDER: prompt.limit * (THINKING if thinks else 1)}


def alone(request: Request, prompt: Prompt) -> bytes:
    """The prompt as a conversation of its own."""
    limit = _limit(fields_of(request.body), prompt)
    return dumped({"model": prompt.model, "messages": messages(prompt), **limit})


def behind(request: Request, prompt: Prompt) -> bytes | None:
    """The prompt behind the conversation."""
    if not answers_in_text(request):
        return None
    theirs = fields_of(request.body)
    fields = without(theirs, *_OURS_TO_SAY)
    fields["messages"] = with_last(request, dumped({"role": "user", "content": prompt.text}))
    fields |= {name: raw(limit) for name, limit in _limit(theirs, prompt).items()}
    return dumped(fields)


def said(answer: Mapping[str, Any]) -> Said:
    """The content of the first choice."""
    choice = mapped(first(answer.get("choices")))
    return said_by(choice.get("message"), choice.get("finish_reason"))


def said_by(message: Any, reason: Any) -> Said:
    """What an assistant's message says that ended for a reason."""
    if not isinstance(message, dict):
        return Said(fault=Fault.SHAPE)
    if message.get("role") != "assistant":
        return Said(fault=Fault.ROLE)
    if fault := _FAULTS.get(str(reason)):
        return Said(fault=fault)
    if message.get("tool_calls") or message.get("function_call"):
        return Said(fault=Fault.TOOL)
    if message.get("refusal"):
        return Said(fault=Fault.REFUSAL)
    return Said(text_in(message.get("content")))


def _cohere(request: Request, prompt: Prompt) -> bytes:
    limit = {"max_tokens": prompt.limit, "stream": False}
    return dumped({"model": prompt.model, "messages": messages(prompt), **limit})


def _said_by_cohere(answer: Mapping[str, Any]) -> Said:
    return said_by(answer.get("message"), answer.get("finish_reason"))


ASKING: Final = Asking(same_path, alone, behind, said)
COHERE: Final = Asking(same_path, _cohere, never_behind, _said_by_cohere)
