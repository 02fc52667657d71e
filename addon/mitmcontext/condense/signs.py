"""Where a text may be cut so that no sign falls apart that is made of several characters."""

from __future__ import annotations

import unicodedata
from typing import Final

_JOINER: Final = "\u200d"
# A sign with more marks than this is no writing, and may be cut.
_MOST: Final = 64
# Before it no character belongs to the one that it follows.
_FIRST: Final = "\u0300"


def before_a_sign(text: str, at: int) -> int:
    """`at`, or a little before it, where a sign begins.

    Near enough what Unicode's annex 29 has as a grapheme cluster: marks, joined emoji, tones of
    skin, flags and Korean syllables stay whole; so does a run of flags, of which nobody can tell
    from its middle where one begins.
    """
    least = max(0, at - _MOST)
    for place in range(at, least, -1):
        if place >= len(text) or not _belongs(text[place - 1], text[place]):
            return place
    return at if least else 0


def _belongs(before: str, after: str) -> bool:
    """Whether a character is part of the sign that the one before it is part of."""
    if after < _FIRST:
        return False
    return (
        _JOINER in (before, after)
        or unicodedata.category(after).startswith("M")
        or "\U0001f3fb" <= after <= "\U0001f3ff"
        or (_is_flag(before) and _is_flag(after))
        or ("\u1100" <= before <= "\u11ff" and "\u1100" <= after <= "\u11ff")
    )


def _is_flag(sign: str) -> bool:
    return "\U0001f1e6" <= sign <= "\U0001f1ff"
