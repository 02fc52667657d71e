"""Each request condensed on its own."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from functools import partial

from lib.progress import Progress
from mitmcontext.condense.conversation import Conversation, Room
from mitmcontext.condense.entries import FrozenEdit
from mitmcontext.condense.truncate import smart_truncation
from mitmcontext.known import Known
from mitmcontext.rewrite import rewritten
from mitmcontext.values import Message
from retention.baselines import cleared, drop_oldest
from retention.probes import Json, Recorded, counter, read_message, said, weight_of
from retention.tally import Tally

_SMALLEST = 8_000


def _weigh(one: Recorded) -> Callable[[Message, int | None], int]:
    known = Known({}, counter)
    return lambda message, _: known.weigh(one.family, message)


def planned(one: Recorded, cut: int, share: float) -> tuple[tuple[FrozenEdit, ...], float]:
    """The edits that smart_truncation makes of a request alone, and the seconds that it took."""
    whole = one.tokens[:cut]
    conversation = Conversation(one.messages[:cut], whole, 0, (), _weigh(one))
    begun = time.perf_counter()
    edits = smart_truncation(conversation, Room(int(share * sum(whole)), None))
    return edits, time.perf_counter() - begun


def per_request(found: Sequence[Recorded], shares: Sequence[float]) -> list[Json]:
    """For each corpus and share asked for: what is left at the requests that use a probe."""
    tallies: dict[tuple[str, str, float], Tally] = defaultdict(Tally)
    progress = Progress("per request", len(found))
    for number, one in enumerate(found):
        for cut in sorted({probe.use for probe in one.probes}):
            total = sum(one.tokens[:cut])
            if total < _SMALLEST:
                continue
            probes = [probe for probe in one.probes if probe.use == cut]
            original = "\n".join(map(said, one.messages[:cut]))
            for policy, share, plan in _policies(shares):
                messages, seconds = plan(one, cut)
                tally = tallies[one.corpus, policy, share]
                tally.judge(probes, "\n".join(map(said, messages)), original)
                tally.sent += total
                tally.forwarded += sum(map(weight_of(one), messages))
                tally.seconds.append(seconds)
        progress(number + 1)
    return [
        {"corpus": corpus, "policy": policy, "asked for": share, **tally.figures()}
        for (corpus, policy, share), tally in tallies.items()
    ]


Planned = Callable[[Recorded, int], tuple[Sequence[Message], float]]


def _policies(shares: Sequence[float]) -> Iterator[tuple[str, float, Planned]]:
    for share in shares:
        yield "smart_truncation", share, partial(_ours, share)
        yield "drop oldest", share, partial(_dropped_to, share)
    yield "clear all but 3 results", 0, lambda one, cut: (cleared(one.messages[:cut], 3), 0.0)


def _ours(share: float, one: Recorded, cut: int) -> tuple[Sequence[Message], float]:
    edits, seconds = planned(one, cut, share)
    request = one.api.read(rewritten(one.api, one.api.read(one.body(cut)), edits))
    return [read_message(one.api, request.raw(at)) for at in range(len(request.spans))], seconds


def _dropped_to(share: float, one: Recorded, cut: int) -> tuple[Sequence[Message], float]:
    target = share * sum(one.tokens[:cut])
    gone = drop_oldest(one.messages[:cut], one.tokens[:cut], frozenset(), target)
    return [message for at, message in enumerate(one.messages[:cut]) if at not in gone], 0.0
