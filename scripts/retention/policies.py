"""What one turn after the other becomes, by our way of a request and by crude ones."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

from mitmcontext import pipeline
from mitmcontext.births import Births
from mitmcontext.condense.assess import Thresholds
from mitmcontext.condense.cost import Cache
from mitmcontext.condense.entries import Found
from mitmcontext.condense.ledger import Ledger
from mitmcontext.known import Known
from mitmcontext.models.prices import prices_of
from mitmcontext.models.windows import Window
from mitmcontext.stores.memory_store import Memory, cells
from mitmcontext.tokens.calibration import Scale
from mitmcontext.values import Broken, Message
from retention.baselines import cleared, drop_oldest, result_places
from retention.probes import Json, Recorded, counter, read_message, weight_of
from retention.tally import Tally

# The window of most models today; a budget is a smaller one within it.
LARGE = 200_000


@dataclass
class Played:
    """What became of all turns under one policy and window."""

    tally: Tally = field(default_factory=Tally)
    turns: int = 0
    cost: float = 0.0
    cost_before: float = 0.0
    steps: int = 0
    freed: list[int] = field(default_factory=list)
    too_small: int = 0
    misfits: int = 0
    could_fit: int = 0
    refused: list[str] = field(default_factory=list)
    unexplained: int = 0
    broken: list[str] = field(default_factory=list)

    def figures(self) -> Json:
        """As shares of doing nothing, and counts."""
        return {
            **self.tally.figures(),
            "cost": self.cost / max(1.0, self.cost_before),
            "turns": self.turns,
            "steps": self.steps,
            "least freed": min(self.freed, default=0),
            "freed": sum(self.freed),
            "freed too little": self.too_small,
            "did not fit": self.misfits,
            "that could": self.could_fit,
            "refused": len(self.refused),
            "unexplained breaks": self.unexplained,
            "checks failed": len(self.broken),
        }


@dataclass(frozen=True)
class Forwarded:
    """What one turn became: each message's key and tokens, and its messages as read."""

    messages: Sequence[Message]
    stepped: bool = False
    freed: int = 0
    body: bytes = b""
    level: str = ""


class Ours:
    """The proxy's way of a request, with a ledger in memory and a provider that takes all."""

    def __init__(self, one: Recorded, window: int, out: Played, *, birth: bool = False) -> None:
        self._one, self._out = one, out
        self._birth = birth
        self._window = Window(window, None, None, True, "bench")
        self._budget = 0
        self._market: pipeline.Market | None = None
        self._known = Known({}, counter)
        self._births = Births(self._known)
        self._ledger = Ledger(Memory(cells(64 << 20)))
        self._thresholds = Thresholds()
        self._seed = b"\0" * 32

    def __call__(self, cut: int) -> Forwarded:
        one, known, seed = self._one, self._known, self._seed
        sent = pipeline.read(one.api, one.family, one.api.read(one.body(cut)), seed, known)
        laid = pipeline.lay_found(sent, self._found(sent), seed, known, self._births)
        assessment = pipeline.assess(
            laid, self._window, self._thresholds, known, lambda *_: Scale(), self._budget
        )
        forwarded, found, freed = laid.forwarded, laid.found, 0
        begun = time.perf_counter()
        try:
            step = pipeline.plan_step(
                laid,
                assessment,
                self._thresholds,
                known,
                seed,
                self._market,
                births=self._births,
            )
        except Broken as fault:
            self._out.broken.append(f"{one.name} {cut}: {fault}")
            step = ""
        if assessment.level.value in ("warning", "critical", "overflow"):
            self._out.tally.seconds.append(time.perf_counter() - begun)
        if isinstance(step, pipeline.Step):
            found = self._ledger.freeze(sent.links, step.entry, laid.found)
            forwarded, freed = step.forwarded, step.entry.before - step.entry.after
        if found is not None:
            self._ledger.confirm(sent.links, found)
        request = forwarded.request
        messages = [read_message(one.api, request.raw(at)) for at in range(len(request.spans))]
        return Forwarded(messages, freed > 0, freed, request.body, assessment.level.value)

    def _found(self, sent: pipeline.Reading) -> Found | None:
        """What is frozen; where results are reduced at birth, from the first such one on."""
        found = self._ledger.find(sent.links)
        if not self._birth or (found is not None and found.entry.born is not None):
            return found
        entry = pipeline.first_birth(sent, found, self._births)
        return self._ledger.freeze(sent.links, entry, found) if entry else found


class OursWithinBudget(Ours):
    """The same in a large window, with the smaller one as `context_budget`: steps have to pay."""

    def __init__(self, one: Recorded, window: int, out: Played) -> None:
        super().__init__(one, LARGE, out)
        self._budget = window
        self._market = pipeline.Market(prices_of(one.model), True, Cache.WARM, must_pay=True)


class DropOldest:
    """At the warning threshold the oldest units go until the target is met; they stay gone."""

    def __init__(self, one: Recorded, window: int, _: Played) -> None:
        self._one, self._window = one, window
        self._gone: frozenset[int] = frozenset()

    def __call__(self, cut: int) -> Forwarded:
        one, limits = self._one, Thresholds()
        weights = one.tokens[:cut]
        total = sum(weight for at, weight in enumerate(weights) if at not in self._gone)
        stepped = total >= limits.warning * self._window
        if stepped:
            target = limits.target * self._window
            self._gone = drop_oldest(one.messages[:cut], weights, self._gone, target)
        left = [m for at, m in enumerate(one.messages[:cut]) if at not in self._gone]
        return Forwarded(left, stepped)


class ClearOld:
    """At the warning threshold all results but the last three are cleared; they stay cleared."""

    def __init__(self, one: Recorded, window: int, _: Played) -> None:
        self._one, self._window = one, window
        self._places: frozenset[tuple[int, int]] = frozenset()
        self._weigh = weight_of(one)

    def __call__(self, cut: int) -> Forwarded:
        messages = self._one.messages[:cut]
        made = cleared(messages, 3, self._places)
        total = sum(map(self._weigh, made))
        stepped = total >= Thresholds().warning * self._window
        if stepped:
            self._places |= frozenset(result_places(messages)[:-3])
            made = cleared(messages, 3, self._places)
        return Forwarded(made, stepped)


class ClearEachTurn:
    """All results but the last three are cleared on every turn."""

    def __init__(self, one: Recorded, window: int, _: Played) -> None:
        self._one = one

    def __call__(self, cut: int) -> Forwarded:
        return Forwarded(cleared(self._one.messages[:cut], 3), True)


BIRTH = "with reduce_at_birth"
POLICIES: dict[str, Callable[[Recorded, int, Played], Callable[[int], Forwarded]]] = {
    "smart_truncation": Ours,
    "... within a budget": OursWithinBudget,
    "drop oldest": DropOldest,
    "clear old results": ClearOld,
    "clear each turn": ClearEachTurn,
    BIRTH: partial(Ours, birth=True),
}
