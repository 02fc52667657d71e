"""How full the window is: counted, with everything that was counted or assessed before."""

from __future__ import annotations

from functools import partial
from typing import Final

import msgspec

from mitmcontext import pipeline
from mitmcontext.known import Known
from mitmcontext.pipeline import Assessment, Reading
from mitmcontext.proxy.counts import KeptCounts, uncounted
from mitmcontext.proxy.encoders import Encoders
from mitmcontext.proxy.estimates import Estimates
from mitmcontext.proxy.job import EstimatedAs, Ready
from mitmcontext.settings import Settings
from mitmcontext.stores.base import Figures
from mitmcontext.stores.memory_store import Memory, cells
from mitmcontext.wire.digests import digest

# Counting this much takes a millisecond or two.
_COUNT_INLINE: Final = 4 << 10
# So does adding up so many messages.
_MESSAGES_INLINE: Final = 3_000
# An assessment of two thousand messages.
_ANALYSIS: Final = 16 << 10
# Two states of the calibration that correct these estimates alike are alike.
_PROBES: Final = (2_000, 200_000)
_ASSESSMENT: Final = msgspec.msgpack.Decoder(Assessment)


class Assessor:
    """Counts and assesses; what took long is remembered.

    Args:
        known: what is known of messages.
        encoders: the vocabularies that are loaded.
        estimates: what corrects estimates.
        kept: counts that outlive the process, or None.
        settings: how many assessments to hold, and for how long.
    """

    def __init__(
        self,
        known: Known,
        encoders: Encoders,
        estimates: Estimates,
        kept: KeptCounts | None,
        settings: Settings,
    ) -> None:
        self._known = known
        self._encoders = encoders
        self._estimates = estimates
        self._kept = kept
        self._analyses = Memory(cells(settings.context_cache_size * _ANALYSIS))
        self._ttl = settings.context_analysis_cache_ttl

    def is_cheap(self, ready: Ready) -> bool:
        """Whether what was never counted is so little that a hop to a thread would cost more."""
        sent, forwarded = ready.laid.sent, ready.laid.forwarded
        if "content-encoding" in ready.job.headers or sent.family.encoding not in self._encoders:
            return False
        if len(sent.facts) > _MESSAGES_INLINE:
            return False
        readings = (sent,) if forwarded is sent else (sent, forwarded)
        return sum(self._lacks(one) for one in readings) <= _COUNT_INLINE

    def is_surely_safe(self, ready: Ready) -> bool:
        """Whether size alone proves that nothing needs to be done."""
        window, settings = self._estimates.window(ready), ready.settings
        thresholds, budget = settings.thresholds, settings.context_budget
        return pipeline.is_surely_safe(ready.laid, window, thresholds, budget)

    def assess_far(self, ready: Ready) -> Assessment:
        """As `assess` where much may have to be counted: with what was counted before a restart."""
        kept, sent = self._kept, ready.laid.sent
        if kept is None:
            return self._remembered(ready)
        kept.take_over(sent, self._known)
        new = uncounted(sent)
        assessment = self._remembered(ready)
        if new:
            kept.keep(sent, assessment.sent_estimates, new)
        return assessment

    def assess(self, ready: Ready) -> Assessment:
        """How full the window is. Where all is counted this is quicker than to look it up.

        Raises:
            Unreadable: system prompt or tools are not what they must be.
        """
        return self._assessed(ready, self._estimates.estimated_as(ready))

    def _remembered(self, ready: Ready) -> Assessment:
        """How full the window is, as it was found before or anew."""
        estimates, settings = self._estimates, ready.settings
        estimated_as = estimates.estimated_as(ready)
        # An anchor says the same whatever the estimates are.
        probes = [
            estimates.scale(estimated_as, probe, 0)
            for probe in _PROBES[: 2 if estimated_as.anchor is None else 1]
        ]
        asked = (settings.context_budget, settings.thresholds, estimated_as, probes)
        name = _named(ready, (estimates.window(ready), *asked))
        kept = self._analyses.get_many([name]).get(name)
        if kept is not None:
            self._known.spare(len(ready.laid.sent.facts))
            return _ASSESSMENT.decode(kept)
        assessment = self._assessed(ready, estimated_as)
        self._analyses.set(name, msgspec.msgpack.encode(assessment), self._ttl)
        return assessment

    def _assessed(self, ready: Ready, estimated_as: EstimatedAs) -> Assessment:
        window, settings = self._estimates.window(ready), ready.settings
        scale_of = partial(self._estimates.scale, estimated_as)
        budget = settings.context_budget
        return pipeline.assess(
            ready.laid, window, settings.thresholds, self._known, scale_of, budget
        )

    def _lacks(self, reading: Reading) -> int:
        """How many bytes were never counted."""
        first = len(reading.counted)
        request, beside = reading.request, reading.beside
        return self._known.lacks(reading.family, request, reading.facts, first, beside)

    def figures(self) -> Figures:
        """How the kept assessments fare."""
        return self._analyses.figures()

    def clear(self) -> None:
        """Forget every assessment and every count."""
        self._known.clear()
        self._analyses.clear()


def _named(ready: Ready, asked: object) -> bytes:
    """Everything that an assessment depends on, as one digest."""
    request, laid = ready.request, ready.laid
    places = (request.system, request.tools, request.choice, request.schema)
    beside = [request.body[slice(*place)] if place else b"" for place in places]
    links = (laid.sent.links[-1], laid.forwarded.links[-1])
    family = f"{laid.sent.family.name}/{laid.sent.family.mark}".encode()
    return digest([*links, *beside, family, msgspec.msgpack.encode((asked, request.max_output))])
