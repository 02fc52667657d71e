"""Lay edits over a request: from what became of each part to the bytes that go out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from mitmcontext.condense.entries import WHOLE, FrozenEdit
from mitmcontext.values import Broken, Edit, Message, Part, Request, Span
from mitmcontext.wire import spans
from mitmcontext.wire.api import Api, message_of


def rewritten(api: Api, request: Request, edits: Sequence[FrozenEdit]) -> bytes:
    """The body with the edits laid over it; all else is the client's, to the byte.

    Raises:
        Broken: an edit was made for another content than what stands there.
    """
    parts = list(_edited(api, request, edits))
    stubs, removals = _stubs(api, request, parts), _removals(request, parts)
    return spans.splice(request.body, [*_folds(api, request, edits), *stubs, *removals])


def sources(api: Api, request: Request, edits: Sequence[FrozenEdit]) -> list[int | None]:
    """For each message that the edits make of a request: the client's that it was, None for ours.

    A message of ours is a note, or parts one from a user's.
    """
    found: list[int | None] = []
    at = 0
    for run in _runs(edits):
        found += range(at, run.first)
        found += [None] * (1 + sum(_parted(api, request, run)))
        at = run.last + 1
    found += range(at, len(request.spans))
    return found


Edited = tuple[FrozenEdit, Part]


class _Run(NamedTuple):
    """An unbroken run of folded messages, by their indices, and the note that stands for it.

    Another run may stand right before it or `follow`: then their notes are neighbours.
    """

    first: int
    last: int
    text: str
    follows: bool
    followed: bool


def _runs(edits: Sequence[FrozenEdit]) -> list[_Run]:
    whole = [edit for edit in edits if edit.part == WHOLE]
    heads = [at for at, edit in enumerate(whole) if edit.text is not None]
    ends = [*heads[1:], len(whole)]
    folded = {edit.message for edit in whole}
    found = []
    for at, end in zip(heads, ends, strict=False):
        first, last = whole[at].message, whole[end - 1].message
        run = _Run(first, last, whole[at].text or "", first - 1 in folded, last + 1 in folded)
        found.append(run)
    return found


def _folds(api: Api, request: Request, edits: Sequence[FrozenEdit]) -> list[Edit]:
    """One edit for each unbroken run of folded messages, with the commas between them."""
    return [
        Edit(
            Span(request.spans[run.first].start, request.spans[run.last].end),
            b",".join(_note(api, request, run)),
        )
        for run in _runs(edits)
    ]


def _note(api: Api, request: Request, run: _Run) -> Iterator[bytes]:
    """The messages that stand for a run: the note, parted from a user's where that has to be."""
    before, behind = _parted(api, request, run)
    if before:
        yield api.between
    yield api.user_message(run.text)
    if behind:
        yield api.between


def _parted(api: Api, request: Request, run: _Run) -> tuple[bool, bool]:
    """Whether a note has to be parted from what stands before it, and from what stands behind."""
    if not api.between:
        return False, False
    before = run.follows or (run.first > 0 and _is_users(api, request, run.first - 1))
    next_ = run.last + 1
    open_ = not run.followed and next_ < len(request.spans)
    return before, open_ and _is_users(api, request, next_)


def _is_users(api: Api, request: Request, at: int) -> bool:
    return message_of(api, request.raw(at)).role == "user"


def _stubs(api: Api, request: Request, edited: Iterable[Edited]) -> Iterator[Edit]:
    """One edit for each part that a text takes the place of."""
    for edit, part in edited:
        if edit.text is None:
            continue
        if part.value is None:
            raise Broken("an edit does not belong to what stands there")
        place = part.value.shifted(request.spans[edit.message].start)
        old = request.body[place.start : place.end]
        yield Edit(place, api.in_place_of(part, old, edit.text))


def _removals(request: Request, edited: Iterable[Edited]) -> Iterator[Edit]:
    """One edit for each unbroken run of parts that go, with a comma beside it."""
    places = []
    for edit, part in edited:
        if edit.text is None:
            if not part.removable:
                raise Broken("an edit does not belong to what stands there")
            places.append(part.span.shifted(request.spans[edit.message].start))
    yield from (Edit(span, b"") for span in spans.without(request.body, places))


def _edited(api: Api, request: Request, edits: Sequence[FrozenEdit]) -> Iterator[Edited]:
    """The edits of parts, each with the part.

    Raises:
        Broken: another one stands there.
    """
    parsed: tuple[int, Message] | None = None
    for edit in edits:
        if edit.part == WHOLE:
            continue
        if parsed is None or parsed[0] != edit.message:
            parsed = edit.message, api.parse(request.raw(edit.message))
        part = parsed[1].parts[edit.part]
        if part.digest != edit.digest:
            raise Broken("an edit does not belong to what stands there")
        yield edit, part
