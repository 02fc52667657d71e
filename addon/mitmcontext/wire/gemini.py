"""Google Gemini: `generateContent`, `streamGenerateContent` and `countTokens`.

AI Studio (`/v1beta/models/M:...`) and Vertex (`.../publishers/google/models/M:...`) name the model
in the path. Code Assist (`/v1internal:...`) puts the request into an envelope:
`{"model": M, "project": P, "request": {"contents": [...]}}`; `countTokens` may have one, too.

Google's servers take each key in camel and in snake case, null for nothing, and a single value for
a list of one. A call may have an id and often has none, and clients send it back or do not: what
ties results to calls is that they follow at once, in the same number.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any, Final

import msgspec

from mitmcontext.values import (
    Kind,
    Message,
    Part,
    Picture,
    Request,
    Span,
    Standing,
    TooLong,
    Unreadable,
    Usage,
)
from mitmcontext.wire import spans
from mitmcontext.wire.api import Api, model_as_read, untyped_block, vertex_project
from mitmcontext.wire.digests import block_digest, digest, message_digest, others
from mitmcontext.wire.pictures import picture
from mitmcontext.wire.places import (
    Elements,
    is_array,
    is_null,
    is_object,
    is_string,
    is_true,
    messages_in,
    number_of,
    optional_text,
    outer,
    quoted,
    text_of,
    without_media,
)
from mitmcontext.wire.questions.gemini import ASKING
from mitmcontext.wire.side import standing_by_prompt
from mitmcontext.wire.typed import kind_of_text

_COUNT: Final = ":countTokens"
_METHODS: Final = (":generateContent", ":streamGenerateContent", _COUNT)
_MODEL: Final = re.compile(r"/(?:models|tunedModels|endpoints)/([^/:]+):[A-Za-z]+\Z")
_ENVELOPES: Final = ("request", "generateContentRequest")
_DECIDING: Final = (
    *_ENVELOPES,
    "contents",
    "systemInstruction",
    "tools",
    "generationConfig",
    "cachedContent",
    "model",
    "project",
)
_ROLES: Final = {"": "user", "user": "user", "model": "assistant", "function": "function"}
# Keys of a part beside what it holds.
_BESIDE: Final = frozenset(
    {"thought", "thoughtSignature", "videoMetadata", "partMetadata", "mediaResolution"}
)
_THOUGHT: Final = frozenset({"thought", "thoughtSignature"})
_TICKET: Final = "by order"
_RESULT: Final = frozenset({"id", "name", "response"})
# Under these keys a tool's only text stands, in the SDKs and in Google's own examples.
_OUTPUT: Final = ("output", "result", "content")
_SNAKE: Final = re.compile(r"_([a-z0-9])")

# gemini-cli's own requests. Its compression says nothing of itself but what it asks for.
_ROUTER: Final = b"Task Routing AI"
_COMPRESSION: Final = b"<state_snapshot>"

_SHAPE: Final = (400, 422)
_NOT_SHAPE: Final = re.compile(
    rb"input token count|number of tokens allowed|payload size exceeds|FAILED_PRECONDITION"
    rb"|API_KEY_|API key (?:not valid|expired|not found)",
    re.IGNORECASE,
)
_TOO_LONG: Final = re.compile(
    rb"input token count\D{0,40}?(\d+)?\D{0,60}?"
    rb"(?:number of tokens allowed|only supports up to)\D{0,3}(\d+)?",
    re.IGNORECASE,
)


def recognises(path: str) -> bool:
    """Whether a POST to this path is for a model's content or its count (batches are not)."""
    return path.endswith(_METHODS)


def model_in_path(path: str) -> str:
    """The model that a path names: `/v1beta/models/M:generateContent`."""
    found = _MODEL.search(path)
    return found[1] if found else ""


def read(body: bytes, elements: Elements = spans.elements, /) -> Request:
    """Find the contents and what decides about them.

    Raises:
        Unreadable: no request of this API, or one that readers could take in two ways.
    """
    return spans.tolerant(body, partial(_read, elements))


