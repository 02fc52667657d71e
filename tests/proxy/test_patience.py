"""Who does not answer is left alone, longer each time; who refuses the key, for an hour."""

from __future__ import annotations

import pytest

from mitmcontext.proxy.asking import Answer, Trouble
from mitmcontext.proxy.patience import Patience


class Clock:
    now = 1_000.0

    def __call__(self) -> float:
        return self.now


def over(patience: Patience, clock: Clock, name: bytes, *waits: float) -> list[bool]:
    found = []
    for wait in waits:
        clock.now += wait
        found.append(patience.is_over(name))
    return found


def test_each_failure_in_a_row_doubles_the_wait() -> None:
    clock = Clock()
    patience = Patience(clock)
    assert patience.is_over(b"x")
    patience.failed(b"x")
    assert over(patience, clock, b"x", 14, 2) == [False, True]
    patience.failed(b"x")
    assert over(patience, clock, b"x", 29, 2) == [False, True]
    patience.succeeded(b"x")
    patience.failed(b"x")
    assert over(patience, clock, b"x", 14, 2) == [False, True]
    assert patience.is_over(b"y")


def test_the_wait_has_an_end() -> None:
    clock = Clock()
    patience = Patience(clock)
    for _ in range(100):
        patience.failed(b"x")
    assert over(patience, clock, b"x", 1_799, 2) == [False, True]


@pytest.mark.parametrize(
    ("answer", "seconds"),
    [
        (Answer(fault=Trouble.BUSY, status=429, wait=90.0), 90),
        (Answer(fault=Trouble.BUSY, status=503), 15),
        (Answer(fault=Trouble.CONNECTION), 15),
        (Answer(fault=Trouble.REDIRECT, status=307), 15),
        (Answer(fault=Trouble.REFUSED, status=401), 3_600),
        (Answer(text="They talked.", status=200), 0),
        (Answer(fault="a refusal", status=200), 0),
        (Answer(fault=Trouble.LATE), 0),
    ],
)
def test_what_an_answer_says_of_its_provider(answer: Answer, seconds: float) -> None:
    clock = Clock()
    patience = Patience(clock)
    patience.heard(b"x", answer)
    if seconds:
        assert over(patience, clock, b"x", seconds - 1, 2) == [False, True]
    else:
        assert patience.is_over(b"x")
