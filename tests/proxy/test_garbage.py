"""Full searches for garbage come often, beside the requests."""

from __future__ import annotations

import asyncio
import gc
import weakref

from mitmcontext.proxy.state import State


class Circle:
    """Refers to itself, so that only a search finds it."""

    def __init__(self) -> None:
        self.itself = self


async def test_a_circle_is_found_within_some_hundred_requests() -> None:
    gc.disable()
    try:
        there = weakref.ref(Circle())
        state = State()
        for _ in range(80):
            state.passed()
            await asyncio.sleep(0)
        assert there() is not None
        for _ in range(80):
            state.passed()
            await asyncio.sleep(0)
        assert there() is None
    finally:
        gc.enable()
