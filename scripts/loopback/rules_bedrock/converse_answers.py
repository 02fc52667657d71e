"""What Converse answers: one JSON value, or the messages of an event stream."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterator

from loopback.answers import Json, Reply, Usage, cut, line
from loopback.http1 import Wire
from loopback.rules_bedrock.converse import Memory
from loopback.speaking import Said

EVENT_STREAM = "application/vnd.amazon.eventstream"


def answer(wire: Wire, body: Json, number: int, reply: Reply, usage: Usage, memory: Memory) -> Said:
    """One JSON value, or the messages of an event stream."""
    content = _content(number, reply, memory)
    stop = "tool_use" if reply.calls else "end_turn"
    ending = {"usage": _usage(usage), "metrics": {"latencyMs": 12}}
    if wire.path.endswith("-stream"):
        return Said(
            pieces=_events(content, reply, stop, ending),
            content_type=EVENT_STREAM,
        )
    message = {"role": "assistant", "content": content}
    return Said({"output": {"message": message}, "stopReason": stop, **ending})


def _usage(usage: Usage) -> Json:
    return {
        "inputTokens": usage.fresh,
        "outputTokens": usage.output,
        "totalTokens": usage.total_input + usage.output,
        "cacheReadInputTokens": usage.read,
        "cacheWriteInputTokens": usage.written,
    }


def _content(number: int, reply: Reply, memory: Memory) -> list[Json]:
    found: list[Json] = []
    if reply.thinking:
        thought = {"text": reply.thinking, "signature": memory.sign(reply.thinking)}
        found.append({"reasoningContent": {"reasoningText": thought}})
    if reply.text:
        found.append({"text": reply.text})
    for place, call in enumerate(reply.calls):
        id_ = call.id or f"tooluse_{number:06d}{place:02d}"
        use = {"toolUseId": id_, "name": call.name, "input": call.arguments}
        found.append({"toolUse": use})
    return found


def _events(content: list[Json], reply: Reply, stop: str, ending: Json) -> Iterator[bytes]:
    yield event("messageStart", {"role": "assistant"})
    for index, block in enumerate(content):
        if "toolUse" in block:
            use = {key: block["toolUse"][key] for key in ("toolUseId", "name")}
            start = {"contentBlockIndex": index, "start": {"toolUse": use}}
            yield event("contentBlockStart", start)
        for delta in _deltas(block, reply.pieces):
            yield event("contentBlockDelta", {"contentBlockIndex": index, "delta": delta})
        yield event("contentBlockStop", {"contentBlockIndex": index})
    yield event("messageStop", {"stopReason": stop})
    yield event("metadata", ending)


def _deltas(block: Json, pieces: int) -> Iterator[Json]:
    if "text" in block:
        yield from ({"text": piece} for piece in cut(block["text"], pieces))
    elif "toolUse" in block:
        given = json.dumps(block["toolUse"]["input"])
        yield from ({"toolUse": {"input": piece}} for piece in cut(given, pieces))
    else:
        thought = block["reasoningContent"]["reasoningText"]
        for piece in cut(thought["text"], pieces):
            yield {"reasoningContent": {"text": piece}}
        yield {"reasoningContent": {"signature": thought["signature"]}}


def event(kind: str, value: Json) -> bytes:
    """One message of an AWS event stream; `p` is padding, as Bedrock has it."""
    payload = line({**value, "p": "abcdefghij"[: len(kind) % 10 + 1]})
    said = {":event-type": kind, ":content-type": "application/json", ":message-type": "event"}
    headers = b"".join(_header(*pair) for pair in said.items())
    data = payload.encode("utf-8", "surrogatepass")
    prelude = struct.pack(">II", 16 + len(headers) + len(data), len(headers))
    begun = prelude + struct.pack(">I", zlib.crc32(prelude)) + headers + data
    return begun + struct.pack(">I", zlib.crc32(begun))


def _header(name: str, value: str) -> bytes:
    said = value.encode()
    return bytes([len(name)]) + name.encode() + b"\x07" + struct.pack(">H", len(said)) + said