def _read(elements: Elements, text: bytes, body: bytes) -> Request:
    top = _fields(text, outer(text), _DECIDING)
    places = [name for name in ("contents", *_ENVELOPES) if name in top]
    if len(places) != 1:
        raise Unreadable("no contents, or more than one place for them")
    place = places[0]
    fields = top if place == "contents" else _fields(text, top[place], _DECIDING)
    if "contents" not in fields:
        raise Unreadable("no contents")
    config = _fields(text, fields["generationConfig"]) if "generationConfig" in fields else {}
    named = fields.get("model") or top.get("model")
    # Where there is no envelope the path decides, whatever the body says beside it.
    model = optional_text(text, named) if place == "request" else ""
    return Request(
        body=body,
        model=model.rpartition("/")[2],
        array=fields["contents"],
        spans=messages_in(elements, text, fields["contents"]),
        system=_system(text, fields.get("systemInstruction")),
        tools=_declarations(text, fields.get("tools")),
        max_output=number_of(text, config.get("maxOutputTokens")),
        hidden="cachedContent" in fields,
        sender=top.get("project") if place == "request" else None,
        choice=fields.get("toolConfig"),
        schema=config.get("responseSchema") or config.get("responseJsonSchema"),
    )


def _fields(text: bytes, span: Span, keys: Iterable[str] = ()) -> dict[str, Span]:
    """The values of an object by keys in camel case, without those that are null.

    Raises:
        Unreadable: no object, or a key (one of `keys`, if there are any) stands twice, in one
            spelling or in both.
    """
    found: dict[str, Span] = {}
    wanted = frozenset(keys)
    for key, value in spans.members(text, span):
        name = _SNAKE.sub(lambda snake: snake[1].upper(), key) if "_" in key else key
        if name in found and (not wanted or name in wanted):
            raise Unreadable("a key stands twice")
        found[name] = value
    return {name: value for name, value in found.items() if not is_null(text, value)}


def _listed(text: bytes, span: Span | None) -> list[Span]:
    """The elements of a list; a single object is a list of one, and nothing an empty one.

    Raises:
        Unreadable: neither stands there.
    """
    if span is None:
        return []
    return [span] if is_object(text, span) else spans.elements(text, span)


def _system(text: bytes, span: Span | None) -> Span | None:
    """The system prompt, if it is one that can be counted.

    Raises:
        Unreadable: it is none.
    """
    if span is None or is_string(text, span):
        return span
    parts = _fields(text, span).get("parts")
    for part in _listed(text, parts):
        fields = spans.unique(text, part)
        if "text" in fields:
            text_of(text, fields["text"])
    return span if parts else None


def _declarations(text: bytes, span: Span | None) -> Span | None:
    """The first list of functions; tools of the server's own are not described in a request."""
    if span is None or not (is_array(text, span) or is_object(text, span)):
        return None
    for tool in _listed(text, span):
        listed = _fields(text, tool).get("functionDeclarations")
        if listed is not None and is_array(text, listed):
            return listed
    return None


def parse(raw: bytes) -> Message:
    """Read one content.

    Raises:
        Unreadable: not a content of this API.
    """
    return spans.tolerant(raw, _parse)


def _parse(text: bytes, raw: bytes) -> Message:
    fields = _fields(text, outer(text))
    role = _ROLES.get(optional_text(text, fields.get("role")))
    if role is None:
        raise Unreadable("a content with a role that is not known")
    listed = _listed(text, fields.get("parts"))
    parts = [part for span in listed for part in _part(text, raw, role, span)]
    kinds = {part.kind for part in parts}
    if role == "assistant" and Kind.RESULT in kinds and Kind.CALL not in kinds:
        role = "function"  # Some clients send results in the model's name.
    rest = others(raw, fields, ("role", "parts"))
    return Message(
        role=role,
        parts=tuple(parts),
        digest=message_digest(role, parts, rest),
        editable=not rest and text is raw,
    )


