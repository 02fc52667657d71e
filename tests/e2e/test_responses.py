"""OpenAI Responses through the whole proxy: as an SDK sends it, and as Codex does."""

from __future__ import annotations

import base64
import hashlib
import json
import ssl
from collections.abc import Callable, Iterable, Iterator

import httpx
import pytest
from tests.e2e import forms
from tests.e2e.fixture_types import Connect, Json, StartProxy, Stats
from tests.e2e.forms import STORIES, Story
from tests.e2e.waiting import wait_for

from demo.session import encode
from loopback import codings
from loopback.answers import Call, Reply
from loopback.codings import decode
from loopback.provider import Behaviour, Provider, Record, with_windows
from mitmcontext.wire.openai_responses import RESPONSES

WINDOW = 32_000
OPTION = f"context_windows=gpt-*={WINDOW}"
OPENAI, CHATGPT = (
    ("api.openai.com", "/v1/responses"),
    ("chatgpt.com", "/backend-api/codex/responses"),
)
HEADERS = (("authorization", "Bearer k"), ("content-type", "application/json"))


def told(story: Story) -> Iterator[Json]:
    """The requests of a story as a program with the SDK sends them: nothing is stored."""
    tools = [{"type": "function", **tool["function"]} for tool in forms.functions()]
    for number, messages in enumerate(story.turns()):
        yield {
            "model": "gpt-5.1",
            "instructions": story.system,
            "input": [item for at, one in enumerate(messages) for item in in_form(at, one)],
            "tools": tools,
            "store": False,
            "include": ["reasoning.encrypted_content"],
            "stream": number % 4 > 0,
        }


def in_form(at: int, message: Json) -> Iterator[Json]:
    """One of Anthropic's messages as items."""
    for block in forms.blocks(message):
        match block["type"]:
            case "text" if message["role"] == "user":
                yield {"role": "user", "content": block["text"]}
            case "text":
                said = {"type": "output_text", "text": block["text"], "annotations": []}
                own = {"type": "message", "id": f"msg_{at:04d}", "status": "completed"}
                yield {**own, "role": "assistant", "content": [said]}
            case "thinking":
                yield sealed(at, block["thinking"])
            case "tool_use":
                given = json.dumps(block["input"])
                called = {"call_id": block["id"], "name": block["name"], "arguments": given}
                yield {"type": "function_call", "id": f"fc_{block['id'][-12:]}", **called}
            case "tool_result":
                output = forms.result_text(block)
                yield {
                    "type": "function_call_output",
                    "call_id": block["tool_use_id"],
                    "output": output,
                }


def sealed(at: int, thought: str) -> Json:
    """Reasoning as only its provider can read it."""
    mark = hashlib.sha512(thought.encode()).digest() * 24
    content = "gAAAAA" + base64.b64encode(mark + thought.encode()).decode()
    summary = [{"type": "summary_text", "text": thought[:80]}]
    return {
        "type": "reasoning",
        "id": f"rs_{at:04d}",
        "summary": summary,
        "encrypted_content": content,
    }


def told_by_codex(story: Story) -> Iterator[Json]:
    """The same as Codex does: tools and prompts are items, each answer begins with reasoning."""
    tool = {"type": "custom", "name": "exec", "description": "Runs JavaScript.", "format": {}}
    namespace = {"type": "namespace", "name": "functions", "description": "", "tools": [tool]}
    opening: list[Json] = [
        {"type": "additional_tools", "id": "at_1", "role": "developer", "tools": [namespace]},
        spoken("developer", "0", story.system or "Be brief."),
        spoken(
            "user", "1", "<environment_context>\n  <cwd>/srv/quay</cwd>\n</environment_context>"
        ),
    ]
    for messages in story.turns():
        items = [item for at, one in enumerate(messages) for item in by_codex(at, one)]
        yield {
            "model": "gpt-6.1-sol",
            "stream": True,
            "input": opening + items,
            "tool_choice": "auto",
            "parallel_tool_calls": False,
            "reasoning": {"effort": "low", "context": "all_turns"},
            "store": False,
            "include": ["reasoning.encrypted_content"],
            "prompt_cache_key": "quay",
            "text": {"verbosity": "low"},
            "client_metadata": {"x-codex-turn-metadata": '{"request_kind":"turn"}'},
        }


def spoken(role: str, number: str, text: str) -> Json:
    """A message of Codex's own."""
    about = {"type": "message", "id": f"msg_c{number}", "role": role}
    noted = {"internal_chat_message_metadata_passthrough": {"turn_id": "1"}}
    return {**about, "content": [{"type": "input_text", "text": text}], **noted}


