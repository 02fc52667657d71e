"""OpenAI Responses: what the parts of each type of item are.

A reader here takes an item and yields its parts; `responses_items.py` says which reader a type has.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from mitmcontext.values import Kind, Part, Span, Unreadable
from mitmcontext.wire import spans
from mitmcontext.wire.digests import MARKER, digest, string_digest
from mitmcontext.wire.pictures import picture_behind
from mitmcontext.wire.places import (
    is_array,
    is_null,
    is_object,
    is_string,
    optional_text,
    text_of,
    without_media,
)
from mitmcontext.wire.typed import kind_of_user_text

Fields = Mapping[str, Span]
Parts = Iterator[Part]

_TEXTS: Final = ("input_text", "output_text", "text")
_IMAGES: Final = ("input_image", "computer_screenshot")
# What servers and clients note on an item and no model reads.
NOTED: Final = frozenset({"id", "status", "internal_chat_message_metadata_passthrough"})
# Beside a text, where there is none of them.
_OF_TEXT: Final = frozenset({"annotations", "logprobs"})
_OF_MEDIA: Final = frozenset(
    ("type", "detail", "file_id", "image_url", "filename", "file_data", "file_url", MARKER)
)
# Of a tool that the server ran: what it was asked, and what came of it.
_ASKED: Final = ("server_label", "name", "arguments", "action", "queries", "code")
_CAME: Final = frozenset({"output", "error", "results", "outputs"})


@dataclass(frozen=True, slots=True)
class Item:
    """One item: where to find things in it (`text`), the bytes that count, and its fields."""

    text: bytes
    raw: bytes
    whole: Span
    fields: Fields
    name: str

    def rest(self, but: Collection[str] = ()) -> Iterator[bytes]:
        """What belongs to an item's content beside fields that are looked at for themselves."""
        yield self.name.encode()
        for key in sorted(self.fields):
            if key not in ("type", "role", MARKER) and key not in NOTED and key not in but:
                yield key.encode()
                yield self.raw[slice(*self.fields[key])]

    def said(self, key: str) -> str:
        """A field as text: a string as it says, everything else as it stands."""
        span = self.fields.get(key)
        if span is None or is_null(self.text, span):
            return ""
        return text_of(self.text, span) if is_string(self.text, span) else self.plain(span)

    def plain(self, span: Span) -> str:
        """A value as it stands, base64 data left out."""
        return without_media(self.text, span)


def message(item: Item, role: str) -> Parts:
    """A message: a bare text, or texts, images and files."""
    content = item.fields.get("content")
    if content is None or is_null(item.text, content):
        return
    if is_string(item.text, content):
        yield bare_text(item.text, item.raw, role, content)
    elif is_array(item.text, content):
        for span in spans.elements(item.text, content):
            yield _block(item, role, span)
    else:
        raise Unreadable("a message's content is neither text nor parts")


def bare_text(text: bytes, raw: bytes, role: str, span: Span, call_id: str = "") -> Part:
    """A bare string."""
    said = text_of(text, span)
    kind = _text_kind(role, said)
    return Part(kind, said, span, span, call_id, digest=string_digest(raw, span))


def _block(item: Item, role: str, span: Span, call_id: str = "") -> Part:
    """One part of a message, or of a tool's output."""
    text, raw = item.text, item.raw
    fields = spans.unique(text, span)
    name = optional_text(text, fields.get("type"))
    marked = MARKER in fields
    if name in _TEXTS and set(fields) - {MARKER} - _OF_TEXT == {"type", "text"}:
        said = text_of(text, fields["text"])
        noted = [fields[key] for key in sorted(_OF_TEXT & set(fields))]
        # Citations point into the text, so that it may not become another one.
        free = all(text[slice(*note)] in (b"[]", b"null") for note in noted)
        place = fields["text"] if free else None
        own = string_digest(raw, fields["text"]) if free else digest([raw[slice(*span)]])
        kind = _text_kind(role, said)
        return Part(kind, said, span, place, call_id, digest=own, marked=marked)
    own = digest(
        piece
        for key in sorted(fields)
        if key != MARKER
        for piece in (key.encode(), raw[slice(*fields[key])])
    )
    place = span if set(fields) <= _OF_MEDIA else None
    if name in _IMAGES:
        shown = (picture_behind(text, fields, "image_url"),)
        return Part(Kind.IMAGE, "", span, place, call_id, "", 1, own, marked, shown)
    if name != "input_file":
        return Part(Kind.OPAQUE, item.plain(span), span, None, call_id, digest=own, marked=marked)
    said = item.plain(span)
    return Part(Kind.DOCUMENT, said, span, place, call_id, digest=own, marked=marked)


def _text_kind(role: str, text: str) -> Kind:
    match role:
        case "user":
            return kind_of_user_text(text)
        case "assistant":
            return Kind.PROSE
        case "tool":
            return Kind.RESULT
        case _:
            return Kind.SYSTEM


def call(item: Item, role: str) -> Parts:
    """A call that the client answers."""
    name = optional_text(item.text, item.fields.get("name")) or item.name.removesuffix("_call")
    yield Part(
        Kind.CALL,
        f"{name} {_given(item)}",
        item.whole,
        call_id=_call_id(item),
        name=name,
        digest=digest(item.rest()),
    )


def _given(item: Item) -> str:
    """What a call asks for: text, or an object of the tool's own."""
    for key in ("arguments", "input"):
        if key in item.fields:
            return optional_text(item.text, item.fields[key])
    for key in ("action", "operation", "actions"):
        if key in item.fields:
            return item.plain(item.fields[key])
    raise Unreadable("a call that asks for nothing")


