"""The figures of our questions to models: numbers and our own words."""

from __future__ import annotations

import time
from typing import Any

_REASONS_KEPT = 100


def fresh() -> dict[str, Any]:
    """Nothing asked yet."""
    numbers = (
        *("asked", "answered", "accepted", "attempts", "late", "shed", "stopped"),
        *("prepared", "used", "waited", "input_tokens", "output_tokens", "freed", "steps"),
    )
    sums = dict.fromkeys(("price", "answer_ms", "waiting_ms"), 0.0)
    return {**dict.fromkeys(numbers, 0), **sums, "rejected": {}, "not_asked": {}, "unused": {}}


class Questions:
    """Counts. The dict outlives a reload."""

    def __init__(self, kept: dict[str, Any]) -> None:
        self._kept = kept
        for name, value in fresh().items():
            kept.setdefault(name, value)

    def count(self, name: str, amount: float = 1) -> None:
        """Add to a figure."""
        self._kept[name] += amount

    def reason(self, name: str, reason: str) -> None:
        """Count a reason of ours."""
        reasons = self._kept[name]
        known = reason in reasons or len(reasons) < _REASONS_KEPT
        reasons[reason if known else "other"] = reasons.get(reason if known else "other", 0) + 1

    def kept(self, link: bytes, seconds: float) -> None:
        """A summary is ready, for so long."""
        self.count("prepared")
        self._kept["unused"][link] = time.monotonic() + seconds

    def use(self, link: bytes, freed: int) -> None:
        """A step was taken with it."""
        self.count("steps")
        self.count("freed", freed)
        if self._kept["unused"].pop(link, None) is not None:
            self.count("used")

    def clear(self) -> None:
        """Begin anew."""
        self._kept.update(fresh())

    def snapshot(self) -> dict[str, Any]:
        """As `stats.json` has it."""
        kept, now = self._kept, time.monotonic()
        waiting = sum(1 for until in kept["unused"].values() if until > now)
        if len(kept["unused"]) > waiting + 1_000:
            kept["unused"] = {k: until for k, until in kept["unused"].items() if until > now}
        return {
            "asked": kept["asked"],
            "answered": kept["answered"],
            "success_rate": _share(kept["accepted"], kept["attempts"]),
            "avg_answer_ms": round(_share(kept["answer_ms"], kept["answered"]), 1),
            "avg_tokens_saved": round(_share(kept["freed"], kept["steps"]), 1),
            "price": round(kept["price"], 6),
            "input_tokens": kept["input_tokens"],
            "output_tokens": kept["output_tokens"],
            "requests_that_waited": kept["waited"],
            "waiting_ms": round(kept["waiting_ms"], 1),
            "prepared": kept["prepared"],
            "used": kept["used"],
            "wasted": kept["prepared"] - kept["used"] - waiting,
            "late": kept["late"],
            "shed": kept["shed"],
            "stopped": kept["stopped"],
            "rejected": dict(kept["rejected"]),
            "not_asked": dict(kept["not_asked"]),
        }


def _share(part: float, whole: float) -> float:
    return round(part / whole, 6) if whole else 0.0
