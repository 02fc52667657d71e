"""OpenAI Responses: `POST .../responses`, its `compact` and its `input_tokens`.

The history is a list of items: messages, calls, their outputs and the model's reasoning each stand
for themselves. What a server keeps of an item (its id, its status) says nothing of what the model
reads, so it is left out of digests; it is always taken from the request at hand.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import msgspec

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
from mitmcontext.wire import openai_chat, spans
from mitmcontext.wire.api import (
    MARKER,
    Api,
    Elements,
    digest,
    is_array,
    is_null,
    is_object,
    is_string,
    is_true,
    message_digest,
    messages_in,
    nested,
    number_of,
    optional_text,
    outer,
    quoted,
    string_digest,
    text_of,
    typed_block,
    without_media,
)
from mitmcontext.wire.pictures import picture_behind
from mitmcontext.wire.questions.openai_responses import ASKING
from mitmcontext.wire.sse import SseReader
from mitmcontext.wire.typed import kind_of_user_text

Json = dict[str, Any]
Fields = Mapping[str, Span]

_PATH: Final = "/responses"
_COMPACT: Final = "/responses/compact"
_COUNT: Final = "/responses/input_tokens"
_DECIDING: Final = (
    "model",
    "input",
    "instructions",
    "tools",
    "max_output_tokens",
    "stream",
    "previous_response_id",
    "conversation",
    "context_management",
)
_ROLES: Final = ("system", "developer", "user", "assistant")
_TEXTS: Final = ("input_text", "output_text", "text")
_IMAGES: Final = ("input_image", "computer_screenshot")
_TURN_METADATA: Final = "x-codex-turn-metadata"
# How OpenCode begins the system prompt of a request that is no turn; such a one offers no tools.
_TITLE: Final = "You are a title generator"
_SUMMARY: Final = "You are a context summarization agent"
# What servers and clients note on an item and no model reads.
_NOTED: Final = frozenset({"id", "status", "internal_chat_message_metadata_passthrough"})
# Beside a text, where there is none of them.
_OF_TEXT: Final = frozenset({"annotations", "logprobs"})
_OF_MEDIA: Final = frozenset(
    ("type", "detail", "file_id", "image_url", "filename", "file_data", "file_url", MARKER)
)
# Tools that the server runs itself: its figure sums over rounds that never stood in one window.
_RUN_BY_SERVER: Final = (
    "web_search_call",
    "file_search_call",
    "code_interpreter_call",
    "mcp_call",
)


def recognises(path: str) -> bool:
    """Whether a POST to this path is for Responses, under whatever prefix."""
    return path.endswith((_PATH, _COMPACT, _COUNT))


def read(body: bytes, elements: Elements = spans.elements, /) -> Request:
    """Find the items and what decides about them.

    Raises:
        Unreadable: not a Responses request, or one that readers could take in two ways.
    """
    return spans.tolerant(body, partial(_read, elements))


def _read(elements: Elements, text: bytes, body: bytes) -> Request:
    fields = spans.unique(text, outer(text), _DECIDING)
    if "model" not in fields or "input" not in fields:
        raise Unreadable("no input or no model")
    given = fields["input"]
    alone = is_string(text, given)
    items = (given,) if alone else messages_in(elements, text, given)
    system, tools = fields.get("instructions"), fields.get("tools")
    managed = fields.get("context_management", Span(0, 0))
    return Request(
        body=body,
        model=text_of(text, fields["model"]),
        array=given,
        spans=items,
        system=system if system and is_string(text, system) else None,
        tools=tools if tools and is_array(text, tools) else None,
        max_output=number_of(text, fields.get("max_output_tokens")),
        stream=is_true(text, fields.get("stream")),
        edited_by_server=b'"compaction"' in text[slice(*managed)],
        hidden=_is_held_elsewhere(text, fields) or (not alone and _refers(text, items)),
        choice=fields.get("tool_choice"),
        schema=nested(text, fields, "text", "format"),
    )


def _is_held_elsewhere(text: bytes, fields: Fields) -> bool:
    """Whether the request goes on from what the provider has kept."""
    named = (fields.get("previous_response_id"), fields.get("conversation"))
    return any(span is not None and not is_null(text, span) for span in named)


def _refers(text: bytes, items: Sequence[Span]) -> bool:
    """Whether an item stands for one that the provider has kept."""
    # Looking into each item would double the work, so it is done only where the word stands.
    return b'"item_reference"' in text and any(
        _type_of(text, spans.unique(text, item, ("type",))) == "item_reference" for item in items
    )


def parse(raw: bytes) -> Message:
    """Read one item, or an `input` that is nothing but a string: one message that was typed.

    Raises:
        Unreadable: not an item of this API.
    """
    return spans.tolerant(raw, _parse)


def _parse(text: bytes, raw: bytes) -> Message:
    whole = outer(text)
    if is_string(text, whole):
        part = _said(text, raw, "user", whole)
        own = message_digest("user", (part,), (b"message",))
        return Message("user", (part,), own, editable=text is raw, item=True)
    fields = spans.unique(text, whole)
    name = _type_of(text, fields)
    shape = _SHAPES.get(name)
    if shape is None:
        return _kept_whole(text, raw, whole, fields, name)
    item = _Item(text, raw, whole, fields, name)
    role = shape.role or _role_of(text, fields)
    parts = tuple(shape.parts(item, role))
    return Message(
        role=role,
        parts=parts,
        digest=message_digest(role, parts, item.rest(shape.told)),
        markers=sum(part.marked for part in parts) + (MARKER in fields),
        editable=text is raw and set(fields) <= shape.keys | _NOTED | {"type", MARKER},
        item=True,
    )


def _type_of(text: bytes, fields: Fields) -> str:
    """An item's type; "message" where only a role says so, "" where nothing does."""
    return optional_text(text, fields.get("type")) or ("message" if "role" in fields else "")


