"""What is counted while the proxy runs: numbers and our own words, never anything of a request.

All of it lives in one plain dict, so that it can outlast the classes when the code is reloaded.
"""

from __future__ import annotations

import os
import sys
from bisect import bisect_left
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from mitmcontext.proxy.questions import Questions
from mitmcontext.values import Action, Money, Outcome

STEPS_KEPT = 1000
"""How many steps are remembered one by one."""

CLOSE, NEAR = 0.02, 0.05
"""Relative errors of an estimate that count as close and as near."""

ERRORS_KEPT = 200
"""The latest of them, for their median."""

ERROR_BOUNDS = (0.005, 0.01, 0.02, 0.05, 0.1)
"""Errors of estimates are shown by how many lie below each of these, and beyond the last."""

_REASONS_KEPT = 200  # Reasons are ours and few; a bound all the same.
_OTHER = "other"


def _fresh() -> dict[str, Any]:
    return {
        "seen": 0,
        "recognised": 0,
        "refused_after_rewrite": 0,
        "refused_length": 0,
        "actions": {action.value: 0 for action in Action},
        "left_alone": {},
        "failures": {},
        "sent": 0,
        "forwarded": 0,
        "would_save": 0,
        "steps": 0,
        "steps_resumed": 0,
        "steps_freed": [],
        "freed": 0,
        "step_ms": 0.0,
        "timed": 0,
        "spent_ms": 0.0,
        "slowest_ms": 0.0,
        "prefix_breaks_unexplained": 0,
        "estimates": 0,
        "estimates_near": 0,
        "estimates_close": 0,
        "estimate_errors": [],
        "cache_hits": 0,
        "cache_misses": 0,
        "billed": 0,
        "unpriced": 0,
        "cost": 0.0,
        "saved_money": 0.0,
        "asked_money": 0.0,
        "would_save_money": 0.0,
        "predicted": 0.0,
        "steps_unpriced": 0,
        "changes": {},
        "births": 0,
        "births_saved": 0,
    }


