"""Which JSON `/v1/responses` takes at all: known keys and items, each with its fields."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from loopback.refusal import Refusal, names
from loopback.rules_responses.items import Json, Memory, items_of, type_of

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
        kind = type_of(item)
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
