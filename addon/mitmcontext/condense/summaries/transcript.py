"""A stretch of a conversation as text for a model to read.

What it holds may have been written by anybody: web pages, files, tools. So each message is
announced by a line with a mark that stands nowhere in the text itself, and the prompt says that
only such lines tell who speaks. The mark is made of the text, so that the same stretch makes the
same question.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Final, NamedTuple

from mitmcontext.values import Kind, Message

_MARK: Final = 12
_LEAST_SHOWN: Final = 200
_OF_ENVIRONMENT: Final = 400
_SPEAKERS: Final = {
    Kind.TYPED: "the user typed",
    Kind.PROSE: "the assistant said",
    Kind.CALL: "the assistant called a tool",
    Kind.RESULT: "a tool's result",
    Kind.ENVIRONMENT: "added by the client program",
    Kind.IMAGE: "an image",
    Kind.DOCUMENT: "a document",
}


class Transcript(NamedTuple):
    """Text, and the mark that begins each line of it which tells who speaks."""

    text: str
    mark: str


class _Piece(NamedTuple):
    number: int
    speaker: str
    text: str
    # May be cut to fit.
    large: bool


def transcript(messages: Sequence[Message], first: int, limit: int) -> Transcript:
    """Messages as text of about `limit` characters at the most.

    The largest results lose their middle first; what people typed is cut last of all.

    Args:
        messages: of the stretch.
        first: the index of the first of them in its conversation.
        limit: in characters.
    """
    pieces = _pieces(messages, first)
    fits = _cap(pieces, limit)
    return announced(
        [(f"{one.number} {one.speaker}", _cut(one.text, fits[one.large])) for one in pieces]
    )


def announced(told: Sequence[tuple[str, str]]) -> Transcript:
    """Texts one below the other, each behind a line with the mark and a name."""
    mark = _mark([text for _, text in told])
    return Transcript("\n".join(f"{mark} {name}:\n{text}".rstrip() for name, text in told), mark)


def _pieces(messages: Sequence[Message], first: int) -> list[_Piece]:
    found = []
    for at, message in enumerate(messages, first):
        for part in message.parts:
            speaker = _SPEAKERS.get(part.kind)
            if speaker is None or not (part.text.strip() or part.images):
                continue
            shown = part.text
            if part.kind == Kind.ENVIRONMENT:
                shown = _cut(shown, _OF_ENVIRONMENT)
            elif part.kind in (Kind.IMAGE, Kind.DOCUMENT):
                shown = ""
            large = part.kind in (Kind.CALL, Kind.RESULT)
            found.append(_Piece(at + 1, speaker, shown, large))
    return found


def _cap(pieces: Sequence[_Piece], limit: int) -> dict[bool, int]:
    """How many characters of one piece are shown: of calls and results, and of all else."""
    most = max((len(piece.text) for piece in pieces), default=0)
    spoken = sum(len(piece.text) for piece in pieces if not piece.large)
    results = [len(piece.text) for piece in pieces if piece.large]
    caps = {False: most, True: _level(results, limit - spoken)}
    if caps[True] <= _LEAST_SHOWN:
        left = limit - sum(min(size, _LEAST_SHOWN) for size in results)
        caps[False] = _level([len(piece.text) for piece in pieces if not piece.large], left)
    return caps


def _level(sizes: Sequence[int], room: int) -> int:
    """The size to cut the largest to, so that all of them fit; no less than the least shown."""
    left, fewer = room, sorted(sizes)
    for at, size in enumerate(fewer):
        fair = left // (len(fewer) - at)
        if size > fair:
            return max(_LEAST_SHOWN, fair)
        left -= size
    return max(_LEAST_SHOWN, *fewer) if fewer else _LEAST_SHOWN


def _cut(text: str, size: int) -> str:
    if len(text) <= size:
        return text
    head, tail = size * 2 // 3, size // 3
    left_out = f"[... {len(text) - head - tail:,} characters left out ...]"
    return f"{text[:head]}\n{left_out}\n{text[-tail:]}"


def _mark(texts: Sequence[str]) -> str:
    """A mark that stands in none of the texts, and that nobody can know who writes one of them."""
    whole = "\n".join(texts)
    state = hashlib.sha256(whole.encode("utf-8", "replace"))
    while (mark := f"#{state.hexdigest()[:_MARK]}") in whole:
        state.update(b"again")
    return mark
