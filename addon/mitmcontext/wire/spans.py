"""Where values lie in a JSON text, to the byte.

msgspec finds the end of every value at the speed of C (`Raw`), but says neither where a value
begins nor whether a key stood twice. So the text is walked once more, from key to key and from
element to element, jumping over each value by its length. Whatever cannot be walked that way is
refused as `Unreadable`; nothing is ever searched for.
"""

from __future__ import annotations

import re
from codecs import getincrementaldecoder
from collections.abc import Callable, Iterable
from typing import Final, NamedTuple

import msgspec

from mitmcontext.values import Edit, Span, Unreadable

MOST: Final = 20_000
"""So many messages, or parts of one, are read: a window of a million tokens holds fewer."""

MOST_VALUES: Final = 150_000
"""So many values in all are read: each takes some sixty bytes of memory as soon as it is found, and
all those of one object or array are found in one go that nobody else can interrupt."""

_PIECE: Final = 64 << 10
_SPACE: Final = re.compile(rb"[ \t\n\r]*+")
_COMMA: Final = re.compile(rb"[ \t\n\r]*+,[ \t\n\r]*+")
_STRING: Final = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"')
_KEY: Final = re.compile(rb'[ \t\n\r]*+("[^"\\]*+(?:\\.[^"\\]*+)*+")[ \t\n\r]*+:[ \t\n\r]*+')
_TOKEN: Final = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"|[\[\]{}]')
_SCALAR: Final = re.compile(rb"[-+.0-9a-zA-Z]++")
_ESCAPE: Final = re.compile(
    rb"\\(?:u([0-9a-fA-F]{4})(?:\\u([dD][c-fC-F][0-9a-fA-F]{2}))?|.)", re.DOTALL
)
_OBJECT: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])
_ARRAY: Final = msgspec.json.Decoder(list[msgspec.Raw])
_ANY: Final = msgspec.json.Decoder()
_BLOCKS: Final = msgspec.json.Decoder(dict[str, str | list[dict[str, msgspec.Raw]]])
_TEXT: Final = msgspec.json.Decoder(str)

Member = tuple[str, Span]
Fields = dict[str, Span]
"""The values of an object by their keys."""


# A string that never ends is one, too: else each of its quotes would be tried as the start of one.
_VALUE: Final = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?|,', re.DOTALL)


def check_values(text: bytes, most: int = MOST_VALUES) -> None:
    """Refuse a text that holds more values than anybody sends: more than `most`.

    Commas outside of strings part them. Where there are few in all, nothing has to be looked at.

    Raises:
        Unreadable: it does.
    """
    if len(text) <= most or text.count(b",") <= most:
        return
    found = 0
    for match in _VALUE.finditer(text):
        # A match is a comma or a string; only a string is longer, and none is a comma.
        found += match.end() - match.start() == 1
        if found > most:
            raise Unreadable("more values than anybody sends")


def tolerant[T](body: bytes, read: Callable[[bytes, bytes], T]) -> T:
    r"""Read a body that may hold lone surrogates.

    A lone surrogate escape (`\ud800` without its other half) is legal in a body and must not
    hinder us, but no strict decoder takes it. So where `read` fails it gets a second try on a text
    of the same length with such escapes masked; spans found in that hold in the body.

    Args:
        body: what to read.
        read: takes the text to walk and the body itself.

    Raises:
        Unreadable: not UTF-8, or `read` finds it so.
    """
    check_values(body)
    if not (body.isascii() or _is_utf8(body)):
        raise Unreadable("the body is not UTF-8")
    try:
        return read(body, body)
    except Unreadable:
        if b"\\ud" not in body and b"\\uD" not in body:
            raise
        masked = _ESCAPE.sub(_mask, body)
        if masked == body:
            raise
    return read(masked, body)


def _is_utf8(body: bytes) -> bool:
    """Piece by piece: as a whole, its text may take four times as much memory."""
    decoder = getincrementaldecoder("utf-8")()
    try:
        for at in range(0, len(body), _PIECE):
            decoder.decode(body[at : at + _PIECE], final=at + _PIECE >= len(body))
    except UnicodeDecodeError:
        return False
    return True


