"""A budget: a step is taken within a large window where it pays, and the money is told."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from demo.session import Session, encode
from loopback.child import Child
from loopback.client import Connection
from loopback.provider import Provider, with_windows

StartProxy = Callable[..., Child]
Connect = Callable[..., Connection]
Stats = Callable[[Child], dict[str, Any]]

BUDGET = 24_000
PATH = "/v1/messages?beta=true"
HEADERS = (("x-api-key", "k"), ("content-type", "application/json"))


def play(connection: Connection, bodies: list[dict[str, Any]], model: str = "") -> None:
    for body in bodies:
        sent = body | {"model": model} if model else body
        connection.post(PATH, HEADERS, encode(sent))


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
    assert money["cost"] == _close_to(provider)
    assert money["saved"] != 0


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
    assert money["cost"] == _close_to(provider)
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
