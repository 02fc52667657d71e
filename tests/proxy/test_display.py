"""What is gathered for people to see: figures, histories, alerts, without a proxy around it."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from typing import Any

import pytest
from mitmproxy.test import tflow

from mitmcontext.proxy import display as display_module
from mitmcontext.proxy.carried import carried
from mitmcontext.proxy.display import Display
from mitmcontext.proxy.figures import Figures
from mitmcontext.settings import Settings
from mitmcontext.values import Action, Outcome


class Own:
    """What the caches hang on."""


def display(figures: Figures) -> Display:
    stores: dict[str, Any] = {"token counts": {"hits": 0, "misses": 0, "hit_ratio": 0.0}}
    return Display(carried(Own()), figures, lambda: stores, Settings)


def test_a_band_that_is_newly_missed_is_a_warning_once(caplog: pytest.LogCaptureFixture) -> None:
    figures = Figures(time.monotonic)
    seen = display(figures)
    for _ in range(30):
        figures.record(Outcome(Action.UNDER_THRESHOLD, "", "anthropic", sent=9, forwarded=9))
    seen.look_at_bands()
    assert not caplog.messages
    for _ in range(5):
        figures.record(Outcome(Action.FAILED_OPEN, "TimeoutError", "anthropic"))
    seen.look_at_bands()
    seen.look_at_bands()
    (said,) = [record for record in caplog.records if record.levelno == logging.WARNING]
    text = said.getMessage()
    assert text.startswith("mitmcontext: errors per LLM request: 14.3 %, above 5.0 %")
    assert any("needs attention" in line for line in seen.summary())
    seen.clear()
    seen.look_at_bands()
    assert len(caplog.records) == 2


@pytest.mark.parametrize("error", [MemoryError, SystemExit])
async def test_who_watches_the_bands_goes_on_when_that_fails(
    error: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    twice = asyncio.Event()

    class Failing(Figures):
        def snapshot(self) -> dict[str, Any]:
            raise error

        def failed(self, reason: str) -> None:
            told.append(reason)
            if len(told) == 2:
                twice.set()

    monkeypatch.setattr(display_module, "_WATCH_SECONDS", 0.001)
    seen = display(Failing(time.monotonic))
    seen.start(None)
    async with asyncio.timeout(60):
        await twice.wait()
    seen.stop()
    assert set(told) == {error.__name__}


async def test_news_are_plain_values_and_bounded() -> None:
    figures = Figures(time.monotonic)
    for number in range(3_000):
        figures.record(Outcome(Action.CONDENSED, "", "anthropic", freed=number, milliseconds=1.0))
    news = await display(figures).news(0)
    assert len(json.dumps(news)) < 10_000
    assert news["whole"]
    assert news["mode"] == "condense"
    assert {band["rating"] for band in news["bands"]} == {"undecided", "excellent"}


def test_of_a_flow_that_nobody_looked_at_there_is_nothing_to_list() -> None:
    seen = display(Figures(time.monotonic))
    assert seen.original(tflow.tflow().id) is None
    assert not list(seen.conversations())
