"""Old tool results keep their telling blocks: which go is decided block by block, over all of them.

A result of which blocks go becomes a stub: what is left of it, where something is missing, names of
what is missing that stand nowhere else, its size and digest, and that the call can be run again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from mitmcontext.condense import texts
from mitmcontext.condense.blocks import Ranked, Source, bare_lines, blocks_of, ranked, words
from mitmcontext.condense.touched import Touch, touched
from mitmcontext.values import Kind, Message, Part

Place = tuple[int, int]
"""Message and part."""

# Tokens: the line that opens a stub, and the one that stands for a gap.
_OPENING_COSTS: Final = 36.0
_GAP_COSTS: Final = 6.0
_LEAST_GAIN: Final = 30.0
# Characters of an index: at most, and for each one that was left out.
_INDEX: Final = 300
_INDEX_SHARE: Final = 0.2
_LEAST_INDEX: Final = 30
_NEWEST_READ: Final = 1.5
_STALE_READ: Final = 0.4


class Telling:
    """What is left of each old result while blocks are left out.

    Args:
        messages: the client's.
        tokens: of each.
        places: the results that may be shortened.
        stubs: what stands for some of them already; what is missing there stays so.
    """

    def __init__(
        self,
        messages: Sequence[Message],
        tokens: Sequence[int],
        places: Sequence[Place],
        stubs: Mapping[Place, str],
    ) -> None:
        self._messages = messages
        self.places = list(places)
        self._sources = list(_sources(messages, tokens, places))
        self._cuts = [blocks_of(source.text) for source in self._sources]
        self._left: list[list[bool]] = []
        for place, source, cuts in zip(places, self._sources, self._cuts, strict=True):
            stub = stubs.get(place)
            self._left.append(
                [stub is None or source.text[a:b].removesuffix("\n") in stub for a, b in cuts]
            )
        self._order = self._ranking()
        self._next = 0
        self._used: set[str] | None = None

    def _ranking(self) -> list[Ranked]:
        own = set(self.places)
        standing: set[str] = set()
        mentioned: dict[str, int] = {}
        shown = 0
        for at, message in enumerate(self._messages):
            for index, part in enumerate(message.parts):
                if part.kind is Kind.RESULT:
                    shown += 1
                    if (at, index) not in own:
                        standing.update(bare_lines(part.text))
                else:
                    said = decoded(part)
                    standing.update(bare_lines(said))
                    if part.kind in (Kind.CALL, Kind.PROSE, Kind.TYPED):
                        mentioned.update(dict.fromkeys(words(said), shown))
        return ranked(self._sources, self._cuts, standing, mentioned, shown)

    def leave_out(self, tokens: float) -> set[int]:
        """Leave out the blocks of the least worth until about so many tokens are freed.

        Returns:
            The results, by their index in `places`, that this changed.
        """
        changed: set[int] = set()
        while tokens > 0 and self._next < len(self._order):
            one = self._order[self._next]
            self._next += 1
            left = self._left[one.source]
            if not left[one.index]:
                continue
            tokens -= one.tokens - self._costs(left, one.index)
            left[one.index] = False
            changed.add(one.source)
        return changed

    def _costs(self, left: Sequence[bool], index: int) -> float:
        """What the lines cost that say that a block is missing."""
        costs = _OPENING_COSTS if all(left) else 0.0
        before = index > 0 and not left[index - 1]
        after = index + 1 < len(left) and not left[index + 1]
        return costs + _GAP_COSTS * (1 - before - after)

    def text(self, at: int) -> str:
        """The stub of one of `places`."""
        source, left = self._sources[at], self._left[at]
        kept: list[tuple[int, int]] = []
        gone: list[str] = []
        for (start, end), stays in zip(self._cuts[at], left, strict=True):
            if not stays:
                gone.append(source.text[start:end])
            elif kept and kept[-1][1] == start:
                kept[-1] = kept[-1][0], end
            else:
                kept.append((start, end))
        missing = "".join(gone)
        size = min(_INDEX, int(len(missing) * _INDEX_SHARE))
        names = ""
        if size >= _LEAST_INDEX:
            used = self._named()
            here = texts.words_in("\n".join(source.text[a:b] for a, b in kept))
            listed = (n for n in texts.names_in(missing) if n not in used and n not in here)
            names = texts.index(listed, size)
        return texts.shortened(source.text, kept, names)

    def _named(self) -> set[str]:
        """What stands in everything but the old results."""
        if self._used is None:
            own = set(self.places)
            self._used = set()
            for at, message in enumerate(self._messages):
                for index, part in enumerate(message.parts):
                    if (at, index) not in own:
                        self._used |= texts.words_in(decoded(part))
        return self._used


def decoded(part: Part) -> str:
    """The text of a part; of a call's arguments, near enough what they are without escapes."""
    if part.kind is not Kind.CALL:
        return part.text
    return part.text.replace("\\n", "\n").replace('\\"', '"').replace("\\t", "\t")


def _sources(
    messages: Sequence[Message], tokens: Sequence[int], places: Sequence[Place]
) -> Iterator[Source]:
    """The old results, with what is known of them from their calls."""
    wanted = set(places)
    reads = _reads(messages)
    newest: dict[str, int] = {}
    for place, touches in reads.items():
        newest |= {touch.path: place[0] for touch in touches if not touch.write}
    whole: dict[str, int] = {}
    for place, touches in reads.items():
        whole |= {touch.path: place[0] for touch in touches if touch.whole and not touch.write}
    number = 0
    for at, message in enumerate(messages):
        size = sum(len(part.text) for part in message.parts) or 1
        for index, part in enumerate(message.parts):
            if part.kind is not Kind.RESULT:
                continue
            number += 1
            if (at, index) in wanted:
                paths = [t.path for t in reads.get((at, index), ()) if not t.write]
                weight = 1.0
                if any(newest[path] == at for path in paths):
                    weight = _NEWEST_READ
                elif paths and all(whole.get(path, -1) > at for path in paths):
                    weight = _STALE_READ
                share = tokens[at] * len(part.text) / size
                yield Source(at, index, part.text, share, number, weight)


def _reads(messages: Sequence[Message]) -> dict[Place, tuple[Touch, ...]]:
    """The files that each result is about, by the call that it answers."""
    calls: dict[str, Part] = {}
    prose: Part | None = None
    found: dict[Place, tuple[Touch, ...]] = {}
    for at, message in enumerate(messages):
        for index, part in enumerate(message.parts):
            if part.kind is Kind.CALL:
                calls[part.call_id or part.name] = part
            elif part.kind is Kind.PROSE:
                prose = part
            elif part.kind is Kind.RESULT:
                asked = calls.get(part.call_id or part.name) if part.call_id or part.name else prose
                if asked is not None:
                    name = asked.name if asked.kind is Kind.CALL else ""
                    found[at, index] = touched(name, asked.text)
    return found
