"""Amazon Bedrock's Converse: `POST .../model/{id}/converse` and `.../converse-stream`.

The path names the model, percent-encoded: an id, or the resource name of a profile or deployment.
A block has no `type`: it is an object with a single key. `cachePoint` is a block too, but only
marks where the provider's cache may cut, and clients move it from turn to turn, so that here it is
no part of a message. Two messages of one role in a row are refused.

InvokeModel, whose bodies are those of each model's vendor, is in `anthropic`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from typing import Any, Final
from urllib.parse import unquote

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
from mitmcontext.wire.api import Api, model_as_read, untyped_block
from mitmcontext.wire.digests import block_digest, message_digest, others
from mitmcontext.wire.pictures import picture_behind
from mitmcontext.wire.places import (
    Elements,
    is_array,
    is_null,
    is_string,
    messages_in,
    nested,
    number_of,
    outer,
    quoted,
    text_of,
    without_media,
)
from mitmcontext.wire.questions.bedrock import ASKING
from mitmcontext.wire.side import standing_by_prompt
from mitmcontext.wire.typed import kind_of_text

_PATH: Final = re.compile(r"/model/(.+)/converse(?:-stream)?\Z")
_DECIDING: Final = ("messages", "system", "toolConfig", "inferenceConfig")
_MARKER: Final = "cachePoint"
_ROLES: Final = ("user", "assistant")
_OF_DOCUMENT: Final = frozenset({"format", "name", "source", "context"})
_SHAPE: Final = (400, 422)
# Converse speaks for itself or hands on what the model's own server said.
_TOO_LONG: Final = re.compile(
    rb"input is too long|prompt is too long|exceed context limit|input tokens exceeded"
    rb"|number of input tokens exceeds|maximum context length|too large for model with",
    re.IGNORECASE,
)
_SENT: Final = re.compile(
    rb"prompt is too long[^0-9]{0,20}(\d+)|exceed context limit[^0-9]{0,20}(\d+)"
    rb"|prompt contains (\d+) tokens",
    re.IGNORECASE,
)
_WINDOW: Final = re.compile(
    rb"tokens? > (\d+) maximum|exceed context limit[^>]{0,40}> (\d+)"
    rb"|maximum context length is (\d+)|model with (\d+) maximum",
    re.IGNORECASE,
)


def recognises(path: str) -> bool:
    """Whether a POST to this path is for Converse, plain or streamed."""
    return _PATH.search(path) is not None


def model_in_path(path: str) -> str:
    """The model's id or resource name, decoded."""
    found = _PATH.search(path)
    return unquote(found[1]) if found else ""


def read(body: bytes, elements: Elements = spans.elements, /) -> Request:
    """Find the messages and what decides about them.

    Raises:
        Unreadable: not a Converse request, or one that readers could take in two ways.
    """
    return spans.tolerant(body, partial(_read, elements))


def _read(elements: Elements, text: bytes, body: bytes) -> Request:
    fields = spans.unique(text, outer(text), _DECIDING)
    if "messages" not in fields:
        raise Unreadable("no messages")
    settings = _inside(text, fields.get("inferenceConfig"))
    tools = _inside(text, fields.get("toolConfig")).get("tools")
    return Request(
        body=body,
        model="",
        array=fields["messages"],
        spans=messages_in(elements, text, fields["messages"]),
        system=fields.get("system"),
        tools=tools if tools is not None and is_array(text, tools) else None,
        max_output=number_of(text, settings.get("maxTokens")),
        choice=nested(text, fields, "toolConfig", "toolChoice"),
    )


def _inside(text: bytes, place: Span | None) -> dict[str, Span]:
    if place is None or is_null(text, place):
        return {}
    return spans.unique(text, place)


def parse(raw: bytes) -> Message:
    """Read one message.

    Raises:
        Unreadable: not a message of this API.
    """
    return spans.tolerant(raw, _parse)


def _parse(text: bytes, raw: bytes) -> Message:
    fields = spans.unique(text, outer(text))
    role = text_of(text, fields["role"]) if "role" in fields else ""
    if role not in _ROLES or "content" not in fields:
        raise Unreadable("a message without content, or with a role that is not known")
    parts: list[Part] = []
    markers = 0
    for span in spans.elements(text, fields["content"]):
        block = spans.unique(text, span)
        if set(block) == {_MARKER}:
            markers += 1
        else:
            parts.append(_block(text, raw, role, span, block))
    rest = others(raw, fields, ("role", "content"))
    return Message(
        role=role,
        parts=tuple(parts),
        digest=message_digest(role, parts, rest),
        markers=markers,
        editable=text is raw and not rest,
    )


def standing(path: str, headers: Mapping[str, str], request: Request) -> tuple[Standing, str]:
    """Clients of this API say only in a prompt's first words what is a request on the side."""
    return standing_by_prompt(request, request.system) or (Standing.TURN, "")


