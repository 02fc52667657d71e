"""The estimate adds up, never falls when something is added, and comes near the recordings."""

from __future__ import annotations

import gzip
import json
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from statistics import median
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mitmcontext.tokens.estimate import (
    Count,
    Outside,
    fixed_tokens,
    message_tokens,
    text_tokens,
)
from mitmcontext.tokens.families import Family, family_of
from mitmcontext.tokens.images import Price
from mitmcontext.tokens.vocabulary import count as count_with
from mitmcontext.tokens.vocabulary import load
from mitmcontext.values import Kind, Message, Part, Picture, Span

RECORDED = Path(__file__).resolve().parents[3] / "shared" / "data" / "tokens" / "dev.jsonl.gz"

# Round figures, so that a case can be checked in one's head; len counts letters.
FAMILY = Family(
    name="test",
    encoding="o200k_base",
    form="json",
    weights={
        "request": 3,
        "message": 4,
        "text": 1.5,
        "thinking": 1,
        "sealed": 2,
        "name": 1,
        "call": 20,
        "result": 10,
        "further": 100,
        "parallel": 1_000,
        "system": 2,
        "thinks": 7,
        "tools": 300,
        "tool": 10,
        "tool_text": 0.5,
        "any": 40,
        "none": -300,
        "named": 5,
        "strict": 80,
        "schema": 200,
        "schema_text": 2,
    },
    image=Price("flat", 1_000),
)


def part(kind: Kind, text: str = "", call_id: str = "", images: int = 0, name: str = "") -> Part:
    return Part(kind, text, Span(0, 0), call_id=call_id, images=images, name=name)


def message(*parts: Part, item: bool = False) -> Message:
    return Message("user", parts, b"", item=item)


CALL = part(Kind.CALL, 'f {"a": 1}', "c", name="f")


@pytest.mark.parametrize(
    ("said", "tokens"),
    [
        pytest.param(message(), 4, id="an empty message has its wrapping"),
        pytest.param(message(part(Kind.TYPED, "abcd")), 10, id="text goes by the family's ratio"),
        pytest.param(message(part(Kind.TYPED, "abc")), 9, id="halves are rounded up"),
        pytest.param(message(part(Kind.THINKING, "abcd")), 8, id="thinking has a ratio of its own"),
        pytest.param(
            message(Part(Kind.THINKING, "", Span(3, 43))), 4 + 20, id="so has what is sealed of it"
        ),
        pytest.param(message(part(Kind.OPAQUE, "abcd")), 10, id="what we do not know is text"),
        pytest.param(message(CALL), 4 + 20 + 1 + 12, id="a call without the spaces in its JSON"),
        pytest.param(message(part(Kind.CALL, "f {a", name="f")), 30, id="or as it stands"),
        pytest.param(
            message(CALL, CALL, CALL),
            4 + 3 * 33 + 200 + 1_000,
            id="several calls at once cost more than each alone",
        ),
        pytest.param(message(part(Kind.RESULT, "abcd", "c")), 20, id="a result is wrapped, too"),
        pytest.param(
            message(part(Kind.RESULT, "abcd")), 10, id="not one that was sent as a user's text"
        ),
        pytest.param(
            message(part(Kind.RESULT, "ab", "c"), part(Kind.RESULT, "ab", "c")),
            20,
            id="a result in two parts is one result",
        ),
        pytest.param(
            message(part(Kind.THINKING, "abcd"), item=True),
            4,
            id="an item of thinking is no message",
        ),
        pytest.param(message(part(Kind.IMAGE, images=1)), 1_004, id="an image has its price"),
        pytest.param(message(part(Kind.IMAGE)), 1_004, id="also where nobody counted it"),
        pytest.param(
            message(part(Kind.RESULT, "", "c", images=2)), 2_014, id="images inside a result"
        ),
    ],
)
def test_a_message(said: Message, tokens: int) -> None:
    assert message_tokens(said, FAMILY, len) == tokens


def file(kind: Kind, text: str, size: int) -> Part:
    return Part(kind, text, Span(5, 5 + size))


@pytest.mark.parametrize(
    ("parts", "tokens"),
    [
        pytest.param([file(Kind.DOCUMENT, "{}", 3_000)], 1_000, id="a small document is a page"),
        pytest.param([file(Kind.DOCUMENT, "{}", 140_000)], 3_000, id="a large one has more"),
        pytest.param([file(Kind.DOCUMENT, "{}", 3_000)] * 2, 2_000, id="two have two"),
        pytest.param([file(Kind.OPAQUE, "application/pdf", 3_000)], 1_000, id="also in disguise"),
        pytest.param([file(Kind.OPAQUE, "audio/mp3", 10_249)], 50, id="sound goes by kilobytes"),
        pytest.param(
            [file(Kind.DOCUMENT, "x" * 3_000, 3_000)], 0, id="a document in words has none"
        ),
        pytest.param([file(Kind.DOCUMENT, "x" * 3_000, 9_000)], 0, id="whatever its words came as"),
        pytest.param([file(Kind.DOCUMENT, "{}", 1_000)], 0, id="no data, no pages"),
        pytest.param([file(Kind.TYPED, "", 9_000)], 0, id="and text has none at all"),
    ],
)
def test_files_cost_by_their_size(parts: list[Part], tokens: int) -> None:
    family = replace(FAMILY, weights={"page": 1_000, "media": 5})
    assert message_tokens(message(*parts), family, len) == pytest.approx(tokens, abs=1)