def members(text: bytes, span: Span) -> list[Member]:
    """The keys of the object at `span` with the spans of their values, in order, repeats included.

    Raises:
        Unreadable: no JSON object stands there.
    """
    raws = _raws(text, span)
    return list(_packed(span, raws).items()) or _walked(text, span, raws)


def unique(text: bytes, span: Span, keys: Iterable[str] = ()) -> dict[str, Span]:
    """As `members`, for an object in which none of `keys` (or, without any, no key) may repeat.

    Raises:
        Unreadable: no object, or a key that matters stands twice, so that readers may differ.
    """
    raws = _raws(text, span)
    if found := _packed(span, raws):
        return found
    listed = _walked(text, span, raws)
    found = dict(listed)
    if len(found) == len(listed):
        return found
    found, wanted = {}, frozenset(keys)
    for key, value in listed:
        if key in found and (not wanted or key in wanted):
            raise Unreadable("a key stands twice")
        found[key] = value
    return found


def elements(text: bytes, span: Span) -> list[Span]:
    """The spans of the elements of the array at `span`.

    Raises:
        Unreadable: no JSON array stands there.
    """
    try:
        raws = _ARRAY.decode(memoryview(text)[span.start : span.end])
    except (msgspec.MsgspecError, RecursionError):
        raise Unreadable("the body holds no array where one must be") from None
    if len(raws) > MOST:
        raise Unreadable("more messages or parts than anybody sends")
    found = []
    at = span.start
    for raw in raws:
        # Some hundred elements a request, most without any space: calls would double the time.
        at += 1
        if text[at] <= 0x20:
            at = _after_space(text, at)
        end = at + len(raw)
        found.append(Span(at, end))
        at = end if text[end] > 0x20 else _after_space(text, end)
    return found


def without(text: bytes, removed: Iterable[Span]) -> list[Span]:
    """What to cut so that elements of an array go, each with the comma that parts it from others.

    Args:
        text: the JSON text.
        removed: the spans of elements; at least one other element of each array stays.

    Raises:
        ValueError: none does.
    """
    runs: list[Span] = []
    for span in sorted(removed):
        if runs and _COMMA.fullmatch(text, runs[-1].end, span.start):
            runs[-1] = Span(runs[-1].start, span.end)
        else:
            runs.append(span)
    found = []
    for start, end in runs:
        if behind := _COMMA.match(text, end):
            found.append(Span(start, behind.end()))
        else:
            found.append(Span(_comma_before(text, start), end))
    return found


def _comma_before(text: bytes, at: int) -> int:
    """Where the comma before an element begins, with the space around it."""
    comma = _space_before(text, at) - 1
    if text[comma] != 0x2C:
        raise ValueError("nothing is left of an array")
    return _space_before(text, comma)


def _space_before(text: bytes, at: int) -> int:
    while text[at - 1] in b" \t\n\r":
        at -= 1
    return at


def value(text: bytes, span: Span) -> object:
    """The decoded value at `span`.

    Raises:
        Unreadable: what stands there is not JSON.
    """
    try:
        return _ANY.decode(text[slice(*span)])
    except (msgspec.MsgspecError, RecursionError):
        raise Unreadable("the body is not JSON") from None


def string(text: bytes, span: Span) -> str | None:
    """The string at `span`; None where something else stands there."""
    start, end = span
    try:
        return _TEXT.decode(text[start:end])
    except (msgspec.MsgspecError, RecursionError):
        return None


def splice(body: bytes, edits: Iterable[Edit]) -> bytes:
    """The body with each edit's span replaced; every other byte stays as it is.

    Raises:
        ValueError: edits overlap or reach outside the body.
    """
    pieces: list[bytes] = []
    at = 0
    for span, new in sorted(edits):
        if not at <= span.start <= span.end <= len(body):
            raise ValueError("edits overlap or reach outside the body")
        pieces += (body[at : span.start], new)
        at = span.end
    pieces.append(body[at:])
    return b"".join(pieces)


def _raws(text: bytes, span: Span) -> dict[str, msgspec.Raw]:
    try:
        return _OBJECT.decode(memoryview(text)[span.start : span.end])
    except (msgspec.MsgspecError, RecursionError):
        raise Unreadable("the body is not a JSON object") from None


