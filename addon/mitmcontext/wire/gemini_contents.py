"""Google Gemini: what one content is read as, in every spelling that Google's servers take.

They take each key in camel and in snake case, null for nothing, and a single value for a list of
one. A call may have an id and often has none, and clients send it back or do not: what ties results
to calls is that they follow at once, in the same number.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable, Mapping
from typing import Final

import msgspec

from mitmcontext.values import Kind, Message, Part, Picture, Span, Unreadable
from mitmcontext.wire import spans
from mitmcontext.wire.digests import block_digest, digest, message_digest, others
from mitmcontext.wire.pictures import picture
from mitmcontext.wire.places import (
    is_null,
    is_object,
    is_string,
    is_true,
    optional_text,
    outer,
    text_of,
    without_media,
)
from mitmcontext.wire.typed import kind_of_text

_ROLES: Final = {"": "user", "user": "user", "model": "assistant", "function": "function"}
# Keys of a part beside what it holds.
_BESIDE: Final = frozenset(
    {"thought", "thoughtSignature", "videoMetadata", "partMetadata", "mediaResolution"}
)
_THOUGHT: Final = frozenset({"thought", "thoughtSignature"})
_TICKET: Final = "by order"
_RESULT: Final = frozenset({"id", "name", "response"})
# Under these keys a tool's only text stands, in the SDKs and in Google's own examples.
_OUTPUT: Final = ("output", "result", "content")
_SNAKE: Final = re.compile(r"_([a-z0-9])")


def parse(raw: bytes) -> Message:
    """Read one content.

    Raises:
        Unreadable: not a content of this API.
    """
    return spans.tolerant(raw, _parse)


def _parse(text: bytes, raw: bytes) -> Message:
    fields = fields_of(text, outer(text))
    role = _ROLES.get(optional_text(text, fields.get("role")))
    if role is None:
        raise Unreadable("a content with a role that is not known")
    listed = elements_of(text, fields.get("parts"))
    parts = [part for span in listed for part in _part(text, raw, role, span)]
    kinds = {part.kind for part in parts}
    if role == "assistant" and Kind.RESULT in kinds and Kind.CALL not in kinds:
        role = "function"  # Some clients send results in the model's name.
    rest = others(raw, fields, ("role", "parts"))
    return Message(
        role=role,
        parts=tuple(parts),
        digest=message_digest(role, parts, rest),
        editable=not rest and text is raw,
    )


def _part(text: bytes, raw: bytes, role: str, span: Span) -> list[Part]:
    """A part; one that is signed has its signature behind it, as thinking.

    The signature is over the model's thoughts before it. The part under it stays as it is.
    """
    fields = fields_of(text, span)
    signed = "thoughtSignature" in fields
    if signed:
        text_of(text, fields["thoughtSignature"])
    thought = _flag(text, fields.get("thought"))
    part_digest = block_digest(text, raw, fields)
    held = set(fields) - _BESIDE
    if held <= {"text"} and (thought or signed):
        said = text_of(text, fields["text"]) if held else ""
        if thought or not said:
            return [Part(Kind.THINKING, said, span, digest=part_digest)]
        found = Part(kind_of_text(role, said), said, span, digest=part_digest)
    elif held == {"text"}:
        said = text_of(text, fields["text"])
        kind = kind_of_text(role, said)
        return [Part(kind, said, span, fields["text"], digest=part_digest)]
    elif held == {"functionCall"}:
        name, said = _called(text, fields["functionCall"])
        found = Part(Kind.CALL, said, span, call_id=_TICKET, name=name, digest=part_digest)
    elif held == {"functionResponse"}:
        found = _result(text, fields["functionResponse"], span, part_digest)
    elif held in ({"inlineData"}, {"fileData"}):
        found = _media(text, fields[next(iter(held))], span, part_digest)
        if found.kind != Kind.OPAQUE and not set(fields) & _THOUGHT:
            found = msgspec.structs.replace(found, value=span)
    else:
        found = Part(Kind.OPAQUE, without_media(text, span), span, digest=part_digest)
    if not signed:
        return [found]
    signature = digest([part_digest, b"signature"])
    return [found, Part(Kind.THINKING, "", fields["thoughtSignature"], digest=signature)]


def _flag(text: bytes, span: Span | None) -> bool:
    if span is None:
        return False
    if text[slice(*span)] not in (b"true", b"false"):
        raise Unreadable("a value is neither true nor false where one must be")
    return is_true(text, span)


def _called(text: bytes, span: Span) -> tuple[str, str]:
    fields = fields_of(text, span)
    name = optional_text(text, fields.get("name"))
    given = text[slice(*fields["args"])].decode() if "args" in fields else ""
    return name, f"{name} {given}"


def _result(text: bytes, span: Span, whole: Span, part_digest: bytes) -> Part:
    fields = fields_of(text, span)
    response = fields.get("response")
    shown = elements_of(text, fields.get("parts"))
    return Part(
        Kind.RESULT,
        "" if response is None else _result_text(text, response),
        whole,
        # Media beside the response may be spoken of in it, and are opaque to us.
        response if set(fields) <= _RESULT else None,
        call_id=_TICKET,
        name=optional_text(text, fields.get("name")),
        images=len(shown),
        digest=part_digest,
        pictures=tuple(_picture(text, fields_of(text, one)) for one in shown),
    )


def _result_text(text: bytes, span: Span) -> str:
    """What a tool said: its only text, or a line for each thing that it says.

    Raises:
        Unreadable: no object, which a response must be.
    """
    members = spans.members(text, span)
    said = [
        (key, text_of(text, place) if is_string(text, place) else text[slice(*place)].decode())
        for key, place in members
    ]
    if len(said) == 1 and said[0][0] in _OUTPUT:
        return said[0][1]
    return "\n".join(f"{key}: {value}" for key, value in said)


def _picture(text: bytes, part: Mapping[str, Span]) -> Picture:
    held = part.get("inlineData")
    return picture(text, fields_of(text, held).get("data") if held else None)


def _media(text: bytes, span: Span, whole: Span, part_digest: bytes) -> Part:
    fields = fields_of(text, span)
    kind = optional_text(text, fields.get("mimeType"))
    if kind.startswith("image/"):
        pictured = (picture(text, fields.get("data")),)
        return Part(Kind.IMAGE, "", whole, images=1, digest=part_digest, pictures=pictured)
    said = kind
    if "data" not in fields:
        said = without_media(text, span)
    elif kind.startswith("text/"):
        said = _plain(text_of(text, fields["data"]))
    is_document = kind.startswith("text/") or kind == "application/pdf"
    named = Kind.DOCUMENT if is_document else Kind.OPAQUE
    return Part(named, said, whole, digest=part_digest)


def _plain(data: str) -> str:
    """The text that base64 in either alphabet stands for; as it is where it is none."""
    try:
        raw = base64.b64decode(data.translate({45: 43, 95: 47}) + "=" * (-len(data) % 4))
    except (binascii.Error, ValueError):
        return data
    return raw.decode("utf-8", "replace")


def fields_of(text: bytes, span: Span, keys: Iterable[str] = ()) -> dict[str, Span]:
    """The values of an object by keys in camel case, without those that are null.

    Raises:
        Unreadable: no object, or a key (one of `keys`, if there are any) stands twice, in one
            spelling or in both.
    """
    found: dict[str, Span] = {}
    wanted = frozenset(keys)
    for key, value in spans.members(text, span):
        name = _SNAKE.sub(lambda snake: snake[1].upper(), key) if "_" in key else key
        if name in found and (not wanted or name in wanted):
            raise Unreadable("a key stands twice")
        found[name] = value
    return {name: value for name, value in found.items() if not is_null(text, value)}


def elements_of(text: bytes, span: Span | None) -> list[Span]:
    """The elements of a list; a single object is a list of one, and nothing an empty one.

    Raises:
        Unreadable: neither stands there.
    """
    if span is None:
        return []
    return [span] if is_object(text, span) else spans.elements(text, span)
