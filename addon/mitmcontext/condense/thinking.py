"""Old thinking: what of it may go, and from when on a turn is surely over.

Providers want thinking back with the calls that it led to until the turn is over, and what ends a
turn differs: to the strictest of them it is a user's message without any tool result, neighbours
of the same role taken together. So nothing counts as over that is not followed by such a message,
which the model has answered already and which stays.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Final

from mitmcontext.condense.units import Kept, has_typed
from mitmcontext.values import Kind, Message, Place

_PROMPTS: Final = ("system", "developer")


def turn_started(messages: Sequence[Message], folded: Collection[int] = ()) -> int:
    """The last message behind which a turn has surely begun, and been answered; -1 if none is.

    Args:
        messages: of the conversation.
        folded: those that do not stand any more.
    """
    said = [at for at, message in enumerate(messages) if message.role not in _PROMPTS]
    for before, at, behind in reversed(list(zip(said, said[1:], said[2:], strict=False))):
        alone = messages[before].role == messages[behind].role == "assistant"
        if alone and at not in folded and _begins(messages[at]):
            return at
    return -1


def _begins(message: Message) -> bool:
    answers = any(part.kind == Kind.RESULT or part.call_id for part in message.parts)
    return message.role == "user" and has_typed(message) and not answers


def old_thinking(messages: Sequence[Message], stay: Kept, until: int) -> Iterator[list[Place]]:
    """The thinking of each message that may go, the oldest first: all of a message, or none.

    Args:
        messages: of the conversation.
        stay: what must stay as it is.
        until: the message that the thinking must be older than.
    """
    kept = {at for at, _ in stay.parts}
    for at, message in enumerate(messages[: max(0, until)]):
        thoughts = [i for i, part in enumerate(message.parts) if part.kind == Kind.THINKING]
        if (
            thoughts
            and len(thoughts) < len(message.parts)
            and message.editable
            and at not in kept
            and all(message.parts[index].removable for index in thoughts)
        ):
            yield [(at, index) for index in thoughts]
