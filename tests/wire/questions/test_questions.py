"""A question of ours in every API: the strict provider takes it, and its answer is read."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import pytest

from loopback.answers import Call, Reply
from loopback.http1 import Wire
from loopback.provider import Provider
from mitmcontext.wire import api_for
from mitmcontext.wire.api import Api
from mitmcontext.wire.asking import Asking, Fault, Prompt, Said

Json = dict[str, Any]

PROMPT = Prompt("", "You report.", 'What was "said"?\n\u2028 \U0001f600', 700)
TEXT = "They spoke of roses."


@dataclass(frozen=True)
class Case:
    """A client's request, and the headers that it needs."""

    path: str
    body: Json
    headers: tuple[tuple[bytes, bytes], ...] = ((b"authorization", b"Bearer sk-1"),)

    @property
    def api(self) -> Api:
        found = api_for("POST", self.path.partition("?")[0])
        assert found is not None
        return found

    @property
    def asking(self) -> Asking:
        assert self.api.asking is not None
        return self.api.asking

    @property
    def model(self) -> str:
        return str(self.body.get("model") or self.api.model_in_path(self.path))

    def ask(self, body: bytes, reply: Reply, path: str = "") -> Json:
        """What the strict provider answers; it must not refuse."""
        provider = Provider(default=reply)
        target = path or self.asking.path(self.path, "")
        record, answer = provider.handle(Wire("POST", target, b"", self.headers, body, body))
        assert record.refusal is None, record.refusal
        assert answer.events is None
        found: Json = json.loads(answer.body)
        return found


_TOOL = {"type": "object", "properties": {"path": {"type": "string"}}}
_CHAT = [
    {"role": "system", "content": "You help."},
    {"role": "user", "content": "Look at \u00e9 1.0000000000000000001"},
    {
        "role": "assistant",
        "content": None,
        "tool_calls": [
            {"id": "c1", "type": "function", "function": {"name": "look", "arguments": "{}"}}
        ],
    },
    {"role": "tool", "tool_call_id": "c1", "content": "roses"},
]
_FUNCTION = {"type": "function", "function": {"name": "look", "parameters": _TOOL}}
CASES = {
    "Anthropic": Case(
        "/v1/messages",
        {
            "model": "claude-sonnet-4-5",
            "max_tokens": 9_000,
            "system": [{"type": "text", "text": "x", "cache_control": {"type": "ephemeral"}}],
            "tools": [{"name": "look", "input_schema": _TOOL}],
            "messages": [
                {"role": "user", "content": "Look"},
                {
                    "role": "assistant",
                    "content": [{"type": "tool_use", "id": "t1", "name": "look", "input": {}}],
                },
                {
                    "role": "user",
                    "content": [{"type": "tool_result", "tool_use_id": "t1", "content": "roses"}],
                },
            ],
            "stream": True,
        },
        ((b"x-api-key", b"k"),),
    ),
    "InvokeModel": Case(
        "/model/anthropic.claude-sonnet-4-5-20250929-v1%3A0/invoke-with-response-stream",
        {
            "anthropic_version": "bedrock-2023-05-31",
            "max_tokens": 100,
            "messages": [{"role": "user", "content": "Look"}],
        },
        ((b"authorization", b"Bearer ABSK1"),),
    ),
    "Chat": Case(
        "/v1/chat/completions",
        {
            "model": "gpt-4o",
            "messages": _CHAT,
            "tools": [_FUNCTION],
            "stream": True,
            "stream_options": {"include_usage": True},
        },
    ),
    "Chat, thinking": Case(
        "/v1/chat/completions",
        {"model": "gpt-5", "messages": _CHAT, "tools": [_FUNCTION], "max_completion_tokens": 50},
    ),
    "Responses": Case(
        "/v1/responses",
        {
            "model": "gpt-5",
            "instructions": "You help.",
            "input": [
                {"type": "message", "role": "user", "content": "Look"},
                {"type": "function_call", "call_id": "c1", "name": "look", "arguments": "{}"},
                {"type": "function_call_output", "call_id": "c1", "output": "roses"},
            ],
            "tools": [{"type": "function", "name": "look", "parameters": _TOOL, "strict": False}],
            "stream": True,
        },
    ),
    "Gemini": Case(
        "/v1beta/models/gemini-2.5-pro:streamGenerateContent",
        {
            "systemInstruction": {"parts": [{"text": "You help."}]},
            "contents": [
                {"role": "user", "parts": [{"text": "Look"}]},
                {"role": "model", "parts": [{"functionCall": {"name": "look", "args": {}}}]},
                {
                    "role": "user",
                    "parts": [{"functionResponse": {"name": "look", "response": {"x": "roses"}}}],
                },
            ],
            "tools": [{"functionDeclarations": [{"name": "look", "parameters": _TOOL}]}],
            "generationConfig": {"temperature": 1, "stopSequences": ["x"]},
        },
        ((b"x-goog-api-key", b"k"),),
    ),
    "Code Assist": Case(
        "/v1internal:streamGenerateContent",
        {
            "model": "gemini-2.5-pro",
            "project": "p",
            "request": {"contents": [{"role": "user", "parts": [{"text": "Look"}]}]},
        },
        ((b"authorization", b"Bearer ya29.x"),),
    ),
    "Ollama": Case(
        "/api/chat",
        {
            "model": "llama3.1",
            "messages": [{"role": "user", "content": "Look"}],
            "options": {"num_ctx": 8192, "stop": ["x"]},
        },
    ),
    "Cohere": Case(
        "/v2/chat",
        {"model": "command-a-03-2025", "messages": [{"role": "user", "content": "Look"}]},
    ),
    "Converse": Case(
        "/model/anthropic.claude-sonnet-4-5-20250929-v1%3A0/converse-stream",
        {"messages": [{"role": "user", "content": [{"text": "Look"}]}]},
        ((b"authorization", b"Bearer ABSK1"),),
    ),
}
EVERY = pytest.mark.parametrize("case", CASES.values(), ids=CASES)
BEHIND = [name for name in CASES if name not in ("Cohere", "Converse")]


