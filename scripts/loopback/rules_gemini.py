"""What Google's Gemini refuses on `generateContent` and its kin, and in which words.

A body is first brought into one form, as Google's servers do it: keys in camel case whatever their
spelling, no nulls, single values as lists of one. Names and types are judged on the way, by a
table of the messages that the API knows. Then rules look at the conversation, each a generator of
complaints like those of `rules_anthropic`; the first complaint counts.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from .answers import Json, Reply, Usage, cut, line
from .counting import Model, count
from .http1 import Wire
from .refusal import Refusal
from .speaking import Said, Speaking

METHODS = (":generateContent", ":streamGenerateContent", ":countTokens")
SENTINELS = ("skip_thought_signature_validator", "context_engineering_is_the_way_to_go")
"""What Google takes in place of a signature."""

_MODEL = re.compile(r"/(?:models|tunedModels|endpoints)/([^/:]+):[A-Za-z]+\Z")
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
_DATA = (
    "text",
    "inlineData",
    "fileData",
    "functionCall",
    "functionResponse",
    "executableCode",
    "codeExecutionResult",
    "toolCall",
    "toolResponse",
)
_ROLES = ("user", "model", "function")
_STATES = {400: "INVALID_ARGUMENT", 401: "UNAUTHENTICATED", 404: "NOT_FOUND"}
_CACHED = (
    "CachedContent can not be used with GenerateContent request setting system_instruction, tools"
    " or tool_config.\n\nProposed fix: move those values to CachedContent from GenerateContent"
    " request."
)
_NO_PARTS = "contents.parts must not be empty.\n"
_NUMBERS = (
    "Please ensure that the number of function response parts is equal to the number of function"
    " call parts of the function call turn."
)
_NO_TEXT = (
    "Unable to submit request because it must have a text parameter. Add a text parameter and try"
    " again. Learn more: https://cloud.google.com/vertex-ai/generative-ai/docs/model-reference/gemini"
)


class Odd(Exception):
    """A body that is no request of this API, in the provider's words."""


@dataclass
class Memory:
    """What the provider knows of one account: which part each signature was given for."""

    key: bytes = b""
    signed: dict[str, bytes] = field(default_factory=dict)

    def sign(self, part: Json) -> str:
        """The signature of a part, known from now on."""
        made = hashlib.sha512(self.key + _unsigned(part)).digest()
        signature = base64.b64encode(made * 3).decode()
        self.signed[signature] = _unsigned(part)
        return signature

    def learn(self, contents: list[Json]) -> None:
        """Take signatures that were never seen for good, with the parts that they stand on."""
        for content in contents:
            for part in content["parts"]:
                signature = part.get("thoughtSignature")
                if signature and signature not in SENTINELS:
                    self.signed.setdefault(signature, _unsigned(part))


def _unnamed(part: Json) -> Json:
    call = part.get("functionCall")
    if not isinstance(call, dict):
        return part
    return {**part, "functionCall": {key: value for key, value in call.items() if key != "id"}}


def _unsigned(part: Json) -> bytes:
    rest = {key: value for key, value in part.items() if key != "thoughtSignature"}
    return json.dumps(rest, sort_keys=True).encode()


# One form for every body.


def _camel(key: str) -> str:
    return _SNAKE.sub(lambda snake: snake[1].upper(), key)


def _snake(key: str) -> str:
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
        place = f"{where}.{_snake(name)}" if where else _snake(name)
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


def _any_request(body: Json) -> Json:
    """The request out of a body that was taken; its shape tells where it stands."""
    kinds = (("request", "Envelope"), ("generateContentRequest", "Counted"))
    camel = {_camel(key) for key in body}
    for inner, kind in kinds:
        if inner in camel:
            found: Json = _message(body, kind, "")[inner]
            return found
    return _message(body, "Request", "")


# What a conversation must look like.


@dataclass(frozen=True, slots=True)
class View:
    """A request in one form, and what is known of who sends it."""

    request: Json
    memory: Memory
    model: str
    on_vertex: bool = False

    @property
    def contents(self) -> list[Json]:
        """The contents, each with the list of its parts."""
        found: list[Json] = self.request["contents"]
        return found


Rule = Callable[[View], Iterator[str]]