def _part(text: bytes, raw: bytes, role: str, span: Span) -> list[Part]:
    """A part; one that is signed has its signature behind it, as thinking.

    The signature is over the model's thoughts before it. The part under it stays as it is.
    """
    fields = _fields(text, span)
    signed = "thoughtSignature" in fields
    if signed:
        text_of(text, fields["thoughtSignature"])
    thought = _flag(text, fields.get("thought"))
    part_digest = block_digest(text, raw, fields)
    held = set(fields) - _BESIDE
    if held <= {"text"} and (thought or signed):
        said = text_of(text, fields["text"]) if held else ""
        if thought or not said:
            return [Part(Kind.THINKING, said, span, digest=part_digest)]
        found = Part(kind_of_text(role, said), said, span, digest=part_digest)
    elif held == {"text"}:
        said = text_of(text, fields["text"])
        kind = kind_of_text(role, said)
        return [Part(kind, said, span, fields["text"], digest=part_digest)]
    elif held == {"functionCall"}:
        name, said = _called(text, fields["functionCall"])
        found = Part(Kind.CALL, said, span, call_id=_TICKET, name=name, digest=part_digest)
    elif held == {"functionResponse"}:
        found = _result(text, fields["functionResponse"], span, part_digest)
    elif held in ({"inlineData"}, {"fileData"}):
        found = _media(text, fields[next(iter(held))], span, part_digest)
        if found.kind != Kind.OPAQUE and not set(fields) & _THOUGHT:
            found = msgspec.structs.replace(found, value=span)
    else:
        found = Part(Kind.OPAQUE, without_media(text, span), span, digest=part_digest)
    if not signed:
        return [found]
    signature = digest([part_digest, b"signature"])
    return [found, Part(Kind.THINKING, "", fields["thoughtSignature"], digest=signature)]


def _flag(text: bytes, span: Span | None) -> bool:
    if span is None:
        return False
    if text[slice(*span)] not in (b"true", b"false"):
        raise Unreadable("a value is neither true nor false where one must be")
    return is_true(text, span)


def _called(text: bytes, span: Span) -> tuple[str, str]:
    fields = _fields(text, span)
    name = optional_text(text, fields.get("name"))
    given = text[slice(*fields["args"])].decode() if "args" in fields else ""
    return name, f"{name} {given}"


def _result(text: bytes, span: Span, whole: Span, part_digest: bytes) -> Part:
    fields = _fields(text, span)
    response = fields.get("response")
    shown = _listed(text, fields.get("parts"))
    return Part(
        Kind.RESULT,
        "" if response is None else _result_text(text, response),
        whole,
        # Media beside the response may be spoken of in it, and are opaque to us.
        response if set(fields) <= _RESULT else None,
        call_id=_TICKET,
        name=optional_text(text, fields.get("name")),
        images=len(shown),
        digest=part_digest,
        pictures=tuple(_picture(text, _fields(text, one)) for one in shown),
    )


def _result_text(text: bytes, span: Span) -> str:
    """What a tool said: its only text, or a line for each thing that it says.

    Raises:
        Unreadable: no object, which a response must be.
    """
    members = spans.members(text, span)
    said = [
        (key, text_of(text, place) if is_string(text, place) else text[slice(*place)].decode())
        for key, place in members
    ]
    if len(said) == 1 and said[0][0] in _OUTPUT:
        return said[0][1]
    return "\n".join(f"{key}: {value}" for key, value in said)


def _picture(text: bytes, part: Mapping[str, Span]) -> Picture:
    held = part.get("inlineData")
    return picture(text, _fields(text, held).get("data") if held else None)


def _media(text: bytes, span: Span, whole: Span, part_digest: bytes) -> Part:
    fields = _fields(text, span)
    kind = optional_text(text, fields.get("mimeType"))
    if kind.startswith("image/"):
        pictured = (picture(text, fields.get("data")),)
        return Part(Kind.IMAGE, "", whole, images=1, digest=part_digest, pictures=pictured)
    said = kind
    if "data" not in fields:
        said = without_media(text, span)
    elif kind.startswith("text/"):
        said = _plain(text_of(text, fields["data"]))
    is_document = kind.startswith("text/") or kind == "application/pdf"
    named = Kind.DOCUMENT if is_document else Kind.OPAQUE
    return Part(named, said, whole, digest=part_digest)


