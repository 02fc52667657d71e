"""Each model finds its family, and the table holds together."""

from __future__ import annotations

import tomllib
from importlib.resources import files

import pytest

from mitmcontext.tokens.families import family_of
from mitmcontext.tokens.vocabulary import SHA256


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("claude-3-opus-20240229", "claude-3-opus"),
        ("anthropic.claude-3-haiku-20240307-v1:0", "claude-3"),
        ("anthropic.claude-v2", "claude-3"),
        ("anthropic/claude-3.5-sonnet", "claude-3.5"),
        ("claude-3-7-sonnet@20250219", "claude-3.7"),
        ("claude-sonnet-4-20250514", "claude-sonnet-4"),
        ("claude-sonnet-4-0", "claude-sonnet-4"),
        ("us.anthropic.claude-sonnet-4-5-20250929-v1:0", "claude-sonnet-4.5"),
        ("claude-sonnet-4-6", "claude-sonnet-4.5"),
        ("claude-haiku-4-5-20251001", "claude-haiku-4.5"),
        ("claude-opus-4-1-20250805", "claude-opus-4"),
        ("claude-opus-4-6", "claude-opus-4.5"),
        ("claude-opus-4-8", "claude-new"),
        ("claude-sonnet-5", "claude-new"),
        ("claude-opus-5-5", "claude-opus-5"),
        ("claude-of-tomorrow-9", "claude-new"),
        ("gpt-35-turbo", "gpt-3.5"),
        ("gpt-4", "gpt-4"),
        ("gpt-4-0125-preview", "gpt-4"),
        ("gpt-4o-mini", "gpt-4o"),
        ("gpt-4.1-nano-2025-04-14", "gpt-4.1"),
        ("gpt-5.6-luna", "gpt-5"),
        ("gpt-6.1-sol", "gpt-5"),
        ("gpt-5.3-codex", "gpt-5"),
        ("o4-mini", "o-series"),
        ("openai.gpt-oss-20b-1:0", "gpt-oss"),
        ("gemini-2.5-flash", "gemini"),
        ("google/gemini-3-pro-preview", "gemini-3"),
        ("mistral-large-latest", "mistral"),
        ("deepseek-ai/DeepSeek-V4-Pro", "deepseek"),
        ("Qwen/Qwen3-4B", "qwen"),
        ("zai-org/GLM-5.2", "glm"),
        ("@cf/meta/llama-3.3-70b-instruct-fp8-fast", "llama"),
        ("somebody-elses-model", "other"),
        ("", "other"),
    ],
)
def test_a_model_finds_its_family(model: str, name: str) -> None:
    assert family_of(model).name == name


@pytest.mark.parametrize(
    ("model", "encoding"),
    [("gpt-3.5-turbo", "cl100k_base"), ("gpt-4", "cl100k_base"), ("gpt-4o", "o200k_base")],
)
def test_only_old_models_have_the_old_vocabulary(model: str, encoding: str) -> None:
    assert family_of(model).encoding == encoding


@pytest.mark.parametrize(
    ("model", "tokens"),
    [
        pytest.param("claude-sonnet-4-5", 1_600, id="Claude before 4.7 scales images down"),
        pytest.param("claude-opus-5-5", 2_700, id="later ones less so"),
        pytest.param("gpt-4o", 85 + 170 * 6, id="tiles"),
        pytest.param("gpt-4o-mini", 2_833 + 5_667 * 6, id="dear tiles"),
        pytest.param("gpt-4.1-mini", 2_490, id="patches"),
        pytest.param("somebody-elses-model", 1_105, id="an unknown model"),
    ],
)
def test_an_image_costs_what_a_screenshot_costs(model: str, tokens: int) -> None:
    assert family_of(model).per_image == tokens


def test_the_table_holds_together() -> None:
    text = files("mitmcontext.tokens").joinpath("families.toml").read_text(encoding="utf-8")
    data = tomllib.loads(text)
    for table in ("family", "image"):
        patterns = [pattern for row in data[table] for pattern in row["models"]]
        assert len(patterns) == len(set(patterns)), "a pattern stands twice"
        assert "*" in patterns
    for row in data["family"]:
        assert row["encoding"] in SHA256
        assert 0.9 <= row["text"] <= 1.5
    assert "Date:" in text
    assert "Source:" in text
