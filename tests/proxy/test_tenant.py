"""Whose conversation it is: what tells tenants apart, and what does not."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from mitmcontext.proxy.tenant import is_subscription, tenant

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


@pytest.mark.parametrize("name", ["openai-organization", "openai-project", "chatgpt-account-id"])
def test_one_key_is_another_tenant_for_each_that_it_works_for(name: str) -> None:
    key = {"authorization": "Bearer sk-one"}
    assert of(key | {name: "one"}) == of(key | {name: "one"})
    assert len({of(key), of(key | {name: "one"}), of(key | {name: "two"})}) == 3


def test_nothing_of_a_key_is_left_in_what_stands_for_it() -> None:
    assert b"secret" not in of(in_query="secret")


def signed(who: str, signature: str) -> dict[str, str]:
    scope = f"Credential={who}/20261122/us-east-1/bedrock/aws4_request"
    said = f"AWS4-HMAC-SHA256 {scope}, SignedHeaders=host, Signature={signature}"
    return {"authorization": said}


def test_who_signs_counts_and_not_the_signature() -> None:
    assert of(signed("AKIDONE", "aa")) == of(signed("AKIDONE", "bb"))
    assert of(signed("AKIDONE", "aa")) != of(signed("AKIDTWO", "aa"))
    assert of(signed("AKIDONE", "aa")) != of({"authorization": "Bearer AKIDONE"})


@pytest.mark.parametrize(
    ("token", "login"),
    [
        ("sk-proj-1", False),
        ("sk-ant-api03-1", False),
        ("sk-ant-oat01-1", True),
        ("ABSKQmVk", False),
        ("bedrock-api-key-YmVk", False),
        ("eyJhbGciOiJ9", True),
        ("", False),
    ],
)
def test_a_login_is_told_from_a_key(token: str, login: bool) -> None:
    assert is_subscription({"authorization": f"Bearer {token}"}) == login


@pytest.mark.parametrize("name", ["ocp-apim-subscription-key", "x-litellm-api-key", "cookie"])
def test_a_gateways_own_credential_keeps_tenants_apart(name: str) -> None:
    assert of({name: "alice"}) != of({name: "bob"})
    # Beside a credential that is known, what changes elsewhere changes nothing.
    assert of({"x-api-key": "k", name: "one"}) == of({"x-api-key": "k", name: "two"})


def test_a_token_that_names_nobody_is_itself_the_credential() -> None:
    def token(signature: str) -> dict[str, str]:
        # Issuer and subject are empty.
        return {"authorization": f"Bearer e30.eyJpc3MiOiIiLCJzdWIiOiIifQ.{signature}"}

    assert of(token("one")) != of(token("two"))