def _role_of(text: bytes, fields: Fields) -> str:
    role = optional_text(text, fields.get("role"))
    if role not in _ROLES:
        raise Unreadable("a message with a role that is not known")
    return role


def _kept_whole(text: bytes, raw: bytes, whole: Span, fields: Fields, name: str) -> Message:
    """An item that only the server understands.

    One of an unknown type counts as the model's: should reasoning stand before it, or what
    reasoning wants behind it, they stay together.
    """
    role = _OPAQUE_ROLES.get(name, "assistant")
    item = _Item(text, raw, whole, fields, name)
    pieces = list(item.rest()) if name in _OPAQUE_ROLES else [raw]
    said = "" if name == "compaction_trigger" else _counted_text(item)
    part = Part(Kind.OPAQUE, said, whole, digest=digest(pieces))
    return Message(role, (part,), message_digest(role, (part,)), editable=False, item=True)


def _counted_text(item: _Item) -> str:
    sealed = item.fields.get("encrypted_content")
    if sealed is not None and is_string(item.text, sealed):
        return _unsealed(sealed)
    return without_media(item.text, item.whole)


def standing(path: str, headers: Mapping[str, str], request: Request) -> tuple[Standing, str]:
    """Codex names its compaction; paths tell the rest, and who holds the history."""
    if path.endswith(_COUNT):
        return Standing.NO_TURN, "a count of input tokens"
    if path.endswith(_COMPACT) or _compacts(headers, request):
        return Standing.NO_TURN, "the client's own compaction"
    if request.hidden:
        return Standing.NO_TURN, "the provider holds the earlier history"
    if request.edited_by_server:
        return Standing.NO_TURN, "the provider edits this history itself"
    if request.tools is None:
        opening = _opening(request)
        if opening.startswith(_TITLE):
            return Standing.ALONE, "the client's own side request"
        if opening.startswith(_SUMMARY):
            return Standing.NO_TURN, "the client's own compaction"
    return Standing.TURN, ""


def _compacts(headers: Mapping[str, str], request: Request) -> bool:
    """Whether Codex asks for its own compaction: by its last item, a header, or its metadata."""
    last = request.raw(-1)
    if b"compaction_trigger" in last and _is_trigger(last):
        return True
    if _request_kind(headers.get(_TURN_METADATA, "")) == "compaction":
        return True
    if b"request_kind" not in request.body:
        return False
    metadata = spans.tolerant(request.body, lambda text, _: _client_metadata(text))
    named = metadata.get(_TURN_METADATA) if isinstance(metadata, dict) else None
    return isinstance(named, str) and _request_kind(named) == "compaction"


def _is_trigger(raw: bytes) -> bool:
    try:
        said = msgspec.json.decode(raw)
    except (msgspec.MsgspecError, RecursionError):
        return False
    return isinstance(said, dict) and said.get("type") == "compaction_trigger"


def _client_metadata(text: bytes) -> object:
    span = dict(spans.members(text, outer(text))).get("client_metadata")
    return spans.value(text, span) if span else None


