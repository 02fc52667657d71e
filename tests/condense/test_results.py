"""Old results while blocks of them go: what is estimated is what is then written."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.conversations import long_talk, words

from mitmcontext.condense.results import OldResults
from mitmcontext.values import Message


def history(turns: int = 8) -> list[Message]:
    talk = long_talk(turns=turns)
    for number, message in enumerate(talk.messages[2::2]):
        lines = "\n".join(words(number * 50 + line, 60) for line in range(60))
        message["content"][0]["content"] = lines
    return [talk.api.parse(talk.style.dump(message)) for message in talk.messages]


def weights(messages: list[Message]) -> list[int]:
    return [sum(len(part.text) for part in message.parts) // 4 for message in messages]


def old(messages: list[Message]) -> OldResults:
    places = [(at, 0) for at in range(2, len(messages) - 6, 2)]
    return OldResults(messages, weights(messages), places)


def test_nothing_is_shortened_before_something_is_left_out() -> None:
    results = old(history())
    assert not any(map(results.is_shortened, range(len(results.places))))
    assert results.leave_out(0) == set()
    assert [results.freed(at) for at in range(len(results.places))] == [0.0] * len(results.places)


@given(st.integers(1, 6_000))
def test_about_as_much_goes_as_was_asked_for(tokens: int) -> None:
    messages = history()
    results = old(messages)
    held = results.tokens
    changed = results.leave_out(tokens)
    freed = sum(results.freed(at) for at in changed)
    if results.tokens:
        assert freed >= tokens - 1 or held - results.tokens >= tokens
        assert held - results.tokens <= tokens + 700
    for at in changed:
        assert results.is_shortened(at)
        whole = messages[results.places[at][0]].parts[0].text
        written = (len(whole) - len(results.stub(at))) / 4
        assert results.freed(at) == pytest.approx(written, abs=110)


def test_where_all_is_gone_a_line_is_left() -> None:
    results = old(history())
    results.leave_out(1e9)
    assert results.tokens == 0
    for at in range(len(results.places)):
        assert "was removed" in results.stub(at)
        assert "\n" not in results.stub(at)
        assert "\n" not in results.quoted(at)


def test_the_newest_read_of_a_file_stays_longest() -> None:
    talk = long_talk(turns=9)
    for turn, message in enumerate(talk.messages[1::2]):
        message["content"][0]["name"] = "read"
        message["content"][0]["input"] = {"path": "same.py" if turn < 4 else f"{turn}.py"}
    messages = [talk.api.parse(talk.style.dump(message)) for message in talk.messages]
    results = old(messages)
    results.leave_out(0.4 * results.tokens)
    left = [results.freed(at) for at in range(4)]
    assert left[3] < min(left[:3])
