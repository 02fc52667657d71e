"""From a conversation's second request on its size is known, whatever the provider counts with."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from tests.e2e.fixture_types import Connect, StartProxy, Stats
from tests.e2e.waiting import wait_for

from demo.session import Session, encode
from loopback.counting import Model
from loopback.provider import Provider

PATH = "/v1/messages"
# What the provider charges per text and adds of its own differs from model to model, and from us.
MODELS = (
    Model("claude-sonnet-4-5*", 1.31, 10**6, 11, 60, 2_400),
    Model("claude-haiku-4-5*", 0.82, 10**6, 0, 5, 90),
    Model("claude-opus-4-5*", 1.02, 10**6, 4, 24, 9_000),
)


@pytest.mark.parametrize("model", ["claude-sonnet-4-5", "claude-haiku-4-5", "claude-opus-4-5"])
def test_estimates_meet_what_the_provider_reports(
    model: str, provider: Provider, start_proxy: StartProxy, connect: Connect, stats: Stats
) -> None:
    provider.models = tuple(replace(one, window=40_000) for one in MODELS)
    proxy = start_proxy("context_windows=claude-*=40000")
    connection = connect(proxy)
    headers = (("x-api-key", "k"), ("content-type", "application/json"))
    for seed in (1, 2):
        for body in Session(seed).requests():
            told = json.loads(encode(body)) | {"model": model}
            assert connection.post(PATH, headers, encode(told)).status == 200
            # While the vocabulary is still being loaded requests are counted after forwarding. An
            # agent's second one comes seconds later, not milliseconds.
            wait_for(lambda: stats(proxy)["estimates"]["compared"] > 0)

    found = stats(proxy)
    assert found["steps"] >= 2
    assert found["estimates"]["compared"] >= 180
    assert found["estimates"]["within_2_percent"] >= 0.9
    assert found["estimates"]["within_5_percent"] >= 0.97
