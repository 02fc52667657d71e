"""Names that somebody may have to use again to the letter: paths, dotted and joined names, numbers.

A summary that says "the worker's file" where the conversation said `src/app/worker.py` has lost
what an agent needs next.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import Final

from mitmcontext.values import Kind, Message, Part

# Words are taken first, without backtracking: a tool's result may hold a megabyte of one letter.
_WORD: Final = re.compile(r"[\w~./@:-]++")
_IDENTIFIER: Final = re.compile(
    r"[^\W_]++(?:[._][^\W_]++)++"  # a.b, a_b, 1.2.3
    r"|[A-Z][a-z0-9]++(?:[A-Z][a-z0-9]*+)++|[a-z]++(?:[A-Z][a-z0-9]*+)++"  # CamelCase
    r"|[A-Z]{2,}+(?:[_-][A-Z0-9]++)++"  # JIRA-123
    r"|(?=[a-f]*+[0-9])(?=[0-9]*+[a-f])[0-9a-f]{7,40}+"  # a digest
    r"|[0-9a-f]{8}-[0-9a-f-]{20,40}"
    r"|\d{5,20}+"  # shorter ones are mostly a file's lines
)
# Tags, and in a call's arguments the names of fields and the escapes of JSON: nobody's names.
_TAG: Final = re.compile(r"</?[A-Za-z][\w-]*+/?>")
_FIELD: Final = re.compile(r'"\w++"\s*+:')
_ESCAPE: Final = re.compile(r"\\[nrt]")
# A line's number behind a file's name.
_LINE: Final = re.compile(r":\d[\d:-]*+\Z")
_LENGTH: Final = range(4, 121)
_READ: Final = 60_000
_SPOKEN: Final = (Kind.TYPED, Kind.PROSE, Kind.CALL, Kind.RESULT)
# What is worth more: that it is still spoken of.
_STILL: Final = 4
_FEWEST: Final = 12
# Of the replacement: one for so many characters, of which an index of 15 % can name most.
_CHARACTERS_FOR_ONE: Final = 100


def identifiers(text: str) -> frozenset[str]:
    """The identifiers in the first 60,000 characters of a text."""
    words = {_LINE.sub("", word.rstrip(".:-")).strip(":-") for word in _WORD.findall(text[:_READ])}
    return frozenset(word for word in words if len(word) in _LENGTH and _is_one(word))


def _is_one(word: str) -> bool:
    if "/" in word:
        # "and/or" is none.
        looks = word[0] in "~./@" or word.count("/") > 1 or "." in word or "_" in word
        return looks and any(sign.isalnum() for sign in word)
    return _IDENTIFIER.fullmatch(word) is not None


def recurring(stretch: Sequence[Message], kept: Sequence[Message], size: int) -> tuple[str, ...]:
    """The identifiers of a stretch that recur in it or in what is kept, the most needed first.

    The longer the replacement, the more of them it has to answer for.

    Args:
        stretch: what is replaced.
        kept: what stands on.
        size: the characters of the replacement.
    """
    often = Counter(name for message in stretch for name in _names(message))
    still = {name for message in kept for name in _names(message)}
    scored = {
        name: count + (_STILL if name in still else 0)
        for name, count in often.items()
        if count > 1 or name in still
    }
    most = max(_FEWEST, size // _CHARACTERS_FOR_ONE)
    found: dict[str, str] = {}
    # A file by its full path and by its name is one thing: the longest form stands for it.
    for name in sorted(scored, key=lambda name: (-scored[name], -len(name), name)):
        found.setdefault(essence(name), name)
        if len(found) == most:
            break
    return tuple(found.values())


def _names(message: Message) -> frozenset[str]:
    return frozenset(
        name for part in message.parts if part.kind in _SPOKEN for name in identifiers(_said(part))
    )


def _said(part: Part) -> str:
    text = part.text[:_READ]
    if part.kind == Kind.CALL:
        text = _ESCAPE.sub(" ", _FIELD.sub(" ", text))
    return _TAG.sub(" ", text)


def essence(name: str) -> str:
    """What has to stand in a text for it to hold a name: of a path the last of its names."""
    last = name.rstrip("/").rpartition("/")[2]
    return last if len(last) >= _LENGTH.start else name