def _request_kind(metadata: str) -> object:
    """What Codex says a request is, in JSON of its own: "turn", "prewarm", "compaction"..."""
    if not metadata:
        return None
    try:
        said = msgspec.json.decode(metadata)
    except (msgspec.MsgspecError, RecursionError, UnicodeEncodeError):
        return None
    return said.get("request_kind") if isinstance(said, dict) else None


def _opening(request: Request) -> str:
    """How the system prompt begins, wherever the client puts it."""
    try:
        if request.system is not None:
            return text_of(request.body, request.system)
        first = parse(request.raw(0))
    except Unreadable:
        return ""
    spoken = first.role in ("system", "developer") and first.parts
    return first.parts[0].text if spoken else ""


def model_name(headers: Mapping[str, str], request: Request) -> str:
    """The model as the body names it."""
    return request.model


def user_message(text: str) -> bytes:
    """A user's message that holds this text."""
    said = b'[{"type":"input_text","text":' + quoted(text) + b"}]"
    return b'{"type":"message","role":"user","content":' + said + b"}"


def replacement(value: bytes, text: str) -> bytes:
    """The text in place of an output or a text; a shell's output stays one with its outcome."""
    outcome = _outcome(value) if value[:1] == b"[" else b""
    if not outcome:
        return quoted(text)
    return b'[{"stdout":' + quoted(text) + b',"stderr":"","outcome":' + outcome + b"}]"


def text_block(block: bytes, text: str) -> bytes:
    """A block of text in place of an image or a file of a user's message or a tool's output."""
    return typed_block(block, text, b"input_text")


def _outcome(value: bytes) -> bytes:
    """The last outcome in a shell's output; nothing where this is none."""
    found = b""
    for span in spans.elements(value, Span(0, len(value))):
        fields = dict(spans.members(value, span))
        found = value[slice(*fields["outcome"])] if "outcome" in fields else found
    return found


def usage_of(event: Mapping[str, Any]) -> Usage | None:
    """Usage of a plain answer, of the event that ends a streamed one, or of a count.

    Where the provider added history of its own, or summed over the rounds of tools that it runs
    itself, its figure says nothing of this request's size.
    """
    said = event.get("response")
    answer = said if isinstance(said, dict) else event
    usage = answer.get("usage")
    if not isinstance(usage, dict):
        counted = event.get("input_tokens")
        return Usage(input_tokens=counted) if isinstance(counted, int) else None
    output = usage.get("output_tokens")
    if answer.get("previous_response_id") or answer.get("conversation") or _ran_tools(answer):
        return Usage(output_tokens=output)
    details = usage.get("input_tokens_details")
    details = details if isinstance(details, dict) else {}
    cached, written = details.get("cached_tokens"), details.get("cache_write_tokens")
    return Usage(usage.get("input_tokens"), output, cached, written)


def _ran_tools(answer: Mapping[str, Any]) -> bool:
    return any(item.get("type") in _RUN_BY_SERVER for item in _listed(answer))


def items_added(event: Mapping[str, Any]) -> tuple[Mapping[str, Any], ...]:
    """The items that one event of a streamed answer says were added to the history, in order.

    `response.output_item.done` brings one item as it is finished. `response.completed` (and
    `response.incomplete`) brings them all once more, or none where the server does not repeat
    itself: if it brings any, they take the place of those that came one by one.
    """
    match event.get("type"):
        case "response.output_item.done":
            item = event.get("item")
            return (item,) if isinstance(item, dict) else ()
        case "response.completed" | "response.incomplete":
            answer = event.get("response")
            return _listed(answer) if isinstance(answer, dict) else ()
        case _:
            return ()


def _listed(answer: Mapping[str, Any]) -> tuple[Mapping[str, Any], ...]:
    output = answer.get("output")
    listed = output if isinstance(output, list) else ()
    return tuple(item for item in listed if isinstance(item, dict))


def refuses_shape(status: int, body: bytes) -> bool:
    """Whether an answer refuses how the request is built, and not its length."""
    return openai_chat.refuses_shape(status, body)


def refuses_length(status: int, body: bytes) -> TooLong | None:
    """Whether an answer refuses a request as too long.

    In a stream this comes after a 200, as an event that says the response has failed.
    """
    if status != 200:
        return openai_chat.refuses_length(status, body)
    for failure in _failures(body):
        found = openai_chat.refuses_length(400, failure)
        if found is not None:
            return found
    return None


