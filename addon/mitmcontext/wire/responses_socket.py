"""OpenAI Responses over a WebSocket: the conversation, told from frames and events.

Each turn is a frame, `{"type": "response.create", ...}`: the body of a POST that may name the
response it goes on from (`previous_response_id`) and then brings only what is new. The server keeps
the rest for the connection. A `Mirror` holds the same items, so that `whole` can make the frame of
a client that sends all of them. Whatever it cannot follow for certain loses it: nothing is known
then until a frame comes with its full input.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import msgspec

from mitmcontext.values import Edit, Span, Unreadable, Usage
from mitmcontext.wire import spans
from mitmcontext.wire.places import is_array, is_null, is_string, optional_text, outer
from mitmcontext.wire.responses_answers import items_added, usage_of

Event = Mapping[str, Any]

_PATH: Final = "/responses"
_CREATE: Final = "response.create"
# What a client may say that changes nothing.
_HARMLESS: Final = ("response.processed",)
_CREATED: Final = "response.created"
_COMPLETED: Final = "response.completed"
_FAILED: Final = ("response.failed", "error")
_ENDED: Final = (*_FAILED, "response.incomplete", "response.cancelled")
_TELLING: Final = frozenset((_CREATED, "response.output_item.done", _COMPLETED, *_ENDED))
# Fields by which the provider's history is another one than the frames' own, and why.
_ELSEWHERE: Final = {
    "conversation": "the provider keeps this conversation",
    "prompt": "the provider adds a prompt of its own",
    "context_management": "the provider edits this history itself",
    "stream_id": "several conversations share the connection",
}
# An event is read on the event loop, where ten times as many values take 60 ms. An answer's items,
# and the tools that it repeats, are some thousands.
_MOST_VALUES: Final = 20_000
_FOREIGN: Final = re.compile("[^\x00-\x7f]+")
_DECIDING: Final = ("type", "input", "previous_response_id", "store", *_ELSEWHERE)


class Aside(Unreadable):
    """The client says something beside the turns, and what it does to them is not known."""


class _Typed(msgspec.Struct):
    type: str = ""


class _Kept(msgspec.Struct):
    """What of an item says whether the provider would understand it without having kept it."""

    type: str | None = None
    encrypted_content: str | None = None


_TYPE: Final = msgspec.json.Decoder(_Typed)
_ITEM: Final = msgspec.json.Decoder(_Kept)
_ANY: Final = msgspec.json.Decoder()


def upgrades(path: str) -> bool:
    """Whether a WebSocket at this path (without its query) is for Responses."""
    return path.endswith(_PATH)


@dataclass(frozen=True, slots=True)
class Frame:
    """A turn as the client sent it.

    Attributes:
        content: the frame.
        given: where its input stands.
        items: the items of that input, one by one.
        previous: the response that it goes on from; "" where it brings everything.
        named: where the member that names it stands, with a comma; None where there is none.
        odd: why its history cannot be followed; "" where it can.
    """

    content: bytes
    given: Span
    items: tuple[bytes, ...]
    previous: str
    named: Span | None
    odd: str = ""

    def whole(self, items: tuple[bytes, ...]) -> bytes:
        """The same turn with all items of the conversation, going on from nothing."""
        if not self.previous:
            return self.content
        edits = [Edit(self.given, b"[" + b",".join(items) + b"]")]
        if self.named is not None:
            edits.append(Edit(self.named, b""))
        return spans.splice(self.content, edits)


@dataclass(frozen=True, slots=True)
class Mirror:
    """What is known of the conversation on one connection.

    Attributes:
        response: the newest response that came to its end; "" where none is known.
        items: everything that the next frame goes on from, if it goes on from that one.
        coming: everything that the frame in flight stands for; None where that is not known.
        created: the response in flight, once the server has named it.
        added: what the server added since.
        open: how many frames wait for the end of their answer.
    """

    response: str = ""
    items: tuple[bytes, ...] = ()
    coming: tuple[bytes, ...] | None = None
    created: str = ""
    added: tuple[bytes, ...] = ()
    open: int = 0

    @property
    def size(self) -> int:
        """About how many bytes it takes. What is in flight begins with what was there before."""
        held = self.items if self.coming is None else self.coming
        return sum(len(item) + 60 for item in (*held, *self.added))


def frame_of(content: bytes) -> Frame | None:
    """The turn in a frame; None where the client says something that changes nothing.

    Raises:
        Aside: it says something else.
        Unreadable: it says nothing that can be understood.
    """
    return spans.tolerant(content, _frame)


def _frame(text: bytes, content: bytes) -> Frame | None:
    whole = outer(text)
    fields = spans.unique(text, whole, _DECIDING)
    kind = optional_text(text, fields.get("type"))
    if kind in _HARMLESS:
        return None
    if kind != _CREATE:
        raise Aside("a frame that is no turn")
    if "input" not in fields:
        raise Unreadable("a turn without input")
    previous, given = fields.get("previous_response_id"), fields["input"]
    items = _items(text, content, given)
    named = previous and _member(text, whole, "previous_response_id")
    return Frame(
        content, given, items, optional_text(text, previous), named, _odd(text, fields, items)
    )


def _items(text: bytes, content: bytes, given: Span) -> tuple[bytes, ...]:
    if is_string(text, given):
        return (b'{"role":"user","content":' + content[slice(*given)] + b"}",)
    if not is_array(text, given):
        raise Unreadable("an input that is neither text nor items")
    return tuple(content[slice(*span)] for span in spans.elements(text, given))


def _member(text: bytes, whole: Span, name: str) -> Span:
    """A member of an object with the comma that goes with it."""
    found = spans.members(text, whole)
    at = next(place for place, (key, _) in enumerate(found) if key == name)
    if at > 0:
        return Span(found[at - 1][1].end, found[at][1].end)
    # The first one: up to where the next key begins. The input is another member.
    after = text.index(b'"', text.index(b",", found[0][1].end))
    return Span(text.index(b'"', whole.start), after)


def _odd(text: bytes, fields: Mapping[str, Span], items: tuple[bytes, ...]) -> str:
    for name, why in _ELSEWHERE.items():
        if name in fields and not is_null(text, fields[name]):
            return why
    if text[slice(*fields.get("store", Span(0, 0)))] != b"false":
        return "the provider stores this conversation"
    if any(b'"item_reference"' in item for item in items):
        return "an item stands for one that the provider has kept"
    return ""


def event_of(content: bytes) -> Event | None:
    """What a server says of the conversation; None where it says nothing of it.

    Raises:
        Unreadable: no event, or one of more values than any answer has.
    """
    try:
        if _TYPE.decode(content).type not in _TELLING:
            return None
        spans.check_values(content, _MOST_VALUES)
        event = _ANY.decode(content)
    except (msgspec.MsgspecError, RecursionError):
        raise Unreadable("an event that is not JSON") from None
    return event if isinstance(event, dict) else None


def is_created(event: Event) -> bool:
    """Whether a response begins: the client knows of it from now on."""
    return bool(event["type"] == _CREATED)


def is_completed(event: Event) -> bool:
    """Whether a response came to its end as it should."""
    return bool(event["type"] == _COMPLETED)


def is_failed(event: Event) -> bool:
    """Whether the server refuses a turn, or breaks it off."""
    return event["type"] in _FAILED


def status_of(event: Event) -> int:
    """The status that a refusal would have by POST; 500 where nothing tells."""
    status, error = event.get("status"), event.get("error")
    if isinstance(status, int):
        return status
    kind = error.get("type") if isinstance(error, dict) else None
    return 400 if kind == "invalid_request_error" else 500


def in_ascii(frame: bytes) -> bytes:
    r"""The same JSON without any byte above 127: `\u` escapes instead."""
    if frame.isascii():
        return frame
    return _FOREIGN.sub(lambda run: json.dumps(run[0])[1:-1], frame.decode()).encode()


def asked(mirror: Mirror, frame: Frame) -> tuple[Mirror, str]:
    """The mirror with a turn in flight, and why nothing is known of it, or ""."""
    doubt = frame.odd
    items = frame.items
    if mirror.open:
        doubt = "more than one response in flight"
    elif frame.previous and frame.previous != mirror.response:
        doubt = "it goes on from a response that was not followed"
    elif frame.previous:
        items = mirror.items + items
    if doubt:
        return lost(mirror, opened=1), doubt
    return replace(mirror, coming=items, created="", added=(), open=1), ""


def told(mirror: Mirror, event: Event) -> Mirror:
    """The mirror after an event of the server."""
    kind = event["type"]
    if kind in _ENDED:
        return lost(mirror, opened=-1)
    answer = event.get("response")
    own = answer.get("id") if isinstance(answer, dict) else None
    named = own if isinstance(own, str) else ""
    if kind == _COMPLETED:
        return _completed(mirror, event, named)
    if mirror.coming is None:
        return mirror
    if kind == _CREATED:
        return lost(mirror) if mirror.created or not named else replace(mirror, created=named)
    return replace(mirror, added=(*mirror.added, *map(_encoded, items_added(event))))


def _completed(mirror: Mirror, event: Event, named: str) -> Mirror:
    if mirror.coming is None or not named or named != mirror.created:
        return lost(mirror, opened=-1)
    listed = tuple(map(_encoded, items_added(event)))
    added = listed or mirror.added
    one_by_one = len(mirror.added) in (0, len(added))
    if not one_by_one or not all(map(_is_complete, added)):
        return lost(mirror, opened=-1)
    return Mirror(response=named, items=mirror.coming + added)


def _is_complete(item: bytes) -> bool:
    """Whether an item may be sent once more: reasoning only with what it holds."""
    try:
        found = _ITEM.decode(item)
    except msgspec.MsgspecError:
        return False
    return found.type != "reasoning" or bool(found.encrypted_content)


def _encoded(item: Mapping[str, Any]) -> bytes:
    """An item as a client would send it: clients write JSON without any space."""
    return msgspec.json.encode(item)


def lost(mirror: Mirror, *, opened: int = 0) -> Mirror:
    """Nothing is known any more, but how many frames wait for the end of their answer."""
    return Mirror(open=max(0, mirror.open + opened))


def usage_of_whole(event: Event) -> Usage | None:
    """What an answer reports of a conversation that is known in whole, whoever keeps it."""
    answer = event.get("response")
    if not isinstance(answer, dict):
        return None
    return usage_of({"response": {**answer, "previous_response_id": None}})