def encoded(case: Case) -> bytes:
    """With odd but lawful spacing, which has to stay as it is."""
    return json.dumps(case.body, ensure_ascii=False, separators=(" ,", " : ")).encode()


@EVERY
def test_alone_it_is_taken_and_answered(case: Case) -> None:
    request = case.api.read(encoded(case))
    body = case.asking.alone(request, PROMPT._replace(model=case.model))
    assert b"Look" not in body
    assert json.dumps(PROMPT.text)[1:9].encode() in body
    assert case.asking.said(case.ask(body, Reply(TEXT))) == Said(TEXT)


@pytest.mark.parametrize("name", BEHIND)
def test_behind_the_conversation_it_is_taken_and_all_before_it_is_the_clients(name: str) -> None:
    case = CASES[name]
    request = case.api.read(encoded(case))
    body = case.asking.behind(request, PROMPT._replace(model=case.model))
    assert body is not None
    asked = case.api.read(body)
    kept = [asked.raw(at) for at in range(len(asked.spans))]
    assert kept[:-1] == [request.raw(at) for at in range(len(request.spans))]
    last = case.api.parse(kept[-1])
    assert (last.role, last.parts[0].text) == ("user", PROMPT.text)
    for span in ("system", "tools"):
        place, was = getattr(asked, span), getattr(request, span)
        assert (place and body[slice(*place)]) == (was and request.body[slice(*was)])
    assert not asked.stream
    assert case.asking.said(case.ask(body, Reply(TEXT))) == Said(TEXT)


@pytest.mark.parametrize("name", ["Anthropic", "Chat", "Responses", "Gemini"])
def test_a_tool_call_is_no_answer(name: str) -> None:
    case = CASES[name]
    body = case.asking.behind(case.api.read(encoded(case)), PROMPT._replace(model=case.model))
    assert body is not None
    said = case.asking.said(case.ask(body, Reply("Let me look.", (Call("look"),))))
    assert said == Said(fault=Fault.TOOL)


@EVERY
@pytest.mark.parametrize("answer", [{}, {"error": {"message": "x"}}, {"choices": "x"}, {"a": [1]}])
def test_what_is_no_answer_is_none(case: Case, answer: Json) -> None:
    assert case.asking.said(answer) == Said(fault=Fault.SHAPE)


