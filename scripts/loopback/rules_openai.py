"""What api.openai.com refuses on `/v1/chat/completions`, and in which words.

Built like `rules_anthropic`: every rule is a generator of refusals and the first one counts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from .counting import MODELS, Model, count, model_named
from .refusal import Refusal, names

Body = dict[str, Any]

_TOP = names(
    "audio frequency_penalty function_call functions logit_bias logprobs max_completion_tokens"
    " max_tokens messages metadata modalities model n parallel_tool_calls prediction"
    " presence_penalty prompt_cache_key prompt_cache_retention reasoning_effort response_format"
    " safety_identifier seed service_tier stop store stream stream_options temperature"
    " tool_choice tools top_logprobs top_p user verbosity web_search_options"
)
_ROLES = ("system", "assistant", "user", "function", "tool", "developer")
_KEYS: dict[str, frozenset[str]] = {
    "system": frozenset({"role", "content", "name"}),
    "developer": frozenset({"role", "content", "name"}),
    "user": frozenset({"role", "content", "name"}),
    "assistant": frozenset(
        {"role", "content", "name", "refusal", "audio", "tool_calls", "function_call"}
    ),
    "tool": frozenset({"role", "content", "tool_call_id", "name"}),
    "function": frozenset({"role", "content", "name"}),
}
_PARTS: dict[str, frozenset[str]] = {
    "text": frozenset({"type", "text"}),
    "image_url": frozenset({"type", "image_url"}),
    "input_audio": frozenset({"type", "input_audio"}),
    "file": frozenset({"type", "file"}),
    "refusal": frozenset({"type", "refusal"}),
}
_LONGEST_ID = 40
_NAMES = {str: "string", list: "array", dict: "object", int: "integer", bool: "boolean"}


@dataclass
class Memory:
    """What the provider knows of one account: nothing that decides about a request."""

    seen: int = field(default=0)


Rule = Callable[[Body], Iterator[Refusal]]


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    name = _NAMES.get(type(value), "number")
    return f"an {name}" if name[0] in "aio" else f"a {name}"


def _wrong_type(where: str, expected: str, value: Any) -> Refusal:
    article = "an" if expected[0] in "aio" else "a"
    found = _kind(value)
    return Refusal(
        f"Invalid type for '{where}': expected {article} {expected}, but got {found} instead.",
        param=where,
        code="invalid_type",
    )


def _missing(where: str) -> Refusal:
    return Refusal(
        f"Missing required parameter: '{where}'.", param=where, code="missing_required_parameter"
    )


def _empty(where: str) -> Refusal:
    return Refusal(
        f"Invalid '{where}': empty array. Expected an array with minimum length 1, but got an"
        " empty array instead.",
        param=where,
        code="empty_array",
    )


def _extra(where: str, key: str) -> Refusal:
    return Refusal(
        f"Additional properties are not allowed ('{key}' was unexpected) - '{where}'", param=None
    )


def top_level(body: Body) -> Iterator[Refusal]:
    """Only known keys, and those that must be there."""
    for key in body:
        if key not in _TOP:
            yield Refusal(f"Unrecognized request argument supplied: {key}")
    if not isinstance(body.get("model"), str):
        yield Refusal("you must provide a model parameter")
    if "messages" not in body:
        yield _missing("messages")
    elif not isinstance(body["messages"], list):
        yield _wrong_type("messages", "array", body["messages"])
    elif not body["messages"]:
        yield _empty("messages")
    if body.get("stream_options") is not None and not body.get("stream"):
        yield Refusal(
            "The 'stream_options' parameter is only allowed when 'stream' is enabled.",
            param="stream_options",
        )
    if body.get("tool_choice") is not None and not body.get("tools"):
        yield Refusal(
            "Invalid value for 'tool_choice': 'tool_choice' is only allowed when 'tools' are"
            " specified.",
            param="tool_choice",
        )
    if isinstance(body.get("tools"), list) and not body["tools"]:
        yield _empty("tools")


def output_setting(body: Body) -> Iterator[Refusal]:
    """Models that reason know the output limit by its new name only."""
    if body.get("max_tokens") is not None and model_named(body["model"]).reasoning:
        yield Refusal(
            "Unsupported parameter: 'max_tokens' is not supported with this model. Use"
            " 'max_completion_tokens' instead.",
            param="max_tokens",
            code="unsupported_parameter",
        )


def message_shapes(body: Body) -> Iterator[Refusal]:
    """Only known roles, and for each role only its keys."""
    for index, message in enumerate(body["messages"]):
        where = f"messages[{index}]"
        if not isinstance(message, dict):
            yield _wrong_type(where, "object", message)
            return
        role = message.get("role")
        if role is None:
            yield _missing(f"{where}.role")
        if role not in _ROLES:
            known = ", ".join(f"'{name}'" for name in _ROLES[:-1])
            yield Refusal(
                f"Invalid value: '{role}'. Supported values are: {known}, and '{_ROLES[-1]}'.",
                param=f"{where}.role",
                code="invalid_value",
            )
            return
        for key in message:
            if key not in _KEYS[role]:
                yield _extra(f"messages.{index}", key)
        yield from _content(index, message)
        yield from _calls(index, message)


def _content(index: int, message: Body) -> Iterator[Refusal]:
    where = f"messages[{index}].content"
    content = message.get("content")
    if content is None:
        speaks = ("tool_calls", "function_call", "refusal", "audio")
        if message["role"] == "assistant" and any(message.get(key) for key in speaks):
            return
        if "content" not in message:
            yield _missing(where)
        yield Refusal(
            "Invalid value for 'content': expected a string, got null.",
            param=f"messages.[{index}].content",
        )
    elif isinstance(content, list):
        if not content:
            yield _empty(where)
        for number, part in enumerate(content):
            yield from _part(index, number, part)
    elif not isinstance(content, str):
        yield Refusal(
            f"Invalid type for '{where}': expected one of a string or array of objects, but got"
            f" {_kind(content)} instead.",
            param=where,
            code="invalid_type",
        )


def _part(index: int, number: int, part: Any) -> Iterator[Refusal]:
    where = f"messages[{index}].content[{number}]"
    if not isinstance(part, dict):
        yield _wrong_type(where, "object", part)
        return
    kind = part.get("type")
    if not isinstance(kind, str) or kind not in _PARTS:
        known = ", ".join(f"'{name}'" for name in list(_PARTS)[:-1])
        yield Refusal(
            f"Invalid value: '{kind}'. Supported values are: {known}, and 'refusal'.",
            param=f"{where}.type",
            code="invalid_value",
        )
        return
    for key in _PARTS[kind]:
        if key not in part:
            yield _missing(f"{where}.{key}")
    for key in part:
        if key not in _PARTS[kind]:
            yield _extra(f"messages.{index}.content.{number}", key)
    if kind == "text" and not isinstance(part["text"], str):
        yield _wrong_type(f"{where}.text", "string", part["text"])


def _calls(index: int, message: Body) -> Iterator[Refusal]:
    calls = message.get("tool_calls")
    where = f"messages[{index}].tool_calls"
    if calls is None:
        return
    if not isinstance(calls, list):
        yield _wrong_type(where, "array", calls)
        return
    if not calls:
        yield _empty(where)
    for number, call in enumerate(calls):
        yield from _call(index, number, call)


def _call(index: int, number: int, call: Any) -> Iterator[Refusal]:
    where = f"messages[{index}].tool_calls[{number}]"
    if not isinstance(call, dict):
        yield _wrong_type(where, "object", call)
        return
    for key in ("id", "type"):
        if key not in call:
            yield _missing(f"{where}.{key}")
    for key in call:
        if key not in ("id", "type", "function", "custom"):
            yield _extra(f"messages.{index}.tool_calls.{number}", key)
    if len(call["id"]) > _LONGEST_ID:
        yield Refusal(
            f"Invalid '{where}.id': string too long. Expected a string with maximum length"
            f" {_LONGEST_ID}, but got a string with length {len(call['id'])} instead.",
            param=f"{where}.id",
            code="string_above_max_length",
        )
    if call["type"] == "function":
        function = call.get("function")
        if not isinstance(function, dict):
            yield _missing(f"{where}.function")
            return
        for key in ("name", "arguments"):
            if key not in function:
                yield _missing(f"{where}.function.{key}")
            elif not isinstance(function[key], str):
                yield _wrong_type(f"{where}.function.{key}", "string", function[key])


def calls_have_results(body: Body) -> Iterator[Refusal]:
    """Each call is answered at once, and nothing is answered that was not asked."""
    open_calls: list[str] = []
    answered: set[str] = set()
    for index, message in enumerate(body["messages"]):
        if message["role"] == "tool":
            call = message.get("tool_call_id")
            if call is None:
                yield _missing(f"messages[{index}].tool_call_id")
            if not isinstance(call, str):
                yield _wrong_type(f"messages[{index}].tool_call_id", "string", call)
                return
            if not open_calls and not answered:
                yield Refusal(
                    "Invalid parameter: messages with role 'tool' must be a response to a"
                    " preceeding message with 'tool_calls'.",
                    param=f"messages.[{index}].role",
                )
            if call not in open_calls:
                yield Refusal(
                    f"Invalid parameter: 'tool_call_id' of '{call}' not found in 'tool_calls' of"
                    " previous message.",
                    param=f"messages.[{index}].tool_call_id",
                )
                return
            open_calls.remove(call)
            answered.add(call)
            continue
        if open_calls:
            yield _unanswered(index, open_calls)
        open_calls = [call["id"] for call in message.get("tool_calls") or []]
        answered = set()
    if open_calls:
        yield _unanswered(len(body["messages"]), open_calls)


def _unanswered(index: int, calls: list[str]) -> Refusal:
    return Refusal(
        "An assistant message with 'tool_calls' must be followed by tool messages responding to"
        " each 'tool_call_id'. The following tool_call_ids did not have response messages:"
        f" {', '.join(calls)}",
        param=f"messages.[{index}].role",
    )


def functions_have_results(body: Body) -> Iterator[Refusal]:
    """The older form of calls: a result names the function of the message before it."""
    previous: Body = {}
    for index, message in enumerate(body["messages"]):
        if message["role"] == "function":
            if message.get("name") is None:
                yield _missing(f"messages[{index}].name")
            if not previous.get("function_call"):
                yield Refusal(
                    "Invalid parameter: messages with role 'function' must be a response to a"
                    " preceeding message with 'function_call'.",
                    param=f"messages.[{index}].role",
                )
        previous = message


RULES: tuple[Rule, ...] = (
    top_level,
    output_setting,
    message_shapes,
    calls_have_results,
    functions_have_results,
)


def check_length(body: Body, model: Model) -> Refusal | None:
    """Refuse what does not fit into the model's window by the provider's own count."""
    tokens = count(body, model)
    output = body.get("max_completion_tokens") or body.get("max_tokens") or 0
    if tokens > model.window:
        if model.reasoning:
            message = (
                f"Input tokens exceed the configured limit of {model.window} tokens. Your messages"
                f" resulted in {tokens} tokens. Please reduce the length of the messages."
            )
        else:
            message = (
                f"This model's maximum context length is {model.window} tokens. However, your"
                f" messages resulted in {tokens} tokens. Please reduce the length of the messages."
            )
    elif model.counts_output and tokens + output > model.window:
        message = (
            f"This model's maximum context length is {model.window} tokens. However, you requested"
            f" {tokens + output} tokens ({tokens} in the messages, {output} in the completion)."
            " Please reduce the length of the messages or completion."
        )
    else:
        return None
    return Refusal(message, param="messages", code="context_length_exceeded", too_long=True)


def check(
    body: Any,
    memory: Memory | None = None,
    *,
    model: Model | None = None,
    length: bool = True,
) -> Refusal | None:
    """Say how the provider refuses this request, or None if it takes it."""
    if not isinstance(body, dict):
        return Refusal("We could not parse the JSON body of your request.")
    for rule in RULES:
        refusal = next(rule(body), None)
        if refusal is not None:
            return refusal
    if length:
        refusal = check_length(body, model or model_named(body["model"], MODELS))
        if refusal is not None:
            return refusal
    if memory is not None:
        memory.seen += 1
    return None


def say(refusal: Refusal) -> Body:
    """The refusal as the provider's JSON."""
    error = {
        "message": refusal.message,
        "type": refusal.kind,
        "param": refusal.param,
        "code": refusal.code,
    }
    return {"error": error}
