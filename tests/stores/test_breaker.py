"""A circuit breaker opens after failures in a row, lets one try, and closes when that works."""

from __future__ import annotations

import pytest
from tests.stores.makers import Clock

from mitmcontext.stores.breaker import Breaker


def test_it_opens_after_failures_in_a_row_and_not_before() -> None:
    breaker = Breaker("it", Clock(), 3, 5)
    for _ in range(5):
        breaker.failed("slow")
        breaker.failed("slow")
        breaker.worked()
    assert breaker.allows()
    assert breaker.state == "ok"
    for _ in range(3):
        breaker.failed("slow")
    assert not breaker.allows()
    assert breaker.state == "set aside: slow"
    assert breaker.faults == {"slow": 13}


def test_then_one_may_try_and_closes_it_or_opens_it_again() -> None:
    clock = Clock()
    breaker = Breaker("it", clock, 1, 5)
    breaker.failed("gone")
    clock.wait(5)
    assert [breaker.allows() for _ in range(3)] == [True, False, False]
    breaker.failed("gone")
    clock.wait(4)
    assert not breaker.allows()
    clock.wait(1)
    assert breaker.allows()
    breaker.worked()
    assert [breaker.allows() for _ in range(3)] == [True, True, True]
    assert breaker.state == "ok"


def test_it_can_stay_open_for_good() -> None:
    clock = Clock()
    breaker = Breaker("it", clock, 3, 5)
    breaker.stop("refused")
    breaker.worked()
    clock.wait(1e9)
    assert not breaker.allows()
    assert breaker.state == "set aside: refused"


def test_each_outage_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(0)
    clock = Clock()
    breaker = Breaker("the store", clock, 2, 5)
    for _ in range(10):
        breaker.failed("slow")
    breaker.worked()
    assert caplog.messages == [
        "mitmcontext: the store is set aside for now: slow",
        "mitmcontext: the store is back in service",
    ]


def test_what_is_only_counted_opens_nothing() -> None:
    breaker = Breaker("it", Clock(), 1, 5)
    breaker.count("odd")
    assert breaker.allows()
    assert breaker.faults == {"odd": 1}
