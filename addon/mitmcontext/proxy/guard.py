"""Which errors are faults to be guarded against, and which are meant to end what runs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager


def is_the_end(error: BaseException) -> bool:
    """Whether an error is to end the running task; anything else is a fault and costs a rung.

    A task that is cancelled knows it. The same error may come from a future that somebody else
    cancelled, and would then leave a request without an answer for good.
    """
    if isinstance(error, asyncio.CancelledError):
        task = asyncio.current_task()
        return task is None or task.cancelling() > 0
    return isinstance(error, KeyboardInterrupt | GeneratorExit)


@contextmanager
def guarded(tell: Callable[[str], None]) -> Iterator[None]:
    """Let no fault out: only its kind is told."""
    try:
        yield
    except BaseException as error:
        if is_the_end(error):
            raise
        tell(type(error).__name__)
