"""Ollama: what each shape of request is read as, and what answers say."""

from __future__ import annotations

from typing import Any

import pytest
from tests.wire.bodies import dumped, message

from mitmcontext.tokens import vocabulary
from mitmcontext.tokens.estimate import message_tokens
from mitmcontext.tokens.families import family_of
from mitmcontext.values import Kind, Standing, TooLong, Unreadable, Usage
from mitmcontext.wire import api_for
from mitmcontext.wire.api import system_texts, tool_count
from mitmcontext.wire.ollama import CHAT, GENERATE


def test_a_chat_is_found_where_it_stands() -> None:
    body = (
        b' {"messages" :[ {"role":"user","content":"a"} ],"model":"llama3.1:8b","tools":[{},{}],'
        b'"options":{"num_ctx":8192,"num_predict":512,"temperature":1E0},"stream":false} '
    )
    found = CHAT.read(body)
    assert found.raw(0) == b'{"role":"user","content":"a"}'
    assert (found.model, found.window, found.max_output) == ("llama3.1:8b", 8_192, 512)
    assert (found.stream, found.hidden, tool_count(found)) == (False, False, 2)


@pytest.mark.parametrize(
    ("options", "window", "output"),
    [
        pytest.param(b"null", None, None, id="null"),
        pytest.param(b"{}", None, None, id="none"),
        pytest.param(b'{"num_ctx":0,"num_predict":-1}', None, None, id="no limit"),
        pytest.param(b'{"num_ctx":"8192","num_predict":true}', None, None, id="no numbers"),
        pytest.param(b"[1]", None, None, id="a list"),
        pytest.param(b'{"num_ctx":4096,"num_predict":-2}', 4_096, None, id="fills the window"),
    ],
)
def test_sizes_are_sizes(options: bytes, window: int | None, output: int | None) -> None:
    body = b'{"model":"m","messages":[{"role":"user"}],"options":' + options + b"}"
    found = CHAT.read(body)
    assert (found.window, found.max_output, found.stream) == (window, output, True)


def test_a_prompt_is_one_message() -> None:
    body = b'{"model":"m","prompt":"Why?","system":"Be brief.","context":null,"images":[]}'
    found = GENERATE.read(body)
    assert [found.raw(at) for at in range(len(found.spans))] == [b"[]", b'"Why?"']
    said = GENERATE.parse(found.raw(1))
    assert [(p.kind, p.text, p.value) for p in said.parts] == [(Kind.TYPED, "Why?", None)]
    assert not said.editable
    assert [text for _, text in system_texts(found)] == ["Be brief."]
    assert GENERATE.standing("/api/generate", {}, found) == (Standing.TURN, "")


def test_a_history_of_tokens_counts_what_it_holds() -> None:
    body = dumped({"model": "llama3", "context": list(range(1_000)), "prompt": "And?"})
    found = GENERATE.read(body)
    assert found.hidden
    assert GENERATE.standing("/api/generate", {}, found)[0] is Standing.NO_TURN
    history, prompt = (GENERATE.parse(found.raw(at)) for at in range(2))
    assert [part.kind for part in history.parts] == [Kind.OPAQUE]
    assert not history.editable
    assert [part.text for part in prompt.parts] == ["And?"]
    family = family_of("llama3")
    encoding = vocabulary.load(family.encoding)
    tokens = message_tokens(history, family, lambda text: vocabulary.count(encoding, text))
    assert tokens == pytest.approx(1_000, rel=0.03)


def test_images_of_a_prompt_are_images() -> None:
    found = GENERATE.read(dumped({"model": "llava", "prompt": "What?", "images": ["iVBO" * 900]}))
    assert [p.kind for p in GENERATE.parse(found.raw(0)).parts] == [Kind.IMAGE]


