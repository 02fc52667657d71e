"""What Ollama refuses on `/api/chat` and `/api/generate`, and what it leaves out without a word.

Its server is Go: keys that it does not know mean nothing to it, values of another type are refused
in the decoder's words, and calls without results are taken as they come. A request that does not
fit is cut silently: the oldest messages go, the system's and the last one stay. That is the one
thing that must not happen here, so it is remembered, for tests to look at.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from .answers import Json, Reply, Usage, cut, line
from .counting import Model, count, count_head, count_message
from .http1 import Wire
from .refusal import Refusal
from .speaking import Said, Speaking

CHAT, GENERATE = "/api/chat", "/api/generate"
DEFAULT_WINDOW = 4_096
_ROLES = ("system", "user", "assistant", "tool")
_KINDS = {str: "string", list: "array", dict: "object", bool: "bool"}
_TOO_LONG = (
    "the prompt is longer than the context length currently available to the model; shorten the"
    " prompt, adjust the context length in settings, or use a model with a longer context length"
)
_CREATED = "2026-01-01T00:00:00Z"


@dataclass
class Memory:
    """What happened to one account's requests: how many messages of each were left out."""

    dropped: list[int] = field(default_factory=list)

    @property
    def truncated(self) -> int:
        """How many requests lost their beginning."""
        return sum(count > 0 for count in self.dropped)


def window(body: Json) -> int:
    """The context window of a request: its own, or a small machine's."""
    asked = (body.get("options") or {}).get("num_ctx")
    return asked if isinstance(asked, int) and asked > 0 else DEFAULT_WINDOW


def history(body: Json) -> list[Json]:
    """The messages of a request; of a completion its prompt, behind a history of tokens."""
    if "messages" in body:
        messages: list[Json] = body["messages"] or []
        return messages
    tokens = {"role": "user", "content": " a" * len(body.get("context") or ())}
    prompt = {"role": "user", "content": body.get("prompt") or "", "images": body.get("images")}
    return [tokens, prompt] if body.get("context") else [prompt]


def head(body: Json) -> Json:
    """What counts before the messages."""
    return {"system": body.get("system") or "", "tools": body.get("tools") or []}


def left_out(body: Json, model: Model) -> int:
    """How many of the oldest messages do not fit. System messages and the last one always stay."""
    messages = history(body)
    weights = [count_message(message, model) for message in messages]
    standing = count_head(head(body), model) + sum(weights)
    dropped = 0
    for message, weight in zip(messages[:-1], weights[:-1], strict=True):
        if standing <= window(body):
            break
        if message["role"].lower() != "system":
            standing -= weight
            dropped += 1
    return dropped


# What JSON is taken at all.

Rule = Callable[[Json], Iterator[str]]


def _mismatch(value: Any, where: str, kind: str) -> str:
    found = _KINDS.get(type(value), "number")
    return f"json: cannot unmarshal {found} into Go struct field {where} of type {kind}"


def _typed(value: Json, where: str, **kinds: type) -> Iterator[str]:
    names = {str: "string", list: "[]", dict: "map[string]interface {}", bool: "bool"}
    for key, kind in kinds.items():
        found = value.get(key)
        if found is not None and not isinstance(found, kind):
            yield _mismatch(found, f"{where}.{key}", names[kind])


def top_level(body: Json) -> Iterator[str]:
    """A model, and values of their types."""
    yield from _typed(
        body,
        "ChatRequest",
        model=str,
        messages=list,
        prompt=str,
        context=list,
        images=list,
        system=str,
        tools=list,
        stream=bool,
        options=dict,
    )
    if not body.get("model"):
        yield "model is required"
    for key in ("num_ctx", "num_predict"):
        found = (body.get("options") or {}).get(key)
        if found is not None and (not isinstance(found, int | float) or isinstance(found, bool)):
            yield f'option "{key}" must be of type integer'


def message_shapes(body: Json) -> Iterator[str]:
    """Known roles, texts that are texts, images in base64, arguments that are objects."""
    for message in body.get("messages") or []:
        if not isinstance(message, dict):
            yield _mismatch(message, "ChatRequest.messages", "api.Message")
            return
        where = "ChatRequest.messages"
        yield from _typed(message, where, role=str, content=str, thinking=str, tool_name=str)
        yield from _typed(message, where, images=list, tool_calls=list)
        if str(message.get("role") or "").lower() not in _ROLES:
            yield f"Invalid role: {message.get('role') or ''}"
        for image in message.get("images") or []:
            yield from _image(image)
        for call in message.get("tool_calls") or []:
            yield from _call(call)


