"""What a step costs and saves, and what a request has cost, with the provider's cache in mind.

Providers bill what they read from their prompt cache at a tenth of the plain price and less. So
fewer tokens alone say nothing: clearing old results on each turn forwarded 57 % fewer tokens of
recorded conversations and cost 16 % more (by simulation; reading 0.1, writing 1.25 of the plain
price). A step saves the freed tokens on each turn that follows, and costs once that what it leaves
behind its first change is written anew instead of read.

All sizes are in the provider's tokens, all money is in US dollars.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, NamedTuple, Protocol

_MILLION: Final = 1_000_000
# However long a conversation was, nobody knows that it goes on for longer than this.
_MOST_TURNS: Final = 100


class Rates(Protocol):
    """Dollars per million tokens; `at` are those of a request with so many input tokens."""

    @property
    def input(self) -> float: ...
    @property
    def cache_read(self) -> float: ...
    @property
    def cache_write(self) -> float: ...
    @property
    def output(self) -> float: ...
    def at(self, tokens: int) -> Rates: ...


class Cache(StrEnum):
    """What the provider's cache has of what was forwarded before."""

    WARM = "warm"
    COLD = "cold"  # it is written again on this turn, whatever we do
    NONE = "none"  # it keeps nothing of this conversation


class Course(NamedTuple):
    """How a conversation is likely to go on: turns, this one among them, and tokens on each."""

    turns: int
    growth: int


class Cut(NamedTuple):
    """What a step does to a request, in tokens of the whole.

    `before` and `after` are without it and with it; `shared` stands before its first change and
    so stays in the cache; `new` came since the last turn and was never in the cache.
    """

    before: int
    after: int
    shared: int
    new: int


@dataclass(frozen=True, slots=True)
class Forecast:
    """What a step is likely to bring, in dollars: `saving` over all turns, `price` paid once."""

    saving: float
    price: float
    turns: int

    @property
    def net(self) -> float:
        """What is left of the saving; negative where the step costs more than it brings."""
        return self.saving - self.price

    @property
    def pays(self) -> bool:
        """Whether the step pays for itself."""
        return self.saving > self.price


