"""How full is how full, and when a step pays."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mitmcontext.condense.assess import (
    Thresholds,
    calls_for_step,
    is_worthwhile,
    level_of,
    may_not_fit,
)
from mitmcontext.values import Level

ORDER = list(Level)
sizes = st.integers(0, 2_000_000)


@pytest.mark.parametrize(
    ("tokens", "level"),
    [
        (0, Level.SAFE),
        (699, Level.SAFE),
        (700, Level.CAUTION),
        (799, Level.CAUTION),
        (800, Level.WARNING),
        (899, Level.WARNING),
        (900, Level.CRITICAL),
        (999, Level.CRITICAL),
        (1000, Level.OVERFLOW),
        (9999, Level.OVERFLOW),
    ],
)
def test_levels_by_the_default_thresholds(tokens: int, level: Level) -> None:
    assert level_of(tokens, 1000, Thresholds()) is level


def test_thresholds_are_the_users() -> None:
    low = Thresholds(caution=0.2, warning=0.3, critical=0.4, target=0.1)
    assert [level_of(tokens, 100, low) for tokens in (19, 20, 30, 40, 100)] == ORDER


@given(sizes, sizes, st.integers(1, 2_000_000))
def test_more_tokens_are_never_a_lower_level(one: int, other: int, room: int) -> None:
    small, large = sorted((one, other))
    first, second = (level_of(tokens, room, Thresholds()) for tokens in (small, large))
    assert ORDER.index(first) <= ORDER.index(second)


def test_no_room_at_all_is_an_overflow() -> None:
    assert level_of(1, 0, Thresholds()) is Level.OVERFLOW


def test_steps_are_called_for_from_warning_on() -> None:
    assert [calls_for_step(level) for level in ORDER] == [False, False, True, True, True]


@pytest.mark.parametrize(
    ("before", "after", "worthwhile"),
    [
        pytest.param(850, 700, True, id="frees 15 %"),
        pytest.param(850, 701, False, id="frees a little less"),
        pytest.param(850, 850, False, id="frees nothing"),
        pytest.param(850, 900, False, id="makes it worse"),
        pytest.param(1_010, 960, True, id="little, but now it fits"),
        pytest.param(975, 960, True, id="little, but now it surely fits"),
        pytest.param(1_010, 980, True, id="little, but else it would be refused"),
        pytest.param(985, 975, False, id="little, and as likely to fit as before"),
        pytest.param(5_000, 1_200, True, id="much, though it does not fit yet"),
        pytest.param(1_300, 1_200, False, id="little, and it does not fit"),
    ],
)
def test_when_a_step_pays(before: int, after: int, worthwhile: bool) -> None:
    assert is_worthwhile(before, after, 1_000) == worthwhile


@given(sizes, sizes, st.integers(1, 2_000_000))
def test_a_step_that_frees_nothing_never_pays(before: int, more: int, room: int) -> None:
    assert not is_worthwhile(before, before + more, room)


def test_near_the_edge_an_estimate_proves_nothing() -> None:
    assert [may_not_fit(tokens, 1_000) for tokens in (900, 970, 971, 1_000)] == [
        False,
        False,
        True,
        True,
    ]
