"""What every API module provides, and the small steps that their readers share."""

from __future__ import annotations

import hashlib
import re
import struct
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
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

MARKER: Final = "cache_control"
_PROJECT: Final = re.compile(r"/projects/([\w.:-]{1,100})/locations/")
_LARGEST_NUMBER: Final = 10**12
_BASE64: Final = re.compile(rb'"[A-Za-z0-9+/=]{2000,}"')
_BRACKET: Final = ord("[")
_LENGTH: Final = struct.Struct(">Q").pack
_HOUR: Final = (b'"ttl":"1h"', b'"ttl": "1h"')


Elements = Callable[[bytes, Span], list[Span]]
"""(Text, span of an array) to the spans of its elements."""


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


@dataclass(frozen=True, slots=True)
class Api:
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


def outer(text: bytes) -> Span:
    """The span of a body's only value, without the space around it.

    Raises:
        Unreadable: the body is empty.
    """
    stripped = text.strip(b" \t\r\n")
    if not stripped:
        raise Unreadable("the body is empty")
    start = text.index(stripped[:1])
    return Span(start, start + len(stripped))


def text_of(raw: bytes, span: Span) -> str:
    """The string at `span`.

    Raises:
        Unreadable: something else stands there.
    """
    found = spans.string(raw, span)
    if found is None:
        raise Unreadable("a value is no string where one must be")
    return found


def optional_text(raw: bytes, span: Span | None) -> str:
    """The string at `span`; "" where there is none, or null.

    Raises:
        Unreadable: something else stands there.
    """
    return "" if span is None or is_null(raw, span) else text_of(raw, span)


def messages_in(elements: Elements, text: bytes, array: Span) -> tuple[Span, ...]:
    """The spans of a request's messages.

    Raises:
        Unreadable: there are none, or one of them is no object.
    """
    found = tuple(elements(text, array))
    if not found or not all(is_object(text, span) for span in found):
        raise Unreadable("messages are not objects")
    return found


def is_true(text: bytes, span: Span | None) -> bool:
    """Whether `true` stands at `span`."""
    return span is not None and text[slice(*span)] == b"true"


def without_media(text: bytes, span: Span) -> str:
    """What an item that we do not know counts as: its JSON, base64 data left out."""
    return _BASE64.sub(b'""', text[slice(*span)]).decode()


def nested(text: bytes, fields: Mapping[str, Span], *keys: str) -> Span | None:
    """The value behind some keys, each inside the one before; None where something else stands.

    For what only adds to an estimate: nothing is refused for it.
    """
    found = fields.get(keys[0])
    for key in keys[1:]:
        if found is None or not is_object(text, found):
            return None
        try:
            found = dict(spans.members(text, found)).get(key)
        except Unreadable:
            return None
    return None if found is None or is_null(text, found) else found


def number_of(raw: bytes, span: Span | None) -> int | None:
    """The whole number at `span`, or None where there is none."""
    found = spans.value(raw, span) if span else None
    whole = isinstance(found, int) and not isinstance(found, bool)
    return found if isinstance(found, int) and whole and abs(found) <= _LARGEST_NUMBER else None


def is_object(raw: bytes, span: Span) -> bool:
    """Whether a JSON object stands at `span`."""
    return raw[span.start : span.start + 1] == b"{"


def is_array(raw: bytes, span: Span) -> bool:
    """Whether a JSON array stands at `span`."""
    return raw[span.start : span.start + 1] == b"["


def is_string(raw: bytes, span: Span) -> bool:
    """Whether a JSON string stands at `span`."""
    return raw[span.start : span.start + 1] == b'"'


def is_null(raw: bytes, span: Span) -> bool:
    """Whether null stands at `span`."""
    return raw[span.start : span.end] == b"null"


def quoted(text: str) -> bytes:
    """The text as a JSON string."""
    return msgspec.json.encode(text)


def digest(pieces: Iterable[bytes]) -> bytes:
    """SHA-256 over length-prefixed pieces, so that no two different lists look alike."""
    framed = [part for piece in pieces for part in (_LENGTH(len(piece)), piece)]
    return hashlib.sha256(b"".join(framed)).digest()


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


def block_digest(text: bytes, raw: bytes, fields: Mapping[str, Span]) -> bytes:
    """The digest of one content block, without its cache marker (and without nested ones).

    Args:
        text: `raw` made readable, to find things in.
        raw: the bytes that count.
        fields: the block's fields.
    """
    framed: list[bytes] = []
    for key in sorted(fields):
        if key != MARKER:
            start, end = fields[key]
            if key == "content" and raw[start] == _BRACKET:
                said = content_digest(text, raw, fields[key])
            else:
                said = raw[start:end]
            framed += (_framed(key), _LENGTH(len(said)), said)
    # As `digest` does, of keys and values.
    return hashlib.sha256(b"".join(framed)).digest()


@lru_cache(maxsize=256)
def _framed(key: str) -> bytes:
    named = key.encode()
    return _LENGTH(len(named)) + named


def content_digest(text: bytes, raw: bytes, span: Span) -> bytes:
    """The digest of a list of blocks; that of a single text block equals the bare string's."""
    blocks = [spans.unique(text, block) for block in spans.elements(text, span)]
    if len(blocks) == 1 and set(blocks[0]) - {MARKER} == {"type", "text"}:
        (block,) = blocks
        if raw[slice(*block["type"])] == b'"text"' and is_string(raw, block["text"]):
            return raw[slice(*block["text"])]
    return digest(block_digest(text, raw, fields) for fields in blocks)


def message_digest(role: str, parts: Iterable[Part], rest: Iterable[bytes] = ()) -> bytes:
    """The digest of a message: its role, its parts in order, and what else belongs to it."""
    return digest([role.encode(), *[part.digest for part in parts], b"", *rest])


def others(raw: bytes, fields: Mapping[str, Span], read: Collection[str]) -> list[bytes]:
    """What else than the keys `read` stands in an object, for the digest of a message."""
    return [
        piece
        for key in sorted(fields)
        if key not in read
        for piece in (key.encode(), raw[slice(*fields[key])])
    ]


def called(text: bytes, span: Span) -> tuple[str, str]:
    """The name of a called function, and the name with its arguments as one text.

    Raises:
        Unreadable: no object, or a name that is no string.
    """
    fields = spans.unique(text, span)
    name = optional_text(text, fields.get("name"))
    given = fields.get("arguments") or fields.get("input")
    if given is not None and not is_string(text, given) and not is_null(text, given):
        return name, f"{name} {text[slice(*given)].decode()}"
    return name, f"{name} {optional_text(text, given)}"


def listed_calls(text: bytes, raw: bytes, listed: Span | None) -> list[Part]:
    """The calls in a message's `tool_calls`, each with an id; none where no list stands there.

    Raises:
        Unreadable: a call that is none.
    """
    found = []
    if listed is not None and is_array(text, listed):
        for span in spans.elements(text, listed):
            call = spans.unique(text, span)
            if "id" not in call:
                raise Unreadable("a tool call without id")
            body = call.get("function") or call.get("custom")
            name, said = called(text, body) if body else ("", "")
            own = block_digest(text, raw, call)
            call_id = text_of(text, call["id"])
            found.append(Part(Kind.CALL, said, span, call_id=call_id, name=name, digest=own))
    return found


def string_digest(raw: bytes, span: Span) -> bytes:
    """The digest of a bare string: that of the text block which says the same."""
    return digest([b"text", raw[slice(*span)], b"type", b'"text"'])


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
