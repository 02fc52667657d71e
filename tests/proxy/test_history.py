"""Conversations as they are drawn: recognised, bounded, and nothing of a message in them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from mitmcontext.proxy.history import CONVERSATIONS, POINTS, SAMPLES, History, Point, fresh
from mitmcontext.values import Action, Level, Money, Outcome


def links(count: int, name: str = "a") -> list[bytes]:
    return [f"{name}{number}".encode() for number in range(count)]


def outcome(sent: int = 50, freed: int = 0, **values: Any) -> Outcome:
    usual: dict[str, Any] = {"api": "anthropic", "model": "m", "room": 100, "level": Level.SAFE}
    action = Action.CONDENSED if freed else Action.UNDER_THRESHOLD
    return Outcome(action, "", sent=sent, forwarded=sent - freed, freed=freed, **usual | values)


def noted(history: History, count: int, at: float, name: str = "a", **values: Any) -> None:
    flow = values.pop("flow", f"flow {name} {count}")
    history.note(links(count, name), at, "host", flow, outcome(**values))


def test_a_conversation_is_known_again_as_it_grows() -> None:
    history = History(fresh())
    for turn in range(4):
        noted(history, 1 + 2 * turn, turn, sent=10 * (turn + 1))
    noted(history, 1, 9.0, "b")
    newest, oldest = history.conversations()
    assert (newest["requests"], oldest["requests"]) == (1, 4)
    assert [Point(*point).sent for point in oldest["points"]] == [10, 20, 30, 40]


def test_forks_and_rewinds_stay_in_their_conversation() -> None:
    history = History(fresh())
    noted(history, 5, 0.0)
    history.note([*links(5), b"left"], 1.0, "host", "f1", outcome())
    history.note([*links(5), b"right"], 2.0, "host", "f2", outcome())
    assert [talk["requests"] for talk in history.conversations()] == [3]


def test_a_request_that_is_counted_after_the_next_one_finds_its_place() -> None:
    history = History(fresh())
    noted(history, 3, 2.0, sent=30, steps=1)
    noted(history, 1, 1.0, sent=10)
    (talk,) = history.conversations()
    assert [point[1] for point in talk["points"]] == [10, 30]
    assert (talk["last"], talk["steps"]) == (2.0, 1)


def test_a_step_has_what_was_before_it_and_what_went_out() -> None:
    history = History(fresh())
    noted(history, 9, 1.0, sent=90, freed=50, steps=2)
    (talk,) = history.conversations()
    assert Point(*talk["points"][0]) == Point(1.0, 90, 90, 40, 100, "condensed", 2)


def test_a_second_look_at_the_same_request_takes_the_place_of_the_first() -> None:
    history = History(fresh())
    noted(history, 9, 1.0, sent=90)
    noted(history, 9, 1.0, sent=90, freed=50)
    (talk,) = history.conversations()
    assert (talk["requests"], len(talk["points"])) == (1, 1)


def test_turns_on_a_websocket_share_a_flow_and_are_told_apart() -> None:
    history = History(fresh())
    for turn, sent in enumerate((50, 90, 20)):
        noted(history, 1 + turn, float(turn), flow="one", sent=sent)
    (talk,) = history.conversations()
    assert [point[1] for point in talk["points"]] == [50, 90, 20]


def test_money_and_reports_join_their_conversation() -> None:
    history = History(fresh())
    noted(history, 3, 1.0)
    before = history.revision
    history.billed(links(3), Money(True, 0.1, -0.02, 0.5, -0.01))
    history.compared(links(3), 110, 100)
    history.billed(links(7, "nobody"), Money(True, 9.0, 9.0, 9.0, 9.0))
    (talk,) = history.conversations(before)
    assert (talk["cost"], talk["saved"], talk["reported"]) == (0.5, -0.01, 100)
    assert talk["error"] == pytest.approx(0.1)
    assert not list(history.conversations(history.revision))


def test_all_of_it_is_bounded() -> None:
    kept = fresh()
    history = History(kept)
    for number in range(3 * CONVERSATIONS):
        noted(history, 1, number, f"talk {number} ", model="m" * 10_000)
    for turn in range(20 * POINTS):
        step = 40 if turn % 3 == 0 else 0
        noted(history, 1 + turn, 1_000 + turn, flow=str(turn), sent=90, freed=step, steps=turn)
        history.sample(turn, turn, turn, 0.0, 0.0)
    talks = list(history.conversations())
    assert len(talks) == CONVERSATIONS
    assert len(talks[0]["points"]) <= POINTS
    assert talks[0]["requests"] == 20 * POINTS
    assert talks[0]["points"][-1][0] == 1_000 + 20 * POINTS - 1
    assert len(kept["links"]) <= 10_000
    assert len(history.samples()) <= SAMPLES
    assert history.samples()[0].at == 0
    assert history.samples()[-1].at == 20 * POINTS - 1
    assert len(json.dumps(talks)) < 2_000_000


def test_it_lives_in_plain_values_and_goes_on_after_a_reload() -> None:
    kept = fresh()
    noted(History(kept), 3, 1.0)
    again = History(kept)
    noted(again, 5, 2.0)
    assert [talk["requests"] for talk in again.conversations()] == [2]
    again.clear()
    assert not list(again.conversations())
