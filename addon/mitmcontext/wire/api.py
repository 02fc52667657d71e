"""What every API module provides, and what several of them provide alike."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol

import msgspec

from mitmcontext.values import (
    MEDIA,
    Broken,
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
from mitmcontext.wire.asking import Asking
from mitmcontext.wire.digests import MARKER, digest
from mitmcontext.wire.places import Elements, is_null, is_object, is_string, quoted, text_of

_PROJECT: Final = re.compile(r"/projects/([\w.:-]{1,100})/locations/")
_HOUR: Final = (b'"ttl":"1h"', b'"ttl": "1h"')


class Read(Protocol):
    """How an API's requests are read."""

    def __call__(self, body: bytes, elements: Elements = spans.elements, /) -> Request:
        """Find the messages of a body, and what decides about them."""


def _nothing(_: object) -> str:
    return ""


def _nobody(_: str, __: Request) -> str:
    return ""


def _no_block(_: bytes, __: str) -> bytes:
    raise Broken("a block in an API that has none")


def vertex_project(path: str) -> str:
    """The Google project that a path of Vertex names; "" where it names none.

    Google's access tokens last an hour, and one that may not use the project is refused.
    """
    found = _PROJECT.search(path)
    return f"project {found[1]}" if found else ""


class Api(msgspec.Struct, frozen=True):
    """One provider's API: everything that differs from vendor to vendor.

    Attributes:
        name: as shown to people.
        recognises: whether a POST to this path (without its query) may be read by this API.
        read: (body, how to find the elements of the messages' array) to `Request`; raises
            `Unreadable`.
        parse: the bytes of one message to `Message`; raises `Unreadable`.
        standing: (path, headers in lower case, request) to what the request is to its
            conversation, and why where it is no turn.
        model_name: (headers in lower case, request) to the model's name as tables of windows have
            it: some clients ask for a larger window beside the name.
        user_message: the bytes of a user's message that holds this text.
        between: the bytes of an assistant's message to part a message of ours from a user's, where
            an API refuses two of one role in a row; b"" where it does not mind.
        replacement: (bytes of the value, text) to the bytes that put the text in its place.
        text_block: (bytes of an image's or a document's block, text) to a block of text in its
            place; for an API in which such parts are no blocks it raises `Broken`.
        usage_of: one decoded answer, or one event of a streamed one, to what it reports.
        refuses_shape: (status, body) of an answer: does it refuse how the request is built?
        refuses_length: (status, body) of an answer: the sizes that it names if it refuses the
            request as too long for the window, else None.
        model_in_path: the model that a path names, where the body names none; else "".
        principal: (path, request) to what they say of the account that sends it, where a
            client's access tokens change in mid-session and say nothing; else "".
        asking: how a model is asked a question of ours; None where that cannot be.
    """

    name: str
    recognises: Callable[[str], bool]
    read: Read
    parse: Callable[[bytes], Message]
    standing: Callable[[str, Mapping[str, str], Request], tuple[Standing, str]]
    model_name: Callable[[Mapping[str, str], Request], str]
    user_message: Callable[[str], bytes]
    replacement: Callable[[bytes, str], bytes]
    usage_of: Callable[[Mapping[str, Any]], Usage | None]
    refuses_shape: Callable[[int, bytes], bool]
    refuses_length: Callable[[int, bytes], TooLong | None]
    between: bytes = b""
    text_block: Callable[[bytes, str], bytes] = _no_block
    model_in_path: Callable[[str], str] = _nothing
    principal: Callable[[str, Request], str] = _nobody
    asking: Asking | None = None

    def in_place_of(self, part: Part, value: bytes, text: str) -> bytes:
        """The bytes that put a text in the place of a part's value."""
        put = self.text_block if part.kind in MEDIA else self.replacement
        return put(value, text)


def message_of(api: Api, raw: bytes) -> Message:
    """One message, read; one that is odd is kept whole, as an opaque item.

    A client's odd message must not cost the conversation what is frozen of it.
    """
    try:
        return api.parse(raw)
    except Unreadable:
        said = raw.decode("utf-8", "replace")
        part = Part(Kind.OPAQUE, said, Span(0, len(raw)), digest=digest([raw]))
        return Message("", (part,), digest([b"odd", raw]), editable=False)


def asks_for_an_hour(body: bytes, start: int, end: int) -> bool:
    """Whether a cache marker in this part of a body asks for an hour in the provider's cache.

    In a text the quotes would be escaped, so that what is found is a marker's.
    """
    if body.find(b'"1h"', start, end) < 0:
        return False
    return any(body.find(sign, start, end) >= 0 for sign in _HOUR)


def model_as_read(headers: Mapping[str, str], request: Request) -> str:
    """The model as the request names it."""
    return request.model


def users_text(text: str) -> bytes:
    """A user's message whose content is this text."""
    return b'{"role":"user","content":' + quoted(text) + b"}"


def as_string(value: bytes, text: str) -> bytes:
    """The text in place of a string."""
    return quoted(text)


def untyped_block(block: bytes, text: str) -> bytes:
    """A block of text in place of another one, where blocks have no type."""
    return b'{"text":' + quoted(text) + b"}"


def typed_block(block: bytes, text: str, name: bytes = b"text") -> bytes:
    """A block of text, by the name of its type, that keeps the cache marker of another block."""
    marker = dict(spans.members(block, Span(0, len(block)))).get(MARKER)
    kept = b',"cache_control":' + block[slice(*marker)] if marker else b""
    return b'{"type":"' + name + b'","text":' + quoted(text) + kept + b"}"


def system_texts(request: Request) -> list[tuple[bytes, str]]:
    """The pieces of a system prompt beside the messages: bytes to recognise each by, and its text.

    Raises:
        Unreadable: what stands there is neither text nor blocks.
    """
    if request.system is None or is_null(request.body, request.system):
        return []
    return spans.tolerant(request.body[slice(*request.system)], _system_texts)


def _system_texts(text: bytes, raw: bytes) -> list[tuple[bytes, str]]:
    whole = Span(0, len(text))
    if is_string(text, whole):
        return [(raw, text_of(text, whole))]
    if is_object(text, whole):
        parts = spans.unique(text, whole).get("parts")
        if parts is None:
            raise Unreadable("a system prompt without parts")
        whole = parts
    found = []
    for span in [whole] if is_object(text, whole) else spans.elements(text, whole):
        fields = spans.unique(text, span)
        said = text_of(text, fields["text"]) if "text" in fields else text[slice(*span)].decode()
        found.append((raw[slice(*fields.get("text", span))], said))
    return found


def tool_count(request: Request) -> int:
    """How many tools a request offers.

    Raises:
        Unreadable: what stands there is no list.
    """
    if request.tools is None or is_null(request.body, request.tools):
        return 0
    tools = request.body[slice(*request.tools)]
    return spans.tolerant(tools, lambda text, _: len(spans.elements(text, Span(0, len(text)))))
