"""OpenAI Chat Completions, as OpenAI and the many that follow its form take it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from typing import Any, Final

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
from mitmcontext.wire.api import Api, as_string, model_as_read, typed_block, users_text
from mitmcontext.wire.calls import called, listed_calls
from mitmcontext.wire.digests import MARKER, block_digest, message_digest, others, string_digest
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
    text_of,
    without_media,
)
from mitmcontext.wire.questions.openai_chat import ASKING
from mitmcontext.wire.side import standing_of_chat
from mitmcontext.wire.typed import kind_of_text

_DECIDING: Final = (
    "model",
    "messages",
    "tools",
    "functions",
    "max_tokens",
    "max_completion_tokens",
    "stream",
)
_TOOLS: Final = ("tools", "functions")
_ROLES: Final = ("system", "developer", "user", "assistant", "tool", "function")
_NOT_SHAPE: Final = re.compile(
    rb"context_length_exceeded|maximum context length|context window|reduce the length"
    rb"|(?:invalid|incorrect) (?:x-)?api.?key",
    re.IGNORECASE,
)
_SHAPE: Final = (400, 422)
_LENGTH: Final = re.compile(
    rb"context_length_exceeded|maximum context length|exceeds? the (?:model's )?context window"
    rb"|exceeds the available context size|reduce the length",
    re.IGNORECASE,
)
_WINDOW_SIZE: Final = re.compile(
    rb"(?:maximum context length (?:is|of)|context window of|context size \()\s*(\d+)",
    re.IGNORECASE,
)
_MESSAGES_SIZE: Final = re.compile(
    rb"\(\s*(\d+) in (?:the|your) (?:messages|prompt)", re.IGNORECASE
)
_SENT_SIZE: Final = re.compile(
    rb"(?:resulted in|requested(?: about)?|request \(|you passed)\s*(\d+)\s*(?:input )?tokens",
    re.IGNORECASE,
)


def recognises(path: str) -> bool:
    """Whether a POST to this path is for Chat Completions, under whatever prefix."""
    return path.endswith("/chat/completions")


def read(body: bytes, elements: Elements = spans.elements, /) -> Request:
    """Find the messages and what decides about them.

    Raises:
        Unreadable: not a chat request, or one that readers could take in two ways.
    """
    return spans.tolerant(body, partial(_read, elements))


def _read(elements: Elements, text: bytes, body: bytes) -> Request:
    fields = spans.unique(text, outer(text), _DECIDING)
    if "messages" not in fields:
        raise Unreadable("no messages")
    asked = [number_of(text, fields.get(n)) for n in ("max_completion_tokens", "max_tokens")]
    return Request(
        body=body,
        model=text_of(text, fields["model"]) if "model" in fields else "",
        array=fields["messages"],
        spans=messages_in(elements, text, fields["messages"]),
        tools=next((fields[n] for n in _TOOLS if n in fields and is_array(text, fields[n])), None),
        max_output=next((number for number in asked if number is not None), None),
        stream=is_true(text, fields.get("stream")),
        choice=fields.get("tool_choice") or fields.get("function_call"),
        schema=fields.get("response_format"),
        thinks="reasoning" in fields,
    )


def parse(raw: bytes) -> Message:
    """Read one message.

    Raises:
        Unreadable: not a message of this API.
    """
    return spans.tolerant(raw, _parse)


def _parse(text: bytes, raw: bytes) -> Message:
    fields = spans.unique(text, outer(text))
    if "role" not in fields:
        raise Unreadable("a message without role")
    role = text_of(text, fields["role"])
    if role not in _ROLES:
        raise Unreadable("a message with a role that is not known")
    parts = [
        *_content(text, raw, role, fields),
        *listed_calls(text, raw, fields.get("tool_calls")),
        *_legacy_call(text, raw, fields.get("function_call")),
        *_side_parts(text, raw, fields),
    ]
    read_ = ("role", "content", "tool_calls", "function_call", "refusal", "audio")
    rest = others(raw, fields, (*read_, MARKER))
    return Message(
        role=role,
        parts=tuple(parts),
        digest=message_digest(role, parts, rest),
        markers=sum(part.marked for part in parts) + (MARKER in fields),
        editable=text is raw,
    )


def usage_of(event: Mapping[str, Any]) -> Usage | None:
    """Usage of a plain answer or of the last streamed chunk (also where Groq puts it)."""
    usage = event.get("usage")
    if not isinstance(usage, dict):
        side = event.get("x_groq")
        usage = side.get("usage") if isinstance(side, dict) else None
    if not isinstance(usage, dict):
        return None
    details = usage.get("prompt_tokens_details")
    details = details if isinstance(details, dict) else {}
    cached, written = details.get("cached_tokens"), details.get("cache_write_tokens")
    return Usage(usage.get("prompt_tokens"), usage.get("completion_tokens"), cached, written)


def refuses_shape(status: int, body: bytes) -> bool:
    """Whether an answer refuses how the request is built, and not its length.

    Servers that follow this API word their refusals in many ways, so every 400 and 422 counts but
    those that speak of the length; who sends and how often is refused with other statuses.
    """
    return status in _SHAPE and body[:1] == b"{" and _NOT_SHAPE.search(body) is None


def refuses_length(status: int, body: bytes) -> TooLong | None:
    """Whether an answer refuses a request as too long, in the words of OpenAI and its followers."""
    if status not in (*_SHAPE, 413) or _LENGTH.search(body) is None:
        return None
    # Where the requested output is added, the messages' own share stands behind it.
    sent = _MESSAGES_SIZE.search(body) or _SENT_SIZE.search(body)
    window = _WINDOW_SIZE.search(body)
    return TooLong(int(sent[1]) if sent else None, int(window[1]) if window else None)


def _content(text: bytes, raw: bytes, role: str, fields: Mapping[str, Span]) -> list[Part]:
    content = fields.get("content")
    call_id = optional_text(text, fields.get("tool_call_id"))
    name = optional_text(text, fields.get("name")) if role == "function" else ""
    if content is None or is_null(text, content):
        # A result without text answers its call all the same.
        place = content or Span(0, 0)
        return [Part(Kind.RESULT, "", place, None, call_id, name)] if call_id or name else []
    if is_string(text, content):
        said = text_of(text, content)
        kind = kind_of_text(role, said)
        digest = string_digest(raw, content)
        return [Part(kind, said, content, content, call_id, name, digest=digest)]
    if not is_array(text, content):
        raise Unreadable("a message's content is neither text nor parts")
    parts = [_part(text, raw, role, call_id, span) for span in spans.elements(text, content)]
    if not parts and (call_id or name):
        return [Part(Kind.RESULT, "", content, None, call_id, name)]
    return parts


def _part(text: bytes, raw: bytes, role: str, call_id: str, span: Span) -> Part:
    fields = spans.unique(text, span)
    name = text_of(text, fields["type"]) if "type" in fields else ""
    digest = block_digest(text, raw, fields)
    marked = MARKER in fields
    if name == "text" and set(fields) - {MARKER} == {"type", "text"}:
        said = text_of(text, fields["text"])
        kind = kind_of_text(role, said)
        return Part(kind, said, span, fields["text"], call_id, digest=digest, marked=marked)
    if name == "image_url":
        shown = (picture_behind(text, fields, "image_url", "url"),)
        value = span if set(fields) <= {"type", "image_url", MARKER} else None
        return Part(Kind.IMAGE, "", span, value, call_id, "", 1, digest, marked, shown)
    said = without_media(text, span)
    if name == "file" and set(fields) <= {"type", "file", MARKER}:
        return Part(Kind.DOCUMENT, said, span, span, call_id, digest=digest, marked=marked)
    return Part(Kind.OPAQUE, said, span, call_id=call_id, digest=digest, marked=marked)


def _legacy_call(text: bytes, raw: bytes, span: Span | None) -> list[Part]:
    if span is None or not is_object(text, span):
        return []
    name, said = called(text, span)
    digest = block_digest(text, raw, spans.unique(text, span))
    return [Part(Kind.CALL, said, span, name=name, digest=digest)]


def _side_parts(text: bytes, raw: bytes, fields: Mapping[str, Span]) -> list[Part]:
    """A refusal or spoken answer: kept whole, since only the provider knows what it means.

    Reasoning that a server wants back counts, and goes with its message.
    """
    reasoning = [
        Part(Kind.ENVIRONMENT, text_of(text, fields[key]), fields[key])
        for key in ("reasoning_content", "reasoning")
        if key in fields and is_string(text, fields[key])
    ]
    return reasoning + [
        Part(
            Kind.OPAQUE,
            text[slice(*fields[key])].decode(),
            fields[key],
            digest=block_digest(text, raw, {key: fields[key]}),
        )
        for key in ("refusal", "audio")
        if key in fields and not is_null(text, fields[key])
    ]


CHAT: Final = Api(
    name="OpenAI Chat Completions",
    recognises=recognises,
    read=read,
    parse=parse,
    standing=standing_of_chat,
    model_name=model_as_read,
    user_message=users_text,
    replacement=as_string,
    text_block=typed_block,
    usage_of=usage_of,
    refuses_shape=refuses_shape,
    refuses_length=refuses_length,
    asking=ASKING,
)
