"""Old tool results while blocks of them are left out, least useful first.

A result of which something is missing is shown in one of two ways: as a stub in its own place, or
quoted in the note that its whole unit is folded into. Either says how much is missing and where,
names what was left out and stands nowhere else, and how to get it back: by the call, run again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final

from mitmcontext.condense import texts
from mitmcontext.condense.blocks import (
    Block,
    Ranked,
    Source,
    bare_lines,
    blocks_of,
    ranked,
    unnumbered,
    words,
)
from mitmcontext.condense.touched import Touch, touched
from mitmcontext.values import Kind, Message, Part, Place

# Tokens: what opens a stub, what opens a quotation in a note, what stands for a gap.
_OPENING: Final = 34.0
_QUOTED: Final = 14.0
_GAP: Final = 6.0
# Of a result without any block left: the line in a note; a stub has little more than its opening.
_LINE: Final = 20.0
# Tokens of a line's number, with the blanks before it and the mark behind it.
_NUMBER: Final = 3.0
# Characters of an index: at most, for each one that was left out, and at least.
_INDEX: Final = 300
_INDEX_SHARE: Final = 0.08
_LEAST_INDEX: Final = 30
_NEWEST_READ: Final = 1.5
_WRITE: Final = 0.3


class OldResults:
    """What is left of each of some results.

    Args:
        messages: the client's.
        tokens: of each message, but for its images and documents.
        places: the results that may be shortened, in the order of the conversation.
    """

    def __init__(
        self, messages: Sequence[Message], tokens: Sequence[float], places: Sequence[Place]
    ) -> None:
        self._messages = messages
        self.places = list(places)
        self.at = {place: index for index, place in enumerate(places)}
        self._whole = [_share(messages[at], part, tokens[at]) for at, part in places]
        self._sources = list(_sources(messages, self._whole, places))
        self._cuts = [blocks_of(source.text) for source in self._sources]
        self._tokens = [
            [(end - start) * source.tokens / max(1, len(source.text)) for start, end in cuts]
            for source, cuts in zip(self._sources, self._cuts, strict=True)
        ]
        self._left = [[True] * len(cuts) for cuts in self._cuts]
        self._mentioned: dict[str, int] = {}
        self._order = self._ranking()
        self._next = 0
        # Which words are names, and which names the conversation has already.
        self._names: dict[str, bool] = {}
        self._named: dict[str, bool] = {}
        # What stubs and quotations say; what a change makes wrong is thrown away.
        self._stubs: dict[int, str] = {}
        self._quotations: dict[int, str] = {}

    def _ranking(self) -> list[Ranked]:
        standing: set[str] = set()
        shown = 0
        for at, message in enumerate(self._messages):
            for index, part in enumerate(message.parts):
                if part.kind == Kind.RESULT:
                    shown += 1
                    if (at, index) not in self.at:
                        standing.update(bare_lines(part.text))
                    continue
                said = texts.decoded(part)
                standing.update(bare_lines(said))
                if part.kind in (Kind.CALL, Kind.PROSE, Kind.TYPED):
                    self._mentioned.update(dict.fromkeys(words(said), shown))
        return ranked(self._sources, self._cuts, standing, self._mentioned, shown)

    @property
    def tokens(self) -> float:
        """Estimated tokens of all blocks that are left."""
        return sum(
            tokens
            for left, sizes in zip(self._left, self._tokens, strict=True)
            for tokens, stays in zip(sizes, left, strict=True)
            if stays
        )

    def leave_out(self, tokens: float) -> set[int]:
        """Leave out the blocks of the least worth until about so many tokens are freed.

        Returns:
            The results, by their index in `places`, that this changed.
        """
        changed: set[int] = set()
        while tokens > 0 and self._next < len(self._order):
            one = self._order[self._next]
            self._next += 1
            tokens -= self._leave_out(one)
            changed.add(one.source)
        return changed

    def _leave_out(self, one: Ranked) -> float:
        """Leave a block out; the tokens that this frees, less what the lines about it cost."""
        left = self._left[one.source]
        costs = _OPENING if all(left) else 0.0
        before = one.block > 0 and not left[one.block - 1]
        after = one.block + 1 < len(left) and not left[one.block + 1]
        left[one.block] = False
        self._stubs.pop(one.source, None)
        self._quotations.pop(one.source, None)
        return one.tokens - costs - _GAP * (1 - before - after)

    def is_shortened(self, at: int) -> bool:
        """Whether anything of this result is left out, be it only the numbers of its lines."""
        return self._sources[at].numbers * _NUMBER > _OPENING or not all(self._left[at])

    def freed(self, at: int) -> float:
        """Estimated tokens that the stub of a result has less than the result."""
        if not self.is_shortened(at):
            return 0.0
        return self._whole[at] - self._kept(at) - _OPENING

    def quoted_tokens(self, at: int) -> float:
        """Estimated tokens of a result as a note quotes it."""
        return self._kept(at) + _QUOTED if any(self._left[at]) else _LINE

    def _kept(self, at: int) -> float:
        left = self._left[at]
        gaps = sum(not stays and (i == 0 or left[i - 1]) for i, stays in enumerate(left))
        kept = sum(tokens for tokens, stays in zip(self._tokens[at], left, strict=True) if stays)
        return kept + _GAP * gaps

    def stub(self, at: int) -> str:
        """What stands in the place of a result."""
        if at not in self._stubs:
            self._stubs[at] = self._told(at, texts.stub, texts.brief_stub)
        return self._stubs[at]

    def quoted(self, at: int) -> str:
        """What a note says of a result."""
        if at not in self._quotations:
            self._quotations[at] = self._told(at, texts.quoted, texts.quoted_briefly)
        return self._quotations[at]

    def _told(
        self,
        at: int,
        tell: Callable[[Part, texts.Excerpt, str], str],
        tell_briefly: Callable[[Part, str], str],
    ) -> str:
        message, part = self.places[at]
        whole = self._messages[message].parts[part]
        if not any(self._left[at]):
            return tell_briefly(whole, self._index(at))
        return tell(whole, self._excerpt(at), self._index(at))

    def _excerpt(self, at: int) -> texts.Excerpt:
        source = self._sources[at]
        kept: list[Block] = []
        for (start, end), stays in zip(self._cuts[at], self._left[at], strict=True):
            if stays and kept and kept[-1].end == start:
                kept[-1] = Block(kept[-1].start, end)
            elif stays:
                kept.append(Block(start, end))
        return texts.Excerpt(source.text, kept, source.numbers)

    def _index(self, at: int) -> str:
        """Names in what is missing of a result that stand neither in the rest nor elsewhere."""
        text = self._sources[at].text
        pieces: tuple[list[str], list[str]] = [], []
        for (start, end), stays in zip(self._cuts[at], self._left[at], strict=True):
            pieces[stays].append(text[start:end])
        gone = "".join(pieces[0])
        size = min(_INDEX, int(len(gone) * _INDEX_SHARE))
        if size < _LEAST_INDEX:
            return ""
        here = texts.words_in("".join(pieces[1]))
        found = texts.names_in(gone, self._names)
        names = (n for n in found if n not in here and not self._is_named(n))
        return texts.index(names, size)

    def _is_named(self, name: str) -> bool:
        """Whether the conversation has all the words of a name already."""
        if name not in self._named:
            held = words(name)
            self._named[name] = bool(held) and held <= self._mentioned.keys()
        return self._named[name]


def _share(message: Message, part: int, tokens: float) -> float:
    """The tokens of a part: its share of the message's, by characters."""
    size = sum(len(one.text) for one in message.parts) or 1
    return tokens * len(message.parts[part].text) / size


