"""What is known of a message is found again by its bytes, and counted once."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from mitmcontext.known import Known, _Recent
from mitmcontext.stores.memory import MemoryStore, lru
from mitmcontext.tokens.estimate import Outside, fixed_tokens, message_tokens, text_tokens
from mitmcontext.tokens.families import Family, family_of
from mitmcontext.values import Unreadable
from mitmcontext.wire.anthropic import MESSAGES
from mitmcontext.wire.openai_chat import CHAT

FAMILY = family_of("claude-opus-4-5")


class Counting:
    """A counter that remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def __call__(self, encoding: str) -> Callable[[str], int]:
        def count(text: str) -> int:
            self.asked.append(text)
            return len(text)

        return count


@pytest.fixture
def counter() -> Counting:
    return Counting()


@pytest.fixture
def known(counter: Counting) -> Known:
    return Known(MemoryStore(lru(1 << 20)), counter)


def request(*contents: Any, **others: Any) -> Any:
    messages = [{"role": "user", "content": content} for content in contents]
    body = {"model": "claude-opus-4-5", "messages": messages, **others}
    return MESSAGES.read(json.dumps(body).encode())


def counted(known: Known, of: Any, family: Family = FAMILY) -> tuple[int, ...]:
    return known.count(MESSAGES, family, of, known.recall(MESSAGES, family, of))


def test_a_message_is_counted_once(known: Known, counter: Counting) -> None:
    first = counted(known, request("one", "two"))
    assert counter.asked == ["one", "two"]
    assert counted(known, request("one", "two", "three"))[:2] == first
    assert counter.asked == ["one", "two", "three"]


def test_figures_are_the_estimates(known: Known) -> None:
    of = request("one", "two and more")
    messages = [MESSAGES.parse(of.raw(at)) for at in range(2)]
    expected = tuple(message_tokens(message, FAMILY, len) for message in messages)
    assert counted(known, of) == expected
    assert counted(known, of) == expected, "also when recalled"
    assert tuple(known.weigh(FAMILY, message) for message in messages) == expected


def test_digests_are_the_messages(known: Known) -> None:
    of = request("one", "two")
    for _ in range(2):
        facts = known.recall(MESSAGES, FAMILY, of)
        assert [f.digest for f in facts] == [MESSAGES.parse(of.raw(at)).digest for at in range(2)]


def test_recalling_may_begin_anywhere(known: Known) -> None:
    of = request("one", "two", "three")
    assert known.recall(MESSAGES, FAMILY, of, 1) == known.recall(MESSAGES, FAMILY, of)[1:]


def test_families_and_apis_count_for_themselves(known: Known, counter: Counting) -> None:
    counted(known, request("one"))
    counted(known, request("one"), family_of("claude-3-haiku"))
    assert counter.asked == ["one", "one"]
    chat = CHAT.read(b'{"messages":[{"role": "user", "content": "one"}]}')
    facts = known.recall(CHAT, FAMILY, chat)
    assert facts[0].digest == CHAT.parse(chat.raw(0)).digest


def test_a_long_text_that_is_shown_again_is_not_counted_again(
    known: Known, counter: Counting
) -> None:
    long = "a file's line, and another one. " * 100
    first = counted(known, request(long, "short"))
    further = request([text("more"), text(long)], "short", "short again")
    again = counted(known, further)
    assert counter.asked == [long, "short", "more", "short again"]
    assert again[0] == message_tokens(
        MESSAGES.parse(request([text("more"), text(long)]).raw(0)), FAMILY, len
    )
    assert known.weigh(FAMILY, MESSAGES.parse(request(long).raw(0))) == first[0]
    assert counter.asked.count(long) == 1


