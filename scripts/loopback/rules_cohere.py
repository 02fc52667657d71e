"""What api.cohere.com refuses on `/v2/chat`, and in which words.

Calls are judged as OpenAI judges them, and in the same words; everything else is Cohere's own.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from .answers import Json, Reply, Usage, cut, line
from .counting import Model, count
from .http1 import Wire
from .refusal import Refusal, names
from .rules_openai import calls_have_results
from .speaking import Said, Speaking

PATH = "/v2/chat"
_TOP = names(
    "citation_options documents frequency_penalty k logprobs max_tokens messages model p"
    " presence_penalty priority raw_prompting reasoning_effort response_format safety_mode seed"
    " stop_sequences stream strict_tools temperature thinking tool_choice tools"
)
_KEYS = {
    "system": names("role content"),
    "user": names("role content"),
    "assistant": names("role content tool_calls tool_plan citations"),
    "tool": names("role content tool_call_id"),
}
_BLOCKS = {
    "system": names("text"),
    "user": names("text image_url"),
    "assistant": names("text thinking"),
    "tool": names("text document image_url"),
}
# Per type of block, the key that holds what it says.
_HELD = {"text": str, "thinking": str, "image_url": dict, "document": dict}


@dataclass
class Memory:
    """What the provider knows of one account: nothing that decides about a request."""

    seen: int = field(default=0)


def head(body: Json) -> Json:
    """What counts before the messages: documents and tools."""
    return {"system": body.get("documents") or "", "tools": body.get("tools") or []}


Rule = Callable[[Json], Iterator[str]]


def top_level(body: Json) -> Iterator[str]:
    """Only known keys, and those that must be there."""
    for key in body:
        if key not in _TOP:
            yield f"unknown field: parameter '{key}' is not a valid field"
    if not isinstance(body.get("model"), str) or not body["model"]:
        yield "a model parameter is required for this endpoint."
    if not isinstance(body.get("messages"), list):
        yield "invalid type: parameter messages is of type object but should be of type list."
    elif not body["messages"]:
        yield "invalid request: messages must not be empty"


def message_shapes(body: Json) -> Iterator[str]:
    """Only known roles, for each role only its keys and its blocks, and no empty text."""
    for index, message in enumerate(body["messages"]):
        role = message.get("role") if isinstance(message, dict) else None
        if not isinstance(role, str) or role not in _KEYS:
            yield f"invalid request: message at index {index} has an invalid role"
            return
        for key in message:
            if key not in _KEYS[role]:
                yield f"unknown field: parameter 'messages[{index}].{key}' is not a valid field"
        yield from _content(index, role, message)
        yield from _calls(index, message.get("tool_calls"))


def _content(index: int, role: str, message: Json) -> Iterator[str]:
    content = message.get("content")
    where = f"messages[{index}].content"
    if not content:
        if role != "assistant":
            yield f"invalid request: message at index {index} must have non-empty content"
        if not message.get("tool_calls") and not message.get("tool_plan"):
            yield f"invalid request: message at index {index} has no content, plan or tool calls"
        return
    if isinstance(content, str):
        return
    if not isinstance(content, list):
        yield f"invalid type: parameter {where} is of type object but should be of type string."
        return
    for block in content:
        kind = block.get("type") if isinstance(block, dict) else None
        if not isinstance(kind, str) or kind not in _BLOCKS[role]:
            yield f"invalid request: {where} holds a block of type {kind!r}"
            return
        if not isinstance(block.get(kind), _HELD[kind]):
            yield f"invalid type: parameter {where}.{kind} is of the wrong type."
        if kind == "document" and not isinstance(block["document"].get("data"), str | dict):
            yield f"invalid request: {where}.document must have data"
        if kind == "text" and not block["text"]:
            yield f"invalid request: {where} holds an empty text"


def _calls(index: int, calls: Any) -> Iterator[str]:
    if calls is None:
        return
    where = f"messages[{index}].tool_calls"
    if not isinstance(calls, list):
        yield f"invalid type: parameter {where} should be of type list."
        return
    for call in calls:
        function = call.get("function") if isinstance(call, dict) else None
        if not isinstance(function, dict) or not isinstance(call.get("id"), str):
            yield f"invalid request: {where} holds a call without id or function"
            return
        if not isinstance(function.get("name"), str):
            yield f"invalid request: {where} holds a function without name"
        if not isinstance(function.get("arguments"), str | None):
            yield f"invalid type: parameter {where}.function.arguments should be of type string."


def pairs(body: Json) -> Iterator[str]:
    """Each call is answered at once, and nothing is answered that was not asked."""
    return (f"invalid request: {refusal.message}" for refusal in calls_have_results(body))


RULES: tuple[Rule, ...] = (top_level, message_shapes, pairs)


def check(body: Any, memory: Memory, wire: Wire | None, model: Model) -> Refusal | None:
    """Say how the provider refuses this request, or None if it takes it."""
    if not isinstance(body, dict):
        return Refusal("invalid type: the request body should be of type object.")
    for rule in RULES:
        complaint = next(rule(body), None)
        if complaint is not None:
            return Refusal(complaint)
    tokens = count({**head(body), "messages": body["messages"]}, model)
    if tokens > model.window:
        return Refusal(
            "too many tokens: total number of tokens in the prompt cannot exceed"
            f" {model.window} - received {tokens}. Try using a shorter prompt, or enabling prompt"
            " truncating. See https://docs.cohere.com/reference/generate for more details.",
            too_long=True,
        )
    memory.seen += 1
    return None


def say(refusal: Refusal, number: int) -> Json:
    """The refusal as the provider's JSON."""
    return {"id": f"co-{number:08d}", "message": refusal.message}


