"""Whether a model's text may take the place of a stretch of the conversation.

A wrong summary is worse than none: it stays for the rest of the conversation. So a text is taken
only if it is one, is shorter than what it replaces, fits, and holds the names that are needed.
Of those the prose alone has to hold half, since a mere list of words tells nobody what happened.
What the prose lacks is named in an index behind it, of at most 15 % of the whole.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from mitmcontext.condense.summaries.identifiers import essence

PROSE_SHARE: Final = 0.5
"""The share of the names that the prose alone has to hold."""
INDEX_SHARE: Final = 0.15
"""How much of the replacement the index may be, in characters."""

_REFUSAL: Final = re.compile(
    r"\W*(?:i(?:'|\u2019)?m (?:very |really )?sorry|sorry,|i (?:can(?:'|\u2019)?t|cannot|can not"
    r"|am (?:unable|not able)|won(?:'|\u2019)?t|will not|must decline|apologi[sz]e)|i(?:'|\u2019)m "
    r"(?:unable|not able)|as an ai\b|unfortunately,? i (?:can|am|\u2019m|'m))",
    re.IGNORECASE,
)
_PAGE: Final = re.compile(r"\s*+<(?:!doctype|html|head|body|\?xml)\b", re.IGNORECASE)
# A refusal is short; a report that begins so by chance goes on.
_SHORT: Final = 600
_LEAST: Final = 40


class Rejection(StrEnum):
    """Why an answer was not taken."""

    EMPTY = "empty"
    PAGE = "a web page"
    REFUSAL = "a refusal"
    LONGER = "not shorter than what it replaces"
    TOO_LONG = "does not fit the target"
    NAMES = "lacks names that recur"


@dataclass(frozen=True, slots=True)
class Accepted:
    """A text that passed, and the names to put behind it."""

    text: str
    index: tuple[str, ...] = ()


def judged_text(text: str) -> Rejection | None:
    """What is wrong with a text as such."""
    said = text.strip()
    if len(said) < _LEAST:
        return Rejection.REFUSAL if _REFUSAL.match(said) else Rejection.EMPTY
    if _PAGE.match(said):
        return Rejection.PAGE
    if len(said) < _SHORT and _REFUSAL.match(said):
        return Rejection.REFUSAL
    return None


def judged_names(text: str, names: Sequence[str], threshold: float) -> Accepted | Rejection:
    """Whether a text and an index behind it hold enough of the names.

    Args:
        text: the model's, without an index.
        names: that recur, the most needed first, the short form of each being what counts.
        threshold: the share of them that text and index together have to hold.
    """
    lacking = [name for name in names if essence(name) not in text]
    if names and len(lacking) > (1 - PROSE_SHARE) * len(names):
        return Rejection.NAMES
    # The index is a share of the whole, so of what stands beside it a little more.
    room = int(len(text) * INDEX_SHARE / (1 - INDEX_SHARE))
    index: list[str] = []
    for name in lacking:
        if len(name) + 2 <= room:
            room -= len(name) + 2
            index.append(name)
    if len(lacking) - len(index) > (1 - threshold) * len(names) + 1e-9:
        return Rejection.NAMES
    return Accepted(text, tuple(index))