def contents_are_there(view: View) -> Iterator[str]:
    """There are contents, each has parts, and so has the system prompt."""
    if not view.request.get("contents"):
        yield "* GenerateContentRequest.contents: contents is not specified\n"
        return
    for at, content in enumerate(view.contents):
        if not content.get("parts"):
            yield f"* GenerateContentRequest.contents[{at}].parts: {_NO_PARTS}"
    system = view.request.get("systemInstruction")
    if system is not None and not system.get("parts"):
        yield f"* GenerateContentRequest.system_instruction.parts: {_NO_PARTS}"


def parts_hold_one_thing(view: View) -> Iterator[str]:
    """Each part holds one thing, functions have names, and no content is but empty texts.

    What is nothing but a signature ends a streamed answer, and comes back so.
    """
    for at, content in enumerate(view.contents):
        for number, part in enumerate(content["parts"]):
            where = f"contents[{at}].parts[{number}]"
            held = [key for key in _DATA if key in part]
            if not held and not part.get("thoughtSignature"):
                yield (
                    f"* GenerateContentRequest.{where}.data: required oneof field 'data' must have"
                    " one initialized field\n"
                )
            if len(held) > 1:
                yield (
                    f"Invalid value at '{where}' (oneof), oneof field 'data' is already set."
                    f" Cannot set '{held[1]}'"
                )
            yield from _names(where, part)
        if all(part.get("text") == "" and len(part) == 1 for part in content["parts"]):
            yield _NO_TEXT


def _names(where: str, part: Json) -> Iterator[str]:
    for key in ("functionCall", "functionResponse"):
        if key in part and not part[key].get("name"):
            yield f"* GenerateContentRequest.{where}.{_snake(key)}.name: Name cannot be empty.\n"


def roles_are_known(view: View) -> Iterator[str]:
    """The user's and the model's, and the older one of results."""
    for content in view.contents:
        if content.get("role", "user") not in _ROLES:
            yield "Please use a valid role: user, model."


def calls_have_responses(view: View) -> Iterator[str]:
    """A turn of calls follows the user's, and as many responses follow it at once.

    AI Studio takes responses that are spread over several contents in a row, Vertex does not.
    """
    before: Json = {}
    waiting = 0
    for content in view.contents:
        calls, responses = _number(content, "functionCall"), _number(content, "functionResponse")
        if calls and (not before or before.get("role", "user") == "model"):
            yield (
                "Please ensure that function call turn comes immediately after a user turn or after"
                " a function response turn."
            )
        if responses and not waiting:
            yield (
                "Please ensure that function response turn comes immediately after a function call"
                " turn."
            )
        if waiting != responses and (view.on_vertex or not 0 < responses < waiting):
            yield _NUMBERS
        waiting += calls - responses
        before = content
    if waiting and not _number(before, "functionCall"):
        yield _NUMBERS


def _number(content: Json, key: str) -> int:
    return sum(key in part for part in content.get("parts") or ())


def calls_are_signed(view: View) -> Iterator[str]:
    """Gemini 3 wants the signature of each step's first call since the user spoke last."""
    if not view.model.startswith("gemini-3"):
        return
    for at in range(_current_turn(view.contents), len(view.contents)):
        calls = [part for part in view.contents[at]["parts"] if "functionCall" in part]
        if calls and not calls[0].get("thoughtSignature"):
            yield (
                "Function call is missing a thought_signature in functionCall parts. This is"
                " required for tools to work correctly, and missing thought_signature may lead to"
                " degraded model performance. Additional data, function call"
                f" `default_api:{calls[0]['functionCall']['name']}` , position {at + 1}. Please"
                " refer to https://ai.google.dev/gemini-api/docs/thought-signatures for more"
                " details."
            )


def _current_turn(contents: list[Json]) -> int:
    """Where the user spoke last: a content of the user's that holds more than responses."""
    for at in range(len(contents) - 1, -1, -1):
        parts = contents[at]["parts"]
        if contents[at].get("role", "user") == "user" and any(
            "functionResponse" not in part for part in parts
        ):
            return at
    return 0


def signatures_are_genuine(view: View) -> Iterator[str]:
    """A signature stands on the very part that it was given for."""
    for content in view.contents:
        for part in content["parts"]:
            known = view.memory.signed.get(part.get("thoughtSignature", ""))
            # A client may name a call that came without a name, as gemini-cli does.
            if known not in (None, _unsigned(part), _unsigned(_unnamed(part))):
                yield "Corrupted thought signature."


