"""What a rewritten history must still be. Each rule is one function, listed once.

They look at the client's messages and at those of the finished body, read again from its bytes,
and say what is broken, or nothing. The client's own faults are not ours to judge: a history that
is broken as it came is never rewritten (`units.unpaired`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from itertools import pairwise
from typing import Final

from mitmcontext.condense.entries import WHOLE
from mitmcontext.condense.units import KEPT_RESULTS, last_typed, unpaired
from mitmcontext.values import Kind, Message, Place

Messages = Sequence[Message]
Invariant = Callable[[Messages, Messages], str]


def calls_keep_their_results(before: Messages, after: Messages) -> str:
    """Each call has its results right behind it, and each result its call."""
    return "a tool call without its result" if unpaired(after) else ""


def no_text_is_empty(before: Messages, after: Messages) -> str:
    """No text that was not empty before is empty now (providers refuse empty texts)."""
    return "an empty text" if _empty(after) > _empty(before) else ""


def markers_do_not_grow(before: Messages, after: Messages) -> str:
    """There are no more cache markers than the client set."""
    grown = sum(m.markers for m in after) > sum(m.markers for m in before)
    return "more cache markers than before" if grown else ""


def the_first_message_stays(before: Messages, after: Messages) -> str:
    """The first message is the client's own."""
    return "" if after and after[0].digest == before[0].digest else "another first message"


def the_last_message_stays(before: Messages, after: Messages) -> str:
    """The last message is the client's own."""
    same = after and after[-1].digest == before[-1].digest
    return "" if same else "the last message was changed"


def turns_alternate(before: Messages, after: Messages) -> str:
    """Where a history is nothing but user and assistant taking turns, it still is.

    With tool calls in it two user messages in a row are no fault: providers join them.
    """
    return "turns no longer alternate" if _alternates(before) and not _alternates(after) else ""


def system_stays(before: Messages, after: Messages) -> str:
    """System and developer messages and opaque items are all there, in order."""
    kinds = (Kind.SYSTEM, Kind.OPAQUE)
    same = _digests(before, *kinds) == _digests(after, *kinds)
    return "" if same else "a system message or an opaque item was changed"


def typed_text_stays(before: Messages, after: Messages) -> str:
    """What people typed is still there, word for word (in a note: each line marked)."""
    stands = "\n".join(part.text for message in after for part in message.parts)
    unmarked = stands.replace("\n> ", "\n")
    for message in before:
        for part in message.parts:
            if part.kind == Kind.TYPED and part.text not in unmarked and part.text not in stands:
                return "typed text is missing"
    return ""


def last_results_stay(before: Messages, after: Messages, held: Collection[Place]) -> str:
    """The last results are the client's own, or as they were forwarded before.

    Somebody who goes back in a conversation may end it where results were shortened already.
    """
    results = [
        (at, index, part.digest)
        for at, message in enumerate(before)
        for index, part in enumerate(message.parts)
        if part.kind == Kind.RESULT
    ][-KEPT_RESULTS:]
    wanted = [d for at, index, d in results if not {(at, index), (at, WHOLE)} & set(held)]
    stands = [digest for digest in _digests(after, Kind.RESULT) if digest in wanted]
    same = stands[len(stands) - len(wanted) :] == wanted
    return "" if same else "one of the last results was changed"


def no_role_twice(before: Messages, after: Messages) -> str:
    """Where no role stands twice in a row, none does (for APIs that refuse this)."""
    return "turns no longer alternate" if _in_turn(before) and not _in_turn(after) else ""


def thinking_stays_with_its_calls(before: Messages, after: Messages) -> str:
    """In the turn that is under way each call has the thinking that stood beside it."""
    beside: dict[bytes, list[list[bytes]]] = {}
    for message in before:
        for digest in _digests([message], Kind.CALL):
            beside.setdefault(digest, []).append(_digests([message], Kind.THINKING))
    for message in after[_turn_under_way(after) :]:
        stands = _digests([message], Kind.THINKING)
        calls = _digests([message], Kind.CALL)
        if any(digest in beside and stands not in beside[digest] for digest in calls):
            return "a tool call without its thinking"
    return ""


def _turn_under_way(messages: Messages) -> int:
    """Where the turn begins that is under way, to the strictest provider.

    That is at the last message of a user without any result, neighbours taken together.
    """
    found, start, answers = 0, -1, False
    for at, message in enumerate(messages):
        if message.role == "assistant":
            found = start if start >= 0 and not answers else found
            start, answers = -1, False
        elif message.role not in ("system", "developer"):
            start = at if start < 0 else start
            answers |= any(part.call_id for part in message.parts)
    return start if start >= 0 and not answers else found


INVARIANTS: Final[tuple[Invariant, ...]] = (
    calls_keep_their_results,
    no_text_is_empty,
    markers_do_not_grow,
    the_first_message_stays,
    the_last_message_stays,
    turns_alternate,
    system_stays,
    thinking_stays_with_its_calls,
)
"""What holds for every rewritten history. Typed text may be clipped where nothing else fits."""


def thinking_stays(before: Messages, after: Messages, held: Collection[Place]) -> str:
    """Thinking since the last typed turn is whole and in order; no older block is altered.

    What was folded away before stays away, also for somebody who goes back to that turn.
    """
    typed = last_typed(before)
    current = [m for at, m in enumerate(before) if at > typed and (at, WHOLE) not in held]
    newer, stands = _digests(current, Kind.THINKING), _digests(after, Kind.THINKING)
    altered = Counter(stands) - Counter(_digests(before, Kind.THINKING))
    same = not altered and stands[max(0, len(stands) - len(newer)) :] == newer
    return "" if same else "a thinking block was changed"


def broken(
    before: Messages,
    after: Messages,
    *,
    typed: bool = True,
    in_turn: bool = False,
    held: Collection[Place] = (),
) -> str:
    """The first invariant that does not hold, in words, or "".

    Args:
        before: the client's messages.
        after: those of the finished body.
        typed: whether typed text has to be there word for word.
        in_turn: whether the API refuses two messages of one role in a row.
        held: the parts, by message and index, that are frozen in a shorter form already.
    """
    rules = (*INVARIANTS, typed_text_stays) if typed else INVARIANTS
    rules = (*rules, no_role_twice) if in_turn else rules
    fault = next((fault for rule in rules if (fault := rule(before, after))), "")
    return fault or last_results_stay(before, after, held) or thinking_stays(before, after, held)


def _empty(messages: Messages) -> int:
    kinds = (Kind.TYPED, Kind.PROSE)
    return sum(
        1
        for message in messages
        if not message.parts or any(p.kind in kinds and not p.text.strip() for p in message.parts)
    )


def _digests(messages: Messages, *kinds: Kind) -> list[bytes]:
    return [part.digest for message in messages for part in message.parts if part.kind in kinds]


def _alternates(messages: Messages) -> bool:
    if _digests(messages, Kind.CALL):
        return False
    roles = [m.role for m in messages if m.role not in ("system", "developer")]
    return set(roles) <= {"user", "assistant"} and all(a != b for a, b in pairwise(roles))


def _in_turn(messages: Messages) -> bool:
    return all(before.role != after.role for before, after in pairwise(messages))
