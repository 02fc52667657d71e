"""Old images and documents: which may become a line of text, what they weigh, and what it says.

A line says what stood there, so that the model knows what it once saw, and how to get it back. An
image in a tool's result goes for itself, before anything of the result's text does.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import msgspec

from mitmcontext.condense.conversation import Conversation, said
from mitmcontext.condense.texts import OPENING
from mitmcontext.condense.units import KEPT_RESULTS, Kept, last_typed
from mitmcontext.values import MEDIA, Kind, Medium, Message, Part, Place

# Tokens: what is not more than twice a line is not worth one.
_WORTH_A_LINE: Final = 80.0
_NAMED: Final = 3


class OldMedia:
    """The images and documents of a conversation.

    Attributes:
        tokens: of each part that shows something: all of a block, of a result its images.
        beside: the tokens of each message without these.
        newest: the newest image and the newest document; they stay.
        may_go: those that may become a line, the oldest first.
    """

    def __init__(self, conversation: Conversation, stay: Kept) -> None:
        self._conversation = conversation
        messages = conversation.messages
        nothing = conversation.weigh(said(""), None) if any(_all(messages)) else 0
        self.tokens: dict[Place, float] = {
            place: max(0.0, conversation.weigh(_alone(part), None) - nothing)
            for place, part in _all(messages)
        }
        self.beside = [float(tokens) for tokens in conversation.tokens]
        for (at, _), tokens in self.tokens.items():
            self.beside[at] = max(0.0, self.beside[at] - tokens)
        self.newest = frozenset(_newest(messages))
        kept = {at for at, _ in stay.parts | self.newest}
        kept |= {*_last_answers(messages), last_typed(messages)}
        self.may_go = [
            (at, index)
            for (at, index), part in _all(messages)
            if at not in kept
            and messages[at].editable
            and messages[at].role != "assistant"
            and part.value is not None
            and self.tokens[at, index] > _WORTH_A_LINE
        ]

    def line(self, place: Place) -> str:
        """What stands in the place of an image or a document; behind a result's text, if in one."""
        at, index = place
        part = self._conversation.messages[at].parts[index]
        found = self._conversation.shown(part, at)
        kind = "a document" if part.kind == Kind.DOCUMENT else "an image"
        if len(found) > 1:
            kind = f"{len(found):,} images"
        back = "Run the call again" if part.call_id else "Ask for it again"
        were = "were" if len(found) > 1 else "was"
        told = "; ".join(filter(None, map(described, found[:_NAMED])))
        about = f" ({told})" if told else ""
        line = f"{OPENING} {kind}{about} {were} removed to save context. {back} to see it.]"
        if part.kind == Kind.RESULT and part.text:
            return f"{part.text}\n{line}"
        return line


def described(medium: Medium) -> str:
    """A medium in a few words: PNG, 1280x800 pixels, 24,576 bytes, sha256 1a2b3c4d."""
    pieces = [
        medium.format,
        f"{medium.width}x{medium.height} pixels" if medium.width else "",
        f"{medium.size:,} bytes, sha256 {medium.sha}" if medium.sha else "",
        medium.link,
    ]
    return ", ".join(filter(None, pieces))


def _all(messages: Sequence[Message]) -> Iterator[tuple[Place, Part]]:
    for at, message in enumerate(messages):
        for index, part in enumerate(message.parts):
            if part.kind in MEDIA or (part.kind == Kind.RESULT and part.images):
                yield (at, index), part


def _alone(part: Part) -> Message:
    """A message that shows what the part does, and of a result nothing else."""
    if part.kind == Kind.RESULT:
        part = msgspec.structs.replace(part, kind=Kind.IMAGE, text="")
    return Message("user", (part,), b"")


def _newest(messages: Sequence[Message]) -> Iterator[Place]:
    found = [(place, part.kind == Kind.DOCUMENT) for place, part in _all(messages)]
    for wanted in (False, True):
        yield from [place for place, is_document in found if is_document is wanted][-1:]


def _last_answers(messages: Sequence[Message]) -> list[int]:
    """The messages with the last answers to calls, be they nothing but images."""
    answers = dict.fromkeys(
        (at, part.call_id or part.name or str(index))
        for at, message in enumerate(messages)
        for index, part in enumerate(message.parts)
        if part.kind == Kind.RESULT or (part.kind in MEDIA and part.call_id)
    )
    return [at for at, _ in list(answers)[-KEPT_RESULTS:]]
