"""Keeping the flow list bounded.

mitmweb and mitmproxy's console keep every flow, with its bodies, for as long as they run; a coding
session is hundreds of requests of a megabyte each. Beyond a number the oldest finished flows go:
those without a mark first, and marked ones, by us or by the user, when only such are left.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

from mitmproxy import ctx, flow

from mitmcontext.proxy.words import MARKS
from mitmcontext.values import Action

# A mark of ours that is no reason to keep a flow.
_PASSED: Final = MARKS[Action.LEFT_ALONE]


class FlowList(Protocol):
    """What mitmweb and the console have and mitmdump has not: `ctx.master.view`."""

    def get_by_id(self, flow_id: str) -> flow.Flow | None:
        """The flow, if it is still in the list."""

    def remove(self, flows: list[flow.Flow]) -> None:
        """Take these out of the list."""


class Eviction:
    """Remembers which flows have finished, by their ids, so that it keeps none of them alive.

    `finished` is where the ids are. Over a live reload the new object gets the old one's, or what
    came before it would stay for ever. `forget` is told of each flow that goes.
    """

    def __init__(
        self,
        finished: dict[str, None] | None = None,
        forget: Callable[[str], None] = lambda flow: None,
    ) -> None:
        self._finished = {} if finished is None else finished
        self._forget = forget

    def finished(self, done: flow.Flow, keep: int) -> int:
        """Take note of a flow and drop what is beyond `keep`; 0 keeps all. How many were dropped.

        Call it from the `response` and `error` hooks; a flow may come more than once.
        """
        view: FlowList | None = getattr(ctx.master, "view", None)
        if view is None or not _came_by(done):
            return 0
        self._finished.setdefault(done.id)
        if not 0 < keep < len(self._finished):
            return 0
        # Users delete flows themselves, and mark them at any time: both are looked up when needed.
        there = {id_: found for id_ in self._finished if (found := view.get_by_id(id_)) is not None}
        # To remove a flow that is still alive would cut its connection: the one that is just being
        # delivered, one held up by the user, a WebSocket.
        over = [found for found in there.values() if not found.live]
        over.sort(key=lambda found: found.marked not in ("", _PASSED))
        dropped = over[: max(0, len(there) - keep)]
        for found in dropped:
            # One by one: mitmproxy writes a line to its event log when several go at once.
            view.remove([found])
            self._forget(found.id)
            del there[found.id]
        self._finished.clear()
        self._finished.update(dict.fromkeys(there))
        return len(dropped)


def _came_by(done: flow.Flow) -> bool:
    """Whether it was proxied just now. What the user opened from a file is the user's to close."""
    killed = done.error is not None and done.error.msg == flow.Error.KILLED_MESSAGE
    return done.live or killed
