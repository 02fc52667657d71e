"""Lay edits over a request: from what became of each part to the bytes that go out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from mitmcontext.condense.ledger import WHOLE, FrozenEdit
from mitmcontext.values import Broken, Edit, Message, Request, Span
from mitmcontext.wire import spans
from mitmcontext.wire.api import Api, message_of


def rewritten(api: Api, request: Request, edits: Sequence[FrozenEdit]) -> bytes:
    """The body with the edits laid over it; all else is the client's, to the byte.

    Raises:
        Broken: an edit was made for another content than what stands there.
    """
    return spans.splice(request.body, [*_folds(api, request, edits), *_stubs(api, request, edits)])


def _folds(api: Api, request: Request, edits: Sequence[FrozenEdit]) -> list[Edit]:
    """One edit for each unbroken run of folded messages, with the commas between them."""
    runs: list[tuple[int, int, str]] = []
    for edit in edits:
        if edit.part != WHOLE:
            continue
        if edit.text is not None:
            runs.append((edit.message, edit.message, edit.text))
        else:
            first, _, text = runs[-1]
            runs[-1] = first, edit.message, text
    return [
        Edit(
            Span(request.spans[first].start, request.spans[last].end),
            b",".join(_note(api, request, first, last, text)),
        )
        for first, last, text in runs
    ]


def _note(api: Api, request: Request, first: int, last: int, text: str) -> Iterator[bytes]:
    """The messages that stand for a run: the note, parted from a user's where that has to be."""
    if api.between and first and _is_users(api, request, first - 1):
        yield api.between
    yield api.user_message(text)
    if api.between and last + 1 < len(request.spans) and _is_users(api, request, last + 1):
        yield api.between


def _is_users(api: Api, request: Request, at: int) -> bool:
    return message_of(api, request.raw(at)).role == "user"


def _stubs(api: Api, request: Request, edits: Sequence[FrozenEdit]) -> list[Edit]:
    found: list[Edit] = []
    parsed: tuple[int, Message] | None = None
    for edit in edits:
        if edit.part == WHOLE or edit.text is None:
            continue
        if parsed is None or parsed[0] != edit.message:
            parsed = edit.message, api.parse(request.raw(edit.message))
        part = parsed[1].parts[edit.part]
        if part.value is None or part.digest != edit.digest:
            raise Broken("an edit does not belong to what stands there")
        place = part.value.shifted(request.spans[edit.message].start)
        old = request.body[place.start : place.end]
        found.append(Edit(place, api.replacement(old, edit.text)))
    return found
