"""Google Gemini: `generateContent`, `streamGenerateContent` and `countTokens`.

AI Studio (`/v1beta/models/M:...`) and Vertex (`.../publishers/google/models/M:...`) name the model
in the path. Code Assist (`/v1internal:...`) puts the request into an envelope:
`{"model": M, "project": P, "request": {"contents": [...]}}`; `countTokens` may have one, too.
`gemini_contents.py` reads each content.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from typing import Any, Final

from mitmcontext.values import Request, Span, Standing, TooLong, Unreadable, Usage
from mitmcontext.wire import spans
from mitmcontext.wire.api import Api, model_as_read, untyped_block, vertex_project
from mitmcontext.wire.gemini_contents import elements_of, fields_of, parse
from mitmcontext.wire.places import (
    Elements,
    is_array,
    is_object,
    is_string,
    messages_in,
    number_of,
    optional_text,
    outer,
    quoted,
    text_of,
)
from mitmcontext.wire.questions.gemini import ASKING
from mitmcontext.wire.side import standing_by_prompt

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
    top = fields_of(text, outer(text), _DECIDING)
    places = [name for name in ("contents", *_ENVELOPES) if name in top]
    if len(places) != 1:
        raise Unreadable("no contents, or more than one place for them")
    place = places[0]
    fields = top if place == "contents" else fields_of(text, top[place], _DECIDING)
    if "contents" not in fields:
        raise Unreadable("no contents")
    config = fields_of(text, fields["generationConfig"]) if "generationConfig" in fields else {}
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


def _system(text: bytes, span: Span | None) -> Span | None:
    """The system prompt, if it is one that can be counted.

    Raises:
        Unreadable: it is none.
    """
    if span is None or is_string(text, span):
        return span
    parts = fields_of(text, span).get("parts")
    for part in elements_of(text, parts):
        fields = spans.unique(text, part)
        if "text" in fields:
            text_of(text, fields["text"])
    return span if parts else None


def _declarations(text: bytes, span: Span | None) -> Span | None:
    """The first list of functions; tools of the server's own are not described in a request."""
    if span is None or not (is_array(text, span) or is_object(text, span)):
        return None
    for tool in elements_of(text, span):
        listed = fields_of(text, tool).get("functionDeclarations")
        if listed is not None and is_array(text, listed):
            return listed
    return None


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
