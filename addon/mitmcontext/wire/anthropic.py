"""Anthropic Messages: `POST .../v1/messages` and its `count_tokens`, on any host.

Amazon Bedrock's InvokeModel and Google's Vertex take the same bodies under paths of their own,
which name the model; in the body `anthropic_version` stands in its place.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from typing import Any, Final
from urllib.parse import unquote

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
from mitmcontext.wire.api import Api, typed_block, vertex_project
from mitmcontext.wire.digests import MARKER, block_digest, message_digest, others, string_digest
from mitmcontext.wire.pictures import picture_behind
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
    without_media,
)
from mitmcontext.wire.questions.anthropic import ASKING
from mitmcontext.wire.side import standing_by_prompt
from mitmcontext.wire.typed import kind_of_user_text

_DECIDING: Final = (
    "model",
    "messages",
    "system",
    "tools",
    "max_tokens",
    "stream",
    "anthropic_version",
    "anthropic_beta",
)
_ELSEWHERE: Final = re.compile(
    r"/model/(.+)/invoke(?:-with-response-stream)?\Z"
    r"|/publishers/anthropic/models/([^/]+):(?:rawPredict|streamRawPredict)\Z"
)
_LONG: Final = 1_000_000  # the window that a beta of this name asks for
_COUNT: Final = "/v1/messages/count_tokens"
_VERTEX_COUNT: Final = "/models/count-tokens:rawPredict"
# Claude Code's billing line with a digest over the body that the client made (`cch=`).
_ATTESTATION: Final = re.compile(rb'"x-anthropic-billing-header:[^"]*\bcch=')
# The usual types of blocks, as JSON; any other is decoded.
_TYPES: Final = {
    b'"text"': "text",
    b'"tool_use"': "tool_use",
    b'"tool_result"': "tool_result",
    b'"thinking"': "thinking",
}
_LISTED: Final = b'"content":['
_NEAR: Final = 64
_OF_MESSAGE: Final = frozenset({"role", "content", MARKER})
_OF_IMAGE: Final = frozenset({"type", "source", MARKER})
_OF_DOCUMENT: Final = frozenset({"type", "source", "title", "context", MARKER})
# Edits of the history by the server; keeping or clearing thinking changes nothing of ours.
_SERVER_EDITS: Final = re.compile(rb'"(?:compact|clear_tool_uses)_\d+"')
# Before it was JSON, Claude Code wrote device, account and session in one line.
_OLDER_USER: Final = re.compile(r"user_(\w{16,})_account_([0-9a-fA-F-]{36})_session_")
_SHAPE: Final = (400, 422)
_TOO_LONG: Final = re.compile(
    rb"prompt is too long[^0-9]*(\d+)\s*tokens?\s*>\s*(\d+)", re.IGNORECASE
)
_TOO_LONG_WITH_OUTPUT: Final = re.compile(
    rb"exceed context limit[^0-9]*(\d+)\s*\+\s*(\d+)\s*>\s*(\d+)", re.IGNORECASE
)
# "Input is too long for requested model." is Bedrock's.
_TOO_LONG_UNSIZED: Final = re.compile(rb"prompt is too long|input is too long for", re.IGNORECASE)
_NOT_SHAPE: Final = re.compile(
    rb"(?:prompt|input) is too long|exceed context limit|credit balance is too low"
    rb"|(?:invalid|incorrect) (?:x-)?api.?key",
    re.IGNORECASE,
)


def recognises(path: str) -> bool:
    """Whether a POST to this path is for Messages (batches and the like are not)."""
    return path.endswith(("/v1/messages", _COUNT)) or _ELSEWHERE.search(path) is not None


def model_in_path(path: str) -> str:
    """The model that Bedrock's path or Vertex's names, decoded."""
    found = _ELSEWHERE.search(path)
    return unquote(found[1] or found[2]) if found else ""


def read(body: bytes, elements: Elements = spans.elements, /) -> Request:
    """Find the messages and what decides about them.

    Raises:
        Unreadable: not a Messages request, or one that readers could take in two ways.
    """
    return spans.tolerant(body, partial(_read, elements))


def _read(elements: Elements, text: bytes, body: bytes) -> Request:
    fields = spans.unique(text, outer(text), _DECIDING)
    if "messages" not in fields or not {"model", "anthropic_version"} & set(fields):
        raise Unreadable("no messages or no model")
    system = fields.get("system")
    managed = text[slice(*fields.get("context_management", Span(0, 0)))]
    head = text[system.start : system.start + 2_000] if system else b""
    betas = text[slice(*fields.get("anthropic_beta", Span(0, 0)))]
    return Request(
        body=body,
        model=text_of(text, fields["model"]) if "model" in fields else "",
        array=fields["messages"],
        spans=messages_in(elements, text, fields["messages"]),
        system=system,
        tools=fields["tools"] if "tools" in fields and is_array(text, fields["tools"]) else None,
        max_output=number_of(text, fields.get("max_tokens")),
        stream=is_true(text, fields.get("stream")),
        attested=_ATTESTATION.search(head) is not None,
        edited_by_server=_SERVER_EDITS.search(managed) is not None,
        window=_LONG if b"context-1m" in betas else None,
        sender=fields.get("metadata"),
        choice=fields.get("tool_choice"),
        thinks=_is_told_to_think(text, nested(text, fields, "thinking", "type")),
        schema=nested(text, fields, "output_config", "format") or fields.get("output_format"),
    )


def _is_told_to_think(text: bytes, span: Span | None) -> bool:
    """Whether thinking is on. Models that decide for themselves ("adaptive") are told nothing."""
    return span is not None and text[slice(*span)] == b'"enabled"'


def parse(raw: bytes) -> Message:
    """Read one message.

    Raises:
        Unreadable: not a message of this API.
    """
    return spans.tolerant(raw, _parse)


def _parse(text: bytes, raw: bytes) -> Message:
    # Nearly all are written so; where not, this is only the quicker way to the same.
    found = spans.packed_blocks(text) if text.find(_LISTED, 0, _NEAR) > 0 else None
    fields, blocks, texts = found or (spans.unique(text, outer(text)), [], {})
    if "role" not in fields or "content" not in fields:
        raise Unreadable("a message without role or content")
    role = texts.get("role") or text_of(text, fields["role"])
    content = fields["content"]
    if is_string(text, content):
        said = text_of(text, content)
        kind = _text_kind(role, said)
        parts = [Part(kind, said, content, content, digest=string_digest(raw, content))]
    elif blocks:
        parts = [_block(text, raw, role, span, own) for span, own in blocks]
    else:
        parts = [
            _block(text, raw, role, span, spans.unique(text, span))
            for span in spans.elements(text, content)
        ]
    rest = others(raw, fields, _OF_MESSAGE) if len(fields) > 2 else []
    return Message(
        role=role,
        parts=tuple(parts),
        digest=message_digest(role, parts, rest),
        markers=sum(part.marked for part in parts) + (MARKER in fields),
        editable=not rest and role in ("user", "assistant") and text is raw,
    )


def standing(path: str, headers: Mapping[str, str], request: Request) -> tuple[Standing, str]:
    """Claude Code names its requests; `count_tokens` asks about a conversation."""
    if path.endswith((_COUNT, _VERTEX_COUNT)):
        return Standing.NO_TURN, "count_tokens"
    named = headers.get("x-claude-code-request-class", "main")
    if named == "compaction":
        return Standing.NO_TURN, "the client's own compaction"
    if named != "main":
        return Standing.ALONE, "the client's own side request"
    if request.edited_by_server:
        return Standing.NO_TURN, "the provider edits this history itself"
    return standing_by_prompt(request, request.system) or (Standing.TURN, "")


def model_name(headers: Mapping[str, str], request: Request) -> str:
    """The model, marked where the client asks for the window of a million tokens."""
    long = "context-1m" in headers.get("anthropic-beta", "")
    return f"{request.model}[1m]" if long else request.model


def principal(path: str, request: Request) -> str:
    """The account and the device that Claude Code names, or on Vertex the project.

    `metadata.user_id` has them. Its logins' access tokens change every few hours and say nothing
    of who holds them. The session, which stands there too, is left out: a resumed conversation
    gets another one.
    """
    if project := vertex_project(path):
        return project
    try:
        metadata = spans.value(request.body, request.sender) if request.sender else None
    except Unreadable:  # a lone surrogate: it is the provider that decides on that
        return ""
    named = metadata.get("user_id") if isinstance(metadata, dict) else None
    if isinstance(named, str) and (older := _OLDER_USER.match(named)):
        return f"{older[2]} {older[1]}"
    try:
        user = msgspec.json.decode(named) if isinstance(named, str) else None
    except (msgspec.MsgspecError, RecursionError):
        return ""
    if not isinstance(user, dict):
        return ""
    account, device = user.get("account_uuid"), user.get("device_id")
    if not (isinstance(account, str) and isinstance(device, str) and account and device):
        return ""
    return f"{account} {device}"


def user_message(text: str) -> bytes:
    """A user's message that holds this text."""
    return b'{"role":"user","content":[{"type":"text","text":' + quoted(text) + b"}]}"