def _plain(data: str) -> str:
    """The text that base64 in either alphabet stands for; as it is where it is none."""
    try:
        raw = base64.b64decode(data.translate({45: 43, 95: 47}) + "=" * (-len(data) % 4))
    except (binascii.Error, ValueError):
        return data
    return raw.decode("utf-8", "replace")


def standing(path: str, headers: Mapping[str, str], request: Request) -> tuple[Standing, str]:
    """Counting asks about a conversation; gemini-cli's side requests offer no tools."""
    if request.hidden:
        return Standing.ALONE, "the provider holds the beginning of this history (cachedContent)"
    if path.endswith(_COUNT):
        return Standing.NO_TURN, "countTokens"
    if request.tools is None:
        system = request.body[slice(*request.system)] if request.system else b""
        if _ROUTER in system:
            return Standing.ALONE, "the client's own choice of a model"
        if _COMPRESSION in system or _COMPRESSION in request.raw(len(request.spans) - 1):
            return Standing.NO_TURN, "the client's own compaction"
    return standing_by_prompt(request, request.system) or (Standing.TURN, "")


def principal(path: str, request: Request) -> str:
    """The project that Vertex has in the path, or Code Assist in its envelope."""
    if project := vertex_project(path):
        return project
    try:
        named = spans.value(request.body, request.sender) if request.sender else None
    except Unreadable:  # A lone surrogate in a name is no reason to leave the request alone.
        return ""
    return named if isinstance(named, str) else ""


def user_message(text: str) -> bytes:
    """A user's content that holds this text."""
    return b'{"role":"user","parts":[{"text":' + quoted(text) + b"}]}"


def replacement(value: bytes, text: str) -> bytes:
    """The text in place of a text, or in an object in place of a tool's response."""
    return b'{"output":' + quoted(text) + b"}" if value[:1] == b"{" else quoted(text)


def usage_of(event: Mapping[str, Any]) -> Usage | None:
    """Usage of an answer, of one piece of it, or of a count; Code Assist wraps each of them.

    `promptTokenCount` is everything that fills the window; what was read from a cache is part of
    it. What the model thought is output and is counted apart.
    """
    wrapped = event.get("response")
    answer = wrapped if isinstance(wrapped, dict) else event
    usage = answer.get("usageMetadata")
    if not isinstance(usage, dict):
        total = _number(answer, "totalTokens")
        return None if total is None else Usage(input_tokens=total)
    output = [_number(usage, name) for name in ("candidatesTokenCount", "thoughtsTokenCount")]
    said = [number for number in output if number is not None]
    return Usage(
        _number(usage, "promptTokenCount"),
        sum(said) if said else None,
        _number(usage, "cachedContentTokenCount"),
    )


def _number(found: Mapping[str, Any], key: str) -> int | None:
    number = found.get(key)
    return number if isinstance(number, int) else None


def refuses_shape(status: int, body: bytes) -> bool:
    """Whether an answer refuses how the request is built, and not its length or its payer.

    A stream that is no event stream is refused with a list that holds the error.
    """
    return status in _SHAPE and body[:1] in (b"{", b"[") and _NOT_SHAPE.search(body) is None


def refuses_length(status: int, body: bytes) -> TooLong | None:
    """Whether an answer refuses a request as too long.

    AI Studio: "The input token count (A) exceeds the maximum number of tokens allowed (B).";
    Vertex: "... the input token count is A but model only supports up to B."
    """
    found = _TOO_LONG.search(body) if status in _SHAPE else None
    if found is None:
        return None
    sent, window = found.groups()
    return TooLong(int(sent) if sent else None, int(window) if window else None)


GENERATE: Final = Api(
    name="Google Gemini",
    recognises=recognises,
    read=read,
    parse=parse,
    standing=standing,
    model_name=model_as_read,
    user_message=user_message,
    replacement=replacement,
    text_block=untyped_block,
    usage_of=usage_of,
    refuses_shape=refuses_shape,
    refuses_length=refuses_length,
    asking=ASKING,
    model_in_path=model_in_path,
    principal=principal,
)
