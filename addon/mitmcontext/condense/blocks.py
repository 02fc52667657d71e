"""The blocks of old tool results, and how much of use each is likely to be.

A block is a few whole lines. What counts is measured, and is the same for all agents: whether its
lines stand anywhere else, whether the conversation has named since what it holds, how long ago it
was shown, how large the result is that it belongs to, and whether it begins that result. Beyond
these, finer weights change little: on recorded sessions all that were tried came out within noise.
This ranking is for the moment of a step: to rank anew on each request would break the provider's
cache each time.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Final, NamedTuple

from mitmcontext.condense.signs import before_a_sign

_LINES: Final = 6
_LONGEST: Final = 900
_PIECE: Final = 600
# What listings put before a line: numbers, arrows, tabs. Without, it is the same however shown.
_NUMBERING: Final = " \t0123456789:|-+>\u2192\r"
_NUMBERED: Final = re.compile(r" {0,6}(\d{1,7})[\u2192\t]")
_FEWEST_NUMBERED: Final = 5
_TELLING: Final = 6
_WORD: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{3,60}")
# Results after which what was named counts for a third.
_FADING: Final = 30.0
# What a block is worth that nobody named, beside the logarithm of what was named.
_UNNAMED: Final = 3.0
_NOT_NOVEL: Final = 0.1
_FIRST: Final = 1.3
# Tokens that a stub has in any case: a small result frees little.
_STUB: Final = 50.0


class Block(NamedTuple):
    """A stretch of a text, by its characters: end exclusive."""

    start: int
    end: int


def unnumbered(text: str) -> tuple[str, int]:
    """The text without the numbers before its lines, and how many lines had one.

    Only numbers that count on from line to line are taken, as file readers put them there; what
    follows the last of them stays. Of any other text nothing is taken.
    """
    lines = text.split("\n")
    first = _NUMBERED.match(lines[0])
    if first is None:
        return text, 0
    start = int(first[1])
    found: list[str] = []
    for at, line in enumerate(lines):
        number = _NUMBERED.match(line)
        if number is None or int(number[1]) != start + at:
            break
        found.append(line[number.end() :])
    if len(found) < _FEWEST_NUMBERED:
        return text, 0
    return "\n".join([*found, *lines[len(found) :]]), len(found)


def blocks_of(text: str) -> list[Block]:
    """The text cut into blocks of some whole lines; only a very long line is cut within."""
    found: list[Block] = []
    start = at = lines = 0
    while at < len(text):
        end = text.find("\n", at) + 1 or len(text)
        if lines and (lines == _LINES or end - start > _LONGEST):
            found.append(Block(start, at))
            start, lines = at, 0
        if end - at > _LONGEST:
            found += _pieces(text, at, end)
            start = end
        else:
            lines += 1
        at = end
    if start < len(text):
        found.append(Block(start, len(text)))
    return found


def _pieces(text: str, start: int, end: int) -> Iterator[Block]:
    """A very long line in pieces: cut at line ends that are escaped, else at spaces or commas."""
    while end - start > _LONGEST:
        least, most = start + _PIECE // 3, start + _PIECE
        at = text.rfind("\\n", least, most) + 2
        if at < least:
            at = max(text.rfind(mark, least, most) for mark in " ,") + 1
        at = at if at > start else before_a_sign(text, most)
        yield Block(start, at)
        start = at
    yield Block(start, end)


def bare_lines(text: str) -> list[str]:
    """The lines of a text that say something, without numbering and indentation."""
    return [line for raw in text.split("\n") if len(line := raw.strip(_NUMBERING)) >= _TELLING]


def words(text: str) -> set[str]:
    """The words that a text may be known by."""
    return set(_WORD.findall(text))


@dataclass(frozen=True, slots=True)
class Source:
    """An old result: where it stands, its text, its tokens, its number among all results.

    `text` and `tokens` are without line numbers, of which there were `numbers`. `weight` is what is
    known of it beside its text: 1, more for the newest read of a file, less for the answer to a
    write.
    """

    message: int
    part: int
    text: str
    tokens: float
    number: int
    weight: float = 1.0
    numbers: int = 0


class Ranked(NamedTuple):
    """Which block of which source, its tokens and what it is worth, by token: sorts by worth."""

    worth: float
    source: int
    block: int
    tokens: float


def ranked(
    sources: Sequence[Source],
    cuts: Sequence[Sequence[Block]],
    standing: set[str],
    mentioned: Mapping[str, int],
    results: int,
) -> list[Ranked]:
    """All blocks, those of the least worth first.

    Args:
        sources: the old results, in the order of the conversation.
        cuts: the blocks of each.
        standing: lines that are kept in any case.
        mentioned: word to the number of results that had been shown when it was last named.
        results: how many there are in all.
    """
    seen, known = set(standing), frozenset(mentioned)
    # By source and block: the share of its lines that stand nowhere else, and what it names.
    novel: list[list[float]] = [[] for _ in sources]
    held: list[list[frozenset[str]]] = [[] for _ in sources]
    # The newest copy of a line carries it; what stands later too is not novel.
    for at in range(len(sources) - 1, -1, -1):
        text = sources[at].text
        own: list[str] = []
        for start, end in cuts[at]:
            piece = text[start:end]
            lines = bare_lines(piece)
            fresh = [line for line in lines if line not in seen]
            novel[at].append(len(fresh) / len(lines) if lines else 0.0)
            held[at].append(known.intersection(_WORD.findall(piece)))
            own += fresh
        seen.update(own)
    spread = Counter(chain.from_iterable(chain.from_iterable(held)))
    blocks = sum(map(len, cuts))
    fresh_of = {
        word: math.log(1 + blocks / count) * math.exp((mentioned[word] - results) / _FADING)
        for word, count in spread.items()
    }
    found = []
    for at, source in enumerate(sources):
        rate = source.tokens / max(1, len(source.text))
        small = source.tokens / max(2.0, source.tokens - _STUB)
        of_result = (
            (results - source.number + 1) ** -0.5
            * source.weight
            * small
            / max(30.0, source.tokens) ** 0.25
        )
        first = _FIRST
        for index, (start, end) in enumerate(cuts[at]):
            named = sum(
                [fresh_of[word] for word in held[at][index] if mentioned[word] > source.number]
            )
            tokens = (end - start) * rate
            worth = (
                of_result
                * (_UNNAMED + math.log1p(named) ** 1.5)
                * (_NOT_NOVEL + (1 - _NOT_NOVEL) * novel[at][index])
                * first
                / max(8.0, tokens) ** 0.7
            )
            found.append(Ranked(worth, at, index, tokens))
            first = 1.0
    return sorted(found)