def _packed(span: Span, raws: dict[str, msgspec.Raw]) -> Fields:
    """The members of an object without any space, escaped key or repeated one; else nothing.

    Nothing that is written otherwise is as short: escapes are longer than what they stand for. So
    where the lengths add up, all is where it must be, and nothing has to be looked at.
    """
    found: Fields = {}
    at = span.start + 1
    for name, raw in raws.items():
        start = at + len(name) + 3
        end = start + len(raw)
        found[name] = Span(start, end)
        at = end + 1
    return found if at == span.end else {}


class Packed(NamedTuple):
    """The fields of a message, its blocks with theirs, and those of its fields that are texts."""

    fields: Fields
    blocks: list[tuple[Span, Fields]]
    texts: dict[str, str]


def packed_blocks(text: bytes) -> Packed | None:
    """A message whose parts are all found at once.

    None where one has to go from object to object: where anything is written otherwise than as
    short as can be (see `_packed`), where the message has not just one list, or more than texts
    beside it.
    """
    try:
        found = _BLOCKS.decode(text)
    except (msgspec.MsgspecError, RecursionError):
        return None
    fields: Fields = {}
    texts: dict[str, str] = {}
    blocks: list[tuple[Span, Fields]] = []
    at = 1
    for name, value in found.items():
        start = at + len(name) + 3
        if isinstance(value, str):
            texts[name] = value
            at = start + len(value) + 2
        elif blocks or not 0 < len(value) <= MOST or not all(value):
            return None
        else:
            at = start + 1
            for block in value:
                first, own = at, {}
                at += 1
                for key, raw in block.items():
                    begin = at + len(key) + 3
                    at = begin + len(raw)
                    own[key] = Span(begin, at)
                    at += 1
                blocks.append((Span(first, at), own))
                at += 1
        fields[name] = Span(start, at)
        at += 1
    return Packed(fields, blocks, texts) if at == len(text) else None


def _walked(text: bytes, span: Span, raws: dict[str, msgspec.Raw]) -> list[Member]:
    return _walk(text, span, raws) or _walk(text, span, {})


def _walk(text: bytes, span: Span, raws: dict[str, msgspec.Raw]) -> list[Member]:
    """Go from key to key; an empty list where a value is not the one that msgspec kept.

    msgspec keeps the last of several values with the same key. With no `raws` the end of each
    value is found by counting brackets, which is slow and always right for valid JSON.
    """
    found: list[Member] = []
    # A new message has some dozen keys: calls would double the time.
    at, comma = span.start + 1, 0x2C
    while comma == 0x2C:
        key = _KEY.match(text, at)
        if key is None:
            return []
        start = key.end()
        name = _name(key[1])
        if raws:
            raw = raws.get(name)
            if raw is None or not text.startswith(raw, start):
                return []
            end = start + len(raw)
        else:
            end = _end(text, start)
        found.append((name, Span(start, end)))
        at = end if text[end] > 0x20 else _after_space(text, end)
        comma = text[at]
        at += 1
    return found if comma == 0x7D and at == span.end else []


def _name(key: bytes) -> str:
    if b"\\" in key:
        return str(_ANY.decode(key))
    return key[1:-1].decode()


def _end(text: bytes, start: int) -> int:
    first = text[start]
    if first == 0x22:
        match = _STRING.match(text, start)
        return match.end() if match else start
    if first not in b"[{":
        match = _SCALAR.match(text, start)
        return match.end() if match else start
    depth = 0
    for token in _TOKEN.finditer(text, start):
        sign = token.group()
        depth += (sign in (b"[", b"{")) - (sign in (b"]", b"}"))
        if depth == 0:
            return token.end()
    return start


def _after_space(text: bytes, at: int) -> int:
    match = _SPACE.match(text, at)
    return match.end() if match else at


def _mask(escape: re.Match[bytes]) -> bytes:
    first, second = escape.group(1), escape.group(2)
    if first is None or first[:1] not in b"dD" or first[1:2] in b"01234567":
        return escape.group() if second is None else escape.group()[:6] + b"\\ufffd"
    if first[1:2] in b"89abAB" and second is not None:
        return escape.group()
    return b"\\ufffd" if second is None else b"\\ufffd\\ufffd"
