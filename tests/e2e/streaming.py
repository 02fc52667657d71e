"""Streamed answers: whether their pieces come when they are sent."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import accumulate
from statistics import median

from loopback.answers import Call, Reply
from loopback.client import Response
from loopback.provider import Provider, Record

REPLY = Reply("word by word", (Call("look", {"at": "it"}),), thinking="let me see", pieces=4)


def lags(record: Record, response: Response) -> list[float]:
    """How long after it was sent each piece of an answer was there."""
    arrivals = list(accumulate(len(data) for _, data in response.arrived))
    found = []
    for (sent_at, _), upto in zip(
        record.sent, accumulate(len(data) for _, data in record.sent), strict=True
    ):
        place = next(index for index, have in enumerate(arrivals) if have >= upto)
        found.append(response.arrived[place][0] - sent_at)
    return found


def in_time(
    provider: Provider, gap: float, ask: Callable[[], Response]
) -> Iterator[tuple[Record, Response]]:
    """Answers as they were sent and as they came, until one is in time.

    A busy machine is late now and then; what is held back is late every time.

    Args:
        provider: who sends them.
        gap: the pause between two pieces, in seconds.
        ask: asks for a streamed answer.
    """
    late = gap
    for _ in range(3):
        response = ask()
        record = provider.records[-1]
        yield record, response
        assert len(record.sent) >= 6
        late = min(late, median(lags(record, response)))
        if late < gap / 2:
            return
    raise AssertionError(f"answers are {late:.2f} s late")
