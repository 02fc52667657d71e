"""Asking by Gemini's `generateContent`, of AI Studio, Vertex and, in an envelope, Code Assist."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

import msgspec

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
    raw,
    text_in,
    with_last,
)

_METHOD: Final = re.compile(r":(?:streamGenerateContent|generateContent)\Z")
_MODEL: Final = re.compile(r"(/(?:models|tunedModels|endpoints)/)[^/:]+\Z")
_CONFIG: Final = ("generationConfig", "generation_config")
_LIMIT: Final = ("maxOutputTokens", "max_output_tokens")
_BESIDE: Final = (*_LIMIT, "stopSequences", "stop_sequences", "candidateCount", "candidate_count")
_JSON: Final = re.compile(rb'"(?:application/json|text/x\.enum)"')


def path(path: str, model: str) -> str:
    """The path of a plain answer from the model asked."""
    stem = _METHOD.sub("", path)
    named = _MODEL.sub(lambda found: found[1] + model, stem) if model else stem
    return f"{named}:generateContent"


def alone(request: Request, prompt: Prompt) -> bytes:
    """The prompt as a content of its own."""
    asked = {
        "systemInstruction": {"parts": [{"text": prompt.system}]},
        "contents": [_content(prompt)],
        "generationConfig": {"maxOutputTokens": prompt.limit * THINKING},
    }
    theirs = fields_of(request.body)
    if "request" not in theirs:
        return dumped(asked)
    envelope: dict[str, Any] = {"model": prompt.model, "request": asked}
    if "project" in theirs:
        envelope["project"] = theirs["project"]
    return dumped(envelope)


def _content(prompt: Prompt) -> dict[str, Any]:
    return {"role": "user", "parts": [{"text": prompt.text}]}


def behind(request: Request, prompt: Prompt) -> bytes | None:
    """The prompt behind the conversation's contents."""
    theirs = fields_of(request.body)
    inner = fields_of(bytes(theirs["request"])) if "request" in theirs else theirs
    config = next((inner[name] for name in _CONFIG if name in inner), None)
    listed = request.body[request.array.start : request.array.start + 1] == b"["
    speaks = config is None or _JSON.search(bytes(config)) is None
    if not (listed and speaks and answers_in_text(request)) or request.hidden:
        return None
    inner = {name: value for name, value in inner.items() if name not in _CONFIG}
    inner["contents"] = with_last(request, dumped(_content(prompt)))
    inner["generationConfig"] = _limited(config, prompt)
    if "request" not in theirs:
        return dumped(inner)
    return dumped({**theirs, "request": inner})


def _limited(config: msgspec.Raw | None, prompt: Prompt) -> msgspec.Raw:
    fields: Fields = fields_of(bytes(config)) if config is not None else {}
    kept = {name: value for name, value in fields.items() if name not in _BESIDE}
    return msgspec.Raw(dumped({**kept, _LIMIT[0]: raw(prompt.limit * THINKING)}))


def said(answer: Mapping[str, Any]) -> Said:
    """The texts of the first candidate that are no thoughts."""
    answer = mapped(answer.get("response")) or answer
    candidate = first(answer.get("candidates"))
    if not isinstance(candidate, dict):
        blocked = mapped(answer.get("promptFeedback")).get("blockReason")
        return Said(fault=Fault.REFUSAL if blocked else Fault.SHAPE)
    reason = candidate.get("finishReason", "STOP")
    if reason != "STOP":
        return Said(fault=Fault.CUT_OFF if reason == "MAX_TOKENS" else Fault.REFUSAL)
    content = mapped(candidate.get("content"))
    if content.get("role", "model") != "model":
        return Said(fault=Fault.ROLE)
    parts = content.get("parts")
    parts = [mapped(part) for part in parts] if isinstance(parts, list) else []
    if any("functionCall" in part for part in parts):
        return Said(fault=Fault.TOOL)
    return Said(text_in([part for part in parts if not part.get("thought")]))


ASKING: Final = Asking(path, alone, behind, said)
