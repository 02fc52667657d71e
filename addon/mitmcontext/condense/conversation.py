"""A conversation as a strategy sees it, and the draft of what is done to it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import msgspec

from mitmcontext.condense.entries import WHOLE, FrozenEdit
from mitmcontext.values import MEDIA, Kind, Medium, Message, Part, Span


def _not_told(_: Part, __: int) -> tuple[Medium, ...]:
    return ()


@dataclass(frozen=True, slots=True)
class Conversation:
    """The client's history with its estimated tokens.

    Attributes:
        messages: as the client sent them.
        tokens: of each message.
        fixed: tokens of everything else (system prompt, tools, the request itself).
        frozen: the edits that hold already.
        weigh: the estimated tokens of any message; the second argument is the index of the
            client's message that it is made of, None if of many.
        shown: the images and documents in a part of the client's message with this index.
    """

    messages: Sequence[Message]
    tokens: Sequence[int]
    fixed: int
    frozen: tuple[FrozenEdit, ...]
    weigh: Callable[[Message, int | None], int]
    shown: Callable[[Part, int], tuple[Medium, ...]] = _not_told


@dataclass(frozen=True, slots=True)
class Room:
    """What there is room for, in tokens.

    `target` is what to come down to. `fits` is what surely fits where the request as it is may
    not, so that typed text too may be clipped; None where it does. A strategy may go down to
    `least`, so that the next step is further away, and stop at `most` where so much of it has to
    stay that nothing else would be left; each is the target where it is not given.
    """

    target: int
    fits: int | None
    least: int | None = None
    most: int | None = None


def said(text: str) -> Message:
    """A user's message that holds this text, to weigh it."""
    return Message("user", (Part(Kind.TYPED, text, Span(0, 0)),), b"")


def with_texts(message: Message, texts: Mapping[int, str | None]) -> Message:
    """The message with other texts in some of its parts, without those of None, to weigh it."""
    parts: list[Part] = []
    for at, part in enumerate(message.parts):
        if at not in texts:
            parts.append(part)
        elif (text := texts[at]) is not None:
            parts.append(_saying(part, text))
    return msgspec.structs.replace(message, parts=tuple(parts))


def _saying(part: Part, text: str) -> Part:
    """The part with another text and nothing beside it; an image or a document becomes text."""
    kind = Kind.TYPED if part.kind in MEDIA else part.kind
    return msgspec.structs.replace(part, kind=kind, text=text, images=0, pictures=())


def stubs_of(edits: Iterable[FrozenEdit]) -> dict[int, dict[int, str | None]]:
    """Message index to part index to text, of the edits that shorten parts; None removes one."""
    found: dict[int, dict[int, str | None]] = {}
    for edit in edits:
        if edit.part != WHOLE:
            found.setdefault(edit.message, {})[edit.part] = edit.text
    return found


def folded_by(edits: Iterable[FrozenEdit]) -> frozenset[int]:
    """The indices of the messages that edits fold away."""
    return frozenset(edit.message for edit in edits if edit.part == WHOLE)
