"""Each invariant sees what breaks it, and nothing else."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from tests.conversations import Talk, laws, talks, thinking

from mitmcontext.condense import texts
from mitmcontext.condense.entries import WHOLE
from mitmcontext.condense.invariants import broken
from mitmcontext.values import Message
from mitmcontext.wire.anthropic import MESSAGES

Json = dict[str, Any]
MARK = {"cache_control": {"type": "ephemeral"}}
NOTE = texts.fold_opening(3)


def user(content: Any) -> Json:
    return {"role": "user", "content": content}


def model(content: Any) -> Json:
    return {"role": "assistant", "content": content}


def text(said: str, **others: Any) -> Json:
    return {"type": "text", "text": said, **others}


def exchange(number: int, result: str = "", *, thinks: bool = False) -> list[Json]:
    id_ = f"toolu_{number}"
    call = {"type": "tool_use", "id": id_, "name": "read", "input": {"n": number}}
    answer = {"type": "tool_result", "tool_use_id": id_, "content": result or f"result {number}"}
    return [model([thinking(number), call] if thinks else [call]), user([answer])]


def read(messages: list[Json]) -> list[Message]:
    return [MESSAGES.parse(json.dumps(message).encode()) for message in messages]


def calls(count: int = 6, *, thinks: bool = False) -> list[Json]:
    """A task and so many exchanges."""
    return [user("task"), *(m for n in range(count) for m in exchange(n, thinks=thinks))]


def edited(history: list[Json], changes: dict[int, list[Json]]) -> list[Json]:
    """The history with messages replaced by others, or by none."""
    return [new for at, old in enumerate(history) for new in changes.get(at, [old])]


TALK = [user("Why?"), model("So."), user("Try again"), model("Done."), user("Thanks")]
OLDER = [*calls(2, thinks=True), model("Done."), user("And now?")]
OLDER += [message for number in range(10, 13) for message in exchange(number)]
OPAQUE = model([{"type": "server_tool_use", "id": "s", "name": "w", "input": {}}, text("x")])
SYSTEM = {"role": "system", "content": "Be brief."}

GOOD: list[Any] = [
    pytest.param(calls(), calls(), id="nothing was done"),
    pytest.param(calls(), edited(calls(), {2: [exchange(0, "stub")[1]]}), id="a stub"),
    pytest.param(calls(), edited(calls(), {1: [user(NOTE)], 2: []}), id="an exchange folded"),
    pytest.param(
        TALK,
        edited(TALK, {2: [user(f"{NOTE}\nThe user wrote:\n> Try again")]}),
        id="a typed text quoted",
    ),
    pytest.param(
        calls(thinks=True),
        calls(thinks=True),
        id="thinking of the current turn",
    ),
    pytest.param(OLDER, edited(OLDER, {1: [user(NOTE)], 2: []}), id="older thinking gone"),
    pytest.param(
        edited(TALK, {2: [user("Try\n> that\n\n> again")]}),
        edited(TALK, {2: [user(f"{NOTE}\nThe user wrote:\n> Try\n> > that\n> \n> > again")]}),
        id="quotes within quotes",
    ),
]
BAD: list[Any] = [
    pytest.param(calls(), edited(calls(), {1: []}), "without its result", id="a call went alone"),
    pytest.param(calls(), edited(calls(), {2: []}), "without its result", id="a result went alone"),
    pytest.param(
        calls(), edited(calls(), {2: [user(NOTE)]}), "without its result", id="a result folded"
    ),
    pytest.param(TALK, edited(TALK, {1: [model("")]}), "empty text", id="an empty text"),
    pytest.param(TALK, edited(TALK, {1: [model(" \n")]}), "empty text", id="a blank text"),
    pytest.param(TALK, edited(TALK, {1: [model([])]}), "empty text", id="an empty message"),
    pytest.param(
        TALK, edited(TALK, {1: [model([text("So.", **MARK)])]}), "cache markers", id="a marker more"
    ),
    pytest.param(TALK, edited(TALK, {0: [user("What?")]}), "first message", id="another beginning"),
    pytest.param(TALK, edited(TALK, {0: []}), "first message", id="no beginning"),
    pytest.param(TALK, edited(TALK, {4: [user("No")]}), "last message", id="another end"),
    pytest.param(TALK, TALK[:-1], "last message", id="no end"),
    pytest.param(
        calls(), edited(calls(), {8: [exchange(3, "stub")[1]]}), "last results", id="a late stub"
    ),
    pytest.param(
        calls(), edited(calls(), {7: [user(NOTE)], 8: []}), "last results", id="a late fold"
    ),
    pytest.param(TALK, edited(TALK, {1: [user(NOTE)]}), "alternate", id="two of the user's"),
    pytest.param(TALK, edited(TALK, {2: []}), "alternate", id="two of the model's"),
    pytest.param(
        calls(thinks=True),
        edited(calls(thinks=True), {1: [exchange(0)[0]]}),
        "thinking",
        id="thinking of the current turn gone",
    ),
    pytest.param(
        calls(thinks=True),
        edited(calls(thinks=True), {1: [user(NOTE)], 2: []}),
        "thinking",
        id="thinking of the current turn folded",
    ),
    pytest.param(
        OLDER,
        edited(OLDER, {1: [model([thinking(9), *exchange(0)[0]["content"]])]}),
        "thinking",
        id="older thinking altered",
    ),
    pytest.param([*TALK, OPAQUE, user("f")], [*TALK, model("y"), user("f")], "opaque", id="opaque"),
    pytest.param(
        [user("x"), SYSTEM, *TALK[1:]], [user("x"), *TALK[1:]], "system message", id="no system"
    ),
    pytest.param(TALK, edited(TALK, {2: [user(NOTE)]}), "typed text", id="typed text gone"),
    pytest.param(
        [user("a"), model("b"), user("one\ntwo"), *TALK[1:]],
        [user("a"), model("b"), user(f"{NOTE}\nThe user wrote:\n> one two"), *TALK[1:]],
        "typed text",
        id="typed text on one line",
    ),
]


@pytest.mark.parametrize(("before", "after"), GOOD)
def test_what_is_no_fault(before: list[Json], after: list[Json]) -> None:
    assert broken(read(before), read(after)) == ""


@pytest.mark.parametrize(("before", "after", "fault"), BAD)
def test_what_is_a_fault(before: list[Json], after: list[Json], fault: str) -> None:
    assert fault in broken(read(before), read(after))


def test_typed_text_may_go_only_where_nothing_else_fits() -> None:
    after = edited(TALK, {2: [user(NOTE)]})
    assert broken(read(TALK), read(after), typed=False) == ""


def test_what_is_held_already_may_lie_within_the_last_results() -> None:
    before = calls()
    stubbed = edited(before, {8: [exchange(3, "stub")[1]], 2: [exchange(0, "stub")[1]]})
    assert broken(read(before), read(stubbed), held={(8, 0)}) == ""
    assert broken(read(before), read(stubbed), held={(2, 0)}) != ""
    folded = edited(before, {7: [user(NOTE)], 8: []})
    assert broken(read(before), read(folded), held={(7, WHOLE), (8, WHOLE)}) == ""


def test_thinking_that_was_folded_before_stays_away() -> None:
    before = calls(thinks=True)
    after = edited(before, {1: [user(NOTE)], 2: []})
    assert broken(read(before), read(after), held={(1, WHOLE), (2, WHOLE)}) == ""


def test_a_fault_of_the_clients_own_is_not_judged() -> None:
    doubled = [user("a"), user("b"), model(""), user("c")]
    assert broken(read(doubled), read(doubled)) == ""


@given(talks)
@laws
def test_a_history_holds_all_its_own_invariants(talk: Talk) -> None:
    messages = [talk.api.parse(talk.style.dump(message)) for message in talk.messages]
    assert broken(messages, messages) == ""