class Figures:
    """The counters of one running proxy. `clock` gives seconds and never goes back.

    `kept` is where they live. Over a live reload the new object gets the old one's dict, so that
    requests which finish on the old code still count; what is missing in it is added.

    `total` are the figures that whatever is counted here counts in, too; `steps_kept` is how many
    steps are remembered one by one.
    """

    def __init__(
        self,
        clock: Callable[[], float],
        kept: dict[str, Any] | None = None,
        total: Figures | None = None,
        steps_kept: int = STEPS_KEPT,
    ) -> None:
        self._clock = clock
        self._all = {} if kept is None else kept
        self._total = total
        self._steps_kept = steps_kept
        for name, value in (_fresh() | {"began": clock()}).items():
            self._all.setdefault(name, value)
        self._questions = Questions(self._all.setdefault("questions", {}))

    def saw(self) -> None:
        """A request that is no LLM request, and of which there is nothing else to say."""
        self._all["seen"] += 1
        if self._total is not None:
            self._total.saw()

    def record(self, outcome: Outcome) -> None:
        """A request that was looked at, and what became of it."""
        figures = self._all
        figures["seen"] += 1
        if outcome.api:
            figures["recognised"] += 1
        figures["actions"][outcome.action.value] += 1
        figures["sent"] += outcome.sent
        if outcome.milliseconds:
            figures["timed"] += 1
            figures["spent_ms"] += outcome.milliseconds
            figures["slowest_ms"] = max(figures["slowest_ms"], outcome.milliseconds)
        if outcome.action == Action.OBSERVED:
            # It went out as it came. What it says of forwarding is what would have been.
            figures["forwarded"] += outcome.sent
            figures["would_save"] += outcome.sent - outcome.forwarded
        else:
            figures["forwarded"] += outcome.forwarded
        if outcome.action == Action.LEFT_ALONE:
            _count(figures["left_alone"], outcome.reason)
        elif outcome.action == Action.FAILED_OPEN:
            _count(figures["failures"], outcome.reason)
        elif outcome.action == Action.CONDENSED:
            self._step(outcome)
        self._note_changes(outcome)
        if self._total is not None:
            self._total.record(outcome)

    def _note_changes(self, outcome: Outcome) -> None:
        """What a new step did, or would have done in observe mode, by kind; and new births."""
        stepped = outcome.action in (Action.CONDENSED, Action.OBSERVED) and outcome.freed
        for change in outcome.changes:
            if change.new and change.what == "birth":
                self._all["births"] += 1
                self._all["births_saved"] += change.tokens_before - change.tokens_after
            elif change.new and stepped:
                whole = change.what != "stub"
                count = change.last - change.first + 1 if whole else 1
                name = f"{'message' if whole else change.kind} ({change.what})"
                _count(self._all["changes"], name, count)

    def _step(self, outcome: Outcome) -> None:
        figures = self._all
        figures["steps"] += 1
        figures["freed"] += outcome.freed
        figures["step_ms"] += outcome.milliseconds
        figures["steps_freed"] = [*figures["steps_freed"], outcome.freed][-self._steps_kept :]
        figures["predicted"] += outcome.predicted or 0.0
        figures["steps_unpriced"] += outcome.predicted is None

    def stepped(self, outcome: Outcome) -> None:
        """A step was taken for a request that had been recorded, after the provider refused it."""
        self._step(outcome)
        self._all["forwarded"] -= outcome.freed
        if self._total is not None:
            self._total.stepped(outcome)

    def recount(self, outcome: Outcome) -> None:
        """The tokens of a request that was recorded before it was counted."""
        self._all["sent"] += outcome.sent
        self._all["forwarded"] += outcome.forwarded
        if self._total is not None:
            self._total.recount(outcome)

    def failed(self, reason: str) -> None:
        """Something beside the requests went wrong, such as reading along with an answer."""
        _count(self._all["failures"], reason)
        if self._total is not None:
            self._total.failed(reason)

    def refused(self) -> None:
        """The provider refused the shape of a request that we had rewritten."""
        self._all["refused_after_rewrite"] += 1
        if self._total is not None:
            self._total.refused()

    def refused_length(self) -> None:
        """The provider found a request too long."""
        self._all["refused_length"] += 1
        if self._total is not None:
            self._total.refused_length()

    def resumed_step(self) -> None:
        """A step that was taken before the last start, or by another proxy, holds here again."""
        self._all["steps_resumed"] += 1
        if self._total is not None:
            self._total.resumed_step()

    def broke_prefix(self) -> None:
        """A forwarded prefix changed without a step and without the client's doing: a defect."""
        self._all["prefix_breaks_unexplained"] += 1
        if self._total is not None:
            self._total.broke_prefix()

    def compared(self, estimated: int, reported: int) -> None:
        """The provider reported the size of a request that had been estimated, in tokens."""
        figures = self._all
        error = abs(estimated / reported - 1)
        figures["estimates"] += 1
        figures["estimates_close"] += error <= CLOSE
        figures["estimates_near"] += error <= NEAR
        errors = figures["estimate_errors"]
        errors.append(round(error, 5))
        del errors[:-ERRORS_KEPT]
        if self._total is not None:
            self._total.compared(estimated, reported)

    def billed(self, money: Money, *, observed: bool) -> None:
        """The provider reported what a request used."""
        figures = self._all
        figures["billed" if money.known else "unpriced"] += 1
        figures["cost"] += money.cost
        figures["would_save_money" if observed else "saved_money"] += money.saved
        if self._total is not None:
            self._total.billed(money, observed=observed)

    def paid(self, cost: float) -> None:
        """What questions of ours have cost, in dollars: it comes off what is saved."""
        self._all["asked_money"] += cost
        if self._total is not None:
            self._total.paid(cost)

    def counted(self, hits: int, misses: int) -> None:
        """So many messages' counts were known, so many had to be made."""
        self._all["cache_hits"] += hits
        self._all["cache_misses"] += misses

    def snapshot(self) -> dict[str, Any]:
        """Everything, as `stats.json` has it."""
        figures = self._all
        actions = figures["actions"]
        steps = figures["steps"]
        failed, refused = actions[Action.FAILED_OPEN.value], figures["refused_after_rewrite"]
        attempts = steps + failed
        return {
            "requests": {
                "seen": figures["seen"],
                "recognised": figures["recognised"],
                **actions,
                "refused_after_rewrite": figures["refused_after_rewrite"],
                "refused_length": figures["refused_length"],
            },
            "tokens": {
                "sent": figures["sent"],
                "forwarded": figures["forwarded"],
                "saved": figures["sent"] - figures["forwarded"],
                "would_save": figures["would_save"],
            },
            "money": {
                "cost": round(figures["cost"], 6),
                "questions": round(figures["asked_money"], 6),
                "saved": round(figures["saved_money"] - figures["asked_money"], 6),
                "would_save": round(figures["would_save_money"], 6),
                "predicted": round(figures["predicted"], 6),
                "requests_priced": figures["billed"],
                "requests_of_unknown_price": figures["unpriced"],
                "steps_of_unknown_price": figures["steps_unpriced"],
            },
            "steps": steps,
            "steps_resumed": figures["steps_resumed"],
            "steps_freed": list(figures["steps_freed"]),
            "prefix_breaks_unexplained": figures["prefix_breaks_unexplained"],
            "estimates": {
                "compared": figures["estimates"],
                "within_2_percent": _share(figures["estimates_close"], figures["estimates"]),
                "within_5_percent": _share(figures["estimates_near"], figures["estimates"]),
                "median_error": median(figures["estimate_errors"] or [0.0]),
                "latest_within": _by_size(figures["estimate_errors"]),
            },
            "cache_hit_ratio": _share(
                figures["cache_hits"], figures["cache_hits"] + figures["cache_misses"]
            ),
            "condensation_stats": {
                "success_rate": _share(max(0, steps - refused), attempts),
                "attempts": attempts,
                "avg_processing_time_ms": round(_share(figures["step_ms"], steps), 3),
                "avg_tokens_saved": round(_share(figures["freed"], steps), 1),
            },
            "processing": {
                "requests": figures["timed"],
                "avg_ms": round(_share(figures["spent_ms"], figures["timed"]), 3),
                "max_ms": round(figures["slowest_ms"], 3),
            },
            "memory_usage_mb": round(memory_usage() / 2**20, 1),
            "error_rate": _share(failed + refused, figures["recognised"]),
            "uptime_seconds": round(self.uptime(), 3),
            "changes": dict(figures["changes"]),
            "reduced_at_birth": {
                "results": figures["births"],
                "tokens": figures["births_saved"],
            },
            "questions": self._questions.snapshot(),
            "left_alone": dict(figures["left_alone"]),
            "failures": dict(figures["failures"]),
        }

    def totals(self) -> tuple[int, int, float, float]:
        """Tokens sent and forwarded, dollars spent and saved; in observe mode what would be."""
        figures = self._all
        forwarded = figures["forwarded"] - figures["would_save"]
        saved = figures["saved_money"] + figures["would_save_money"] - figures["asked_money"]
        return figures["sent"], forwarded, figures["cost"], saved

    def brief(self) -> dict[str, int]:
        """One row of a table of many."""
        figures = self._all
        return {
            "seen": figures["seen"],
            "recognised": figures["recognised"],
            "condensed": figures["actions"][Action.CONDENSED.value],
            "failed_open": figures["actions"][Action.FAILED_OPEN.value],
            "sent": figures["sent"],
            "forwarded": figures["forwarded"],
            "saved": figures["sent"] - figures["forwarded"],
        }

    def clear(self) -> None:
        """Begin anew."""
        self._all.update(_fresh() | {"began": self._clock()})
        self._questions.clear()

    def uptime(self) -> float:
        """Seconds since counting began."""
        return float(self._clock() - self._all["began"])


def _by_size(errors: Sequence[float]) -> dict[str, int]:
    """How many of these relative errors lie within each bound and beyond the one before."""
    found = {f"{100 * bound:g} %": 0 for bound in ERROR_BOUNDS} | {"more": 0}
    names = list(found)
    for error in errors:
        found[names[bisect_left(ERROR_BOUNDS, error)]] += 1
    return found


def memory_usage() -> int:
    """The bytes of memory that this process occupies; elsewhere than on Linux, its highest mark."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGESIZE")
    except (OSError, ValueError, IndexError):
        return _highest_memory_usage()


def _highest_memory_usage() -> int:
    try:
        import resource  # not everywhere
    except ImportError:
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _count(reasons: dict[str, int], reason: str, count: int = 1) -> None:
    known = reason in reasons or len(reasons) < _REASONS_KEPT
    name = reason if known else _OTHER
    reasons[name] = reasons.get(name, 0) + count


def _share(part: float, whole: float) -> float:
    return round(part / whole, 6) if whole else 0.0
