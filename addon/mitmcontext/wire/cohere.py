"""Cohere's chat of version 2: `POST .../v2/chat`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from typing import Any, Final

import msgspec

from mitmcontext.values import (
    Kind,
    Message,
    Part,
    Request,
    Span,
    TooLong,
    Unreadable,
    Usage,
)
from mitmcontext.wire import spans
from mitmcontext.wire.api import Api, model_as_read, typed_block, users_text
from mitmcontext.wire.calls import listed_calls
from mitmcontext.wire.digests import block_digest, message_digest, others, string_digest
from mitmcontext.wire.pictures import picture_behind
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
from mitmcontext.wire.questions.openai_chat import COHERE
from mitmcontext.wire.side import standing_of_chat
from mitmcontext.wire.typed import kind_of_text

_DECIDING: Final = ("model", "messages", "tools", "documents", "max_tokens", "stream")
_ROLES: Final = ("system", "user", "assistant", "tool")
_READ: Final = ("role", "content", "tool_plan", "tool_calls")
_KNOWN: Final = (*_READ, "tool_call_id", "citations")
_SHAPE: Final = (400, 422)
_TOO_LONG: Final = re.compile(rb"too many tokens:", re.IGNORECASE)
_WINDOW_SIZE: Final = re.compile(rb"cannot exceed (\d+)", re.IGNORECASE)
_SENT_SIZE: Final = re.compile(rb"received (\d+)", re.IGNORECASE)
# Who asks for more output than a model writes sent no prompt that is too long.
_OUTPUT: Final = re.compile(rb"max[ _]tokens must be", re.IGNORECASE)
_NOT_SHAPE: Final = re.compile(rb"too many tokens|invalid api (?:key|token)", re.IGNORECASE)


def recognises(path: str) -> bool:
    """Whether a POST to this path is for the chat of version 2, under whatever prefix."""
    return path.endswith("/v2/chat")


def read(body: bytes, elements: Elements = spans.elements, /) -> Request:
    """Find the messages and what decides about them.

    Raises:
        Unreadable: not a chat request, or one that readers could take in two ways.
    """
    return spans.tolerant(body, partial(_read, elements))


def _read(elements: Elements, text: bytes, body: bytes) -> Request:
    fields = spans.unique(text, outer(text), _DECIDING)
    if "messages" not in fields or "model" not in fields:
        raise Unreadable("no messages or no model")
    tools, documents = fields.get("tools"), fields.get("documents")
    return Request(
        body=body,
        model=text_of(text, fields["model"]),
        array=fields["messages"],
        spans=messages_in(elements, text, fields["messages"]),
        # Documents stand before the messages, and count as what stands there.
        system=documents if documents is not None and _are_objects(text, documents) else None,
        tools=tools if tools is not None and is_array(text, tools) else None,
        max_output=number_of(text, fields.get("max_tokens")),
        stream=is_true(text, fields.get("stream")),
        choice=fields.get("tool_choice"),
        schema=fields.get("response_format"),
    )


def _are_objects(text: bytes, span: Span) -> bool:
    found = spans.elements(text, span) if is_array(text, span) else []
    return bool(found) and all(is_object(text, one) for one in found)


def parse(raw: bytes) -> Message:
    """Read one message.

    Raises:
        Unreadable: not a message of this API.
    """
    return spans.tolerant(raw, _parse)


def _parse(text: bytes, raw: bytes) -> Message:
    fields = spans.unique(text, outer(text))
    role = text_of(text, fields["role"]) if "role" in fields else ""
    if role not in _ROLES:
        raise Unreadable("a message with a role that is not known")
    parts = [
        *_plan(text, raw, fields.get("tool_plan")),
        *_content(text, raw, role, fields),
        *listed_calls(text, raw, fields.get("tool_calls")),
    ]
    return Message(
        role=role,
        parts=tuple(parts),
        digest=message_digest(role, parts, others(raw, fields, _READ)),
        editable=text is raw and set(fields) <= set(_KNOWN),
    )


def replacement(value: bytes, text: str) -> bytes:
    """The text in place of a content, a text or a document's data, which may be an object."""
    return b'{"text":' + quoted(text) + b"}" if value[:1] == b"{" else quoted(text)


def usage_of(event: Mapping[str, Any]) -> Usage | None:
    """Usage of a plain answer, or of the event `message-end`.

    What fills the window is `usage.tokens`, with what was cached in it; `billed_units` leaves out
    what Cohere itself puts around the messages, some hundred tokens.
    """
    delta = event.get("delta")
    usage = delta.get("usage") if isinstance(delta, dict) else event.get("usage")
    if not isinstance(usage, dict):
        return None
    tokens = usage.get("tokens")
    counted = tokens if isinstance(tokens, dict) else {}
    return Usage(
        _whole(counted.get("input_tokens")),
        _whole(counted.get("output_tokens")),
        _whole(usage.get("cached_tokens")),
    )


