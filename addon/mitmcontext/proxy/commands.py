"""The commands: what a person types in mitmweb's command bar or the console.

What they return is text for people. Names have only letters and dots, since mitmweb's own addresses
of commands allow nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from mitmproxy import command, ctx, exceptions, flow, http, types

from mitmcontext.proxy import recorded, view
from mitmcontext.proxy.display import Display
from mitmcontext.proxy.figures import Figures
from mitmcontext.proxy.listing import Row
from mitmcontext.proxy.safe import neutral
from mitmcontext.proxy.team import Team
from mitmcontext.proxy.work import Worker
from mitmcontext.settings import Settings
from mitmcontext.values import Unreadable

LINK: Final = "mitmcontext_link"
"""Where in `flow.metadata` the link of the conversation's frozen edits is."""

_NOT_EVERYWHERE: Final = (
    "gone from memory; a store could not be reached, and is to be asked again: while this proxy "
    "runs it serves nothing of it, and removes it as soon as it can"
)
# What mitmweb's command bar shows at once without trouble; all of it goes into a file.
_SHOWN: Final = 100_000
_SHOW_IT: Final = types.Path("")


@dataclass(frozen=True, slots=True)
class Reach:
    """What the commands work with, as it is when one of them is called."""

    worker: Callable[[], Worker]
    display: Callable[[], Display]
    figures: Callable[[], Figures]
    team: Callable[[], Team | None]
    settings: Callable[[], Settings]


class Commands:
    """Everything under `context.`."""

    name = "mitmcontext-commands"

    def __init__(self, reach: Reach) -> None:
        self._reach = reach

    @command.command("context.stats")  # type: ignore[untyped-decorator]  # mitmproxy's is untyped
    def stats(self) -> Sequence[str]:
        """The figures since the start in a few sentences; http://context.mitm/ has all of them."""
        reach, team = self._reach, self._reach.team()
        of_team = [] if team is None else list(team.summary(reach.settings()))
        return [*reach.display().summary(), *of_team]

    @command.command("context.conversations")  # type: ignore[untyped-decorator]
    def conversations(self) -> Sequence[str]:
        """The latest conversations: how full their windows are, what steps did and saved."""
        return list(self._reach.display().conversations()) or ["no conversation yet"]

    @command.command("context.explain")  # type: ignore[untyped-decorator]
    def explain(self, flow: flow.Flow) -> str:
        """What was counted in a request, what was done to it and why."""
        rows: Sequence[Row] = ()
        if isinstance(flow, http.HTTPFlow):
            rows = self._reach.display().rows(flow, self._reach.worker().known)
        return view.explanation(flow, rows)

    @command.command("context.original")  # type: ignore[untyped-decorator]
    def original(self, flow: flow.Flow, path: types.Path = _SHOW_IT) -> str:
        """The body of a request as the client sent it, before it was shortened.

        With a path it is written there, whole.
        """
        body = self._body(flow)
        if path:
            try:
                Path(path).expanduser().write_bytes(body)
            except OSError as error:
                raise exceptions.CommandError(f"cannot write: {type(error).__name__}") from None
            return f"{len(body):,} bytes written"
        text = neutral(body.decode("utf-8", "replace"))
        more = f"\n… {len(text) - _SHOWN:,} more characters; give a path to have all of it"
        return text if len(text) <= _SHOWN else text[:_SHOWN] + more

    def _body(self, flow: flow.Flow) -> bytes:
        try:
            kept = self._reach.display().original(flow.id)
        except Unreadable as error:
            raise exceptions.CommandError(str(error)) from None
        if kept is not None:
            return kept
        if recorded.was_rewritten(flow.metadata):
            raise exceptions.CommandError(
                "the original of this request is no longer kept (the oldest go first)"
            )
        request = getattr(flow, "request", None)
        body: bytes | None = request.get_content(strict=False) if request else None
        if body is None:
            raise exceptions.CommandError("this flow has no request with a body")
        return body

    @command.command("context.observe")  # type: ignore[untyped-decorator]
    def observe(self) -> str:
        """From now on forward every request as it came, and show what condensing would save."""
        return self._set_mode("observe")

    @command.command("context.condense")  # type: ignore[untyped-decorator]
    def condense(self) -> str:
        """From now on shorten histories that get too full."""
        return self._set_mode("condense")

    def _set_mode(self, mode: str) -> str:
        before = self._reach.settings().context_mode
        ctx.options.update(context_mode=mode)
        return f"context_mode is {mode}; it was {before}"

    @command.command("context.forget")  # type: ignore[untyped-decorator]
    def forget(self, flows: Sequence[flow.Flow]) -> str:
        """Forget what was shortened of these flows' conversations, here and on the disk."""
        links = {bytes.fromhex(str(one.metadata[LINK])) for one in flows if LINK in one.metadata}
        found = [self._reach.worker().forget(link) for link in links]
        said = f"{sum(number for number, _ in found)} steps forgotten"
        return said if all(everywhere for _, everywhere in found) else f"{said}; {_NOT_EVERYWHERE}"

    @command.command("context.clear")  # type: ignore[untyped-decorator]
    def clear(self) -> str:
        """Forget all frozen edits, counts, histories and figures."""
        reach, team = self._reach, self._reach.team()
        everywhere = reach.worker().clear()
        reach.figures().clear()
        reach.display().clear()
        if team is not None:
            team.clear()
        return "cleared" if everywhere else _NOT_EVERYWHERE
