"""Estimates follow what providers report: within a conversation at once, else slowly."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mitmcontext.tokens.calibration import (
    HIGHEST,
    LOWEST,
    MOST_HIDDEN,
    Anchor,
    Calibration,
    Report,
    Scale,
    Shape,
)

PLAIN = Shape("no tools", "no tools 1")
TOOLS = Shape("tools", "tools 7")


def expected(calibration: Calibration, estimated: int, shape: Shape = PLAIN) -> int:
    """What the first request of a conversation is expected to have, all of it one message."""
    scale = calibration.scale("key", shape, None, estimated, 0)
    return round(scale.offset) + sum(scale.each([estimated], [(0, 4 * estimated)]))


def taught(*pairs: tuple[int, int], shape: Shape = PLAIN) -> Calibration:
    calibration = Calibration()
    for estimated, reported in pairs:
        calibration.learn("key", shape, Report(estimated, reported), Scale(), estimated)
    return calibration


# New conversations.


@pytest.mark.parametrize(
    ("pairs", "estimated", "tokens"),
    [
        pytest.param([], 10_000, 10_000, id="nothing learned corrects nothing"),
        pytest.param([(10_000, 12_000)], 10_000, 12_000, id="one answer is believed"),
        pytest.param([(100, 400)], 20_000, 20_300, id="what a small request had extra is constant"),
        pytest.param([(10_000, 12_000)], 100, 120, id="what a large one had extra is a share"),
        pytest.param(
            [(9_000, 9_900)] * 2 + [(9_000, 27_000)] + [(9_000, 9_900)] * 2,
            9_000,
            9_900,
            id="an odd answer moves nothing",
        ),
        pytest.param([(9_000, 9_900), (9_000, 27_000)], 9_000, 9_900, id="of two the milder"),
        pytest.param([(9_000, 18_000)] * 9 + [(9_000, 9_900)] * 5, 9_000, 9_900, id="the last 5"),
        pytest.param([(10_000, 900_000)], 10_000, 10_000, id="nonsense teaches nothing"),
        pytest.param([(10_000, 900)], 10_000, 10_000, id="a cached rest teaches nothing"),
    ],
)
def test_the_correction_is_what_earlier_requests_showed(
    pairs: list[tuple[int, int]], estimated: int, tokens: int
) -> None:
    assert expected(taught(*pairs), estimated) == pytest.approx(tokens, rel=0.001)


def test_requests_of_the_same_shape_know_best() -> None:
    calibration = taught((5_000, 5_100))
    for _ in range(3):
        calibration.learn("key", TOOLS, Report(5_000, 7_000), Scale(), 5_000)
    assert expected(calibration, 5_000) == pytest.approx(5_100)
    assert expected(calibration, 5_000, TOOLS) == pytest.approx(7_000)
    assert expected(calibration, 5_000, Shape("tools", "tools 8")) == pytest.approx(7_000)


def test_one_key_says_nothing_of_another() -> None:
    calibration = taught((5_000, 9_000))
    scale = calibration.scale("other", PLAIN, None, 5_000, 0)
    assert scale == Scale(1.0, 0.0)


@given(st.lists(st.tuples(st.integers(0, 10**6), st.integers(-5, 10**7)), max_size=12))
def test_no_correction_goes_beyond_its_bounds(pairs: list[tuple[int, int]]) -> None:
    found = expected(taught(*pairs), 10_000)
    assert LOWEST * 10_000 - 1 <= found <= HIGHEST * 10_000 + MOST_HIDDEN + 1


def test_what_was_learned_survives_being_kept() -> None:
    first = taught((5_000, 7_000), (8_000, 11_000))
    second = Calibration()
    second.restore("key", first.kept("key"))
    assert expected(second, 6_000) == expected(first, 6_000)
    assert second.kept("key") == first.kept("key")


def test_kept_nonsense_is_left_out() -> None:
    calibration = Calibration()
    calibration.restore("key", ([40.0, -1.0], [(-1, 4, 5)], {"no tools": [(10, 10**9)]}))
    assert expected(calibration, 5_000) == 5_000


def test_keys_are_bounded() -> None:
    calibration = Calibration(keys=10)
    for number in range(30):
        calibration.learn(str(number), PLAIN, Report(5_000, 6_000), Scale(), 5_000)
    assert len(calibration) == 10


# Conversations.


class Talk:
    """A conversation with a provider whose every message has tokens of its own."""

    def __init__(self, hidden: int, ratio: Callable[[], float]) -> None:
        self.calibration = Calibration()
        self.hidden = hidden
        self.ratio = ratio
        self.density = 3.6
        self.estimates: list[int] = []
        self.real: list[float] = []
        self.places: list[tuple[int, int]] = []
        self.anchor: Anchor | None = None
        self.errors: list[float] = []

    def say(self, *estimates: int) -> None:
        self.estimates += estimates
        ratio = self.ratio()
        self.real += [ratio * estimate for estimate in estimates]
        self.places += [(0, round(self.density * estimate)) for estimate in estimates]

    def ask(self, reported: int | None = None) -> None:
        """A request with all messages, and its answer; the provider's figure may be odd."""
        total = sum(self.estimates)
        scale = self.calibration.scale("key", PLAIN, self.anchor, total, 0)
        found = round(scale.offset) + sum(scale.each(self.estimates, self.places))
        real = round(self.hidden + sum(self.real))
        self.errors.append(abs(found / real - 1))
        known = len(self.anchor.ratios) // 2 if self.anchor else 0
        each = scale.each(self.estimates, self.places)
        grown = sum(self.estimates[known:]) if self.anchor else None
        told = Report(
            total,
            reported or real,
            grown,
            sum(end for _, end in self.places[known:]),
            sum(each[known:]),
            tuple(zip(self.estimates[known:], each[known:], strict=True)),
        )
        self.anchor = self.calibration.learn("key", PLAIN, told, scale, found, self.anchor)


