"""What the model says on `/v1/responses`, whole or as events."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

from loopback.answers import Call, Reply, Usage, cut, line
from loopback.http1 import Wire
from loopback.rules_responses.items import COMPACT, Json, Memory, items_of, type_of
from loopback.speaking import Said


def answer(wire: Wire, body: Json, number: int, reply: Reply, usage: Usage, memory: Memory) -> Said:
    """What the model says, whole or as events; a compaction is one sealed item."""
    compacts = wire.path.endswith(COMPACT)
    asked = compacts or type_of(items_of(body)[-1]) == "compaction_trigger"
    output = [_compaction(number, memory)] if asked else _output(body, number, reply, memory)
    whole = _response(body, number, output, usage)
    if compacts:
        return Said({**whole, "object": "response.compaction"})
    memory.learn(output)
    if body.get("store") is not False:
        memory.stored[whole["id"]] = output
    if body.get("stream"):
        return Said(pieces=[_event(at, one) for at, one in enumerate(_events(whole, reply))])
    return Said(whole)


def _compaction(number: int, memory: Memory) -> Json:
    sealed = memory.seal(f"compaction {number}")
    return {"type": "compaction", "id": f"cmp_{number:08d}", "encrypted_content": sealed}


def _output(body: Json, number: int, reply: Reply, memory: Memory) -> list[Json]:
    """Reasoning, what is said, and calls, in the order of a model that reasons."""
    found: list[Json] = []
    if reply.thinking:
        sealed = "reasoning.encrypted_content" in (body.get("include") or [])
        thought: Json = {"id": f"rs_{number:08d}", "type": "reasoning", "summary": []}
        found.append(
            {**thought, "encrypted_content": memory.seal(reply.thinking)} if sealed else thought
        )
    if reply.text:
        said = {"type": "output_text", "annotations": [], "logprobs": [], "text": reply.text}
        about = {"id": f"msg_{number:08d}", "type": "message", "status": "completed"}
        found.append({**about, "role": "assistant", "content": [said]})
    custom = set(_custom_tools([*(body.get("tools") or []), *items_of(body)]))
    for place, call in enumerate(reply.calls):
        found.append(_call(call, f"{number:06d}{place:02d}", custom=call.name in custom))
    return found


def _call(call: Call, number: str, *, custom: bool) -> Json:
    told = {"call_id": call.id or f"call_{number}", "name": call.name, "status": "completed"}
    if custom:
        given = call.arguments.get("input", json.dumps(call.arguments))
        return {"id": f"ctc_{number}", "type": "custom_tool_call", **told, "input": given}
    given = json.dumps(call.arguments)
    return {"id": f"fc_{number}", "type": "function_call", **told, "arguments": given}


def _custom_tools(listed: Iterable[Any]) -> Iterator[str]:
    """The names of tools that take a text; they may stand in a namespace, or in an item."""
    for tool in listed:
        if isinstance(tool, dict) and tool.get("type") == "custom":
            yield str(tool.get("name"))
        elif isinstance(tool, dict) and tool.get("type") in ("namespace", "additional_tools"):
            yield from _custom_tools(tool.get("tools") or [])


def _response(body: Json, number: int, output: list[Json], usage: Usage) -> Json:
    return {
        "id": f"resp_{number:08d}",
        "object": "response",
        "created_at": 1_700_000_000 + number,
        "status": "completed",
        "error": None,
        "incomplete_details": None,
        "instructions": body.get("instructions"),
        "model": body["model"],
        "output": output,
        "parallel_tool_calls": True,
        "previous_response_id": body.get("previous_response_id"),
        "store": body.get("store") is not False,
        "tool_choice": body.get("tool_choice") or "auto",
        "tools": body.get("tools") or [],
        "usage": {
            "input_tokens": usage.total_input,
            "input_tokens_details": {"cached_tokens": usage.read},
            "output_tokens": usage.output,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": usage.total_input + usage.output,
        },
    }


def _event(number: int, event: Json) -> bytes:
    told = {**event, "sequence_number": number}
    return f"event: {event['type']}\ndata: {line(told)}\n\n".encode("utf-8", "surrogatepass")


def _events(whole: Json, reply: Reply) -> Iterator[Json]:
    begun = {**whole, "status": "in_progress", "output": [], "usage": None}
    yield {"type": "response.created", "response": begun}
    yield {"type": "response.in_progress", "response": begun}
    for index, item in enumerate(whole["output"]):
        yield from _item_events(index, item, reply.pieces)
    yield {"type": "response.completed", "response": whole}


def _item_events(index: int, item: Json, pieces: int) -> Iterator[Json]:
    place = {"output_index": index}
    about = {**place, "item_id": item["id"]}
    empty: dict[str, Json] = {"message": {"content": []}, "function_call": {"arguments": ""}}
    begun = {**item, **empty.get(item["type"], {}), "status": "in_progress"}
    yield {"type": "response.output_item.added", **place, "item": begun}
    if item["type"] == "message":
        (part,) = item["content"]
        about |= {"content_index": 0}
        yield {"type": "response.content_part.added", **about, "part": {**part, "text": ""}}
        for piece in cut(part["text"], pieces):
            yield {"type": "response.output_text.delta", **about, "delta": piece, "logprobs": []}
        yield {"type": "response.output_text.done", **about, "text": part["text"], "logprobs": []}
        yield {"type": "response.content_part.done", **about, "part": part}
    elif item["type"] == "function_call":
        said = "response.function_call_arguments"
        for piece in cut(item["arguments"], pieces):
            yield {"type": f"{said}.delta", **about, "delta": piece}
        yield {"type": f"{said}.done", **about, "arguments": item["arguments"]}
    elif item["type"] == "custom_tool_call":
        said = "response.custom_tool_call_input"
        for piece in cut(item["input"], pieces):
            yield {"type": f"{said}.delta", **about, "delta": piece}
        yield {"type": f"{said}.done", **about, "input": item["input"]}
    yield {"type": "response.output_item.done", **place, "item": item}
