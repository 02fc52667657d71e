"""What a new tool result is shortened to before it is sent for the first time.

First what is lost on nobody: escape sequences of a terminal, lines that repeat, runs of blank
lines, the spacing of JSON. What is still large then keeps its head, its tail and the lines that
tell of errors, and says how much was left out, what it named, and how to get it back. That is by
the same call: a call that was made before gets its result without anything left out.

All of it follows from the result and from the calls before it, so the same history always gives the
same bytes. What an agent read of a file stays to the byte, since it may be about to edit it; so do
errors, what nobody can ask for again, and what is ours already.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import groupby
from typing import Final

import msgspec

from mitmcontext.condense import texts
from mitmcontext.condense.blocks import Block, blocks_of
from mitmcontext.condense.touched import touched
from mitmcontext.values import Part

# Characters, about a hundred tokens: what is smaller is not worth looking at.
_SMALL: Final = 400
# Characters that have to be saved at least, about ten tokens.
_WORTH: Final = 40
# Characters above which something is left out, about two thousand tokens. On recorded sessions of
# Claude Code a quarter of all tokens stand in larger results that are no reads of files.
LARGE: Final = 8_000
# Characters that stay of a large result: of its head, its tail, and of what tells of errors.
_HEAD: Final = 3_000
_TAIL: Final = 1_500
_TELLING: Final = 1_500
_INDEX: Final = 300
# A terminal's escape sequences (ECMA-48, 5.3 to 5.6): CSI, OSC and other strings, two bytes.
_ESCAPE: Final = re.compile(
    r"\x1b(?:\[[0-?]*+[ -/]*+[@-~]|[\]PX^_][^\x07\x1b]*+(?:\x07|\x1b\\)|[ -/]*+[0-Z\\^-~])"
)
_BLANK: Final = re.compile(r"\n(?:[ \t\r]*+\n){2,}")
# Strings of JSON stay, spacing between anything else goes.
_SPACING: Final = re.compile(r'("(?:[^"\\]++|\\.)*+")|[ \t\r\n]++')
_ERROR: Final = re.compile(
    r"\b(?:error|exception|fail(?:ed|ure|ures)?|traceback|panic(?:ked)?|fatal|denied|undefined"
    r"|cannot|warning)\b|\b[A-Z]\w*(?:Error|Exception)\b",
    re.IGNORECASE,
)
# How the result of a call that failed begins, where nothing else says so.
_FAILED: Final = re.compile(
    r"\s*+(?:<tool_use_error>|\{\s*+\"error\"|error\b|traceback \(|"
    r".{0,40}?\b(?:exit(?:ed with)?[ _]?(?:code|status)|returncode)\W{1,3}[1-9])",
    re.IGNORECASE,
)
# What answers once: people, other agents, and instructions.
_ONCE: Final = re.compile(r"task|agent|ask|question|plan|skill|think|prompt", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Call:
    """What a result answers: the tool's name, and that with its arguments as text."""

    name: str
    text: str


def at_birth(
    part: Part,
    call: Call | None,
    *,
    failed: bool = False,
    again: Callable[[], bool] = lambda: False,
) -> str | None:
    """What to send in place of a new result; None where it is to stay as it is.

    Args:
        part: the result.
        call: that it answers; None where nobody knows. What answers none may have been pasted by
            a person.
        failed: whether the result itself says that it is an error.
        again: whether the same call was made before; asked only where something is left out.
    """
    text = part.text
    if call is None or len(text) < _SMALL or part.images or failed or texts.is_ours(text):
        return None
    if _FAILED.match(text[:_SMALL]) or _is_read(call):
        return None
    smaller = lossless(text)
    found = smaller if len(text) - len(smaller) >= _WORTH else text
    if len(found) > LARGE and not _ONCE.search(call.name) and not again():
        found = _excerpt(part, found)
    return found if len(text) - len(found) >= _WORTH else None


def _is_read(call: Call) -> bool:
    return any(not touch.write for touch in touched(call.name, call.text))


def lossless(text: str) -> str:
    """The text without what says nothing; where it is one JSON value, that value."""
    return without_spacing(text) or without_blanks(without_repeats(without_escapes(text)))


def without_escapes(text: str) -> str:
    """The text as a terminal without colours shows it."""
    return _ESCAPE.sub("", text) if "\x1b" in text else text


def without_repeats(text: str) -> str:
    """The text with a count in place of a line's second and later copies in a row."""
    found: list[str] = []
    for line, copies in groupby(text.split("\n")):
        count = sum(1 for _ in copies)
        said = f"[... this line {count - 1:,} more times ...]"
        shorter = line.strip() and len(said) < (count - 1) * (len(line) + 1) - 1
        found += [line, said] if shorter else [line] * count
    return "\n".join(found)


def without_blanks(text: str) -> str:
    """The text with one blank line where there were several in a row."""
    return _BLANK.sub("\n\n", text)


def without_spacing(text: str) -> str:
    """One JSON value without the spacing between its tokens; "" for any other text."""
    if text.lstrip()[:1] not in ("{", "["):
        return ""
    try:
        msgspec.json.decode(text.encode(), type=msgspec.Raw)
    except (msgspec.MsgspecError, RecursionError, UnicodeEncodeError):
        return ""
    return _SPACING.sub(lambda found: found[1] or "", text)


def _excerpt(part: Part, text: str) -> str:
    blocks = blocks_of(text)
    stays = _telling(text, blocks)
    kept: list[Block] = []
    for at in sorted(stays):
        start, end = blocks[at]
        if kept and kept[-1].end == start:
            start = kept.pop().start
        kept.append(Block(start, end))
    gone = "".join(text[start:end] for at, (start, end) in enumerate(blocks) if at not in stays)
    here = texts.words_in("".join(text[start:end] for start, end in kept))
    names = texts.index((name for name in texts.names_in(gone) if name not in here), _INDEX)
    return texts.excerpt_at_birth(part, texts.Excerpt(text, kept, 0), names)


def _telling(text: str, blocks: list[Block]) -> set[int]:
    """The blocks that stay, by their index."""
    stays = set(_until(blocks, range(len(blocks)), _HEAD))
    stays |= set(_until(blocks, range(len(blocks) - 1, -1, -1), _TAIL))
    errors = (
        at
        for at, (start, end) in enumerate(blocks)
        if at not in stays and _ERROR.search(text, start, end)
    )
    return stays | set(_until(blocks, errors, _TELLING))


def _until(blocks: list[Block], order: Iterable[int], size: int) -> Iterable[int]:
    for at in order:
        size -= blocks[at].end - blocks[at].start
        if size < 0:
            return
        yield at
