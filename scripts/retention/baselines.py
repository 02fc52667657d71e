"""Crude ways to make a history shorter, to compare with."""

from __future__ import annotations

from collections.abc import Sequence

from mitmcontext.condense.conversation import with_texts
from mitmcontext.condense.units import units
from mitmcontext.values import Kind, Message

_CLEARED = "[Old tool result content cleared]"


def drop_oldest(
    messages: Sequence[Message], tokens: Sequence[int], gone: frozenset[int], target: float
) -> frozenset[int]:
    """The messages to drop: whole units, the oldest first; system, task and newest unit stay."""
    spans = units(messages)
    task = next((at for at, message in enumerate(messages) if message.role == "user"), 0)
    fixed = {at for at, m in enumerate(messages) if m.role in ("system", "developer")} | {task}
    total = sum(weight for at, weight in enumerate(tokens) if at not in gone)
    for span in spans[:-1]:
        if total <= target:
            break
        for at in range(*span):
            if at not in fixed and at not in gone:
                gone |= {at}
                total -= tokens[at]
    return gone


def cleared(
    messages: Sequence[Message], keep: int, places: frozenset[tuple[int, int]] | None = None
) -> list[Message]:
    """The messages with all but the last results replaced by a line, or just those at `places`."""
    if places is None:
        places = frozenset(result_places(messages)[:-keep])
    found = list(messages)
    for at, index in places:
        found[at] = _blank(found[at], index)
    return found


def _blank(message: Message, index: int) -> Message:
    made = with_texts(message, {index: _CLEARED})
    return Message(made.role, made.parts, b"cleared" + index.to_bytes(2, "big") + message.digest)


def result_places(messages: Sequence[Message]) -> list[tuple[int, int]]:
    """Message and part of each tool result, in order."""
    return [
        (at, index)
        for at, message in enumerate(messages)
        for index, part in enumerate(message.parts)
        if part.kind is Kind.RESULT
    ]