def _failures(body: bytes) -> Iterator[bytes]:
    """The errors of an answer: an event of a failure, or those in a stream, as JSON."""
    for data in (body,) if body[:1] == b"{" else _events(body):
        if b'"error"' not in data:
            continue
        try:
            event = msgspec.json.decode(data)
        except (msgspec.MsgspecError, RecursionError):
            continue
        if not isinstance(event, dict):
            continue
        if event.get("type") == "error":
            yield data
        elif event.get("type") == "response.failed" and isinstance(event.get("response"), dict):
            yield msgspec.json.encode(event["response"].get("error"))


def _events(body: bytes) -> Iterator[bytes]:
    reader = SseReader()
    yield from (event.data for event in reader.feed(body))
    last = reader.close()
    if last is not None:
        yield last.data


# Items.


@dataclass(frozen=True, slots=True)
class _Item:
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
            if key not in ("type", "role", MARKER) and key not in _NOTED and key not in but:
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


Parts = Iterator[Part]


@dataclass(frozen=True, slots=True)
class _Shape:
    """How a type of item is read.

    Attributes:
        role: whose it is; "" where it says so itself.
        keys: the fields that it may have.
        parts: (item, role) to its parts.
        told: the fields of which nothing counts but what the parts' digests hold.
    """

    role: str
    keys: frozenset[str]
    parts: Callable[[_Item, str], Parts]
    told: frozenset[str] = frozenset()


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


def _said(text: bytes, raw: bytes, role: str, span: Span, call_id: str = "") -> Part:
    """A bare string."""
    said = text_of(text, span)
    kind = _text_kind(role, said)
    return Part(kind, said, span, span, call_id, digest=string_digest(raw, span))


def _message(item: _Item, role: str) -> Parts:
    content = item.fields.get("content")
    if content is None or is_null(item.text, content):
        return
    if is_string(item.text, content):
        yield _said(item.text, item.raw, role, content)
    elif is_array(item.text, content):
        for span in spans.elements(item.text, content):
            yield _block(item, role, span)
    else:
        raise Unreadable("a message's content is neither text nor parts")


def _block(item: _Item, role: str, span: Span, call_id: str = "") -> Part:
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


def _call(item: _Item, role: str) -> Parts:
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


def _given(item: _Item) -> str:
    """What a call asks for: text, or an object of the tool's own."""
    for key in ("arguments", "input"):
        if key in item.fields:
            return optional_text(item.text, item.fields[key])
    for key in ("action", "operation", "actions"):
        if key in item.fields:
            return item.plain(item.fields[key])
    raise Unreadable("a call that asks for nothing")


def _call_id(item: _Item) -> str:
    """What ties an output to its call. Shell calls of older models have only an id."""
    found = optional_text(item.text, item.fields.get("call_id"))
    if not found and item.name.startswith("local_shell"):
        found = optional_text(item.text, item.fields.get("id"))
    if not found:
        raise Unreadable("a call or an output without call_id")
    return found


def _output(item: _Item, role: str) -> Parts:
    """A tool's output: a text, or parts. Texts alone are one result."""
    text, output, call_id = item.text, item.fields.get("output"), _call_id(item)
    if output is None or is_null(text, output):
        yield Part(Kind.RESULT, "", output or item.whole, None, call_id)
        return
    if is_string(text, output):
        yield _said(text, item.raw, role, output, call_id)
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


def _shell_output(item: _Item, role: str) -> Parts:
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


def _screenshot(item: _Item, role: str) -> Parts:
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


def _reasoning(item: _Item, role: str) -> Parts:
    """What the model thought. It stays with the item that follows it, as one answer of the model.

    Sealed reasoning weighs what it holds, not what its seal does.
    """
    read_ = [line for key in ("summary", "content") for line in _lines(item, key)]
    plain, sealed = "\n".join(read_), item.fields.get("encrypted_content")
    if sealed is not None and is_string(item.text, sealed):
        plain = f"{plain}\n{_unsealed(sealed, len(plain))}".strip()
    yield Part(Kind.THINKING, plain, item.whole, digest=digest(item.rest()))


def _lines(item: _Item, key: str) -> Iterator[str]:
    listed = item.fields.get(key)
    if listed is None or is_null(item.text, listed):
        return
    if not is_array(item.text, listed):
        raise Unreadable("reasoning that is no list")
    for span in spans.elements(item.text, listed):
        fields = spans.unique(item.text, span)
        yield optional_text(item.text, fields.get("text"))


