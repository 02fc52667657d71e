"""Images cost what the providers' pages and recorded requests say."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mitmcontext.tokens.families import family_of
from mitmcontext.tokens.images import ASSUMED, Price
from mitmcontext.values import Picture

TILES = Price("tiles", 85, 170)
PATCHES = Price("patches", 1.62)
AREA = Price("area", 1_568, 1_600)


@pytest.mark.parametrize(
    ("price", "picture", "tokens"),
    [
        # OpenAI's own examples.
        pytest.param(TILES, Picture(1_024, 1_024), 765, id="a square of four tiles"),
        pytest.param(TILES, Picture(2_048, 4_096), 1_105, id="scaled down twice: six tiles"),
        pytest.param(TILES, Picture(4_096, 8_192, "low"), 85, id="low detail costs the base"),
        pytest.param(TILES, Picture(512, 512), 255, id="one tile"),
        pytest.param(TILES, Picture(513, 512), 425, id="a pixel more is a tile more"),
        pytest.param(Price("patches", 1), Picture(1_024, 1_024), 1_024, id="patches of 32"),
        pytest.param(Price("patches", 1), Picture(1_800, 2_400), 1_452, id="scaled to their limit"),
        pytest.param(PATCHES, Picture(1_024, 1_024), 1_659, id="times the model's factor"),
        # Reported by Anthropic for recorded requests, less the text beside the image.
        pytest.param(AREA, Picture(1_001, 1_001), 1_299, id="a token for 28 x 28, and 3"),
        pytest.param(AREA, Picture(330, 291), 135, id="small ones as they are"),
        pytest.param(AREA, Picture(800, 440), 467, id="another size"),
        pytest.param(AREA, Picture(1, 1), 4, id="the smallest"),
        pytest.param(AREA, Picture(15_680, 28), 59, id="long ones fitted by the long side"),
        pytest.param(Price("crops", 258), Picture(384, 384), 258, id="one crop"),
        pytest.param(Price("crops", 258), Picture(385, 384), 258 * 5, id="several, and the whole"),
        pytest.param(Price("rows", 1_540, 28), Picture(330, 291), 143, id="with ends of rows"),
        pytest.param(Price("squares", 32, 2), Picture(330, 291), 92, id="squares, rounded"),
        pytest.param(Price("squares", 32, 2), Picture(9, 9), 3, id="one at least"),
        pytest.param(Price("flat", 258), Picture(9_000, 9_000), 258, id="always the same"),
    ],
)
def test_a_price(price: Price, picture: Picture, tokens: int) -> None:
    assert price.tokens(picture) == tokens


FORMULAS = [TILES, PATCHES, AREA, Price("crops", 258), Price("rows", 1_540, 28), Price("flat", 1)]


@pytest.mark.parametrize("price", FORMULAS, ids=lambda price: price.formula)
def test_what_has_no_size_is_a_screenshot(price: Price) -> None:
    assert price.tokens(Picture()) == price.tokens(Picture(*ASSUMED))


@given(st.sampled_from(FORMULAS), st.integers(1, 60_000), st.integers(1, 60_000))
def test_no_image_is_for_nothing_or_beyond_all_bounds(
    price: Price, width: int, height: int
) -> None:
    assert 1 <= price.tokens(Picture(width, height)) <= 40_000


@given(st.sampled_from([TILES, AREA, PATCHES]), st.integers(1, 9_000), st.integers(1, 9_000))
def test_it_does_not_matter_which_side_is_up(price: Price, width: int, height: int) -> None:
    assert price.tokens(Picture(width, height)) == price.tokens(Picture(height, width))


@pytest.mark.parametrize(
    ("model", "formula"),
    [
        ("gpt-4o-2024-08-06", "tiles"),
        ("gpt-5-mini", "patches"),
        ("gpt-5.4", "patches"),
        ("o4-mini", "patches"),
        ("claude-3-haiku", "area"),
        ("gemini-2.5-flash", "flat"),
        ("gemini-2.0-flash", "crops"),
        ("mistral-large-latest", "rows"),
        ("qwen3-vl-flash", "squares"),
    ],
)
def test_each_model_has_its_formula(model: str, formula: str) -> None:
    assert family_of(model).image.formula == formula