def by_codex(at: int, message: Json) -> Iterator[Json]:
    """One message as Codex's items: every call is a script, every output has two parts."""
    noted = {"internal_chat_message_metadata_passthrough": {"turn_id": str(at)}}
    if message["role"] == "assistant":
        yield {**sealed(at, f"What comes after {at}?"), **noted}
    for number, item in enumerate(in_form(at, message)):
        if item.get("role") == "user":
            yield spoken("user", f"{at}_{number}", item["content"])
        elif item["type"] == "function_call":
            call = {"type": "custom_tool_call", "id": f"ctc_{item['id'][3:]}", "name": "exec"}
            script = f"text(await tools.{item['name']}({item['arguments']}))"
            yield {
                **call,
                "call_id": item["call_id"],
                "input": script,
                "status": "completed",
                **noted,
            }
        elif item["type"] == "function_call_output":
            parts = [{"type": "input_text", "text": "Script completed\nOutput:\n"}]
            parts += [{"type": "input_text", "text": item["output"]}]
            made = {"type": "custom_tool_call_output", "call_id": item["call_id"]}
            yield {**made, "id": f"ctco_{item['call_id'][-12:]}", "output": parts, **noted}
        elif item["type"] == "message":
            yield item


@pytest.mark.parametrize("tell", STORIES)
@pytest.mark.parametrize(
    ("form", "place"),
    [pytest.param(told, OPENAI, id="an SDK"), pytest.param(told_by_codex, CHATGPT, id="Codex")],
)
def test_a_long_conversation_fits(
    form: Callable[[Story], Iterator[Json]],
    place: tuple[str, str],
    tell: Callable[[], Story],
    provider: Provider,
    start_proxy: StartProxy,
    connect: Connect,
    stats: Stats,
) -> None:
    provider.models = with_windows({"*": WINDOW})
    proxy = start_proxy(OPTION)
    host, path = place
    bodies = list(form(tell()))

    post = forms.poster(connect(proxy, host), HEADERS, path)
    forms.play(RESPONSES, bodies, post, provider, lambda: stats(proxy), WINDOW, least_steps=2)

    forms.raw_prefixes_hold(RESPONSES, provider, stats(proxy)["steps"])


def arrived(record: Record) -> bytes:
    return decode(record.wire.body, record.wire.header("content-encoding"))


def until_a_step(
    provider: Provider, post: Callable[[bytes], object], form: Iterator[Json]
) -> tuple[Json, bytes]:
    """Play until a request arrives in other bytes; it, and what arrived."""
    for body in form:
        sent = encode(body)
        post(sent)
        if arrived(provider.records[-1]) != sent:
            return body, arrived(provider.records[-1])
    raise AssertionError("no step was taken")


class Http2First(ssl.SSLContext):
    """Asks for HTTP/2 before HTTP/1.1, as Codex does and httpx does not."""

    def set_alpn_protocols(self, alpn_protocols: Iterable[str]) -> None:
        """Offer protocols, "h2" before "http/1.1"."""
        super().set_alpn_protocols(sorted(alpn_protocols))


def test_compressed_bodies_over_http2_as_codex_sends_them(
    provider: Provider, start_proxy: StartProxy, stats: Stats
) -> None:
    provider.models = with_windows({"*": WINDOW})
    # The provider speaks HTTP/1.1; had the proxy asked it first, it would offer no more itself.
    proxy = start_proxy(OPTION, "connection_strategy=lazy")
    trust = Http2First(ssl.PROTOCOL_TLS_CLIENT)
    trust.load_verify_locations(proxy.authority)
    host, path = CHATGPT
    versions = set()

    with httpx.Client(
        http2=True, proxy=proxy.url, verify=trust, trust_env=False, timeout=60
    ) as client:

        def post(body: bytes) -> None:
            headers = {**dict(HEADERS), "content-encoding": "zstd"}
            content = codings.encode(body, "zstd")
            answer = client.post(f"https://{host}{path}", content=content, headers=headers)
            assert answer.status_code == 200
            versions.add(answer.http_version)

        body, went = until_a_step(provider, post, told_by_codex(forms.made_up()))

    assert versions == {"HTTP/2"}
    assert {record.wire.header("content-encoding") for record in provider.records} == {"zstd"}
    assert provider.refused == []
    assert len(went) < len(encode(body))
    assert stats(proxy)["requests"]["failed_open"] == 0


