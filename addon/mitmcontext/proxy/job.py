"""What of a flow goes into the pipeline, and what comes out of it."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Final, NamedTuple

import msgspec
from mitmproxy import http
from msgspec.structs import replace

from mitmcontext import pipeline
from mitmcontext.condense.cost import Cache
from mitmcontext.models.prices import Prices, prices_of
from mitmcontext.pipeline import Laid
from mitmcontext.proxy import bodies
from mitmcontext.proxy.asking import Asks
from mitmcontext.settings import Settings
from mitmcontext.tokens.calibration import Anchor, Scale, Shape
from mitmcontext.values import Action, Outcome, Request, Standing
from mitmcontext.wire.api import Api

NO_PRICES: Final = prices_of("")


class Claim:
    """Who has the last word on a step: the thread that freezes it, or the deadline."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._taken = False

    def take(self) -> bool:
        """Whether the caller came first."""
        with self._lock:
            first, self._taken = not self._taken, True
        return first


class Job(msgspec.Struct, frozen=True):
    """What of a flow decides about it. `headers` have names in lower case.

    `place` is a keyed digest of where the request goes; `tenant` is one of that and of who sends
    it, as the headers say. `at` is when it was sent, in seconds; `host` is whom it is for. `asks`
    is what it takes to ask a model on its behalf; None where that cannot be.
    """

    api: Api
    path: str
    tenant: bytes
    place: bytes
    headers: Mapping[str, str]
    raw: bytes
    observed: str = ""
    login: bool = False
    at: float = 0.0
    host: str = ""
    asks: Asks | None = None


class Ready(msgspec.Struct, frozen=True):
    """A request with what is frozen laid over it: the lowest rung that keeps the prefix.

    `raw` is what goes out then, encoded; None where that is what the client sent. `cache` is what
    the provider has of the conversation in its cache.
    """

    job: Job
    settings: Settings
    laid: Laid
    seed: bytes
    observed: str
    standing: Standing
    why: str
    raw: bytes | None = None
    prices: Prices = NO_PRICES
    cache: Cache = Cache.WARM

    @property
    def request(self) -> Request:
        """The request as the client sent it."""
        return self.laid.sent.request

    @property
    def calibrated_as(self) -> str:
        """Tenant, host and model: what a provider's counts are learned by."""
        return f"{self.job.tenant.hex()} {self.request.model}"


class EstimatedAs(NamedTuple):
    """What the estimate of a request is corrected by: host, model and tenant; shape; anchor."""

    key: str
    shape: Shape
    anchor: Anchor | None


class Grown(NamedTuple):
    """What came since the conversation's last report.

    `tokens` are uncorrected, `size` is in bytes, `expected` in the provider's tokens.
    """

    tokens: int
    size: int
    expected: int


class Estimated(NamedTuple):
    """How the estimate of what was forwarded came about: to learn from its answer.

    `tokens` are uncorrected and of the whole; `grown` is what of them came since the anchor, where
    nothing else changed, and `notes` what takes the place of several messages; `new` has estimate
    and expected tokens of each of the client's messages that came since; `expected` is in the
    provider's tokens.
    """

    by: EstimatedAs
    tokens: int
    grown: Grown | None
    new: tuple[tuple[int, int], ...]
    notes: int
    expected: int
    scale: Scale


class Result(msgspec.Struct, frozen=True):
    """What to forward (None: as it came) and what to show.

    `before` is what would have gone out without a new step; `shared` of its tokens stand before
    the step's first change (None: there is no new step).
    """

    outcome: Outcome
    ready: Ready
    raw: bytes | None
    forwarded: pipeline.Reading
    estimated: Estimated | None = None
    counted: bool = True
    before: Laid | None = None
    shared: int | None = None

    @property
    def link(self) -> bytes | None:
        """The link of the entry that is laid over the request, if there is one."""
        laid = self.ready.laid
        return laid.sent.links[laid.found.at] if laid.found else None


def headers_of(message: http.Message) -> dict[str, str]:
    """The headers of a request or an answer, names in lower case, repeated ones joined by a comma.

    As mitmproxy's own mapping has them, which goes through all of them again for each name.
    """
    found: dict[str, str] = {}
    for field, content in message.headers.fields:
        name = field.decode("utf-8", "surrogateescape").lower()
        value = content.decode("utf-8", "surrogateescape")
        found[name] = f"{found[name]}, {value}" if name in found else value
    return found


def encoded(ready: Ready) -> bytes | None:
    """What goes out with the frozen edits, in the encoding that it came in; None if as it came."""
    if ready.laid.forwarded is ready.laid.sent or ready.observed:
        return None
    coding = ready.job.headers.get("content-encoding")
    return bodies.encode(ready.laid.forwarded.request.body, coding, like=ready.job.raw)


def may_step(result: Result) -> bool:
    """Whether a step may be taken if the provider finds this request too long."""
    ready = result.ready
    return ready.standing == Standing.TURN and not ready.observed


def because(result: Result, reason: str) -> Result:
    """The same, with why no step was taken although one was due."""
    outcome = replace(result.outcome, reason=reason)
    if outcome.action == Action.UNDER_THRESHOLD:
        outcome = replace(outcome, action=Action.NO_STEP)
    return replace(result, outcome=outcome)
