"""What belongs together in a history, and what of it must stay."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from tests.conversations import Talk, talks, thinking

from mitmcontext.condense.units import kept, last_typed, units, unpaired
from mitmcontext.values import Kind, Message
from mitmcontext.wire.anthropic import MESSAGES
from mitmcontext.wire.api import Api
from mitmcontext.wire.openai_chat import CHAT

Json = dict[str, Any]


def read(api: Api, *messages: Json) -> list[Message]:
    return [api.parse(json.dumps(message).encode()) for message in messages]


def user(content: Any) -> Json:
    return {"role": "user", "content": content}


def model(content: Any) -> Json:
    return {"role": "assistant", "content": content}


def uses(*ids: str, before: Any = ()) -> Json:
    calls = [{"type": "tool_use", "id": id_, "name": "read", "input": {}} for id_ in ids]
    return model([*before, *calls])


def results(*ids: str, then: Any = ()) -> Json:
    found = [{"type": "tool_result", "tool_use_id": id_, "content": "x"} for id_ in ids]
    return user([*found, *then])


def asks(*ids: str) -> Json:
    calls = [
        {"id": id_, "type": "function", "function": {"name": "run", "arguments": "{}"}}
        for id_ in ids
    ]
    return {"role": "assistant", "content": None, "tool_calls": calls}


def tool(id_: str, content: Any = "x") -> Json:
    return {"role": "tool", "tool_call_id": id_, "content": content}


TEXT = {"type": "text", "text": "Stop."}
IMAGE = {"type": "image_url", "image_url": {"url": "https://x"}}
LEGACY = {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": ""}}
DONE = {"role": "function", "name": "f", "content": "x"}
# As where an API has no ids: two calls that nothing tells apart.
TWICE = {**LEGACY, "tool_calls": [{"id": "", "function": {"name": "f", "arguments": ""}}]}
SYSTEM = {"role": "system", "content": "Be brief."}


@pytest.mark.parametrize(
    ("api", "messages", "lengths"),
    [
        pytest.param(MESSAGES, [], [], id="nothing"),
        pytest.param(MESSAGES, [user("hi")], [1], id="a question"),
        pytest.param(MESSAGES, [user("a"), model("b"), user("c")], [1, 1, 1], id="a talk"),
        pytest.param(
            MESSAGES, [user("a"), uses("1"), results("1"), model("b")], [1, 2, 1], id="a call"
        ),
        pytest.param(
            MESSAGES,
            [user("a"), uses("1", "2"), results("2", "1", then=[TEXT]), uses("3"), results("3")],
            [1, 2, 2],
            id="parallel calls, and a word of the user's",
        ),
        pytest.param(
            MESSAGES,
            [user("a"), model("ls"), user("Observation: x"), model("b"), user("Observation: y")],
            [1, 2, 2],
            id="observations as text",
        ),
        pytest.param(MESSAGES, [user("a"), user("b"), model("c")], [1, 1, 1], id="two of a user's"),
        pytest.param(
            CHAT,
            [SYSTEM, user("a"), asks("1", "2"), tool("1"), tool("2"), model("b")],
            [1, 1, 3, 1],
            id="a message for each result",
        ),
        pytest.param(
            CHAT, [user("a"), asks("1"), tool("1", [IMAGE]), model("b")], [1, 2, 1], id="an image"
        ),
        pytest.param(CHAT, [user("a"), LEGACY, DONE, model("b")], [1, 2, 1], id="the older form"),
    ],
)
def test_units_of_a_history(api: Api, messages: list[Json], lengths: list[int]) -> None:
    found = units(read(api, *messages))
    assert [span.end - span.start for span in found] == lengths
    assert [at for span in found for at in range(*span)] == list(range(len(messages)))


@pytest.mark.parametrize(
    ("api", "messages", "ids"),
    [
        pytest.param(MESSAGES, [user("a"), uses("1"), results("1")], set(), id="whole"),
        pytest.param(MESSAGES, [user("a"), uses("1"), user("b")], {"1"}, id="no result"),
        pytest.param(MESSAGES, [user("a"), results("1")], {"1"}, id="no call"),
        pytest.param(MESSAGES, [user("a"), uses("1")], {"1"}, id="no answer yet"),
        pytest.param(
            MESSAGES, [user("a"), uses("1", "2"), results("1"), model("b")], {"2"}, id="one missing"
        ),
        pytest.param(
            MESSAGES,
            [user("a"), uses("1"), user("wait"), results("1")],
            {"1"},
            id="something in between",
        ),
        pytest.param(
            MESSAGES, [user("a"), uses("1"), results("1"), results("1")], {"1"}, id="twice"
        ),
        pytest.param(
            CHAT, [user("a"), asks("1", "2"), tool("2"), tool("1")], set(), id="in any order"
        ),
        pytest.param(
            CHAT,
            [user("a"), asks("1"), tool("1"), user("b"), asks("1"), tool("1")],
            set(),
            id="the same id in another turn",
        ),
        pytest.param(CHAT, [user("a"), asks("1", "2"), tool("1"), user("b")], {"2"}, id="one left"),
        pytest.param(CHAT, [user("a"), LEGACY, DONE], set(), id="the older form"),
        pytest.param(CHAT, [user("a"), LEGACY, user("b")], {"f"}, id="the older form, no result"),
        pytest.param(CHAT, [user("a"), DONE], {"f"}, id="the older form, no call"),
        pytest.param(CHAT, [user("a"), TWICE, DONE, DONE], set(), id="two by one name"),
        pytest.param(CHAT, [user("a"), TWICE, DONE, user("b")], {"f"}, id="one of two by one name"),
        pytest.param(CHAT, [user("a"), asks("1"), tool("1", [IMAGE])], set(), id="an image"),
    ],
)
def test_calls_and_results_that_do_not_match(api: Api, messages: list[Json], ids: set[str]) -> None:
    assert unpaired(read(api, *messages)) == ids


@given(talks)
def test_in_valid_histories_all_match_and_units_hold_them(talk: Talk) -> None:
    messages = read(talk.api, *talk.messages)
    assert not unpaired(messages)
    for unit in units(messages):
        assert not unpaired(messages[slice(*unit)])


def test_who_typed_last() -> None:
    messages = read(
        MESSAGES, user("a"), uses("1"), results("1", then=[TEXT]), uses("2"), results("2")
    )
    assert last_typed(messages) == 2
    assert last_typed(read(MESSAGES, model("x"), user("Observation: 1"))) == -1


# What must stay.


def test_task_newest_exchange_and_last_results_stay() -> None:
    history = [user("task")]
    for number in range(6):
        history += [uses(str(number)), results(str(number))]
    found = kept(read(MESSAGES, *history))
    assert found.messages == {0, 8, 10, 11, 12}
    assert {(8, 0), (10, 0), (12, 0), (0, 0)} <= found.parts
    assert (6, 0) not in found.parts


def test_the_last_typed_message_stays_though_its_results_may_be_shortened() -> None:
    history = [user("task"), uses("0"), results("0", then=[TEXT])]
    for number in range(1, 6):
        history += [uses(str(number)), results(str(number))]
    found = kept(read(MESSAGES, *history))
    assert 2 in found.messages
    assert (2, 0) not in found.parts


@pytest.mark.parametrize(
    "odd",
    [
        pytest.param(SYSTEM, id="role system"),
        pytest.param({**model("x"), "id": "msg_1"}, id="an unknown key"),
        pytest.param(model([{"type": "server_tool_use", "id": "s"}]), id="an opaque item"),
        pytest.param({**user("x"), "content": "\ud800"}, id="a lone surrogate"),
    ],
)
def test_what_is_odd_stays(odd: Json) -> None:
    history = [user("task"), odd]
    for number in range(6):
        history += [uses(str(number)), results(str(number))]
    assert 1 in kept(read(MESSAGES, *history)).messages


def test_thinking_of_the_current_turn_stays_and_older_may_go() -> None:
    history = [user("task"), uses("0", before=[thinking(0)]), results("0"), model("done")]
    history += [user("next")]
    for number in range(1, 7):
        before = [thinking(number)] if number == 1 else []
        history += [uses(str(number), before=before), results(str(number))]
    found = kept(read(MESSAGES, *history))
    assert 1 not in found.messages
    assert 5 in found.messages
    assert (6, 0) not in found.parts


def test_a_history_that_begins_with_an_observation_keeps_it_and_what_was_typed() -> None:
    history = [user("Observation: x"), model("a"), user("Fix it"), model("b"), user("c")]
    assert {0, 2} <= kept(read(MESSAGES, *history)).messages


@given(talks)
def test_what_must_stay_is_told_of_every_history(talk: Talk) -> None:
    messages = read(talk.api, *talk.messages)
    found = kept(messages)
    assert found.units == units(messages)
    assert len(messages) - 1 in found.messages
    assert next(at for at, m in enumerate(messages) if m.role == "user") in found.messages
    assert last_typed(messages) in found.messages or last_typed(messages) == -1
    results = [
        (at, index)
        for at, message in enumerate(messages)
        for index, part in enumerate(message.parts)
        if part.kind is Kind.RESULT
    ]
    assert set(results[-3:]) <= found.parts
