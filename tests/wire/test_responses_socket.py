"""Responses over a WebSocket: the mirror is the history that a client would send."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from demo.session import encode
from mitmcontext.values import Unreadable
from mitmcontext.wire import responses_socket
from mitmcontext.wire.responses_socket import (
    Aside,
    Frame,
    Mirror,
    asked,
    event_of,
    frame_of,
    in_ascii,
    lost,
    told,
)

Json = dict[str, Any]


def said(text: str) -> Json:
    return {"type": "message", "role": "user", "content": [{"type": "input_text", "text": text}]}


def answered(number: int, text: str = "Yes.") -> Json:
    part = {"type": "output_text", "text": text}
    return {"type": "message", "id": f"msg_{number}", "role": "assistant", "content": [part]}


def thought(**more: Any) -> Json:
    return {"type": "reasoning", "id": "rs_1", "summary": [], **more}


def turn(*items: Json, previous: str = "", **more: Any) -> Json:
    frame: Json = {"type": "response.create", "model": "gpt-6", "store": False}
    if previous:
        frame["previous_response_id"] = previous
    return {**frame, "input": list(items), **more}


def read(frame: Json) -> Frame:
    found = frame_of(encode(frame))
    assert found is not None
    return found


def created(name: str = "resp_1") -> Json:
    return {"type": "response.created", "response": {"id": name}}


def done(item: Json) -> Json:
    return {"type": "response.output_item.done", "item": item}


def completed(*items: Json, name: str = "resp_1") -> Json:
    return {"type": "response.completed", "response": {"id": name, "output": list(items)}}


def after(mirror: Mirror, *events: Json) -> Mirror:
    for event in events:
        found = event_of(encode(event))
        assert found is not None
        mirror = told(mirror, found)
    return mirror


def history(mirror: Mirror) -> list[Json]:
    return [json.loads(item) for item in mirror.items]


# Frames.

GOES_ON = b'"previous_response_id":"resp_1"'
REST = b'"input":[],"store":false'
NAMED = [
    b'{"type":"response.create",%s,%s}' % (GOES_ON, REST),
    b'{%s,"type":"response.create",%s}' % (GOES_ON, REST),
    b'{"type":"response.create",%s,%s}' % (REST, GOES_ON),
    b' { "previous_response_id" : "resp_1" ,\n "type": "response.create", %s } ' % REST,
    b'{"type":"response.create", "previous_response_id" : "resp_1" , %s}' % REST,
    b'{"type":"response.create","x":"previous_response_id",%s,%s}' % (GOES_ON, REST),
    b'{"type":"response.create",%s,%s,"z":"\\ud800"}' % (GOES_ON, REST),
    b'{"type":"response.create","previous_response_\\u0069d":"resp_1",%s}' % REST,
]


@pytest.mark.parametrize("content", NAMED, ids=range(len(NAMED)))
def test_a_frame_becomes_one_that_goes_on_from_nothing(content: bytes) -> None:
    frame = frame_of(content)

    assert frame is not None
    assert (frame.previous, frame.odd) == ("resp_1", "")
    whole = frame.whole((encode(said("a")), encode(said("b"))))
    expected = json.loads(content)
    del expected["previous_response_id"]
    assert json.loads(whole) == {**expected, "input": [said("a"), said("b")]}


def test_a_frame_with_everything_stays_as_it_is() -> None:
    content = b'{ "type":"response.create", "store":false, "input":[ {"role": "user"} ] }'
    frame = frame_of(content)

    assert frame is not None
    assert frame.items == (b'{"role": "user"}',)
    assert frame.whole(frame.items) is content


def test_a_text_alone_is_a_message() -> None:
    frame = read(turn(input="Hello."))

    assert [json.loads(item) for item in frame.items] == [{"role": "user", "content": "Hello."}]


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=6,
)


@given(
    before=st.dictionaries(st.text(max_size=5), VALUES, max_size=3),
    behind=st.dictionaries(st.text(max_size=5), VALUES, max_size=3),
    named=st.text(min_size=1, max_size=9),
)
def test_beside_the_history_a_frame_keeps_its_bytes(before: Json, behind: Json, named: str) -> None:
    head: Json = {"type": "response.create", "store": False}
    beside = {key: value for key, value in {**before, **behind}.items() if key not in head}
    told_ = {**head, **beside, "previous_response_id": named, "input": []}
    frame = read({**told_, **{key: told_[key] for key in behind if key in told_}})

    whole = frame.whole((b"{}",))

    del told_["previous_response_id"]
    assert whole == encode({**told_, "input": [{}]})


ODD: list[Any] = [
    pytest.param(turn(store=True), "the provider stores this conversation", id="stored"),
    pytest.param(
        {"type": "response.create", "input": []},
        "the provider stores this conversation",
        id="stored unless it says otherwise",
    ),
    pytest.param(
        turn(conversation={"id": "c"}), "the provider keeps this conversation", id="conversation"
    ),
    pytest.param(
        turn(prompt={"id": "p"}), "the provider adds a prompt of its own", id="a stored prompt"
    ),
    pytest.param(
        turn(context_management=[{}]), "the provider edits this history itself", id="managed"
    ),
    pytest.param(
        turn(stream_id="a"), "several conversations share the connection", id="a lane of several"
    ),
    pytest.param(
        turn({"type": "item_reference", "id": "msg_1"}),
        "an item stands for one that the provider has kept",
        id="a reference",
    ),
    pytest.param(turn(conversation=None, prompt=None), "", id="nothing of it"),
]


@pytest.mark.parametrize(("frame", "why"), ODD)
def test_a_history_that_is_not_the_frames_own_is_told(frame: Json, why: str) -> None:
    assert read(frame).odd == why
    mirror, doubt = asked(Mirror(), read(frame))
    assert doubt == why
    assert (mirror.coming is None) == bool(why)


UNREADABLE: list[Any] = [
    b"",
    b"no JSON",
    b"[]",
    b'"response.create"',
    b"\xff{}",
    b'{"type":"response.create"}',
    b'{"type":"response.create","input":7}',
    b'{"type":"response.create","input":{}}',
    b'{"type":"response.create","input":null}',
    b'{"type":7,"input":[]}',
    b'{"type":"response.create","input":[],"previous_response_id":7}',
    b'{"type":"response.create","input":[],"input":[1]}',
    b'{"type":"response.create","input":[],"previous_response_id":"a","previous_response_id":"b"}',
]


@pytest.mark.parametrize("content", UNREADABLE, ids=range(len(UNREADABLE)))
def test_what_could_be_read_in_two_ways_is_not_read(content: bytes) -> None:
    with pytest.raises(Unreadable):
        frame_of(content)


def test_what_a_client_says_beside_turns() -> None:
    assert frame_of(b'{"type":"response.processed","response_id":"resp_1"}') is None
    with pytest.raises(Aside):
        frame_of(b'{"type":"response.cancel"}')


# The mirror.


@st.composite
def conversations(draw: st.DrawFn) -> list[tuple[list[Json], list[Json], str, bool]]:
    """Turns: what is new, what the server adds, how it says so, and whether all is sent again."""
    ways = st.sampled_from(["one by one", "at the end", "both"])
    texts = st.lists(st.text(max_size=5), max_size=3)
    return [
        (
            [said(text) for text in draw(texts)],
            [answered(number, text) for text in draw(texts)],
            draw(ways),
            draw(st.booleans()),
        )
        for number in range(draw(st.integers(1, 6)))
    ]


@given(conversations())
def test_the_mirror_is_what_a_client_keeps(
    turns: list[tuple[list[Json], list[Json], str, bool]],
) -> None:
    mirror, kept, previous = Mirror(), list[Json](), ""
    for number, (new, added, way, again) in enumerate(turns):
        kept += new
        whole = again or not previous
        frame = turn(*(kept if whole else new), previous="" if whole else previous)
        mirror, doubt = asked(mirror, read(frame))
        assert doubt == ""
        assert mirror.coming is not None
        assert [json.loads(item) for item in mirror.coming] == kept

        previous = f"resp_{number}"
        one_by_one = [done(item) for item in added] if way != "at the end" else []
        at_the_end = added if way != "one by one" else []
        mirror = after(
            mirror, created(previous), *one_by_one, completed(*at_the_end, name=previous)
        )
        kept += added
        assert history(mirror) == kept
        assert (mirror.response, mirror.open) == (previous, 0)
        assert mirror.size >= len(encode(kept)) - len(kept) - 2


def known() -> Mirror:
    """A mirror after one turn."""
    mirror, _ = asked(Mirror(), read(turn(said("a"))))
    return after(mirror, created(), completed(answered(1)))


def test_reasoning_comes_along_with_what_it_holds() -> None:
    mirror, _ = asked(Mirror(), read(turn(said("a"))))
    sealed = thought(encrypted_content="gAAA")

    mirror = after(mirror, created(), completed(sealed, answered(1)))

    assert history(mirror) == [said("a"), sealed, answered(1)]


FAILED = {
    "type": "response.failed",
    "response": {"id": "resp_2", "error": {"code": "server_error"}},
}
LOSING: list[Any] = [
    pytest.param([{"type": "error", "status": 400, "error": {}}], id="an error"),
    pytest.param([created("resp_2"), FAILED], id="a failure"),
    pytest.param([created("resp_2"), {"type": "response.incomplete"}], id="an incomplete answer"),
    pytest.param([completed(answered(2), name="resp_2")], id="an answer that never began"),
    pytest.param(
        [created("resp_2"), created("resp_3"), completed(answered(2), name="resp_3")],
        id="two answers at once",
    ),
    pytest.param([created("resp_2"), completed(name="resp_3")], id="another answer"),
    pytest.param(
        [created("resp_2"), {"type": "response.completed"}], id="an answer without a name"
    ),
    pytest.param(
        [created("resp_2"), done(answered(2)), completed(answered(2), answered(3), name="resp_2")],
        id="items that were not announced",
    ),
    pytest.param(
        [created("resp_2"), completed(thought(), answered(2), name="resp_2")],
        id="reasoning that only the provider has",
    ),
    pytest.param(
        [created("resp_2"), completed({"type": 7}, name="resp_2")], id="an item without a type"
    ),
]


@pytest.mark.parametrize("events", LOSING)
def test_what_cannot_be_followed_is_given_up(events: list[Json]) -> None:
    mirror, _ = asked(known(), read(turn(said("b"), previous="resp_1")))

    mirror = after(mirror, *events)

    assert mirror == Mirror()
    for name in ("resp_1", "resp_2", "resp_3"):
        assert asked(mirror, read(turn(previous=name)))[1]
    # A frame with everything begins anew.
    assert asked(mirror, read(turn(said("c"))))[1] == ""


def test_an_older_response_is_not_followed() -> None:
    mirror, _ = asked(known(), read(turn(said("b"), previous="resp_1")))
    mirror = after(mirror, created("resp_2"), completed(name="resp_2"))

    assert asked(mirror, read(turn(previous="resp_1")))[1]
    assert not asked(mirror, read(turn(previous="resp_2")))[1]


def test_two_turns_at_once_are_given_up_until_both_are_answered() -> None:
    mirror, _ = asked(known(), read(turn(said("b"), previous="resp_1")))

    mirror, doubt = asked(mirror, read(turn(said("c"))))
    assert doubt == "more than one response in flight"
    mirror = after(mirror, created("resp_2"), done(answered(2)), completed(name="resp_2"))
    assert (mirror.open, mirror.response, mirror.items) == (1, "", ())
    assert asked(mirror, read(turn(said("d"))))[1]
    mirror = after(mirror, created("resp_3"), completed(name="resp_3"))

    assert mirror == Mirror()


def test_an_event_that_says_nothing_of_the_history() -> None:
    for kind in ("response.output_text.delta", "response.in_progress", "codex.rate_limits", ""):
        assert event_of(encode({"type": kind, "delta": "x"})) is None


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"type":7}', b"\xff", b"null"])
def test_an_event_that_cannot_be_read(content: bytes) -> None:
    with pytest.raises(Unreadable):
        event_of(content)


def test_an_event_of_more_values_than_any_answer_has() -> None:
    """Commas in what was said are no values."""
    long = completed() | {"more": "a, b\n" * 100_000}
    assert event_of(encode(long)) == long
    dense = completed() | {"more": [0] * 100_000}
    with pytest.raises(Unreadable, match="more values than anybody sends"):
        event_of(encode(dense))


@given(VALUES, VALUES, st.sampled_from([created(), done({}), completed(), FAILED]))
def test_no_event_brings_the_mirror_down(one: Any, two: Any, event: Json) -> None:
    """Whatever a server says: either it is followed, or nothing is known."""
    mirror, _ = asked(known(), read(turn(said("b"), previous="resp_1")))
    for odd in (
        {**event, "response": one},
        {**event, "item": one},
        {**event, "response": {"id": one, "output": two}},
        {**event, "response": {"id": "resp_2", "output": [one, two]}},
    ):
        found = event_of(encode(odd))
        assert found is not None
        result = told(mirror, found)
        assert result == lost(result) or result.coming is not None or result.response == "resp_2"


def test_usage_counts_the_whole_conversation() -> None:
    usage = {"input_tokens": 900, "output_tokens": 5}
    answer = {"id": "resp_2", "previous_response_id": "resp_1", "usage": usage}

    found = responses_socket.usage_of_whole({"type": "response.completed", "response": answer})

    assert found is not None
    assert (found.input_tokens, found.output_tokens) == (900, 5)


STATUSES: list[Any] = [
    ({"status": 429, "error": {"type": "invalid_request_error"}}, 429),
    ({"error": {"type": "invalid_request_error"}}, 400),
    ({"error": {"type": "server_error"}}, 500),
    ({"error": None}, 500),
]


@pytest.mark.parametrize(("event", "status"), STATUSES)
def test_the_status_of_a_refusal(event: Json, status: int) -> None:
    assert responses_socket.status_of(event) == status


@given(st.dictionaries(st.text(), st.text()))
def test_ascii_says_the_same(value: Json) -> None:
    frame = encode(value)

    assert in_ascii(frame).isascii()
    assert json.loads(in_ascii(frame)) == value