# Answers.


def answer(wire: Wire, body: Json, number: int, reply: Reply, usage: Usage, memory: Memory) -> Said:
    """One JSON value, or the events of a stream."""
    if body.get("stream"):
        return Said(pieces=_events(number, reply, usage))
    message: Json = {"role": "assistant"}
    if reply.calls:
        message |= {"tool_plan": reply.text, "tool_calls": _called(number, reply)}
    else:
        thought = {"type": "thinking", "thinking": reply.thinking}
        said = {"type": "text", "text": reply.text}
        message["content"] = [thought, said] if reply.thinking else [said]
    finish = "TOOL_CALL" if reply.calls else "COMPLETE"
    return Said(
        {
            "id": f"co-{number:08d}",
            "finish_reason": finish,
            "message": message,
            "usage": _usage(usage),
        }
    )


def _usage(usage: Usage) -> Json:
    """Both counts: what is billed leaves out what the provider puts around the messages."""
    billed = {"input_tokens": max(1, usage.total_input - 495), "output_tokens": usage.output}
    tokens = {"input_tokens": usage.total_input, "output_tokens": usage.output}
    return {"billed_units": billed, "tokens": tokens, "cached_tokens": usage.read}


def _called(number: int, reply: Reply) -> list[Json]:
    return [
        {
            "id": call.id or f"{call.name}_{number:06d}{place:02d}",
            "type": "function",
            "function": {"name": call.name, "arguments": json.dumps(call.arguments)},
        }
        for place, call in enumerate(reply.calls)
    ]


def _events(number: int, reply: Reply, usage: Usage) -> Iterator[bytes]:
    opening = {"role": "assistant", "content": [], "tool_plan": "", "tool_calls": []}
    yield _event("message-start", {"message": opening}, id=f"co-{number:08d}")
    if reply.calls:
        for piece in cut(reply.text, reply.pieces):
            yield _event("tool-plan-delta", {"message": {"tool_plan": piece}})
        for place, call in enumerate(_called(number, reply)):
            given = call["function"].pop("arguments")
            start = {**call, "function": {**call["function"], "arguments": ""}}
            yield _event("tool-call-start", {"message": {"tool_calls": start}}, index=place)
            delta = {"message": {"tool_calls": {"function": {"arguments": given}}}}
            yield _event("tool-call-delta", delta, index=place)
            yield _event("tool-call-end", None, index=place)
    else:
        texts = [("thinking", reply.thinking), ("text", reply.text)]
        for index, (kind, text) in enumerate((k, t) for k, t in texts if t):
            start = {"message": {"content": {"type": kind, kind: ""}}}
            yield _event("content-start", start, index=index)
            for piece in cut(text, reply.pieces):
                said = {"message": {"content": {kind: piece}}}
                yield _event("content-delta", said, index=index)
            yield _event("content-end", None, index=index)
    finish = "TOOL_CALL" if reply.calls else "COMPLETE"
    yield _event("message-end", {"finish_reason": finish, "usage": _usage(usage)})
    yield b"data: [DONE]\n\n"


def _event(kind: str, delta: Json | None, **others: Any) -> bytes:
    value = {"type": kind, **others, **({"delta": delta} if delta is not None else {})}
    return f"event: {kind}\ndata: {line(value)}\n\n".encode("utf-8", "surrogatepass")


SPEAKING = Speaking(
    name="cohere",
    recognises=lambda wire: wire.path.endswith(PATH),
    model=lambda wire, body: str(body.get("model") or ""),
    history=lambda body: list(body["messages"]),
    head=head,
    memory=lambda key: Memory(),
    check=check,
    say=say,
    answer=answer,
)
