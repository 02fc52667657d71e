"""The list of a request's messages in the content view: what became of each of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from mitmcontext.proxy.listing import Row
from mitmcontext.proxy.safe import line
from mitmcontext.proxy.words import DONE
from mitmcontext.values import Action, Change, Outcome

WIDTH: Final = 80
_WORDS: Final = 34
# Kept messages in a row are told as one line once there are more lines than fit: the longest
# stretches first.
_STRETCHES: Final = (60, 30, 12, 5, 1)


class Entry(NamedTuple):
    """One line: the messages from `first` to `last`, and whether nothing was done to them."""

    first: int
    last: int
    row: Row
    kept: bool
    state: str


def conversation(
    rows: Sequence[Row], outcome: Outcome, room: int, *, complete: bool = True
) -> Iterator[str]:
    """Message by message with the tokens of each: kept, stubbed, folded, dropped.

    Args:
        rows: the client's messages.
        outcome: what was done to them.
        room: how many lines there are.
        complete: whether all changes are known; of the other messages nothing is said if not.
    """
    rewritten = outcome.action in (Action.CONDENSED, Action.REAPPLIED)
    if not rows or (rewritten and not outcome.changes):
        return
    entries = list(_entries(rows, outcome.changes, "kept" if complete else ""))
    for stretch in _STRETCHES:
        if len(entries) + 2 <= room:
            break
        entries = list(_shortened(entries, stretch))
    title = "The conversation as the client sent it, in estimated tokens"
    yield f"── {title} ".ljust(WIDTH, "─")
    for entry in entries[: room - 3]:
        yield _told(entry)
    if len(entries) > room - 3:
        yield f"… and {len(entries) - room + 3:,} more lines"
    yield ""


def _entries(rows: Sequence[Row], changes: Sequence[Change], untouched: str) -> Iterator[Entry]:
    folds = {change.first: change for change in changes if _is_whole(change)}
    stubs: dict[int, list[Change]] = {}
    for change in changes:
        if not _is_whole(change):
            stubs.setdefault(change.first, []).append(change)
    at = 0
    while at < len(rows):
        fold = folds.get(at)
        if fold is not None and fold.last >= at:
            last = min(fold.last, len(rows) - 1)
            yield _folded(fold, rows[at : last + 1], at, last)
            at = last + 1
        else:
            yield _single(rows[at], at, stubs.get(at, ()), untouched)
            at += 1


def _is_whole(change: Change) -> bool:
    """Whether it takes the place of messages, and not of a part of one."""
    return change.what == "fold" or change.first != change.last


def _folded(change: Change, rows: Sequence[Row], first: int, last: int) -> Entry:
    done = "dropped" if change.what == "drop" else f"folded → {change.tokens_after:,}"
    count = len(rows)
    what = f"{count:,} {'message' if count == 1 else 'messages'} into one note"
    if change.what == "drop":
        what = f"{count:,} {'message' if count == 1 else 'messages'}"
    return Entry(first, last, Row("", what, change.tokens_before), False, done)


def _single(row: Row, at: int, changes: Sequence[Change], untouched: str) -> Entry:
    if not changes:
        return Entry(at, at, row, True, untouched)
    before = sum(change.tokens_before for change in changes)
    after = sum(change.tokens_after for change in changes)
    (done, *others) = dict.fromkeys(DONE.get(change.what, change.what) for change in changes)
    done = DONE["stub"] if others else done
    state = f"{done} {before:,}" if done == DONE["drop"] else f"{done} {before:,} → {after:,}"
    return Entry(at, at, row, False, state)


def _shortened(entries: Sequence[Entry], longest: int) -> Iterator[Entry]:
    """The same with stretches of more than so many kept messages as one line each."""
    stretch: list[Entry] = []
    for entry in entries:
        if entry.kept:
            stretch.append(entry)
            continue
        yield from _joined(stretch, longest)
        stretch = []
        yield entry
    yield from _joined(stretch, longest)


def _joined(stretch: Sequence[Entry], longest: int) -> Sequence[Entry]:
    if len(stretch) <= longest:
        return stretch
    counts = [entry.row.tokens for entry in stretch]
    tokens = None if None in counts else sum(count or 0 for count in counts)
    first, last = stretch[0].first, stretch[-1].last
    row = Row("", f"{last - first + 1:,} messages", tokens)
    return [Entry(first, last, row, True, stretch[0].state)]


def _told(entry: Entry) -> str:
    row = entry.row
    number = f"{entry.first + 1}"
    if entry.last != entry.first:
        number += f" to {entry.last + 1}"
    tokens = "" if row.tokens is None else f"{row.tokens:,}"
    words = line(f"{row.role:<9} {row.what}" if row.role else row.what)
    if len(words) > _WORDS:
        words = f"{words[: _WORDS - 2]} …"
    return f"{number:>10} {words:<{_WORDS}} {tokens:>8}  {entry.state}".rstrip()
