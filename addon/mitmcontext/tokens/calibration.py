"""Estimates corrected by what the provider reported for earlier requests.

Within a conversation the last reported size is the anchor: what came since is estimated and added,
so that the error is that of the newest messages alone. For a new conversation the correction is
what requests of the same shape (tools, schema) showed at the same host and model, else what other
requests showed there.

Everything is robust: medians of the last few reports, an anchor that contradicts the one before it
is believed when the next report agrees, and no correction goes beyond its bounds.
"""

from __future__ import annotations

import struct
import threading
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Final, NamedTuple

from cachetools import LRUCache

REPORTS_KEPT: Final = 5
GROWTHS_KEPT: Final = 40
LOWEST, HIGHEST = 0.5, 3.0
"""Bounds of the provider's tokens per estimated token."""
MOST_HIDDEN: Final = 20_000
"""So many tokens may a provider add that no estimate sees: prompts of its own, tools' wrapping."""
SMALLEST_ESTIMATE: Final = 1_000  # below, constants weigh more than text: it says nothing of ratios
_SMALLEST_GROWTH: Final = 100
# Less than this share of an estimate is no count of the whole: the rest was in a cache.
_LOWEST_REPORT: Final = 0.4
# Bytes per token of usual text as JSON has it, and of the most regular.
_USUAL_BYTES: Final = 3.6
_MOST_BYTES: Final = 8.0
# In tokens: how much the prior weighs against what was seen, and one turn at most.
_PRIOR: Final = 1_000.0
_PRIOR_TILT: Final = 2_000.0
_MOST_WEIGHT: Final = 4_000
_MOST_TILT: Final = 0.4
_ENOUGH: Final = 6
# Of so few new tokens rounding says more than the text.
_SMALLEST_RATIO: Final = 50
# A report that is this far from what the one before it lets expect is doubted once.
_ODD: Final = 0.25
_ODD_TOKENS: Final = 1_000
_SHAPES: Final = 50


class Report(NamedTuple):
    """One answer: the uncorrected estimate of a body, and its size as the provider counted it.

    Attributes:
        estimated: of the whole body.
        reported: by the provider.
        grown: the part of the estimate that came since the conversation's last report, where
            nothing else changed; None where that cannot be said.
        grown_size: its bytes.
        grown_expected: what was expected of it, in the provider's tokens.
        new: estimate and expected tokens of each of the client's messages that the anchor before
            knew no ratio of.
        notes: the part of the estimate that takes the place of several messages.
        forwarded: the last link of the history as it was forwarded.
    """

    estimated: int
    reported: int
    grown: int | None = None
    grown_size: int = 0
    grown_expected: int = 0
    new: tuple[tuple[int, int], ...] = ()
    notes: int = 0
    forwarded: bytes = b""


class Anchor(NamedTuple):
    """What the next request of a conversation is estimated from.

    Attributes:
        reported: the provider's tokens of the body that was forwarded.
        offset: what of them no message explains: what the provider adds of its own.
        ratios: for each of the client's messages so far the provider's tokens per estimated one,
            in thousandths, two bytes each.
        forwarded: the last link of the history as it was forwarded.
        slope: what notes in the place of several messages were taken to have per estimated token.
        notes: the uncorrected estimate of those.
        doubted: whether the provider's figure was odd, so that what was expected stands here.
    """

    reported: int
    offset: float
    ratios: bytes
    forwarded: bytes
    slope: float
    notes: int
    doubted: bool = False


class Scale(NamedTuple):
    """From estimates to the provider's tokens: each message by its ratio, and an offset for all.

    `ratios` are those of an anchor, for the client's first messages; all else goes by `slope`,
    and by `tilt` for each byte per token more than usual: tokenizers differ most where text has
    few bytes per token (numbers, listings, other scripts).
    """

    slope: float = 1.0
    offset: float = 0.0
    ratios: bytes = b""
    tilt: float = 0.0

    def each(self, tokens: Sequence[int], places: Sequence[tuple[int, int]]) -> tuple[int, ...]:
        """The provider's tokens of the client's messages, by their estimates and their spans."""
        known = struct.unpack(f"<{len(self.ratios) // 2}H", self.ratios)
        found = [round(own * ratio / 1_000) for own, ratio in zip(tokens, known, strict=False)]
        new = zip(tokens[len(known) :], places[len(known) :], strict=True)
        found += [round(own * self.ratio(own, end - start)) for own, (start, end) in new]
        return tuple(found)

    def ratio(self, tokens: int, size: int) -> float:
        """The provider's tokens per estimated one of a text of so many estimated ones and bytes."""
        if not self.tilt or tokens <= 0:
            return self.slope
        return _bounded(self.slope + self.tilt * (min(size / tokens, _MOST_BYTES) - _USUAL_BYTES))

    def of(self, tokens: int, at: int | None) -> int:
        """The provider's tokens of what is left of the client's message `at`, or of a note."""
        if at is None or 2 * at >= len(self.ratios):
            return round(tokens * self.slope)
        return round(tokens * int.from_bytes(self.ratios[2 * at : 2 * at + 2], "little") / 1_000)


