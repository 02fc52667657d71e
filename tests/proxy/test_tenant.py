"""Whose conversation it is: what tells tenants apart, and what does not."""

from __future__ import annotations

from collections.abc import Mapping

from mitmcontext.proxy.tenant import tenant

KEY = b"k" * 32
NOBODY: Mapping[str, str] = {}


def of(headers: Mapping[str, str] = NOBODY, in_query: str = "") -> bytes:
    return tenant(KEY, "https", "api.example", 443, headers, in_query)


def test_a_key_in_the_query_is_a_credential() -> None:
    assert of(in_query="one") == of(in_query="one")
    assert len({of(), of(in_query="one"), of(in_query="two")}) == 3


def test_a_key_in_the_query_is_not_one_in_a_header() -> None:
    assert of({"x-goog-api-key": "one"}) != of(in_query="one")
    assert of({"x-goog-api-key": "one"}) != of({"x-goog-api-key": "one"}, "two")


def test_nothing_of_a_key_is_left_in_what_stands_for_it() -> None:
    assert b"secret" not in of(in_query="secret")
