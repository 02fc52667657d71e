"""What belongs together in a history, and what of it may go.

A tool call and its results are one unit, and so is a model's message with the observation that
answers it as text. A unit goes whole or stays whole.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from mitmcontext.values import Kind, Message, Part, Span

KEPT_RESULTS: Final = 3


@dataclass(frozen=True, slots=True)
class Kept:
    """What must stay as it is.

    Attributes:
        messages: indices of messages that are never folded.
        parts: (message, part) of results that are never shortened.
        units: every unit, in order.
    """

    messages: frozenset[int]
    parts: frozenset[tuple[int, int]]
    units: tuple[Span, ...]


def units(messages: Sequence[Message]) -> tuple[Span, ...]:
    """The units of a history as spans of message indices.

    Where calls and results are items of their own, a unit goes on while a call waits for its
    result, and over all that the model said in one go: reasoning and the item behind it.
    """
    found: list[Span] = []
    start = 0
    waiting: set[str] = set()
    for at, message in enumerate(messages):
        if at and not (_answers(message) or waiting or _goes_on(messages[at - 1], message)):
            found.append(Span(start, at))
            start = at
        if message.item:
            waiting |= {_ticket(part) for part in message.parts if part.kind == Kind.CALL}
            waiting -= _answered(message)
    return (*found, Span(start, len(messages))) if messages else ()


def _goes_on(before: Message, message: Message) -> bool:
    """Whether two items are of one answer of the model."""
    return message.item and message.role == before.role == "assistant"


def last_typed(messages: Sequence[Message]) -> int:
    """The index of the last message with typed text; -1 where nobody typed."""
    return max((at for at, message in enumerate(messages) if has_typed(message)), default=-1)


def has_typed(message: Message) -> bool:
    """Whether a person typed some of this message."""
    return any(part.kind == Kind.TYPED for part in message.parts)


def unpaired(messages: Sequence[Message]) -> frozenset[str]:
    """Ids of calls without a result right behind them, and of results without such a call.

    Results must follow in the messages directly behind the call, before anything else; where
    calls and results are items of their own they may stand anywhere behind it.
    """
    broken: set[str] = set()
    waiting: list[str] = []
    for message in messages:
        answered = _answered(message)
        broken |= answered - set(waiting)
        for part in message.parts:
            # One by one: where an API has no ids, several calls have the same ticket.
            if _ticket(part) in answered.intersection(waiting) and part.kind != Kind.CALL:
                waiting.remove(_ticket(part))
        if not answered and not message.item:
            broken |= set(waiting)
            waiting = []
        waiting += [_ticket(part) for part in message.parts if part.kind == Kind.CALL]
    return frozenset(broken | set(waiting))


def kept(messages: Sequence[Message]) -> Kept:
    """What must stay: what a user and an agent cannot do without.

    System and developer messages, the first user's message and the first typed one (either may be
    the task), the last typed message, the newest exchange, the last three results, messages that
    are odd or hold opaque items, and what holds thinking since the last typed turn.
    """
    spans = units(messages)
    typed = last_typed(messages)
    tasks = {_first(messages, _is_users), _first(messages, has_typed)} - {-1}
    newest = set(range(*spans[-1])) if spans else set()
    results = [
        (at, index)
        for at, message in enumerate(messages)
        for index, part in enumerate(message.parts)
        if part.kind == Kind.RESULT
    ][-KEPT_RESULTS:]
    whole = newest | tasks
    stay = {at for at, message in enumerate(messages) if _is_fixed(message, at > typed)}
    stay |= whole | {at for at, _ in results} | {typed}
    parts = {(at, index) for at in whole for index in range(len(messages[at].parts))}
    return Kept(frozenset(stay), frozenset(parts | set(results)), spans)


def _first(messages: Sequence[Message], is_it: Callable[[Message], bool]) -> int:
    return next((at for at, message in enumerate(messages) if is_it(message)), -1)


def _is_users(message: Message) -> bool:
    return message.role == "user"


def _ticket(part: Part) -> str:
    """What ties a result to its call: the id, or in OpenAI's older form the function's name."""
    return part.call_id or part.name


def _answered(message: Message) -> set[str]:
    """The calls that a message answers, with whatever: the result may be nothing but an image."""
    return {_ticket(part) for part in message.parts if part.kind != Kind.CALL} - {""}


def _answers(message: Message) -> bool:
    """Whether a message only answers the one before it: results, and no text of a person."""
    if message.role == "assistant":
        return False
    observed = any(part.kind == Kind.RESULT for part in message.parts)
    return bool(_answered(message)) or (observed and not has_typed(message))


def _is_fixed(message: Message, current: bool) -> bool:
    return (
        not message.editable
        or message.role not in ("user", "assistant", "tool", "function")
        or any(
            part.kind == Kind.OPAQUE or (current and part.kind == Kind.THINKING)
            for part in message.parts
        )
    )
