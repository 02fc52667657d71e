"""OpenAI Responses: what each shape of request is read as."""

from __future__ import annotations

from typing import Any

import pytest
from tests.wire.responses_bodies import PATH, Json, body, message

from mitmcontext.values import Standing, Unreadable
from mitmcontext.wire import api_for
from mitmcontext.wire.api import system_texts, tool_count
from mitmcontext.wire.openai_responses import RESPONSES


def test_a_request_is_found_where_it_stands() -> None:
    raw = (
        b' {"n":1E2, "input" :[ {"role":"user","content":"a"} ],"model":"gpt-5.1",'
        b'"stream": true,"max_output_tokens":5,"instructions":"Be brief.","tools":[{},{}],'
        b'"previous_response_id":null,"conversation":null} '
    )
    found = RESPONSES.read(raw)
    assert found.raw(0) == b'{"role":"user","content":"a"}'
    assert raw[slice(*found.array)] == b'[ {"role":"user","content":"a"} ]'
    assert (found.model, found.max_output, found.stream) == ("gpt-5.1", 5, True)
    assert ([said for _, said in system_texts(found)], tool_count(found)) == (["Be brief."], 2)
    assert (found.hidden, found.edited_by_server) == (False, False)


def test_an_input_that_is_a_string() -> None:
    found = RESPONSES.read(b'{"model":"m","input": "hi" ,"instructions":null}')
    assert [found.raw(at) for at in range(len(found.spans))] == [b'"hi"']
    assert (found.array, found.system) == (found.spans[0], None)


@pytest.mark.parametrize(
    ("others", "hidden"),
    [
        ({"previous_response_id": "resp_1"}, True),
        ({"conversation": "conv_1"}, True),
        ({"conversation": {"id": "conv_1"}}, True),
        ({"input": [{"type": "item_reference", "id": "msg_1"}, message("user", "x")]}, True),
        ({"input": [message("user", 'a text with "item_reference" in it')]}, False),
        ({"previous_response_id": None, "conversation": None, "store": True}, False),
    ],
    ids=["response", "conversation", "conversation object", "reference", "only a word", "none"],
)
def test_who_holds_the_history(others: Json, hidden: bool) -> None:
    found = RESPONSES.read(body(**others))
    assert found.hidden is hidden
    standing, why = RESPONSES.standing(PATH, {}, found)
    assert (standing is Standing.NO_TURN, bool(why)) == (hidden, hidden)


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"model=x", id="a form"),
        pytest.param(b"[]", id="a list"),
        pytest.param(b'{"model":"m"}', id="no input"),
        pytest.param(b'{"input":"x"}', id="no model"),
        pytest.param(b'{"model":"m","input":[]}', id="an empty input"),
        pytest.param(b'{"model":"m","input":null}', id="an input that is null"),
        pytest.param(b'{"model":"m","input":{"role":"user"}}', id="an object"),
        pytest.param(b'{"model":"m","input":["x"]}', id="an input of strings"),
        pytest.param(b'{"model":1,"input":"x"}', id="model a number"),
        pytest.param(b'{"model":"m","input":"x","input":"y"}', id="two inputs"),
        pytest.param(rb'{"model":"m","inp\u0075t":"x","input":"y"}', id="one of them escaped"),
        pytest.param(
            b'{"model":"m","input":"x","previous_response_id":null,"previous_response_id":"a"}',
            id="two histories",
        ),
        pytest.param(b'{"model":"m","input":"\xff"}', id="not UTF-8"),
    ],
)
def test_what_is_no_request_is_unreadable(raw: bytes) -> None:
    with pytest.raises(Unreadable):
        RESPONSES.read(raw)


@pytest.mark.parametrize("wrong", [1, True, None, {}, {"a": 1}])
def test_wrong_types_beside_the_items_hinder_nothing(wrong: Any) -> None:
    others = {"instructions": wrong, "tools": wrong, "max_output_tokens": "5", "stream": "yes"}
    found = RESPONSES.read(body(**others))
    assert (found.system, found.tools, found.max_output, found.stream) == (None, None, None, False)


@pytest.mark.parametrize(
    ("method", "path", "ours"),
    [
        ("POST", "/v1/responses", True),
        ("POST", "/responses", True),
        ("POST", "/openai/v1/responses", True),
        ("POST", "/openai/responses", True),
        ("POST", "/api/v1/responses", True),
        ("POST", "/backend-api/codex/responses", True),
        ("POST", "/backend-api/codex/responses/compact", True),
        ("POST", "/v1/responses/input_tokens", True),
        ("GET", "/v1/responses", False),
        ("POST", "/v1/responses/resp_1/cancel", False),
        ("POST", "/v1/batches", False),
        ("POST", "/v1/conversations", False),
    ],
)
def test_recognised_by_method_and_path(method: str, path: str, ours: bool) -> None:
    assert (api_for(method, path) is RESPONSES) == ours


TURN = {"x-codex-turn-metadata": '{"request_kind":"turn"}'}
COMPACTION = {"x-codex-turn-metadata": '{"request_kind":"compaction"}'}


@pytest.mark.parametrize(
    ("path", "headers", "raw", "standing"),
    [
        pytest.param(PATH, {}, body(), Standing.TURN, id="a turn"),
        pytest.param(PATH, TURN, body(client_metadata=TURN), Standing.TURN, id="Codex's turn"),
        pytest.param(PATH, COMPACTION, body(), Standing.NO_TURN, id="Codex's header"),
        pytest.param(
            PATH, TURN, body(client_metadata=COMPACTION), Standing.NO_TURN, id="Codex's metadata"
        ),
        pytest.param(
            PATH,
            {},
            body(message("user", "x"), {"type": "compaction_trigger"}),
            Standing.NO_TURN,
            id="Codex's last item",
        ),
        pytest.param(
            PATH,
            {"x-codex-turn-metadata": "{"},
            body(message("user", "compaction_trigger"), client_metadata=[TURN]),
            Standing.TURN,
            id="what only looks like it",
        ),
        pytest.param(
            PATH,
            {},
            rb'{"model":"m","input":"\ud800","client_metadata":{"x-codex-turn-metadata":'
            rb'"{\"request_kind\":\"compaction\"}","request_kind":"\ud800"}}',
            Standing.NO_TURN,
            id="beside lone surrogates",
        ),
        pytest.param(f"{PATH}/compact", {}, body(), Standing.NO_TURN, id="compact"),
        pytest.param(f"{PATH}/input_tokens", {}, body(), Standing.NO_TURN, id="a count"),
        pytest.param(
            PATH,
            {},
            body(context_management=[{"type": "compaction", "compact_threshold": 9}]),
            Standing.NO_TURN,
            id="the server compacts",
        ),
        pytest.param(
            PATH,
            {},
            body(instructions="You are a title generator. Be short."),
            Standing.ALONE,
            id="a title",
        ),
        pytest.param(
            PATH,
            {},
            body(
                message("developer", "You are a context summarization agent."), message("user", "x")
            ),
            Standing.NO_TURN,
            id="OpenCode's compaction",
        ),
        pytest.param(
            PATH,
            {},
            body(instructions="You are a title generator.", tools=[{}]),
            Standing.TURN,
            id="with tools it is an agent",
        ),
        pytest.param(PATH, {}, body({"type": 7}), Standing.TURN, id="an odd first item"),
    ],
)
def test_what_a_request_is_to_its_conversation(
    path: str, headers: dict[str, str], raw: bytes, standing: Standing
) -> None:
    found, why = RESPONSES.standing(path, headers, RESPONSES.read(raw))
    assert found is standing
    assert bool(why) == (standing is not Standing.TURN)
