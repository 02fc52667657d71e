"""From what became of each part to the bytes that go out."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.conversations import Talk, laws, talks

from mitmcontext.condense.entries import WHOLE, FrozenEdit
from mitmcontext.rewrite import rewritten, sources
from mitmcontext.values import Broken
from mitmcontext.wire.anthropic import MESSAGES
from mitmcontext.wire.api import Api
from mitmcontext.wire.bedrock import CONVERSE
from mitmcontext.wire.openai_chat import CHAT

BODY = b"""{ "model":"claude-x", "temperature":1E2, "m":"messages",
  "messages":[ {"role":"user","content":"one"} ,
    {"content":[{"type":"text","text":"two"},{"x":1,"type":"odd"}],"role":"assistant"},{"role":"user",
"content":[{"type":"tool_result","tool_use_id":"t","content":"three","is_error":true},
           {"type":"text", "text":"f\\u006fur", "cache_control" : {"type":"ephemeral"}}]}
  ] , "x":"\\ud800" }"""


def digest(api: Api, body: bytes, message: int, part: int) -> bytes:
    found = api.parse(api.read(body).raw(message))
    return found.digest if part == WHOLE else found.parts[part].digest


def edit(message: int, part: int, text: str | None, body: bytes = BODY) -> FrozenEdit:
    return FrozenEdit(message, part, digest(MESSAGES, body, message, part), text)


def rewrite(*edits: FrozenEdit, body: bytes = BODY) -> bytes:
    return rewritten(MESSAGES, MESSAGES.read(body), edits)


def test_without_edits_the_body_stays() -> None:
    assert rewrite() == BODY


def test_a_part_is_replaced_and_nothing_else() -> None:
    assert rewrite(edit(2, 0, 'a "stub"')) == BODY.replace(b'"three"', b'"a \\"stub\\""')
    assert rewrite(edit(2, 1, "4")) == BODY.replace(b'"f\\u006fur"', b'"4"')


def test_a_folded_message_becomes_a_users() -> None:
    folded = rewrite(edit(1, WHOLE, "note"))
    old = BODY[BODY.index(b'{"content"') : BODY.index(b',{"role":"user",\n')]
    assert folded == BODY.replace(old, MESSAGES.user_message("note"))


def test_a_run_of_folded_messages_becomes_one() -> None:
    folded = rewrite(edit(1, WHOLE, "note"), edit(2, WHOLE, None))
    start, end = BODY.index(b'{"content"'), BODY.index(b"]}\n  ]") + 2
    assert folded == BODY[:start] + MESSAGES.user_message("note") + BODY[end:]


def test_two_runs_become_two() -> None:
    body = json.dumps(
        {"model": "m", "messages": [{"role": "user", "content": f"{n}"} for n in range(6)]}
    ).encode()
    edits = [
        edit(1, WHOLE, "a", body),
        edit(2, WHOLE, None, body),
        edit(4, WHOLE, "b", body),
    ]
    texts = [m["content"] for m in json.loads(rewrite(*edits, body=body))["messages"]]
    assert texts == [
        "0",
        [{"type": "text", "text": "a"}],
        "3",
        [{"type": "text", "text": "b"}],
        "5",
    ]


def test_neighbouring_runs_stay_apart() -> None:
    folded = json.loads(rewrite(edit(1, WHOLE, "a"), edit(2, WHOLE, "b")))
    assert [m["content"][0]["text"] for m in folded["messages"][1:]] == ["a", "b"]


def test_where_roles_may_not_stand_twice_neighbouring_notes_are_parted() -> None:
    said = [("user", "one"), ("assistant", "two"), ("user", "3"), ("assistant", "4"), ("user", "5")]
    messages = [{"role": role, "content": [{"text": text}]} for role, text in said]
    body = json.dumps({"messages": messages}).encode()
    request = CONVERSE.read(body)
    edits = [
        FrozenEdit(at, WHOLE, digest(CONVERSE, body, at, WHOLE), text)
        for at, text in ((1, "a"), (2, None), (3, "b"))
    ]
    made = CONVERSE.read(rewritten(CONVERSE, request, edits))
    roles = [CONVERSE.parse(made.raw(at)).role for at in range(len(made.spans))]
    assert roles == ["user", "assistant"] * 3 + ["user"]
    assert sources(CONVERSE, request, edits) == [0, None, None, None, None, None, 4]


def test_order_does_not_matter_for_parts() -> None:
    edits = edit(2, 1, "4"), edit(2, 0, "3"), edit(1, 0, "2")
    assert rewrite(*edits) == rewrite(*reversed(edits))


@pytest.mark.parametrize(
    "made",
    [
        pytest.param(FrozenEdit(2, 0, b"x" * 32, "stub"), id="another content"),
        pytest.param(edit(1, 1, "stub"), id="a part that nothing may take the place of"),
    ],
)
def test_an_edit_that_does_not_belong_there_is_broken(made: FrozenEdit) -> None:
    with pytest.raises(Broken):
        rewrite(made)


anything: Any = st.text(max_size=200)


@given(talks, st.data())
@laws
def test_an_edit_changes_its_place_and_nothing_else(talk: Talk, data: st.DataObject) -> None:
    body = talk.request()
    request = talk.api.read(body)
    messages = [talk.api.parse(request.raw(at)) for at in range(len(request.spans))]
    places = [
        (at, index)
        for at, message in enumerate(messages)
        for index, part in enumerate(message.parts)
        if part.value is not None
    ]
    chosen = data.draw(st.sets(st.sampled_from(places), max_size=6)) if places else set()
    edits = [
        FrozenEdit(at, index, messages[at].parts[index].digest, data.draw(anything))
        for at, index in sorted(chosen)
    ]
    made = rewritten(talk.api, request, edits)
    after = talk.api.read(made)
    assert made[: after.array.start] == body[: request.array.start]
    assert made[after.array.end :] == body[request.array.end :]
    for at, message in enumerate(messages):
        now = talk.api.parse(after.raw(at))
        if not any(edit.message == at for edit in edits):
            assert after.raw(at) == request.raw(at)
        assert len(now.parts) == len(message.parts)
        for index, (was, part) in enumerate(zip(message.parts, now.parts, strict=True)):
            new = [edit.text for edit in edits if (edit.message, edit.part) == (at, index)]
            assert part.text == (new[0] if new else was.text)
            assert (part.call_id, part.marked) == (was.call_id, was.marked)


@given(talks, st.data())
@laws
def test_a_fold_leaves_all_others_to_the_byte(talk: Talk, data: st.DataObject) -> None:
    body = talk.request()
    request = talk.api.read(body)
    count = len(request.spans)
    start = data.draw(st.integers(0, count - 1))
    end = data.draw(st.integers(start + 1, count))
    edits = [
        FrozenEdit(at, WHOLE, b"", "note" if at == start else None) for at in range(start, end)
    ]
    after = talk.api.read(rewritten(talk.api, request, edits))
    left = [after.raw(at) for at in range(len(after.spans))]
    before = [request.raw(at) for at in range(count)]
    assert left == [*before[:start], talk.api.user_message("note"), *before[end:]]


def test_chat_completions_are_rewritten_likewise() -> None:
    body = b'{"messages":[{"role":"tool","tool_call_id":"a","content":"x"},{"role":"user"}]}'
    made = FrozenEdit(0, 0, digest(CHAT, body, 0, 0), "short")
    assert rewritten(CHAT, CHAT.read(body), [made]) == body.replace(b'"x"', b'"short"')
