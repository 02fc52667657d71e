"""Tools as OpenAI's models see them: a namespace of TypeScript types.

    namespace functions {

    // Get the weather in a city
    type get_weather = (_: {
    // City
    //
    // The city and its country
    city: string,
    unit?: "celsius" | "fahrenheit", // default: "celsius"
    }) => any;

    } // namespace functions

OpenAI documents none of this. That its models see tools so was found by others (the format of the
open models, `openai/harmony`, is the same in the main); what is done with titles, with descriptions
of several lines and with properties that have no comment was found by taking the rendering apart
until its tokens equalled the reported ones.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from mitmcontext.tokens.tools import Schema, Tool, compact

Json = Any

_INDENT: Final = 2
_DEEPEST: Final = 12  # Schemas may refer to themselves.
_DIRECTIONS: Final = ("anyOf", "oneOf", "allOf")


def namespace(tools: Iterable[Tool]) -> str:
    """All tools, as the model sees them."""
    types = "".join(_function(tool) for tool in tools)
    return f"namespace functions {{\n\n{types}}} // namespace functions"


def response_format(schema: Schema) -> str:
    """A schema for the answer, as the model sees it: JSON, without what goes without saying.

    All properties are required, and none may be added.
    """
    comment = f"// {schema.description}\n" if schema.description else ""
    said = compact(_bare(schema.schema, _DEEPEST))
    return f"# Response Formats\n\n## {schema.name}\n\n{comment}{said}"


def _bare(schema: Json, depth: int) -> Json:
    if depth == 0:
        return None
    if isinstance(schema, list):
        return [_bare(one, depth - 1) for one in schema]
    if not isinstance(schema, Mapping):
        return schema
    return {
        key: {name: _bare(one, depth - 1) for name, one in value.items()}
        if key in ("properties", "$defs", "definitions") and isinstance(value, Mapping)
        else _bare(value, depth - 1)
        for key, value in schema.items()
        if key not in ("additionalProperties", "required", "$schema", "strict")
    }


def _function(tool: Tool) -> str:
    comment = "".join(_lines(tool.description, 0))
    schema = tool.parameters
    if not _properties(schema):
        return f"{comment}type {tool.name} = () => any;\n\n"
    defined = {**_mapping(schema.get("definitions")), **_mapping(schema.get("$defs"))}
    types = _Types(defined)
    given = "".join(_comment(schema, 0)) + types.members(schema, 0, _DEEPEST)
    if "//" not in given:
        # Without any comment it all stands on one line.
        return (
            f"{comment}type {tool.name} = (_: {{ {given.replace(chr(10), ' ')[:-2]} }}) => any;\n\n"
        )
    return f"{comment}type {tool.name} = (_: {{\n{given}}}) => any;\n\n"


class _Types:
    """Types of one function's parameters.

    Args:
        defined: what its schema defines, to be referred to.
    """

    def __init__(self, defined: Mapping[str, Json]) -> None:
        self._defined = defined

    def members(self, schema: Mapping[str, Json], indent: int, depth: int) -> str:
        """The properties of an object, a line for each and those of its comment."""
        required = schema.get("required")
        names = required if isinstance(required, list) else []
        lines: list[str] = []
        for name, value in _properties(schema).items():
            member = self._resolved(value)
            lines += _comment(member, indent)
            mark = "" if name in names else "?"
            preset = f" // default: {compact(member['default'])}" if "default" in member else ""
            lines.append(
                f"{' ' * indent}{name}{mark}: {self._type(member, indent, depth - 1)},{preset}\n"
            )
        return "".join(lines)

    def _resolved(self, schema: Json) -> Mapping[str, Json]:
        """A schema with what it refers to; what stands beside a reference wins."""
        found = _mapping(schema)
        reference = found.get("$ref")
        if not isinstance(reference, str):
            return found
        beside = {key: value for key, value in found.items() if key != "$ref"}
        return {**_mapping(self._defined.get(reference.rpartition("/")[2])), **beside}

    def _type(self, schema: Json, indent: int, depth: int) -> str:
        if depth <= 0:
            return "any"
        found = self._resolved(schema)
        if isinstance(found.get("enum"), list):
            return " | ".join(compact(value) for value in found["enum"])
        for key in _DIRECTIONS:
            if isinstance(found.get(key), list):
                return self._union(found[key], indent, depth)
        kind = found.get("type")
        if isinstance(kind, list):
            return self._union([{**found, "type": one} for one in kind], indent, depth)
        match kind:
            case "integer" | "number":
                return "number"
            case "array":
                items = found.get("items")
                return f"{self._type(items, indent, depth - 1)}[]" if items else "any[]"
            case _ if _properties(found):
                inside = self.members(found, indent + _INDENT, depth)
                return f"{{\n{inside}{' ' * indent}}}"
            case str():
                return kind
            case _:
                return "any"

    def _union(self, schemas: list[Json], indent: int, depth: int) -> str:
        return " | ".join(self._type(one, indent, depth - 1) for one in schemas)


def _comment(schema: Mapping[str, Json], indent: int) -> Iterator[str]:
    """Title and description, with an empty line between them."""
    title, description = schema.get("title"), schema.get("description")
    titled = isinstance(title, str) and title
    if titled:
        yield f"{' ' * indent}// {title}\n"
    if isinstance(description, str) and description:
        if titled:
            yield f"{' ' * indent}//\n"
        yield from _lines(description, indent)


def _lines(description: str, indent: int) -> Iterator[str]:
    for line in description.split("\n"):
        if line.strip():
            yield f"{' ' * indent}// {line.strip()}\n"


def _properties(schema: Mapping[str, Json]) -> Mapping[str, Json]:
    return _mapping(schema.get("properties"))


def _mapping(value: Json) -> Mapping[str, Json]:
    return value if isinstance(value, Mapping) else {}