def _unsealed(sealed: Span, beside: int = 0) -> str:
    """So many words as a sealed text has tokens, less `beside` characters that stand in the open.

    Base64 of three bytes in four, 650 of them the wrapping, four bytes to a token: Codex, which
    has to estimate the same, reckons so (`core/src/context_manager/history.rs`).
    """
    held = (sealed.end - sealed.start) * 3 // 4 - 650 - beside
    return "sealed" + " sealed" * (held // 4) if held > 0 else ""


def _run_by_server(item: _Item, role: str) -> Parts:
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


_ASKED: Final = ("server_label", "name", "arguments", "action", "queries", "code")
_CAME: Final = frozenset({"output", "error", "results", "outputs"})


def _remote_call(item: _Item, role: str) -> Parts:
    """A call of an MCP server; one that had to be approved stays with what approved it."""
    approval = item.fields.get("approval_request_id")
    if approval is None or is_null(item.text, approval):
        yield from _run_by_server(item, role)
    else:
        yield Part(Kind.OPAQUE, item.plain(item.whole), item.whole, digest=digest(item.rest()))


def _picture(item: _Item, role: str) -> Parts:
    shown = (picture_behind(item.text, item.fields, "result"),)
    yield Part(Kind.IMAGE, "", item.whole, images=1, digest=digest(item.rest()), pictures=shown)


def _keys(names: str) -> frozenset[str]:
    return frozenset(names.split())


_SHAPES: Final[Mapping[str, _Shape]] = {
    "message": _Shape("", _keys("role content phase"), _message, _keys("content")),
    "reasoning": _Shape("assistant", _keys("summary content encrypted_content"), _reasoning),
    "function_call": _Shape("assistant", _keys("call_id name namespace arguments"), _call),
    "custom_tool_call": _Shape("assistant", _keys("call_id name namespace input"), _call),
    "local_shell_call": _Shape("assistant", _keys("call_id action"), _call),
    "shell_call": _Shape("assistant", _keys("call_id action environment max_output_length"), _call),
    "apply_patch_call": _Shape("assistant", _keys("call_id operation"), _call),
    "computer_call": _Shape(
        "assistant", _keys("call_id action actions pending_safety_checks"), _call
    ),
    "function_call_output": _Shape("tool", _keys("call_id output"), _output, _keys("output")),
    "custom_tool_call_output": _Shape(
        "tool", _keys("call_id name output"), _output, _keys("output")
    ),
    "local_shell_call_output": _Shape("tool", _keys("call_id output"), _output, _keys("output")),
    "apply_patch_call_output": _Shape("tool", _keys("call_id output"), _output, _keys("output")),
    "shell_call_output": _Shape(
        "tool", _keys("call_id output max_output_length"), _shell_output, _keys("output")
    ),
    "computer_call_output": _Shape(
        "tool", _keys("call_id output acknowledged_safety_checks"), _screenshot, _keys("output")
    ),
    "web_search_call": _Shape("assistant", _keys("action"), _run_by_server),
    "file_search_call": _Shape("assistant", _keys("queries results"), _run_by_server),
    "code_interpreter_call": _Shape(
        "assistant", _keys("code container_id outputs"), _run_by_server
    ),
    "mcp_call": _Shape(
        "assistant",
        _keys("server_label name arguments output error approval_request_id"),
        _remote_call,
    ),
    "image_generation_call": _Shape(
        "assistant",
        _keys("result revised_prompt action background output_format quality size"),
        _picture,
    ),
}
# Items that are kept as they are, and whose they are.
_OPAQUE_ROLES: Final[Mapping[str, str]] = {
    "additional_tools": "developer",
    "configuration_update": "developer",
    "compaction": "developer",
    "compaction_summary": "developer",
    "context_compaction": "developer",
    "compaction_trigger": "developer",
    "mcp_list_tools": "developer",
    "mcp_approval_request": "assistant",
    "mcp_approval_response": "user",
}


RESPONSES: Final = Api(
    name="OpenAI Responses",
    recognises=recognises,
    read=read,
    parse=parse,
    standing=standing,
    model_name=model_name,
    user_message=user_message,
    replacement=replacement,
    text_block=text_block,
    usage_of=usage_of,
    refuses_shape=refuses_shape,
    refuses_length=refuses_length,
    asking=ASKING,
)
