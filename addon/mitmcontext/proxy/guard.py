"""Which errors are faults to be guarded against, and which are meant to end what runs."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from types import TracebackType


def is_the_end(error: BaseException) -> bool:
    """Whether an error is to end the running task; anything else is a fault and costs a rung.

    A task that is cancelled knows it. The same error may come from a future that somebody else
    cancelled, and would then leave a request without an answer for good.
    """
    if isinstance(error, asyncio.CancelledError):
        task = asyncio.current_task()
        return task is None or task.cancelling() > 0
    return isinstance(error, KeyboardInterrupt | GeneratorExit)


class guarded:  # noqa: N801 - as what can stand behind `with` is mostly named
    """Lets no fault out of a `with`: only its kind is told.

    There are some for each request, and one made of a generator takes four times as long.
    """

    __slots__ = ("_tell",)

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell = tell

    def __enter__(self) -> None:
        """Nothing is held."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool:
        """Whether the error ends here."""
        if error is None or is_the_end(error):
            return False
        self._tell(type(error).__name__)
        return True


async def contained(work: Awaitable[None], tell: Callable[[str], None]) -> None:
    """Some work in a task of its own, which lets no fault out: only its kind is told.

    Of what nobody waits for asyncio would log the text, and SystemExit would end the loop, and the
    proxy with it.
    """
    with guarded(tell):
        await work


async def without_end[T](work: Awaitable[T]) -> T:
    """Some work in a task or a thread that somebody waits for.

    Raises:
        RuntimeError: it raised SystemExit. As such that would end the loop before anybody hears
            of it.
    """
    try:
        return await work
    except SystemExit:
        raise RuntimeError("SystemExit in a task or a thread") from None
    finally:
        # An error refers to this frame, and what was waited for to the error: in such a circle what
        # had been unpacked until then, 32 MB of a bomb, stayed until the next search for garbage.
        del work
