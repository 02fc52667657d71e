"""What is kept of a request in its flow: a plain, bounded dict, safe to show.

It is saved with the flow and read back, also by a later version of this code; then it may come out
of a file that somebody else wrote, so that it is bounded and cleaned again.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from math import isfinite
from typing import Any, Final

from mitmcontext.proxy.safe import line, neutral
from mitmcontext.values import Action, Change, Level, Money, Outcome

KEY: Final = "mitmcontext"
"""Where in `flow.metadata` the dict is, and what the view is called."""

_MAX_CHANGES: Final = 300
# Characters of all excerpts of a flow together; they live as long as it.
_EXCERPTS: Final = 64 * 1024
_LONGEST_EXCERPT: Final = 2000
# So many conversations' changes, as they are shown, of at most those characters.
_REMEMBERED: Final = 32


def to_metadata(outcome: Outcome) -> dict[str, Any]:
    """The outcome in plain values, bounded and safe to show, for `flow.metadata[KEY]`."""
    shown = outcome.changes[:_MAX_CHANGES]
    room = min(_LONGEST_EXCERPT, _EXCERPTS // (2 * len(shown))) if shown else 0
    return {
        "version": 1,
        "action": outcome.action.value,
        "reason": line(outcome.reason),
        "api": line(outcome.api),
        "model": line(outcome.model),
        "level": outcome.level.value,
        "room": outcome.room,
        "sent": outcome.sent,
        "forwarded": outcome.forwarded,
        "steps": outcome.steps,
        "freed": outcome.freed,
        "messages": outcome.messages,
        "milliseconds": float(outcome.milliseconds),
        "waited": float(outcome.waited),
        "changes": [dict(change) for change in _changes_to_metadata(tuple(shown), room)],
        "changes_in_all": len(outcome.changes),
        "predicted": outcome.predicted,
    }


def money_to_metadata(money: Money) -> dict[str, Any]:
    """What joins the dict once the provider has reported what the request used."""
    return {"money": [money.known, *map(float, money[1:])]}


def report_to_metadata(estimated: int, reported: int) -> dict[str, Any]:
    """What joins the dict once the provider has reported how large the request was, in tokens."""
    return {"reported": [estimated, reported]}


def told_by_provider(metadata: Mapping[Any, Any]) -> dict[str, Any]:
    """What the provider reported, out of a flow's metadata, as it stands there."""
    kept = metadata.get(KEY)
    found = kept if isinstance(kept, Mapping) else {}
    return {name: found[name] for name in ("money", "reported") if name in found}


def was_rewritten(metadata: Mapping[Any, Any]) -> bool:
    """Whether what went out is not what the client sent."""
    kept = metadata.get(KEY)
    action = kept.get("action") if isinstance(kept, Mapping) else None
    return action in (Action.CONDENSED.value, Action.REAPPLIED.value)


def reported_in(metadata: Mapping[Any, Any]) -> tuple[int, int] | None:
    """The estimate of what went out, and the provider's own count, in tokens; None if unknown."""
    match metadata.get(KEY):
        case {"reported": [int(estimated), int(reported)]} if reported > 0:
            return estimated, reported
    return None


def money_in(metadata: Mapping[Any, Any]) -> Money | None:
    """What the request has cost and saved; None where nobody said what it used."""
    match told_by_provider(metadata):
        case {"money": [bool(known), *figures]} if len(figures) == len(Money._fields) - 1:
            if all(isinstance(figure, int | float) and isfinite(figure) for figure in figures):
                return Money(known, *map(float, figures))
    return None


@lru_cache(maxsize=_REMEMBERED)
def _changes_to_metadata(changes: tuple[Change, ...], room: int) -> tuple[dict[str, Any], ...]:
    """A conversation's changes are the same from turn to turn; so are then the strings."""
    return tuple(_change_to_metadata(change, room) for change in changes)


def _change_to_metadata(change: Change, room: int) -> dict[str, Any]:
    return {
        "what": line(change.what),
        "first": change.first,
        "last": change.last,
        "kind": line(change.kind),
        "tokens_before": change.tokens_before,
        "tokens_after": change.tokens_after,
        "before": _excerpt(change.before, room),
        "after": _excerpt(change.after, room),
        "new": change.new,
    }


def from_metadata(metadata: object) -> Outcome | None:
    """The outcome again, or None if this is nothing that `to_metadata` made.

    It may come out of a file that somebody else wrote, so that it is bounded and cleaned again.
    """
    if not isinstance(metadata, Mapping):
        return None
    try:
        outcome = Outcome(
            action=Action(metadata["action"]),
            reason=_text(metadata["reason"]),
            api=_text(metadata["api"]),
            model=_text(metadata["model"]),
            level=Level(metadata["level"]),
            room=int(metadata["room"]),
            sent=int(metadata["sent"]),
            forwarded=int(metadata["forwarded"]),
            steps=int(metadata["steps"]),
            freed=int(metadata["freed"]),
            messages=int(metadata["messages"]),
            milliseconds=float(metadata["milliseconds"]),
            waited=float(metadata.get("waited", 0.0)),
            changes=tuple(_change(item) for item in metadata["changes"][:_MAX_CHANGES]),
            predicted=_dollars(metadata.get("predicted")),
        )
    except (KeyError, TypeError, ValueError, OverflowError):
        return None
    return outcome


def _dollars(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and isfinite(value) else None


def _change(item: Mapping[str, Any]) -> Change:
    return Change(
        what=_text(item["what"]),
        first=int(item["first"]),
        last=int(item["last"]),
        kind=_text(item["kind"]),
        tokens_before=int(item["tokens_before"]),
        tokens_after=int(item["tokens_after"]),
        before=_excerpt(item["before"], _LONGEST_EXCERPT),
        after=_excerpt(item["after"], _LONGEST_EXCERPT),
        new=bool(item["new"]),
    )


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError
    return line(value)


def _excerpt(text: object, room: int) -> str:
    if not isinstance(text, str):
        raise TypeError
    cut = text if len(text) <= room else text[: max(0, room - 2)] + " …"
    return neutral(cut)
