"""How much fits: by table, by override, by default, and beside the requested output."""

from __future__ import annotations

import tomllib
from importlib.resources import files

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mitmcontext.models.windows import SMALLEST, Window, parse_windows, window_of


@pytest.mark.parametrize(
    ("model", "tokens", "output", "total"),
    [
        ("claude-opus-5-5", 1_000_000, 128_000, 1_000_000),
        ("claude-opus-4-6-20260205", 1_000_000, 128_000, 1_000_000),
        ("claude-opus-4-5-20251101", 200_000, 64_000, 200_000),
        ("claude-opus-4-1-20250805", 200_000, 32_000, 200_000),
        ("claude-sonnet-4-20250514", 200_000, 64_000, 200_000),
        ("claude-sonnet-4-6", 1_000_000, 128_000, 1_000_000),
        ("us.anthropic.claude-haiku-4-5-20251001-v1:0", 200_000, 64_000, 200_000),
        ("claude-haiku-5-5", 1_000_000, 128_000, 1_000_000),
        ("claude-fable-5-1", 1_000_000, 128_000, 1_000_000),
        ("anthropic/claude-3.5-sonnet", 200_000, 8_192, 200_000),
        ("claude-of-tomorrow-9", 200_000, 128_000, 200_000),
        ("gpt-6.1-sol", 922_000, 128_000, 1_050_000),
        ("gpt-5.6-luna", 922_000, 128_000, 1_050_000),
        ("gpt-5.4-2026-03-05", 922_000, 128_000, 1_050_000),
        ("gpt-5.4-mini", 272_000, 128_000, 400_000),
        ("gpt-5.3-codex", 272_000, 128_000, 400_000),
        ("gpt-5-chat-latest", 128_000, 16_384, 128_000),
        ("gpt-4.1-nano", 1_047_576, 32_768, 1_047_576),
        ("openai/gpt-4o-mini", 128_000, 16_384, 128_000),
        ("gpt-4", 8_192, 4_096, 8_192),
        ("o4-mini-2025-04-16", 200_000, 100_000, 200_000),
        ("gemini-3.8-flash", 1_048_576, 65_536, None),
        ("mistral-large-latest", 262_144, 262_144, 262_144),
        ("deepseek-v4-pro", 1_000_000, 393_216, 1_000_000),
        ("zai-org/GLM-5.2", 1_000_000, 128_000, 1_000_000),
        ("glm-4.5-air", 128_000, 32_000, 128_000),
        ("command-a-03-2025", 256_000, 8_000, 256_000),
        ("command-r7b-12-2024", 128_000, 4_096, 128_000),
        ("command", 4_096, 4_096, 4_096),
        ("us.anthropic.claude-sonnet-4-5-20250929-v1:0", 200_000, 64_000, 200_000),
        (
            "arn:aws:bedrock:us-east-1:1:inference-profile/global.anthropic.claude-opus-4-6-v1",
            1_000_000,
            128_000,
            1_000_000,
        ),
        ("claude-sonnet-4-5@20250929", 200_000, 64_000, 200_000),
        ("us.amazon.nova-lite-v1:0", 300_000, 10_000, 300_000),
        ("us.amazon.nova-2-lite-v1:0", 1_000_000, 64_000, 1_000_000),
        ("ai21.jamba-1-5-mini-v1:0", 256_000, 4_096, 256_000),
        ("mistral.mistral-7b-instruct-v0:2", 32_000, 4_096, 32_000),
        ("mistral.mistral-large-2402-v1:0", 32_000, 4_096, 32_000),
        ("mistral.mistral-large-3-675b-instruct", 262_144, 262_144, 262_144),
        ("meta.llama3-8b-instruct-v1:0", 8_192, 8_192, 8_192),
        ("meta.llama3-1-70b-instruct-v1:0", 128_000, 128_000, 128_000),
        ("llama3", 8_192, 8_192, 8_192),
        ("llama3.1:8b", 128_000, 128_000, 128_000),
        ("llama3.3:70b-instruct-q4_K_M", 128_000, 128_000, 128_000),
        ("llama2:13b", 4_096, 4_096, 4_096),
        ("gemma3:27b", 131_072, 8_192, 131_072),
        ("gpt-oss:20b", 131_072, 131_072, 131_072),
    ],
)
def test_current_models_are_known(
    model: str, tokens: int, output: int | None, total: int | None
) -> None:
    window = window_of(model)
    assert (window.input, window.output, window.total) == (tokens, output, total)
    assert window.known
    assert window.source.startswith("table ")


@pytest.mark.parametrize(
    "model",
    [
        "somebody-elses-model",
        "arn:aws:bedrock:us-east-1:1:application-inference-profile/a1b2c3",
        "phi4:14b",
    ],
)
def test_an_unknown_model_gets_a_careful_default(model: str) -> None:
    window = window_of(model)
    assert (window.input, window.total) == (128_000, 128_000)
    assert not window.known
    assert window.source == "careful default"