class Shape(NamedTuple):
    """What decides about the constants around the text: roughly, and to the byte."""

    coarse: str
    fine: str


Pair = tuple[int, int]
"""Uncorrected estimate and reported size."""

Growth = tuple[int, int, int]
"""Of what came in one turn: uncorrected estimate, bytes, the provider's tokens."""


@dataclass(slots=True)
class _Learned:
    """What is known of one host, model and tenant; the newest last."""

    ratios: deque[float] = field(default_factory=lambda: deque(maxlen=REPORTS_KEPT))
    growths: deque[Growth] = field(default_factory=lambda: deque(maxlen=GROWTHS_KEPT))
    shapes: LRUCache[str, deque[Pair]] = field(default_factory=lambda: LRUCache(_SHAPES))


Kept = tuple[list[float], list[Growth], dict[str, list[Pair]]]
"""Ratios, growths, and reports by shape: what outlives the process."""


class Calibration:
    """What was learned, for at most `keys` keys (a host, a model and a tenant each)."""

    def __init__(self, keys: int = 1_000) -> None:
        self._lock = threading.Lock()
        self._learned: LRUCache[str, _Learned] = LRUCache(keys)

    def learn(
        self,
        key: str,
        shape: Shape,
        report: Report,
        scale: Scale,
        expected: int,
        before: Anchor | None = None,
    ) -> Anchor:
        """Take note of one answer; what the conversation's next request is to be estimated from.

        Args:
            key: host, model and tenant.
            shape: of the request.
            report: the answer's figures and the estimate.
            scale: what the request was estimated with.
            expected: the estimate in the provider's tokens.
            before: the anchor that it was estimated from, in the same conversation.
        """
        if _is_odd(report, expected, before) and self._is_new_truth(key, shape, report):
            # It contradicts the report before, but not what is known beside it: that one was odd.
            before = None
        odd = not _is_sane(report) or _is_odd(report, expected, before)
        if not odd:
            self._learn(key, shape, report, before)
        reported = expected if odd else report.reported
        off, factor = float(reported - expected), 1.0
        if before is not None and not odd and _explains(report):
            # What came since explains the whole difference to the report before.
            factor = (reported - before.reported) / report.grown_expected
        ratios = [_thousandths(told * factor / own) if own else 1_000 for own, told in report.new]
        made = sum(
            round(own * ratio / 1_000) - told
            for ratio, (own, told) in zip(ratios, report.new, strict=True)
        )
        kept = scale.ratios + struct.pack(f"<{len(ratios)}H", *ratios)
        return Anchor(
            reported,
            scale.offset + off - made,
            kept,
            report.forwarded,
            scale.slope,
            report.notes,
            odd,
        )

    def _is_new_truth(self, key: str, shape: Shape, report: Report) -> bool:
        """Whether a report is what a new conversation of this size would be expected to have."""
        alone = self.scale(key, shape, None, report.estimated, 0)
        whole = alone.offset + alone.slope * report.estimated
        return abs(report.reported - whole) <= _ODD * whole

    def _learn(self, key: str, shape: Shape, report: Report, before: Anchor | None) -> None:
        with self._lock:
            learned = self._learned.get(key) or _Learned()
            self._learned[key] = learned
            if report.estimated >= SMALLEST_ESTIMATE:
                learned.ratios.append(_bounded(report.reported / report.estimated))
            if before is None or before.doubted:
                # Only where a conversation begins: later requests have anchors, and are many.
                for name in shape:
                    reports = learned.shapes.get(name) or deque(maxlen=REPORTS_KEPT)
                    reports.append((report.estimated, report.reported))
                    learned.shapes[name] = reports
            elif report.grown is not None and report.grown >= _SMALLEST_GROWTH:
                grown = report.reported - before.reported
                learned.growths.append((report.grown, report.grown_size, max(0, grown)))

    def scale(
        self, key: str, shape: Shape, anchor: Anchor | None, estimated: int, fixed: int
    ) -> Scale:
        """How to turn the estimates of a request into the provider's tokens.

        Args:
            key: host, model and tenant.
            shape: of the request.
            anchor: what the conversation's last report left, if there is one.
            estimated: the uncorrected estimate of the whole request.
            fixed: the part of it that is no message.
        """
        with self._lock:
            learned = self._learned.get(key)
            growths = list(learned.growths) if learned else []
            ratios = list(learned.ratios) if learned else []
            names = [name for name in shape if learned and name in learned.shapes]
            reports = list(learned.shapes[names[-1]]) if learned and names else []
        if anchor is not None:
            # What one report was off by may be a constant as well as a share: half of it, then.
            guess = 1.0 + (median(ratios) - 1.0) / 2 if ratios else 1.0
            slope, tilt = _fitted(growths, guess)
            # What notes had by the slope of that time they have by today's.
            moved = (anchor.slope - slope) * anchor.notes
            return Scale(slope, anchor.offset + moved, anchor.ratios, tilt)
        slope = _fitted(growths, 1.0)[0] if growths else 1.0
        if reports:
            whole = estimated + _middle([_off_by(one, estimated, slope) for one in reports])
        else:
            whole = estimated * (median(ratios) if ratios else 1.0)
        whole = min(max(whole, LOWEST * estimated), HIGHEST * estimated + MOST_HIDDEN)
        if not growths and estimated > 0:
            slope = _bounded(whole / estimated)
        return Scale(slope, whole - fixed - slope * (estimated - fixed))

    def kept(self, key: str) -> Kept:
        """What was learned, to be kept and given to `restore`."""
        with self._lock:
            learned = self._learned.get(key) or _Learned()
            shapes = {name: list(reports) for name, reports in learned.shapes.items()}
            return list(learned.ratios), list(learned.growths), shapes

    def restore(self, key: str, kept: Kept) -> None:
        """Take over what was learned elsewhere, in place of what was known here."""
        ratios, growths, shapes = kept
        learned = _Learned()
        learned.ratios.extend(_sound(ratios))
        learned.growths.extend(one for one in growths if min(one) >= 0 < one[0])
        for name, pairs in shapes.items():
            sane = [(one, other) for one, other in pairs if _is_sane(Report(one, other))]
            if sane:
                learned.shapes[name] = deque(sane, maxlen=REPORTS_KEPT)
        with self._lock:
            self._learned[key] = learned

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._learned.clear()

    def __len__(self) -> int:
        """The number of keys known."""
        return len(self._learned)


