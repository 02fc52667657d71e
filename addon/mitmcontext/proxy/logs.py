"""What two of the specification's switches add to the log: times, and how tokens were counted."""

from __future__ import annotations

from collections.abc import Iterator

from mitmcontext.settings import Settings
from mitmcontext.values import Outcome


def lines(outcome: Outcome, settings: Settings) -> Iterator[str]:
    """Of one request, what was asked for. Counts and our own words alone."""
    if settings.enable_context_performance_logging and outcome.milliseconds:
        yield (
            f"performance: {outcome.milliseconds:.1f} ms for {outcome.messages:,} messages "
            f"({outcome.api}, {outcome.action.value})"
        )
    if settings.enable_token_counting_logging and outcome.sent:
        yield (
            f"tokens: {outcome.sent:,} estimated in {outcome.messages:,} messages, "
            f"{outcome.forwarded:,} forwarded, {outcome.utilisation:.1%} of {outcome.room:,}"
        )


def reported(estimated: int, told: int, settings: Settings) -> Iterator[str]:
    """What the provider itself counted, once it has said so."""
    if settings.enable_token_counting_logging:
        off = estimated / told - 1
        yield f"tokens: {told:,} counted by the provider, {estimated:,} estimated ({off:+.2%})"
