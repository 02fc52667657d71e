"""Bodies of millions of tiny values: refused before anything is made of them."""

from __future__ import annotations

import resource
import sys

import pytest

from mitmcontext.values import Unreadable
from mitmcontext.wire.anthropic import MESSAGES
from mitmcontext.wire.spans import MOST, MOST_VALUES

HEAD = b'{"model":"claude-sonnet-4-5","max_tokens":5,"messages":['
MESSAGE = b'{"role":"user","content":%s}'


@pytest.mark.parametrize(
    "body",
    [
        HEAD + b"{}," * 3_000_000 + b"{}]}",
        HEAD + MESSAGE % (b"[" + b"{}," * 3_000_000 + b"{}]") + b"]}",
        b"{" + b'"a":1,' * 3_000_000 + HEAD[1:] + MESSAGE % b'"x"' + b"]}",
        HEAD + MESSAGE % b'"x"' + b'],"tools":[' + b"1," * 6_000_000 + b"1]}",
    ],
    ids=["messages", "blocks", "keys", "tools"],
)
def test_many_values_cost_no_memory(body: bytes) -> None:
    before = _peak()
    with pytest.raises(Unreadable, match="more values than anybody sends"):
        MESSAGES.read(body)
    assert _peak() - before < 32 << 20


def test_commas_in_texts_are_no_values() -> None:
    table = b'"' + b"1,2,3\\n" * MOST_VALUES + b'"'
    assert len(MESSAGES.read(HEAD + MESSAGE % table + b"]}").spans) == 1


def test_a_string_that_never_ends_is_looked_at_once() -> None:
    # Looked at from each of its quotes it would take hours.
    many = b'"' + b"," * (MOST_VALUES + 1) + b'"'
    endless = b'"' + b'\\"' * 5_000_000
    with pytest.raises(Unreadable, match="not a JSON object"):
        MESSAGES.read(HEAD + MESSAGE % many + b"," + MESSAGE % endless)


def test_as_many_messages_as_are_read_are_no_dense_body() -> None:
    body = HEAD + b",".join([MESSAGE % b'"a,b,c,d,e,f"'] * MOST) + b"]}"
    assert len(MESSAGES.read(body).spans) == MOST


def _peak() -> int:
    """The most memory that this process had so far, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
