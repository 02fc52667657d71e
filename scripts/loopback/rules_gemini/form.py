"""The one form of a request to Gemini, whatever its spelling: names and types are judged."""

from __future__ import annotations

import base64
import binascii
import json
import re
from typing import Any

from loopback.answers import Json

SENTINELS = ("skip_thought_signature_validator", "context_engineering_is_the_way_to_go")
"""What Google takes in place of a signature."""

_SNAKE = re.compile(r"_([a-z0-9])")
_CAMEL = re.compile(r"([A-Z])")

# The messages of the API: key to type. A type in a list may repeat; "any" is not looked into.
_CONTENT: Json = {"role": "string", "parts": ["Part"]}
_REQUEST: Json = {
    "contents": ["Content"],
    "systemInstruction": "Content",
    "tools": ["Tool"],
    "toolConfig": "any",
    "safetySettings": "any",
    "generationConfig": "struct",
    "cachedContent": "string",
    "labels": "any",
    "serviceTier": "any",
    "store": "bool",
    "model": "string",
    "sessionId": "string",
}
_TYPES: dict[str, Json] = {
    "Request": _REQUEST,
    "Envelope": {
        "model": "string",
        "project": "string",
        "userPromptId": "string",
        "request": "Request",
        "enabledCreditTypes": "any",
    },
    "Counted": {**_REQUEST, "generateContentRequest": "Request"},
    "Content": _CONTENT,
    "Part": {
        "text": "string",
        "thought": "bool",
        "thoughtSignature": "bytes",
        "inlineData": "Blob",
        "fileData": "FileData",
        "functionCall": "FunctionCall",
        "functionResponse": "FunctionResponse",
        "executableCode": "any",
        "codeExecutionResult": "any",
        "toolCall": "any",
        "toolResponse": "any",
        "videoMetadata": "any",
        "partMetadata": "any",
        "mediaResolution": "any",
    },
    "Blob": {"mimeType": "string", "data": "bytes", "displayName": "string"},
    "FileData": {"mimeType": "string", "fileUri": "string", "displayName": "string"},
    "FunctionCall": {"id": "string", "name": "string", "args": "struct"},
    "FunctionResponse": {
        "id": "string",
        "name": "string",
        "response": "struct",
        "willContinue": "bool",
        "scheduling": "string",
        "parts": "any",
    },
    "Tool": {
        "functionDeclarations": ["FunctionDeclaration"],
        "googleSearch": "any",
        "googleSearchRetrieval": "any",
        "codeExecution": "any",
        "urlContext": "any",
        "computerUse": "any",
        "fileSearch": "any",
        "googleMaps": "any",
    },
    "FunctionDeclaration": {
        "name": "string",
        "description": "string",
        "behavior": "string",
        "parameters": "any",
        "parametersJsonSchema": "any",
        "response": "any",
        "responseJsonSchema": "any",
    },
}


class Odd(Exception):
    """A body that is no request of this API, in the provider's words."""


def _camel(key: str) -> str:
    return _SNAKE.sub(lambda snake: snake[1].upper(), key)


def snake(key: str) -> str:
    """A name in snake case, as Google's complaints have it."""
    return _CAMEL.sub(lambda camel: "_" + camel[1].lower(), key)


def _shown(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)[:200]


def _one_form(value: Any, kind: Any, where: str) -> Any:
    """A value as the API means it.

    Raises:
        Odd: a name that is not known, or a value of another type.
    """
    if isinstance(kind, list):
        values = value if isinstance(value, list) else [value]
        return [_one_form(item, kind[0], f"{where}[{at}]") for at, item in enumerate(values)]
    if kind in _TYPES:
        return _message(value, kind, where)
    taken: dict[str, type | tuple[type, ...]] = {
        "string": str,
        "bytes": str,
        "bool": bool,
        "struct": dict,
        "any": object,
    }
    if not isinstance(value, taken[kind]):
        named = "type.googleapis.com/google.protobuf.Struct" if kind == "struct" else ""
        raise Odd(
            f"Invalid value at '{where}' ({named or f'TYPE_{kind.upper()}'}), {_shown(value)}"
        )
    if kind == "bytes" and not _is_base64(str(value)):
        raise Odd(
            f"Invalid value at '{where}' (TYPE_BYTES), Base64 decoding failed for {_shown(value)}"
        )
    return value


def _message(value: Any, kind: str, where: str) -> Json:
    if not isinstance(value, dict):
        named = f"type.googleapis.com/google.ai.generativelanguage.v1beta.{kind}"
        raise Odd(f"Invalid value at '{where}' ({named}), {_shown(value)}")
    known, found = _TYPES[kind], dict[str, Any]()
    for key, item in value.items():
        name = _camel(key)
        if name not in known:
            at = f" at '{where}'" if where else ""
            raise Odd(
                f'Invalid JSON payload received. Unknown name "{key}"{at}: Cannot find field.'
            )
        place = f"{where}.{snake(name)}" if where else snake(name)
        if name in found:
            raise Odd(f"Invalid value at '{place}' (oneof), field is already set.")
        if item is not None:
            found[name] = _one_form(item, known[name], place)
    return found


def _is_base64(data: str) -> bool:
    plain = data.translate({45: 43, 95: 47}).rstrip("=")
    if data in SENTINELS:
        return True
    try:
        base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True)
    except (binascii.Error, ValueError):
        return False
    return True


def request_of(body: Any, path: str) -> Json:
    """The request itself in one form, out of its envelope.

    Raises:
        Odd: a name that is not known, or a value of another type.
    """
    if "/v1internal:" in path:
        found: Json = _message(body, "Envelope", "").get("request") or {}
        return found
    if path.endswith(":countTokens"):
        counted = _message(body, "Counted", "")
        inner: Json | None = counted.pop("generateContentRequest", None)
        if inner and "contents" in counted:
            raise Odd("contents and generate_content_request are mutually exclusive.")
        return inner or counted
    return _message(body, "Request", "")


def any_request(body: Json) -> Json:
    """The request out of a body that was taken; its shape tells where it stands."""
    kinds = (("request", "Envelope"), ("generateContentRequest", "Counted"))
    camel = {_camel(key) for key in body}
    for inner, kind in kinds:
        if inner in camel:
            found: Json = _message(body, kind, "")[inner]
            return found
    return _message(body, "Request", "")
