"""Corrections follow what providers report, slowly and within bounds."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mitmcontext.tokens.calibration import HIGHEST, LOWEST, Calibration


def learned(*ratios: float) -> float:
    calibration = Calibration()
    for ratio in ratios:
        calibration.learn("key", 10_000, round(10_000 * ratio))
    return calibration.factor("key")


@pytest.mark.parametrize(
    ("ratios", "factor"),
    [
        pytest.param([], 1.0, id="nothing learned corrects nothing"),
        pytest.param([1.2], 1.2, id="one answer is believed"),
        pytest.param([1.2, 1.4], 1.3, id="of two, the middle"),
        pytest.param([1.2, 1.2, 2.9, 1.2, 1.2], 1.2, id="an odd answer moves nothing"),
        pytest.param([2.0, 2.0, 1.1, 1.1, 1.1], 1.1, id="a new ratio wins when it is the rule"),
        pytest.param([2.0] * 9 + [1.1] * 5, 1.1, id="only the last five count"),
        pytest.param([40.0], 3.0, id="no more than three times"),
        pytest.param([0.2], 0.5, id="no less than half"),
        pytest.param([1.2, 0.09, 0.01], 1.2, id="what was not cached says nothing of the whole"),
    ],
)
def test_the_factor_is_the_median_of_the_last_ratios(ratios: list[float], factor: float) -> None:
    assert learned(*ratios) == pytest.approx(factor)


def test_small_requests_and_nonsense_teach_nothing() -> None:
    calibration = Calibration()
    calibration.learn("key", 999, 2_000)
    calibration.learn("key", 5_000, 0)
    calibration.learn("key", 5_000, -1)
    assert calibration.factor("key") == 1.0
    assert len(calibration) == 0


def test_keys_do_not_touch_each_other() -> None:
    calibration = Calibration()
    calibration.learn("one", 1_000, 2_000)
    assert calibration.factor("other") == 1.0


def test_the_key_not_used_for_longest_is_forgotten_first() -> None:
    calibration = Calibration(keys=2)
    calibration.learn("old", 1_000, 2_000)
    calibration.learn("new", 1_000, 2_000)
    calibration.factor("old")
    calibration.learn("newest", 1_000, 2_000)
    assert calibration.factor("new") == 1.0
    assert calibration.factor("old") == 2.0
    assert len(calibration) == 2


@given(st.lists(st.tuples(st.integers(-5, 10**7), st.integers(-5, 10**9)), max_size=20))
def test_the_factor_stays_within_its_bounds(answers: list[tuple[int, int]]) -> None:
    calibration = Calibration()
    for estimated, reported in answers:
        calibration.learn("key", estimated, reported)
    assert LOWEST <= calibration.factor("key") <= HIGHEST


def test_what_was_learned_can_be_kept_and_taken_over() -> None:
    learned, fresh = Calibration(), Calibration()
    for reported in (1_100, 1_200, 1_300):
        learned.learn("k", 1_000, reported)

    fresh.restore("k", learned.ratios("k"))

    assert fresh.factor("k") == learned.factor("k") == 1.2
    fresh.restore("k", [float("nan"), 99.0])
    assert fresh.factor("k") == 1.2, "what is unsound is not taken"
