"""OpenAI Responses: `POST .../responses`, its `compact` and its `input_tokens`.

The history is a list of items, which `responses_items.py` reads; `responses_answers.py` reads what
comes back.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Final

import msgspec

from mitmcontext.values import Request, Span, Standing, Unreadable
from mitmcontext.wire import spans
from mitmcontext.wire.api import Api, model_as_read, typed_block
from mitmcontext.wire.places import (
    Elements,
    is_array,
    is_null,
    is_string,
    is_true,
    messages_in,
    nested,
    number_of,
    outer,
    quoted,
    text_of,
)
from mitmcontext.wire.questions.openai_responses import ASKING
from mitmcontext.wire.responses_answers import refuses_length, refuses_shape, usage_of
from mitmcontext.wire.responses_items import parse, type_of
from mitmcontext.wire.responses_parts import Fields

_PATH: Final = "/responses"
_COMPACT: Final = "/responses/compact"
_COUNT: Final = "/responses/input_tokens"
_DECIDING: Final = (
    "model",
    "input",
    "instructions",
    "tools",
    "max_output_tokens",
    "stream",
    "previous_response_id",
    "conversation",
    "context_management",
)
_TURN_METADATA: Final = "x-codex-turn-metadata"
# How OpenCode begins the system prompt of a request that is no turn; such a one offers no tools.
_TITLE: Final = "You are a title generator"
_SUMMARY: Final = "You are a context summarization agent"


def recognises(path: str) -> bool:
    """Whether a POST to this path is for Responses, under whatever prefix."""
    return path.endswith((_PATH, _COMPACT, _COUNT))


def read(body: bytes, elements: Elements = spans.elements, /) -> Request:
    """Find the items and what decides about them.

    Raises:
        Unreadable: not a Responses request, or one that readers could take in two ways.
    """
    return spans.tolerant(body, partial(_read, elements))


def _read(elements: Elements, text: bytes, body: bytes) -> Request:
    fields = spans.unique(text, outer(text), _DECIDING)
    if "model" not in fields or "input" not in fields:
        raise Unreadable("no input or no model")
    given = fields["input"]
    alone = is_string(text, given)
    items = (given,) if alone else messages_in(elements, text, given)
    system, tools = fields.get("instructions"), fields.get("tools")
    managed = fields.get("context_management", Span(0, 0))
    return Request(
        body=body,
        model=text_of(text, fields["model"]),
        array=given,
        spans=items,
        system=system if system and is_string(text, system) else None,
        tools=tools if tools and is_array(text, tools) else None,
        max_output=number_of(text, fields.get("max_output_tokens")),
        stream=is_true(text, fields.get("stream")),
        edited_by_server=b'"compaction"' in text[slice(*managed)],
        hidden=_is_held_elsewhere(text, fields) or (not alone and _refers(text, items)),
        choice=fields.get("tool_choice"),
        schema=nested(text, fields, "text", "format"),
    )


def _is_held_elsewhere(text: bytes, fields: Fields) -> bool:
    """Whether the request goes on from what the provider has kept."""
    named = (fields.get("previous_response_id"), fields.get("conversation"))
    return any(span is not None and not is_null(text, span) for span in named)


def _refers(text: bytes, items: Sequence[Span]) -> bool:
    """Whether an item stands for one that the provider has kept."""
    # Looking into each item would double the work, so it is done only where the word stands.
    return b'"item_reference"' in text and any(
        type_of(text, spans.unique(text, item, ("type",))) == "item_reference" for item in items
    )


def standing(path: str, headers: Mapping[str, str], request: Request) -> tuple[Standing, str]:
    """Codex names its compaction; paths tell the rest, and who holds the history."""
    if path.endswith(_COUNT):
        return Standing.NO_TURN, "a count of input tokens"
    if path.endswith(_COMPACT) or _compacts(headers, request):
        return Standing.NO_TURN, "the client's own compaction"
    if request.hidden:
        return Standing.NO_TURN, "the provider holds the earlier history"
    if request.edited_by_server:
        return Standing.NO_TURN, "the provider edits this history itself"
    if request.tools is None:
        opening = _opening(request)
        if opening.startswith(_TITLE):
            return Standing.ALONE, "the client's own side request"
        if opening.startswith(_SUMMARY):
            return Standing.NO_TURN, "the client's own compaction"
    return Standing.TURN, ""


def _compacts(headers: Mapping[str, str], request: Request) -> bool:
    """Whether Codex asks for its own compaction: by its last item, a header, or its metadata."""
    last = request.raw(-1)
    if b"compaction_trigger" in last and _is_trigger(last):
        return True
    if _request_kind(headers.get(_TURN_METADATA, "")) == "compaction":
        return True
    if b"request_kind" not in request.body:
        return False
    metadata = spans.tolerant(request.body, lambda text, _: _client_metadata(text))
    named = metadata.get(_TURN_METADATA) if isinstance(metadata, dict) else None
    return isinstance(named, str) and _request_kind(named) == "compaction"


def _is_trigger(raw: bytes) -> bool:
    try:
        said = msgspec.json.decode(raw)
    except (msgspec.MsgspecError, RecursionError):
        return False
    return isinstance(said, dict) and said.get("type") == "compaction_trigger"


def _client_metadata(text: bytes) -> object:
    span = dict(spans.members(text, outer(text))).get("client_metadata")
    return spans.value(text, span) if span else None


def _request_kind(metadata: str) -> object:
    """What Codex says a request is, in JSON of its own: "turn", "prewarm", "compaction"..."""
    if not metadata:
        return None
    try:
        said = msgspec.json.decode(metadata)
    except (msgspec.MsgspecError, RecursionError, UnicodeEncodeError):
        return None
    return said.get("request_kind") if isinstance(said, dict) else None


def _opening(request: Request) -> str:
    """How the system prompt begins, wherever the client puts it."""
    try:
        if request.system is not None:
            return text_of(request.body, request.system)
        first = parse(request.raw(0))
    except Unreadable:
        return ""
    spoken = first.role in ("system", "developer") and first.parts
    return first.parts[0].text if spoken else ""


def user_message(text: str) -> bytes:
    """A user's message that holds this text."""
    said = b'[{"type":"input_text","text":' + quoted(text) + b"}]"
    return b'{"type":"message","role":"user","content":' + said + b"}"


def replacement(value: bytes, text: str) -> bytes:
    """The text in place of an output or a text; a shell's output stays one with its outcome."""
    outcome = _outcome(value) if value[:1] == b"[" else b""
    if not outcome:
        return quoted(text)
    return b'[{"stdout":' + quoted(text) + b',"stderr":"","outcome":' + outcome + b"}]"


def text_block(block: bytes, text: str) -> bytes:
    """A block of text in place of an image or a file of a user's message or a tool's output."""
    return typed_block(block, text, b"input_text")


def _outcome(value: bytes) -> bytes:
    """The last outcome in a shell's output; nothing where this is none."""
    found = b""
    for span in spans.elements(value, Span(0, len(value))):
        fields = dict(spans.members(value, span))
        found = value[slice(*fields["outcome"])] if "outcome" in fields else found
    return found


RESPONSES: Final = Api(
    name="OpenAI Responses",
    recognises=recognises,
    read=read,
    parse=parse,
    standing=standing,
    model_name=model_as_read,
    user_message=user_message,
    replacement=replacement,
    text_block=text_block,
    usage_of=usage_of,
    refuses_shape=refuses_shape,
    refuses_length=refuses_length,
    asking=ASKING,
)
