"""What the provider refuses for its shape goes out once more, one rung down."""

from __future__ import annotations

import pytest
from tests.e2e.fixture_types import Connect, StartProxy, Stats

from demo.session import Session, encode
from loopback.answers import Reply
from loopback.child import Child
from loopback.client import Connection
from loopback.provider import Provider, with_windows

WINDOW = 24_000
PATH = "/v1/messages?beta=true"
HEADERS = (("x-api-key", "k"), ("content-type", "application/json"))


def refusal(said: str, kind: str = "invalid_request_error", status: int = 400) -> Reply:
    error = {"type": "error", "error": {"type": kind, "message": said}}
    return Reply(status=status, error=error)


SHAPE = "messages.7: `tool_use` ids were found without `tool_result` blocks immediately after"


def until_a_step(
    provider: Provider, start_proxy: StartProxy, connect: Connect
) -> tuple[Child, Connection, list[bytes]]:
    """Play until the next request is one that is condensed.

    Returns:
        The proxy, the connection through it, and what is left to play.
    """
    provider.models = with_windows({"*": 1_000_000})
    proxy = start_proxy(f"context_windows=claude-*={WINDOW}")
    # Our own connection takes the name's address but not the port that the redirection gives.
    connection = connect(proxy, port=provider.tls_port)
    sent = [encode(body) for body in Session().requests()]
    for body in sent[:10]:
        connection.post(PATH, HEADERS, body)
    assert [record.wire.body for record in provider.records] == sent[:10]
    return proxy, connection, sent[10:]


def test_the_step_is_taken_back_and_none_is_taken_again(
    provider: Provider, start_proxy: StartProxy, connect: Connect, stats: Stats
) -> None:
    proxy, connection, (step, *more) = until_a_step(provider, start_proxy, connect)

    provider.replies.append(refusal(SHAPE))
    answer = connection.post(PATH, HEADERS, step)

    assert answer.status == 200
    assert b"message_stop" in answer.body
    rewritten, original = [record.wire.body for record in provider.records][-2:]
    assert len(rewritten) < len(step)
    assert original == step
    for body in more[:5]:
        connection.post(PATH, HEADERS, body)
    assert [record.wire.body for record in provider.records][-5:] == more[:5]
    found = stats(proxy)
    assert found["requests"]["refused_after_rewrite"] == 1
    assert found["prefix_breaks_unexplained"] == 0


def test_where_the_request_itself_is_at_fault_the_step_stays(
    provider: Provider, start_proxy: StartProxy, connect: Connect, stats: Stats
) -> None:
    proxy, connection, (step, *more) = until_a_step(provider, start_proxy, connect)

    provider.replies.extend([refusal(SHAPE), refusal(SHAPE)])
    assert connection.post(PATH, HEADERS, step).status == 400
    connection.post(PATH, HEADERS, more[0])

    assert len(provider.records[-1].wire.body) < len(more[0])
    assert stats(proxy)["requests"]["refused_after_rewrite"] == 1


@pytest.mark.parametrize(
    "reply",
    [
        pytest.param(refusal("Overloaded", "overloaded_error", 529), id="overloaded"),
        pytest.param(refusal("Number of tokens", "rate_limit_error", 429), id="rate"),
        pytest.param(refusal("invalid x-api-key", "authentication_error", 401), id="the key"),
    ],
)
def test_other_refusals_are_none_of_ours(
    provider: Provider, start_proxy: StartProxy, connect: Connect, stats: Stats, reply: Reply
) -> None:
    proxy, connection, (step, *_) = until_a_step(provider, start_proxy, connect)

    provider.replies.append(reply)
    answer = connection.post(PATH, HEADERS, step)

    assert answer.status == reply.status
    assert len(provider.records) == 11
    assert stats(proxy)["requests"]["refused_after_rewrite"] == 0


def test_a_window_that_is_smaller_than_known_is_learned_from_the_refusal(
    provider: Provider, start_proxy: StartProxy, connect: Connect, stats: Stats
) -> None:
    """The table says 200,000 tokens; this provider takes 24,000, and says so once."""
    provider.models = with_windows({"*": WINDOW})
    proxy = start_proxy()
    connection = connect(proxy, port=provider.tls_port)
    sent = [encode(body) for body in Session().requests()]

    answers = [connection.post(PATH, HEADERS, body) for body in sent]

    assert {answer.status for answer in answers} == {200}
    assert len(provider.refused) == 1
    assert provider.refused[0][1].too_long
    found = stats(proxy)
    assert found["requests"]["refused_length"] == 1
    assert found["steps"] >= 8
    assert found["prefix_breaks_unexplained"] == 0
    assert len(provider.breaks) <= found["steps"]


def test_a_refusal_that_nothing_helps_against_comes_as_it_is(
    provider: Provider, start_proxy: StartProxy, connect: Connect, stats: Stats
) -> None:
    provider.models = with_windows({"*": 2_000})
    proxy = start_proxy()
    connection = connect(proxy, port=provider.tls_port)
    message = {"role": "user", "content": "one long question " * 2_000}
    body = encode({"model": "claude-sonnet-4-5", "max_tokens": 10, "messages": [message]})

    answer = connection.post(PATH, HEADERS, body)

    assert answer.status == 400
    assert answer.body == provider.records[-1].answer
    assert [record.wire.body for record in provider.records] == [body]
    assert stats(proxy)["requests"]["refused_length"] == 1


def test_a_refusal_without_figures_is_learned_from_too(
    provider: Provider, start_proxy: StartProxy, connect: Connect, stats: Stats
) -> None:
    provider.models = with_windows({"*": 1_000_000})
    proxy = start_proxy()
    connection = connect(proxy, port=provider.tls_port)
    sent = [encode(body) for body in Session().requests()]
    for body in sent[:20]:
        connection.post(PATH, HEADERS, body)

    provider.replies.append(refusal("prompt is too long"))
    answer = connection.post(PATH, HEADERS, sent[20])

    assert answer.status == 200
    assert len(provider.records[-1].wire.body) < 0.8 * len(sent[20])
    assert stats(proxy)["requests"]["refused_length"] == 1


def test_what_was_accepted_before_is_not_at_fault(
    provider: Provider, start_proxy: StartProxy, connect: Connect, stats: Stats
) -> None:
    """The provider took the step; what it refuses later has another reason, and comes as it is."""
    proxy, connection, (step, *more) = until_a_step(provider, start_proxy, connect)
    connection.post(PATH, HEADERS, step)
    connection.post(PATH, HEADERS, more[0])
    seen = len(provider.records)

    provider.replies.append(refusal("Could not process image"))
    answer = connection.post(PATH, HEADERS, more[1])

    assert answer.status == 400
    assert b"Could not process image" in answer.body
    assert len(provider.records) == seen + 1
    assert connection.post(PATH, HEADERS, more[2]).status == 200
    assert len(provider.records[-1].wire.body) < len(more[2])
    found = stats(proxy)
    assert found["requests"]["refused_after_rewrite"] == 0
    assert found["prefix_breaks_unexplained"] == 0
