"""Anthropic Messages: which messages are the same, sent again."""

from __future__ import annotations

from typing import Any

import pytest
from tests.wire.anthropic_bodies import IMAGE, MARK, call, message, result
from tests.wire.bodies import text

from mitmcontext.wire.anthropic import MESSAGES


@pytest.mark.parametrize(
    ("one", "other"),
    [
        pytest.param("x", [text("x")], id="a string is a single text"),
        pytest.param([text("x", **MARK)], "x", id="a marker goes and the block becomes a string"),
        pytest.param([text("x"), call(**MARK)], [text("x", **MARK), call()], id="a marker moves"),
        pytest.param([result("x", **MARK)], [result("x")], id="a marker leaves a result"),
        pytest.param([result("x")], [result([text("x")])], id="a result as string or text"),
        pytest.param(
            [result([text("x", **MARK)])], [result("x", **MARK)], id="a marker within a result"
        ),
        pytest.param(
            [result([text("x", **MARK), IMAGE])],
            [result([text("x"), IMAGE])],
            id="a marker beside an image",
        ),
        pytest.param(
            [text("x", cache_control={"type": "ephemeral", "ttl": "1h"})],
            [text("x", **MARK)],
            id="another time to live",
        ),
    ],
)
@pytest.mark.parametrize("role", ["user", "assistant", "system"])
def test_equal_content_has_equal_digests(role: str, one: Any, other: Any) -> None:
    first, second = (MESSAGES.parse(message(role, content)) for content in (one, other))
    assert first.digest == second.digest
    assert [p.digest for p in first.parts] == [p.digest for p in second.parts]


def test_the_order_of_keys_does_not_matter() -> None:
    one = b'{"role":"user","content":[{"type":"text","text":"x"}]}'
    other = b'{ "content" : [ {"text":"x", "type":"text"} ] , "role":"user"}'
    assert MESSAGES.parse(one).digest == MESSAGES.parse(other).digest


@pytest.mark.parametrize(
    ("one", "other"),
    [
        pytest.param(message("user", "x"), message("assistant", "x"), id="roles"),
        pytest.param(message("user", "x"), message("user", "y"), id="texts"),
        pytest.param(message("user", "xy"), message("user", [text("x"), text("y")]), id="a cut"),
        pytest.param(
            message("user", [result("x", "a")]), message("user", [result("x", "b")]), id="ids"
        ),
        pytest.param(
            message("user", [result("x")]), message("user", [result("x", is_error=True)]), id="flag"
        ),
        pytest.param(message("user", [result("x")]), message("user", [text("x")]), id="kinds"),
        pytest.param(message("system", "x", a=1), message("system", "x", b=1), id="other keys"),
        pytest.param(
            rb'{"role":"user","content":"\ud800"}',
            rb'{"role":"user","content":"\ud801"}',
            id="lone surrogates",
        ),
        pytest.param(
            message("user", [result([{"type": "text", "text": "x"}])]),
            message("user", [result([{"type": "html", "text": "x"}])]),
            id="a block that only looks like a text",
        ),
    ],
)
def test_other_content_has_other_digests(one: bytes, other: bytes) -> None:
    assert MESSAGES.parse(one).digest != MESSAGES.parse(other).digest
