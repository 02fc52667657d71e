"""An end that cuts nobody off: what is under way comes to its end first, within bounds.

mitmproxy by itself drops every connection as soon as it is told to end, in the middle of an answer.
"""

from __future__ import annotations

import asyncio
from typing import Final

from mitmproxy import ctx
from mitmproxy.http import HTTPFlow
from mitmproxy.master import Master

SECONDS: Final = 30.0
"""So long an end waits for what is under way; whoever stops services waits about as long."""

_LOOK_SECONDS: Final = 0.05


class UnderWay:
    """Which exchanges have begun and are not over. Comes behind all addons that may hold one up."""

    def __init__(self) -> None:
        self._flows: set[str] = set()

    def requestheaders(self, flow: HTTPFlow) -> None:
        """It begins."""
        self._flows.add(flow.id)

    def response(self, flow: HTTPFlow) -> None:
        """All of it was received."""
        self._flows.discard(flow.id)

    def error(self, flow: HTTPFlow) -> None:
        """It broke off."""
        self._flows.discard(flow.id)

    def __len__(self) -> int:
        return len(self._flows)


class Draining(Master):
    """A master that is told to end once for politely and twice for at once."""

    under_way: UnderWay
    _ending: asyncio.Task[None] | None = None

    def shutdown(self) -> None:
        """End when nothing is under way any more, after `SECONDS`, or when asked a second time."""
        self.event_loop.call_soon_threadsafe(self._end)

    def _end(self) -> None:
        if self._ending is not None or not self._busy():
            super().shutdown()  # type: ignore[no-untyped-call]
            return
        count = len(self.under_way)
        print(
            f"Ending once {count} {'exchange is' if count == 1 else 'exchanges are'} over, "
            f"in {SECONDS:g} seconds at the latest. Once more ends at once.",
            flush=True,
        )
        # The listening sockets close; connections that there are stay.
        self.options.update(server=False)
        self._ending = asyncio.create_task(self._drain())

    async def _drain(self) -> None:
        try:
            async with asyncio.timeout(SECONDS):
                quiet = 0
                # What was received last still has to be handed on: nothing announces that.
                while quiet < 2:
                    await asyncio.sleep(_LOOK_SECONDS)
                    quiet = 0 if self._busy() else quiet + 1
        except TimeoutError:
            pass
        super().shutdown()  # type: ignore[no-untyped-call]

    def _busy(self) -> bool:
        return len(self.under_way) > 0 or _unsent()


def _unsent() -> bool:
    """Whether bytes wait for somebody who reads slowly."""
    writers = [
        way.writer
        for handler in ctx.master.addons.get("proxyserver").connections.values()
        for way in handler.transports.values()
    ]
    return any(
        writer is not None
        and hasattr(writer, "transport")  # UDP has none
        and writer.transport.get_write_buffer_size() > 0
        for writer in writers
    )
