"""A budget: a step is taken within a large window where it pays, and the money is told."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.e2e.fixture_types import Connect, StartProxy, Stats

from demo.session import Session, encode
from loopback.caching import PromptCache
from loopback.client import Connection
from loopback.counting import model_named
from loopback.provider import Provider, with_windows

BUDGET = 24_000
PATH = "/v1/messages?beta=true"


def play(
    connection: Connection, bodies: list[dict[str, Any]], model: str = "", key: str = "k"
) -> None:
    headers = (("x-api-key", key), ("content-type", "application/json"))
    for body in bodies:
        sent = body | {"model": model} if model else body
        connection.post(PATH, headers, encode(sent))


def test_a_budget_condenses_within_the_window_and_tells_what_that_saves(
    provider: Provider, start_proxy: StartProxy, connect: Connect, stats: Stats
) -> None:
    provider.models = with_windows({"*": 1_000_000})
    proxy = start_proxy(f"context_budget={BUDGET}")
    bodies = list(Session().requests())[:60]

    play(connect(proxy), bodies)

    found = stats(proxy)
    assert found["steps"] >= 1
    assert found["prefix_breaks_unexplained"] == 0
    assert provider.refused == []
    money = found["money"]
    assert money["predicted"] > 0
    assert money["requests_priced"] == len(bodies)
    # The bill by what the provider itself counted, at the model's list price.
    assert money["cost"] == pytest.approx(_close_to(provider), abs=5e-6)
    # What the same provider bills for the same requests as they came; ours is an estimate.
    saved = _unshortened(bodies, provider) - money["cost"]
    assert saved > 0
    assert money["saved"] == pytest.approx(saved, rel=0.1)


def test_what_observing_says_is_what_condensing_saves(
    provider: Provider, start_proxy: StartProxy, connect: Connect, stats: Stats
) -> None:
    provider.models = with_windows({"*": 1_000_000})
    bodies = list(Session().requests())[:60]
    observing = start_proxy(f"context_windows=claude-*={BUDGET}", "context_mode=observe")
    play(connect(observing), bodies)
    would = stats(observing)
    provider.records.clear()
    condensing = start_proxy(f"context_windows=claude-*={BUDGET}")
    play(connect(condensing), bodies, key="another")  # whose cache is empty

    saved = would["money"]["cost"] - _close_to(provider)
    assert would["money"]["saved"] == 0
    assert would["money"]["would_save"] == pytest.approx(saved, rel=0.1, abs=0.02)
    assert would["changes"]


def _unshortened(bodies: list[dict[str, Any]], provider: Provider) -> float:
    cache, total = PromptCache(), 0.0
    for body, record in zip(bodies, provider.requests(), strict=True):
        fresh, read, written = cache.anthropic(body, model_named(body["model"]))
        assert record.usage is not None
        total += fresh * 3 + read * 0.3 + written * 3.75 + record.usage.output * 15
    return total / 1e6


def _close_to(provider: Provider) -> float:
    """Sonnet's list price of all that the provider billed."""
    total = 0.0
    for record in provider.requests():
        usage = record.usage
        assert usage is not None
        total += usage.fresh * 3 + usage.read * 0.3 + usage.written * 3.75 + usage.output * 15
    return round(total / 1e6, 6)


def test_without_a_budget_the_same_passes_as_it_came(
    provider: Provider, start_proxy: StartProxy, connect: Connect, stats: Stats
) -> None:
    provider.models = with_windows({"*": 1_000_000})
    proxy = start_proxy()
    bodies = list(Session().requests())[:45]

    play(connect(proxy), bodies)

    assert [record.body for record in provider.requests()] == [
        json.loads(encode(body)) for body in bodies
    ]
    money = stats(proxy)["money"]
    assert money["cost"] == pytest.approx(_close_to(provider), abs=5e-6)
    assert money["saved"] == 0


def test_a_budget_never_spends_on_a_model_of_unknown_price(
    provider: Provider, start_proxy: StartProxy, connect: Connect, stats: Stats
) -> None:
    provider.models = with_windows({"*": 1_000_000})
    proxy = start_proxy(f"context_budget={BUDGET}")
    bodies = list(Session().requests())[40:45]

    play(connect(proxy), bodies, "claude-of-tomorrow-9")

    found = stats(proxy)
    assert found["steps"] == 0
    assert found["requests"]["no_step"] == len(bodies)
    assert found["money"]["requests_of_unknown_price"] == len(bodies)
    assert (found["money"]["cost"], found["money"]["saved"]) == (0, 0)
