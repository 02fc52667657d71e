"""What was counted before a restart is not counted again."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from mitmcontext import pipeline
from mitmcontext.known import Known
from mitmcontext.pipeline import Reading
from mitmcontext.proxy.counts import WORTH_KEEPING, KeptCounts, uncounted
from mitmcontext.stores.memory import MemoryStore, lru
from mitmcontext.stores.memory_store import Memory, cells
from mitmcontext.tokens.families import family_of
from mitmcontext.wire.anthropic import MESSAGES

MODEL = "claude-opus-4-5"
LONG = [f"message {at} " + "and so on " * 100 for at in range(100)]


class Counting:
    """A counter of characters that remembers how often it was asked."""

    def __init__(self) -> None:
        self.asked = 0

    def __call__(self, encoding: str) -> Callable[[str], int]:
        def count(text: str) -> int:
            self.asked += 1
            return len(text)

        return count


def started(counter: Counting) -> Known:
    """What is known right after a start: nothing."""
    return Known(MemoryStore(lru(1 << 20)), counter)


def reading(known: Known, contents: list[str], **others: Any) -> Reading:
    messages = [{"role": "user", "content": content} for content in contents]
    body = json.dumps({"model": MODEL, "messages": messages, **others}).encode()
    return pipeline.read(MESSAGES, family_of(MODEL), MESSAGES.read(body), b"seed" * 8, known)


def count(known: Known, read: Reading) -> tuple[int, ...]:
    return known.count(read.api, read.family, read.request, read.facts)


@pytest.fixture
def far() -> Memory:
    return Memory(cells(1 << 20))


def kept(far: Memory) -> KeptCounts:
    return KeptCounts(far, lambda name: name)


def test_a_conversation_is_not_counted_again_after_a_restart(far: Memory) -> None:
    counter = Counting()
    known = started(counter)
    read = reading(known, LONG)
    before = count(known, read)
    kept(far).keep(read, before, uncounted(reading(started(counter), LONG)))
    assert counter.asked == len(LONG)

    known = started(counter)
    read = reading(known, [*LONG, "one more"])
    kept(far).take_over(read, known)
    assert uncounted(read) < 100
    assert count(known, read)[:-1] == before
    assert counter.asked == len(LONG) + 1
    # And from now on it is known without the far store.
    assert uncounted(reading(known, LONG)) == 0


def test_another_conversation_learns_nothing(far: Memory) -> None:
    known = started(Counting())
    read = reading(known, LONG)
    kept(far).keep(read, count(known, read), WORTH_KEEPING)
    other = reading(started(Counting()), ["another", *LONG])
    before = uncounted(other)
    kept(far).take_over(other, known)
    assert uncounted(other) == before


def test_little_is_neither_kept_nor_asked_for(far: Memory) -> None:
    known = started(Counting())
    read = reading(known, ["short", "shorter"])
    kept(far).keep(read, count(known, read), uncounted(read) + 50)
    kept(far).take_over(read, known)
    figures = far.figures()
    assert (figures.entries, figures.hits + figures.misses) == (0, 0)


def test_many_small_counts_are_kept_together(far: Memory) -> None:
    known, keeper = started(Counting()), kept(far)
    for length in range(10, 101, 10):
        read = reading(known, LONG[:length])
        keeper.keep(read, count(known, read), WORTH_KEEPING // 5 + 1)
    assert far.figures().entries == 1
    fresh = started(Counting())
    later = reading(fresh, LONG)
    keeper.take_over(later, fresh)
    assert uncounted(later) == 0


def test_what_is_damaged_is_not_used(far: Memory) -> None:
    known, keeper = started(Counting()), kept(far)
    read = reading(known, LONG)
    keeper.keep(read, count(known, read), WORTH_KEEPING)
    (name,) = _keys(far)
    far.set(name, b"garbage", 60.0)
    fresh = started(Counting())
    later = reading(fresh, LONG)
    before = uncounted(later)
    keeper.take_over(later, fresh)
    assert uncounted(later) == before


def _keys(far: Memory) -> list[bytes]:
    return list(far._cache)