def test_what_is_no_turn_gets_what_is_frozen_and_no_more(
    provider: Provider, start_proxy: StartProxy, connect: Connect, stats: Stats
) -> None:
    provider.models = with_windows({"*": WINDOW})
    proxy = start_proxy(OPTION)
    host, path = OPENAI
    connection = connect(proxy, host)
    body, went = until_a_step(
        provider, forms.poster(connection, HEADERS, path), told(forms.made_up())
    )
    frozen = json.loads(went)["input"]
    steps = stats(proxy)["steps"]

    compacted = {**body, "stream": False, "input": [*body["input"], {"type": "compaction_trigger"}]}
    answer = connection.post(path, HEADERS, encode(compacted))
    assert provider.records[-1].body["input"] == [*frozen, {"type": "compaction_trigger"}]
    assert json.loads(answer.body)["output"][0]["type"] == "compaction"

    asked = {key: body[key] for key in ("model", "input", "instructions", "tools")}
    for place in ("/compact", "/input_tokens"):
        answer = connection.post(path + place, HEADERS, encode(asked))
        assert answer.status == 200
        assert provider.records[-1].body["input"] == frozen
    assert json.loads(answer.body)["input_tokens"] == provider.records[-1].tokens

    # The client begins a new history with what its compaction gave it.
    sealed_history = {"type": "compaction", "encrypted_content": "gAAAAA" + "c" * 400}
    anew = {**body, "input": [{"role": "user", "content": "Go on."}, sealed_history]}
    connection.post(path, HEADERS, encode(anew))
    assert provider.records[-1].wire.body == encode(anew)
    assert stats(proxy)["steps"] == steps
    assert provider.refused == []


def test_what_goes_on_from_the_providers_own_history_is_left_as_it_is(
    provider: Provider, start_proxy: StartProxy, connect: Connect, stats: Stats
) -> None:
    provider.models = with_windows({"*": 1_000_000})
    proxy = start_proxy("context_windows=gpt-*=2000")
    host, path = OPENAI
    connection = connect(proxy, host)
    first = {"model": "gpt-5.1", "input": "What is it?"}
    answer = json.loads(connection.post(path, HEADERS, encode(first)).body)
    long = [{"role": "user", "content": "a few words " * 300} for _ in range(8)]
    bodies = [
        {**first, "input": long, "previous_response_id": answer["id"]},
        {**first, "input": [{"type": "item_reference", "id": answer["output"][0]["id"]}, *long]},
    ]
    for body in bodies:
        connection.post(path, HEADERS, encode(body))

    assert [record.refusal for record in provider.records] == [None] * 3
    assert [record.wire.body for record in provider.records][1:] == [encode(b) for b in bodies]
    found = stats(proxy)
    assert (found["steps"], found["requests"]["recognised"]) == (0, 3)


def test_a_bare_string_is_counted(
    provider: Provider, start_proxy: StartProxy, connect: Connect, stats: Stats
) -> None:
    proxy = start_proxy("context_windows=gpt-*=2000")
    host, path = OPENAI
    connection = connect(proxy, host)
    body = encode({"model": "gpt-5.1", "input": "a few words " * 600})

    def counts() -> bool:
        """Send it, and say whether it was counted: on a busy machine there may not be the time."""
        before = stats(proxy)["tokens"]["sent"]
        connection.post(path, HEADERS, body)
        assert provider.records[-1].wire.body == body
        sent: int = stats(proxy)["tokens"]["sent"] - before
        return abs(sent - provider.records[-1].tokens) < 0.1 * sent

    wait_for(counts)
    found = stats(proxy)
    assert found["steps"] == 0
    assert found["requests"]["recognised"] == len(provider.records)


def test_a_refused_shape_goes_out_once_more(
    provider: Provider, start_proxy: StartProxy, connect: Connect, stats: Stats
) -> None:
    provider.models = with_windows({"*": 1_000_000})
    proxy = start_proxy(OPTION)
    host, path = OPENAI
    connection = connect(proxy, host, port=provider.tls_port)
    said = "Item 'rs_1' of type 'reasoning' was provided without its required following item."
    error = {"message": said, "type": "invalid_request_error", "param": "input", "code": None}
    for body in told(forms.made_up()):
        provider.replies.append(Reply(status=400, error={"error": error}))
        sent = {**body, "stream": True}
        before = provider.number
        answer = connection.post(path, HEADERS, encode(sent))
        if provider.number > before + 1:
            break
    rewritten, original = [record.wire.body for record in provider.records][-2:]
    assert len(rewritten) < len(original)
    assert original == encode(sent)
    assert answer.status == 200
    assert b"response.completed" in answer.body
    assert stats(proxy)["requests"]["refused_after_rewrite"] == 1


@pytest.mark.parametrize("split", [0, 1, 7])
def test_streams_keep_their_bytes(
    split: int, provider: Provider, share_proxy: StartProxy, connect: Connect
) -> None:
    calls = (Call("look", {"at": "it"}),)
    provider.default = Reply("word by word", calls, thinking="let me see", pieces=4)
    provider.behaviour = Behaviour(split=split, gap=0.01)
    host, path = OPENAI
    connection = connect(share_proxy(), host)
    body = {"model": "gpt-5.1", "input": "hi", "stream": True}

    answer = connection.post(path, HEADERS, encode(body))

    assert answer.status == 200
    assert answer.header("content-type").startswith("text/event-stream")
    assert answer.body == provider.records[-1].answer
    assert len(answer.arrived) > 4
