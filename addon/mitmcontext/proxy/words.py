"""A request in a few words: its comment in the flow list, its mark, its line in the log."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Final

from mitmcontext.proxy.safe import line
from mitmcontext.values import Action, Change, Outcome

MARKS: Final = {
    Action.CONDENSED: ":scissors:",
    Action.REAPPLIED: ":recycle:",
    Action.OBSERVED: ":eyes:",
    Action.FAILED_OPEN: ":warning:",
    Action.LEFT_ALONE: ":fast_forward:",
}
"""By the emoji names that mitmproxy knows."""

DONE: Final = {
    "stub": "stubbed",
    "fold": "folded",
    "drop": "dropped",
    "birth": "reduced at birth",
}
"""What was done to a part or a message, as an adjective."""

_SHORT: Final = {"tool result": "result", "tool call": "call", "thinking": "thinking block"}


def comment(outcome: Outcome) -> str:
    """A flow's comment: how full, how much, what was done."""
    match outcome.action:
        case Action.LEFT_ALONE:
            return f"left alone: {line(outcome.reason)}"
        case Action.FAILED_OPEN:
            return joined(fullness(outcome), sizes(outcome), f"failed open: {outcome.reason}")
        case Action.UNDER_THRESHOLD | Action.NO_STEP:
            return joined(fullness(outcome), sizes(outcome), outcome.reason)
        case Action.CONDENSED:
            done = summary(change for change in outcome.changes if change.new)
            return joined(fullness(outcome), sizes(outcome), done, f"step {outcome.steps}")
        case Action.OBSERVED:
            would = summary(outcome.changes)
            return joined(fullness(outcome), f"would be {sizes(outcome)}", would)
        case Action.REAPPLIED:
            again = f"step {outcome.steps} re-applied" if outcome.steps else ""
            born = summary(change for change in outcome.changes if change.what == "birth")
            done = joined(again, born) or "re-applied"
            return joined(fullness(outcome), sizes(outcome), done, outcome.reason)


def mark(outcome: Outcome) -> str:
    """A flow's mark, by the emoji names that mitmproxy knows; empty if there is nothing to see."""
    return MARKS.get(outcome.action, "")


def log_line(outcome: Outcome, host: str) -> str:
    """One line for the log of mitmdump."""
    what = joined(comment(outcome), f"{outcome.milliseconds:.0f} ms")
    return f"{line(host)} {line(outcome.model)}: {what}"


def summary(changes: Iterable[Change]) -> str:
    """What was done in a few words, such as `12 results stubbed, 9 messages folded`."""
    counts: Counter[tuple[str, str]] = Counter()
    for change in changes:
        counts[noun(change), change.what] += _extent(change)
    return ", ".join(
        f"{count:,} {noun if count == 1 else noun + 's'} {DONE.get(what, what)}"
        for (noun, what), count in counts.items()
    )


def fullness(outcome: Outcome) -> str:
    """The level and the share that it follows from: that before a new step, with frozen ones."""
    if outcome.room and outcome.sent:
        return f"{met(outcome)} {outcome.level.value}"
    return f"{outcome.level.value} by size alone"


def met(outcome: Outcome) -> str:
    """The share of the window that was filled before a new step."""
    return percent(before_step(outcome), outcome.room)


def before_step(outcome: Outcome) -> int:
    """Tokens with what was frozen already, before a new step."""
    return outcome.forwarded + outcome.freed


def sizes(outcome: Outcome) -> str:
    """Tokens as sent and as forwarded, in short."""
    if outcome.forwarded == outcome.sent:
        return short(outcome.sent) if outcome.sent else ""
    return f"{short(outcome.sent)} → {short(outcome.forwarded)}"


def noun(change: Change) -> str:
    """What is counted: messages, where a change covers whole ones."""
    if change.what == "fold" or change.first != change.last:
        return "message"
    return _SHORT.get(change.kind, change.kind)


def _extent(change: Change) -> int:
    return change.last - change.first + 1 if noun(change) == "message" else 1


def joined(*pieces: str) -> str:
    """Pieces on one line; empty ones are left out."""
    return " · ".join(line(piece) for piece in pieces if piece)


def percent(part: float, whole: float) -> str:
    """A share in whole percent."""
    return f"{100 * part / whole:.0f} %"


def short(tokens: int) -> str:
    """A number of tokens in few characters: 812, 96.2k, 1.45M."""
    if tokens < 1000:
        return str(tokens)
    if tokens < 999_950:
        return f"{tokens / 1000:.1f}k"
    return f"{tokens / 1_000_000:.2f}M"
