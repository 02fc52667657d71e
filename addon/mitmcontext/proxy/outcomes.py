"""What a request came to: what to forward, and what to show of it."""

from __future__ import annotations

import logging
import threading
from typing import Any, Final

from cachetools import LRUCache
from msgspec.structs import replace

from mitmcontext import pipeline
from mitmcontext.known import Known
from mitmcontext.pipeline import Assessment
from mitmcontext.proxy.estimates import Estimates
from mitmcontext.proxy.job import Ready, Result
from mitmcontext.values import Action, Change, Outcome, Standing
from mitmcontext.wire.api import message_of

_CHANGES_SIZE: Final = 4 << 20
_log: Final = logging.getLogger(__name__)


class Outcomes:
    """Makes results, and remembers what steps changed, for people to read."""

    def __init__(self, known: Known, estimates: Estimates) -> None:
        self._known = known
        self._estimates = estimates
        self._changes: LRUCache[bytes, tuple[Change, ...]] = LRUCache(
            _CHANGES_SIZE, getsizeof=_size_of
        )
        self._lock = threading.Lock()

    def shown(self, ready: Ready, assessment: Assessment) -> Result:
        """The request with what is frozen, counted."""
        return Result(
            outcome=self._outcome(ready, assessment),
            ready=ready,
            raw=ready.raw,
            forwarded=ready.laid.forwarded,
            estimated=self._estimates.estimated(ready, assessment),
        )

    def uncounted(self, ready: Ready) -> Result:
        """A request that goes out as it came and is to be counted afterwards."""
        room = self._estimates.window(ready).room(ready.request.max_output)
        room = pipeline.within(room, ready.settings.context_budget)
        outcome = replace(self._outcome(ready), room=room)
        return Result(outcome, ready, None, ready.laid.forwarded, counted=False)

    def base(self, ready: Ready, reason: str) -> Result:
        """One rung down: only what is frozen."""
        _log.warning("mitmcontext: no new step: %s", reason)
        outcome = replace(self._outcome(ready), action=Action.FAILED_OPEN, reason=reason)
        return Result(outcome, ready, ready.raw, ready.laid.forwarded)

    def explained(self, ready: Ready) -> tuple[Change, ...]:
        """What the steps changed that hold, told from the request itself. Runs in a thread.

        What was reduced at birth behind them is not among it.
        """
        found, sent = ready.laid.found, ready.laid.sent
        if found is None:
            return ()
        messages = [message_of(sent.api, ready.request.raw(at)) for at in range(len(sent.facts))]
        tokens = self._known.count(sent.api, sent.family, sent.request, sent.facts)
        held = found.entry.edits
        if not held:
            return ()
        changes = pipeline.changes_of(messages, tokens, held, held, self._known, sent.family)
        self.tell(sent.links[found.at], changes)
        return changes

    def tell(self, link: bytes, changes: tuple[Change, ...]) -> None:
        """Remember what the steps changed whose entry is at a link."""
        told = tuple(replace(change, new=False) for change in changes)
        with self._lock:
            if _size_of(told) <= self._changes.maxsize:
                self._changes[link] = told

    def clear(self) -> None:
        """Forget all excerpts."""
        with self._lock:
            self._changes.clear()

    def _outcome(self, ready: Ready, assessment: Assessment | None = None) -> Outcome:
        found = ready.laid.found
        if ready.standing == Standing.ALONE:
            action = Action.LEFT_ALONE
        elif ready.laid.forwarded is ready.laid.sent:
            action = Action.UNDER_THRESHOLD
        else:
            action = Action.OBSERVED if ready.observed else Action.REAPPLIED
        changes = self._changes_of(ready)
        counted: dict[str, Any] = {}
        if assessment is not None:
            changes = (*pipeline.changes_at_birth(ready.laid, assessment), *changes)
            counted = {
                "level": assessment.level,
                "room": assessment.room,
                "sent": assessment.sent,
                "forwarded": assessment.forwarded,
            }
        return Outcome(
            action=action,
            reason=ready.why or ready.observed,
            api=ready.job.api.name,
            model=ready.request.model,
            messages=len(ready.request.spans),
            steps=found.entry.step if found else 0,
            changes=changes,
            **counted,
        )

    def _changes_of(self, ready: Ready) -> tuple[Change, ...]:
        """The changes of the steps that hold, as they were shown when the newest was taken."""
        found = ready.laid.found
        with self._lock:
            return self._changes.get(ready.laid.sent.links[found.at], ()) if found else ()


def _size_of(changes: tuple[Change, ...]) -> int:
    """About how many bytes changes take: their excerpts, and the values around them."""
    return sum(2 * (len(change.before) + len(change.after)) + 400 for change in changes)
