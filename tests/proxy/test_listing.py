"""A request message by message: what was read once is not read again, and giants are left out."""

from __future__ import annotations

import json
from typing import Any

import pytest
from mitmproxy import http
from mitmproxy.test import tflow, tutils

from mitmcontext.known import Known
from mitmcontext.proxy.listing import Descriptions, Row, rows
from mitmcontext.proxy.reading import asked
from mitmcontext.settings import Settings
from mitmcontext.tokens.families import family_of
from mitmcontext.tokens.vocabulary import tiktoken_encoding
from mitmcontext.values import Unreadable
from mitmcontext.wire import api_for

CALL = {"type": "tool_use", "id": "toolu_1", "name": "read_file", "input": {"path": "a"}}
RESULT = {"type": "tool_result", "tool_use_id": "toolu_1", "content": "text " * 50}
MESSAGES: list[dict[str, Any]] = [
    {"role": "user", "content": "Look."},
    {"role": "assistant", "content": [CALL]},
    {"role": "user", "content": [RESULT, {"type": "text", "text": "And?"}]},
]


def known() -> Known:
    return Known({}, lambda name: lambda text: len(tiktoken_encoding(name).encode_ordinary(text)))


def flow_of(messages: list[dict[str, Any]], path: str = "/v1/messages") -> http.HTTPFlow:
    body = json.dumps({"model": "claude-sonnet-4-5", "max_tokens": 9, "messages": messages})
    request = tutils.treq(method=b"POST", path=path.encode(), content=body.encode())
    flow: http.HTTPFlow = tflow.tflow(req=request)
    return flow


def counted(by: Known, flow: http.HTTPFlow) -> None:
    """Read and count it, as the way of a request does."""
    api = api_for("POST", "/v1/messages")
    assert api is not None
    request = api.read(flow.request.raw_content or b"")
    family = family_of(request.model, api.name, asked(Settings()))
    by.count(api, family, request, by.recall(api, family, request))


def test_roles_words_and_tokens() -> None:
    by, flow = known(), flow_of(MESSAGES)
    counted(by, flow)
    found = rows(flow, None, by, Descriptions(), Settings())
    assert [(row.role, row.what) for row in found] == [
        ("user", "text"),
        ("assistant", "call read_file"),
        ("user", "result, text"),
    ]
    assert all(row.tokens for row in found)
    assert (found[2].tokens or 0) > 50


def test_of_what_was_never_counted_the_tokens_are_not_known() -> None:
    found = rows(flow_of(MESSAGES), None, known(), Descriptions(), Settings())
    assert found[0] == Row("user", "text", None)


def test_what_was_noted_is_not_read_again() -> None:
    by, flow, descriptions = known(), flow_of(MESSAGES), Descriptions()
    by.tell = lambda key, message: descriptions._kept.update({key: ("noted", message.role)})
    counted(by, flow)
    found = rows(flow, None, by, descriptions, Settings())
    assert [row.role for row in found] == ["noted"] * 3


def test_a_long_request_that_was_never_read_is_read_in_part() -> None:
    many = [MESSAGES[0], *({"role": "user", "content": f"{at} " + "x" * 4_000} for at in range(99))]
    found = rows(flow_of(many), None, known(), Descriptions(), Settings())
    assert len(found) == 100
    assert found[10].what == "text"
    assert found[-1] == Row("", "", None)


@pytest.mark.parametrize("path", ["/v1/messages", "/v1/models"])
def test_giants_and_others_are_not_listed(path: str) -> None:
    many = [{"role": "user", "content": "x" * (3 << 20)}]
    with pytest.raises(Unreadable):
        rows(flow_of(many, path), None, known(), Descriptions(), Settings())
