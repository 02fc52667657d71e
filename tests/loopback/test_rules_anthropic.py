"""The provider's rules for /v1/messages: what it takes, and in which words it refuses the rest."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from tests.drawn import anything_with

from loopback.counting import Model, count
from loopback.rules_anthropic import Memory, check, count_markers

MARK = {"type": "ephemeral"}
SMALL = Model("*", 1.16, 200)


def request(*messages: Any, **others: Any) -> dict[str, Any]:
    return {
        "model": "claude-sonnet-4-5",
        "max_tokens": 100,
        "messages": list(messages),
        **others,
    }


def user(*content: Any) -> dict[str, Any]:
    return {"role": "user", "content": _content(content)}


def assistant(*content: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": _content(content)}


def _content(content: tuple[Any, ...]) -> Any:
    if len(content) == 1 and isinstance(content[0], str):
        return content[0]
    return [text(item) if isinstance(item, str) else item for item in content]


def text(value: str, **others: Any) -> dict[str, Any]:
    return {"type": "text", "text": value, **others}


def call(id_: str, **others: Any) -> dict[str, Any]:
    return {"type": "tool_use", "id": id_, "name": "read", "input": {"path": "a"}, **others}


def result(id_: str, content: Any = "done", **others: Any) -> dict[str, Any]:
    return {"type": "tool_result", "tool_use_id": id_, "content": content, **others}


def thinking(value: str, signature: str) -> dict[str, Any]:
    return {"type": "thinking", "thinking": value, "signature": signature}


def refused(body: Any, **named: Any) -> str:
    refusal = check(body, **named)
    assert refusal is not None
    assert refusal.status == 400
    assert refusal.kind == "invalid_request_error"
    return refusal.message


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(request(user("hi")), id="a question"),
        pytest.param(request(user("hi"), user("there")), id="two user messages in a row"),
        pytest.param(request(user("a"), assistant(call("t1")), user(result("t1"))), id="a call"),
        pytest.param(
            request(
                user("a"),
                assistant("looking", call("t1"), call("t2")),
                user(result("t2"), result("t1"), "and mind the tests"),
            ),
            id="parallel calls answered in another order, with a text behind",
        ),
        pytest.param(
            request(
                user("a"), assistant(call("t1"), call("t2")), user(result("t1")), user(result("t2"))
            ),
            id="results spread over two messages, which count as one",
        ),
        pytest.param(
            request(user("a"), assistant(call("t1")), user(result("t1", ""))), id="an empty result"
        ),
        pytest.param(request(user("a"), assistant("The answer is")), id="words put into its mouth"),
        pytest.param(request(user("a"), assistant()), id="an empty last assistant message"),
        pytest.param(
            request(user("a"), assistant(thinking("hm", "s"), "b"), user("c")), id="thinking"
        ),
        pytest.param(
            request(
                user(text("a", cache_control=MARK)),
                system=[text("s", cache_control=MARK)],
                tools=[{"name": "read", "input_schema": {}, "cache_control": MARK}],
            ),
            id="three markers",
        ),
    ],
)
def test_takes(body: dict[str, Any]) -> None:
    assert check(body) is None


CASES: list[tuple[str, dict[str, Any], str]] = [
    (
        "a call without a result",
        request(user("a"), assistant(call("t1")), user("b")),
        "messages.1: `tool_use` ids were found without `tool_result` blocks immediately after: t1.",
    ),
    (
        "a call that nothing follows",
        request(user("a"), assistant(call("t1"))),
        "ids were found without `tool_result` blocks immediately after: t1",
    ),
    (
        "one of two parallel calls unanswered",
        request(user("a"), assistant(call("t1"), call("t2")), user(result("t1"))),
        "immediately after: t2.",
    ),
    (
        "a result behind a text",
        request(user("a"), assistant(call("t1")), user("first", result("t1"))),
        "ids were found without `tool_result` blocks immediately after: t1",
    ),
    (
        "a result without a call",
        request(user("a"), assistant("b"), user(result("t1"))),
        "messages.2.content.0: unexpected `tool_use_id` found in `tool_result` blocks: t1.",
    ),
    (
        "a result one message too late",
        request(
            user("a"), assistant(call("t1")), user(result("t1")), assistant("b"), user(result("t1"))
        ),
        "messages.4.content.0: unexpected `tool_use_id`",
    ),
    (
        "a result at the very beginning",
        request(user(result("t1"))),
        "messages.0.content.0: unexpected `tool_use_id`",
    ),
    (
        "two results for one call",
        request(user("a"), assistant(call("t1")), user(result("t1"), result("t1"))),
        "each tool_use must have a single result. Found multiple `tool_result` blocks with id: t1",
    ),
    (
        "one id for two calls",
        request(
            user("a"),
            assistant(call("t1")),
            user(result("t1")),
            assistant(call("t1")),
            user(result("t1")),
        ),
        "`tool_use` ids must be unique",
    ),
    (
        "an empty text block",
        request(user(text(""))),
        "messages: text content blocks must be non-empty",
    ),
    (
        "an empty text block in a result",
        request(user("a"), assistant(call("t1")), user(result("t1", [text("")]))),
        "messages: text content blocks must be non-empty",
    ),
    (
        "an empty system block",
        request(user("a"), system=[text("")]),
        "system: text content blocks must be non-empty",
    ),
    (
        "a text of blanks",
        request(user(" \n")),
        "messages: text content blocks must contain non-whitespace text",
    ),
    (
        "an empty message",
        request(user("a"), assistant(), user("b")),
        "messages.1: all messages must have non-empty content except for the optional final",
    ),
    (
        "five markers",
        request(
            user(text("a", cache_control=MARK), text("b", cache_control=MARK)),
            assistant(call("t1", cache_control=MARK)),
            user(result("t1", [text("c", cache_control=MARK)], cache_control=MARK)),
        ),
        "A maximum of 4 blocks with cache_control may be provided. Found 5.",
    ),
    (
        "a marker on an empty text",
        request(user(text("", cache_control=MARK))),
        "cache_control cannot be set for empty text blocks",
    ),
    (
        "a marker on thinking",
        request(user("a"), assistant({**thinking("hm", "s"), "cache_control": MARK}), user("b")),
        "messages.1.content.0.thinking.cache_control: Extra inputs are not permitted",
    ),
    (
        "a marker for an hour behind one for five minutes",
        request(
            user(text("a", cache_control=MARK), text("b", cache_control={**MARK, "ttl": "1h"}))
        ),
        "a ttl='1h' cache_control block must not come after a ttl='5m' cache_control block",
    ),
    (
        "an assistant's message first",
        request(assistant("a"), user("b")),
        'messages: first message must use the "user" role',
    ),
    ("no messages", request(), "messages: at least one message is required"),
    ("an unknown key", request(user("a"), foo=1), "foo: Extra inputs are not permitted"),
    (
        "an unknown key of a message",
        request({**user("a"), "name": "x"}),
        "messages.0.name: Extra inputs are not permitted",
    ),
    (
        "an unknown key of a block",
        request(user(text("a", digest="x"))),
        "messages.0.content.0.text.digest: Extra inputs are not permitted",
    ),
    (
        "an unknown type of block",
        request(user({"type": "stub", "text": "x"})),
        "messages.0.content.0: Input tag 'stub' found using 'type' does not match any of the",
    ),
    (
        "an unknown role",
        request(user("a"), {"role": "tool", "content": "x"}),
        "messages: Unexpected role 'tool'.",
    ),
    (
        "a system message without the beta",
        request(user("a"), {"role": "system", "content": "x"}),
        'messages: Unexpected role "system".',
    ),
    (
        "no limit of the output",
        {"model": "claude-sonnet-4-5", "messages": [user("a")]},
        "max_tokens: Field required",
    ),
    (
        "a limit that is text",
        request(user("a"), max_tokens="100"),
        "max_tokens: Input should be a valid integer",
    ),
    (
        "a result in an assistant's message",
        request(user("a"), assistant(result("t1"))),
        "messages.1.content.0: `tool_result` blocks can only be in `user` messages",
    ),
    (
        "a call in a user's message",
        request(user(call("t1"))),
        "messages.0.content.0: `tool_use` blocks can only be in `assistant` messages",
    ),
    (
        "a call whose input is text",
        request(user("a"), assistant(call("t1", input="{}")), user(result("t1"))),
        "messages.1.content.0.tool_use.input: Input should be a valid dictionary",
    ),
    (
        "blanks at the end of words put into its mouth",
        request(user("a"), assistant("The answer is ")),
        "messages: final assistant content cannot end with trailing whitespace",
    ),
    (
        "thinking that takes all of the output",
        request(user("a"), thinking={"type": "enabled", "budget_tokens": 2000}),
        "`max_tokens` must be greater than `thinking.budget_tokens`.",
    ),
]


@pytest.mark.parametrize(
    ("body", "words"), [pytest.param(body, words, id=id_) for id_, body, words in CASES]
)
def test_refuses(body: dict[str, Any], words: str) -> None:
    assert words in refused(body)


def test_a_beta_lets_system_messages_in() -> None:
    body = request(user("a"), {"role": "system", "content": "x", "output_config": {}}, user("b"))

    assert check(body, betas=frozenset({"mid-conversation-system-2026-01-01"})) is None


def test_count_tokens_needs_no_limit_and_knows_no_stream() -> None:
    body = {"model": "claude-sonnet-4-5", "messages": [user("a")]}

    assert check(body, counting=True) is None
    assert "stream: Extra" in refused({**body, "stream": True}, counting=True)


def test_a_context_that_is_too_long_is_named_with_both_numbers() -> None:
    body = request(user("word " * 1_000))
    refusal = check(body, model=SMALL)

    assert refusal is not None
    assert refusal.too_long
    assert refusal.message == f"prompt is too long: {count(body, SMALL)} tokens > 200 maximum"


def test_older_models_count_the_output_too() -> None:
    older = Model("*", 1.0, 200, counts_output=True)
    message = refused(request(user("hello"), max_tokens=199), model=older)

    assert message.startswith("input length and `max_tokens` exceed context limit: ")


class TestThinking:
    """Signatures are genuine if they were issued here, or are learned at first sight."""

    def loop(self, *content: Any) -> dict[str, Any]:
        """A tool loop that is still going on."""
        return request(user("a"), assistant(*content, call("t1")), user(result("t1")))

    def test_what_was_issued_may_come_back(self) -> None:
        memory = Memory()
        assert check(self.loop(thinking("hm", memory.sign("hm"))), memory) is None

    def test_an_altered_text_under_an_issued_signature_is_refused(self) -> None:
        memory = Memory()
        body = self.loop(thinking("h", memory.sign("hm")))

        assert "latest assistant message cannot be modified" in refused(body, memory=memory)

    def test_an_altered_text_under_a_learned_signature_is_refused(self) -> None:
        memory = Memory()
        check(self.loop(thinking("hm", "recorded")), memory)

        assert "cannot be modified" in refused(self.loop(thinking("h", "recorded")), memory=memory)

    def test_in_an_older_turn_the_signature_is_called_invalid(self) -> None:
        memory = Memory()
        body = self.loop(thinking("h", memory.sign("hm")))
        body["messages"] += [assistant("done"), user("next")]

        assert "messages.1.content.0: Invalid `signature` in `thinking` block" in refused(
            body, memory=memory
        )

    def test_thinking_may_not_vanish_from_the_current_turn(self) -> None:
        memory = Memory()
        check(self.loop(thinking("hm", "s")), memory)

        assert "Expected `thinking` or `redacted_thinking`, but found `tool_use`" in refused(
            self.loop(), memory=memory
        )

    def test_one_of_two_may_not_vanish_either(self) -> None:
        memory = Memory()
        check(self.loop(thinking("hm", "s"), thinking("well", "u")), memory)

        assert "cannot be modified" in refused(self.loop(thinking("hm", "s")), memory=memory)

    def test_thinking_may_vanish_from_an_older_turn(self) -> None:
        memory = Memory()
        check(self.loop(thinking("hm", "s")), memory)
        body = self.loop()
        body["messages"] += [assistant("done"), user("next")]

        assert check(body, memory) is None

    def test_a_text_behind_a_result_begins_no_new_turn(self) -> None:
        memory = Memory()
        check(self.loop(thinking("hm", "s")), memory)
        body = request(user("a"), assistant(call("t1")), user(result("t1"), "and quickly"))

        assert "Expected `thinking`" in refused(body, memory=memory)

    def test_a_refused_request_teaches_nothing(self) -> None:
        memory = Memory()
        check(request(user("a"), assistant(thinking("h", "s"), call("t1"))), memory)

        assert check(self.loop(thinking("hm", "s")), memory) is None


def test_markers_are_counted_wherever_they_may_stand() -> None:
    body = request(
        user("a"),
        assistant(call("t1", cache_control=MARK)),
        user(result("t1", [text("c", cache_control=MARK)], cache_control=MARK)),
        system=[text("s", cache_control=MARK)],
        tools=[{"name": "read", "input_schema": {}, "cache_control": MARK}],
    )
    assert count_markers(body) == 5


JSON = anything_with(
    "role content type text id tool_use_id name input messages system tools"
    " thinking signature cache_control source is_error max_tokens model",
    "user assistant system text tool_use tool_result thinking",
)


@settings(max_examples=300)
@given(JSON)
def test_any_json_gets_an_answer(value: Any) -> None:
    check(value)
    body = {"model": "claude-x", "max_tokens": 5, "messages": value}
    check(body)
    check({**body, "messages": [{"role": "user", "content": value}]})
    check({**body, "messages": [user("a")], "tools": value, "system": value})
