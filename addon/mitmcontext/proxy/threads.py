"""Work that is too long for the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Final

_THREADS: Final = 2


def pool(name: str) -> ThreadPoolExecutor:
    """Some threads; their names begin with this one."""
    return ThreadPoolExecutor(_THREADS, thread_name_prefix=name)


async def run[T](threads: ThreadPoolExecutor, work: Callable[[], T]) -> T:
    """What some work comes to, done in one of these threads.

    Raises:
        RuntimeError: it raised SystemExit. As such that would end the loop, and the proxy with it.
    """
    return await asyncio.get_running_loop().run_in_executor(threads, partial(_without_end, work))


def _without_end[T](work: Callable[[], T]) -> T:
    try:
        return work()
    except SystemExit:
        raise RuntimeError("SystemExit in a thread") from None
