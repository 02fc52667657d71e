"""The provider's rules for Gemini's generateContent."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from tests.drawn import anything_with

from loopback.answers import Call, Reply, Usage
from loopback.counting import MODELS, Model, count, model_named
from loopback.http1 import Wire
from loopback.rules_gemini import SENTINELS, SPEAKING, Memory, judge, request_of, say

Json = dict[str, Any]

STUDIO = "/v1beta/models/gemini-2.5-flash:generateContent"
VERTEX = "/v1/projects/p/locations/l/publishers/google/models/gemini-2.5-pro:generateContent"
ASSIST = "/v1internal:streamGenerateContent"
COUNT = "/v1beta/models/gemini-2.5-flash:countTokens"
RECORDED = Path(__file__).parents[2] / "../shared/data/tokens/dev.jsonl.gz"


def user(*parts: Any) -> Json:
    return {"role": "user", "parts": list(parts) or [{"text": "hi"}]}


def model(*parts: Any) -> Json:
    return {"role": "model", "parts": list(parts) or [{"text": "yes"}]}


def call(name: str = "f", signature: str = "", **others: Any) -> Json:
    signed = {"thoughtSignature": signature} if signature else {}
    return {"functionCall": {"name": name, "args": {}, **others}, **signed}


def result(name: str = "f", said: Any = None, **others: Any) -> Json:
    return {"functionResponse": {"name": name, "response": said or {"output": "1"}, **others}}


def request(*contents: Any, **others: Any) -> Json:
    return {"contents": list(contents), **others}


def refused(body: Any, path: str = STUDIO, name: str = "gemini-2.5-flash", **named: Any) -> str:
    found = judge(body, named.pop("memory", Memory()), path, name, named.pop("model", None))
    return found.message if found else ""


@pytest.mark.parametrize(
    ("body", "path"),
    [
        pytest.param(request(user()), STUDIO, id="a question"),
        pytest.param({"contents": {"parts": {"text": "hi"}}}, STUDIO, id="single values"),
        pytest.param(
            request(user(), model(call("a"), call("b")), user(result("a"), result("b"))),
            VERTEX,
            id="parallel calls",
        ),
        pytest.param(
            request(user(), model(call(), call()), user(result()), user(result()), user()),
            STUDIO,
            id="responses that are spread, on AI Studio",
        ),
        pytest.param(request(user(), model(call())), STUDIO, id="a call at the end"),
        pytest.param(request(user(), user(), model(), model(), user()), STUDIO, id="in a row"),
        pytest.param(
            request(
                {"parts": [{"inline_data": {"mime_type": "image/png", "data": "iV_-"}}]},
                system_instruction={"parts": [{"text": "x"}]},
                generation_config={"max_output_tokens": 5},
                tools=[{"function_declarations": [{"name": "f"}]}, {"google_search": {}}],
            ),
            STUDIO,
            id="snake case",
        ),
        pytest.param(
            request(user(), model({"text": ""}, call()), user(result())), STUDIO, id="an empty text"
        ),
        pytest.param(
            request(user(), model({"text": "", "thoughtSignature": "aa"}), user()),
            STUDIO,
            id="nothing but a signature",
        ),
        pytest.param(
            {"model": "m", "project": "p", "request": request(user(), sessionId="s")},
            ASSIST,
            id="code assist",
        ),
        pytest.param(request(user()), COUNT, id="a count"),
        pytest.param(
            {"generateContentRequest": {"model": "models/m", **request(user())}},
            COUNT,
            id="a count of all",
        ),
        pytest.param(request(user(), role=None, cachedContent="c/1"), STUDIO, id="a cache"),
    ],
)
def test_takes(body: Json, path: str) -> None:
    body.pop("role", None)
    assert refused(body, path) == ""


@pytest.mark.parametrize(
    ("body", "words"),
    [
        pytest.param(
            request(user(), model(call(), call()), user(result())),
            "Please ensure that the number of function response parts is equal to the number of"
            " function call parts of the function call turn.",
            id="too few responses",
        ),
        pytest.param(
            request(user(), model(call()), user(result(), result())),
            "the number of function response parts is equal",
            id="too many responses",
        ),
        pytest.param(
            request(user(), model(call()), user()),
            "the number of function response parts is equal",
            id="no response",
        ),
        pytest.param(
            request(user(), model(call()), user({"text": "x"}), user(result())),
            "the number of function response parts is equal",
            id="something else first",
        ),
        pytest.param(
            request(user(), user(result())),
            "Please ensure that function response turn comes immediately after a function call",
            id="a response to nothing",
        ),
        pytest.param(
            request(user(), model(), model(call()), user(result())),
            "Please ensure that function call turn comes immediately after a user turn or after a"
            " function response turn.",
            id="a call behind the model's text",
        ),
        pytest.param(
            request(model(call()), user(result())),
            "Please ensure that function call turn comes immediately after a user turn",
            id="a call at the beginning",
        ),
        pytest.param(request(), "contents is not specified", id="no contents"),
        pytest.param({}, "contents is not specified", id="nothing"),
        pytest.param(
            request(user(), {"role": "model", "parts": []}),
            "* GenerateContentRequest.contents[1].parts: contents.parts must not be empty.",
            id="no parts",
        ),
        pytest.param(
            request(user(), systemInstruction={}),
            "system_instruction.parts: contents.parts must not be empty.",
            id="a system prompt without parts",
        ),
        pytest.param(
            request(user({})),
            "contents[0].parts[0].data: required oneof field 'data' must have one initialized",
            id="an empty part",
        ),
        pytest.param(request(user({"text": ""})), "must have a text parameter", id="an empty text"),
        pytest.param(
            request(user({"text": "x", "fileData": {}})),
            "oneof field 'data' is already set. Cannot set 'fileData'",
            id="two things in a part",
        ),
        pytest.param(
            request(user(), model(call("")), user(result())),
            "contents[1].parts[0].function_call.name: Name cannot be empty.",
            id="a call of nothing",
        ),
        pytest.param(
            request({"role": "assistant", "parts": [{"text": "x"}]}),
            "Please use a valid role: user, model.",
            id="another API's role",
        ),
        pytest.param(
            request(user({"text": "x", "cache_control": {}})),
            'Invalid JSON payload received. Unknown name "cache_control" at'
            " 'contents[0].parts[0]': Cannot find field.",
            id="an unknown name",
        ),
        pytest.param(
            request(user(), messages=[]),
            'Invalid JSON payload received. Unknown name "messages": Cannot find field.',
            id="an unknown name at the top",
        ),
        pytest.param(
            request(user({"text": 5})),
            "Invalid value at 'contents[0].parts[0].text' (TYPE_STRING), 5",
            id="a number for a text",
        ),
        pytest.param(
            request(user(), model(call()), user(result(said="done"))),
            "Invalid value at 'contents[2].parts[0].function_response.response'"
            ' (type.googleapis.com/google.protobuf.Struct), "done"',
            id="a text for a response",
        ),
        pytest.param(
            request("hi"),
            "Invalid value at 'contents[0]'"
            ' (type.googleapis.com/google.ai.generativelanguage.v1beta.Content), "hi"',
            id="a text for a content",
        ),
        pytest.param(
            request(user(), model(call(signature="not base64!")), user(result())),
            "(TYPE_BYTES), Base64 decoding failed",
            id="a signature that is none",
        ),
        pytest.param(
            request(user(), cachedContent="c/1", systemInstruction={"parts": [{"text": "x"}]}),
            "CachedContent can not be used with GenerateContent request setting",
            id="a cache and a system prompt",
        ),
        pytest.param(
            request(user(), tools=[{"functionDeclarations": [{"name": "f"}, {"name": "f"}]}]),
            "Duplicate function declaration found: f",
            id="a function declared twice",
        ),
        pytest.param(
            request(user(), system_instruction=None, systemInstruction=None, contents_x=1),
            "Unknown name",
            id="a suffix",
        ),
        pytest.param([], "Invalid value at ''", id="a list"),
    ],
)
def test_refuses(body: Any, words: str) -> None:
    assert words in refused(body)


def test_both_spellings_are_one_too_many() -> None:
    body = request({"parts": [{"functionCall": {"name": "f"}, "function_call": {"name": "f"}}]})
    assert "already set" in refused(body)


def test_vertex_takes_no_responses_that_are_spread() -> None:
    body = request(user(), model(call(), call()), user(result()), user(result()))
    assert "the number of function response parts" in refused(body, VERTEX)


def test_gemini_3_wants_its_signatures_back() -> None:
    older = [user(), model(call()), user(result()), model()]
    steps = [user(), model(call(signature="aaaa"), call()), user(result(), result())]
    assert refused(request(*older, *steps), name="gemini-3.8-flash") == ""
    for sentinel in SENTINELS:
        assert refused(request(user(), model(call(signature=sentinel))), name="gemini-3-pro") == ""

    bare = request(*older, user(), model(call("look")), user(result("look")))
    assert refused(bare) == ""
    words = refused(bare, name="gemini-3.8-flash")
    assert words.startswith("Function call is missing a thought_signature in functionCall parts.")
    assert "`default_api:look` , position 6." in words


def test_a_signature_belongs_to_its_part() -> None:
    memory = Memory(b"k")
    signature = memory.sign(call("read", id="1"))
    whole = request(user(), model(call("read", signature, id="1")), user(result()))
    assert refused(whole, memory=memory) == ""
    altered = request(user(), model(call("read", signature, id="2")), user(result()))
    assert refused(altered, memory=memory) == "Corrupted thought signature."

    # A client may name a call that came without a name.
    signature = memory.sign(call("read"))
    named = request(user(), model(call("read", signature, id="2")), user(result()))
    assert refused(named, memory=memory) == ""

    # One that was never seen is learned with what it stands on.
    seen = Memory()
    said = {"text": "It is so.", "thoughtSignature": "bbbb"}
    assert refused(request(user(), model(said), user()), memory=seen) == ""
    other = {"text": "It is", "thoughtSignature": "bbbb"}
    assert "Corrupted" in refused(request(user(), model(other), user()), memory=seen)


def test_a_request_that_is_too_long_is_told_both_sizes() -> None:
    small = Model("*", 1.0, 100)
    body = request(user({"text": "word " * 500}))
    refusal = judge(body, Memory(), STUDIO, "gemini-2.5-flash", small)
    assert refusal is not None
    assert refusal.too_long
    assert refusal.message.startswith("The input token count (")
    assert refusal.message.endswith(") exceeds the maximum number of tokens allowed (100).")
    assert say(refusal, 1)["error"]["status"] == "INVALID_ARGUMENT"
    assert judge(body, Memory(), COUNT, "gemini-2.5-flash", small) is None


def test_signatures_cost_nothing_and_media_what_an_image_costs() -> None:
    def tokens(*parts: Json) -> int:
        body = request(user(*parts))
        told = {**SPEAKING.head(body), "messages": SPEAKING.history(body)}
        return count(told, model_named("gemini-2.5-pro", MODELS))

    plain = tokens({"text": "x"})
    assert tokens({"text": "x", "thoughtSignature": "a" * 4_000}) == plain
    small, large = ({"inlineData": {"mimeType": "image/png", "data": "a" * n}} for n in (4, 40_000))
    assert plain + 1_000 < tokens(small, {"text": "x"}) == tokens(large, {"text": "x"})


# Answers.


def wire(target: str) -> Wire:
    return Wire("POST", target, b"", (), b"", b"")


USAGE = Usage(fresh=90, read=10, written=0, output=7)
REPLY = Reply("word by word", (Call("look", {"at": "it"}),), thinking="let me see", pieces=4)


def answered(target: str, body: Json) -> Any:
    said = SPEAKING.answer(wire(target), body, 3, REPLY, USAGE, Memory())
    if said.pieces is None:
        return said.value
    return said.content_type, b"".join(said.pieces)


def texts(values: list[Json]) -> str:
    parts = [part for v in values for part in v["candidates"][0]["content"]["parts"]]
    return "".join(part.get("text", "") for part in parts if not part.get("thought"))


def test_a_plain_answer_says_all_at_once() -> None:
    whole = answered("/v1beta/models/gemini-3-pro:generateContent", request(user()))
    parts = whole["candidates"][0]["content"]["parts"]
    assert texts([whole]) == "word by word"
    assert parts[-1]["functionCall"] == {"name": "look", "args": {"at": "it"}}
    assert parts[-1]["thoughtSignature"]
    assert whole["usageMetadata"] == {
        "promptTokenCount": 100,
        "totalTokenCount": 107,
        "cachedContentTokenCount": 10,
        "candidatesTokenCount": 7,
    }


def test_a_stream_is_an_array_unless_events_are_asked_for() -> None:
    target = "/v1beta/models/gemini-2.5-flash:streamGenerateContent"
    kind, array = answered(target, request(user()))
    assert kind.startswith("application/json")
    assert texts(json.loads(array)) == "word by word"

    kind, events = answered(f"{target}?alt=sse", request(user()))
    assert kind.startswith("text/event-stream")
    values = [json.loads(event[6:]) for event in events.split(b"\r\n\r\n") if event]
    assert values == json.loads(array)


def test_code_assist_wraps_each_piece() -> None:
    body = {"model": "gemini-3-pro", "request": request(user())}
    _, events = answered(f"{ASSIST}?alt=sse", body)
    values = [json.loads(event[6:]) for event in events.split(b"\r\n\r\n") if event]
    assert texts([value["response"] for value in values]) == "word by word"


def test_what_was_answered_may_be_sent_back() -> None:
    memory = Memory(b"k")
    name = "gemini-3.8-flash"
    path = f"/v1beta/models/{name}:generateContent"
    said = SPEAKING.answer(wire(path), request(user()), 1, REPLY, USAGE, memory)
    content = said.value["candidates"][0]["content"]
    body = request(user(), content, user(result("look")))
    assert refused(body, path, name, memory=memory) == ""


def recorded() -> list[Any]:
    if not RECORDED.exists():
        return []
    with gzip.open(RECORDED, "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    return [row for row in rows if row["api"] == "gemini.generate"]


@pytest.mark.skipif(not RECORDED.exists(), reason="needs requests that the real provider took")
def test_what_the_real_provider_took_is_taken() -> None:
    rows = recorded()
    complaints = {
        words: row["id"] for row in rows if (words := refused(row["request"], STUDIO, row["model"]))
    }
    assert len(rows) > 100
    assert complaints == {}


JSON = anything_with("role parts text functionCall functionResponse name response", "user model")


@settings(max_examples=300)
@given(JSON)
def test_any_json_gets_an_answer(value: Any) -> None:
    for path in (STUDIO, VERTEX, ASSIST, COUNT):
        refused(value, path)
        refused(request(value), path)
        refused(request(user(), model(value)), path)
    refused({"request": value}, ASSIST)
    refused({"generateContentRequest": value}, COUNT)


def test_one_form_for_every_spelling() -> None:
    body = {"contents": {"parts": [{"function_call": {"name": "f"}, "text": None}]}}
    found = request_of(body, STUDIO)
    assert found == {"contents": [{"parts": [{"functionCall": {"name": "f"}}]}]}
