"""What the model says: one object, events, or an array whose elements come one by one."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

from loopback.answers import Json, Reply, Usage, cut, line
from loopback.http1 import Wire
from loopback.rules_gemini.history import Memory
from loopback.speaking import Said

_MODEL = re.compile(r"/(?:models|tunedModels|endpoints)/([^/:]+):[A-Za-z]+\Z")


def model_of(wire: Wire, body: Json) -> str:
    """The model that the path names, or the envelope."""
    found = _MODEL.search(wire.path)
    if found:
        return found[1]
    inner = body.get("request")
    named = body.get("model") or (inner.get("model") if isinstance(inner, dict) else None)
    return named.rpartition("/")[2] if isinstance(named, str) else ""


def answer(wire: Wire, body: Json, number: int, reply: Reply, usage: Usage, memory: Memory) -> Said:
    """One object, events, or an array whose elements come one by one."""
    name = model_of(wire, body)
    wraps = "/v1internal:" in wire.path
    answers = list(_answers(name, number, reply, usage, memory))
    if not wire.path.endswith(":streamGenerateContent"):
        whole = answers[-1]
        parts = [part for one in answers for part in one["candidates"][0]["content"]["parts"]]
        candidate = {**whole["candidates"][0], "content": {"role": "model", "parts": parts}}
        return Said(_wrapped({**whole, "candidates": [candidate]}, wraps))
    said = [_wrapped(one, wraps) for one in answers]
    if "alt=sse" in wire.target.partition("?")[2].split("&"):
        return Said(pieces=[f"data: {line(one)}\r\n\r\n".encode() for one in said])
    return Said(pieces=_array(said), content_type="application/json; charset=UTF-8")


def _wrapped(value: Json, wraps: bool) -> Json:
    return {"response": value, "traceId": "5f6a"} if wraps else value


def _array(values: list[Json]) -> Iterator[bytes]:
    for at, value in enumerate(values):
        yield ("," if at else "[").encode() + json.dumps(value, indent=2).encode() + b"\r\n"
    yield b"]\n"


def _answers(name: str, number: int, reply: Reply, usage: Usage, memory: Memory) -> Iterator[Json]:
    """The pieces of an answer: thoughts, texts, and with the last of them the calls."""
    parts: list[Json] = [{"text": text, "thought": True} for text in cut(reply.thinking, 2)]
    parts += [{"text": text} for text in cut(reply.text, reply.pieces)]
    calls = [_call(call.name, call.arguments, call.id) for call in reply.calls]
    if calls and name.startswith("gemini-3"):
        calls[0]["thoughtSignature"] = memory.sign(calls[0])
    groups = [[part] for part in parts] + ([calls] if calls or not parts else [])
    for at, group in enumerate(groups):
        last = at == len(groups) - 1
        candidate: Json = {"content": {"parts": group, "role": "model"}, "index": 0}
        spent: Json = {"promptTokenCount": usage.total_input, "totalTokenCount": usage.total_input}
        if usage.read:
            spent["cachedContentTokenCount"] = usage.read
        if last:
            candidate["finishReason"] = "STOP"
            spent["candidatesTokenCount"] = usage.output
            spent["totalTokenCount"] += usage.output
        yield {
            "candidates": [candidate],
            "usageMetadata": spent,
            "modelVersion": name,
            "responseId": f"resp{number:08d}",
        }


def _call(name: str, arguments: Json, id_: str) -> Json:
    called: Json = {"name": name, "args": arguments}
    return {"functionCall": {**called, "id": id_} if id_ else called}
