"""Ollama's own API: `POST .../api/chat` and `.../api/generate`, over plain HTTP and without a key.

Its server refuses no request for its length. It leaves out the oldest messages, tells nobody, and
answers, so here condensing is what keeps the beginning of a conversation. Its window is what the
request asks for (`options.num_ctx`), input and output together; where it asks for none the server
decides, by the memory that it has (4,096 tokens on a small machine), and nothing tells how.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from typing import Any, Final

from msgspec.structs import replace

from mitmcontext.values import (
    Kind,
    Message,
    Part,
    Request,
    Span,
    Standing,
    TooLong,
    Unreadable,
    Usage,
)
from mitmcontext.wire import spans
from mitmcontext.wire.api import Api, as_string, model_as_read, users_text
from mitmcontext.wire.calls import called
from mitmcontext.wire.digests import block_digest, digest, message_digest, others, string_digest
from mitmcontext.wire.pictures import picture
from mitmcontext.wire.places import (
    Elements,
    is_array,
    is_null,
    is_object,
    is_string,
    messages_in,
    number_of,
    optional_text,
    outer,
    text_of,
)
from mitmcontext.wire.questions.ollama import ASKING
from mitmcontext.wire.side import standing_of_chat
from mitmcontext.wire.typed import kind_of_text, kind_of_user_text

_DECIDING: Final = (
    "model",
    "messages",
    "prompt",
    "context",
    "images",
    "system",
    "tools",
    "options",
    "stream",
)
_OPTIONS: Final = ("num_ctx", "num_predict")
_ROLES: Final = ("system", "user", "assistant", "tool")
# A result follows its call by order alone; some versions give ids, and not all clients send them.
_TICKET: Final = "by order"
_READ: Final = ("role", "content", "thinking", "images", "tool_calls")
_KNOWN: Final = (*_READ, "tool_name", "tool_call_id", "name")
# One token of the vocabularies that we count with, however often it is repeated.
_ONE: Final = " ."
_LENGTH: Final = re.compile(
    rb"longer than the context length|exceeds? the (?:available )?context"
    rb"|exceed(?:ed)? max(?:imum)? context length|exceed_context_size",
    re.IGNORECASE,
)
_SIZES: Final = re.compile(
    rb"request \((\d+) tokens?\) exceeds the available context size \((\d+) tokens?\)",
    re.IGNORECASE,
)


def recognises_chat(path: str) -> bool:
    """Whether a POST to this path is for a chat, under whatever prefix."""
    return path.endswith("/api/chat")


def recognises_generate(path: str) -> bool:
    """Whether a POST to this path is for a completion, under whatever prefix."""
    return path.endswith("/api/generate")


def read_chat(body: bytes, elements: Elements = spans.elements, /) -> Request:
    """Find the messages and what decides about them.

    Raises:
        Unreadable: not a chat request (one without messages only loads the model), or one that
            readers could take in two ways.
    """
    return spans.tolerant(body, partial(_read_chat, elements))


def _read_chat(elements: Elements, text: bytes, body: bytes) -> Request:
    fields = spans.unique(text, outer(text), _DECIDING)
    if "messages" not in fields or is_null(text, fields["messages"]):
        raise Unreadable("no messages")
    array = fields["messages"]
    return _request(text, body, fields, array, messages_in(elements, text, array))


def read_generate(body: bytes, elements: Elements = spans.elements, /) -> Request:
    """Find the prompt, its images, and the history in `context`: the tokens of an earlier answer.

    Each is read as a message: the prompt as the string that it is, the others as their arrays.

    Raises:
        Unreadable: there is no prompt (such a request loads the model), or one that readers could
            take in two ways.
    """
    return spans.tolerant(body, _read_generate)


def _read_generate(text: bytes, body: bytes) -> Request:
    fields = spans.unique(text, outer(text), _DECIDING)
    if "prompt" not in fields or not optional_text(text, fields["prompt"]):
        raise Unreadable("no prompt")
    prompt = fields["prompt"]
    lists = {
        name: fields[name]
        for name in ("context", "images")
        if name in fields and not is_null(text, fields[name])
    }
    if not all(is_array(text, span) for span in lists.values()):
        raise Unreadable("a list that is none")
    found = _request(text, body, fields, prompt, (*lists.values(), prompt))
    return replace(found, hidden="context" in lists)


def _request(
    text: bytes, body: bytes, fields: Mapping[str, Span], array: Span, found: tuple[Span, ...]
) -> Request:
    if "model" not in fields:
        raise Unreadable("no model")
    window, output = _sizes(text, fields.get("options"))
    system, tools = fields.get("system"), fields.get("tools")
    stream = fields.get("stream")
    return Request(
        body=body,
        model=text_of(text, fields["model"]),
        array=array,
        spans=found,
        system=system if system is not None and is_string(text, system) else None,
        tools=tools if tools is not None and is_array(text, tools) else None,
        max_output=output,
        # It streams unless told not to.
        stream=stream is None or text[slice(*stream)] != b"false",
        window=window,
        schema=fields.get("format"),
    )


def _sizes(text: bytes, options: Span | None) -> tuple[int | None, int | None]:
    """`num_ctx` and `num_predict`, where they are sizes: -1 and -2 mean "no limit"."""
    if options is None or not is_object(text, options):
        return None, None
    fields = spans.unique(text, options, _OPTIONS)
    sizes = [number_of(text, fields.get(name)) for name in _OPTIONS]
    window, output = (size if size is not None and size > 0 else None for size in sizes)
    return window, output


def parse_chat(raw: bytes) -> Message:
    """Read one message.

    Raises:
        Unreadable: not a message of this API.
    """
    return spans.tolerant(raw, _parse_chat)


def _parse_chat(text: bytes, raw: bytes) -> Message:
    fields = spans.unique(text, outer(text))
    # Its server takes roles in any case.
    role = text_of(text, fields["role"]).lower() if "role" in fields else ""
    if role not in _ROLES:
        raise Unreadable("a message with a role that is not known")
    parts = [
        *_thinking(text, raw, fields.get("thinking")),
        *_content(text, raw, role, fields.get("content")),
        *_images(text, raw, fields.get("images")),
        *_calls(text, raw, fields.get("tool_calls")),
    ]
    return Message(
        role=role,
        parts=tuple(parts),
        digest=message_digest(role, parts, others(raw, fields, _READ)),
        editable=text is raw and set(fields) <= set(_KNOWN),
    )


def parse_generate(raw: bytes) -> Message:
    """Read a prompt, its images, or a history of tokens: nothing in any may be shortened.

    Raises:
        Unreadable: neither a string nor a list.
    """
    return spans.tolerant(raw, _parse_generate)


def _parse_generate(text: bytes, raw: bytes) -> Message:
    place = outer(text)
    if is_string(text, place):
        said = text_of(text, place)
        parts = [Part(kind_of_user_text(said), said, place, digest=string_digest(raw, place))]
    elif any(is_string(text, span) for span in spans.elements(text, place)[:1]):
        parts = _images(text, raw, place)
    else:
        # Each number is a token of the model's own; nothing here knows what it says.
        tokens = len(spans.elements(text, place))
        parts = [Part(Kind.OPAQUE, _ONE * tokens, place, digest=digest([raw]))]
    return Message("user", tuple(parts), message_digest("user", parts), editable=False)


def standing_generate(
    path: str, headers: Mapping[str, str], request: Request
) -> tuple[Standing, str]:
    """A history of tokens is counted and never touched."""
    if request.hidden:
        return Standing.NO_TURN, "its history is in tokens (context)"
    return Standing.TURN, ""


def usage_of(event: Mapping[str, Any]) -> Usage | None:
    """Usage of a plain answer, or of the last line of a streamed one (`"done": true`).

    `prompt_eval_count` is handed on as it is, though some versions leave out of it what they had
    cached; `Calibration` takes no figure for telling that lies far below the estimate.
    """
    read, written = (event.get(key) for key in ("prompt_eval_count", "eval_count"))
    if not event.get("done") or (read is None and written is None):
        return None
    return Usage(read, written)


def refuses_shape(status: int, body: bytes) -> bool:
    """Whether an answer refuses how the request is built: a 400, and not for its length."""
    return status == 400 and body[:1] == b"{" and _LENGTH.search(body) is None


def refuses_length(status: int, body: bytes) -> TooLong | None:
    """Whether an answer refuses a request as too long, as it does with `"truncate": false`.

    Its newer runner says "request (A tokens) exceeds the available context size (B tokens)".
    """
    if status not in (400, 413) or _LENGTH.search(body) is None:
        return None
    found = _SIZES.search(body)
    return TooLong(int(found[1]), int(found[2])) if found else TooLong()


def _thinking(text: bytes, raw: bytes, place: Span | None) -> list[Part]:
    said = optional_text(text, place)
    if place is None or not said:
        return []
    return [Part(Kind.THINKING, said, place, digest=block_digest(text, raw, {"thinking": place}))]


def _content(text: bytes, raw: bytes, role: str, place: Span | None) -> list[Part]:
    ticket = _TICKET if role == "tool" else ""
    if place is None or is_null(text, place):
        # A result without text answers its call all the same.
        return [Part(Kind.RESULT, "", place or Span(0, 0), call_id=ticket)] if ticket else []
    said = text_of(text, place)
    kind = kind_of_text(role, said)
    return [Part(kind, said, place, place, call_id=ticket, digest=string_digest(raw, place))]


def _images(text: bytes, raw: bytes, place: Span | None) -> list[Part]:
    if place is None or is_null(text, place):
        return []
    return [
        Part(
            Kind.IMAGE,
            "",
            span,
            images=1,
            digest=digest([b"image", raw[slice(*span)]]),
            pictures=(picture(text, span),),
        )
        for span in spans.elements(text, place)
    ]


def _calls(text: bytes, raw: bytes, place: Span | None) -> list[Part]:
    if place is None or is_null(text, place):
        return []
    found = []
    for span in spans.elements(text, place):
        call = spans.unique(text, span)
        if "function" not in call:
            raise Unreadable("a tool call without function")
        name, said = called(text, call["function"])
        own = block_digest(text, raw, call)
        found.append(Part(Kind.CALL, said, span, call_id=_TICKET, name=name, digest=own))
    return found


CHAT: Final = Api(
    name="Ollama chat",
    recognises=recognises_chat,
    read=read_chat,
    parse=parse_chat,
    standing=standing_of_chat,
    model_name=model_as_read,
    user_message=users_text,
    replacement=as_string,
    usage_of=usage_of,
    refuses_shape=refuses_shape,
    refuses_length=refuses_length,
    asking=ASKING,
)

GENERATE: Final = replace(
    CHAT,
    name="Ollama generate",
    recognises=recognises_generate,
    read=read_generate,
    parse=parse_generate,
    standing=standing_generate,
    asking=None,
)
