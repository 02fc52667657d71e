"""New results are reduced once: what went out stands at the beginning of all that follows."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import msgspec
import pytest
from tests import noisy
from tests.way import SEED, Way, by, window

from demo.session import encode
from loopback import rules_anthropic
from loopback.prefix import fingerprints, first_difference
from mitmcontext import pipeline
from mitmcontext.births import Births
from mitmcontext.condense.assess import Thresholds
from mitmcontext.condense.birth import without_escapes
from mitmcontext.condense.entries import Entry
from mitmcontext.pipeline import Laid, Step
from mitmcontext.recollect import Recollections
from mitmcontext.tokens.families import family_of
from mitmcontext.wire.anthropic import MESSAGES

HUGE, ROOM = 1_000_000, 26_000


def bodies() -> list[bytes]:
    return [encode(body) for body in noisy.requests()]


@dataclass
class Line:
    """One client's turns through the pipeline, with `reduce_at_birth` switched on and off."""

    room: int = HUGE
    recollections: Recollections | None = None
    way: Way = field(default_factory=Way)
    went: list[bytes] = field(default_factory=list)
    steps: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.births = Births(self.way.known)

    def lay(self, body: bytes, *, on: bool = True) -> Laid:
        way = self.way
        request, stretch = MESSAGES.read(body), None
        if self.recollections is not None:
            request, stretch = self.recollections.read(MESSAGES, body)
        sent = pipeline.read(MESSAGES, family_of(request.model), request, SEED, way.known, stretch)
        found = way.ledger.find(sent.links)
        if on and (found is None or found.entry.born is None):
            entry = pipeline.first_birth(sent, found, self.births)
            found = way.ledger.freeze(sent.links, entry, found) if entry else found
        laid = pipeline.lay_found(sent, found, SEED, way.known, self.births)
        if self.recollections is not None:
            pipeline.counts_of(laid.forwarded, way.known)
            pipeline.keep(laid, SEED, self.recollections)
        return laid

    def send(self, body: bytes, *, on: bool = True) -> bytes:
        way, laid = self.way, self.lay(body, on=on)
        full = pipeline.assess(laid, window(self.room), Thresholds(), way.known, by(1.0))
        step = pipeline.plan_step(laid, full, Thresholds(), way.known, SEED, births=self.births)
        went = laid.forwarded.request.body
        if isinstance(step, Step):
            assert way.ledger.freeze(laid.sent.links, step.entry, laid.found).entry == step.entry
            went = step.forwarded.request.body
            self.steps.append(len(self.went))
            # What was planned is what is laid over the request from now on.
            assert self.lay(body, on=on).forwarded.request.body == went
        self.went.append(went)
        return went

    def breaks(self) -> list[int]:
        marks = [fingerprints(json.loads(body)) for body in self.went]
        pairs = pairwise(marks)
        return [at for at, (a, b) in enumerate(pairs, 1) if first_difference(a, b) is not None]


def reduced(sent: Sequence[bytes], went: Sequence[bytes]) -> list[bool]:
    return [len(b) < len(a) for a, b in zip(sent, went, strict=True)]


@pytest.mark.parametrize("recollects", [False, True])
def test_every_turn_begins_with_the_one_before(recollects: bool) -> None:
    kept = Recollections(64 << 20, b"k" * 32) if recollects else None
    line, memory = Line(recollections=kept), rules_anthropic.Memory()
    sent = bodies()
    for body in sent:
        went = line.send(body)
        assert rules_anthropic.check(json.loads(went), memory, length=False) is None
    assert line.breaks() == []
    assert line.steps == []
    smaller = reduced(sent, line.went)
    # From the first noisy result on, all of them.
    assert smaller == sorted(smaller)
    assert any(smaller)
    assert len(line.went[-1]) < 0.95 * len(sent[-1])


@pytest.mark.parametrize("recollects", [False, True])
def test_steps_are_all_that_breaks_and_hold_what_was_reduced(recollects: bool) -> None:
    kept = Recollections(64 << 20, b"k" * 32) if recollects else None
    line, memory = Line(ROOM, recollections=kept), rules_anthropic.Memory()
    for body in bodies():
        went = line.send(body)
        assert rules_anthropic.check(json.loads(went), memory, length=False) is None
    assert len(line.steps) >= 2
    assert set(line.breaks()) <= set(line.steps)


def test_with_and_without_what_was_read_before_it_is_the_same() -> None:
    lines = Line(ROOM), Line(ROOM, recollections=Recollections(64 << 20, b"k" * 32))
    for body in bodies():
        assert lines[0].send(body) == lines[1].send(body)


