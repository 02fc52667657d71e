"""The counters: what each request adds, and that they are numbers that last."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from mitmcontext.proxy.figures import STEPS_KEPT, Figures, memory_usage
from mitmcontext.proxy.questions import Questions
from mitmcontext.values import Action, Change, Money, Outcome


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def outcome(action: Action, **values: Any) -> Outcome:
    return Outcome(action, values.pop("reason", "because"), **{"api": "anthropic", **values})


def test_nothing_yet() -> None:
    figures = Figures(Clock()).snapshot()
    memory = figures.pop("memory_usage_mb")
    assert figures == {
        "requests": {
            "seen": 0,
            "recognised": 0,
            "left_alone": 0,
            "under_threshold": 0,
            "no_step": 0,
            "condensed": 0,
            "reapplied": 0,
            "observed": 0,
            "failed_open": 0,
            "refused_after_rewrite": 0,
            "refused_length": 0,
        },
        "tokens": {"sent": 0, "forwarded": 0, "saved": 0, "would_save": 0},
        "money": {
            "cost": 0.0,
            "questions": 0.0,
            "saved": 0.0,
            "would_save": 0.0,
            "predicted": 0.0,
            "requests_priced": 0,
            "requests_of_unknown_price": 0,
            "steps_of_unknown_price": 0,
        },
        "steps": 0,
        "steps_resumed": 0,
        "steps_freed": [],
        "prefix_breaks_unexplained": 0,
        "estimates": {
            "compared": 0,
            "within_2_percent": 0.0,
            "within_5_percent": 0.0,
            "median_error": 0.0,
            "latest_within": {
                "0.5 %": 0,
                "1 %": 0,
                "2 %": 0,
                "5 %": 0,
                "10 %": 0,
                "more": 0,
            },
        },
        "cache_hit_ratio": 0.0,
        "condensation_stats": {
            "success_rate": 0.0,
            "attempts": 0,
            "avg_processing_time_ms": 0.0,
            "avg_tokens_saved": 0.0,
        },
        "processing": {"requests": 0, "avg_ms": 0.0, "max_ms": 0.0},
        "error_rate": 0.0,
        "uptime_seconds": 0.0,
        "changes": {},
        "reduced_at_birth": {"results": 0, "tokens": 0},
        "questions": Questions({}).snapshot(),
        "left_alone": {},
        "failures": {},
    }
    assert 5 < memory < 10_000


def busy(clock: Clock, kept: dict[str, Any] | None = None) -> Figures:
    figures = Figures(clock, kept)
    figures.saw()
    figures.record(outcome(Action.LEFT_ALONE, api="", reason="not JSON"))
    figures.record(outcome(Action.LEFT_ALONE, reason="count_tokens"))
    figures.record(outcome(Action.LEFT_ALONE, reason="count_tokens"))
    figures.record(outcome(Action.UNDER_THRESHOLD, sent=100, forwarded=100))
    stub = Change("stub", 1, 1, "tool result", 9, 1, "before", "after")
    step = {"freed": 400, "milliseconds": 20.0, "predicted": 0.25}
    figures.record(
        outcome(Action.CONDENSED, sent=900, forwarded=500, steps=1, changes=(stub,), **step)
    )
    figures.record(
        outcome(Action.CONDENSED, sent=1300, forwarded=500, freed=300, milliseconds=10.0, steps=2)
    )
    born = (replace(stub, what="birth"), replace(stub, what="birth", new=False))
    figures.record(outcome(Action.REAPPLIED, sent=1310, forwarded=510, steps=2, changes=born))
    figures.record(outcome(Action.OBSERVED, sent=900, forwarded=450, freed=450))
    figures.record(outcome(Action.FAILED_OPEN, sent=900, forwarded=900, reason="deadline"))
    figures.billed(Money(True, 0.5, -0.125, 0.5, -0.125), observed=False)
    figures.billed(Money(True, 0.25, 0.0625, 0.75, -0.0625), observed=False)
    figures.billed(Money(True, 0.25, 0.5, 0.25, 0.5), observed=True)
    figures.billed(Money(False, 0.0, 0.0, 0.0, 0.0), observed=False)
    figures.failed("reading along: ValueError")
    figures.refused()
    figures.broke_prefix()
    figures.counted(hits=9, misses=1)
    figures.counted(hits=9, misses=1)
    clock.now += 60
    return figures


def test_what_each_request_adds() -> None:
    figures = busy(Clock()).snapshot()
    del figures["memory_usage_mb"]
    assert figures == {
        "requests": {
            "seen": 10,
            "recognised": 8,
            "left_alone": 3,
            "under_threshold": 1,
            "no_step": 0,
            "condensed": 2,
            "reapplied": 1,
            "observed": 1,
            "failed_open": 1,
            "refused_after_rewrite": 1,
            "refused_length": 0,
        },
        "tokens": {"sent": 5410, "forwarded": 3410, "saved": 2000, "would_save": 450},
        "money": {
            "cost": 1.0,
            "questions": 0.0,
            "saved": -0.0625,
            "would_save": 0.5,
            "predicted": 0.25,
            "requests_priced": 3,
            "requests_of_unknown_price": 1,
            "steps_of_unknown_price": 1,
        },
        "changes": {"tool result (stub)": 1},
        "reduced_at_birth": {"results": 1, "tokens": 8},
        "steps": 2,
        "steps_resumed": 0,
        "steps_freed": [400, 300],
        "prefix_breaks_unexplained": 1,
        "estimates": {
            "compared": 0,
            "within_2_percent": 0.0,
            "within_5_percent": 0.0,
            "median_error": 0.0,
            "latest_within": {
                "0.5 %": 0,
                "1 %": 0,
                "2 %": 0,
                "5 %": 0,
                "10 %": 0,
                "more": 0,
            },
        },
        "cache_hit_ratio": 0.9,
        "condensation_stats": {
            "success_rate": 0.333333,
            "attempts": 3,
            "avg_processing_time_ms": 15.0,
            "avg_tokens_saved": 350.0,
        },
        "processing": {"requests": 2, "avg_ms": 15.0, "max_ms": 20.0},
        "error_rate": 0.25,
        "uptime_seconds": 60.0,
        "questions": Questions({}).snapshot(),
        "left_alone": {"not JSON": 1, "count_tokens": 2},
        "failures": {"deadline": 1, "reading along: ValueError": 1},
    }
    json.dumps(figures, allow_nan=False)


def test_the_figures_hold_nothing_of_a_request() -> None:
    figures = Figures(Clock())
    change = Change("stub", 1, 2, "tool result", 9, 1, before="SECRET", after="SECRET")
    figures.record(outcome(Action.CONDENSED, changes=(change,), model="SECRET"))
    assert "SECRET" not in json.dumps(figures.snapshot())


def test_a_reload_carries_them_over() -> None:
    clock = Clock()
    kept: dict[str, Any] = {}
    old = busy(clock, kept)
    new = Figures(clock, kept)
    clock.now += 1
    assert _but_memory(new.snapshot()) == _but_memory(old.snapshot())
    new.record(outcome(Action.CONDENSED, freed=1))
    old.record(outcome(Action.CONDENSED, freed=2))  # finished on the old code
    assert new.snapshot()["steps_freed"] == [400, 300, 1, 2]
    assert new.snapshot()["uptime_seconds"] == 61.0


def test_counters_that_an_older_version_did_not_have_begin_at_nothing() -> None:
    figures = Figures(Clock(), {"seen": 7})
    figures.record(outcome(Action.CONDENSED, freed=1))
    assert figures.snapshot()["requests"]["seen"] == 8
    assert figures.snapshot()["steps"] == 1


def test_steps_and_reasons_are_bounded() -> None:
    figures = Figures(Clock())
    for number in range(STEPS_KEPT + 50):
        figures.record(outcome(Action.CONDENSED, freed=number))
        figures.failed(f"reason {number}")
    snapshot = figures.snapshot()
    assert snapshot["steps"] == STEPS_KEPT + 50
    assert snapshot["steps_freed"][0] == 50
    assert len(snapshot["steps_freed"]) == STEPS_KEPT
    assert len(snapshot["failures"]) == 201
    assert sum(snapshot["failures"].values()) == STEPS_KEPT + 50


def test_a_snapshot_is_a_copy() -> None:
    figures = busy(Clock())
    before = figures.snapshot()
    kept = copy.deepcopy(before)
    figures.record(outcome(Action.CONDENSED, freed=1))
    figures.failed("deadline")
    assert before == kept


def test_clearing_begins_anew() -> None:
    clock = Clock()
    figures = busy(clock)
    figures.clear()
    assert _but_memory(figures.snapshot()) == _but_memory(Figures(clock).snapshot())


def test_memory_is_known_without_proc_too(monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(self: object) -> str:
        raise OSError

    monkeypatch.setattr(Path, "read_text", nothing)
    assert memory_usage() > 5 * 2**20


def _but_memory(figures: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in figures.items() if name != "memory_usage_mb"}


def test_estimates_are_held_against_what_was_reported() -> None:
    figures = Figures(lambda: 0.0)
    for estimated in (1_000, 1_019, 960, 1_300):
        figures.compared(estimated, 1_000)
    found = figures.snapshot()["estimates"]
    assert (found["compared"], found["within_2_percent"], found["within_5_percent"]) == (
        4,
        0.5,
        0.75,
    )
    assert found["median_error"] == pytest.approx(0.0295)
    by_error = {"0.5 %": 1, "1 %": 0, "2 %": 1, "5 %": 1, "10 %": 0, "more": 1}
    assert found["latest_within"] == by_error