def _call_id(item: Item) -> str:
    """What ties an output to its call. Shell calls of older models have only an id."""
    found = optional_text(item.text, item.fields.get("call_id"))
    if not found and item.name.startswith("local_shell"):
        found = optional_text(item.text, item.fields.get("id"))
    if not found:
        raise Unreadable("a call or an output without call_id")
    return found


def output(item: Item, role: str) -> Parts:
    """A tool's output: a text, or parts. Texts alone are one result."""
    text, output, call_id = item.text, item.fields.get("output"), _call_id(item)
    if output is None or is_null(text, output):
        yield Part(Kind.RESULT, "", output or item.whole, None, call_id)
        return
    if is_string(text, output):
        yield bare_text(text, item.raw, role, output, call_id)
        return
    if not is_array(text, output):
        raise Unreadable("an output that is neither text nor parts")
    blocks = [_block(item, role, span, call_id) for span in spans.elements(text, output)]
    plain = all(block.kind == Kind.RESULT and block.value and not block.marked for block in blocks)
    if not plain:
        yield from blocks
        return
    said = "\n".join(block.text for block in blocks)
    own = blocks[0].digest if len(blocks) == 1 else digest(block.digest for block in blocks)
    yield Part(Kind.RESULT, said, output, output if blocks else None, call_id, digest=own)


def shell_output(item: Item, role: str) -> Parts:
    """What a shell printed: pieces with `stdout`, `stderr` and an `outcome`."""
    text, output, call_id = item.text, item.fields.get("output"), _call_id(item)
    if output is None or not is_array(text, output):
        raise Unreadable("a shell's output is no list")
    said, known = [], True
    for span in spans.elements(text, output):
        fields = spans.unique(text, span)
        known &= set(fields) == {"stdout", "stderr", "outcome"}
        said += [optional_text(text, fields.get(key)) for key in ("stdout", "stderr")]
    own = digest([item.raw[slice(*output)]])
    printed = "\n".join(filter(None, said))
    place = output if known and said else None
    yield Part(Kind.RESULT, printed, output, place, call_id, digest=own)


def screenshot(item: Item, role: str) -> Parts:
    """What a computer's screen showed after a call."""
    output = item.fields.get("output")
    if output is None or not is_object(item.text, output):
        raise Unreadable("a screenshot that is no object")
    yield Part(
        Kind.IMAGE,
        "",
        output,
        call_id=_call_id(item),
        images=1,
        digest=digest([item.raw[slice(*output)]]),
        pictures=(picture_behind(item.text, item.fields, "output", "image_url"),),
    )


def reasoning(item: Item, role: str) -> Parts:
    """What the model thought. It stays with the item that follows it, as one answer of the model.

    Sealed reasoning weighs what it holds, not what its seal does.
    """
    read_ = [line for key in ("summary", "content") for line in _lines(item, key)]
    plain, sealed = "\n".join(read_), item.fields.get("encrypted_content")
    if sealed is not None and is_string(item.text, sealed):
        plain = f"{plain}\n{unsealed(sealed, len(plain))}".strip()
    yield Part(Kind.THINKING, plain, item.whole, digest=digest(item.rest()))


def _lines(item: Item, key: str) -> Iterator[str]:
    listed = item.fields.get(key)
    if listed is None or is_null(item.text, listed):
        return
    if not is_array(item.text, listed):
        raise Unreadable("reasoning that is no list")
    for span in spans.elements(item.text, listed):
        fields = spans.unique(item.text, span)
        yield optional_text(item.text, fields.get("text"))


def unsealed(sealed: Span, beside: int = 0) -> str:
    """So many words as a sealed text has tokens, less `beside` characters that stand in the open.

    Base64 of three bytes in four, 650 of them the wrapping, four bytes to a token: Codex, which
    has to estimate the same, reckons so (`core/src/context_manager/history.rs`).
    """
    held = (sealed.end - sealed.start) * 3 // 4 - 650 - beside
    return "sealed" + " sealed" * (held // 4) if held > 0 else ""


def run_by_server(item: Item, role: str) -> Parts:
    """A tool that the provider ran itself: the call, and what came of it as far as it is told."""
    given = " ".join(filter(None, (item.said(key) for key in _ASKED)))
    called = f"{item.name.removesuffix('_call')} {given}"
    yield Part(Kind.PROSE, called, item.whole, digest=digest(item.rest(_CAME)))
    for key in sorted(_CAME & set(item.fields)):
        span = item.fields[key]
        if not is_null(item.text, span):
            own = digest([item.raw[slice(*span)]])
            place = span if key == "output" and is_string(item.text, span) else None
            yield Part(Kind.RESULT, item.said(key), span, place, digest=own)


def remote_call(item: Item, role: str) -> Parts:
    """A call of an MCP server; one that had to be approved stays with what approved it."""
    approval = item.fields.get("approval_request_id")
    if approval is None or is_null(item.text, approval):
        yield from run_by_server(item, role)
    else:
        yield Part(Kind.OPAQUE, item.plain(item.whole), item.whole, digest=digest(item.rest()))


def picture(item: Item, role: str) -> Parts:
    """A picture that the provider made."""
    shown = (picture_behind(item.text, item.fields, "result"),)
    yield Part(Kind.IMAGE, "", item.whole, images=1, digest=digest(item.rest()), pictures=shown)