def test_a_step_brings_nothing_back_that_was_left_out() -> None:
    line = Line(ROOM)
    looked_at = 0
    for body in bodies():
        before = line.lay(body).births
        shown = "\n".join(_texts(json.loads(line.send(body))))
        if line.steps[-1:] != [len(line.went) - 1]:
            continue
        for at, born in before.items():
            stood = "\n".join(_texts({"messages": [json.loads(body)["messages"][at]]}))
            stays = "\n".join(edit.text or "" for edit in born.edits)
            lines = without_escapes(stood).split("\n")
            gone = [one for one in lines if "crane" in one and one not in stays]
            looked_at += len(gone)
            assert not [one for one in gone if one in shown]
    assert looked_at


def _texts(body: dict[str, Any]) -> list[str]:
    found: list[str] = []
    for message in body["messages"]:
        content = message["content"]
        for block in [content] if isinstance(content, str) else content:
            said = block if isinstance(block, str) else block.get("content", block.get("text", ""))
            found += [said] if isinstance(said, str) else [one["text"] for one in said]
    return found


def test_switched_on_in_the_middle_nothing_that_was_sent_changes() -> None:
    line, sent = Line(), bodies()
    for at, body in enumerate(sent):
        line.send(body, on=at >= 40)
    assert line.breaks() == []
    assert reduced(sent, line.went)[:40] == [False] * 40
    assert len(line.went[-1]) < len(sent[-1])


def test_switched_on_behind_a_step_nothing_that_was_sent_changes() -> None:
    line = Line(ROOM)
    for at, body in enumerate(bodies()):
        line.send(body, on=at >= 60)
    assert line.steps[0] < 60
    assert set(line.breaks()) <= set(line.steps)
    assert _born(line, bodies()[-1]) is not None


def _born(line: Line, body: bytes) -> int | None:
    found = line.lay(body).found
    return found.entry.born if found else None


def test_switched_off_what_was_reduced_stays_reduced() -> None:
    line = Line()
    for at, body in enumerate(bodies()):
        line.send(body, on=at < 50)
    assert line.breaks() == []


def test_a_fork_shares_it() -> None:
    line, all_ = Line(), list(noisy.requests())
    for body in all_[:60]:
        line.send(encode(body))
    messages = [*all_[50]["messages"], {"role": "assistant", "content": "Enough."}]
    fork = all_[50] | {"messages": [*messages, {"role": "user", "content": "Begin again."}]}
    line.went = [line.went[50], line.send(encode(fork), on=False)]
    assert line.breaks() == []
    assert len(line.went[-1]) < len(encode(fork))


def test_a_conversation_without_it_is_none_of_its_business() -> None:
    line, sent = Line(), bodies()
    assert [line.send(body, on=False) for body in sent] == sent
    assert line.way.ledger.figures()["frozen edits, in memory"].entries == 0


def test_where_nothing_is_large_nothing_is_kept() -> None:
    line = Line()
    quiet = {"role": "assistant", "content": "Yes."}
    messages: list[dict[str, Any]] = [{"role": "user", "content": "Ready?"}]
    for _ in range(9):
        messages += [quiet, {"role": "user", "content": "And now?"}]
        body = encode({"model": "claude-sonnet-4-5", "max_tokens": 9, "messages": messages})
        assert line.send(body) == body
    assert line.way.ledger.figures()["frozen edits, in memory"].entries == 0


def test_the_same_call_again_gets_the_whole_result() -> None:
    log = "\n".join(f"{at:04} crane_{at % 31}.state is idle" for at in range(600))
    messages: list[dict[str, Any]] = [{"role": "user", "content": "Look."}]
    for number in range(2):
        call = {"type": "tool_use", "id": f"t{number}", "name": "log", "input": {"of": "crane"}}
        messages.append({"role": "assistant", "content": [call]})
        answer = {"type": "tool_result", "tool_use_id": f"t{number}", "content": log}
        messages.append({"role": "user", "content": [answer]})
    line = Line()
    for cut in (3, 5):
        body = {"model": "claude-sonnet-4-5", "max_tokens": 9, "messages": messages[:cut]}
        line.send(encode(body))
    said = [one["content"][0]["content"] for one in json.loads(line.went[-1])["messages"][2::2]]
    assert len(said[0]) < len(log)
    assert said[1] == log
    assert line.breaks() == []


def test_what_was_frozen_before_this_was_there_is_read_as_ever() -> None:
    """An entry that an earlier version wrote has no such field."""
    old = [[[1, 0, b"d", "t"]], 1, 9, 5, "warning", [b"l"]]
    entry = msgspec.msgpack.decode(msgspec.msgpack.encode(old), type=Entry)
    assert entry.born is None
    assert entry.earlier == (b"l",)
