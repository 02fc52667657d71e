"""What users may set, in which words, and which word wins."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mitmcontext.condense.assess import Thresholds
from mitmcontext.profiles import PROFILES
from mitmcontext.settings import BadSetting, Settings, declared, load


def of(**options: Any) -> Settings:
    return load(options, {})


def test_the_defaults_are_the_specifications() -> None:
    found = load({}, {})
    assert found == Settings()
    assert found.thresholds == Thresholds(0.7, 0.8, 0.9, 0.5)
    assert (found.context_mode, found.context_attested) == ("condense", "auto")
    assert (found.context_max_body, found.condensation_min_messages) == (32 << 20, 3)


OF_THE_SPECIFICATION = {
    "ENABLE_ACCURATE_TOKEN_COUNTING",
    "ENABLE_AI_CONDENSATION",
    "ENABLE_CONTEXT_PERFORMANCE_LOGGING",
    "ENABLE_TOKEN_COUNTING_LOGGING",
    "BASE_IMAGE_TOKENS",
    "IMAGE_TOKENS_PER_CHAR",
    "ENABLE_DYNAMIC_IMAGE_TOKENS",
}


def test_each_setting_is_declared_with_help() -> None:
    for item in declared():
        own = ("context_", "condensation_", "cache_", "tiktoken_")
        assert item.name.startswith((*own, "reduce_")) or item.name.upper() in OF_THE_SPECIFICATION
        assert item.metadata["help"].endswith(".")
        assert isinstance(item.metadata["default"], str | tuple)
        choices = item.metadata["choices"]
        assert choices is None or item.metadata["default"] in choices


def test_defaults_read_back_as_themselves() -> None:
    """As mitmproxy hands them over when somebody sets an option to its default."""
    given_ = {item.name: item.metadata["default"] for item in declared()}
    assert load(given_, {}) == Settings()


# Who wins.


def test_an_option_wins_over_the_environment_and_that_over_the_default() -> None:
    environment = {"CONTEXT_MODE": "observe"}
    assert load({}, {}).context_mode == "condense"
    assert load({}, environment).context_mode == "observe"
    assert load({"context_mode": "off"}, environment).context_mode == "off"


def test_an_option_that_was_set_to_its_default_still_wins() -> None:
    environment = {"CONTEXT_MODE": "off", "CONTEXT_HOSTS": "a.test"}
    found = load({"context_mode": "condense", "context_hosts": []}, environment)
    assert (found.context_mode, found.context_hosts) == ("condense", ())


def test_lists_in_the_environment_are_separated_by_commas() -> None:
    found = load({}, {"CONTEXT_HOSTS": "a.test, *.B.test,", "CONTEXT_WINDOWS": "claude-*=200000"})
    assert found.context_hosts == ("a.test", "*.b.test")
    assert found.context_windows == (("claude-*", 200_000),)


def test_other_variables_do_not_matter() -> None:
    assert load({}, {"CONTEXT_NOTHING": "x", "context_mode": "off", "PATH": "/"}) == Settings()


# What may be set.

GOOD: list[Any] = [
    ("enable_accurate_token_counting", "false", False),
    ("base_image_tokens", "", None),
    ("base_image_tokens", "1000", 1_000),
    ("image_tokens_per_char", "0.25", 0.25),
    ("image_tokens_per_char", "0", 0.0),
    ("enable_dynamic_image_tokens", "", None),
    ("enable_dynamic_image_tokens", "false", False),
    ("context_mode", " Observe ", "observe"),
    ("context_attested", "condense", "condense"),
    ("context_windows", ["gpt-*=128000", "x=1_000_000"], (("gpt-*", 128_000), ("x", 1_000_000))),
    ("context_hosts", ["API.openai.com", "*.test"], ("api.openai.com", "*.test")),
    ("context_hosts", ["api[12].test", "::1"], ("api[12].test", "::1")),
    ("context_max_body", "500000", 500_000),
    ("context_max_body", "64 mb", 64 << 20),
    ("context_max_body", "1GB", 1 << 30),
    ("context_max_body", "100KB", 100 << 10),
    ("context_keep_flows", "1", 1),
    ("condensation_min_messages", "10", 10),
    ("condensation_critical_threshold", "0.95", 0.95),
    ("condensation_critical_threshold", "95%", 0.95),
    ("condensation_critical_threshold", "95 %", 0.95),
    ("condensation_critical_threshold", "1", 1.0),
    ("condensation_target", "30%", 0.3),
]
BAD: list[Any] = [
    ("base_image_tokens", "-1", "whole number of 0 or more"),
    ("image_tokens_per_char", "a quarter", "a number of 0 or more"),
    ("image_tokens_per_char", "-0.25", "a number of 0 or more"),
    ("image_tokens_per_char", "inf", "a number of 0 or more"),
    ("enable_dynamic_image_tokens", "perhaps", "true or false"),
    ("context_mode", "on", "condense, observe, off"),
    ("context_attested", "yes", "auto"),
    ("context_windows", ["claude"], "GLOB=TOKENS"),
    ("context_windows", ["claude=x"], "GLOB=TOKENS"),
    ("context_windows", ["claude=0"], "GLOB=TOKENS"),
    ("context_windows", ["claude=-5"], "GLOB=TOKENS"),
    ("context_windows", ["=5000"], "GLOB=TOKENS"),
    ("context_hosts", [" "], "globs"),
    ("context_max_body", "", "32MB"),
    ("context_max_body", "0", "32MB"),
    ("context_max_body", "-1", "32MB"),
    ("context_max_body", "1.5MB", "32MB"),
    ("context_max_body", "lots", "32MB"),
    ("context_max_body", "2GB", "at most 1GB"),
    ("context_max_body", "9" * 5_000, "must not be longer"),
    ("context_max_body", "9" * 4_000, "at most 1GB"),
    ("context_ledger_ttl", "999999999d", "at most 3650d"),
    ("tiktoken_cache_size", "9999999999", "at most 1,000,000,000"),
    ("context_windows", ["gpt-*=999999999999"], "GLOB=TOKENS"),
    ("context_hosts", ["[!"], "globs"),
    ("context_hosts", ["api.test", "[a-"], "globs"),
    ("context_hosts", ["https://api.test"], "globs"),
    ("context_hosts", ["a.test\nb.test"], "control characters"),
    ("context_cache_dir", "kept\0here", "control characters"),
    ("context_profile", "low_traffic", "must be empty or one of high_traffic, "),
    ("condensation_model", "a\nb", "control characters"),
    ("condensation_model", "a\x1b[2Jb", "control characters"),
    ("condensation_model", "m" * 5_000, "must not be longer"),
    ("context_keep_flows", "0", "1 or more"),
    ("context_keep_flows", "many", "1 or more"),
    ("context_keep_flows", "1" * 13, "1 or more"),
    ("condensation_min_messages", "-3", "1 or more"),
    ("condensation_caution_threshold", "0", "share"),
    ("condensation_caution_threshold", "1.1", "share"),
    ("condensation_caution_threshold", "70", "share"),
    ("condensation_caution_threshold", "-0.5", "share"),
    ("condensation_caution_threshold", "nan", "share"),
    ("condensation_caution_threshold", "inf", "share"),
    ("condensation_caution_threshold", "", "share"),
    ("condensation_caution_threshold", "0,7", "share"),
]


@pytest.mark.parametrize(("name", "value", "expected"), GOOD)
def test_what_may_be_set(name: str, value: Any, expected: Any) -> None:
    assert getattr(of(**{name: value}), name) == expected


@pytest.mark.parametrize(("name", "value", "allowed"), BAD)
def test_what_may_not_be_set_is_told_in_a_sentence(name: str, value: Any, allowed: str) -> None:
    with pytest.raises(BadSetting) as caught:
        of(**{name: value})
    assert str(caught.value).startswith(name)
    assert allowed in str(caught.value)


def test_a_bad_variable_is_named_as_such() -> None:
    with pytest.raises(BadSetting, match=r"^CONTEXT_MODE must be one of condense, "):
        load({}, {"CONTEXT_MODE": "on"})


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({"condensation_caution_threshold": "0.8"}, id="caution equals warning"),
        pytest.param({"condensation_warning_threshold": "0.95"}, id="warning above critical"),
        pytest.param({"condensation_critical_threshold": "0.75"}, id="critical below warning"),
        pytest.param({"condensation_target": "0.8"}, id="target no way down"),
        pytest.param({"condensation_target": "1"}, id="target above all"),
    ],
)
def test_thresholds_that_contradict_each_other(options: dict[str, str]) -> None:
    with pytest.raises(BadSetting, match="condensation_"):
        of(**options)


def test_the_target_follows_a_lower_warning_threshold() -> None:
    low = of(condensation_warning_threshold="0.4", condensation_caution_threshold="0.3")
    assert low.condensation_target == pytest.approx(0.25)
    high = of(condensation_warning_threshold="0.85")
    assert high.condensation_target == 0.5
    own = of(
        condensation_warning_threshold="0.4",
        condensation_caution_threshold="0.3",
        condensation_target="0.39",
    )
    assert own.condensation_target == 0.39


@given(st.text(max_size=12), st.sampled_from([item.name for item in declared()]))
def test_whatever_is_set_is_read_or_refused(text: str, name: str) -> None:
    lists = isinstance(next(f for f in declared() if f.name == name).metadata["default"], tuple)
    try:
        found = of(**{name: [text] if lists else text})
    except BadSetting:
        return
    assert found.thresholds.caution < found.thresholds.warning < found.thresholds.critical
    assert found.thresholds.target < found.thresholds.warning
    assert found.context_max_body > 0


@given(st.lists(st.floats(0.001, 1), min_size=4, max_size=4))
def test_settings_are_in_order_or_refused(shares: list[float]) -> None:
    names = ("target", "caution_threshold", "warning_threshold", "critical_threshold")
    options = {f"condensation_{n}": repr(s) for n, s in zip(names, shares, strict=True)}
    target, caution, warning, critical = shares
    try:
        of(**options)
        taken = True
    except BadSetting:
        taken = False
    assert taken == (caution < warning < critical and target < warning)


# Presets.


def test_a_profile_sets_what_is_not_set() -> None:
    found = of(context_profile="high_quality")
    assert found.condensation_timeout == 60
    assert (found.condensation_max_messages, found.condensation_quality_threshold) == (15, 0.9)
    own = load({"context_profile": "high_quality"}, {"CONDENSATION_TIMEOUT": "5"})
    assert (own.condensation_timeout, own.condensation_max_messages) == (5, 15)
    assert load({}, {"CONTEXT_PROFILE": "balanced"}) == replace(
        Settings(), context_profile="balanced"
    )


def test_the_target_follows_a_profiles_thresholds_down() -> None:
    assert of(context_profile="development").thresholds == Thresholds(0.3, 0.5, 0.7, 0.3125)


@pytest.mark.parametrize("name", PROFILES)
def test_each_profile_takes_effect(name: str) -> None:
    """What it names is a setting, and becomes what it says (the log's two switches come apart)."""
    found, texts = of(context_profile=name), PROFILES[name]
    reads = {item.name: item.metadata["read"] for item in declared()}
    assert set(texts) - set(reads) <= {
        "enable_context_performance_logging",
        "enable_token_counting_logging",
    }
    for setting, text in texts.items():
        if setting in reads:
            assert getattr(found, setting) == reads[setting](text)


@pytest.mark.parametrize(
    "text", ["localhost:1", "ftp://x", "http://", "http://me:secret@x/v1", "http://x?key=1", "/v1"]
)
def test_an_endpoint_is_an_address_without_a_key(text: str) -> None:
    with pytest.raises(BadSetting, match="without a key"):
        of(condensation_endpoint=text, condensation_model="m")


def test_an_endpoint_needs_a_model() -> None:
    with pytest.raises(BadSetting, match="needs condensation_model"):
        of(condensation_endpoint="http://localhost:11434/v1")
    found = of(condensation_endpoint="http://localhost:11434/v1/", condensation_model="small")
    assert found.condensation_endpoint == "http://localhost:11434/v1"