def replacement(value: bytes, text: str) -> bytes:
    """The text in place of a text or a tool result's content, keeping a cache marker inside."""
    marker = _nested_marker(value) if value[:1] == b"[" else b""
    if not marker:
        return quoted(text)
    return b'[{"type":"text","text":' + quoted(text) + b',"cache_control":' + marker + b"}]"


def usage_of(event: Mapping[str, Any]) -> Usage | None:
    """Usage of a plain answer, of `message_start`, or of `message_delta`.

    The window is filled by uncached, cache-read and cache-written input together.
    """
    message = event.get("message")
    usage = message.get("usage") if isinstance(message, dict) else event.get("usage")
    if not isinstance(usage, dict):
        if isinstance(event.get("input_tokens"), int):
            return Usage(input_tokens=event["input_tokens"])
        return None
    if event.get("type") == "message_delta" and usage.get("server_tool_use"):
        # Summed over the rounds of a server's tool: more than ever stood in the window.
        return Usage(output_tokens=usage.get("output_tokens"))
    fresh, read_, written = (
        usage.get(key)
        for key in ("input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")
    )
    whole = None if fresh is None else fresh + (read_ or 0) + (written or 0)
    return Usage(whole, usage.get("output_tokens"), read_, written)


def refuses_shape(status: int, body: bytes) -> bool:
    """Whether an answer refuses how the request is built, and not its length or its payer."""
    return status in _SHAPE and body[:1] == b"{" and _NOT_SHAPE.search(body) is None


