"""When one request carries on where another one ended."""

from __future__ import annotations

from typing import Any

from loopback.prefix import extends, fingerprints, first_difference

MARK = {"type": "ephemeral"}


def request(*contents: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": content} for content in contents]}


def test_more_messages_extend_a_request() -> None:
    assert extends(request("a"), request("a", "b"))


def test_fewer_or_other_messages_do_not() -> None:
    assert not extends(request("a", "b"), request("a"))
    assert not extends(request("a", "b"), request("a", "c", "d"))


def test_markers_may_wander_and_a_block_may_become_a_string() -> None:
    before = request([{"type": "text", "text": "a", "cache_control": MARK}])

    assert extends(before, request("a", "b"))


def test_a_key_of_a_block_that_changes_counts() -> None:
    before = request([{"type": "tool_result", "tool_use_id": "1", "content": "x"}])
    after = request([{"type": "tool_result", "tool_use_id": "1", "content": "y"}])

    assert first_difference(fingerprints(before), fingerprints(after)) == 0
