"""What api.openai.com refuses on `/v1/responses`, in which words, and what it answers.

Built like `rules_anthropic`: every rule is a generator of refusals and the first one counts. The
first group says which items are taken at all, the second what a history of them must look like.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from .answers import Call, Reply, Usage, cut, line
from .counting import Model, count
from .http1 import Wire
from .refusal import Refusal, names
from .speaking import Said, Speaking

Json = dict[str, Any]

PATH, COUNT, COMPACT = "/responses", "/responses/input_tokens", "/responses/compact"

_TOP = names(
    "background client_metadata context_management conversation include input instructions"
    " max_output_tokens max_tool_calls metadata model parallel_tool_calls previous_response_id"
    " prompt prompt_cache_key prompt_cache_retention reasoning safety_identifier service_tier"
    " store stream stream_options temperature text tool_choice tools top_logprobs top_p truncation"
    " user"
)
_TOP_TYPES: dict[str, tuple[type, ...]] = {
    "include": (list,),
    "input": (str, list),
    "instructions": (str,),
    "max_output_tokens": (int,),
    "model": (str,),
    "previous_response_id": (str,),
    "reasoning": (dict,),
    "store": (bool,),
    "stream": (bool,),
    "tools": (list,),
}
_EVERYWHERE = names("id type status internal_chat_message_metadata_passthrough")
# Per type of item: what it must have, what it may have beside that.
ITEMS: dict[str, tuple[frozenset[str], frozenset[str]]] = {
    "message": (names("role content"), names("phase")),
    "reasoning": (names("summary"), names("content encrypted_content")),
    "function_call": (names("call_id name arguments"), names("namespace")),
    "function_call_output": (names("call_id output"), names("")),
    "custom_tool_call": (names("call_id name input"), names("namespace")),
    "custom_tool_call_output": (names("call_id output"), names("name")),
    "local_shell_call": (names("call_id action"), names("")),
    "local_shell_call_output": (names("call_id output"), names("")),
    "shell_call": (names("call_id action"), names("environment max_output_length")),
    "shell_call_output": (names("call_id output"), names("max_output_length")),
    "apply_patch_call": (names("call_id operation"), names("")),
    "apply_patch_call_output": (names("call_id"), names("output")),
    "computer_call": (names("call_id"), names("action actions pending_safety_checks")),
    "computer_call_output": (names("call_id output"), names("acknowledged_safety_checks")),
    "web_search_call": (names("id"), names("action")),
    "file_search_call": (names("id queries"), names("results")),
    "code_interpreter_call": (names("id"), names("code container_id outputs")),
    "image_generation_call": (names("id result"), names("revised_prompt")),
    "mcp_list_tools": (names("id server_label tools"), names("error")),
    "mcp_call": (
        names("id server_label name arguments"),
        names("output error approval_request_id"),
    ),
    "mcp_approval_request": (names("id server_label name arguments"), names("")),
    "mcp_approval_response": (names("approval_request_id approve"), names("reason")),
    "additional_tools": (names("role tools"), names("")),
    "configuration_update": (names(""), names("role content reasoning text")),
    "compaction": (names("encrypted_content"), names("")),
    "compaction_trigger": (names(""), names("")),
    "item_reference": (names("id"), names("")),
}
_STRINGS = names("call_id name arguments role encrypted_content code server_label")
# Which output answers which call, as refusals call the two.
_ANSWERS = {
    "function_call": "function call",
    "custom_tool_call": "custom tool call",
    "local_shell_call": "local shell call",
    "shell_call": "shell call",
    "apply_patch_call": "apply patch call",
    "computer_call": "computer call",
}
# What a model makes in one go with its reasoning.
_MADE = frozenset(
    (
        *_ANSWERS,
        *names("reasoning web_search_call file_search_call code_interpreter_call"),
        *names("image_generation_call mcp_list_tools mcp_call mcp_approval_request"),
    )
)
_ROLES = ("assistant", "system", "developer", "user")
_GIVEN_PARTS: dict[str, frozenset[str]] = {
    "input_text": names("type text"),
    "input_image": names("type image_url file_id detail"),
    "input_file": names("type file_id filename file_data file_url detail"),
    "input_audio": names("type input_audio"),
}
_SAID_PARTS: dict[str, frozenset[str]] = {
    "output_text": names("type text annotations logprobs"),
    "refusal": names("type refusal"),
}
_PREFIXES = {"message": "msg", "function_call": "fc", "reasoning": "rs"}
_LONGEST_ID = 64
_LONGEST_TEXT = 10_485_760
_LEAST_OUTPUT = 16
_NAMES = {
    str: "a string",
    list: "an array",
    dict: "an object",
    bool: "a boolean",
    int: "an integer",
}


@dataclass
class Memory:
    """What the provider knows of one account: what it sealed, answered and stored.

    A sealed text, and which item belongs to which reasoning, is taken as genuine and learned where
    it was never seen, so that recorded conversations can be played; from then on it must stay.
    """

    key: bytes = b"loopback"
    sealed: dict[str, str] = field(default_factory=dict)
    reasoned: dict[str, str] = field(default_factory=dict)
    stored: dict[str, list[Json]] = field(default_factory=dict)

    def seal(self, text: str) -> str:
        """The reasoning as only the provider can read it."""
        mark = hmac.new(self.key, text.encode("utf-8", "surrogatepass"), hashlib.sha512).digest()
        return "gAAAAA" + base64.b64encode(mark * 12 + text.encode()[:2_000]).decode()

    def learn(self, items: list[Json]) -> None:
        """Remember the reasoning of what was accepted, and what was said with it."""
        before = ""
        for item in items:
            if item.get("type") == "reasoning":
                before = str(item.get("id") or "")
                if item.get("encrypted_content"):
                    self.sealed[before] = item["encrypted_content"]
            elif not _is_made(item):
                before = ""
            elif before and item.get("id"):
                self.reasoned.setdefault(item["id"], before)

    def held(self) -> Iterator[Json]:
        """Every item that was stored."""
        for items in self.stored.values():
            yield from items


Rule = Callable[[Json, Memory], Iterator[Refusal]]


def items_of(body: Json) -> list[Any]:
    """The items of an input; a bare string is one message."""
    given = body["input"]
    if isinstance(given, str):
        return [{"type": "message", "role": "user", "content": given}]
    return list(given)


def _type_of(item: Json) -> str:
    return str(item.get("type") or ("message" if "role" in item else "item_reference"))


def _is_made(item: Json) -> bool:
    spoken = _type_of(item) == "message" and item.get("role") == "assistant"
    return spoken or item.get("type") in _MADE


def _missing(where: str) -> Refusal:
    return Refusal(
        f"Missing required parameter: '{where}'.", param=where, code="missing_required_parameter"
    )


def _unknown(where: str) -> Refusal:
    return Refusal(f"Unknown parameter: '{where}'.", param=where, code="unknown_parameter")


def _wrong_type(where: str, expected: str, value: Any) -> Refusal:
    found = "null" if value is None else _NAMES.get(type(value), "a number")
    return Refusal(
        f"Invalid type for '{where}': expected {expected}, but got {found} instead.",
        param=where,
        code="invalid_type",
    )


def _wrong_value(where: str, value: Any, known: Iterable[str]) -> Refusal:
    *most, last = [f"'{name}'" for name in known]
    joined = f"{', '.join(most)}, and {last}" if len(most) > 1 else f"{most[0]} and {last}"
    return Refusal(
        f"Invalid value: '{value}'. Supported values are: {joined}.",
        param=where,
        code="invalid_value",
    )


def _too_long(where: str, most: int, value: str) -> Refusal:
    return Refusal(
        f"Invalid '{where}': string too long. Expected a string with maximum length {most}, but"
        f" got a string with length {len(value)} instead.",
        param=where,
        code="string_above_max_length",
    )


def top_level(body: Json, memory: Memory) -> Iterator[Refusal]:
    """Only known keys of the right type, and those that must be there."""
    for key in body:
        if key not in _TOP:
            yield _unknown(key)
    for key, types in _TOP_TYPES.items():
        value = body.get(key)
        if value is not None and type(value) not in types:
            expected = " or ".join(_NAMES[one] for one in types)
            yield _wrong_type(key, expected, value)
    if body.get("model") is None:
        yield _missing("model")
    if body.get("input") is None:
        yield _missing("input")
    output = body.get("max_output_tokens")
    if isinstance(output, int) and output < _LEAST_OUTPUT:
        yield Refusal(
            "Invalid 'max_output_tokens': integer below minimum value. Expected a value >="
            f" {_LEAST_OUTPUT}, but got {output} instead.",
            param="max_output_tokens",
            code="integer_below_min_value",
        )


def item_shapes(body: Json, memory: Memory) -> Iterator[Refusal]:
    """Only known types of items, and of each only its fields."""
    for index, item in enumerate(items_of(body)):
        where = f"input[{index}]"
        if not isinstance(item, dict):
            yield _wrong_type(where, "an object", item)
            return
        kind = _type_of(item)
        if kind not in ITEMS:
            yield _wrong_value(where, kind, ITEMS)
            return
        required, others = ITEMS[kind]
        for key in sorted(required - set(item)):
            yield _missing(f"{where}.{key}")
        for key in item:
            if key not in required | others | _EVERYWHERE:
                yield _unknown(f"{where}.{key}")
        for key in sorted(_STRINGS & set(item)):
            if not isinstance(item[key], str) and (key != "encrypted_content" or item[key]):
                yield _wrong_type(f"{where}.{key}", "a string", item[key])
                return
        yield from _id(where, kind, item)
        yield from _held(where, kind, item)


def _id(where: str, kind: str, item: Json) -> Iterator[Refusal]:
    call, own = item.get("call_id"), item.get("id")
    if call is not None and len(call) > _LONGEST_ID:
        yield _too_long(f"{where}.call_id", _LONGEST_ID, call)
    if own is None:
        return
    if not isinstance(own, str):
        yield _wrong_type(f"{where}.id", "a string", own)
        return
    prefix = _PREFIXES.get(kind, "")
    if not own.startswith(prefix):
        yield Refusal(
            f"Invalid '{where}.id': '{own}'. Expected an ID that begins with '{prefix}'.",
            param=f"{where}.id",
            code="invalid_value",
        )


def _held(where: str, kind: str, item: Json) -> Iterator[Refusal]:
    """What an item says: a text, parts, or what its tool has."""
    if kind == "message":
        if item["role"] not in _ROLES:
            yield _wrong_value(f"{where}.role", item["role"], _ROLES)
            return
        known = _SAID_PARTS if item["role"] == "assistant" else _GIVEN_PARTS
        yield from _content(f"{where}.content", item["content"], known)
    elif kind in ("function_call_output", "custom_tool_call_output"):
        yield from _content(f"{where}.output", item["output"], _GIVEN_PARTS)
    elif kind in ("local_shell_call_output", "apply_patch_call_output"):
        if item.get("output") is not None and not isinstance(item["output"], str):
            yield _wrong_type(f"{where}.output", "a string", item["output"])
    elif kind == "shell_call_output":
        yield from _printed(f"{where}.output", item["output"])
    elif kind == "computer_call_output" and not isinstance(item["output"], dict):
        yield _wrong_type(f"{where}.output", "an object", item["output"])
    elif kind == "reasoning":
        yield from _thought(where, item)


def _content(where: str, content: Any, known: dict[str, frozenset[str]]) -> Iterator[Refusal]:
    if isinstance(content, str):
        if len(content) > _LONGEST_TEXT:
            yield _too_long(where, _LONGEST_TEXT, content)
        return
    if not isinstance(content, list):
        expected = "one of an array of objects or string"
        yield _wrong_type(where, expected, content)
        return
    for number, part in enumerate(content):
        place = f"{where}[{number}]"
        if not isinstance(part, dict):
            yield _wrong_type(place, "an object", part)
            return
        kind = part.get("type")
        if not isinstance(kind, str) or kind not in known:
            yield _wrong_value(place, kind, known)
            return
        for key in part:
            if key not in known[kind]:
                yield _unknown(f"{place}.{key}")
        for key in {"text", "refusal"} & known[kind]:
            if key not in part:
                yield _missing(f"{place}.{key}")
            elif not isinstance(part[key], str):
                yield _wrong_type(f"{place}.{key}", "a string", part[key])


def _printed(where: str, output: Any) -> Iterator[Refusal]:
    if not isinstance(output, list):
        yield _wrong_type(where, "an array of objects", output)
        return
    for number, piece in enumerate(output):
        place = f"{where}[{number}]"
        if not isinstance(piece, dict):
            yield _wrong_type(place, "an object", piece)
            return
        for key in sorted({"stdout", "stderr", "outcome"} - set(piece)):
            yield _missing(f"{place}.{key}")
        for key in sorted({"stdout", "stderr"} & set(piece)):
            if not isinstance(piece[key], str):
                yield _wrong_type(f"{place}.{key}", "a string", piece[key])


def _thought(where: str, item: Json) -> Iterator[Refusal]:
    for key in ("summary", "content"):
        value = item.get(key)
        if not isinstance(value, list) and (key == "summary" or value is not None):
            yield _wrong_type(f"{where}.{key}", "an array of objects", value)
        for number, one in enumerate(value or []):
            said = one.get("text") if isinstance(one, dict) else None
            if not isinstance(said, str):
                yield _wrong_type(f"{where}.{key}[{number}].text", "a string", said)


def nothing_stands_twice(body: Json, memory: Memory) -> Iterator[Refusal]:
    """Each id belongs to one item."""
    seen: set[str] = set()
    for item in items_of(body):
        own = item.get("id")
        if own is None:
            continue
        if own in seen:
            yield Refusal(
                f"Duplicate item found with id {own}. Remove duplicate items from your input and"
                " try again.",
                param="input",
            )
        seen.add(own)


def what_is_meant_is_there(body: Json, memory: Memory) -> Iterator[Refusal]:
    """Earlier responses, and items that are only referred to, were stored."""
    named = body.get("previous_response_id")
    if named is not None and named not in memory.stored:
        yield Refusal(
            f"Previous response with id '{named}' not found.",
            param="previous_response_id",
            code="previous_response_not_found",
        )
    held = {item.get("id") for item in memory.held()}
    for item in items_of(body):
        refers = _type_of(item) == "item_reference"
        bare = item.get("type") == "reasoning" and not (
            item.get("encrypted_content") or item.get("content")
        )
        if (refers or (bare and item.get("id"))) and item.get("id") not in held:
            yield Refusal(
                f"Item with id '{item.get('id')}' not found. Items are not persisted when `store`"
                " is set to false. Try again with `store` set to true, or remove this item from"
                " your input.",
                404,
                param="input",
            )


def calls_have_outputs(body: Json, memory: Memory) -> Iterator[Refusal]:
    """Each call has an output somewhere behind it, and each output a call before it."""
    waiting: dict[str, str] = {}
    called = set[str]()
    for item in memory.held() if body.get("previous_response_id") else ():
        if item.get("type") in _ANSWERS:
            called.add(item["call_id"])
    for item in items_of(body):
        kind = _type_of(item)
        if kind in _ANSWERS:
            waiting[item["call_id"]] = _ANSWERS[kind]
            called.add(item["call_id"])
        elif kind.removesuffix("_output") in _ANSWERS:
            if item["call_id"] not in called:
                named = _ANSWERS[kind.removesuffix("_output")]
                yield Refusal(
                    f"No tool call found for {named} output with call_id {item['call_id']}.",
                    param="input",
                )
            waiting.pop(item["call_id"], None)
    for call, named in waiting.items():
        yield Refusal(f"No tool output found for {named} {call}.", param="input")


def reasoning_stays_with_what_follows(body: Json, memory: Memory) -> Iterator[Refusal]:
    """Reasoning has what was said with it behind it, and that has its reasoning before it."""
    held = {item.get("id"): item for item in memory.held()}
    refers = (_type_of(item) == "item_reference" for item in items_of(body))
    pairs = zip(items_of(body), refers, strict=True)
    items = [held[item["id"]] if refer else item for item, refer in pairs]
    before: set[str] = set()
    for at, item in enumerate(items):
        own = str(item.get("id") or "")
        if _type_of(item) == "reasoning":
            before.add(own)
            follows = items[at + 1] if at + 1 < len(items) else {}
            if not _is_made(follows):
                yield Refusal(
                    f"Item '{own}' of type 'reasoning' was provided without its required following"
                    " item.",
                    param="input",
                )
        elif memory.reasoned.get(own, "") not in before | {""}:
            yield Refusal(
                f"Item '{own}' of type '{_type_of(item)}' was provided without its required"
                f" 'reasoning' item: '{memory.reasoned[own]}'.",
                param="input",
            )


def what_is_sealed_is_genuine(body: Json, memory: Memory) -> Iterator[Refusal]:
    """Sealed reasoning is what it was."""
    for item in items_of(body):
        sealed = item.get("encrypted_content")
        if _type_of(item) != "reasoning" or not sealed:
            continue
        known = memory.sealed.get(str(item.get("id") or ""), sealed)
        if sealed != known:
            yield Refusal(
                f"The encrypted content {sealed[:4]}...{sealed[-4:]} could not be verified. Reason:"
                " Encrypted content could not be decrypted or parsed.",
                param="input",
                code="invalid_encrypted_content",
            )


def the_trigger_is_last(body: Json, memory: Memory) -> Iterator[Refusal]:
    """A compaction is asked for at the end of the input."""
    if any(_type_of(item) == "compaction_trigger" for item in items_of(body)[:-1]):
        yield Refusal("'compaction_trigger' must be the last item of the input.", param="input")


RULES: tuple[Rule, ...] = (
    top_level,
    item_shapes,
    nothing_stands_twice,
    what_is_meant_is_there,
    calls_have_outputs,
    reasoning_stays_with_what_follows,
    what_is_sealed_is_genuine,
    the_trigger_is_last,
)


def head(body: Json) -> Json:
    """What stands before the items and counts."""
    return {"system": body.get("instructions") or "", "tools": body.get("tools") or []}


def check_length(body: Json, model: Model) -> Refusal | None:
    """Refuse what does not fit into the model's window by the provider's own count."""
    tokens = count({**head(body), "messages": items_of(body)}, model)
    output = (body.get("max_output_tokens") or 0) if model.counts_output else 0
    if tokens + output <= model.window:
        return None
    return Refusal(
        "Your input exceeds the context window of this model. Please adjust your input and try"
        " again.",
        param="input",
        code="context_length_exceeded",
        too_long=True,
    )


def check(
    body: Any, memory: Memory | None = None, wire: Wire | None = None, model: Model | None = None
) -> Refusal | None:
    """Say how the provider refuses this request, or None if it takes it.

    Without a `model` the length is not looked at.
    """
    if not isinstance(body, dict):
        return Refusal("We could not parse the JSON body of your request.")
    known = memory or Memory()
    refusal = next((found for rule in RULES for found in rule(body, known)), None)
    if refusal is None and model is not None:
        refusal = check_length(body, model)
    if refusal is None:
        known.learn(items_of(body))
    return refusal


def say(refusal: Refusal, number: int) -> Json:
    """The refusal as the provider's JSON."""
    error = {
        "message": refusal.message,
        "type": refusal.kind,
        "param": refusal.param,
        "code": refusal.code,
    }
    return {"error": error}


# Answers.


def answer(wire: Wire, body: Json, number: int, reply: Reply, usage: Usage, memory: Memory) -> Said:
    """What the model says, whole or as events; a compaction is one sealed item."""
    compacts = wire.path.endswith(COMPACT)
    asked = compacts or _type_of(items_of(body)[-1]) == "compaction_trigger"
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


SPEAKING = Speaking(
    name="openai.responses",
    recognises=lambda wire: wire.path.endswith((PATH, COUNT, COMPACT)),
    model=lambda wire, body: str(body.get("model") or ""),
    history=items_of,
    head=head,
    memory=Memory,
    check=check,
    say=say,
    answer=answer,
    counts=lambda wire: wire.path.endswith(COUNT),
    counted=lambda tokens: {"object": "response.input_tokens", "input_tokens": tokens},
)
