"""What the provider answers: plain JSON or a stream of events, with its own usage."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Call:
    """A tool call that the model makes."""

    name: str
    arguments: Json = field(default_factory=dict)
    id: str = ""


@dataclass(frozen=True, slots=True)
class Reply:
    """What the model says next. With a `status` it is the refusal of one request.

    `pieces` is into how many events the text of a stream is cut.
    """

    text: str = "Understood."
    calls: tuple[Call, ...] = ()
    thinking: str = ""
    pieces: int = 5
    status: int = 200
    error: Json | None = None


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens by the provider's count. The input is what was read, written and neither."""

    fresh: int
    read: int
    written: int
    output: int

    @property
    def total_input(self) -> int:
        """Everything that fills the window."""
        return self.fresh + self.read + self.written


def cut(text: str, pieces: int) -> Iterator[str]:
    """A text in about so many pieces."""
    size = max(1, -(-len(text) // max(1, pieces)))
    for start in range(0, len(text), size):
        yield text[start : start + size]


def line(value: Json) -> str:
    """JSON on one line."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def anthropic_content(reply: Reply, number: int, signature: str) -> list[Json]:
    """The blocks of an assistant message."""
    blocks: list[Json] = []
    if reply.thinking:
        blocks.append({"type": "thinking", "thinking": reply.thinking, "signature": signature})
    if reply.text:
        blocks.append({"type": "text", "text": reply.text})
    for place, call in enumerate(reply.calls):
        id_ = call.id or f"toolu_{number:06d}{place:02d}"
        blocks.append({"type": "tool_use", "id": id_, "name": call.name, "input": call.arguments})
    return blocks


def _anthropic_usage(usage: Usage, output: int) -> Json:
    return {
        "input_tokens": usage.fresh,
        "cache_creation_input_tokens": usage.written,
        "cache_read_input_tokens": usage.read,
        "output_tokens": output,
        "service_tier": "standard",
    }


def anthropic_message(
    model: str, number: int, content: list[Json], reply: Reply, usage: Usage
) -> Json:
    """The plain answer of `/v1/messages`."""
    return {
        "id": f"msg_{number:08d}",
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": content,
        "stop_reason": "tool_use" if reply.calls else "end_turn",
        "stop_sequence": None,
        "usage": _anthropic_usage(usage, usage.output),
    }


def anthropic_events(
    model: str, number: int, content: list[Json], reply: Reply, usage: Usage
) -> Iterator[bytes]:
    """The same answer as events."""
    whole = anthropic_message(model, number, content, reply, usage)
    start = {**whole, "content": [], "stop_reason": None, "usage": _anthropic_usage(usage, 1)}
    yield _event({"type": "message_start", "message": start})
    yield _event({"type": "ping"})
    for index, block in enumerate(content):
        yield from _block_events(index, block, reply.pieces)
    delta = {"stop_reason": whole["stop_reason"], "stop_sequence": None}
    yield _event(
        {"type": "message_delta", "delta": delta, "usage": {"output_tokens": usage.output}}
    )
    yield _event({"type": "message_stop"})


def _block_events(index: int, block: Json, pieces: int) -> Iterator[bytes]:
    if block["type"] == "text":
        empty: Json = {"type": "text", "text": ""}
        deltas: list[Json] = [
            {"type": "text_delta", "text": piece} for piece in cut(block["text"], pieces)
        ]
    elif block["type"] == "thinking":
        empty = {"type": "thinking", "thinking": "", "signature": ""}
        deltas = [
            {"type": "thinking_delta", "thinking": piece}
            for piece in cut(block["thinking"], pieces)
        ]
        deltas.append({"type": "signature_delta", "signature": block["signature"]})
    else:
        empty = {**block, "input": {}}
        arguments = json.dumps(block["input"])
        deltas = [
            {"type": "input_json_delta", "partial_json": piece} for piece in cut(arguments, pieces)
        ]
    yield _event({"type": "content_block_start", "index": index, "content_block": empty})
    for delta in deltas:
        yield _event({"type": "content_block_delta", "index": index, "delta": delta})
    yield _event({"type": "content_block_stop", "index": index})


def _event(value: Json) -> bytes:
    return f"event: {value['type']}\ndata: {line(value)}\n\n".encode("utf-8", "surrogatepass")


def _openai_usage(usage: Usage) -> Json:
    return {
        "prompt_tokens": usage.total_input,
        "completion_tokens": usage.output,
        "total_tokens": usage.total_input + usage.output,
        "prompt_tokens_details": {"cached_tokens": usage.read, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 0},
    }


def _openai_calls(reply: Reply, number: int) -> list[Json]:
    return [
        {
            "id": call.id or f"call_{number:06d}{place:02d}",
            "type": "function",
            "function": {"name": call.name, "arguments": json.dumps(call.arguments)},
        }
        for place, call in enumerate(reply.calls)
    ]


def openai_completion(model: str, number: int, reply: Reply, usage: Usage) -> Json:
    """The plain answer of `/v1/chat/completions`."""
    message: Json = {"role": "assistant", "content": reply.text or None, "refusal": None}
    if reply.calls:
        message["tool_calls"] = _openai_calls(reply, number)
    finish = "tool_calls" if reply.calls else "stop"
    return {
        "id": f"chatcmpl-{number:08d}",
        "object": "chat.completion",
        "created": 1_700_000_000 + number,
        "model": model,
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": finish}],
        "usage": _openai_usage(usage),
        "system_fingerprint": "fp_loopback",
    }


def openai_events(
    model: str, number: int, reply: Reply, usage: Usage, *, include_usage: bool
) -> Iterator[bytes]:
    """The same answer as events; usage comes only to those who asked for it."""

    def chunk(delta: Json | None, finish: str | None = None) -> bytes:
        choices = [] if delta is None else [{"index": 0, "delta": delta, "finish_reason": finish}]
        value: Json = {
            "id": f"chatcmpl-{number:08d}",
            "object": "chat.completion.chunk",
            "created": 1_700_000_000 + number,
            "model": model,
            "system_fingerprint": "fp_loopback",
            "choices": choices,
        }
        if include_usage:
            value["usage"] = _openai_usage(usage) if delta is None else None
        return f"data: {line(value)}\n\n".encode("utf-8", "surrogatepass")

    yield chunk({"role": "assistant", "content": "", "refusal": None})
    for piece in cut(reply.text, reply.pieces):
        yield chunk({"content": piece})
    for place, call in enumerate(_openai_calls(reply, number)):
        yield chunk({"tool_calls": [{"index": place, **call}]})
    yield chunk({}, "tool_calls" if reply.calls else "stop")
    if include_usage:
        yield chunk(None)
    yield b"data: [DONE]\n\n"
