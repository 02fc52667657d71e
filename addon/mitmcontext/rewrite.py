"""Lay edits over a request: from what became of each part to the bytes that go out."""

from __future__ import annotations

from collections.abc import Sequence

from mitmcontext.condense.ledger import WHOLE, FrozenEdit
from mitmcontext.values import Broken, Edit, Message, Request, Span
from mitmcontext.wire import spans
from mitmcontext.wire.api import Api


def rewritten(api: Api, request: Request, edits: Sequence[FrozenEdit]) -> bytes:
    """The body with the edits laid over it; all else is the client's, to the byte.

    Raises:
        Broken: an edit was made for another content than what stands there.
    """
    return spans.splice(request.body, [*_folds(api, request, edits), *_stubs(api, request, edits)])


def _folds(api: Api, request: Request, edits: Sequence[FrozenEdit]) -> list[Edit]:
    """One edit for each unbroken run of folded messages, with the commas between them."""
    runs: list[tuple[Span, str]] = []
    for edit in edits:
        if edit.part != WHOLE:
            continue
        place = request.spans[edit.message]
        if edit.text is not None:
            runs.append((place, edit.text))
        else:
            (start, _), text = runs[-1]
            runs[-1] = Span(start, place.end), text
    return [Edit(span, api.user_message(text)) for span, text in runs]


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