@pytest.mark.parametrize(
    ("name", "answer", "fault"),
    [
        ("Anthropic", {"stop_reason": "max_tokens"}, Fault.CUT_OFF),
        ("Anthropic", {"stop_reason": "refusal"}, Fault.REFUSAL),
        ("Anthropic", {"role": "user"}, Fault.ROLE),
        ("Chat", {"choices": [{"message": {"role": "user", "content": "x"}}]}, Fault.ROLE),
        (
            "Chat",
            {"choices": [{"message": {"role": "assistant"}, "finish_reason": "length"}]},
            Fault.CUT_OFF,
        ),
        (
            "Chat",
            {"choices": [{"message": {"role": "assistant", "refusal": "no"}}]},
            Fault.REFUSAL,
        ),
        ("Responses", {"status": "incomplete", "output": []}, Fault.CUT_OFF),
        ("Responses", {"output": [{"type": "message", "role": "user"}]}, Fault.ROLE),
        (
            "Responses",
            {
                "output": [
                    {
                        "type": "message",
                        "role": "assistant",
                        "content": [{"type": "refusal", "refusal": "no"}],
                    }
                ]
            },
            Fault.REFUSAL,
        ),
        ("Gemini", {"promptFeedback": {"blockReason": "SAFETY"}}, Fault.REFUSAL),
        ("Gemini", {"candidates": [{"finishReason": "MAX_TOKENS"}]}, Fault.CUT_OFF),
        ("Gemini", {"candidates": [{"finishReason": "SAFETY"}]}, Fault.REFUSAL),
        ("Gemini", {"candidates": [{"content": {"role": "user"}}]}, Fault.ROLE),
        ("Converse", {"output": {"message": {"role": "user"}}}, Fault.ROLE),
        (
            "Converse",
            {"output": {"message": {"role": "assistant"}}, "stopReason": "max_tokens"},
            Fault.CUT_OFF,
        ),
        ("Ollama", {"message": {"role": "user"}, "done": True}, Fault.ROLE),
        (
            "Ollama",
            {"message": {"role": "assistant"}, "done": True, "done_reason": "length"},
            Fault.CUT_OFF,
        ),
        (
            "Cohere",
            {"message": {"role": "assistant"}, "finish_reason": "MAX_TOKENS"},
            Fault.CUT_OFF,
        ),
    ],
)
def test_answers_that_cannot_be_used(name: str, answer: Json, fault: Fault) -> None:
    shape = {"type": "message", "role": "assistant", "content": []} if name == "Anthropic" else {}
    assert CASES[name].asking.said(shape | answer).fault is fault


def test_thinking_alone_is_no_text() -> None:
    thought = {"type": "thinking", "thinking": "hm", "signature": "x"}
    answer = {"type": "message", "role": "assistant", "content": [thought]}
    assert CASES["Anthropic"].asking.said(answer) == Said("")
    parts = [{"text": "hm", "thought": True}]
    answer = {"candidates": [{"content": {"role": "model", "parts": parts}}]}
    assert CASES["Gemini"].asking.said(answer) == Said("")


@pytest.mark.parametrize(
    ("name", "more"),
    [
        ("Anthropic", {"tool_choice": {"type": "any"}}),
        ("Anthropic", {"output_config": {"format": {"type": "json_schema", "schema": {}}}}),
        ("Chat", {"tool_choice": "required"}),
        ("Chat", {"response_format": {"type": "json_schema", "json_schema": {"name": "x"}}}),
        ("Responses", {"text": {"format": {"type": "json_schema", "name": "x", "schema": {}}}}),
        ("Responses", {"previous_response_id": "resp_1"}),
        ("Gemini", {"generationConfig": {"responseMimeType": "application/json"}}),
        ("Gemini", {"toolConfig": {"functionCallingConfig": {"mode": "ANY"}}}),
        ("Ollama", {"format": "json"}),
    ],
)
def test_where_text_would_be_no_answer_nothing_is_asked_behind(name: str, more: Json) -> None:
    case = CASES[name]
    request = case.api.read(json.dumps(case.body | more).encode())
    assert case.asking.behind(request, PROMPT) is None


def test_a_thinking_client_keeps_its_room_for_thoughts() -> None:
    case = CASES["Anthropic"]
    thinking = {"thinking": {"type": "enabled", "budget_tokens": 4_000}}
    body = case.asking.behind(case.api.read(json.dumps(case.body | thinking).encode()), PROMPT)
    assert json.loads(body or b"")["max_tokens"] == 9_000
    plain = case.asking.behind(case.api.read(encoded(case)), PROMPT)
    assert json.loads(plain or b"")["max_tokens"] == PROMPT.limit


@pytest.mark.parametrize(
    ("name", "model", "path"),
    [
        ("Anthropic", "x", "/v1/messages"),
        ("InvokeModel", "a.b:0", "/model/a.b%3A0/invoke"),
        ("Gemini", "gemini-flash", "/v1beta/models/gemini-flash:generateContent"),
        ("Code Assist", "x", "/v1internal:generateContent"),
        ("Converse", "a.b:0", "/model/a.b%3A0/converse"),
    ],
)
def test_where_a_path_names_the_model_another_one_is_asked_there(
    name: str, model: str, path: str
) -> None:
    assert CASES[name].asking.path(CASES[name].path, model) == path


def test_vertex_is_asked_for_a_plain_answer() -> None:
    path = "/v1/projects/p/locations/l/publishers/anthropic/models/claude:streamRawPredict"
    asking = CASES["Anthropic"].asking
    assert asking.path(path, "") == path.replace("streamRaw", "raw")
