"""The words that take the place of what was shortened.

They are written for the model that reads them: what stood there, what is left, and how to get the
rest back. The same original always gives the same words, so a prefix stays the same to the byte.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Container, Iterable, Sequence
from typing import Final

import msgspec

from mitmcontext.values import Kind, Message, Part

OPENING: Final = "[mitmcontext:"
"""How each text of ours begins: a result that begins so is never shortened again."""

_HEAD: Final = 500
_TAIL: Final = 300
_LONG_SAID: Final = 160
_LONG_CALL: Final = 3_000
_LATER: Final = " [... said again later]"
_SAID: Final = 120
_CALL: Final = 160
_RESULT: Final = 80
# Names that a later turn may ask for: paths, dotted and snake_case names, CamelCase, hex digests.
# Words are taken first, without backtracking, since tool results may hold a megabyte of one letter.
_WORD: Final = re.compile(r"[\w~./-]++")
_NAME: Final = re.compile(
    r"[\w~.-]*+/[\w./~-]*+|[^\W_]++(?:[._]++[^\W_]++)++|[A-Z][a-z0-9]++(?:[A-Z][a-z0-9]*+)++"
    r"|[0-9a-f]{7,40}"
)
_SEARCHED: Final = 200_000
_NAMES: Final = 200
_NAME_LENGTH: Final = range(5, 81)


def shortened(text: str, kept: Sequence[tuple[int, int]], names: str = "") -> str:
    """What takes the place of an old tool result: the stretches of it that are kept.

    Args:
        text: of the result.
        kept: the stretches, by characters, in order; they do not touch.
        names: an index of what was left out.
    """
    lines = text.count("\n") + 1
    pieces = [
        (
            f"{OPENING} shortened; this result had {len(text):,} characters, {lines:,} lines, "
            f"sha256 {_sha(text)}. Run the call again to see all.]"
        )
    ]
    at = 0
    for start, end in (*kept, (len(text), len(text))):
        if start > at:
            pieces.append(_gap(text, at, start))
        if end > start:
            pieces.append(text[start:end].removesuffix("\n"))
        at = end
    if names:
        pieces.append(f"[names in what was left out: {names}]")
    return "\n".join(pieces)


def _gap(text: str, start: int, end: int) -> str:
    lines = text.count("\n", start, end)
    if lines:
        return f"[... {lines:,} lines ...]" if lines > 1 else "[... 1 line ...]"
    return f"[... {end - start:,} characters ...]"


def brief_stub(part: Part) -> str:
    """The strongest form of a stub: that something stood there, and how to get it back."""
    return (
        f"{OPENING} a result of {len(part.text):,} characters was removed, sha256 "
        f"{_sha(part.text)}. Run the call again to see it.]"
    )


def environment_stub(part: Part) -> str:
    """What takes the place of an environment block that a newer one follows."""
    return (
        f"{OPENING} an older environment block of {len(part.text):,} characters, removed to save "
        f"context, sha256 {_sha(part.text)}. A newer one follows.]"
    )


def is_ours(text: str) -> bool:
    """Whether a text begins as ours do."""
    return text.startswith(OPENING)


def fold_opening(messages: int) -> str:
    """The first line of a note that takes the place of so many messages."""
    return (
        f"{OPENING} {messages:,} earlier messages of this conversation were condensed into this "
        "note to save context. It is a record of what happened, not a new request.]"
    )


def note(messages: Sequence[Message], newer: Container[str] = ()) -> str:
    """What a fold keeps of one unit: typed text word for word, results in a line each.

    What the agent itself said and called stays as far as it is of usual length, but for lines
    that it said anew later.

    Args:
        messages: of the unit.
        newer: lines, without spaces around them, that stand in what the agent said later.
    """
    return _lines(
        line for message in messages for line in _note(message, _LONG_SAID, _LONG_CALL, newer)
    )


def short_note(messages: Sequence[Message], newer: Container[str] = ()) -> str:
    """As `note`, with a line each of what the agent said and called."""
    return _lines(line for message in messages for line in _note(message, _SAID, _CALL, newer))


def typed_note(messages: Sequence[Message], newer: Container[str] = ()) -> str:
    """What is kept of a unit that is dropped: only what a person typed."""
    return _lines(
        _typed(part.text)
        for message in messages
        for part in message.parts
        if part.kind is Kind.TYPED
    )


def clipped_note(messages: Sequence[Message], newer: Container[str] = ()) -> str:
    """As `typed_note`, each text cut to head and tail: only where nothing else makes it fit."""
    return _lines(
        _typed(_clip(part.text, _HEAD + _TAIL))
        for message in messages
        for part in message.parts
        if part.kind is Kind.TYPED
    )


def _note(message: Message, saying: int, calling: int, newer: Container[str]) -> Iterable[str]:
    for part in message.parts:
        match part.kind:
            case Kind.TYPED:
                yield _typed(part.text)
            case Kind.PROSE if part.text.strip():
                yield f"- The assistant wrote: {_prose(part.text, saying, calling, newer)}"
            case Kind.CALL:
                yield f"- The assistant called {_call(part, calling, newer)}"
            case Kind.RESULT if part.text.strip():
                yield f"  Result: {_clip(_body(part.text), _RESULT)}"
            case Kind.IMAGE:
                yield "- An image was shown."
            case Kind.DOCUMENT:
                yield "- A document was shown."
            case _:
                pass


def _body(text: str) -> str:
    """A result's text, of one that is shortened already without our words about it."""
    return text.partition("\n")[2] if is_ours(text) else text


