"""The n-th operation at a seam fails, for every n until nothing fails any more.

Whatever it was, the client gets its answer, and the provider a body that it takes: by the ladder,
no lower than the fault forces. The conversation's next request is served as if nothing had been.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.e2e.faults import HOST
from tests.e2e.fixture_types import Connect, Json, StartProxy
from tests.e2e.judging import AMPLE, Line, bodies

from loopback.child import Child
from loopback.client import Connection
from loopback.provider import HOSTS, Provider, with_windows
from loopback.summariser import Summariser, fair

ALL = bool(os.environ.get("MITMCONTEXT_FAULTS"))
"""Whether really every n is tried where there are thousands; otherwise they are spread out."""

FAULTS = Path(__file__).with_name("faults.py")
WINDOW = 24_000
_ROUNDS = 5
STEP = bodies()[24:26]
"""Turns of a conversation that is too long from the first one on, which takes a step."""
FROZEN = bodies()[24:27]
"""The same with one between them, over which the step is laid that was frozen before."""
ASKED = (*bodies()[5:9], *bodies()[11:13])
"""The first ones fit; the last but one waits for a model's summary, and takes a step with it."""


@dataclass
class Stage:
    """A proxy whose operations fail as they are told to, and a provider that takes any length."""

    proxy: Child
    provider: Provider
    connection: Connection
    client: httpx.Client
    conversations: int = 0

    def order(self, path: str, **asked: Any) -> dict[str, Any]:
        """Choose what fails, or end that; what there was of the plan before."""
        answer = self.client.get(f"http://{HOST}/{path}", params=asked)
        answer.raise_for_status()
        found: dict[str, Any] = answer.json()
        return found

    def stats(self) -> Json:
        """All figures."""
        found: Json = self.client.get("http://context.mitm/stats.json").json()
        return found

    def failures(self) -> dict[str, int]:
        """What went wrong so far, as the figures tell."""
        found: dict[str, int] = self.stats()["failures"]
        return found

    def bring_back(self) -> None:
        """Let stores that are set aside be tried again, and found to be in service."""
        for _ in range(_ROUNDS):
            if all(store["state"] == "ok" for store in self.stats()["stores"].values()):
                return
            self.order("patience")
            self.conversation().send(self.connection, STEP[0])
        raise AssertionError

    def conversation(self) -> Line:
        """A client who was never here."""
        self.conversations += 1
        return Line(self.provider, f"key-{self.conversations}")


@pytest.fixture
def stage(provider: Provider, start_proxy: StartProxy, connect: Connect) -> Iterator[Stage]:
    provider.models = with_windows({"*": 1_000_000})
    provider.summariser = Summariser(fair)
    proxy = start_proxy(
        *(f"context_windows=*={WINDOW}", "condensation_max_cost=1", "condensation_wait=warning"),
        *("condensation_timeout=2s", "condensation_caution_threshold=0.799", "flow_detail=0"),
        addon=FAULTS,
        arguments=["-s", str(AMPLE)],
        environment={"CONDENSATION_DEFAULT_STRATEGY": "auto"},
    )
    # A question goes to where the request goes, so the port has to be a real one.
    connection = connect(proxy, HOSTS[0], provider.tls_port)
    with httpx.Client(proxy=proxy.url, trust_env=False, timeout=30) as client:
        yield Stage(proxy, provider, connection, client)


def numbers(most: int) -> Iterator[int]:
    """1, 2, 3 and so on; beyond `most` ever more are passed over, unless all are asked for."""
    step, n = 1.0, 1.0
    while True:
        yield int(n)
        if n >= most and not ALL:
            step *= 1.7
        n += step


@dataclass
class Swept:
    """How many n there were, what failed, and upon what of that the request went out as it came.

    `behind` is what failed when the request had been read, and laid over it what is frozen.
    """

    tries: int
    failed: set[str]
    as_it_came: set[str]
    behind: set[str]


