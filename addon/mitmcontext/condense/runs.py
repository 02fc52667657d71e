"""Unbroken runs of folded messages, and where user and assistant must go on taking turns."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import pairwise

from mitmcontext.values import Kind, Message, Span


def runs_of(folded: Collection[int]) -> list[Span]:
    """The folded messages, by their indices, as unbroken runs."""
    marks = sorted(folded)
    if not marks:
        return []
    breaks = [(a, b) for a, b in pairwise(marks) if b != a + 1]
    starts = [marks[0], *(b for _, b in breaks)]
    ends = [*(a for a, _ in breaks), marks[-1]]
    return [Span(start, end + 1) for start, end in zip(starts, ends, strict=True)]


def parting(messages: Sequence[Message], folded: Collection[int]) -> set[int]:
    """The folded messages that part a note from a user's message, and so have to stand.

    Some servers' chat templates insist on user and assistant taking turns. A note is a user's
    message; a run may begin behind, or end before, a message of the model that calls nothing.
    """
    found: set[int] = set()
    for run in runs_of(folded):
        if _is_plain(messages[run.start]) and _is_users_turn(messages, run.start, -1):
            found.add(run.start)
        if _is_plain(messages[run.end - 1]) and _is_users_turn(messages, run.end - 1, 1):
            found.add(run.end - 1)
    return found


def _is_users_turn(messages: Sequence[Message], at: int, step: int) -> bool:
    """Whether a user speaks next, from a message on or back; system messages are no turns."""
    at += step
    while 0 <= at < len(messages):
        role = messages[at].role
        if role not in ("system", "developer"):
            return role == "user"
        at += step
    return False


def _is_plain(message: Message) -> bool:
    calls = any(part.kind == Kind.CALL for part in message.parts)
    # An item is not a whole turn: reasoning, say, must not be left behind without its message.
    return message.role == "assistant" and not calls and not message.item
