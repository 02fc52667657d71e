"""What a conversation must look like, so that Gemini takes it."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from loopback.answers import Json
from loopback.rules_gemini.form import SENTINELS, snake

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


def declarations(request: Json) -> list[Json]:
    """All functions that a request offers."""
    return [
        one for tool in request.get("tools") or () for one in tool.get("functionDeclarations", ())
    ]


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
            yield f"* GenerateContentRequest.{where}.{snake(key)}.name: Name cannot be empty.\n"


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