def refuses_length(status: int, body: bytes) -> TooLong | None:
    """Whether an answer refuses a request as too long: "prompt is too long: A tokens > B maximum".

    With input and output together it reads "exceed context limit: A + B > C".
    """
    if status not in (*_SHAPE, 413):
        return None
    if found := _TOO_LONG.search(body):
        return TooLong(int(found[1]), int(found[2]))
    if found := _TOO_LONG_WITH_OUTPUT.search(body):
        return TooLong(int(found[1]), int(found[3]))
    return TooLong() if _TOO_LONG_UNSIZED.search(body) else None


def _text_kind(role: str, text: str) -> Kind:
    if role == "user":
        return kind_of_user_text(text)
    return Kind.PROSE if role == "assistant" else Kind.SYSTEM


def _block(text: bytes, raw: bytes, role: str, span: Span, fields: dict[str, Span]) -> Part:
    if "type" not in fields:
        raise Unreadable("a content block without type")
    name = _TYPES.get(text[slice(*fields["type"])]) or text_of(text, fields["type"])
    digest = block_digest(text, raw, fields)
    marked = MARKER in fields
    if name == "text" and "text" in fields and len(fields) == 2 + marked:
        said = text_of(text, fields["text"])
        return Part(
            _text_kind(role, said), said, span, fields["text"], digest=digest, marked=marked
        )
    if name == "tool_use" and {"id", "name", "input"} <= set(fields):
        called = text_of(text, fields["name"])
        given = text[slice(*fields["input"])].decode()
        return Part(
            Kind.CALL,
            f"{called} {given}",
            span,
            call_id=text_of(text, fields["id"]),
            name=called,
            digest=digest,
            marked=marked,
        )
    if name == "tool_result" and "tool_use_id" in fields:
        said, pictures, value = _result(text, fields.get("content"))
        return Part(
            Kind.RESULT,
            said,
            span,
            value,
            call_id=text_of(text, fields["tool_use_id"]),
            images=len(pictures),
            digest=digest,
            marked=marked,
            pictures=pictures,
        )
    if name in ("thinking", "redacted_thinking"):
        said = text_of(text, fields["thinking"]) if "thinking" in fields else ""
        return Part(Kind.THINKING, said, span, digest=digest, marked=marked, removable=not marked)
    if name == "image":
        shown = (picture_behind(text, fields, "source", "data"),)
        value = span if set(fields) <= _OF_IMAGE else None
        return Part(
            Kind.IMAGE, "", span, value, images=1, digest=digest, marked=marked, pictures=shown
        )
    said = without_media(text, span)
    if name == "document":
        # What may be cited stays: citations count documents.
        value = span if set(fields) <= _OF_DOCUMENT else None
        return Part(Kind.DOCUMENT, said, span, value, digest=digest, marked=marked)
    return Part(Kind.OPAQUE, said, span, digest=digest, marked=marked)


def _result(text: bytes, content: Span | None) -> tuple[str, tuple[Picture, ...], Span | None]:
    """A tool result's text, the images in it, and the value that a stub may replace."""
    if content is None or is_null(text, content):
        return "", (), None
    if is_string(text, content):
        return text_of(text, content), (), content
    if not is_array(text, content):
        raise Unreadable("a tool result without content")
    said: list[str] = []
    pictures: list[Picture] = []
    known = True
    for span in spans.elements(text, content):
        fields = spans.unique(text, span)
        name = text_of(text, fields["type"]) if "type" in fields else ""
        if name == "text" and "text" in fields:
            said.append(text_of(text, fields["text"]))
            known &= set(fields) <= {"type", "text", MARKER}
        elif name == "image":
            pictures.append(picture_behind(text, fields, "source", "data"))
            known &= set(fields) <= _OF_IMAGE
        else:
            said.append(without_media(text, span))
            known = False
    return "\n".join(said), tuple(pictures), content if known else None


def _nested_marker(value: bytes) -> bytes:
    found = b""
    for span in spans.elements(value, Span(0, len(value))):
        fields = dict(spans.members(value, span))
        if MARKER in fields:
            found = value[slice(*fields[MARKER])]
    return found


MESSAGES: Final = Api(
    name="Anthropic Messages",
    recognises=recognises,
    read=read,
    parse=parse,
    standing=standing,
    model_name=model_name,
    user_message=user_message,
    replacement=replacement,
    text_block=typed_block,
    usage_of=usage_of,
    refuses_shape=refuses_shape,
    refuses_length=refuses_length,
    asking=ASKING,
    model_in_path=model_in_path,
    principal=principal,
)
