"""Google Gemini: which contents belong together, and which are the same."""

from __future__ import annotations

import pytest
from tests.wire.bodies import dumped
from tests.wire.gemini_bodies import SIGNATURE, call, content, response, signed, text

from mitmcontext.condense.units import units, unpaired
from mitmcontext.values import Kind, Span
from mitmcontext.wire.gemini import GENERATE

# What belongs together.

CALLED = content("model", call("a"), call("b", id="c1"))


@pytest.mark.parametrize(
    ("answers", "paired"),
    [
        ([content("user", response({}, "a"), response({}, "b"))], True),
        ([content("user", response({}, "a"), response({}, "b", id="c1"))], True),
        ([content("user", response({}, "a")), content("user", response({}, "b"))], True),
        ([content("model", response({}, "a"), response({}, "b"))], True),
        ([content("user", response({}, "a"))], False),
        ([content("user", text("no"))], False),
        ([], False),
    ],
)
def test_calls_and_results_are_tied_by_their_number(answers: list[bytes], paired: bool) -> None:
    history = [content("user", text("x")), CALLED, *answers, content("user", text("y"))]
    messages = [GENERATE.parse(raw) for raw in history]
    assert (not unpaired(messages)) == paired
    if paired:
        assert Span(1, 2 + len(answers)) in units(messages)


def test_results_without_calls_are_noticed() -> None:
    assert unpaired([GENERATE.parse(content("user", response({})))])


# The same content, sent again.


@pytest.mark.parametrize(
    ("one", "other"),
    [
        pytest.param(content("user", text("x")), dumped({"parts": [text("x")]}), id="no role"),
        pytest.param(
            content("user", text("x")), dumped({"role": "user", "parts": text("x")}), id="one part"
        ),
        pytest.param(
            content("model", signed(call())),
            b'{"parts":[{"thought_signature":"' + SIGNATURE.encode() + b'","function_call":'
            b'{"name": "run", "args": {"a": 1}}}],"role":"model"}',
            id="spellings and order",
        ),
        pytest.param(
            content("model", {"text": "x", "thought": None}), content("model", text("x")), id="null"
        ),
    ],
)
def test_equal_content_has_equal_digests(one: bytes, other: bytes) -> None:
    first, second = GENERATE.parse(one), GENERATE.parse(other)
    assert first.digest == second.digest
    assert [p.digest for p in first.parts] == [p.digest for p in second.parts]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        pytest.param(content("user", text("x")), content("model", text("x")), id="roles"),
        pytest.param(content("user", text("x")), content("user", text("y")), id="texts"),
        pytest.param(
            content("user", text("xy")), content("user", text("x"), text("y")), id="a cut"
        ),
        pytest.param(
            content("model", text("x", thought=True)), content("model", text("x")), id="thoughts"
        ),
        pytest.param(content("model", signed(call())), content("model", call()), id="unsigned"),
        pytest.param(
            content("model", signed(call())),
            content("model", signed(call(), "aa")),
            id="signatures",
        ),
        pytest.param(
            content("model", signed(call())), content("model", signed(call("f"))), id="calls"
        ),
        pytest.param(
            content("user", response({"output": "x"})),
            content("user", response({"result": "x"})),
            id="where a result stands",
        ),
        pytest.param(
            content("user", text("x")), content("user", text("x"), mood="calm"), id="other keys"
        ),
        pytest.param(
            rb'{"parts":[{"text":"\ud800"}]}',
            rb'{"parts":[{"text":"\ud801"}]}',
            id="lone surrogates",
        ),
    ],
)
def test_other_content_has_other_digests(one: bytes, other: bytes) -> None:
    assert GENERATE.parse(one).digest != GENERATE.parse(other).digest


def test_a_signature_is_thinking_of_its_own_part() -> None:
    """So that the invariants see it altered, lost, or put on another part."""
    one, other = GENERATE.parse(content("model", signed(call()), signed(call("look")))).parts[1::2]
    assert {one.kind, other.kind} == {Kind.THINKING}
    assert one.digest != other.digest