def course_of(each: Sequence[int], own: Sequence[bool]) -> Course:
    """How a conversation is likely to go on, from how it went so far.

    Of whatever may end at any time, two in three go on for half as long again as they were (Gott
    1993, "Implications of the Copernican principle for our future prospects": the share that lasts
    x times as long again is 1 / (1 + x)), and a step should pay for itself in most cases. On
    recorded conversations steps taken so cost less than with as many turns as there were, which is
    the median.

    Args:
        each: the tokens of each message as the client sent it.
        own: for each of them, whether the model wrote it.
    """
    starts = [at for at, is_own in enumerate(own) if is_own and (at == 0 or not own[at - 1])]
    had = len(starts) + 1
    grown = sum(each[starts[0] :]) if starts else 0
    growth = grown // len(starts) if starts else 0
    return Course(min((had + 1) // 2, _MOST_TURNS), growth)


def until_full(course: Course, room: int, used: int) -> Course:
    """The same, but no further than where `room` is full, from a request of `used` tokens on.

    There a step is forced, and the history is short whether one was taken before or not: what
    waiting would cost ends there.
    """
    if course.growth <= 0:
        return course
    left = max(0, room - used) // course.growth + 1
    return course._replace(turns=min(course.turns, left))


def newest_of(each: Sequence[int], own: Sequence[bool]) -> int:
    """The tokens since the last turn: the model's last answer, and all that follows it."""
    last = next((at for at in range(len(own) - 1, -1, -1) if own[at]), -1)
    while last > 0 and own[last - 1]:
        last -= 1
    return sum(each[max(0, last) :])


def forecast(cut: Cut, course: Course, cache: Cache, rates: Rates) -> Forecast:
    """What a step saves over the conversation's likely rest, and the price of breaking the cache.

    With B and A tokens before and after, P shared, d new, g on each turn, n turns, and the prices
    r of reading and w of writing, a warm cache bills

    - without the step, at first r(B - d) + w d, on turn k r(B + (k-1) g) + w g;
    - with it, at first r P + w (A - P), on turn k r(A + (k-1) g) + w g.

    The difference over n turns is n r (B - A), the saving, less (w - r)(A - P - d), the price: what
    stays behind the first change and had been in the cache is written instead of read. With a cold
    cache the first turn writes everything anyway, so that nothing is broken and the first saving is
    w (B - A); without a cache each turn saves the plain price of what was freed. Where a long
    prompt costs more per token, each side pays the prices of its own size.
    """
    price = 0.0
    if cache == Cache.WARM:
        at = rates.at(cut.after)
        rewritten = max(0, cut.after - cut.shared - cut.new)
        price = rewritten * (at.cache_write - at.cache_read) / _MILLION
    saving = 0.0
    for turn in range(course.turns):
        more = turn * course.growth
        first = turn == 0
        without = _turn(cut.before + more, _fresh(cut, course, first), cache, first, rates)
        with_it = _turn(cut.after + more, _fresh(cut, course, first), cache, first, rates)
        saving += without - with_it
    return Forecast(saving, price, course.turns)


def _fresh(cut: Cut, course: Course, first: bool) -> int:
    return min(cut.new if first else course.growth, cut.after)


def _turn(size: int, fresh: int, cache: Cache, first: bool, rates: Rates) -> float:
    """The price of one turn's input, with all but `fresh` of it in the cache where there is one."""
    at = rates.at(size)
    if cache == Cache.NONE:
        return size * at.input / _MILLION
    if cache == Cache.COLD and first:
        return size * at.cache_write / _MILLION
    return ((size - fresh) * at.cache_read + fresh * at.cache_write) / _MILLION


# What requests have cost.


class Billed(NamedTuple):
    """A request's tokens as the provider bills them; its input is the first three together."""

    fresh: int
    read: int
    written: int
    output: int

    @property
    def input(self) -> int:
        """Everything that fills the window."""
        return self.fresh + self.read + self.written


def billed_of(whole: int, output: int | None, read: int | None, written: int | None) -> Billed:
    """A request's tokens from what the provider reported, which may contradict itself."""
    from_cache = min(max(0, read or 0), max(0, whole))
    to_cache = min(max(0, written or 0), max(0, whole - from_cache))
    return Billed(max(0, whole) - from_cache - to_cache, from_cache, to_cache, output or 0)


def cost_of(billed: Billed, rates: Rates) -> float:
    """What a request has cost."""
    at = rates.at(billed.input)
    return (
        billed.fresh * at.input
        + billed.read * at.cache_read
        + billed.written * at.cache_write
        + billed.output * at.output
    ) / _MILLION


def imagined(
    billed: Billed, difference: int, reusable: float | None, *, cached: bool, writes: bool
) -> Billed:
    """The bill of the same request had it gone out with other content: an estimate.

    The tail behind the last cache marker (what was neither read nor written) stays what it is; of
    what lies before it as much is read as the cache would have had, and the rest is written, where
    the provider bills that at all.

    Args:
        billed: as it went out.
        difference: how many tokens more the other content has; may be negative.
        reusable: what of the other content the cache would have had, in tokens. None: nobody
            knows, so that it fares as what went out did.
        cached: whether the provider's cache has anything of this conversation, ever.
        writes: whether the provider bills what it writes to its cache apart.
    """
    if difference == 0 and reusable is None:
        return billed
    whole = max(0, billed.input + difference)
    if not cached:
        return Billed(whole, 0, 0, billed.output)
    tail = min(billed.fresh, whole) if writes else 0
    if reusable is None:
        reusable = whole * billed.read / max(1, billed.input)
    read = round(min(max(0.0, reusable), whole - tail))
    rest = whole - tail - read
    written = rest if writes else 0
    return Billed(whole - read - written, read, written, billed.output)
