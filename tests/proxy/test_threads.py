"""Work in threads."""

from __future__ import annotations

import asyncio
import sys

import pytest

from mitmcontext.proxy import threads


def test_who_would_end_the_program_ends_a_piece_of_work() -> None:
    pool = threads.pool("test")

    async def go() -> str:
        # In a task of its own, as an addon's work is: SystemExit in that would end the loop.
        task = asyncio.ensure_future(threads.run(pool, lambda: sys.exit(3)))
        with pytest.raises(RuntimeError):
            await task
        return await threads.run(pool, lambda: "goes on")

    with pool:
        assert asyncio.run(go()) == "goes on"
