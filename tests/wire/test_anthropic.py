"""Anthropic Messages: what each shape of request is read as."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest
from tests.wire.anthropic_bodies import MARK, request
from tests.wire.bodies import text

from mitmcontext.values import Span, Standing, Unreadable
from mitmcontext.wire import api_for
from mitmcontext.wire.anthropic import MESSAGES
from mitmcontext.wire.api import system_texts, tool_count


def test_a_request_is_found_where_it_stands() -> None:
    body = (
        b' {"model" : "claude-x", "temperature":1E2,"messages": [ {"role":"user","content":"a"} ,\n'
        b'{"role":"assistant","content":[]}],"system":"be brief","tools":[{"name":"t"}],'
        b'"stream":true,"max_tokens":4096} '
    )
    found = MESSAGES.read(body)
    assert found.raw(0) == b'{"role":"user","content":"a"}'
    assert found.raw(1) == b'{"role":"assistant","content":[]}'
    assert body[slice(*found.array)].startswith(b"[ {")
    assert (found.model, found.max_output, found.stream) == ("claude-x", 4096, True)
    assert found.system is not None
    assert body[slice(*found.system)] == b'"be brief"'
    assert (system_texts(found), tool_count(found)) == ([(b'"be brief"', "be brief")], 1)
    assert not found.attested


def test_no_span_where_nothing_stands() -> None:
    found = MESSAGES.read(b'{"model":"m","messages":[{"role":"user","content":"x"}]}')
    assert (found.system, found.tools, found.stream) == (None, None, False)
    assert found.array == Span(24, 55)


def test_a_system_prompt_in_pieces() -> None:
    found = MESSAGES.read(request(system=[text("one"), text("two", **MARK)]))
    assert [said for _, said in system_texts(found)] == ["one", "two"]
    assert [raw for raw, _ in system_texts(found)] == [b'"one"', b'"two"']


@pytest.mark.parametrize(
    ("system", "attested"),
    [
        ([text("x-anthropic-billing-header: cc_version=2.1; cch=1a2b3;"), text("You are")], True),
        ([text("x-anthropic-billing-header: cc_version=2.1;"), text("cch=1")], False),
        ("You are", False),
        (None, False),
    ],
)
def test_attested_requests_are_told_apart(system: Any, attested: bool) -> None:
    assert MESSAGES.read(request(system=system)).attested == attested


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"[]", id="an array"),
        pytest.param(b'{"messages":[{"role":"user","content":"x"}]}', id="no model"),
        pytest.param(b'{"model":"m"}', id="no messages"),
        pytest.param(b'{"model":"m","messages":[]}', id="empty messages"),
        pytest.param(b'{"model":"m","messages":{}}', id="messages an object"),
        pytest.param(b'{"model":"m","messages":null}', id="messages null"),
        pytest.param(b'{"model":"m","messages":["x"]}', id="messages of strings"),
        pytest.param(b'{"model":["m"],"messages":[{}]}', id="model a list"),
        pytest.param(b'{"model":"m","messages":[{}],"messages":[{}]}', id="two messages"),
        pytest.param(rb'{"model":"m","messages":[{}],"m\u0065ssages":[{}]}', id="one escaped"),
        pytest.param(b'{"model":"m","model":"n","messages":[{}]}', id="two models"),
        pytest.param(
            b'{"model":"m","messages":[{}],"max_tokens":1,"max_tokens":2}', id="two limits"
        ),
        pytest.param(b'{"model":"\xff","messages":[{}]}', id="not UTF-8"),
        pytest.param(b'{"model":"m","messages":[{}]', id="cut off"),
        pytest.param(b'{"model":"m","messages":[{}]}{}', id="two values"),
    ],
)
def test_what_is_no_request_is_unreadable(body: bytes) -> None:
    with pytest.raises(Unreadable):
        MESSAGES.read(body)


def test_keys_that_decide_nothing_may_repeat() -> None:
    body = rb'{"x":1,"model":"m","x":"\ud800","messages":[{"role":"user","content":"\udc00"}]}'
    found = MESSAGES.read(body)
    assert found.raw(0) == rb'{"role":"user","content":"\udc00"}'
    assert found.body is body


@pytest.mark.parametrize(("value", "limit"), [("x", None), (1.5, None), (True, None), (None, None)])
def test_an_odd_output_limit_is_none(value: Any, limit: int | None) -> None:
    assert MESSAGES.read(request(max_tokens=value)).max_output is limit


# Which requests, and what they are.


@pytest.mark.parametrize(
    ("method", "path", "ours"),
    [
        ("POST", "/v1/messages", True),
        ("POST", "/v1/messages/count_tokens", True),
        ("POST", "/api/anthropic/v1/messages", True),
        ("GET", "/v1/messages", False),
        ("POST", "/v1/messages/batches", False),
        ("POST", "/v1/messages/batches/b_1/results", False),
        ("POST", "/v1/messages/", False),
        ("POST", "/v1/complete", False),
        ("POST", "/api/event_logging/v2/batch", False),
        ("PUT", "/v1/messages", False),
    ],
)
def test_recognised_by_method_and_path(method: str, path: str, ours: bool) -> None:
    assert (api_for(method, path) is MESSAGES) == ours


@pytest.mark.parametrize(
    ("path", "headers", "body", "standing"),
    [
        pytest.param("/v1/messages", {}, {}, Standing.TURN, id="a turn"),
        pytest.param("/v1/messages/count_tokens", {}, {}, Standing.NO_TURN, id="counting"),
        pytest.param(
            "/v1/messages",
            {"x-claude-code-request-class": "main"},
            {},
            Standing.TURN,
            id="Claude Code's own turn",
        ),
        pytest.param(
            "/v1/messages",
            {"x-claude-code-request-class": "compaction", "x-claude-code-compaction": "auto"},
            {},
            Standing.NO_TURN,
            id="Claude Code's compaction",
        ),
        pytest.param(
            "/v1/messages",
            {"x-claude-code-request-class": "title"},
            {},
            Standing.ALONE,
            id="Claude Code's side request",
        ),
        pytest.param(
            "/v1/messages",
            {},
            {"context_management": {"edits": [{"type": "clear_tool_uses_20250919"}]}},
            Standing.NO_TURN,
            id="the provider clears results itself",
        ),
        pytest.param(
            "/v1/messages",
            {},
            {"context_management": {"edits": [{"type": "compact_20260112"}]}},
            Standing.NO_TURN,
            id="the provider compacts itself",
        ),
        pytest.param(
            "/v1/messages",
            {},
            {"context_management": {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]}},
            Standing.TURN,
            id="the provider clears thinking",
        ),
        pytest.param(
            "/v1/messages",
            {},
            {
                "messages": [
                    {"role": "user", "content": '"context_management" "compact_20260112" please'}
                ]
            },
            Standing.TURN,
            id="somebody speaks of it",
        ),
    ],
)
def test_what_a_request_is_to_its_conversation(
    path: str, headers: Mapping[str, str], body: dict[str, Any], standing: Standing
) -> None:
    found, why = MESSAGES.standing(path, headers, MESSAGES.read(request(**body)))
    assert found is standing
    assert bool(why) == (standing is not Standing.TURN)


# Who sends it.


DEVICE, ACCOUNT = "d" * 64, "0a1b2c3d-0000-4000-8000-000000000001"


@pytest.mark.parametrize(
    ("user", "found"),
    [
        ({"device_id": DEVICE, "account_uuid": ACCOUNT, "session_id": "s"}, f"{ACCOUNT} {DEVICE}"),
        (f"user_{DEVICE}_account_{ACCOUNT}_session_s", f"{ACCOUNT} {DEVICE}"),
        ({"device_id": DEVICE, "account_uuid": "", "session_id": "s"}, ""),
        ({"account_uuid": ACCOUNT}, ""),
        ("somebody", ""),
        ("[" * 10_000, ""),
        (7, ""),
        (None, ""),
        ("\ud800", ""),
    ],
    ids=[
        "json",
        "one line",
        "no account",
        "no device",
        "a name",
        "deep",
        "a number",
        "null",
        "odd",
    ],
)
def test_the_account_is_what_claude_code_names(user: Any, found: str) -> None:
    named = json.dumps(user) if isinstance(user, dict) else user
    told = {"model": "m", "messages": [{"role": "user", "content": "x"}]}
    body = json.dumps({**told, "metadata": {"user_id": named}}).encode()
    assert MESSAGES.principal("/v1/messages", MESSAGES.read(body)) == found


def test_no_metadata_names_no_account() -> None:
    body = json.dumps({"model": "m", "messages": [{"role": "user", "content": "x"}]}).encode()
    assert MESSAGES.principal("/v1/messages", MESSAGES.read(body)) == ""
