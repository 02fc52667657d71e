"""What tokens cost: by table, for long prompts, for an hour in the cache, and where none knows."""

from __future__ import annotations

import tomllib
from importlib.resources import files

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mitmcontext.models.prices import Prices, prices_of

ROWS = tomllib.loads(files("mitmcontext.models").joinpath("prices.toml").read_text("utf-8"))
PATTERNS = [pattern for row in ROWS["price"] for pattern in row["models"]]


@pytest.mark.parametrize(
    ("model", "plain", "read", "write", "output", "minutes"),
    [
        ("claude-opus-5-5", 4.0, 0.2, 5.0, 20.0, 5),
        ("claude-opus-5", 5.0, 0.5, 6.25, 25.0, 5),
        ("claude-opus-4-1-20250805", 15.0, 1.5, 18.75, 75.0, 5),
        ("claude-opus-4-20250514", 15.0, 1.5, 18.75, 75.0, 5),
        ("claude-opus-4-6[1m]", 5.0, 0.5, 6.25, 25.0, 5),
        ("claude-sonnet-4-20250514", 3.0, 0.3, 3.75, 15.0, 5),
        ("us.anthropic.claude-haiku-4-5-20251001-v1:0", 1.0, 0.1, 1.25, 5.0, 5),
        ("anthropic/claude-3.5-sonnet", 3.0, 0.3, 3.75, 15.0, 5),
        ("claude-fable-5", 10.0, 1.0, 12.5, 50.0, 5),
        ("claude-fable-5-1", 10.0, 0.25, 12.5, 50.0, 5),
        ("gpt-6.1-sol", 2.0, 0.1, 2.5, 10.0, 1440),
        ("gpt-5.4-2026-03-05", 2.5, 0.25, 2.5, 15.0, 1440),
        ("gpt-5.4-mini", 0.75, 0.075, 0.75, 4.5, 1440),
        ("gpt-4o-2024-11-20", 2.5, 1.25, 2.5, 10.0, 60),
        ("gpt-4o-mini", 0.15, 0.075, 0.15, 0.6, 60),
        ("gpt-5-pro", 15.0, 15.0, 15.0, 120.0, 1440),
        ("gemini-3.8-flash", 0.75, 0.075, 0.75, 3.75, 1440),
        ("models/gemini-2.5-flash-lite", 0.1, 0.01, 0.1, 0.4, 1440),
    ],
)
def test_current_models_have_a_price(
    model: str, plain: float, read: float, write: float, output: float, minutes: int
) -> None:
    prices = prices_of(model)
    found = (prices.input, prices.cache_read, prices.cache_write, prices.output)
    assert found == (plain, read, write, output)
    assert prices.keeps == minutes * 60
    assert prices.known


@pytest.mark.parametrize(
    "model",
    [
        "",
        "phi4:14b",
        "llama3.3:70b",
        "gpt-oss:20b",
        "gpt-9",
        "claude-of-tomorrow-9",
        "gpt-4o-audio",
    ],
)
def test_of_a_model_that_is_not_there_nothing_is_claimed(model: str) -> None:
    prices = prices_of(model)
    assert not prices.known
    assert (prices.input, prices.cache_read, prices.cache_write, prices.output) == (0, 0, 0, 0)


def test_a_long_prompt_costs_more_from_the_first_token_on() -> None:
    prices = prices_of("claude-haiku-5-5")
    assert prices.at(100_000) == prices
    long = prices.at(100_001)
    assert (long.input, long.cache_read) == pytest.approx((0.5, 0.05))
    assert (long.cache_write, long.output) == pytest.approx((0.625, 2.5))
    assert long.at(1_000_000) == long


def test_an_hour_in_the_cache_costs_more_to_write() -> None:
    hour = prices_of("claude-sonnet-4-6").kept_an_hour()
    assert (hour.cache_write, hour.cache_read, hour.keeps) == (6.0, 0.3, 3_600)
    assert prices_of("gpt-4o").kept_an_hour() == prices_of("gpt-4o")


def test_no_pattern_stands_twice() -> None:
    assert len(PATTERNS) == len(set(PATTERNS))


@given(st.sampled_from(PATTERNS), st.integers(0, 2_000_000))
def test_reading_never_costs_more_than_plain_and_plain_never_more_than_writing(
    pattern: str, tokens: int
) -> None:
    prices: Prices = prices_of(pattern.replace("*", "")).at(tokens)
    assert 0 < prices.cache_read <= prices.input <= prices.cache_write < prices.output
    assert prices.cache_write <= (prices.kept_an_hour().cache_write)
    assert prices.keeps >= 300
