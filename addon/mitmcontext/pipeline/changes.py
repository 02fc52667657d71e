"""What was done to a conversation, for people to read: lists and excerpts are bounded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from mitmcontext.births import EXCERPT
from mitmcontext.condense.conversation import said
from mitmcontext.condense.entries import WHOLE, FrozenEdit
from mitmcontext.condense.texts import with_images
from mitmcontext.known import Known
from mitmcontext.pipeline.assessing import Assessment
from mitmcontext.pipeline.reading import Laid, last_answer
from mitmcontext.tokens.families import Family
from mitmcontext.values import Change, Kind, Message

_SHOWN: Final = 60
_EXCERPT: Final = 4_000


def changes_of(
    messages: Sequence[Message],
    tokens: Sequence[int],
    edits: Sequence[FrozenEdit],
    held: Sequence[FrozenEdit],
    known: Known,
    family: Family,
) -> tuple[Change, ...]:
    """The edits for people to read: the newest first come, the list and each excerpt bounded."""
    old = frozenset(held)
    shown = [at for at, edit in enumerate(edits) if edit.text is not None or edit.part != WHOLE]
    shown.sort(key=lambda at: edits[at] in old)
    return tuple(
        _change(messages, tokens, at, edits, edits[at] not in old, known, family)
        for at in shown[:_SHOWN]
    )


def changes_at_birth(laid: Laid, assessment: Assessment) -> tuple[Change, ...]:
    """The results that are reduced behind what is frozen, for people to read."""
    if not laid.births:
        return ()
    answer = last_answer(laid.sent)
    # A note may stand for several messages, but behind the last one all is as it was.
    shift = len(assessment.estimates) - len(assessment.sent_tokens)
    found = []
    for at, born in sorted(laid.births.items()):
        before = assessment.sent_tokens[at]
        after = assessment.scale.of(assessment.estimates[at + shift], at)
        for edit, stood in zip(born.edits, born.before, strict=True):
            change = Change(
                what="birth",
                first=at,
                last=at,
                kind=Kind.RESULT.value,
                tokens_before=before // len(born.edits),
                tokens_after=after // len(born.edits),
                before=stood,
                after=(edit.text or "")[:EXCERPT],
                new=answer is not None and at > answer,
            )
            found.append(change)
    return tuple(found)


def _change(
    messages: Sequence[Message],
    tokens: Sequence[int],
    at: int,
    edits: Sequence[FrozenEdit],
    new: bool,
    known: Known,
    family: Family,
) -> Change:
    edit = edits[at]
    text = edit.text or ""
    if edit.part == WHOLE:
        last = edit.message
        while at + 1 < len(edits) and edits[at + 1].part == WHOLE and edits[at + 1].text is None:
            at, last = at + 1, edits[at + 1].message
        stretch = range(edit.message, last + 1)
        before = "\n".join(part.text for i in stretch for part in messages[i].parts)
        return Change(
            what="fold",
            first=edit.message,
            last=last,
            kind=f"{len(stretch)} messages",
            tokens_before=sum(tokens[i] for i in stretch),
            tokens_after=known.weigh(family, said(text)),
            before=before[:_EXCERPT],
            after=text[:_EXCERPT],
            new=new,
        )
    part = messages[edit.message].parts[edit.part]
    alone = Message("user", (part,), b"")
    return Change(
        what="drop" if edit.text is None else "stub",
        first=edit.message,
        last=edit.message,
        kind=part.kind.value,
        tokens_before=known.weigh(family, alone),
        tokens_after=0 if edit.text is None else known.weigh(family, said(text)),
        before=(part.text or with_images(part))[:_EXCERPT],
        after=text[:_EXCERPT],
        new=new,
    )
