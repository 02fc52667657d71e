"""How full the window is, and what that calls for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from mitmcontext.values import Level

# A step that frees less would come again in a few turns, and each one costs the provider's cache
# of everything behind it (measured by simulation: sliding cuts cost up to twice doing nothing).
WORTHWHILE: Final = 0.15
# Above this share of what the model can take an estimate proves nothing: once corrected by the
# provider's own figures, most are within three percent.
SURE_TO_FIT: Final = 0.97


@dataclass(frozen=True, slots=True)
class Thresholds:
    """Shares of what the model can take, 0 to 1, in rising order; `target` is what to come down to.

    The names and defaults of the first three are the specification's.
    """

    caution: float = 0.70
    warning: float = 0.80
    critical: float = 0.90
    target: float = 0.50


def level_of(tokens: int, room: int, thresholds: Thresholds) -> Level:
    """The level of a request of this many tokens where the model can take `room`."""
    share = tokens / max(1, room)
    if share >= 1:
        return Level.OVERFLOW
    if share >= thresholds.critical:
        return Level.CRITICAL
    if share >= thresholds.warning:
        return Level.WARNING
    return Level.CAUTION if share >= thresholds.caution else Level.SAFE


def level_within(tokens: int, room: int, limit: int, thresholds: Thresholds) -> Level:
    """The same where the user wants a smaller `room` to do than the model's `limit`.

    What is larger than that room is critical and no overflow: nobody refuses it.
    """
    level = level_of(tokens, room, thresholds)
    fits = level_of(tokens, limit, thresholds) != Level.OVERFLOW
    return Level.CRITICAL if level == Level.OVERFLOW and fits else level


def is_forced(tokens: int, limit: int, thresholds: Thresholds) -> bool:
    """Whether the model's own window calls for a step, whatever it costs."""
    return level_of(tokens, limit, thresholds) in (Level.CRITICAL, Level.OVERFLOW)


def may_not_fit(tokens: int, room: int) -> bool:
    """Whether a request may be refused for its length: estimates are a few percent off."""
    return tokens > SURE_TO_FIT * room


def calls_for_step(level: Level) -> bool:
    """Whether a step is to be planned at this level."""
    return level in (Level.WARNING, Level.CRITICAL, Level.OVERFLOW)


def is_worthwhile(before: int, after: int, room: int, limit: int | None = None) -> bool:
    """Whether to take a step from `before` to `after` tokens.

    A step breaks the provider's cache once, so it has to free a good share of the window. Only
    where the request may not fit at all, and with the step does, any gain will do: what fits is
    decided by the model's `limit`, where the user wants a smaller room to do.
    """
    if after >= before:
        return False
    limit = room if limit is None else limit
    saves_it = before > limit >= after or (
        may_not_fit(before, limit) and not may_not_fit(after, limit)
    )
    return before - after >= WORTHWHILE * room or saves_it
