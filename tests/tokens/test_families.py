"""Each model finds its family, and the table holds together."""

from __future__ import annotations

import tomllib
from importlib.resources import files

import pytest

from mitmcontext.tokens.estimate import message_counts
from mitmcontext.tokens.families import CHAT, RESPONSES, Asked, family_of
from mitmcontext.tokens.images import Price
from mitmcontext.tokens.vocabulary import SHA256, count, load
from mitmcontext.values import Message, Picture


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("claude-3-opus-20240229", "claude-3-opus"),
        ("anthropic.claude-3-haiku-20240307-v1:0", "claude-3-haiku"),
        ("anthropic.claude-v2", "claude-3-sonnet"),
        ("anthropic/claude-3.5-sonnet", "claude-3.5"),
        ("claude-3-7-sonnet@20250219", "claude-3.7"),
        ("claude-sonnet-4-20250514", "claude-4"),
        ("claude-sonnet-4-0", "claude-4"),
        ("us.anthropic.claude-sonnet-4-5-20250929-v1:0", "claude-4.5"),
        ("claude-sonnet-4-6", "claude-4.5"),
        ("claude-haiku-4-5-20251001", "claude-4.5"),
        ("claude-opus-4-1-20250805", "claude-4"),
        ("claude-opus-4-6", "claude-4.5"),
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
        ("gemini-2.5-flash", "gemini-2.5 chat"),
        ("google/gemini-3-pro-preview", "gemini-3 chat"),
        ("mistral-large-latest", "mistral"),
        ("command-a-03-2025", "cohere"),
        ("command-a-reasoning-08-2025", "cohere-reasoning"),
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
    ("model", "api", "name"),
    [
        ("gpt-4o", CHAT, "gpt-4o"),
        ("gpt-4o", RESPONSES, "gpt-4o responses"),
        ("openai/gpt-4o", CHAT, "gpt-4o responses"),
        ("gpt-4o", "Azure's own", "gpt-4o"),
        ("gemini-2.5-pro", CHAT, "gemini-2.5 chat"),
        ("gemini-2.5-pro", "Google Gemini", "gemini-2.5"),
        ("gemini-3-pro", "Google Gemini", "gemini-3"),
        ("gemini-of-tomorrow", "Google Gemini", "gemini-1"),
        ("claude-opus-5", CHAT, "claude-opus-5"),
        ("somebody-elses-model", RESPONSES, "other"),
    ],
)
def test_an_api_may_count_in_a_way_of_its_own(model: str, api: str, name: str) -> None:
    assert family_of(model, api).name == name


@pytest.mark.parametrize(
    ("model", "tokens"),
    [
        pytest.param("claude-sonnet-4-5", 1_593, id="Claude before 4.7 scales images down"),
        pytest.param("claude-opus-5-5", 2_694, id="later ones do not"),
        pytest.param("gpt-4o", 85 + 170 * 6, id="tiles"),
        pytest.param("gpt-4o-mini", 2_833 + 5_667 * 6, id="dear tiles"),
        pytest.param("gpt-4.1-mini", 2_443, id="patches"),
        pytest.param("gpt-oss-120b", 0, id="a model that sees none"),
        pytest.param("somebody-elses-model", 85 + 170 * 6, id="an unknown model"),
    ],
)
def test_a_screenshot_costs_what_the_provider_says(model: str, tokens: int) -> None:
    assert family_of(model).image.tokens(Picture(1_920, 1_080)) == tokens


def test_what_counts_alike_has_one_mark() -> None:
    assert family_of("gpt-4o").mark == family_of("gpt-4o-2024-08-06").mark
    assert family_of("gpt-4o").mark != family_of("gpt-4o-mini").mark, "images cost another price"


@pytest.mark.parametrize(
    ("asked", "tokens"),
    [
        pytest.param(Asked(), 85 + 170 * 6, id="nothing: the provider's formula"),
        pytest.param(Asked(base=1_000, dynamic=False), 1_000, id="a flat figure"),
        pytest.param(Asked(dynamic=False), 85, id="the specification's flat figure"),
        pytest.param(Asked(dynamic=True), 85 + 25, id="the specification's by description"),
        pytest.param(Asked(per_char=0.5), 85 + 50, id="another price for each character"),
        pytest.param(Asked(base=10), 10 + 25, id="another base"),
        pytest.param(
            Asked(base=10, per_char=0.5, dynamic=False), 10, id="descriptions not counted"
        ),
    ],
)
def test_an_image_costs_what_was_asked_for(asked: Asked, tokens: int) -> None:
    assert family_of("gpt-4o", CHAT, asked).image.tokens(Picture(1_920, 1_080), 100) == tokens


def test_a_token_may_be_four_characters() -> None:
    family = family_of("gpt-3.5-turbo", CHAT, Asked(accurate=False))
    encoding = load(family.encoding)
    assert [count(encoding, "x" * length) for length in (0, 1, 4, 5, 100_000)] == [
        *(0, 1, 1, 2),
        25_000,
    ]
    assert family.mark != family_of("gpt-3.5-turbo", CHAT).mark


COUNTED = {*message_counts(Message("user", (), b""), len), "text", "thinking", "name", "call"} | {
    *("request", "system", "thinks", "tools", "tool", "tool_text", "any", "none", "named"),
    *("strict", "schema", "schema_text", "sealed", "page", "media"),
}


def test_the_table_holds_together() -> None:
    text = files("mitmcontext.tokens").joinpath("families.toml").read_text(encoding="utf-8")
    data = tomllib.loads(text)
    patterns = [
        (pattern, api)
        for row in data["family"]
        for pattern in row["models"]
        for api in row.get("apis", [""])
    ]
    assert len(patterns) == len(set(patterns)), "a pattern stands twice"
    names = [row["name"] for row in data["family"]]
    assert len(names) == len(set(names)), "a name stands twice"
    for table in ("family", "image"):
        assert any("*" in row["models"] for row in data[table])
    for row in data["family"]:
        assert row["encoding"] in SHA256
        assert row["form"] in ("typescript", "json")
        assert set(row["weights"]) <= COUNTED
        assert 0.8 <= row["weights"]["text"] <= 1.5
    for row in data["image"]:
        assert Price(row["formula"], row["a"], row.get("b", 0)).tokens(Picture(100, 100)) >= 0
    assert "Date:" in text
    assert "Source:" in text
