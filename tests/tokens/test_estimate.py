"""The estimate adds up, never falls when something is added, and comes near the recordings."""

from __future__ import annotations

import gzip
import json
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from statistics import median
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mitmcontext.tokens.estimate import Count, fixed_tokens, message_tokens
from mitmcontext.tokens.families import Family, family_of
from mitmcontext.tokens.vocabulary import count as count_with
from mitmcontext.tokens.vocabulary import load
from mitmcontext.values import Kind, Message, Part, Span

RECORDED = Path(__file__).resolve().parents[3] / "shared" / "data" / "tokens" / "dev.jsonl.gz"

# Round figures, so that a case can be checked in one's head; len counts letters.
FAMILY = Family(
    name="test",
    encoding="o200k_base",
    per_request=3,
    per_message=4,
    text=1.5,
    per_call=20,
    per_system=2,
    tools=0.5,
    per_tool=10,
    tools_fixed=300,
    per_image=1_000,
)


def part(kind: Kind, text: str = "", call_id: str = "", images: int = 0) -> Part:
    return Part(kind, text, Span(0, 0), call_id=call_id, images=images)


def message(*parts: Part) -> Message:
    return Message("user", parts, b"")


@pytest.mark.parametrize(
    ("parts", "tokens"),
    [
        pytest.param([], 4, id="an empty message has its wrapping"),
        pytest.param([part(Kind.TYPED, "abcd")], 10, id="text is counted by the family's ratio"),
        pytest.param([part(Kind.TYPED, "abc")], 9, id="halves are rounded up"),
        pytest.param([part(Kind.THINKING, "abcd")], 10, id="thinking counts as text"),
        pytest.param([part(Kind.OPAQUE, "abcd")], 10, id="so does what we do not know"),
        pytest.param([part(Kind.CALL, "abcd", "c")], 30, id="a call has a wrapping of its own"),
        pytest.param([part(Kind.CALL, "abcd")], 30, id="also one of the old kind, without an id"),
        pytest.param([part(Kind.RESULT, "abcd", "c")], 30, id="so has a result"),
        pytest.param([part(Kind.RESULT, "abcd")], 10, id="not one that was sent as a user's text"),
        pytest.param(
            [part(Kind.RESULT, "ab", "c"), part(Kind.RESULT, "ab", "c")],
            30,
            id="a result in two parts is one result",
        ),
        pytest.param([part(Kind.IMAGE, images=1)], 1_004, id="an image is flat"),
        pytest.param([part(Kind.IMAGE)], 1_004, id="also where nobody counted it"),
        pytest.param([part(Kind.RESULT, "", "c", images=2)], 2_024, id="images inside a result"),
    ],
)
def test_a_message(parts: list[Part], tokens: int) -> None:
    assert message_tokens(message(*parts), FAMILY, len) == tokens


@pytest.mark.parametrize(
    ("system", "n_system", "tools", "n_tools", "tokens"),
    [
        pytest.param("", 0, "", 0, 3, id="nothing but the request"),
        pytest.param("abcd", 1, "", 0, 11, id="a system prompt"),
        pytest.param("", 0, "[]", 0, 3, id="an empty array of tools is none"),
        pytest.param("", 0, '[{"a":1}]', 1, 318, id="tools by their JSON, number and presence"),
        pytest.param("", 0, '[ {"a": 1} ]\n', 1, 318, id="spacing does not matter"),
        pytest.param("", 0, r'[{"\u0061":1}]', 1, 318, id="nor do escapes"),
        pytest.param("", 0, '[{"a":1]', 1, 317, id="what is no JSON counts as it is"),
        pytest.param("", 0, "[" * 100_000, 1, 50_313, id="however deep"),
    ],
)
def test_what_is_fixed(system: str, n_system: int, tools: str, n_tools: int, tokens: int) -> None:
    assert fixed_tokens(system, n_system, tools, n_tools, FAMILY, len) == tokens


def test_an_estimate_is_never_negative() -> None:
    family = replace(FAMILY, per_message=-9.0, per_request=-9.0)
    assert message_tokens(message(), family, len) == 0
    assert fixed_tokens("", 0, "", 0, family, len) == 0


PARTS = st.lists(
    st.builds(part, st.sampled_from(Kind), st.text(max_size=50), st.sampled_from(["", "a", "b"])),
    max_size=5,
)


@given(PARTS, PARTS)
def test_more_parts_are_never_fewer_tokens(some: list[Part], more: list[Part]) -> None:
    fewer = message_tokens(message(*some), FAMILY, len)
    assert fewer <= message_tokens(message(*some, *more), FAMILY, len)


@given(PARTS, PARTS)
def test_splitting_a_message_changes_only_wrapping_and_rounding(
    first: list[Part], second: list[Part]
) -> None:
    family = replace(FAMILY, per_call=0)
    whole = message_tokens(message(*first, *second), family, len)
    halves = message_tokens(message(*first), family, len) + message_tokens(
        message(*second), family, len
    )
    assert 0 <= halves - whole - family.per_message <= 1


@cache
def counter(encoding: str) -> Count:
    return partial(count_with, load(encoding))


@pytest.mark.skipif(not RECORDED.is_file(), reason="the shared recordings are not here")
def test_plain_chat_comes_near_what_openai_reported() -> None:
    errors = []
    with gzip.open(RECORDED, "rt", encoding="utf-8") as lines:
        for row in map(json.loads, lines):
            if row["api"] == "openai.chat" and row["model"] in ("gpt-4o", "gpt-4.1-mini", "gpt-4"):
                errors += _error_of_plain_chat(row)
    assert len(errors) > 100
    assert median(errors) < 0.01
    assert sum(error <= 0.05 for error in errors) / len(errors) > 0.9


def _error_of_plain_chat(row: Any) -> list[float]:
    """The relative error for a request with nothing but text, else nothing."""
    body = row["request"]
    said = [message.get("content") for message in body["messages"]]
    plain = set(body) <= {"model", "messages", "stream", "stream_options", "temperature"}
    if not plain or any(not isinstance(text, str) or not text for text in said):
        return []
    family = family_of(row["model"])
    count = counter(family.encoding)
    estimate = fixed_tokens("", 0, "", 0, family, count) + sum(
        message_tokens(message(part(Kind.TYPED, text)), family, count) for text in said
    )
    return [abs(estimate / row["reported_input_tokens"] - 1)]