def _off_by(earlier: Pair, estimated: int, slope: float) -> float:
    """What one earlier request of this shape says must be added to an estimate.

    What it was off by is partly a constant and partly grows with the text. For a larger request
    it is taken for a constant, for a smaller one for a share: either way the smaller correction.
    """
    before, reported = earlier
    off = reported - before
    if estimated < before and slope == 1.0:
        return off * estimated / before
    return off + (slope - 1.0) * (estimated - before)


def _middle(found: list[float]) -> float:
    """The median; of two the one nearer to nothing, so that one odd report does not decide."""
    return min(found, key=abs) if len(found) == 2 else median(found)


def _fitted(growths: Sequence[Growth], guess: float) -> tuple[float, float]:
    """The provider's tokens per estimated one, and how that moves with the bytes per token.

    A line through what each turn added, weighted by its tokens, towards `guess` and no tilt by a
    prior that a few thousand tokens outweigh. What lies far off is left out of a second fit.
    """
    points = [
        (min(size / tokens, _MOST_BYTES) - _USUAL_BYTES, _bounded(told / tokens), tokens)
        for tokens, size, told in growths
    ]
    slope, tilt = _line(points, guess)
    if len(points) >= _ENOUGH:
        off = [abs(ratio - slope - tilt * x) for x, ratio, _ in points]
        most = max(3 * median(off), 0.02)
        near = [point for point, far in zip(points, off, strict=True) if far <= most]
        slope, tilt = _line(near, guess)
    return slope, tilt


def _line(points: Sequence[tuple[float, float, int]], guess: float) -> tuple[float, float]:
    """The weighted least squares with a prior: ratio = slope + tilt * x."""
    weights = [min(tokens, _MOST_WEIGHT) for _, _, tokens in points]
    whole = _PRIOR + sum(weights)
    first = sum(w * x for w, (x, _, _) in zip(weights, points, strict=True))
    second = _PRIOR_TILT + sum(w * x * x for w, (x, _, _) in zip(weights, points, strict=True))
    told = _PRIOR * guess + sum(w * y for w, (_, y, _) in zip(weights, points, strict=True))
    tilted = sum(w * x * y for w, (x, y, _) in zip(weights, points, strict=True))
    scale = whole * second - first * first
    slope = (told * second - tilted * first) / scale
    tilt = (tilted * whole - told * first) / scale
    return _bounded(slope), min(max(tilt, -_MOST_TILT), _MOST_TILT)


def _is_sane(report: Report) -> bool:
    """Whether a provider may have counted so much, or so little, for what was sent."""
    estimated, reported = report.estimated, report.reported
    low = _LOWEST_REPORT * estimated
    return estimated > 0 < reported and low <= reported <= 5 * estimated + MOST_HIDDEN


def _is_odd(report: Report, expected: int, before: Anchor | None) -> bool:
    """Whether a report contradicts the one before it, beyond what new text may explain."""
    if before is None or before.doubted:
        return False
    off = abs(report.reported - expected)
    if off <= _ODD_TOKENS or off <= _ODD * expected:
        return False
    if report.grown is None:
        return True
    grown = report.reported - before.reported
    return not LOWEST * report.grown <= grown <= HIGHEST * report.grown


def _explains(report: Report) -> bool:
    """Whether what came since is all that is new, and enough for a ratio."""
    return report.grown is not None and min(report.grown, report.grown_expected) >= _SMALLEST_RATIO


def _thousandths(ratio: float) -> int:
    return round(1_000 * _bounded(ratio))


def _bounded(ratio: float) -> float:
    return min(max(ratio, LOWEST), HIGHEST)


def _sound(ratios: Iterable[float]) -> list[float]:
    return [ratio for ratio in ratios if LOWEST <= ratio <= HIGHEST]