def caches_stand_alone(view: View) -> Iterator[str]:
    """What is cached has the system prompt and the tools in it."""
    beside = ("systemInstruction", "tools", "toolConfig")
    if view.request.get("cachedContent") and any(key in view.request for key in beside):
        yield _CACHED


def functions_are_declared_once(view: View) -> Iterator[str]:
    """Functions have names, and no two have the same."""
    taken: set[str] = set()
    for declared in declarations(view.request):
        name = declared.get("name")
        if not name:
            yield (
                "* GenerateContentRequest.tools[0].function_declarations[0].name: [FIELD_INVALID]"
                " Invalid function name. Must start with a letter or an underscore.\n"
            )
        elif name in taken:
            yield f"Duplicate function declaration found: {name}"
        taken.add(name or "")


RULES: tuple[Rule, ...] = (
    contents_are_there,
    parts_hold_one_thing,
    roles_are_known,
    calls_have_responses,
    calls_are_signed,
    signatures_are_genuine,
    caches_stand_alone,
    functions_are_declared_once,
)


# What counts.


def declarations(request: Json) -> list[Json]:
    """All functions that a request offers."""
    return [
        one for tool in request.get("tools") or () for one in tool.get("functionDeclarations", ())
    ]


def _history(request: Json) -> list[Json]:
    return [
        {**content, "parts": [_counted(part) for part in content.get("parts") or ()]}
        for content in request.get("contents") or ()
    ]


def _counted(part: Json) -> Json:
    """A part as it counts: media at the price of an image, signatures at none."""
    if "inlineData" in part or "fileData" in part:
        return {"type": "image"}
    return {key: value for key, value in part.items() if key != "thoughtSignature"}


def _head(request: Json) -> Json:
    system = (request.get("systemInstruction") or {}).get("parts") or ()
    texts = [part.get("text", "") for part in system]
    return {"system": "\n".join(texts), "tools": declarations(request)}


def model_of(wire: Wire, body: Json) -> str:
    """The model that the path names, or the envelope."""
    found = _MODEL.search(wire.path)
    if found:
        return found[1]
    inner = body.get("request")
    named = body.get("model") or (inner.get("model") if isinstance(inner, dict) else None)
    return named.rpartition("/")[2] if isinstance(named, str) else ""


def judge(body: Any, memory: Memory, path: str, name: str, model: Model | None) -> Refusal | None:
    """Say how the provider refuses this body, or None if it takes it and has learned from it.

    Without a `model` only the shape is looked at. `name` is the model's.
    """
    try:
        request = request_of(body, path)
    except Odd as odd:
        return Refusal(str(odd))
    view = View(request, memory, name, on_vertex="/publishers/" in path)
    complaint = next((words for rule in RULES for words in rule(view)), None)
    if complaint is not None:
        return Refusal(complaint)
    if model is not None and not path.endswith(":countTokens"):
        tokens = count({**_head(request), "messages": _history(request)}, model)
        if tokens > model.window:
            message = (
                f"The input token count ({tokens}) exceeds the maximum number of tokens allowed"
                f" ({model.window})."
            )
            return Refusal(message, too_long=True)
    memory.learn(view.contents)
    return None


def check(body: Any, memory: Memory, wire: Wire, model: Model) -> Refusal | None:
    """Judge a request off the wire."""
    name = model_of(wire, body) if isinstance(body, dict) else ""
    return judge(body, memory, wire.path, name, model)


def say(refusal: Refusal, number: int) -> Json:
    """The refusal as the provider's JSON."""
    status = _STATES.get(refusal.status, "INVALID_ARGUMENT" if refusal.status < 500 else "INTERNAL")
    return {"error": {"code": refusal.status, "message": refusal.message, "status": status}}


# Answers.


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


SPEAKING = Speaking(
    name="gemini",
    recognises=lambda wire: wire.path.endswith(METHODS),
    model=model_of,
    history=lambda body: _history(_any_request(body)),
    head=lambda body: _head(_any_request(body)),
    memory=Memory,
    check=check,
    say=say,
    answer=answer,
    counts=lambda wire: wire.path.endswith(":countTokens"),
    counted=lambda tokens: {"totalTokens": tokens},
)