def _sources(
    messages: Sequence[Message], tokens: Sequence[float], places: Sequence[Place]
) -> Iterator[Source]:
    """The old results, with what is known of them from their calls."""
    about = _touches(messages)
    newest: dict[str, Place] = {}
    for place, touches in about.items():
        newest |= {touch.path: place for touch in touches if not touch.write}
    numbers: dict[Place, int] = {}
    for at, message in enumerate(messages):
        for index, part in enumerate(message.parts):
            if part.kind == Kind.RESULT:
                numbers[at, index] = len(numbers)
    for place, whole in zip(places, tokens, strict=True):
        touches = about.get(place, ())
        weight = 1.0
        if any(touch.write for touch in touches):
            weight = _WRITE
        elif any(newest[touch.path] == place for touch in touches):
            weight = _NEWEST_READ
        text, count = unnumbered(messages[place[0]].parts[place[1]].text)
        yield Source(
            *place,
            text=text,
            tokens=max(1.0, whole - _NUMBER * count),
            number=numbers[place],
            weight=weight,
            numbers=count,
        )


def _touches(messages: Sequence[Message]) -> dict[Place, tuple[Touch, ...]]:
    """The files that each result is about, by the call that it answers."""
    calls: dict[str, Part] = {}
    prose: Part | None = None
    found: dict[Place, tuple[Touch, ...]] = {}
    for at, message in enumerate(messages):
        for index, part in enumerate(message.parts):
            ticket = part.call_id or part.name
            if part.kind == Kind.CALL:
                calls[ticket] = part
            elif part.kind == Kind.PROSE:
                prose = part
            elif part.kind == Kind.RESULT:
                asked = calls.get(ticket) if ticket else prose
                if asked is not None:
                    name = asked.name if asked.kind == Kind.CALL else ""
                    found[at, index] = touched(name, asked.text)
    return found