def _image(image: Any) -> Iterator[str]:
    try:
        base64.b64decode(image, validate=True)
    except (binascii.Error, TypeError, ValueError):
        yield "illegal base64 data at input byte 0"


def _call(call: Any) -> Iterator[str]:
    where = "ChatRequest.messages.tool_calls"
    if not isinstance(call, dict):
        yield _mismatch(call, where, "api.ToolCall")
        return
    yield from _typed(call, where, function=dict, id=str)
    yield from _typed(call.get("function") or {}, f"{where}.function", name=str, arguments=dict)


def images(body: Json) -> Iterator[str]:
    """The images of a completion."""
    for image in body.get("images") or []:
        yield from _image(image)


RULES: tuple[Rule, ...] = (top_level, message_shapes, images)


def check(body: Any, memory: Memory, wire: Wire | None, model: Model) -> Refusal | None:
    """Say how the server refuses this request, or note what it leaves out of it."""
    if not isinstance(body, dict):
        return Refusal(_mismatch(body, "", "api.ChatRequest"))
    complaint = next((words for rule in RULES for words in rule(body)), None)
    if complaint is not None:
        return Refusal(complaint)
    dropped = left_out(body, model)
    told = {**head(body), "messages": history(body)}
    if body.get("truncate") is False and count(told, model) > window(body):
        return Refusal(_TOO_LONG, too_long=True)
    memory.dropped.append(dropped)
    return None


def say(refusal: Refusal, number: int) -> Json:
    """The refusal as the server's JSON."""
    return {"error": refusal.message}


# Answers.


def answer(wire: Wire, body: Json, number: int, reply: Reply, usage: Usage, memory: Memory) -> Said:
    """One line of JSON, or as many as there are pieces: it streams unless told not to."""
    lines = list(_lines(wire.path.endswith(GENERATE), body, reply, usage))
    if body.get("stream") is not False:
        pieces = [f"{line(one)}\n".encode("utf-8", "surrogatepass") for one in lines]
        return Said(pieces=pieces, content_type="application/x-ndjson")
    *said, whole = lines
    if wire.path.endswith(GENERATE):
        return Said({**whole, "response": reply.text})
    message: Json = {"role": "assistant", "content": reply.text}
    for one in said:
        message |= {k: v for k, v in one["message"].items() if k == "tool_calls"}
    if reply.thinking:
        message["thinking"] = reply.thinking
    return Said({**whole, "message": message})


def _lines(completes: bool, body: Json, reply: Reply, usage: Usage) -> Iterator[Json]:
    opening = {"model": body["model"], "created_at": _CREATED}
    if completes:
        for piece in cut(reply.text, reply.pieces):
            yield {**opening, "response": piece, "done": False}
        said: Json = {"response": "", "context": [1, 2, 3]}
    else:
        for message in _messages(reply):
            yield {**opening, "message": {"role": "assistant", **message}, "done": False}
        said = {"message": {"role": "assistant", "content": ""}}
    yield {
        **opening,
        **said,
        "done": True,
        "done_reason": "stop",
        "total_duration": 1_000_000,
        "load_duration": 1_000,
        # What was left out was never evaluated.
        "prompt_eval_count": min(usage.total_input, window(body)),
        "prompt_eval_duration": 1_000,
        "eval_count": usage.output,
        "eval_duration": 1_000,
    }


def _messages(reply: Reply) -> Iterator[Json]:
    for piece in cut(reply.thinking, reply.pieces):
        yield {"content": "", "thinking": piece}
    for piece in cut(reply.text, reply.pieces):
        yield {"content": piece}
    if reply.calls:
        calls = [{"function": {"name": c.name, "arguments": c.arguments}} for c in reply.calls]
        yield {"content": "", "tool_calls": json.loads(json.dumps(calls))}


SPEAKING = Speaking(
    name="ollama",
    recognises=lambda wire: wire.path.endswith((CHAT, GENERATE)),
    model=lambda wire, body: str(body.get("model") or ""),
    history=history,
    head=head,
    memory=lambda key: Memory(),
    check=check,
    say=say,
    answer=answer,
    needs_key=False,
)
