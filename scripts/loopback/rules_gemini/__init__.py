"""What Google's Gemini refuses on `generateContent` and its kin, and in which words.

A body is first brought into one form (`form.py`), as Google's servers do it: keys in camel case
whatever their spelling, no nulls, single values as lists of one. Names and types are judged on the
way, by a table of the messages that the API knows. Then rules (`history.py`) look at the
conversation, each a generator of complaints like those of `rules_anthropic`; the first complaint
counts.
"""

from __future__ import annotations

from typing import Any

from loopback.answers import Json
from loopback.counting import Model, count
from loopback.http1 import Wire
from loopback.refusal import Refusal
from loopback.rules_gemini.answers import answer, model_of
from loopback.rules_gemini.form import SENTINELS, Odd, any_request, request_of
from loopback.rules_gemini.history import RULES, Memory, View, declarations
from loopback.speaking import Speaking

__all__ = (
    "SENTINELS",
    "SPEAKING",
    "Memory",
    "answer",
    "check",
    "judge",
    "model_of",
    "request_of",
    "say",
)

METHODS = (":generateContent", ":streamGenerateContent", ":countTokens")
_STATES = {400: "INVALID_ARGUMENT", 401: "UNAUTHENTICATED", 404: "NOT_FOUND"}


def _history(request: Json) -> list[Json]:
    return [
        {**content, "parts": [_counted(part) for part in content.get("parts") or ()]}
        for content in request.get("contents") or ()
    ]


def _counted(part: Json) -> Json:
    """A part as it counts: media at the price of an image, signatures at none."""
    if "inlineData" in part or "fileData" in part:
        return {"type": "image"}
    return {key: value for key, value in part.items() if key != "thoughtSignature"}


def _head(request: Json) -> Json:
    system = (request.get("systemInstruction") or {}).get("parts") or ()
    texts = [part.get("text", "") for part in system]
    return {"system": "\n".join(texts), "tools": declarations(request)}


def judge(body: Any, memory: Memory, path: str, name: str, model: Model | None) -> Refusal | None:
    """Say how the provider refuses this body, or None if it takes it and has learned from it.

    Without a `model` only the shape is looked at. `name` is the model's.
    """
    try:
        request = request_of(body, path)
    except Odd as odd:
        return Refusal(str(odd))
    view = View(request, memory, name, on_vertex="/publishers/" in path)
    complaint = next((words for rule in RULES for words in rule(view)), None)
    if complaint is not None:
        return Refusal(complaint)
    if model is not None and not path.endswith(":countTokens"):
        tokens = count({**_head(request), "messages": _history(request)}, model)
        if tokens > model.window:
            message = (
                f"The input token count ({tokens}) exceeds the maximum number of tokens allowed"
                f" ({model.window})."
            )
            return Refusal(message, too_long=True)
    memory.learn(view.contents)
    return None


def check(body: Any, memory: Memory, wire: Wire, model: Model) -> Refusal | None:
    """Judge a request off the wire."""
    name = model_of(wire, body) if isinstance(body, dict) else ""
    return judge(body, memory, wire.path, name, model)


def say(refusal: Refusal, number: int) -> Json:
    """The refusal as the provider's JSON."""
    status = _STATES.get(refusal.status, "INVALID_ARGUMENT" if refusal.status < 500 else "INTERNAL")
    return {"error": {"code": refusal.status, "message": refusal.message, "status": status}}


SPEAKING = Speaking(
    name="gemini",
    recognises=lambda wire: wire.path.endswith(METHODS),
    model=model_of,
    history=lambda body: _history(any_request(body)),
    head=lambda body: _head(any_request(body)),
    memory=Memory,
    check=check,
    say=say,
    answer=answer,
    counts=lambda wire: wire.path.endswith(":countTokens"),
    counted=lambda tokens: {"totalTokens": tokens},
)
