"""Bedrock's Converse: what each shape of message is read as, and which are the same."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.drawn import values_with
from tests.wire.bodies import dumped
from tests.wire.reading import read_as, stub_changes_its_part

from loopback import rules_bedrock
from loopback.counting import model_named
from mitmcontext.condense.entries import WHOLE, FrozenEdit
from mitmcontext.condense.invariants import broken
from mitmcontext.rewrite import rewritten, sources
from mitmcontext.values import Kind, Unreadable
from mitmcontext.wire.bedrock import CONVERSE

POINT: dict[str, Any] = {"cachePoint": {"type": "default"}}


def message(role: str, *blocks: Any, **others: Any) -> bytes:
    return dumped({"role": role, "content": list(blocks), **others})


def use(id_: str = "a", **given_: Any) -> dict[str, Any]:
    return {"toolUse": {"toolUseId": id_, "name": "run", "input": given_}}


def result(*content: Any, id_: str = "a", **others: Any) -> dict[str, Any]:
    return {"toolResult": {"toolUseId": id_, "content": list(content), **others}}


def thought(text: str, signature: str = "c2ln") -> dict[str, Any]:
    return {"reasoningContent": {"reasoningText": {"text": text, "signature": signature}}}


IMAGE = {"image": {"format": "png", "source": {"bytes": "iVBO" * 900}}}
DOCUMENT = {"document": {"format": "txt", "name": "a", "source": {"bytes": "aGk=" * 900}}}

# Each message with what its parts are: kind, text, and whether a shorter text may take its place.
SHAPES: list[Any] = [
    pytest.param(message("user", {"text": "Fix it"}), [(Kind.TYPED, "Fix it", True)], id="a text"),
    pytest.param(
        message("user", {"text": "Fix"}, POINT, {"text": "it"}, POINT),
        [(Kind.TYPED, "Fix", True), (Kind.TYPED, "it", True)],
        id="cache points are no parts",
    ),
    pytest.param(
        message("user", {"text": "Observation: x"}),
        [(Kind.RESULT, "Observation: x", True)],
        id="told",
    ),
    pytest.param(
        message("user", {"text": "What?"}, IMAGE),
        [(Kind.TYPED, "What?", True), (Kind.IMAGE, "", True)],
        id="an image",
    ),
    pytest.param(
        message("assistant", thought("Hm."), {"text": "Sure."}, use(a=1)),
        [
            (Kind.THINKING, "Hm.", False),
            (Kind.PROSE, "Sure.", True),
            (Kind.CALL, 'run {"a": 1}', False),
        ],
        id="thinks, says, calls",
    ),
    pytest.param(
        message("assistant", {"reasoningContent": {"redactedContent": "c2VhbGVk"}}),
        [(Kind.THINKING, "", False)],
        id="sealed thoughts",
    ),
    pytest.param(
        message("user", result({"text": "one"}, {"text": "two"}, status="success")),
        [(Kind.RESULT, "one\ntwo", True)],
        id="a result",
    ),
    pytest.param(
        message("user", result({"json": {"rows": [1]}})),
        [(Kind.RESULT, '{"rows": [1]}', True)],
        id="a result in JSON",
    ),
    pytest.param(
        message("user", result({"text": "see"}, IMAGE)),
        [(Kind.RESULT, "see", True)],
        id="a result with an image",
    ),
    pytest.param(message("user", result()), [(Kind.RESULT, "", False)], id="an empty result"),
    pytest.param(
        message("user", {"guardContent": {"text": {"text": "x"}}}),
        [(Kind.OPAQUE, '{"guardContent": {"text": {"text": "x"}}}', False)],
        id="guarded",
    ),
    pytest.param(
        message("assistant", {"citationsContent": {"content": [{"text": "x"}]}}),
        [(Kind.OPAQUE, '{"citationsContent": {"content": [{"text": "x"}]}}', False)],
        id="cited",
    ),
    pytest.param(
        message("user", {"hologram": {"depth": 3}}),
        [(Kind.OPAQUE, '{"hologram": {"depth": 3}}', False)],
        id="unknown",
    ),
    pytest.param(
        message("user", {"text": "x", "more": 1}),
        [(Kind.OPAQUE, '{"text": "x", "more": 1}', False)],
        id="two keys",
    ),
    pytest.param(message("user"), [], id="no blocks"),
]


@pytest.mark.parametrize(("raw", "parts"), SHAPES)
def test_messages_are_read_as_what_they_are(
    raw: bytes, parts: list[tuple[Kind, str, bool]]
) -> None:
    read_as(CONVERSE, raw, parts)


@pytest.mark.parametrize(("raw", "parts"), SHAPES)
def test_a_stub_changes_the_value_and_nothing_else(raw: bytes, parts: object) -> None:
    stub_changes_its_part(CONVERSE, raw)


def test_documents_count_without_their_data() -> None:
    (part,) = CONVERSE.parse(message("user", DOCUMENT)).parts
    assert (part.kind, part.value) == (Kind.DOCUMENT, part.span)
    assert len(part.text) < 100


def test_cache_points_are_counted_and_make_no_difference() -> None:
    plain = CONVERSE.parse(message("user", {"text": "a"}, result({"text": "b"})))
    marked = CONVERSE.parse(
        message("user", POINT, {"text": "a"}, POINT, result({"text": "b"}), POINT)
    )
    assert (plain.markers, marked.markers) == (0, 3)
    assert plain.digest == marked.digest
    assert [p.digest for p in plain.parts] == [p.digest for p in marked.parts]


def test_calls_and_results_are_tied() -> None:
    asked = CONVERSE.parse(message("assistant", use("x"), use("y")))
    assert [(p.call_id, p.name) for p in asked.parts] == [("x", "run"), ("y", "run")]
    answered = CONVERSE.parse(message("user", result(IMAGE, id_="y"), result(id_="x")))
    assert [(p.call_id, p.images) for p in answered.parts] == [("y", 1), ("x", 0)]


def test_unknown_keys_are_kept_whole() -> None:
    odd = CONVERSE.parse(message("user", {"text": "x"}, mood="good"))
    assert not odd.editable
    assert odd.digest != CONVERSE.parse(message("user", {"text": "x"})).digest


@pytest.mark.parametrize(
    "raw",
    [
        rb'{"role":"user","content":[{"text":"\ud800"}]}',
        rb'{"role":"user","content":[{"toolResult":{"toolUseId":"a","content":[{"text":"\ud800"}]}}]}',
        rb'{"role":"assistant","content":[{"toolUse":{"toolUseId":"a","name":"f","input":{"a":"\udc00"}}}]}',
    ],
)
def test_lone_surrogates_are_not_edited_and_hinder_nothing(raw: bytes) -> None:
    assert not CONVERSE.parse(raw).editable


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(b"[]", id="an array"),
        pytest.param(b"{}", id="an empty object"),
        pytest.param(b'{"content":[]}', id="no role"),
        pytest.param(b'{"role":"user"}', id="no content"),
        pytest.param(b'{"role":"system","content":[]}', id="system"),
        pytest.param(b'{"role":1,"content":[]}', id="a role of 1"),
        pytest.param(b'{"role":"user","content":"x"}', id="content a string"),
        pytest.param(b'{"role":"user","content":["x"]}', id="a block that is a string"),
        pytest.param(b'{"role":"user","content":[{"text":1}]}', id="a text of 1"),
        pytest.param(b'{"role":"user","content":[{"toolUse":"x"}]}', id="a bare call"),
        pytest.param(b'{"role":"assistant","content":[{"toolUse":{"name":"f"}}]}', id="no id"),
        pytest.param(
            b'{"role":"assistant","content":[{"toolUse":{"toolUseId":1,"name":"f","input":{}}}]}',
            id="an id of 1",
        ),
        pytest.param(
            b'{"role":"user","content":[{"toolResult":{"content":[]}}]}', id="no id at all"
        ),
        pytest.param(
            b'{"role":"user","content":[{"toolResult":{"toolUseId":"a","content":"x"}}]}',
            id="a result as text",
        ),
        pytest.param(
            b'{"role":"user","content":[{"toolResult":{"toolUseId":"a","content":[{"text":1}]}}]}',
            id="a result of 1",
        ),
        pytest.param(b'{"role":"assistant","content":[{"reasoningContent":"x"}]}', id="thoughts"),
        pytest.param(b'{"role":"user","content":[{"text":"x","text":"y"}]}', id="two texts"),
        pytest.param(b'{"role":"user","role":"user","content":[]}', id="two roles"),
        pytest.param(
            b'{"role":"user","content":' + b"[" * 100_000 + b"]" * 100_000 + b"}", id="deep"
        ),
    ],
)
def test_what_is_no_message_is_unreadable(raw: bytes) -> None:
    with pytest.raises(Unreadable):
        CONVERSE.parse(raw)


json_values = values_with(
    ["text", "toolUse", "toolResult", "toolUseId", "content", "name", "input", "json"],
    more=lambda inner: st.builds(lambda held: result(*held), st.lists(inner, max_size=3)),
)


@given(
    st.sampled_from(["user", "assistant"]), st.lists(json_values, max_size=4), st.text(min_size=1)
)
def test_whatever_stands_in_a_message_is_refused_or_as_good_when_it_is_shortened(
    role: str, blocks: list[Any], said: str
) -> None:
    raw = message(role, *blocks)
    try:
        found = CONVERSE.parse(raw)
    except Unreadable:
        return
    for part in found.parts:
        if part.value is None:
            continue
        start, end = part.value
        made = raw[:start] + CONVERSE.replacement(raw[start:end], f"x{said}") + raw[end:]
        again = CONVERSE.parse(made)
        assert [p.call_id for p in again.parts] == [p.call_id for p in found.parts]
        assert accepts(made) or not accepts(raw)


def accepts(raw: bytes) -> bool:
    """Whether the strict provider takes a conversation with this message in its place."""
    read = json.loads(raw)
    ids = [held["toolUseId"] for block in read["content"] if (held := block.get("toolResult"))]
    asked = {"role": "assistant", "content": [use(id_) for id_ in ids] or [{"text": "x"}]}
    opening = {"role": "user", "content": [{"text": "x"}]}
    messages = [opening, asked, read] if read["role"] == "user" else [opening, read]
    body = {"messages": messages, "toolConfig": {"tools": [{"toolSpec": {}}]}}
    return rules_bedrock.check(body, rules_bedrock.Memory(), None, model_named("x")) is None


@pytest.mark.parametrize(
    ("one", "other"),
    [
        pytest.param(
            message("user", {"text": "x"}), message("assistant", {"text": "x"}), id="roles"
        ),
        pytest.param(message("user", {"text": "x"}), message("user", {"text": "y"}), id="texts"),
        pytest.param(
            message("user", result({"text": "x"})),
            message("user", result({"text": "x"}, status="error")),
            id="status",
        ),
        pytest.param(message("assistant", use(a=1)), message("assistant", use(a=2)), id="inputs"),
        pytest.param(
            message("assistant", thought("a")), message("assistant", thought("a", "x")), id="signed"
        ),
    ],
)
def test_other_content_has_other_digests(one: bytes, other: bytes) -> None:
    assert CONVERSE.parse(one).digest != CONVERSE.parse(other).digest


# Turns: two of one role in a row are refused, so a note is parted from a user's message.


@pytest.mark.parametrize(
    ("first", "last"),
    [
        pytest.param(1, 2, id="behind a user, before the model"),
        pytest.param(1, 3, id="behind a user, before one"),
        pytest.param(2, 2, id="behind the model, before it"),
        pytest.param(2, 3, id="behind the model, before a user"),
    ],
)
def test_a_note_never_stands_beside_a_users_message(first: int, last: int) -> None:
    roles = ["user", "assistant"] * 4
    said = [json.loads(message(role, {"text": f"{at}"})) for at, role in enumerate(roles)]
    request = CONVERSE.read(dumped({"messages": said}))
    digests = [CONVERSE.parse(request.raw(at)).digest for at in range(8)]
    edits = [
        FrozenEdit(at, WHOLE, digests[at], "note" if at == first else None)
        for at in range(first, last + 1)
    ]
    made = json.loads(rewritten(CONVERSE, request, edits))["messages"]
    found = [one["role"] for one in made]
    assert all(a != b for a, b in pairwise(found))
    assert {"role": "user", "content": [{"text": "note"}]} in made
    kept = [one for one in made if one in said]
    assert kept == said[:first] + said[last + 1 :]
    assert [one not in said for one in made] == [
        at is None for at in sources(CONVERSE, request, edits)
    ]


def test_two_of_one_role_in_a_row_break_what_was_in_turn() -> None:
    before = [
        CONVERSE.parse(message(role, {"text": role})) for role in ("user", "assistant", "user")
    ]
    after = [before[0], before[2]]
    assert broken(before, after, in_turn=True) == "turns no longer alternate"
    twice = [before[0], before[0], *before[1:]]
    assert broken(twice, twice, in_turn=True) == ""
