"""Names lose what hosts put around them, and keep what tells models apart."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mitmcontext.models.names import longest_match, plain


@pytest.mark.parametrize(
    ("model", "bare"),
    [
        pytest.param("claude-haiku-4-5", "claude-haiku-4-5", id="a bare name stays"),
        pytest.param("claude-haiku-4-5-20251001", "claude-haiku-4-5", id="a release date goes"),
        pytest.param("claude-haiku-4-5@20251001", "claude-haiku-4-5", id="Vertex writes it so"),
        pytest.param("anthropic/claude-haiku-4.5", "claude-haiku-4-5", id="OpenRouter, dots"),
        pytest.param(
            "us.anthropic.claude-haiku-4-5-20251001-v1:0", "claude-haiku-4-5", id="Bedrock, region"
        ),
        pytest.param("anthropic.claude-3-haiku-20240307-v1:0", "claude-3-haiku", id="Bedrock"),
        pytest.param(
            "arn:aws:bedrock:us-east-1:1:inference-profile/us.anthropic.claude-opus-4-6-v1",
            "claude-opus-4-6",
            id="Bedrock, by its resource name",
        ),
        pytest.param("databricks-claude-3-7-sonnet", "claude-3-7-sonnet", id="Databricks"),
        pytest.param("claude-3-5-haiku-latest", "claude-3-5-haiku", id="latest goes"),
        pytest.param("claude-sonnet-4-5[1m]", "claude-sonnet-4-5", id="Claude Code's long context"),
        pytest.param("gpt-4.1-mini-2025-04-14", "gpt-4.1-mini", id="OpenAI's dates have dashes"),
        pytest.param("gpt-5.2_2025-12-11", "gpt-5.2", id="or an underscore before them"),
        pytest.param("openai/gpt-4o-mini", "gpt-4o-mini", id="a vendor before a slash goes"),
        pytest.param("openai.gpt-oss-20b-1:0", "gpt-oss-20b-1", id="OpenAI on Bedrock"),
        pytest.param("ft:gpt-4o-mini-2024-07-18:acme::x", "gpt-4o-mini", id="a fine-tuned model"),
        pytest.param("models/gemini-2.5-pro", "gemini-2.5-pro", id="Google's folder goes"),
        pytest.param("@cf/meta/llama-3.3-70b-instruct", "llama-3.3-70b-instruct", id="Cloudflare"),
        pytest.param("moonshotai/Kimi-K2.5:groq", "kimi-k2.5", id="a route behind a colon goes"),
        pytest.param("gpt-4-0613", "gpt-4-0613", id="a short date is part of the name"),
        pytest.param(
            "us.anthropic.claude-sonnet-4-5-20250929-v1:0", "claude-sonnet-4-5", id="a version, too"
        ),
        pytest.param(
            "us-gov.anthropic.claude-3-haiku-20240307-v1:0", "claude-3-haiku", id="the government's"
        ),
        pytest.param("mea.amazon.nova-pro-v1:0", "nova-pro", id="a region that we never heard of"),
        pytest.param(
            "arn:aws:bedrock:eu-west-1::foundation-model/anthropic.claude-3-sonnet-20240229-v1:0",
            "claude-3-sonnet",
            id="a model's resource name",
        ),
        pytest.param(
            "arn:aws:bedrock:us-east-1:1:application-inference-profile/a1b2c3",
            "a1b2c3",
            id="a profile of one's own says nothing",
        ),
        pytest.param("meta.llama3-8b-instruct-v1:0", "llama3-8b-instruct", id="Llama on Bedrock"),
        pytest.param("claude-sonnet-4-5@20250929", "claude-sonnet-4-5", id="Vertex, once more"),
        pytest.param("llama3.1:8b", "llama3.1", id="Ollama's tag goes"),
        pytest.param("hf.co/bartowski/Qwen2.5-7B-GGUF:Q4_K_M", "qwen2.5-7b-gguf", id="from a hub"),
        pytest.param("", "", id="no name at all"),
    ],
)
def test_a_name_is_reduced_to_the_model(model: str, bare: str) -> None:
    assert plain(model) == bare


@given(st.text())
def test_any_text_has_a_bare_name_and_it_is_final(model: str) -> None:
    assert plain(plain(model)) == plain(plain(plain(model)))


def test_the_longest_pattern_wins_wherever_it_stands() -> None:
    patterns = ["gpt-*", "gpt-4o-mini*", "gpt-4o*"]
    assert longest_match(patterns, "gpt-4o-mini") == "gpt-4o-mini*"
    assert longest_match(reversed(patterns), "gpt-4o-mini") == "gpt-4o-mini*"


def test_a_star_is_not_length() -> None:
    assert longest_match(["gpt-4", "gpt-*"], "gpt-4") == "gpt-4"


def test_nothing_that_fits_is_none() -> None:
    assert longest_match(["gpt-*"], "claude-opus-5") is None
