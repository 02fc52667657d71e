"""How conversations went, request by request: for the live page and `context.conversations`.

Numbers, the model's name and the host's; never a message. All of it is bounded and lives in plain
dicts and tuples, which outlast a live reload. On the way of a request this is one look-up and one
tuple; what people see is made when somebody looks.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any, Final, NamedTuple, TypedDict

from cachetools import LRUCache

from mitmcontext.values import Money, Outcome

CONVERSATIONS: Final = 100
"""So many are remembered, those of the latest use."""

POINTS: Final = 120
"""So many requests of each are drawn; of more than these every other one is forgotten."""

SAMPLES: Final = 240
"""So many moments of all traffic together."""

_LINKS: Final = 10_000
# A conversation comes back with a few messages more; one that was away for long begins anew here.
_LOOKED_BACK: Final = 64
# A request may be counted after the one that follows it, which brings two messages more.
_NOTED: Final = 4
_LONGEST_NAME: Final = 120


class Point(NamedTuple):
    """One request: `before` is with what was frozen already, `after` is what went out, in tokens.

    In observe mode `after` is what would have gone out.
    """

    at: float
    sent: int
    before: int
    after: int
    room: int
    action: str
    step: int


class Sample(NamedTuple):
    """All traffic since the start, at a moment: tokens and dollars."""

    at: float
    sent: int
    forwarded: int
    cost: float
    saved: float


class Kept(TypedDict):
    """What outlasts a live reload."""

    conversations: LRUCache[int, dict[str, Any]]
    links: LRUCache[bytes, int]
    samples: list[tuple[float, ...]]
    numbers: dict[str, float]


def fresh() -> Kept:
    """Nothing yet."""
    return Kept(
        conversations=LRUCache(CONVERSATIONS),
        links=LRUCache(_LINKS),
        samples=[],
        numbers={"last": 0, "revision": 0, "apart": 0.25},
    )


class History:
    """The latest conversations, and how all figures grew."""

    def __init__(self, kept: Kept) -> None:
        self._kept = kept

    @property
    def revision(self) -> int:
        """Grows with every change."""
        return int(self._kept["numbers"]["revision"])

    @property
    def cleared(self) -> int:
        """The revision at which everything was forgotten the last time; 0 if never."""
        return int(self._kept["numbers"].get("cleared", 0))

    def note(
        self, links: Sequence[bytes], at: float, host: str, flow: str, outcome: Outcome
    ) -> None:
        """A request that was counted.

        Args:
            links: of the conversation, as the client sent it.
            at: when, in seconds of the wall clock.
            host: where it goes.
            flow: mitmproxy's number of it.
            outcome: what became of it.
        """
        if not links or not outcome.room:
            return
        talk = self._find(links, at, host, outcome)
        before = outcome.forwarded + outcome.freed
        point = Point(
            at,
            outcome.sent,
            before,
            outcome.forwarded,
            outcome.room,
            outcome.action.value,
            outcome.steps if outcome.freed else 0,
        )
        points = talk["points"]
        if points and talk["flow"] == flow and points[-1][0] == at:
            points[-1] = tuple(point)  # the same request, after another look
        else:
            points.append(tuple(point))
            talk["requests"] += 1
            if len(points) > 1 and at < points[-2][0]:
                points.sort(key=lambda one: float(one[0]))
        if len(points) > POINTS:
            talk["points"] = _thinned(points)
        if at >= talk["last"]:
            talk |= {"flow": flow, "last": at, "steps": outcome.steps, "level": outcome.level.value}
        self._changed(talk)

    def billed(self, links: Sequence[bytes], money: Money) -> None:
        """What the conversation of this request has cost and saved so far."""
        talk = self._at(links)
        if talk is not None and money.known:
            talk |= {"priced": True, "cost": money.cost_so_far, "saved": money.saved_so_far}
            self._changed(talk)

    def compared(self, links: Sequence[bytes], estimated: int, reported: int) -> None:
        """The provider's own count of a request of this conversation, in tokens."""
        talk = self._at(links)
        if talk is not None and reported:
            talk |= {"reported": reported, "error": round(estimated / reported - 1, 5)}
            self._changed(talk)

    def sample(self, at: float, sent: int, forwarded: int, cost: float, saved: float) -> None:
        """Take note of all figures; moments too near to the last one take its place."""
        samples, numbers = self._kept["samples"], self._kept["numbers"]
        now = tuple(Sample(at, sent, forwarded, cost, saved))
        if len(samples) > 1 and at - samples[-2][0] < numbers["apart"]:
            samples[-1] = now
            return
        samples.append(now)
        if len(samples) > SAMPLES:
            numbers["apart"] *= 2
            del samples[1:-1:2]

    def samples(self) -> list[Sample]:
        """How all figures grew, oldest first."""
        return [Sample(*sample) for sample in self._kept["samples"]]  # type: ignore[arg-type]

    def conversations(self, since: int = 0) -> Iterator[dict[str, Any]]:
        """Those that changed after a revision, of the latest use first."""
        found = [talk for talk in self._kept["conversations"].values() if talk["revision"] > since]
        yield from sorted(found, key=lambda talk: -talk["last"])

    def clear(self) -> None:
        """Forget everything."""
        self._kept["conversations"].clear()
        self._kept["links"].clear()
        self._kept["samples"].clear()
        now = self.revision + 1
        self._kept["numbers"] |= {"apart": 0.25, "revision": now, "cleared": now}

    def _at(self, links: Sequence[bytes]) -> dict[str, Any] | None:
        number = self._kept["links"].get(links[-1], 0) if links else 0
        return self._kept["conversations"].get(number)

    def _find(
        self, links: Sequence[bytes], at: float, host: str, outcome: Outcome
    ) -> dict[str, Any]:
        kept, known = self._kept, self._kept["links"]
        latest = islice(reversed(links), _LOOKED_BACK)
        number = next((known[link] for link in latest if link in known), 0)
        talk = kept["conversations"].get(number)
        if talk is None:
            number = int(kept["numbers"]["last"]) + 1
            kept["numbers"]["last"] = number
            talk = {
                "id": number,
                "model": outcome.model[:_LONGEST_NAME],
                "api": outcome.api[:_LONGEST_NAME],
                "host": host[:_LONGEST_NAME],
                "began": at,
                "last": at,
                "steps": 0,
                "level": "",
                "flow": "",
                "requests": 0,
                "priced": False,
                "cost": 0.0,
                "saved": 0.0,
                "reported": 0,
                "error": 0.0,
                "points": [],
            }
            kept["conversations"][number] = talk
        for link in links[-_NOTED:]:
            known[link] = number
        return talk

    def _changed(self, talk: dict[str, Any]) -> None:
        numbers = self._kept["numbers"]
        numbers["revision"] += 1
        talk["revision"] = int(numbers["revision"])


def _thinned(points: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """Every other one of those that nothing happened on, the newest all kept; steps go last."""
    old, new = points[: -POINTS // 4], points[-POINTS // 4 :]
    kept = [point for at, point in enumerate(old) if at % 2 == 0 or Point(*point).step]
    return [*kept, *new][-POINTS:]
