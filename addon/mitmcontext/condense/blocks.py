"""The blocks of old tool results, and how much of use each is likely to be.

A block is a few whole lines. What counts is measured, and is the same for all agents: whether its
lines stand anywhere else (novelty), whether the conversation has named since what it holds, how
large the result is that it belongs to, and a little how long ago it was shown. This ranking is for
the moment of a step: to rank anew on each request would break the provider's cache each time.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

_LINES: Final = 6
_LONGEST: Final = 900
_PIECE: Final = 600
# What listings put before a line: numbers, arrows, tabs. Without, it is the same however shown.
_NUMBERING: Final = " \t0123456789:|-+>\u2192\r"
_TELLING: Final = 6
_WORD: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{3,60}")
# Results after which what was shown, or named, counts for a third.
_DECAY: Final = 8.0
_FADING: Final = 30.0
_ANYWAY: Final = 0.05
_NAMED: Final = 0.03
_NOT_NOVEL: Final = 0.1
# Tokens that a stub has in any case: a small result frees little.
_STUB: Final = 50.0


class Block(NamedTuple):
    """A stretch of a text, by its characters: end exclusive."""

    start: int
    end: int


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
            found += [Block(cut, min(cut + _PIECE, end)) for cut in range(at, end, _PIECE)]
            start = end
        else:
            lines += 1
        at = end
    if start < len(text):
        found.append(Block(start, len(text)))
    return found


def bare_lines(text: str) -> list[str]:
    """The lines of a text that say something, without numbering and indentation."""
    return [line for raw in text.split("\n") if len(line := raw.strip(_NUMBERING)) >= _TELLING]


def words(text: str) -> set[str]:
    """The words that a text may be known by."""
    return set(_WORD.findall(text))


@dataclass(frozen=True, slots=True)
class Source:
    """An old result: where it stands, its text, its tokens, its number among all results.

    `weight` is what is known of it beside its text: 1, more for the newest read of a file, less
    for a read that a later one made stale.
    """

    message: int
    part: int
    text: str
    tokens: float
    number: int
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class Ranked:
    """A block of a source with its tokens and what it is worth, by token."""

    source: int
    index: int
    tokens: float
    worth: float


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
    seen = set(standing)
    novel: dict[tuple[int, int], float] = {}
    held: dict[tuple[int, int], set[str]] = {}
    # The newest copy of a line carries it; what stands later too is not novel.
    for at in range(len(sources) - 1, -1, -1):
        text = sources[at].text
        own: list[str] = []
        for index, (start, end) in enumerate(cuts[at]):
            piece = text[start:end]
            lines = bare_lines(piece)
            fresh = [line for line in lines if line not in seen]
            novel[at, index] = len(fresh) / len(lines) if lines else 0.0
            held[at, index] = words(piece) & mentioned.keys()
            own += fresh
        seen.update(own)
    spread = Counter(word for block in held.values() for word in block)
    rarity = {word: math.log(1 + len(held) / count) for word, count in spread.items()}
    return sorted(
        _ranked(sources, cuts, novel, held, rarity, mentioned, results),
        key=lambda one: (one.worth, one.source, one.index),
    )


def _ranked(
    sources: Sequence[Source],
    cuts: Sequence[Sequence[Block]],
    novel: Mapping[tuple[int, int], float],
    held: Mapping[tuple[int, int], set[str]],
    rarity: Mapping[str, float],
    mentioned: Mapping[str, int],
    results: int,
) -> Iterator[Ranked]:
    for at, source in enumerate(sources):
        rate = source.tokens / max(1, len(source.text))
        age = results - source.number
        small = source.tokens / max(2.0, source.tokens - _STUB)
        recent = math.exp(-age / _DECAY)
        for index, (start, end) in enumerate(cuts[at]):
            tokens = (end - start) * rate
            named = sum(
                rarity[word] * math.exp((mentioned[word] - results) / _FADING)
                for word in held[at, index]
                if mentioned[word] > source.number
            )
            worth = (
                (recent + _ANYWAY + _NAMED * named)
                * (_NOT_NOVEL + (1 - _NOT_NOVEL) * novel[at, index])
                * source.weight
                * small
                / (max(8.0, tokens) ** 0.5 * max(30.0, source.tokens) ** 0.3)
            )
            yield Ranked(at, index, tokens, worth)
