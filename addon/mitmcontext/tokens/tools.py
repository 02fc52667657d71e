"""Tools, tool choice and output schemas, whatever the API calls them.

What stands in a request is read leniently: an estimate is wanted of anything that a client sends,
and a provider may understand what we do not.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

import msgspec

Json = Any

# Around a tool's own description: OpenAI's chat, Bedrock.
_WRAPPED: Final = ("function", "toolSpec")
_PARAMETERS: Final = (
    "parameters",
    "input_schema",
    "inputSchema",
    "parametersJsonSchema",
    "parameters_json_schema",
)
_FORCED: Final = ("any", "required", "tool", "function")


class Tool(NamedTuple):
    """A function that the model may call."""

    name: str
    description: str
    parameters: Mapping[str, Json]
    strict: bool


class Choice(NamedTuple):
    """What the request says of tools: "auto", "any" or "none", and the tool that it names."""

    mode: str = "auto"
    name: str = ""


class Schema(NamedTuple):
    """The JSON schema that an answer has to follow."""

    name: str
    description: str
    schema: Mapping[str, Json]


def listed(text: str) -> list[Tool]:
    """The functions in a JSON list of tools; those of the server's own have nothing to count."""
    found = read(text)
    return list(_tools(found if isinstance(found, list) else []))


def _tools(found: list[Json]) -> Iterator[Tool]:
    for one in found:
        if isinstance(one, dict):
            inner = next((one[key] for key in _WRAPPED if isinstance(one.get(key), dict)), one)
            parameters = next((inner[key] for key in _PARAMETERS if key in inner), None)
            if isinstance(parameters, dict) and isinstance(parameters.get("json"), dict):
                parameters = parameters["json"]
            name = _text(inner.get("name"))
            if name:
                yield Tool(
                    name,
                    _text(inner.get("description")),
                    parameters if isinstance(parameters, dict) else {},
                    inner.get("strict") is True,
                )


def described(tool: Tool) -> str:
    """A tool as JSON, as models that are not shown anything else see it."""
    return compact(
        {"name": tool.name, "description": tool.description, "parameters": tool.parameters}
    )


def chosen(text: str) -> Choice:
    """The choice in a `tool_choice` or what else an API calls it."""
    found = read(text)
    if isinstance(found, str):
        return _choice(found)
    if not isinstance(found, dict):
        return Choice()
    for key in ("functionCallingConfig", "function_calling_config"):
        if isinstance(found.get(key), dict):
            found = found[key]
    for word in ("any", "tool", "none"):
        if isinstance(found.get(word), dict):  # Bedrock: {"any": {}}, {"tool": {"name": ...}}
            return _choice(word, _text(found[word].get("name")))
    inner = found.get("function")
    named = inner.get("name") if isinstance(inner, dict) else found.get("name")
    name = _text(named)
    return _choice(_text(found.get("type") or found.get("mode")) or ("any" if name else ""), name)


def _choice(mode: str, name: str = "") -> Choice:
    word = mode.lower()
    if word == "none":
        return Choice("none")
    return Choice("any", name) if word in _FORCED else Choice("auto")


def wanted(text: str) -> Schema | None:
    """The schema in a `response_format` or what else an API calls it; None where there is none."""
    found = read(text)
    if not isinstance(found, dict):
        return None
    kind, holder = found.get("type"), found.get("json_schema")
    holder = holder if isinstance(holder, dict) else found
    schema = holder.get("schema")
    if isinstance(schema, dict):
        return Schema(_text(holder.get("name")), _text(holder.get("description")), schema)
    if kind in ("text", "json_object", "json_schema"):
        return None if holder is found else Schema("", "", holder)
    return Schema("", "", found)  # Gemini and Ollama give the schema itself.


def read(text: str) -> Json:
    """The value of a JSON text; None where it is none."""
    try:
        return msgspec.json.decode(text)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None


def compact(value: Json) -> str:
    """JSON without spaces and escapes; "" for what cannot be written."""
    try:
        return msgspec.json.encode(value).decode()
    except (msgspec.MsgspecError, ValueError, TypeError, RecursionError):
        return ""


def _text(value: Json) -> str:
    return value if isinstance(value, str) else ""
