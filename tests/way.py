"""The way of a request through the pipeline, without a proxy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from mitmcontext import pipeline
from mitmcontext.condense.assess import Thresholds
from mitmcontext.condense.ledger import Ledger
from mitmcontext.known import Known
from mitmcontext.models.windows import Window
from mitmcontext.pipeline import Assessment, Laid, Step
from mitmcontext.recollect import Recollections
from mitmcontext.stores.memory import MemoryStore, lru
from mitmcontext.stores.memory_store import Memory, cells
from mitmcontext.tokens.calibration import Scale
from mitmcontext.tokens.families import family_of
from mitmcontext.values import Message
from mitmcontext.wire.api import Api

SEED = b"\0" * 32
HUGE = 1 << 40


def window(tokens: int) -> Window:
    """A window of just so many tokens of input."""
    return Window(tokens, None, None, known=True, source="test")


def count(encoding: str) -> Callable[[str], int]:
    """A tokenizer of our own: plain, quick, and never more tokens than bytes."""
    return lambda text: (len(text.encode("utf-8", "surrogatepass")) + 3) // 4


@dataclass(frozen=True)
class Sent:
    """What became of a request."""

    body: bytes
    forwarded: bytes
    laid: Laid
    assessment: Assessment
    step: Step | None
    reason: str


def by(factor: float) -> Callable[[int, int], Scale]:
    """A provider that has so many tokens for each estimated one."""
    return lambda _, fixed: Scale(factor, fixed * (factor - 1))


class Way:
    """Sends requests through the pipeline as a proxy would."""

    def __init__(self, thresholds: Thresholds | None = None, *, recollects: bool = False) -> None:
        self.recollections = Recollections(64 << 20, b"k" * 32) if recollects else None
        self.ledger = Ledger(Memory(cells(64 << 20)))
        self.known = Known(MemoryStore(lru(64 << 20)), count)
        self.thresholds = thresholds or Thresholds()
        self.recognised = 0

    def lay(self, api: Api, body: bytes) -> Laid:
        """Read a body and lay over it what is frozen."""
        if self.recollections is None:
            request = api.read(body)
            sent = pipeline.read(api, family_of(request.model), request, SEED, self.known)
            return pipeline.lay(sent, self.ledger, SEED, self.known)
        request, stretch = self.recollections.read(api, body)
        family = family_of(request.model)
        sent = pipeline.read(api, family, request, SEED, self.known, stretch)
        self.recognised += stretch is not None
        laid = pipeline.lay(sent, self.ledger, SEED, self.known)
        pipeline.keep(laid, SEED, self.recollections)
        return laid

    def tokens(self, api: Api, body: bytes) -> int:
        """What a body counts as, once what is frozen is laid over it."""
        laid = self.lay(api, body)
        return pipeline.assess(laid, window(HUGE), self.thresholds, self.known, by(1.0)).forwarded

    def plan(self, laid: Laid, room: int) -> tuple[Assessment, Step | str]:
        """Assess and plan; nothing is frozen."""
        assessment = pipeline.assess(laid, window(room), self.thresholds, self.known, by(1.0))
        return assessment, pipeline.plan_step(laid, assessment, self.thresholds, self.known, SEED)

    def send(self, api: Api, body: bytes, room: int) -> Sent:
        """The whole way."""
        laid = self.lay(api, body)
        assessment, step = self.plan(laid, room)
        if isinstance(step, str):
            return Sent(body, laid.forwarded.request.body, laid, assessment, None, step)
        frozen = self.ledger.freeze(laid.sent.links, step.entry, laid.found)
        assert frozen.entry == step.entry
        return Sent(body, step.forwarded.request.body, laid, assessment, step, "")


def parsed(api: Api, body: bytes) -> list[Message]:
    """The messages of a request."""
    request = api.read(body)
    return [api.parse(request.raw(at)) for at in range(len(request.spans))]
