"""The specification's names count as the addon does, once each, and beside the event loop."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from functools import partial
from typing import Any

import pytest

from mitmcontext.accurate_token_counter import (
    ENTRY,
    AccurateTokenCounter,
    batch_token_count,
    optimize_cache_size,
    warm_up_caches,
)
from mitmcontext.tokens import vocabulary
from mitmcontext.tokens.vocabulary import tiktoken_encoding

GPT = "gpt-4o"


def counted(message: Any, model: str = GPT) -> int:
    return asyncio.run(AccurateTokenCounter(model).count_tokens_async(message))


def test_a_text_is_its_tokens_and_its_wrapping() -> None:
    said = "Hello " * 100
    tokens = len(tiktoken_encoding("o200k_base").encode_ordinary(said))
    assert counted({"content": said}) == tokens + 4
    assert counted({"role": "assistant", "content": said}) == tokens + 4
    assert counted({"content": [{"type": "text", "text": said}]}) == tokens + 4


def test_models_count_each_in_their_way() -> None:
    message = {"content": "Grüße aus dem Hafen, und bis bald! " * 50}
    assert counted(message, "claude-opus-5") > counted(message, GPT)
    assert counted(message, "gpt-3.5-turbo") != counted(message, GPT)


@pytest.mark.parametrize(
    ("message", "least"),
    [
        pytest.param({"content": None}, 4, id="nothing said"),
        pytest.param({"content": ""}, 4, id="an empty text"),
        pytest.param({}, 4, id="no content"),
        pytest.param({"role": "narrator", "content": "x " * 20}, 20, id="a role that is none"),
        pytest.param(
            {"content": [{"type": "sound", "words": "x " * 20}]}, 20, id="an unknown part"
        ),
        pytest.param({"content": "\ud800"}, 5, id="a lone surrogate"),
        pytest.param({"content": "<|endoftext|>"}, 11, id="what looks like a special token"),
        pytest.param(
            {"content": [{"type": "image_url", "image_url": {"url": "https://x/y.png"}}]},
            85 + 170,
            id="an image",
        ),
    ],
)
def test_whatever_is_said_is_counted(message: dict[str, Any], least: int) -> None:
    assert least <= counted(message) <= least + 2_000


@pytest.mark.parametrize("message", ["text", None, {"content": {1, 2}.__iter__()}])
def test_what_is_no_message_is_refused(message: Any) -> None:
    with pytest.raises(TypeError):
        counted(message)


async def test_a_message_is_counted_once() -> None:
    counter = AccurateTokenCounter(GPT)
    assert counter.statistics()["hit_ratio"] == 0
    first = await counter.count_tokens_async({"content": "the same"})
    for _ in range(3):
        assert await counter.count_tokens_async({"content": "the same"}) == first
    await counter.count_tokens_async({"content": "another"})
    found = counter.statistics()
    assert (found["hits"], found["misses"], found["entries"]) == (3, 2, 2)
    assert found["hit_ratio"] == pytest.approx(3 / 5)


async def test_what_is_kept_is_bounded_in_bytes() -> None:
    counter = AccurateTokenCounter(GPT, cache_size=10 * ENTRY)
    for number in range(30):
        await counter.count_tokens_async({"content": f"message {number}"})
    found = counter.statistics()
    assert found["entries"] == 10
    assert found["memory_bytes"] <= found["limit_bytes"] == 10 * ENTRY


async def test_a_batch_comes_back_in_order() -> None:
    counter = AccurateTokenCounter(GPT)
    batch = [{"content": "word " * size} for size in (5_000, 1, 800, 20_000, 3)]
    alone = [await AccurateTokenCounter(GPT).count_tokens_async(message) for message in batch]
    assert await batch_token_count(batch, counter) == alone
    assert await batch_token_count(iter(batch), counter) == alone
    assert counter.statistics()["hits"] == len(batch)
    assert await batch_token_count([]) == []


async def test_several_are_counted_at_the_same_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each waits until another one is being counted, too."""
    both = threading.Barrier(2, timeout=20)

    class Waiting:
        def encode_ordinary(self, text: str, /) -> str:
            both.wait()
            return text

    monkeypatch.setattr(vocabulary, "load", lambda name: Waiting())
    monkeypatch.setattr("mitmcontext.accurate_token_counter._encoders", {})
    batch = [{"content": letter * 1_000} for letter in "ab"]
    with_threads = partial(batch_token_count, batch, AccurateTokenCounter(GPT))
    assert await with_threads() == [1_004, 1_004]


async def test_the_event_loop_runs_on() -> None:
    await warm_up_caches()
    chance = random.Random(3)
    text = "".join(chr(chance.randrange(0x4E00, 0x9FA5)) for _ in range(400_000))
    counting = asyncio.create_task(AccurateTokenCounter(GPT).count_tokens_async({"content": text}))
    turns, began = 0, time.perf_counter()
    while not counting.done():
        await asyncio.sleep(0.001)
        turns += 1
    assert await counting > 100_000
    # A loop that was held would have come to its turn once or twice.
    assert turns > 5, f"{turns} in {time.perf_counter() - began:.2f} s"


def test_a_cache_has_room_for_what_an_hour_brings() -> None:
    assert optimize_cache_size(1_000, 500) == 1_000 * 60 * 2 * ENTRY
    assert optimize_cache_size(1_000, 2_000) == 2 * optimize_cache_size(1_000, 500)
    assert optimize_cache_size(0, 10) == 100 * ENTRY, "never less than a hundred messages"
    assert optimize_cache_size(-5, -5) == 100 * ENTRY
    assert optimize_cache_size(10**9, 10**9) == 256 << 20, "and never without bound"
    sizes = [optimize_cache_size(rate, 1_000) for rate in range(0, 3_000, 50)]
    assert sizes == sorted(sizes)