def test_what_was_read_a_moment_ago_is_not_read_again(known: Known) -> None:
    of = request("one", "two")
    told: list[bytes] = []
    known.tell = lambda key, message: told.append(key)
    facts = known.recall(MESSAGES, FAMILY, of)
    first = known.messages(MESSAGES, of, facts)
    assert first == [MESSAGES.parse(of.raw(at)) for at in range(2)]
    again = known.messages(MESSAGES, of, known.recall(MESSAGES, FAMILY, of))
    assert all(one is other for one, other in zip(first, again, strict=True))
    assert told == [fact.key for fact in facts]
    known.clear()
    assert known.messages(MESSAGES, of, facts) == first


def test_what_is_read_is_kept_within_bounds() -> None:
    recent = _Recent(100_000)
    messages = [MESSAGES.parse(request(f"{number} " * 300).raw(0)) for number in range(200)]
    for number, message in enumerate(messages):
        recent.put(b"%d" % number, message)
    kept = [number for number in range(200) if recent.get(b"%d" % number) is not None]
    assert kept == list(range(kept[0], 200)), "what was read first goes first"
    assert 20 < len(kept) < 100
    recent.put(b"large", MESSAGES.parse(request("x" * 20_000).raw(0)))
    assert recent.get(b"large") is None
    assert recent.get(b"199") is messages[199]


def test_what_was_recalled_and_what_was_counted_is_told(known: Known) -> None:
    counted(known, request("one", "two"))
    assert known.take() == (0, 2)
    counted(known, request("one", "two", "three"))
    assert known.take() == (2, 1)
    assert known.take() == (0, 0)


def test_what_lies_outside_the_messages_is_counted_once(known: Known, counter: Counting) -> None:
    tools = [{"name": "read", "input_schema": {"type": "object"}}]
    of = request("x", system="Be brief.", tools=tools)
    listed = of.body[slice(*of.tools)].decode()
    expected = fixed_tokens(Outside(system=True, tools=listed), FAMILY, len)
    expected += text_tokens("Be brief.", FAMILY, len)
    assert known.fixed(FAMILY, of) == pytest.approx(expected, abs=1)
    asked = list(counter.asked)
    assert known.fixed(FAMILY, of) == pytest.approx(expected, abs=1)
    assert counter.asked == asked


def test_a_line_that_changes_does_not_count_the_rest_again(known: Known, counter: Counting) -> None:
    """Claude Code changes a line of its system prompt on each request."""
    for number in range(3):
        line = f"x-anthropic-billing-header: cc_prev_req=req_{number};"
        known.fixed(FAMILY, request("x", system=[text(line), text("You are an agent.")]))
    assert counter.asked.count("You are an agent.") == 1


def text(said: str) -> dict[str, str]:
    return {"type": "text", "text": said}


@pytest.mark.parametrize(
    "others",
    [
        pytest.param({"system": 7}, id="system a number"),
        pytest.param({"system": ["x"]}, id="system of strings"),
        pytest.param({"system": [{"type": "text", "text": 1}]}, id="system of numbers"),
    ],
)
def test_what_is_odd_outside_is_unreadable(known: Known, others: dict[str, Any]) -> None:
    with pytest.raises(Unreadable):
        known.fixed(FAMILY, request("x", **others))


@pytest.mark.parametrize("others", [{}, {"system": None, "tools": None}, {"tools": []}])
def test_without_system_and_tools_there_is_little(known: Known, others: dict[str, Any]) -> None:
    assert known.fixed(FAMILY, request("x", **others)) < 50


def test_what_was_never_counted_is_told_in_bytes(known: Known) -> None:
    of = request("one", "two")
    facts = known.recall(MESSAGES, FAMILY, of)
    whole = known.lacks(FAMILY, of, facts)
    assert whole >= len(of.raw(0)) + len(of.raw(1))
    known.fixed(FAMILY, of)
    known.count(MESSAGES, FAMILY, of, facts)
    assert known.lacks(FAMILY, of, known.recall(MESSAGES, FAMILY, of)) == 0


def test_a_store_that_keeps_nothing_costs_only_time(counter: Counting) -> None:
    known = Known(MemoryStore(lru(1)), counter)
    first = counted(known, request("one", "two"))
    assert counted(known, request("one", "two")) == first
    assert len(counter.asked) == 4
