"""The unmodified SDKs, led through the proxy by environment variables alone.

They are imported where they are used: that takes two seconds, of each process that runs tests.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest
from tests.e2e.fixture_types import StartProxy, Stats

from loopback.answers import Call, Reply
from loopback.child import Child
from loopback.provider import Behaviour, Provider, with_windows

if TYPE_CHECKING:
    import openai

WINDOW = 12_000
CLAUDE, GPT = "claude-haiku-4-5", "gpt-4o"
LOOK: Any = {
    "name": "look",
    "description": "Look at one shelf.",
    "input_schema": {"type": "object", "properties": {"shelf": {"type": "integer"}}},
}
LOOK_GPT: Any = {
    "type": "function",
    "function": {"name": "look", "parameters": LOOK["input_schema"]},
}


@pytest.fixture
def proxy(provider: Provider, start_proxy: StartProxy, through: Callable[[Child], None]) -> Child:
    """A proxy with a small window, which this process's SDKs go through."""
    provider.models = with_windows({"*": WINDOW})
    provider.behaviour = Behaviour(encoding="accept")
    started = start_proxy(f"context_windows=*={WINDOW}")
    through(started)
    return started


def shelf(number: int) -> str:
    """What is seen on one shelf, about 900 tokens."""
    return "\n".join(f"{place:3} a book called title-{number}-{place}" for place in range(90))


def looks(provider: Provider, number: int) -> None:
    """Let the model think and look at a shelf next."""
    provider.replies.append(
        Reply("Next shelf.", (Call("look", {"shelf": number}),), thinking=f"shelf {number} is next")
    )


@pytest.mark.filterwarnings("ignore:The model:DeprecationWarning")
def test_anthropic_in_a_tool_loop(proxy: Child, provider: Provider, stats: Stats) -> None:
    import anthropic

    client = anthropic.Anthropic(api_key="k", max_retries=0)
    messages: list[Any] = [{"role": "user", "content": "Which shelf holds title-7-7?"}]
    for number in range(24):
        looks(provider, number)
        asked: dict[str, Any] = {"model": CLAUDE, "max_tokens": 500, "messages": messages}
        if number % 2:
            with client.messages.stream(**asked, tools=[LOOK]) as stream:
                answer = stream.get_final_message()
        else:
            answer = client.messages.create(**asked, tools=[LOOK])
        call = answer.content[-1]
        assert isinstance(call, anthropic.types.ToolUseBlock)
        assert call.input == {"shelf": number}
        messages.append({"role": "assistant", "content": answer.content})
        result = {"type": "tool_result", "tool_use_id": call.id, "content": shelf(number)}
        messages.append({"role": "user", "content": [result]})

    _condensed(provider, stats(proxy))


async def test_openai_in_a_tool_loop_asynchronously(
    proxy: Child, provider: Provider, stats: Stats
) -> None:
    import openai

    client = openai.AsyncOpenAI(api_key="k", max_retries=0)
    messages: list[Any] = [
        {"role": "developer", "content": "Answer with the number of a shelf."},
        {"role": "user", "content": "Which shelf holds title-7-7?"},
    ]
    for number in range(24):
        looks(provider, number)
        if number % 2:
            call = await _streamed_call(client, messages)
        else:
            answer = await client.chat.completions.create(
                model=GPT, messages=messages, tools=[LOOK_GPT]
            )
            found = (answer.choices[0].message.tool_calls or [])[0]
            call = found.model_dump()
        messages.append({"role": "assistant", "content": None, "tool_calls": [call]})
        messages.append({"role": "tool", "tool_call_id": call["id"], "content": shelf(number)})

    _condensed(provider, await asyncio.to_thread(stats, proxy))


async def _streamed_call(client: openai.AsyncOpenAI, messages: list[Any]) -> dict[str, Any]:
    stream = await client.chat.completions.create(
        model=GPT,
        messages=messages,
        tools=[LOOK_GPT],
        stream=True,
        stream_options={"include_usage": True},
    )
    call: dict[str, Any] = {}
    usage = None
    async for chunk in stream:
        usage = chunk.usage or usage
        for choice in chunk.choices:
            for piece in choice.delta.tool_calls or []:
                call = {
                    key: value
                    for key, value in piece.model_dump(exclude_none=True).items()
                    if key != "index"
                }
    assert usage is not None
    return call


def _condensed(provider: Provider, stats: dict[str, Any]) -> None:
    """The conversation outgrew the window, and all of it was taken."""
    assert provider.refused == []
    assert provider.accepted == 24
    assert stats["steps"] >= 1
    assert stats["requests"]["failed_open"] == 0
    assert stats["prefix_breaks_unexplained"] == 0
    assert len(provider.breaks) <= stats["steps"]
    assert max(record.tokens for record in provider.records) <= WINDOW


@pytest.mark.filterwarnings("ignore:The model:DeprecationWarning")
def test_errors_reach_the_sdks_as_their_own_kind(proxy: Child, provider: Provider) -> None:
    import anthropic
    import openai

    provider.replies.append(Reply(status=429))
    with pytest.raises(anthropic.RateLimitError):
        anthropic.Anthropic(api_key="k", max_retries=0).messages.create(
            model=CLAUDE, max_tokens=5, messages=[{"role": "user", "content": "a"}]
        )
    with pytest.raises(openai.BadRequestError, match="did not have response messages"):
        openai.OpenAI(api_key="k", max_retries=0).chat.completions.create(
            model=GPT,
            messages=[
                {"role": "user", "content": "a"},
                {
                    "role": "assistant",
                    "tool_calls": [
                        {
                            "id": "c",
                            "type": "function",
                            "function": {"name": "look", "arguments": "{}"},
                        }
                    ],
                },
            ],
        )


@pytest.mark.filterwarnings("ignore:The model:DeprecationWarning")
def test_counting_is_no_turn_and_sees_what_would_be_sent(proxy: Child, provider: Provider) -> None:
    import anthropic

    client = anthropic.Anthropic(api_key="k", max_retries=0)
    messages: list[Any] = [{"role": "user", "content": "Read these."}]
    for number in range(20):
        call = {"type": "tool_use", "id": f"t{number}", "name": "look", "input": {}}
        result = {"type": "tool_result", "tool_use_id": f"t{number}", "content": shelf(number)}
        messages += [
            {"role": "assistant", "content": [call]},
            {"role": "user", "content": [result]},
        ]
    before = client.messages.count_tokens(model=CLAUDE, messages=messages).input_tokens
    client.messages.create(model=CLAUDE, max_tokens=5, messages=messages)
    after = client.messages.count_tokens(model=CLAUDE, messages=messages).input_tokens

    assert before > WINDOW
    assert after < WINDOW