def _prose(text: str, size: int, calling: int, newer: Container[str]) -> str:
    """What the agent wrote, clipped; commands in fences stay like calls, line by line."""
    pieces = text.split("```")
    if len(pieces) < 3:
        return _clip(text, size)
    said = " ".join(pieces[::2])
    return "\n".join([_clip(said, size), *(_marked(code, calling, newer) for code in pieces[1::2])])


def _call(part: Part, size: int, newer: Container[str]) -> str:
    """A call: its name and its arguments as they read without JSON's escapes, line by line."""
    given = part.text[len(part.name) :].strip()
    try:
        found = msgspec.json.decode(given.encode("utf-8", "replace"))
    except (msgspec.MsgspecError, RecursionError):
        found = None
    if size < _LONG_CALL or not isinstance(found, dict):
        return _clip(part.text, size)
    lines = [
        f"{key}: {value if isinstance(value, str) else msgspec.json.encode(value).decode()}"
        for key, value in found.items()
    ]
    return f"{_clip(part.name, _CALL)}\n{_marked(chr(10).join(lines), size, newer)}"


def _marked(text: str, size: int, newer: Container[str]) -> str:
    """Lines of the agent's own, each set in by a space; of a long text beginning and end."""
    lines: list[str] = []
    for line in text.strip("\n").split("\n"):
        bare = line.strip()
        if bare in newer:
            if lines[-1:] != [_LATER]:
                lines.append(_LATER)
        elif bare:
            lines.append(f" {line}")
    kept = "\n".join(lines)
    if len(kept) <= size:
        return kept
    head, tail = kept[: size * 2 // 3], kept[-size // 3 :]
    return f"{head[: head.rfind(chr(10)) + 1 or None]} [...]\n {tail.partition(chr(10))[2] or tail}"


def _typed(text: str) -> str:
    """Typed text, every line marked, so that nothing in it can pass for a line of ours."""
    return "The user wrote:\n" + "\n".join(f"> {line}" for line in text.split("\n"))


def _lines(lines: Iterable[str]) -> str:
    return "\n".join(lines)


def _clip(text: str, size: int) -> str:
    """The text on one line, at most about `size` characters: its beginning and its end."""
    line = " ".join(text.split())
    if len(line) <= size:
        return line
    return f"{line[: size * 2 // 3]} [...] {line[-size // 3 :]}"


def _sha(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:8]


def names_in(text: str) -> list[str]:
    """The names in a text, the most frequent first."""
    words = Counter(word.strip(".-") for word in _WORD.findall(text[:_SEARCHED]))
    found = Counter(
        {
            word: count
            for word, count in words.items()
            if len(word) in _NAME_LENGTH and _NAME.fullmatch(word)
        }
    )
    return [name for name, _ in found.most_common(_NAMES)]


def words_in(text: str) -> set[str]:
    """All that might be one of `names_in`."""
    return {word.strip(".-") for word in _WORD.findall(text[:_SEARCHED])}


def index(names: Iterable[str], size: int) -> str:
    """As many of the names as fit into so many characters."""
    found: list[str] = []
    for name in names:
        size -= len(name) + 2
        if size < 0:
            break
        found.append(name)
    return ", ".join(found)