@pytest.mark.parametrize(
    ("api", "body"),
    [
        pytest.param(CHAT, b"", id="nothing"),
        pytest.param(CHAT, b"model=x", id="a form"),
        pytest.param(CHAT, b'{"model":"m"}', id="loads the model"),
        pytest.param(CHAT, b'{"model":"m","messages":null}', id="null"),
        pytest.param(CHAT, b'{"model":"m","messages":[]}', id="no messages"),
        pytest.param(CHAT, b'{"model":"m","messages":"hi"}', id="messages a string"),
        pytest.param(CHAT, b'{"model":"m","messages":["hi"]}', id="messages of strings"),
        pytest.param(CHAT, b'{"messages":[{}]}', id="no model: another service"),
        pytest.param(CHAT, b'{"model":7,"messages":[{}]}', id="model a number"),
        pytest.param(CHAT, b'{"model":"m","messages":[{}],"messages":[{}]}', id="two messages"),
        pytest.param(
            CHAT, b'{"model":"m","messages":[{}],"options":{"num_ctx":1,"num_ctx":2}}', id="windows"
        ),
        pytest.param(CHAT, b'{"model":"m","messages":[{}],"stream":"\xff"}', id="not UTF-8"),
        pytest.param(GENERATE, b'{"model":"m"}', id="no prompt"),
        pytest.param(GENERATE, b'{"model":"m","prompt":""}', id="an empty prompt"),
        pytest.param(GENERATE, b'{"model":"m","prompt":["a"]}', id="a prompt in pieces"),
        pytest.param(GENERATE, b'{"prompt":"a"}', id="no model for it"),
        pytest.param(GENERATE, b'{"model":"m","prompt":"a","context":"b"}', id="context a string"),
        pytest.param(GENERATE, b'{"model":"m","prompt":"a","prompt":"b"}', id="two prompts"),
    ],
)
def test_what_is_no_request_is_unreadable(api: Any, body: bytes) -> None:
    with pytest.raises(Unreadable):
        api.read(body)


@pytest.mark.parametrize(
    ("method", "path", "api"),
    [
        ("POST", "/api/chat", CHAT),
        ("POST", "/ollama/api/chat", CHAT),
        ("POST", "/api/generate", GENERATE),
        ("GET", "/api/chat", None),
        ("POST", "/api/tags", None),
        ("POST", "/api/embed", None),
        ("POST", "/api/show", None),
        ("POST", "/api/chats", None),
    ],
)
def test_recognised_by_method_and_path(method: str, path: str, api: object) -> None:
    assert api_for(method, path) is api


# Answers.


@pytest.mark.parametrize(
    ("event", "usage"),
    [
        pytest.param(
            {"done": True, "prompt_eval_count": 26, "eval_count": 290}, Usage(26, 290), id="the end"
        ),
        pytest.param({"done": True, "eval_count": 290}, Usage(None, 290), id="all cached"),
        pytest.param({"done": True}, None, id="nothing told"),
        pytest.param({"done": False, "message": {"content": "x"}}, None, id="a piece"),
        pytest.param({"error": "model not found"}, None, id="an error"),
    ],
)
def test_usage_is_read_from_the_last_line(event: dict[str, Any], usage: Usage | None) -> None:
    assert CHAT.usage_of(event) == usage


@pytest.mark.parametrize(
    ("status", "said", "shape", "length"),
    [
        (400, "Invalid role: thinking", True, None),
        (400, "json: cannot unmarshal string into Go struct field", True, None),
        (404, "model 'x' not found", False, None),
        (500, "no user query found in messages", False, None),
        (
            400,
            "the prompt is longer than the context length currently available to the model",
            False,
            TooLong(),
        ),
        (400, "the input length exceeds the context length", False, TooLong()),
        (
            400,
            "request (5000 tokens) exceeds the available context size (4096 tokens), try it",
            False,
            TooLong(5_000, 4_096),
        ),
        (503, "server busy, please try again. maximum pending requests exceeded", False, None),
    ],
)
def test_refusals_are_told_apart(
    status: int, said: str, shape: bool, length: TooLong | None
) -> None:
    body = dumped({"error": said})
    assert CHAT.refuses_shape(status, body) == shape
    assert CHAT.refuses_length(status, body) == length


def test_a_title_is_left_alone() -> None:
    said = [message("system", "You are a title generator. Brief."), message("user", "x")]
    body = b'{"model":"m","messages":[' + b",".join(said) + b"]}"
    assert CHAT.standing("/api/chat", {}, CHAT.read(body))[0] is Standing.ALONE
    plain = CHAT.read(dumped({"model": "m", "messages": [{"role": "user", "content": "x"}]}))
    assert CHAT.standing("/api/chat", {}, plain) == (Standing.TURN, "")