def refuses_shape(status: int, body: bytes) -> bool:
    """Whether an answer refuses how the request is built, and not its length."""
    return status in _SHAPE and body[:1] == b"{" and _NOT_SHAPE.search(body) is None


def refuses_length(status: int, body: bytes) -> TooLong | None:
    """Whether an answer refuses a request as too long.

    "too many tokens: total number of tokens in the prompt cannot exceed B - received A".
    """
    if status not in (*_SHAPE, 413) or not _TOO_LONG.search(body) or _OUTPUT.search(body):
        return None
    window, sent = _WINDOW_SIZE.search(body), _SENT_SIZE.search(body)
    return TooLong(int(sent[1]) if sent else None, int(window[1]) if window else None)


def _whole(value: object) -> int | None:
    """A count as a whole number: Cohere writes some of them as 12.0."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return int(value)


def _plan(text: bytes, raw: bytes, place: Span | None) -> list[Part]:
    """What the model means to do with its calls, in its own words."""
    said = optional_text(text, place)
    if place is None or not said:
        return []
    return [Part(Kind.PROSE, said, place, digest=block_digest(text, raw, {"tool_plan": place}))]


def _content(text: bytes, raw: bytes, role: str, fields: Mapping[str, Span]) -> list[Part]:
    content = fields.get("content")
    call_id = optional_text(text, fields.get("tool_call_id"))
    if content is None or is_null(text, content):
        # A result without text answers its call all the same.
        place = content or Span(0, 0)
        return [Part(Kind.RESULT, "", place, call_id=call_id)] if call_id else []
    if is_string(text, content):
        said, own = text_of(text, content), string_digest(raw, content)
        return [Part(kind_of_text(role, said), said, content, content, call_id, digest=own)]
    parts = [_block(text, raw, role, call_id, span) for span in spans.elements(text, content)]
    if not all(part.kind == Kind.THINKING for part in parts):
        # Calls stand elsewhere: the list itself must not become empty.
        parts = [
            msgspec.structs.replace(part, removable=part.kind == Kind.THINKING) for part in parts
        ]
    if not parts and call_id:
        return [Part(Kind.RESULT, "", content, call_id=call_id)]
    return parts


def _block(text: bytes, raw: bytes, role: str, call_id: str, span: Span) -> Part:
    fields = spans.unique(text, span)
    name = text_of(text, fields["type"]) if "type" in fields else ""
    own = block_digest(text, raw, fields)
    if name == "text" and set(fields) == {"type", "text"}:
        said = text_of(text, fields["text"])
        kind = kind_of_text(role, said)
        return Part(kind, said, span, fields["text"], call_id, digest=own)
    if name == "thinking" and "thinking" in fields:
        said = text_of(text, fields["thinking"])
        return Part(Kind.THINKING, said, span, call_id=call_id, digest=own)
    if name == "image_url":
        shown = (picture_behind(text, fields, "image_url", "url"),)
        value = span if set(fields) == {"type", "image_url"} else None
        return Part(Kind.IMAGE, "", span, value, call_id, "", 1, own, pictures=shown)
    if name == "document" and set(fields) == {"type", "document"}:
        said, value = _document(text, fields["document"])
        kind = Kind.RESULT if role == "tool" else Kind.DOCUMENT
        return Part(kind, said, span, value if kind == Kind.RESULT else None, call_id, digest=own)
    return Part(Kind.OPAQUE, without_media(text, span), span, call_id=call_id, digest=own)


def _document(text: bytes, place: Span) -> tuple[str, Span | None]:
    """A document's data as text, and the value that a shorter text may take the place of."""
    data = spans.unique(text, place).get("data")
    if data is None:
        return text[slice(*place)].decode(), None
    if is_string(text, data):
        return text_of(text, data), data
    if not is_object(text, data):
        return text[slice(*data)].decode(), None
    fields = spans.unique(text, data)
    if set(fields) == {"text"} and is_string(text, fields["text"]):
        return text_of(text, fields["text"]), fields["text"]
    return text[slice(*data)].decode(), data


CHAT: Final = Api(
    name="Cohere chat",
    recognises=recognises,
    read=read,
    parse=parse,
    standing=standing_of_chat,
    model_name=model_as_read,
    user_message=users_text,
    replacement=replacement,
    text_block=typed_block,
    usage_of=usage_of,
    refuses_shape=refuses_shape,
    refuses_length=refuses_length,
    asking=COHERE,
)