def test_the_long_context_of_claude_code_counts() -> None:
    assert window_of("claude-sonnet-4-5[1m]").input == 1_000_000


@pytest.mark.parametrize(
    ("window", "requested", "room"),
    [
        pytest.param((200_000, 64_000, 200_000), None, 200_000, id="nothing requested: all of it"),
        pytest.param((200_000, 64_000, 200_000), 32_000, 168_000, id="Anthropic counts both"),
        pytest.param((272_000, 128_000, 400_000), 64_000, 272_000, id="the input cap is reached"),
        pytest.param((272_000, 200_000, 400_000), 200_000, 200_000, id="the total is reached"),
        pytest.param((1_048_576, 65_536, None), 65_536, 1_048_576, id="Gemini counts them apart"),
        pytest.param((200_000, 64_000, 200_000), 999_999, 136_000, id="no more than it can write"),
        pytest.param((128_000, None, 128_000), 200_000, 32_000, id="a quarter always remains"),
        pytest.param((131_072, 131_072, 131_072), 131_072, 32_768, id="all of it as output"),
        pytest.param((200_000, 64_000, 200_000), -5, 200_000, id="a negative request is none"),
    ],
)
def test_room_is_what_fits_beside_the_output(
    window: tuple[int, int | None, int | None], requested: int | None, room: int
) -> None:
    assert Window(*window, known=True, source="").room(requested) == room


@given(
    st.integers(SMALLEST, 2_000_000),
    st.none() | st.integers(1, 2_000_000),
    st.none() | st.integers(1, 4_000_000),
    st.none() | st.integers(-10, 10_000_000),
)
def test_room_lies_between_a_quarter_and_the_input_window(
    tokens: int, output: int | None, total: int | None, requested: int | None
) -> None:
    window = Window(tokens, output, total, known=True, source="")
    assert tokens // 4 <= window.room(requested) <= tokens


@pytest.mark.parametrize(
    ("model", "overrides", "tokens", "total"),
    [
        pytest.param(
            "claude-opus-5-5",
            [("claude-*", 32_000)],
            32_000,
            1_000_000,
            id="an override wins, the known total stays",
        ),
        pytest.param(
            "claude-sonnet-4-5",
            [("claude-*", 1_000_000)],
            1_000_000,
            None,
            id="who knows of a larger window knows a larger total",
        ),
        pytest.param(
            "gpt-4o-mini",
            [("gpt-4o-mini", 5_000), ("gpt-*", 6_000)],
            5_000,
            128_000,
            id="the longest pattern wins",
        ),
        pytest.param(
            "gpt-4o", [("gpt-4o", 5_000), ("gpt-4o", 6_000)], 6_000, 128_000, id="the last of two"
        ),
        pytest.param("openai/GPT-4o", [("openai/*", 5_000)], 5_000, 128_000, id="the name as sent"),
        pytest.param("openai/gpt-4o", [("GPT-4o", 5_000)], 5_000, 128_000, id="the bare name"),
        pytest.param("gpt-4o", [("claude-*", 5_000)], 128_000, 128_000, id="one that does not fit"),
        pytest.param("house-model", [("*", 9_000)], 9_000, 128_000, id="an unknown model"),
    ],
)
def test_overrides(
    model: str, overrides: list[tuple[str, int]], tokens: int, total: int | None
) -> None:
    window = window_of(model, tuple(overrides))
    assert (window.input, window.total, window.known) == (tokens, total, True)


def test_an_override_says_where_the_figure_is_from() -> None:
    assert window_of("gpt-4o", (("gpt-*", 9_000),)).source == "context_windows gpt-*"


def test_settings_become_pairs() -> None:
    assert parse_windows(["claude-*=200000", " gpt-? = 1_000_000 ", "a=b=5000"]) == (
        ("claude-*", 200_000),
        ("gpt-?", 1_000_000),
        ("a=b", 5_000),
    )


@pytest.mark.parametrize(
    "setting",
    [
        "",
        "claude-*",
        "=5000",
        "claude-*=",
        "x=12k",
        "x=1.5",
        "x=-5",
        "x=999",
        "x=٥٠٠٠",
        "x=" + "9" * 13,
    ],
)
def test_a_setting_that_is_none_says_what_is_allowed(setting: str) -> None:
    with pytest.raises(ValueError, match=r"GLOB=TOKENS with a whole number of 1000 tokens or more"):
        parse_windows([setting])


def test_the_table_holds_together() -> None:
    text = files("mitmcontext.models").joinpath("windows.toml").read_text(encoding="utf-8")
    rows = tomllib.loads(text)["window"]
    patterns = [pattern for row in rows for pattern in row["models"]]
    assert len(patterns) == len(set(patterns)), "a pattern stands twice"
    for row in rows:
        assert set(row) <= {"models", "input", "output", "total"}
        assert row["input"] <= row.get("total", row["input"])
    assert "Date:" in text
    assert "Sources:" in text
