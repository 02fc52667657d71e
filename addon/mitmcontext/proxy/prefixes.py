"""Whether a forwarded history extends the one forwarded before.

Providers bill a repeated prefix at a fraction. A prefix that we change without taking a step is a
defect, so what went out is compared, request by request, from the messages of the finished bodies.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

from cachetools import LRUCache

from mitmcontext.condense.entries import Entry


class Break(StrEnum):
    """Why a forwarded prefix changed."""

    STEP = "a step"
    UNEXPLAINED = "nothing that we know of"


Mark = tuple[int, int]
"""A step: its number, and a figure that tells it from others of that number."""


def mark_of(entry: Entry) -> Mark:
    """The mark of the step that an entry was made by."""
    last = entry.edits[-1] if entry.edits else None
    told = (last.message, last.part, last.digest, last.text) if last else ()
    # Texts know their hashes, which hold while the process runs; so does what is marked.
    return entry.step, hash((entry.before, entry.after, len(entry.edits), told))


class Prefixes:
    """By a client's last link: the last link as forwarded, and the mark of the newest step."""

    def __init__(self, sent: LRUCache[bytes, tuple[bytes, Mark]]) -> None:
        self._sent = sent

    def note(self, client: Sequence[bytes], forwarded: Sequence[bytes], step: Mark) -> Break | None:
        """Take note of a request; say why a prefix that was forwarded before changed, if it did.

        Args:
            client: the links of the history as the client sent it.
            forwarded: the links of the history as it goes out.
            step: the mark of the conversation's newest step that is laid over it.
        """
        before = next((self._sent[link] for link in reversed(client) if link in self._sent), None)
        if client and forwarded:
            self._sent[client[-1]] = (forwarded[-1], step)
        if before is None or before[0] in forwarded:
            return None
        number, what = before[1]
        # Another step of the same number: two proxies took one each while apart; one of them holds.
        explained = step[0] > number or (step[0] == number and step[1] != what)
        return Break.STEP if explained else Break.UNEXPLAINED

    def clear(self) -> None:
        """Forget everything: what goes out next is compared with nothing."""
        self._sent.clear()

    def forget(self, client: Sequence[bytes]) -> None:
        """What was noted of this history did not hold."""
        self._sent.pop(client[-1], None)
