"""The demonstration's session is long, the same each time, and one that providers take."""

from __future__ import annotations

import itertools
import json
from typing import Any

from demo.session import Session, encode
from loopback import rules_anthropic, rules_openai
from loopback.counting import count, model_named
from loopback.prefix import extends


def test_it_is_the_same_each_time() -> None:
    assert [encode(body) for body in Session().requests()] == [
        encode(body) for body in Session().requests()
    ]


def test_it_is_long_and_grows_from_turn_to_turn() -> None:
    bodies = list(Session().requests())

    assert len(bodies) >= 60
    assert count(bodies[-1], model_named(bodies[-1]["model"])) > 120_000
    assert all(extends(before, after) for before, after in itertools.pairwise(bodies))


def test_anthropic_would_take_every_request() -> None:
    memory = rules_anthropic.Memory()

    for body in Session().requests():
        assert rules_anthropic.check(json.loads(encode(body)), memory) is None
        assert rules_anthropic.count_markers(body) <= 4


def test_openai_would_take_every_request() -> None:
    for body in Session().openai_requests():
        assert rules_openai.check(json.loads(encode(body))) is None


def test_it_holds_what_real_sessions_hold() -> None:
    blocks: list[dict[str, Any]] = [
        block for message in Session().messages for block in message["content"]
    ]
    results = [block for block in blocks if block["type"] == "tool_result"]
    calls = [
        sum(block["type"] == "tool_use" for block in message["content"])
        for message in Session().messages
    ]

    assert any(result.get("is_error") for result in results)
    assert any(block["type"] == "thinking" for block in blocks)
    assert max(calls) > 1
    assert max(len(result["content"]) for result in results) > 6_000


def test_the_markers_wander_with_the_end() -> None:
    first, later = list(Session().requests())[20:22]

    assert first["messages"][-1]["content"][-1].get("cache_control")
    assert not any(
        block.get("cache_control")
        for message in later["messages"][:-3]
        for block in message["content"]
    )
