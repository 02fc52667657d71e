"""OpenAI Responses: which items belong together, and which are the same."""

from __future__ import annotations

from typing import Any

import pytest
from tests.wire.bodies import dumped
from tests.wire.responses_bodies import NOTED, SAID, Json, call, message, output, reasoning, text

from mitmcontext.condense.units import kept, units, unpaired
from mitmcontext.values import Message
from mitmcontext.wire.api import message_of
from mitmcontext.wire.openai_responses import RESPONSES

# What belongs together.


def history(*items: Any) -> list[Message]:
    return [message_of(RESPONSES, dumped(item)) for item in items]


@pytest.mark.parametrize(
    ("items", "expected"),
    [
        pytest.param([reasoning(), SAID], [(0, 1), (1, 3)], id="reasoning and what is said"),
        pytest.param(
            [reasoning(), call(), output("x"), reasoning("rs_2"), SAID],
            [(0, 1), (1, 4), (4, 6)],
            id="reasoning, a call and its output",
        ),
        pytest.param(
            [SAID, call("a"), call("b"), output("x", "b"), output("x", "a"), SAID],
            [(0, 1), (1, 6), (6, 7)],
            id="parallel calls",
        ),
        pytest.param(
            [call("a"), message("user", "wait"), output("x", "a"), SAID],
            [(0, 1), (1, 4), (4, 5)],
            id="a word thrown in before the output",
        ),
        pytest.param(
            [reasoning(), {"type": "something_new"}, SAID], [(0, 1), (1, 4)], id="something new"
        ),
        pytest.param(
            [reasoning(), {"type": "web_search_call", "id": "ws_1"}, SAID],
            [(0, 1), (1, 4)],
            id="a search by the server",
        ),
    ],
)
def test_units(items: list[Json], expected: list[tuple[int, int]]) -> None:
    messages = history(message("user", "Look"), *items)
    assert [tuple(unit) for unit in units(messages)] == expected
    assert not unpaired(messages)


@pytest.mark.parametrize(
    "items",
    [
        pytest.param([call("a")], id="no output"),
        pytest.param([output("x", "a")], id="no call"),
        pytest.param([output("x", "a"), call("a")], id="the output first"),
    ],
)
def test_what_the_client_left_unpaired_is_seen(items: list[Json]) -> None:
    assert unpaired(history(message("user", "Look"), *items)) == {"a"}


def test_opaque_items_and_prompts_stay() -> None:
    compacted = {"type": "compaction", "encrypted_content": "x"}
    tools = {"type": "additional_tools", "role": "developer", "tools": []}
    items = [tools, message("developer", "x"), message("user", "a"), compacted, SAID]
    items += [message("user", "b"), SAID, message("user", "c"), SAID]
    assert {0, 1, 2, 3} <= kept(history(*items)).messages
    assert 5 not in kept(history(*items)).messages


# The same content, sent again.


@pytest.mark.parametrize(
    ("one", "other"),
    [
        pytest.param(message("user", "x"), message("user", [text("x")]), id="string or text"),
        pytest.param(
            {"role": "assistant", "content": "x"},
            message("assistant", [text("x", "output_text", annotations=[])], id="msg_1"),
            id="an answer, easy or as it came",
        ),
        pytest.param(
            {**call(), "id": "fc_1", "status": "completed"}, call(), id="ids of the server"
        ),
        pytest.param(output("x"), output([text("x")]), id="an output as a string or a text"),
        pytest.param({**output("x"), **NOTED}, output("x"), id="what Codex notes"),
        pytest.param(
            {"type": "additional_tools", "id": "at_1", "tools": [1]},
            {"type": "additional_tools", "id": "at_2", "tools": [1]},
            id="ids of items that are made anew",
        ),
    ],
)
def test_equal_content_has_equal_digests(one: Json, other: Json) -> None:
    first, second = (RESPONSES.parse(dumped(item)) for item in (one, other))
    assert first.digest == second.digest


@pytest.mark.parametrize(
    ("one", "other"),
    [
        pytest.param(message("user", "x"), message("assistant", "x"), id="roles"),
        pytest.param(message("user", "xy"), message("user", [text("x"), text("y")]), id="a cut"),
        pytest.param(call(), call("call_2"), id="ids of calls"),
        pytest.param(
            call(name="f", arguments="1"),
            call(kind="custom_tool_call", name="f", input="1"),
            id="kinds",
        ),
        pytest.param(output("x"), output("x", "call_2"), id="ids of outputs"),
        pytest.param(
            output("x"), output("x", kind="custom_tool_call_output"), id="kinds of outputs"
        ),
        pytest.param(
            output([text("x"), text("y")]), output([text("x\ny")]), id="two texts and one"
        ),
        pytest.param(message("user", "x"), output("x"), id="a text and an output"),
        pytest.param(reasoning(sealed="AAAA"), reasoning(sealed="AAAB"), id="what is sealed"),
        pytest.param(
            message("assistant", "x", phase="commentary"), message("assistant", "x"), id="phases"
        ),
        pytest.param(
            {"type": "compaction", "encrypted_content": "A"},
            {"type": "compaction", "encrypted_content": "B"},
            id="compactions",
        ),
        pytest.param({"type": "new", "id": "1"}, {"type": "new", "id": "2"}, id="unknown items"),
    ],
)
def test_other_content_has_other_digests(one: Json, other: Json) -> None:
    assert RESPONSES.parse(dumped(one)).digest != RESPONSES.parse(dumped(other)).digest
