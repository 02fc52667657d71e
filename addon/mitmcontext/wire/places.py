"""What stands at a place of a JSON text: small steps that all readers share."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Final

import msgspec

from mitmcontext.values import Span, Unreadable
from mitmcontext.wire import spans

Elements = Callable[[bytes, Span], list[Span]]
"""(Text, span of an array) to the spans of its elements."""

_LARGEST_NUMBER: Final = 10**12
_BASE64: Final = re.compile(rb'"[A-Za-z0-9+/=]{2000,}"')


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
    return raw.startswith(b"{", span.start)


def is_array(raw: bytes, span: Span) -> bool:
    """Whether a JSON array stands at `span`."""
    return raw.startswith(b"[", span.start)


def is_string(raw: bytes, span: Span) -> bool:
    """Whether a JSON string stands at `span`."""
    return raw.startswith(b'"', span.start)


def is_null(raw: bytes, span: Span) -> bool:
    """Whether null stands at `span`."""
    return raw[span.start : span.end] == b"null"


def quoted(text: str) -> bytes:
    """The text as a JSON string."""
    return msgspec.json.encode(text)