def user_message(text: str) -> bytes:
    """A user's message that holds this text."""
    return b'{"role":"user","content":[{"text":' + quoted(text) + b"}]}"


def replacement(value: bytes, text: str) -> bytes:
    """The text in place of a text, or of a tool result's content."""
    return b'[{"text":' + quoted(text) + b"}]" if value[:1] == b"[" else quoted(text)


def usage_of(event: Mapping[str, Any]) -> Usage | None:
    """Usage of a plain answer, or of the event `metadata`, decoded.

    The window is filled by uncached, cache-read and cache-written input together.
    """
    usage = event.get("usage")
    if not isinstance(usage, dict):
        return None
    fresh, written, read_, kept = (
        found if isinstance(found := usage.get(key), int) else None
        for key in ("inputTokens", "outputTokens", "cacheReadInputTokens", "cacheWriteInputTokens")
    )
    whole = None if fresh is None else fresh + (read_ or 0) + (kept or 0)
    return Usage(whole, written, read_, kept)


def refuses_shape(status: int, body: bytes) -> bool:
    """Whether an answer refuses how the request is built, and not its length."""
    return status in _SHAPE and body[:1] == b"{" and _TOO_LONG.search(body) is None


def refuses_length(status: int, body: bytes) -> TooLong | None:
    """Whether an answer refuses a request as too long: most of the time it names no size.

    "Input is too long for requested model.", or "... prompt is too long: A tokens > B maximum".
    """
    if status not in (*_SHAPE, 413) or _TOO_LONG.search(body) is None:
        return None
    sent, window = _SENT.search(body), _WINDOW.search(body)
    return TooLong(
        *(int(next(filter(None, found.groups()))) if found else None for found in (sent, window))
    )


def _block(text: bytes, raw: bytes, role: str, span: Span, block: Mapping[str, Span]) -> Part:
    own = block_digest(text, raw, block)
    name = next(iter(block)) if len(block) == 1 else ""
    held = block.get(name, span)
    match name:
        case "text":
            said = text_of(text, held)
            return Part(kind_of_text(role, said), said, span, held, digest=own)
        case "toolUse":
            return _call(text, spans.unique(text, held), span, own)
        case "toolResult":
            return _result(text, spans.unique(text, held), span, own)
        case "reasoningContent":
            return Part(Kind.THINKING, _reasoning(text, held), span, digest=own, removable=True)
        case "image":
            shown = (picture_behind(text, block, "image", "source", "bytes"),)
            return Part(Kind.IMAGE, "", span, span, images=1, digest=own, pictures=shown)
        case "document":
            # What may be cited stays: citations count documents.
            value = span if set(spans.unique(text, held)) <= _OF_DOCUMENT else None
            return Part(Kind.DOCUMENT, without_media(text, span), span, value, digest=own)
        case _:
            return Part(Kind.OPAQUE, without_media(text, span), span, digest=own)


def _call(text: bytes, call: Mapping[str, Span], span: Span, own: bytes) -> Part:
    if not {"toolUseId", "name", "input"} <= set(call):
        raise Unreadable("a tool call without id, name or input")
    name = text_of(text, call["name"])
    said = f"{name} {text[slice(*call['input'])].decode()}"
    id_ = text_of(text, call["toolUseId"])
    return Part(Kind.CALL, said, span, call_id=id_, name=name, digest=own)


def _result(text: bytes, result: Mapping[str, Span], span: Span, own: bytes) -> Part:
    """A tool's result of texts, JSON and images may be shortened; what else it holds keeps it."""
    if "toolUseId" not in result or "content" not in result:
        raise Unreadable("a tool result without id or content")
    content = result["content"]
    said: list[str] = []
    pictures: list[Picture] = []
    known = True
    for place in spans.elements(text, content):
        block = spans.unique(text, place)
        if set(block) == {"text"}:
            said.append(text_of(text, block["text"]))
        elif set(block) == {"json"}:
            said.append(text[slice(*block["json"])].decode())
        elif set(block) == {"image"}:
            pictures.append(picture_behind(text, block, "image", "source", "bytes"))
        else:
            known = False
            said.append(without_media(text, place))
    return Part(
        Kind.RESULT,
        "\n".join(said),
        span,
        content if known and (said or pictures) else None,
        call_id=text_of(text, result["toolUseId"]),
        images=len(pictures),
        digest=own,
        pictures=tuple(pictures),
    )


def _reasoning(text: bytes, place: Span) -> str:
    """What was thought; nothing where it is sealed."""
    thought = spans.unique(text, place).get("reasoningText")
    said = spans.unique(text, thought).get("text") if thought is not None else None
    return text_of(text, said) if said is not None and is_string(text, said) else ""


CONVERSE: Final = Api(
    name="Bedrock Converse",
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
    between=(
        b'{"role":"assistant","content":[{"text":"[mitmcontext: earlier messages were condensed'
        b' into a note.]"}]}'
    ),
    model_in_path=model_in_path,
)
