"""What runs in tasks of its own ends neither the loop nor quietly."""

from __future__ import annotations

import asyncio

import pytest

from mitmcontext.proxy.guard import contained, without_end


async def failing(error: type[BaseException]) -> None:
    """Fail where the event loop itself runs the task, not whoever began it."""
    await asyncio.sleep(0)
    raise error("words that nobody is to read")


@pytest.mark.parametrize("error", [MemoryError, SystemExit, asyncio.CancelledError])
async def test_what_fails_where_nobody_waits_is_told_by_its_kind(
    error: type[BaseException],
) -> None:
    told: list[str] = []
    await asyncio.create_task(contained(failing(error), told.append))
    assert told == [error.__name__]


async def test_what_is_cancelled_ends_and_is_no_fault() -> None:
    told: list[str] = []
    task = asyncio.create_task(contained(asyncio.sleep(3_600), told.append))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert told == []


async def test_who_waits_hears_of_what_would_have_ended_the_loop() -> None:
    with pytest.raises(RuntimeError, match="SystemExit"):
        await asyncio.create_task(without_end(failing(SystemExit)))
    with pytest.raises(MemoryError):
        await asyncio.create_task(without_end(failing(MemoryError)))