def test_a_conversation_is_known_from_its_second_request_on() -> None:
    rng = random.Random(5)
    talk = Talk(3_000, lambda: 1.3)
    talk.say(5_000)
    talk.ask()
    for _ in range(40):
        talk.say(rng.randrange(50, 400), rng.randrange(200, 3_000))
        talk.ask()
    assert talk.errors[0] > 0.2
    assert max(talk.errors[1:]) < 0.05
    assert max(talk.errors[3:]) < 0.005


def test_only_what_is_new_can_be_off() -> None:
    """Messages whose tokens differ widely: each is known exactly once it was answered."""
    rng = random.Random(6)
    talk = Talk(700, lambda: rng.choice((0.8, 1.0, 1.2, 1.5)))
    talk.say(20_000)
    talk.ask()
    for _ in range(60):
        talk.say(rng.randrange(50, 900))
        talk.ask()
    assert sum(error > 0.02 for error in talk.errors[1:]) <= 1


def test_a_provider_that_counts_bytes_is_understood() -> None:
    """Its ratio to our tokens depends on how many bytes each of ours has."""
    rng = random.Random(8)
    talk = Talk(500, lambda: talk.density / 3.0)
    talk.say(8_000)
    talk.ask()
    for _ in range(40):
        talk.density = rng.choice((2.0, 2.8, 3.6, 4.4))
        talk.say(rng.randrange(500, 4_000))
        talk.ask()
    assert sum(error > 0.02 for error in talk.errors[10:]) <= 1


def test_what_is_left_of_a_message_has_its_ratio() -> None:
    talk = Talk(0, lambda: 1.0)
    talk.say(5_000)
    talk.ask()
    talk.ratio = lambda: 2.0
    talk.say(3_000)
    talk.ask()
    assert talk.anchor is not None
    scale = talk.calibration.scale("key", PLAIN, talk.anchor, 8_000, 0)
    assert scale.of(500, 0) == 500
    assert scale.of(500, 1) == 1_000


def test_a_report_that_contradicts_is_believed_when_it_stays() -> None:
    talk = Talk(0, lambda: 1.0)
    talk.say(20_000)
    talk.ask()
    talk.say(500)
    talk.ask(reported=9_000)
    talk.say(500)
    talk.ask()
    assert max(talk.errors) < 0.001
    talk.hidden = 15_000
    talk.say(500)
    talk.ask()
    talk.say(500)
    talk.ask()
    talk.say(500)
    talk.ask()
    assert talk.errors[-1] < 0.001


@pytest.mark.parametrize("odd", [70_000, 4_001])
def test_an_odd_first_report_is_put_right_by_the_next(odd: int) -> None:
    talk = Talk(0, lambda: 1.0)
    for _ in range(3):
        talk.calibration.learn("key", PLAIN, Report(9_000, 9_000), Scale(), 9_000)
    talk.say(10_000)
    talk.ask(reported=odd)
    for _ in range(4):
        talk.say(1_000)
        talk.ask()
    assert max(talk.errors[2:]) < 0.02


@given(
    st.integers(0, 5_000),
    st.lists(st.tuples(st.integers(1, 5_000), st.floats(0.6, 2.5)), min_size=2, max_size=25),
)
def test_the_anchor_itself_is_exact(hidden: int, turns: list[tuple[int, float]]) -> None:
    """The same request again is expected as it was reported, however the text behaves."""
    talk = Talk(hidden, lambda: 1.0)
    for estimate, ratio in turns:
        talk.ratio = partial(float, ratio)
        talk.say(estimate)
        talk.ask()
        anchor = talk.anchor
        assert anchor is not None
        total = sum(talk.estimates)
        scale = talk.calibration.scale("key", PLAIN, anchor, total, 0)
        found = round(scale.offset) + sum(scale.each(talk.estimates, talk.places))
        assert found == pytest.approx(anchor.reported, abs=2)
