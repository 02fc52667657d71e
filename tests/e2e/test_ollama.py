"""Ollama through the whole proxy, over plain HTTP: nothing is ever left out silently."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import httpx
import pytest
from tests.e2e import forms
from tests.e2e.fixture_types import Connect, Json, StartProxy, Stats
from tests.e2e.forms import STORIES, Story

from demo.session import encode
from loopback.answers import Call, Reply
from loopback.child import Child
from loopback.provider import Behaviour, Provider
from loopback.rules_ollama import Memory
from mitmcontext.wire.ollama import CHAT

WINDOW = 24_000
JSON = {"content-type": "application/json"}


def told(story: Story) -> Iterator[Json]:
    """The requests of a story as an Ollama client sends them."""
    for number, messages in enumerate(story.turns()):
        body: Json = {
            "model": "llama3.1:8b",
            "messages": [{"role": "system", "content": story.system}, *in_form(messages)],
            "tools": forms.functions(),
            "options": {"num_ctx": WINDOW, "temperature": 0.2},
            "keep_alive": "5m",
        }
        yield body if number % 4 else {**body, "stream": False}


def in_form(messages: Sequence[Json]) -> Iterator[Json]:
    """Anthropic's messages in Ollama's form: calls without ids, a message for each result."""
    names: dict[str, str] = {}
    for message in messages:
        said = forms.text_of(message)
        calls = forms.of_kind(message, "tool_use")
        names |= {call["id"]: call["name"] for call in calls}
        for result in forms.of_kind(message, "tool_result"):
            name = names.get(result["tool_use_id"], "run")
            yield {"role": "tool", "tool_name": name, "content": forms.result_text(result)}
        if message["role"] == "user":
            if said:
                yield {"role": "user", "content": said}
            continue
        spoken: Json = {"role": "assistant", "content": said}
        if thoughts := forms.of_kind(message, "thinking"):
            spoken["thinking"] = thoughts[0]["thinking"]
        if calls:
            spoken["tool_calls"] = [
                {"function": {"name": call["name"], "arguments": call["input"]}} for call in calls
            ]
        yield spoken


def memory(provider: Provider) -> Memory:
    """What the server noted of the only account that there is."""
    found = provider.account("").memories["ollama"]
    assert isinstance(found, Memory)
    return found


@pytest.fixture
def client() -> Iterator[Callable[[Child], httpx.Client]]:
    """A function that makes a client which sends everything through a proxy."""
    clients: list[httpx.Client] = []

    def make(proxy: Child) -> httpx.Client:
        clients.append(httpx.Client(proxy=proxy.url, trust_env=False, timeout=60))
        return clients[-1]

    yield make
    for one in clients:
        one.close()


@pytest.mark.parametrize("tell", STORIES)
def test_a_long_chat_stays_whole(
    tell: Callable[[], Story],
    provider: Provider,
    start_proxy: StartProxy,
    client: Callable[[Child], httpx.Client],
    stats: Stats,
) -> None:
    proxy = start_proxy()
    http = client(proxy)
    url = f"http://127.0.0.1:{provider.plain_port}/api/chat"

    def post(body: bytes) -> tuple[int, bytes]:
        answer = http.post(url, content=body, headers=JSON)
        return answer.status_code, answer.content

    bodies = list(told(tell()))
    forms.play(CHAT, bodies, post, provider, lambda: stats(proxy), WINDOW, least_steps=2)

    forms.raw_prefixes_hold(CHAT, provider, stats(proxy)["steps"])
    assert len(memory(provider).dropped) == len(bodies)
    assert memory(provider).truncated == 0


def test_without_the_proxy_its_beginning_would_be_lost(provider: Provider) -> None:
    *_, last = told(forms.made_up())
    url = f"http://127.0.0.1:{provider.plain_port}/api/chat"
    answer = httpx.post(url, content=encode(last), headers=JSON, trust_env=False)
    assert answer.status_code == 200
    assert memory(provider).truncated == 1


def test_a_history_of_tokens_is_counted_and_left_alone(
    provider: Provider,
    start_proxy: StartProxy,
    client: Callable[[Child], httpx.Client],
    stats: Stats,
) -> None:
    proxy = start_proxy()
    url = f"http://127.0.0.1:{provider.plain_port}/api/generate"
    context = list(range(3_900))
    options = {"num_ctx": 4_096}
    body = {"model": "llama3", "prompt": "And then?", "context": context, "options": options}

    answer = client(proxy).post(url, content=encode(body), headers=JSON)

    assert answer.content == provider.records[-1].answer
    assert provider.records[-1].wire.body == encode(body)
    found = stats(proxy)
    assert found["steps"] == 0
    assert found["tokens"]["sent"] == pytest.approx(3_900, rel=0.05)


def test_streams_keep_their_bytes(
    provider: Provider, start_proxy: StartProxy, connect: Connect
) -> None:
    calls = (Call("look", {"at": "it"}),)
    provider.default = Reply("word by word", calls, thinking="let me see", pieces=4)
    connection = connect(start_proxy(), "ollama.com")
    message = {"role": "user", "content": "hi"}
    body = {"model": "llama3.1:8b", "messages": [message], "options": {"num_ctx": 8_192}}
    for split in (0, 1, 7):
        provider.behaviour = Behaviour(split=split, gap=0.01)
        answer = connection.post("/api/chat", tuple(JSON.items()), encode(body))
        assert answer.status == 200
        assert answer.header("content-type") == "application/x-ndjson"
        assert answer.body == provider.records[-1].answer
        assert len(answer.arrived) > 4
