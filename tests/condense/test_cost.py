"""What a step saves and costs: by hand, and laws that hold for all sizes and prices."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mitmcontext.condense.cost import (
    Billed,
    Cache,
    Course,
    Cut,
    billed_of,
    cost_of,
    course_of,
    forecast,
    imagined,
    newest_of,
    until_full,
)
from mitmcontext.models.prices import Prices, prices_of

SONNET = prices_of("claude-sonnet-4-6")  # 3, reading 0.3, writing 3.75, output 15
HAIKU = prices_of("claude-haiku-5-5")  # five times as much above 100,000 tokens
CUT = Cut(before=30_000, after=16_000, shared=4_000, new=1_000)


def test_a_step_on_a_warm_cache_by_hand() -> None:
    found = forecast(CUT, Course(turns=10, growth=500), Cache.WARM, SONNET)
    # 14,000 tokens fewer to read on each of ten turns, at 0.3 a million.
    assert found.saving == pytest.approx(10 * 14_000 * 0.3e-6)
    # 16,000 - 4,000 - 1,000 had been in the cache: written at 3.75 instead of read at 0.3.
    assert found.price == pytest.approx(11_000 * 3.45e-6)
    assert found.net == pytest.approx(0.042 - 0.03795)
    assert found.pays
    assert not forecast(CUT, Course(9, 500), Cache.WARM, SONNET).pays


def test_a_step_on_a_cold_cache_breaks_nothing() -> None:
    found = forecast(CUT, Course(turns=3, growth=500), Cache.COLD, SONNET)
    assert found.price == 0
    # At first 14,000 fewer to write, then twice as many fewer to read.
    assert found.saving == pytest.approx(14_000 * 3.75e-6 + 2 * 14_000 * 0.3e-6)


def test_a_step_without_a_cache_saves_the_plain_price_on_each_turn() -> None:
    found = forecast(CUT, Course(turns=3, growth=500), Cache.NONE, SONNET)
    assert found.saving == pytest.approx(3 * 14_000 * 3e-6)
    assert found.price == 0


def test_a_step_below_the_size_of_long_prompts_saves_their_surcharge() -> None:
    cut = Cut(before=110_000, after=60_000, shared=0, new=0)
    found = forecast(cut, Course(1, 0), Cache.WARM, HAIKU)
    assert found.saving == pytest.approx(110_000 * 0.05e-6 - 60_000 * 0.01e-6)
    assert found.price == pytest.approx(60_000 * 0.115e-6)


def test_where_no_price_is_known_no_step_pays() -> None:
    for cache in Cache:
        found = forecast(CUT, Course(100, 500), cache, prices_of("nobody-knows"))
        assert (found.saving, found.price, found.pays) == (0, 0, False)


@dataclass(frozen=True)
class Flat:
    """Prices of our own, the same for every size."""

    input: float
    cache_read: float
    cache_write: float
    output: float = 10.0

    def at(self, tokens: int) -> Flat:
        return self


@st.composite
def rates(draw: st.DrawFn) -> Flat:
    plain = draw(st.floats(0.05, 50))
    return Flat(plain, plain * draw(st.floats(0.01, 1)), plain * draw(st.floats(1, 2)), plain * 5)


@st.composite
def cuts(draw: st.DrawFn) -> Cut:
    after = draw(st.integers(1, 500_000))
    shared = draw(st.integers(0, after))
    new = draw(st.integers(0, after - shared))
    return Cut(after + draw(st.integers(0, 500_000)), after, shared, new)


courses = st.builds(Course, st.integers(1, 100), st.integers(0, 5_000))
caches = st.sampled_from(Cache)


@given(cuts(), courses, rates())
def test_the_forecast_is_the_difference_of_two_simulated_bills(
    cut: Cut, course: Course, rates: Flat
) -> None:
    def bill(first: tuple[int, int], size: int) -> float:
        read, written = first
        total = read * rates.cache_read + written * rates.cache_write
        for turn in range(1, course.turns):
            total += (size + (turn - 1) * course.growth) * rates.cache_read
            total += course.growth * rates.cache_write
        return total / 1e6

    without = bill((cut.before - cut.new, cut.new), cut.before)
    with_it = bill((cut.shared, cut.after - cut.shared), cut.after)
    found = forecast(cut, course, Cache.WARM, rates)
    assert found.net == pytest.approx(without - with_it, rel=1e-6, abs=1e-9)


@given(cuts(), courses, caches, rates())
def test_more_turns_never_bring_less_and_the_price_is_paid_once(
    cut: Cut, course: Course, cache: Cache, rates: Flat
) -> None:
    found = forecast(cut, course, cache, rates)
    longer = forecast(cut, course._replace(turns=course.turns + 1), cache, rates)
    assert longer.price == found.price >= 0
    assert longer.saving >= found.saving >= 0


@given(cuts(), courses, caches)
def test_what_frees_nothing_never_pays(cut: Cut, course: Course, cache: Cache) -> None:
    same = cut._replace(before=cut.after)
    assert not forecast(same, course, cache, SONNET).pays


@given(cuts(), courses, rates(), st.floats(0.1, 10))
def test_whether_a_step_pays_does_not_depend_on_the_currency(
    cut: Cut, course: Course, rates: Flat, times: float
) -> None:
    scaled = Flat(rates.input * times, rates.cache_read * times, rates.cache_write * times)
    one, other = (forecast(cut, course, Cache.WARM, each) for each in (rates, scaled))
    assert other.net == pytest.approx(one.net * times, rel=1e-6, abs=1e-9)


# How a conversation goes on.


def test_half_as_many_turns_are_expected_as_there_were() -> None:
    own = [False, True, False, True, False]
    assert course_of([100, 50, 250, 50, 250], own) == Course(2, 300)


def test_a_conversation_ends_where_a_step_is_forced() -> None:
    course = course_of([100] * 101, [False, *([True, False] * 50)])
    assert course == Course(26, 200)
    assert until_full(course, room=11_000, used=10_000) == Course(6, 200)
    assert until_full(course, room=10_000, used=12_000) == Course(1, 200)
    assert until_full(course, room=900_000, used=12_000) == course
    assert until_full(Course(3, 0), room=10, used=12) == Course(3, 0)


def test_the_first_request_of_all_is_one_turn() -> None:
    assert course_of([9_000], [False]) == Course(1, 0)


def test_what_a_model_says_in_several_items_is_one_turn() -> None:
    own = [False, True, True, False, True, False]
    assert course_of([10] * 6, own).turns == 2
    assert newest_of([1, 2, 4, 8, 16, 32], own) == 48
    assert newest_of([1, 2, 4], [False, True, True]) == 6
    assert newest_of([7, 8], [False, False]) == 15


# What requests cost.


def test_a_bill_by_hand() -> None:
    billed = billed_of(10_000, output=100, read=7_000, written=2_000)
    assert billed == Billed(1_000, 7_000, 2_000, 100)
    expected = (1_000 * 3 + 7_000 * 0.3 + 2_000 * 3.75 + 100 * 15) / 1e6
    assert cost_of(billed, SONNET) == pytest.approx(expected)


def test_a_report_that_contradicts_itself_is_no_negative_bill() -> None:
    assert billed_of(100, None, read=500, written=500) == Billed(0, 100, 0, 0)
    assert billed_of(-5, None, None, None) == Billed(0, 0, 0, 0)


def test_the_unshortened_request_by_hand() -> None:
    # 16,000 went out, 12,000 of it written anew; unshortened it would have been 30,000, of which
    # 29,000 stood in the cache.
    went = Billed(0, 4_000, 12_000, 50)
    would = imagined(went, 14_000, reusable=29_000, cached=True, writes=True)
    assert would == Billed(0, 29_000, 1_000, 50)
    assert cost_of(would, SONNET) < cost_of(went, SONNET)


def test_where_writing_costs_nothing_extra_none_is_imagined() -> None:
    would = imagined(
        Billed(12_000, 4_000, 0, 50), 14_000, reusable=29_000, cached=True, writes=False
    )
    assert would == Billed(1_000, 29_000, 0, 50)


def test_without_a_cache_all_is_fresh() -> None:
    would = imagined(Billed(16_000, 0, 0, 50), 14_000, reusable=None, cached=False, writes=True)
    assert would == Billed(30_000, 0, 0, 50)


tokens = st.integers(0, 1_000_000)
bills = st.builds(Billed, tokens, tokens, tokens, tokens)


@given(bills)
def test_what_was_not_changed_would_have_cost_the_same(billed: Billed) -> None:
    assert imagined(billed, 0, None, cached=True, writes=True) == billed


@given(
    bills,
    st.integers(-3_000_000, 3_000_000),
    st.none() | st.floats(0, 3e6),
    st.booleans(),
    st.booleans(),
)
def test_an_imagined_bill_has_the_size_of_what_would_have_gone_out(
    billed: Billed, difference: int, reusable: float | None, cached: bool, writes: bool
) -> None:
    would = imagined(billed, difference, reusable, cached=cached, writes=writes)
    assert would.input == max(0, billed.input + difference)
    assert min(would) >= 0
    assert would.output == billed.output


@given(bills, st.sampled_from([SONNET, HAIKU]))
def test_a_request_costs_at_least_its_reading_and_at_most_its_writing(
    billed: Billed, prices: Prices
) -> None:
    at = prices.at(billed.input)
    output = billed.output * at.output
    least = (billed.input * at.cache_read + output) / 1e6
    most = (billed.input * at.cache_write + output) / 1e6
    assert least * 0.999999 <= cost_of(billed, prices) <= most * 1.000001