def test_images_cost_what_their_sizes_cost() -> None:
    family = replace(FAMILY, image=Price("area", 10_000, 100_000), weights={})
    shown = (Picture(280, 28), Picture(28, 28))
    said = Part(Kind.RESULT, "", Span(0, 0), images=2, pictures=shown)
    assert message_tokens(message(said), family, len) == 10 + 3 + 1 + 3
    gone = msgspec.structs.replace(said, images=0)
    assert message_tokens(message(gone), family, len) == 0, "a stub took their place"
    described = replace(family, image=Price("described", 85, 0.25))
    text = part(Kind.TYPED, "x" * 100)
    assert message_tokens(message(text, said), described, len) == 2 * (85 + 25)
    more = msgspec.structs.replace(said, images=3)
    assert message_tokens(message(more), family, len) > 1_000, "one that nobody looked at is large"


TOOL = '{"name":"f","description":"d","parameters":{}}'  # 46 letters
TOOLS = 300 + 10 + 23


@pytest.mark.parametrize(
    ("outside", "tokens"),
    [
        pytest.param(Outside(), 3, id="nothing but the request"),
        pytest.param(Outside(system=True), 5, id="a system prompt"),
        pytest.param(Outside(thinks=True), 10, id="thinking"),
        pytest.param(Outside(tools="[]"), 3, id="an empty array of tools is none"),
        pytest.param(Outside(tools="null", choice="null", schema="null"), 3, id="nor is null"),
        pytest.param(Outside(tools="["), 3, id="what is no JSON has no tools"),
        pytest.param(Outside(tools="[" * 100_000), 3, id="however deep"),
        pytest.param(Outside(tools=f"[{TOOL}]"), 3 + TOOLS, id="tools by text, number, presence"),
        pytest.param(
            Outside(tools=f"[ {TOOL.replace(':', ' : ')} ]\n"),
            3 + TOOLS,
            id="spacing does not matter",
        ),
        pytest.param(
            Outside(tools=f'[{TOOL[:-1]},"cache_control":{{}}}}]'), 3 + TOOLS, id="nor do markers"
        ),
        pytest.param(
            Outside(tools='[{"type":"web_search_20250305","x":1},7,{"name":7}]'),
            3,
            id="the server's own tools are not counted",
        ),
        pytest.param(Outside(tools=f"[{TOOL}]", choice='"auto"'), 3 + TOOLS, id="a free choice"),
        pytest.param(
            Outside(tools=f"[{TOOL}]", choice='"required"'), 43 + TOOLS, id="a forced one"
        ),
        pytest.param(
            Outside(tools=f"[{TOOL}]", choice='{"type":"tool","name":"f"}'),
            48 + TOOLS,
            id="one that names a tool",
        ),
        pytest.param(Outside(tools=f"[{TOOL}]", choice='"none"'), 3 + TOOLS - 300, id="none"),
        pytest.param(Outside(choice='"required"'), 3, id="no choice without tools"),
        pytest.param(
            Outside(tools=f'[{TOOL[:-1]},"strict":true}}]'), 83 + TOOLS, id="a strict tool"
        ),
        pytest.param(Outside(schema='{"type":"text"}'), 3, id="plain text has no schema"),
        pytest.param(
            Outside(schema='{"type":"json_schema","schema":{"a":  1}}'), 3 + 200 + 14, id="a schema"
        ),
    ],
)
def test_what_is_fixed(outside: Outside, tokens: int) -> None:
    assert fixed_tokens(outside, FAMILY, len) == tokens


def test_a_piece_of_the_system_prompt_is_text() -> None:
    assert text_tokens("abc", FAMILY, len) == 5


def test_an_estimate_is_never_negative() -> None:
    family = replace(FAMILY, weights={"message": -9.0, "request": -9.0})
    assert message_tokens(message(), family, len) == 0
    assert fixed_tokens(Outside(), family, len) == 0


# What depends on how many stand together.
BY_PART = {"result": 0, "further": 0, "parallel": 0}

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
    family = replace(FAMILY, weights={**FAMILY.weights, **BY_PART})
    whole = message_tokens(message(*first, *second), family, len)
    halves = message_tokens(message(*first), family, len) + message_tokens(
        message(*second), family, len
    )
    assert 0 <= halves - whole - 4 <= 1


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
    estimate = fixed_tokens(Outside(), family, count) + sum(
        message_tokens(message(part(Kind.TYPED, text)), family, count) for text in said
    )
    return [abs(estimate / row["reported_input_tokens"] - 1)]