def sweep(stage: Stage, turns: Sequence[bytes], most: int = 10, **asked: Any) -> Swept:
    """Let the n-th operation fail while the last turn but one is served, for each n there is.

    Turns before it and the one behind it are served without a fault.
    """
    swept = Swept(0, set(), set(), set())
    *earlier, faulty, later = turns
    for n in numbers(most):
        stage.bring_back()
        line = stage.conversation()
        for body in earlier:
            line.send(stage.connection, body)
        before = stage.failures()
        stage.order("arm", n=n, **asked)
        sent = line.send(stage.connection, faulty)
        told = stage.order("done")
        if not told["failed"]:
            return swept
        case = f"{asked} {n}: {told['failed']}"
        swept.tries += 1
        swept.failed.add(told["failed"])
        if told["behind"]:
            swept.behind.add(told["failed"])
            assert sent.changed or turns is not FROZEN, f"{case}: what is frozen was there"
        if not sent.changed:
            swept.as_it_came.add(told["failed"])
            assert stage.failures() != before, f"{case}: as it came, and nobody says why"
        # And then on, as if nothing had been.
        assert line.send(stage.connection, later).changed, case
        # What a model said is judged in test_bad_summaries.
        assert turns is ASKED or line.complaints() == [], case
        stage.provider.records.clear()
    raise AssertionError


def test_the_clock_jumps_by_a_year(stage: Stage) -> None:
    for jump in ("forward", "back"):
        for turns in (STEP, FROZEN):
            swept = sweep(stage, turns, seam="clock", error=jump)
            assert swept.tries >= 1
            assert swept.as_it_came == set()
    assert not stage.failures()


def test_the_disk_fails(stage: Stage) -> None:
    for error in ("io", "full", "busy"):
        for turns, least in ((STEP, 10), (FROZEN, 1)):
            swept = sweep(stage, turns, seam="disk", error=error)
            assert swept.tries >= least
            assert swept.as_it_came == set()
    assert not stage.failures()


def test_the_disk_fails_and_goes_on_failing(stage: Stage) -> None:
    swept = sweep(stage, STEP, seam="disk", error="full", lasts=1)
    assert swept.tries >= 10
    assert swept.as_it_came == set()
    assert not stage.failures()


def test_the_cache_fails(stage: Stage) -> None:
    for turns in (STEP, FROZEN):
        nth = sweep(stage, turns, seam="cache")
        first_calls = sweep(stage, turns, seam="cache", each=1)
        assert nth.tries >= 10
        assert len(first_calls.failed) >= 8
        behind = first_calls if ALL else sweep(stage, turns, seam="cache", each=1, behind=1)
        assert len(behind.behind) >= 8


@pytest.mark.parametrize("error", ["OSError", "CancelledError", "SystemExit"])
def test_asking_a_model_fails(error: str, stage: Stage) -> None:
    for seam in ("model", "sending") if error == "OSError" or ALL else ("sending",):
        swept = sweep(stage, ASKED, most=40, seam=seam, error=error, each=1)
        assert swept.tries >= 10
        # Without the summary there is the same step. Before that, a request is looked at.
        assert {one for one in swept.as_it_came if "is_ours" not in one} == set()
    assert "proxy/asking.py Asker.ask" in swept.failed
    assert stage.provider.questions


def test_the_parser_fails(stage: Stage) -> None:
    for turns in (STEP, FROZEN):
        swept = sweep(stage, turns, seam="parser", error="RecursionError")
        assert swept.tries >= 10
        assert swept.as_it_came
        assert len(swept.failed) >= 5


def test_leaving_words_out_of_the_log_fails(stage: Stage) -> None:
    for turns in (STEP, FROZEN):
        swept = sweep(stage, turns, seam="log")
        assert swept.tries >= 1
        assert swept.as_it_came == set()
    assert not stage.failures()


@pytest.mark.parametrize("error", ["MemoryError", "CancelledError", "SystemExit"])
def test_any_function_of_ours_fails(error: str, stage: Stage) -> None:
    for turns in (STEP, FROZEN, ASKED) if error == "MemoryError" or ALL else (FROZEN,):
        swept = sweep(stage, turns, most=4, seam="all", each=1, error=error)
        assert len(swept.failed) >= 8
        if not ALL:  # else these were among them
            swept = sweep(stage, turns, most=4, seam="all", each=1, behind=1, error=error)
        assert len(swept.behind) >= 8


@pytest.mark.parametrize("error", ["MemoryError", "SystemExit"])
def test_what_is_frozen_goes_out_whatever_fails_behind_it(error: str, stage: Stage) -> None:
    swept = sweep(stage, FROZEN, seam="behind reading", each=1, error=error)
    assert any("money.py" in one for one in swept.failed)
    assert swept.tries >= 8
    assert swept.as_it_came == set()
    last = sweep(stage, FROZEN, seam="commit", error=error)
    assert last.failed == {"proxy/resend.py commit"}
    assert last.as_it_came == set()
