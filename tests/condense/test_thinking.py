"""Old thinking goes whole, and only where a turn is surely over."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.condense.test_media import conversation, cut, total
from tests.conversations import Talk, laws, long_talk, memory_of, talks, text_block, thinking

from mitmcontext.condense.entries import WHOLE, Entry, FrozenEdit, home
from mitmcontext.condense.invariants import thinking_stays_with_its_calls
from mitmcontext.condense.thinking import turn_started
from mitmcontext.condense.units import kept
from mitmcontext.rewrite import rewritten
from mitmcontext.values import Broken, Kind
from mitmcontext.wire import bedrock, cohere, gemini
from mitmcontext.wire import openai_responses as responses
from mitmcontext.wire.anthropic import MESSAGES
from mitmcontext.wire.api import Api

Json = dict[str, Any]

REDACTED = {"type": "redacted_thinking", "data": "c2VhbGVk" * 200}


def turns(count: int = 3, steps: int = 3, size: int = 100) -> Talk:
    """Some turns of calls, each with thinking; every one ends with an answer and begins typed."""
    whole = long_talk(turns=count * steps, size=size, thinks=True)
    messages = whole.messages[:1]
    for turn in range(count):
        if turn:
            messages += [
                {"role": "assistant", "content": [thinking(900 + turn), text_block("Done.")]},
                {"role": "user", "content": f"And number {turn}?"},
            ]
        start = 1 + 2 * steps * turn
        messages += whole.messages[start : start + 2 * steps]
    whole.messages = messages
    whole.cuts = [len(messages)]
    return whole


def removed(edits: tuple[FrozenEdit, ...]) -> list[tuple[int, int]]:
    return [(edit.message, edit.part) for edit in edits if edit.part != WHOLE and edit.text is None]


def laid(talk: Talk, edits: tuple[FrozenEdit, ...]) -> Json:
    body = talk.request()
    found: Json = json.loads(rewritten(talk.api, talk.api.read(body), edits))
    return found


def test_the_oldest_goes_first_and_no_more_than_is_needed() -> None:
    talk = turns()
    whole = total(conversation(talk))
    assert removed(cut(talk, whole - 40)) == [(1, 0)]
    edits = cut(talk, whole - 200)
    assert removed(edits) == [(1, 0), (3, 0), (5, 0)]
    assert len(edits) == 3
    made = laid(talk, edits)
    for at in (1, 3, 5):
        was = talk.messages[at]
        assert made["messages"][at] == {**was, "content": was["content"][1:]}
    assert talk.refusal(json.dumps(made).encode(), memory_of(talk)) is None


def test_nothing_goes_of_a_turn_that_may_be_under_way() -> None:
    talk = turns(count=2)
    started = turn_started(conversation(talk).messages)
    assert started == 8
    assert all(at < started for at, _ in removed(cut(talk, 0)))


STARTED: dict[str, tuple[list[tuple[str, Any]], int]] = {
    "nothing": ([], -1),
    "one question": ([("user", "a")], -1),
    "one that was not answered yet": ([("user", "a"), ("assistant", "b"), ("user", "c")], -1),
    "one that was": ([("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d")], 2),
    "a word behind a result": (
        [
            ("user", "a"),
            ("assistant", "call"),
            (
                "user",
                [{"type": "tool_result", "tool_use_id": "x", "content": "y"}, text_block("z")],
            ),
            ("assistant", "d"),
        ],
        -1,
    ),
    "a question right behind another": (
        [("user", "a"), ("assistant", "b"), ("user", "c"), ("user", "d"), ("assistant", "e")],
        -1,
    ),
    "a prompt between": (
        [("user", "a"), ("assistant", "b"), ("system", "s"), ("user", "c"), ("assistant", "e")],
        3,
    ),
}


@pytest.mark.parametrize(("said", "started"), STARTED.values(), ids=STARTED)
def test_a_turn_has_begun_where_all_providers_say_so(
    said: list[tuple[str, Any]], started: int
) -> None:
    raws = [json.dumps({"role": role, "content": text}).encode() for role, text in said]
    assert turn_started([MESSAGES.parse(raw) for raw in raws]) == started


def test_what_began_the_next_turn_stays_while_calls_stand_without_their_thinking() -> None:
    """A note in its place would stand beside results, and the turn before go on for a provider."""
    talk = turns(count=4, size=3_000)
    talk.messages[-1]["content"].append(text_block("Make haste."))
    whole = conversation(talk)
    started = turn_started(whole.messages)
    assert started not in kept(whole.messages).messages
    for target in range(0, total(whole), 500):
        edits = cut(talk, target)
        gone = {edit.message for edit in edits if edit.part == WHOLE}
        assert started not in gone or not removed(edits)
        made = json.dumps(laid(talk, edits)).encode()
        assert talk.refusal(made, memory_of(talk)) is None
        after = [MESSAGES.parse(talk.style.dump(m)) for m in json.loads(made)["messages"]]
        assert thinking_stays_with_its_calls(whole.messages, after) == ""


def test_a_call_of_the_turn_under_way_without_its_thinking_is_a_fault() -> None:
    talk = turns(count=2)
    whole = conversation(talk).messages
    started = turn_started(whole)
    for at in (1, started + 1):
        content = talk.messages[at]["content"][1:]
        bare = MESSAGES.parse(talk.style.dump({"role": "assistant", "content": content}))
        after = [*whole[:at], bare, *whole[at + 1 :]]
        fault = thinking_stays_with_its_calls(whole, after)
        assert fault == ("a tool call without its thinking" if at > started else "")


def test_what_is_removed_stays_removed() -> None:
    talk = turns()
    whole = total(conversation(talk))
    first = cut(talk, whole - 100)
    second = cut(talk, whole - 300, frozen=first)
    assert set(removed(first)) < set(removed(second))


def test_an_entry_belongs_behind_the_message_that_ended_the_turn() -> None:
    """Who goes back to before that message is in the middle of the turn again."""
    edit = FrozenEdit(1, 0, b"x", None)
    assert home(Entry((edit,), 1, 9, 5, "warning", since=8), None) == 8


def removing(api: Api, message: Json, at: int) -> bytes:
    key = {gemini.GENERATE.name: "contents", responses.RESPONSES.name: "input"}
    history = [message, {"role": "user", "content": [], "parts": []}]
    body = json.dumps({"model": "m", key.get(api.name, "messages"): history}, indent=1).encode()
    request = api.read(body)
    found = [index for index, part in enumerate(api.parse(request.raw(0)).parts)]
    digests = [api.parse(request.raw(0)).parts[index].digest for index in found]
    return rewritten(api, request, [FrozenEdit(0, at, digests[at], None)])


THOUGHT = {"reasoningContent": {"reasoningText": {"text": "so", "signature": "c2ln"}}}
PLAIN = {"type": "thinking", "thinking": "so"}


@pytest.mark.parametrize(
    ("api", "content", "at"),
    [
        pytest.param(MESSAGES, [thinking(1), text_block("a")], 0, id="Anthropic, first"),
        pytest.param(MESSAGES, [text_block("a"), REDACTED], 1, id="Anthropic, last and redacted"),
        pytest.param(MESSAGES, [text_block("a"), thinking(1), text_block("b")], 1, id="between"),
        pytest.param(bedrock.CONVERSE, [THOUGHT, {"text": "a"}], 0, id="Converse"),
        pytest.param(cohere.CHAT, [PLAIN, text_block("a")], 0, id="Cohere"),
    ],
)
def test_a_block_goes_with_its_comma(api: Api, content: list[Json], at: int) -> None:
    made = json.loads(removing(api, {"role": "assistant", "content": content}, at))
    assert made["messages"][0]["content"] == [one for one in content if one is not content[at]]


@pytest.mark.parametrize(
    ("api", "message"),
    [
        pytest.param(
            cohere.CHAT,
            {
                "role": "assistant",
                "content": [PLAIN],
                "tool_calls": [{"id": "a", "type": "function", "function": {"name": "f"}}],
            },
            id="nothing else in the list",
        ),
        pytest.param(
            gemini.GENERATE,
            {"role": "model", "parts": [{"text": "so", "thought": True}, {"text": "a"}]},
            id="Gemini",
        ),
        pytest.param(
            responses.RESPONSES,
            {"type": "reasoning", "id": "rs_1", "summary": []},
            id="an item of its own",
        ),
        pytest.param(
            MESSAGES,
            {"role": "assistant", "content": [text_block("a"), thinking(1)][::-1][1:]},
            id="what is no thinking",
        ),
    ],
)
def test_these_stay(api: Api, message: Json) -> None:
    with pytest.raises(Broken):
        removing(api, message, 0)


@given(talks, st.integers(0, 20_000))
@laws
def test_the_provider_takes_what_is_left(talk: Talk, target: int) -> None:
    """Signatures included: it has seen the whole conversation."""
    whole = conversation(talk)
    edits = cut(talk, target)
    gone = removed(edits)
    stay = kept(whole.messages)
    for at, index in gone:
        assert whole.messages[at].parts[index].kind is Kind.THINKING
        assert (at, index) not in stay.parts
        assert at < turn_started(whole.messages)
    if gone:
        # What else was done to the conversation is judged elsewhere.
        only = tuple(edit for edit in edits if edit.part != WHOLE and edit.text is None)
        made = laid(talk, only)
        assert talk.refusal(json.dumps(made).encode(), memory_of(talk)) is None
        for at, message in enumerate(talk.messages):
            left = [b for i, b in enumerate(message["content"]) if (at, i) not in gone]
            if isinstance(message["content"], list):
                assert made["messages"][at] == {**message, "content": left}
