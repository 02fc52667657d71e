"""The words that take the place of what was shortened.

They are written for the model that reads them: what stood there, what is left, and how to get the
rest back. The same original always gives the same words, so a prefix stays the same to the byte.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Final

from mitmcontext.values import Kind, Message, Part

OPENING: Final = "[mitmcontext:"
"""How each text of ours begins: a result that begins so is never shortened again."""

_HEAD: Final = 500
_TAIL: Final = 300
_INDEX: Final = 300
_SAID: Final = 240
_CALL: Final = 160
# Names that a later turn may ask for: paths, dotted and snake_case names, CamelCase, hex digests.
# Words are taken first, without backtracking, since tool results may hold a megabyte of one letter.
_WORD: Final = re.compile(r"[\w~./-]++")
_NAME: Final = re.compile(
    r"[\w~.-]*+/[\w./~-]*+|[^\W_]++(?:[._]++[^\W_]++)++|[A-Z][a-z0-9]++(?:[A-Z][a-z0-9]*+)++"
    r"|[0-9a-f]{7,40}"
)
_NAME_LENGTH: Final = range(5, 81)


def stub(part: Part) -> str:
    """What takes the place of an old tool result: its head and tail, and an index of the rest."""
    text = part.text
    head, middle, tail = _cut(text)
    lines = text.count("\n") + 1
    opening = (
        f"{OPENING} an older tool result was shortened to save context; it had {len(text):,} "
        f"characters in {lines:,} lines (sha256 {_sha(text)}). Run the call again to see it all.]"
    )
    pieces = [
        opening,
        head,
        f"[... {len(middle):,} characters left out ...]",
        tail,
    ]
    index = _index(middle, f"{head}\n{tail}")
    if index:
        pieces.append(f"[names in what was left out: {index}]")
    return "\n".join(piece for piece in pieces if piece)


def brief_stub(part: Part) -> str:
    """The strongest form of a stub: that something stood there, and how to get it back."""
    return (
        f"{OPENING} an older tool result of {len(part.text):,} characters was removed to save "
        f"context (sha256 {_sha(part.text)}). Run the call again to see it.]"
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


def note(messages: Sequence[Message]) -> str:
    """What a fold keeps of one unit: typed text word for word, the rest in a line each."""
    return _lines(line for message in messages for line in _note(message))


def typed_note(messages: Sequence[Message]) -> str:
    """What is kept of a unit that is dropped: only what a person typed."""
    return _lines(
        _typed(part.text)
        for message in messages
        for part in message.parts
        if part.kind is Kind.TYPED
    )


def clipped_note(messages: Sequence[Message]) -> str:
    """As `typed_note`, each text cut to head and tail: only where nothing else makes it fit."""
    return _lines(
        _typed(_clip(part.text, _HEAD + _TAIL))
        for message in messages
        for part in message.parts
        if part.kind is Kind.TYPED
    )


def _note(message: Message) -> Iterable[str]:
    for part in message.parts:
        match part.kind:
            case Kind.TYPED:
                yield _typed(part.text)
            case Kind.PROSE if part.text.strip():
                yield f"- The assistant wrote: {_clip(part.text, _SAID)}"
            case Kind.CALL:
                yield f"- The assistant called {_clip(part.text, _CALL)}"
            case Kind.RESULT if part.text.strip():
                yield f"  Result: {_clip(part.text, _CALL)}"
            case Kind.IMAGE:
                yield "- An image was shown."
            case Kind.DOCUMENT:
                yield "- A document was shown."
            case _:
                pass


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
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:16]


def _cut(text: str) -> tuple[str, str, str]:
    """Head, middle and tail, cut at line ends where that costs little."""
    at, end = min(_HEAD, len(text)), max(_HEAD, len(text) - _TAIL)
    line = text.rfind("\n", _HEAD // 2, at)
    at = line if line > 0 else at
    line = text.find("\n", end, end + _TAIL // 2)
    end = line + 1 if line > 0 else end
    return text[:at], text[at:end], text[end:]


def _index(text: str, seen: str) -> str:
    """The names in a text that do not stand in what is kept, the most frequent first."""
    words = Counter(word.strip(".-") for word in _WORD.findall(text[:200_000]))
    names = Counter(
        {
            word: count
            for word, count in words.items()
            if len(word) in _NAME_LENGTH and _NAME.fullmatch(word)
        }
    )
    found, size = [], 0
    for name, _ in names.most_common(60):
        if name in seen:
            continue
        size += len(name) + 2
        if size > _INDEX:
            break
        found.append(name)
    return ", ".join(found)
