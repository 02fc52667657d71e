"""The provider's rules for /v1/responses, and what it answers."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loopback.answers import Call, Reply, Usage
from loopback.counting import Model
from loopback.http1 import Wire
from loopback.provider import SPEAKING
from loopback.rules_responses import ITEMS, Memory, answer, check, items_of, say
from mitmcontext.wire.openai_responses import RESPONSES
from mitmcontext.wire.responses_answers import items_added
from mitmcontext.wire.sse import SseReader

Json = dict[str, Any]


def request(*items: Any, **others: Any) -> Json:
    return {"model": "gpt-5.1", "input": list(items) or "hi", "store": False, **others}


def message(role: str = "user", content: Any = "hi", **others: Any) -> Json:
    return {"type": "message", "role": role, "content": content, **others}


def call(id_: str = "a", kind: str = "function_call", **others: Any) -> Json:
    given_ = others or {"name": "f", "arguments": "{}"}
    return {"type": kind, "call_id": id_, **given_}


def output(id_: str = "a", said: Any = "1", kind: str = "function_call_output") -> Json:
    return {"type": kind, "call_id": id_, "output": said}


def reasoning(id_: str = "rs_1", sealed: Any = "gAAAAAx") -> Json:
    return {"type": "reasoning", "id": id_, "summary": [], "encrypted_content": sealed}


def text(said: Any = "x", kind: str = "input_text") -> Json:
    return {"type": kind, "text": said}


PRINTED = {"stdout": "x", "stderr": "", "outcome": {"type": "timeout"}}
ANSWER = message("assistant", [text(kind="output_text")], id="msg_1")
WORDS = {
    "no following": "Item 'rs_1' of type 'reasoning' was provided without its required following",
    "no reasoning": "was provided without its required 'reasoning' item: 'rs_1'.",
}


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(request(), id="a string"),
        pytest.param(request({"role": "user", "content": "x"}), id="an easy message"),
        pytest.param(request(message(), ANSWER, message()), id="turns"),
        pytest.param(request(message(content=[text(), text()])), id="texts"),
        pytest.param(
            request(message(), call("a"), call("b"), output("b"), message(), output("a")),
            id="outputs anywhere behind their calls",
        ),
        pytest.param(request(message(), reasoning(), ANSWER), id="reasoning and an answer"),
        pytest.param(
            request(reasoning(), reasoning("rs_2"), call(), output()), id="reasoning twice"
        ),
        pytest.param(
            request(call(kind="custom_tool_call", name="x", input="ls"),
                    output(said=[text()], kind="custom_tool_call_output")),
            id="a custom tool",
        ),
        pytest.param(
            request(call(kind="shell_call", action={}),
                    output(said=[PRINTED], kind="shell_call_output")),
            id="a shell",
        ),
        pytest.param(
            request(
                {"type": "additional_tools", "role": "developer", "tools": []},
                message(),
                {"type": "compaction", "encrypted_content": "gAAAAAx"},
                {"type": "compaction_trigger"},
            ),
            id="Codex's own items",
        ),
    ],
)  # fmt: skip
def test_takes(body: Json) -> None:
    assert check(body, Memory()) is None


@pytest.mark.parametrize(
    ("body", "said", "param", "code"),
    [
        pytest.param(
            request(message(), call("a")),
            "No tool output found for function call a.",
            "input",
            None,
            id="a call without output",
        ),
        pytest.param(
            request(message(), call(kind="custom_tool_call", name="x", input="")),
            "No tool output found for custom tool call a.",
            "input",
            None,
            id="a custom call without output",
        ),
        pytest.param(
            request(message(), output("a")),
            "No tool call found for function call output with call_id a.",
            "input",
            None,
            id="an output without call",
        ),
        pytest.param(
            request(output("a"), call("a")),
            "No tool call found for function call output with call_id a.",
            "input",
            None,
            id="an output before its call",
        ),
        pytest.param(
            request(message(), reasoning()), WORDS["no following"], "input", None, id="its end"
        ),
        pytest.param(
            request(message(), reasoning(), message()),
            WORDS["no following"],
            "input",
            None,
            id="reasoning before a prompt",
        ),
        pytest.param(
            request(call(), reasoning(), output()),
            WORDS["no following"],
            "input",
            None,
            id="reasoning before an output",
        ),
        pytest.param(
            request(message(), reasoning(sealed=None), ANSWER),
            "Item with id 'rs_1' not found. Items are not persisted when `store` is set to false.",
            "input",
            None,
            id="reasoning that nobody kept",
        ),
        pytest.param(
            request({"type": "item_reference", "id": "msg_9"}),
            "Item with id 'msg_9' not found.",
            "input",
            None,
            id="a reference to nothing",
        ),
        pytest.param(
            request(previous_response_id="resp_9"),
            "Previous response with id 'resp_9' not found.",
            "previous_response_id",
            "previous_response_not_found",
            id="another history",
        ),
        pytest.param(
            request(ANSWER, message(), ANSWER),
            "Duplicate item found with id msg_1.",
            "input",
            None,
            id="an item twice",
        ),
        pytest.param(
            request({"type": "compaction_trigger"}, message()),
            "'compaction_trigger' must be the last item of the input.",
            "input",
            None,
            id="a trigger in between",
        ),
        pytest.param(
            request(message("critic")),
            "Invalid value: 'critic'. Supported values are: 'assistant', 'system', 'developer',"
            " and 'user'.",
            "input[0].role",
            "invalid_value",
            id="an unknown role",
        ),
        pytest.param(
            request(message("assistant", [text()])),
            "Invalid value: 'input_text'. Supported values are: 'output_text' and 'refusal'.",
            "input[0].content[0]",
            "invalid_value",
            id="an answer in a prompt's words",
        ),
        pytest.param(
            request({"type": "thought"}),
            "Invalid value: 'thought'. Supported values are: 'message', ",
            "input[0]",
            "invalid_value",
            id="an unknown type",
        ),
        pytest.param(
            request(message(stub=True)),
            "Unknown parameter: 'input[0].stub'.",
            "input[0].stub",
            "unknown_parameter",
            id="an unknown field",
        ),
        pytest.param(
            request(message(content=[{**text(), "cache_control": {}}])),
            "Unknown parameter: 'input[0].content[0].cache_control'.",
            "input[0].content[0].cache_control",
            "unknown_parameter",
            id="an unknown field of a part",
        ),
        pytest.param(
            request(stop=["x"]),
            "Unknown parameter: 'stop'.",
            "stop",
            "unknown_parameter",
            id="stop",
        ),
        pytest.param(
            request(call(), {"type": "function_call_output", "output": "x"}),
            "Missing required parameter: 'input[1].call_id'.",
            "input[1].call_id",
            "missing_required_parameter",
            id="an output for nobody",
        ),
        pytest.param(
            request(call(), output(said={"a": 1})),
            "Invalid type for 'input[1].output': expected one of an array of objects or string, but"
            " got an object instead.",
            "input[1].output",
            "invalid_type",
            id="an output that is an object",
        ),
        pytest.param(
            request(call(kind="shell_call", action={}), output(said="x", kind="shell_call_output")),
            "Invalid type for 'input[1].output': expected an array of objects, but got a string",
            "input[1].output",
            "invalid_type",
            id="a shell's output that is a string",
        ),
        pytest.param(
            request(message(content=[text(1)])),
            "Invalid type for 'input[0].content[0].text': expected a string, but got an integer",
            "input[0].content[0].text",
            "invalid_type",
            id="a text of 1",
        ),
        pytest.param(
            request({**call("a"), "id": "call_a"}, output("a")),
            "Invalid 'input[0].id': 'call_a'. Expected an ID that begins with 'fc'.",
            "input[0].id",
            "invalid_value",
            id="another kind's id",
        ),
        pytest.param(
            request(call("a" * 65), output("a" * 65)),
            "Invalid 'input[0].call_id': string too long. Expected a string with maximum length 64,"
            " but got a string with length 65 instead.",
            "input[0].call_id",
            "string_above_max_length",
            id="a long id",
        ),
        pytest.param(
            request(max_output_tokens=5),
            "Invalid 'max_output_tokens': integer below minimum value. Expected a value >= 16, but"
            " got 5 instead.",
            "max_output_tokens",
            "integer_below_min_value",
            id="little output",
        ),
        pytest.param(
            {"input": "x"},
            "Missing required parameter: 'model'.",
            "model",
            "missing_required_parameter",
            id="no model",
        ),
    ],
)
def test_refuses_in_the_providers_words(
    body: Json, said: str, param: str, code: str | None
) -> None:
    refusal = check(body, Memory())
    assert refusal is not None
    assert refusal.message.startswith(said)
    assert (refusal.param, refusal.code) == (param, code)
    assert say(refusal, 1)["error"]["message"] == refusal.message
    assert RESPONSES.refuses_length(refusal.status, json.dumps(say(refusal, 1)).encode()) is None


def test_refuses_what_is_no_object() -> None:
    assert check([], Memory()) is not None


@pytest.mark.parametrize(
    "kept",
    [
        pytest.param([], id="nothing"),
        pytest.param([reasoning("rs_2")], id="other reasoning"),
    ],
)
def test_what_was_said_with_reasoning_keeps_it(kept: list[Json]) -> None:
    memory = Memory()
    own = {**call("a"), "id": "fc_1"}
    whole = request(message(), reasoning(), own, ANSWER, output("a"), message())
    assert check(whole, memory) is None
    assert check(whole, memory) is None
    refusal = check(request(message(), *kept, own, output("a")), memory)
    assert refusal is not None
    assert refusal.message == f"Item 'fc_1' of type 'function_call' {WORDS['no reasoning']}"
    refusal = check(request(message(), *kept, ANSWER), memory)
    assert refusal is not None
    assert refusal.message == f"Item 'msg_1' of type 'message' {WORDS['no reasoning']}"


def test_what_is_sealed_may_not_change() -> None:
    memory = Memory()
    assert check(request(message(), reasoning(), ANSWER), memory) is None
    refusal = check(request(message(), reasoning(sealed="gAAAAAy"), ANSWER), memory)
    assert refusal is not None
    assert refusal.code == "invalid_encrypted_content"
    assert "could not be verified" in refusal.message


def test_what_does_not_fit_is_refused_by_the_providers_count() -> None:
    small = Model("*", 1.0, 50)
    assert check(request(message(content="few words")), Memory(), None, small) is None
    refusal = check(request(message(content="many words " * 60)), Memory(), None, small)
    assert refusal is not None
    assert refusal.too_long
    body = json.dumps(say(refusal, 1)).encode()
    assert RESPONSES.refuses_length(refusal.status, body) is not None
    assert not RESPONSES.refuses_shape(refusal.status, body)


def test_it_stands_in_the_registry() -> None:
    wires = [wire(path) for path in ("/v1/responses", "/v1/responses/input_tokens?x=1")]
    (speaking,) = {one for w in wires for one in SPEAKING if one.recognises(w)}
    assert (speaking.name, [speaking.counts(w) for w in wires]) == (
        "openai.responses",
        [False, True],
    )


# Answers.


def wire(path: str = "/v1/responses") -> Wire:
    return Wire("POST", path, b"", (), b"", b"")


USAGE = Usage(fresh=100, read=128, written=0, output=7)
REPLY = Reply("word by word", (Call("look", {"at": "it"}),), thinking="let me see", pieces=4)


def told(body: Json, memory: Memory | None = None, path: str = "/v1/responses") -> Any:
    return answer(wire(path), body, 7, REPLY, USAGE, memory or Memory())


def events(pieces: Iterable[bytes] | None) -> list[Json]:
    reader = SseReader()
    return [json.loads(event.data) for piece in pieces or () for event in reader.feed(piece)]


def test_an_answer_is_the_next_requests_history() -> None:
    memory = Memory()
    body = request(message(), include=["reasoning.encrypted_content"])
    said = told(body, memory).value
    assert [item["type"] for item in said["output"]] == ["reasoning", "message", "function_call"]
    read = RESPONSES.usage_of(said)
    assert read is not None
    assert (read.input_tokens, read.cache_read_tokens, read.output_tokens) == (228, 128, 7)
    back = output(said["output"][-1]["call_id"])
    assert check(request(message(), *said["output"], back), memory) is None
    assert check(request(message(), *said["output"][1:], back), memory) is not None


def test_a_stream_says_the_same() -> None:
    body = request(message(), stream=True, include=["reasoning.encrypted_content"])
    whole = told({**body, "stream": False}).value
    streamed = events(told(body).pieces)
    assert [event["sequence_number"] for event in streamed] == list(range(len(streamed)))
    assert streamed[-1]["response"] == whole
    assert RESPONSES.usage_of(streamed[-1]) == RESPONSES.usage_of(whole)
    one_by_one = [item for event in streamed[:-1] for item in items_added(event)]
    assert one_by_one == list(items_added(streamed[-1])) == whole["output"]
    deltas = [e["delta"] for e in streamed if e["type"] == "response.output_text.delta"]
    assert (len(deltas), "".join(deltas)) == (4, "word by word")


@pytest.mark.parametrize(
    "offers",
    [
        {"tools": [{"type": "custom", "name": "look"}]},
        {"tools": [{"type": "namespace", "tools": [{"type": "custom", "name": "look"}]}]},
        {
            "input": [
                {"type": "additional_tools", "tools": [{"type": "custom", "name": "look"}]},
                message(),
            ]
        },
    ],
    ids=["beside", "in a namespace", "in an item"],
)
def test_a_custom_tool_is_called_as_one(offers: Json) -> None:
    called = told({**request(message()), **offers}).value["output"][-1]
    assert (called["type"], called["input"]) == ("custom_tool_call", '{"at": "it"}')


def test_a_compaction_is_one_sealed_item() -> None:
    asked = request(message(), {"type": "compaction_trigger"})
    for said in (told(asked), told(request(message()), path="/v1/responses/compact")):
        (item,) = said.value["output"]
        assert item["type"] == "compaction"
        assert check(request(message(), item, message()), Memory()) is None


def test_what_is_stored_may_be_gone_on_from() -> None:
    memory = Memory()
    said = told({**request(), "store": True}, memory).value
    back = output(said["output"][-1]["call_id"])
    assert check(request(back, previous_response_id=said["id"]), memory) is None
    referred = [{"type": "item_reference", "id": item["id"]} for item in said["output"][:2]]
    assert check(request(*referred, message()), memory) is None
    assert check(request(referred[1], message()), memory) is not None
    assert told({**request(), "store": False}, Memory()).value["store"] is False


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=8,
)


FIELDS = (
    *("id", "role", "content", "call_id", "output", "name", "arguments"),
    *("summary", "encrypted_content", "action"),
)


@given(
    st.lists(
        st.fixed_dictionaries(
            {"type": st.sampled_from(sorted(ITEMS)) | json_values},
            optional=dict.fromkeys(FIELDS, json_values),
        )
        | json_values,
        max_size=4,
    )
    | json_values,
    st.dictionaries(st.sampled_from(["tools", "store", "previous_response_id"]), json_values),
)
def test_whatever_comes_is_judged(given_: Any, others: Json) -> None:
    body = {"model": "gpt-5.1", "input": given_, **others}
    if check(body, Memory()) is None:
        assert all(isinstance(item, dict) for item in items_of(body))
