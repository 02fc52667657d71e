"""How the estimate of a request comes about, and what its answer, or its refusal, teaches."""

from __future__ import annotations

import sys
from collections.abc import Callable, MutableMapping
from typing import Final

from msgspec.structs import replace

from mitmcontext import pipeline
from mitmcontext.known import beside_of
from mitmcontext.models.windows import SMALLEST, Window, window_of
from mitmcontext.pipeline import Assessment
from mitmcontext.proxy.job import Estimated, EstimatedAs, Grown, Ready, Result
from mitmcontext.proxy.reports import Answered, Reports, chain_of
from mitmcontext.settings import Settings
from mitmcontext.tokens.calibration import Report, Scale, Shape
from mitmcontext.values import TooLong

# A request that was refused as too long, without figures, is taken to be this much over.
_REFUSED: Final = 0.95


class Estimates:
    """What corrects estimates and windows, learned from what providers report.

    Args:
        reports: what was learned of counts.
        windows: by host, model and tenant, the windows that refusals told; outlives a reload.
    """

    def __init__(self, reports: Reports, windows: MutableMapping[str, int]) -> None:
        self._reports = reports
        self._windows = windows

    def window(self, ready: Ready) -> Window:
        """The window of a request's model: as asked for, as a refusal told, or by the table."""
        if ready.request.window is not None:
            asked = ready.request.window
            return Window(asked, None, asked, known=True, source="the request asks for it")
        named = ready.job.api.model_name(ready.job.headers, ready.request)
        window = window_of(named, ready.settings.context_windows)
        learned = self._windows.get(ready.calibrated_as)
        if learned is None or learned >= window.input:
            return window
        total = min(window.total, learned) if window.total is not None else None
        return replace(window, input=learned, total=total, known=True, source="a refusal")

    def least_room(self, model: str, settings: Settings) -> int:
        """The input tokens that fit, whatever output a request to this model asks for."""
        window = window_of(model, settings.context_windows)
        least = min(window.input, *self._windows.values()) if self._windows else window.input
        return replace(window, input=least).room(sys.maxsize)

    def estimated_as(self, ready: Ready) -> EstimatedAs:
        """What the estimate of a request is to be corrected by."""
        request = ready.request
        kinds = (
            "tools" if request.tools else "no tools",
            "schema" if request.schema else "no schema",
            "thinks" if request.thinks else "does not think",
        )
        coarse = ", ".join(kinds)
        beside = ready.laid.sent.beside or beside_of(request)
        shape = Shape(coarse, f"{coarse} {beside.hex()[:16]}")
        return self._reports.estimated_as(ready.calibrated_as, shape, ready.laid.sent.links)

    def scale(self, estimated_as: EstimatedAs, estimated: int, fixed: int) -> Scale:
        """How to turn the estimates of a request into the provider's tokens."""
        return self._reports.scale(estimated_as, estimated, fixed)

    def estimated(self, ready: Ready, assessment: Assessment) -> Estimated:
        """What is to be remembered of an assessed request, to learn from its answer."""
        by, laid, fixed = self.estimated_as(ready), ready.laid, assessment.estimate_fixed
        went, each, expected = laid.forwarded, assessment.estimates, assessment.forwarded
        if ready.observed:
            went, each, expected = laid.sent, assessment.sent_estimates, assessment.sent
        links, notes = went.links, 0
        if went is not laid.sent and laid.found is not None:
            notes = pipeline.notes_of(laid.sent, laid.found.entry.edits, each)
        grown = None
        if by.anchor is not None and by.anchor.forwarded in links:
            # What came since stands at the end, of what the client sent as of what is forwarded.
            new = len(links) - 1 - links.index(by.anchor.forwarded)
            places = ready.request.spans[len(ready.request.spans) - new :]
            grown = Grown(
                tokens=sum(each[len(each) - new :]),
                size=sum(end - start for start, end in places),
                expected=sum(assessment.sent_tokens[len(assessment.sent_tokens) - new :]),
            )
        tokens = fixed + sum(each)
        known = len(assessment.scale.ratios) // 2
        each, told = assessment.sent_estimates[known:], assessment.sent_tokens[known:]
        pairs = tuple(zip(each, told, strict=True))
        return Estimated(by, tokens, grown, pairs, notes, expected, assessment.scale)

    def learn(self, result: Result, reported: int) -> Callable[[], None] | None:
        """Correct later estimates by what the provider reported for this request.

        What is left to be done off the event loop, if anything.
        """
        answered = _answered(result, reported)
        if answered is None or result.estimated is None:
            return None
        chain = chain_of(result.ready.laid.sent.links)
        return self._reports.learn(result.estimated.by, answered, chain)

    def learn_length(self, result: Result, too_long: TooLong) -> None:
        """Learn what a refusal says of the window and of the request's size."""
        answered = _answered(result, too_long.sent or 0)
        if answered is not None and result.estimated is not None:
            # No anchor casts doubt on what the provider says when it refuses.
            chain = chain_of(result.ready.laid.sent.links)
            self._reports.learn(result.estimated.by._replace(anchor=None), answered, chain)
        window = too_long.window
        if window is None:
            # What was refused as too long does not fit, whatever the table says.
            window = int(_REFUSED * result.outcome.forwarded)
        if window >= SMALLEST:
            self._windows[result.ready.calibrated_as] = window

    def read(self, ready: Ready) -> None:
        """Take over what was learned before the last start, or by another proxy."""
        self._reports.read(ready.calibrated_as, ready.laid.sent.links)

    def clear(self) -> None:
        """Forget everything."""
        self._reports.clear()
        self._windows.clear()


def _answered(result: Result, reported: int) -> Answered | None:
    estimated, ready = result.estimated, result.ready
    if estimated is None or ready.request.hidden or reported <= 0:
        return None
    went = ready.laid.sent if ready.observed else result.forwarded
    links, grown = ready.laid.sent.links, estimated.grown
    report = Report(
        estimated=estimated.tokens,
        reported=reported,
        grown=grown.tokens if grown else None,
        grown_size=grown.size if grown else 0,
        grown_expected=grown.expected if grown else 0,
        new=estimated.new,
        notes=estimated.notes,
        forwarded=went.links[-1],
    )
    return Answered(links[-1], report, estimated.expected, estimated.scale)
