"""Work that is too long for the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from mitmcontext.proxy.guard import without_end

_THREADS: Final = 2


def pool(name: str) -> ThreadPoolExecutor:
    """Some threads; their names begin with this one."""
    return ThreadPoolExecutor(_THREADS, thread_name_prefix=name)


async def run[T](threads: ThreadPoolExecutor, work: Callable[[], T]) -> T:
    """What some work comes to, done in one of these threads.

    Raises:
        RuntimeError: it raised SystemExit.
    """
    return await without_end(asyncio.get_running_loop().run_in_executor(threads, work))
