"""What is recognised of a conversation's beginning changes nothing but the time that it takes."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.conversations import Talk, anthropic_talks, laws, long_talk, markers, openai_talks, words
from tests.way import HUGE, SEED, Way, by, count, window

from mitmcontext import pipeline
from mitmcontext.known import Known
from mitmcontext.pipeline import Laid
from mitmcontext.recollect import Recollections, wants_an_hour
from mitmcontext.stores.memory import MemoryStore, lru
from mitmcontext.tokens.families import family_of
from mitmcontext.values import Request, Unreadable
from mitmcontext.wire import spans
from mitmcontext.wire.anthropic import MESSAGES
from mitmcontext.wire.openai_chat import CHAT
from mitmcontext.wire.openai_responses import RESPONSES

long_talks = anthropic_talks(turns=4, steps=25) | openai_talks(turns=4, steps=25)


def compare(quick: Laid, plain: Laid, ways: tuple[Way, Way]) -> None:
    """Two readings of one request agree in everything."""
    assert quick.found == plain.found
    for one, other in ((quick.sent, plain.sent), (quick.forwarded, plain.forwarded)):
        assert one.request == other.request
        assert one.links == other.links
        assert [fact.digest for fact in one.facts] == [fact.digest for fact in other.facts]
        for at, span in enumerate(one.request.spans):
            assert one.request.raw(at) == other.request.body[slice(*span)]
    figures = [
        pipeline.assess(laid, window(HUGE), way.thresholds, way.known, by(1.0))
        for laid, way in zip((quick, plain), ways, strict=True)
    ]
    assert figures[0] == figures[1]


def look(ways: tuple[Way, Way], talk: Talk, body: bytes) -> None:
    """Both ways read a body alike."""
    compare(ways[0].lay(talk.api, body), ways[1].lay(talk.api, body), ways)


def read(recollections: Recollections | None, body: bytes) -> Request | None:
    try:
        return recollections.read(MESSAGES, body)[0] if recollections else MESSAGES.read(body)
    except Unreadable:
        return None


@given(long_talks, st.lists(markers, min_size=1, max_size=3), st.integers(25, 90))
@settings(laws, max_examples=20)
def test_growing_requests_are_read_as_if_for_the_first_time(
    talk: Talk, marks: list[list[int]], share: int
) -> None:
    ways = Way(recollects=True), Way()
    room = max(1, Way().tokens(talk.api, talk.request()) * share // 100)
    for turn, cut in enumerate(talk.cuts):
        body = talk.request(cut, marks[turn * len(marks) // len(talk.cuts)])
        sent = [way.send(talk.api, body, room) for way in ways]
        assert sent[0].forwarded == sent[1].forwarded
        compare(sent[0].laid, sent[1].laid, ways)
        look(ways, talk, body)


@given(long_talks, st.integers(25, 90), st.lists(st.integers(0, 1 << 10), max_size=25))
@settings(laws, max_examples=20)
def test_so_are_forks_and_rewinds(talk: Talk, share: int, moves: list[int]) -> None:
    ways = Way(recollects=True), Way()
    room = max(1, Way().tokens(talk.api, talk.request()) * share // 100)
    branches = [talk]
    for number, choice in enumerate(moves):
        branch = branches[choice % len(branches)]
        cut = branch.cuts[choice % len(branch.cuts)]
        if choice % 3 == 0:
            answers = [
                {"role": "assistant", "content": words(number, 300)},
                {"role": "user", "content": f"{number}"},
            ]
            branch = branch.fork(cut, answers)
            branches.append(branch)
            cut = branch.cuts[-1]
        body = branch.request(cut)
        sent = [way.send(talk.api, body, room) for way in ways]
        assert sent[0].forwarded == sent[1].forwarded
        compare(sent[0].laid, sent[1].laid, ways)


def test_a_conversation_that_grows_is_recognised() -> None:
    way = Way(recollects=True)
    talk = long_talk(turns=40)
    for cut in talk.cuts:
        way.send(talk.api, talk.request(cut), 40_000)
    assert way.recognised > 25


@pytest.mark.parametrize("back", [2, 8, 20, 30])
def test_who_goes_back_is_recognised(back: int) -> None:
    ways = Way(recollects=True), Way()
    talk = long_talk(turns=40)
    for cut in talk.cuts:
        for way in ways:
            way.send(talk.api, talk.request(cut), 40_000)
    before = ways[0].recognised
    answers = [{"role": "assistant", "content": "no"}, {"role": "user", "content": "then not"}]
    fork = talk.fork(talk.cuts[-back], answers)
    body = fork.request(fork.cuts[-1])
    sent = [way.send(talk.api, body, 40_000) for way in ways]
    assert ways[0].recognised == before + 1
    assert sent[0].forwarded == sent[1].forwarded
    compare(sent[0].laid, sent[1].laid, ways)


def test_many_conversations_that_begin_alike_are_recognised_side_by_side() -> None:
    """A client's own words come first, the same for all who use it."""
    way = Way(recollects=True)
    talks = []
    for number in range(12):
        said = [words(0, 900), *(words(100 * number + at, 200) for at in range(24))]
        roles = ("user", "assistant")
        messages = [{"role": roles[at % 2], "content": text} for at, text in enumerate(said)]
        talks.append(Talk(MESSAGES, "claude-sonnet-4-5", messages, [len(messages)]))
    # Counted by the first request, kept by the second, recognised with the third.
    for _ in range(3):
        for talk in talks:
            way.send(talk.api, talk.request(), HUGE)
    assert way.recognised == len(talks)


def test_what_surrounds_the_messages_may_change() -> None:
    """Claude Code changes a line of its system prompt on each request."""
    ways = Way(recollects=True), Way()
    talk = long_talk(turns=30)
    body = talk.request()
    ways[0].send(talk.api, body, 20_000)
    ways[1].send(talk.api, body, 20_000)
    for way in ways:
        way.lay(talk.api, body)
    for number in range(3):
        talk.head["system"] = "x" * number * 100 + "cc_prev_req=req_7"
        talk.tail = {"tools": [], "temperature": number}
        changed = talk.request()
        look(ways, talk, changed)
    assert ways[0].recognised >= 3


def test_tenants_share_bytes_but_no_links() -> None:
    way = Way(recollects=True)
    talk = long_talk(turns=30)
    body = talk.request()
    way.send(talk.api, body, 20_000)
    way.lay(talk.api, body)
    assert way.recollections is not None
    request, stretch = way.recollections.read(talk.api, body)
    assert stretch is not None
    family = family_of(request.model)
    other = b"\1" * 32
    sent = pipeline.read(talk.api, family, request, other, way.known, stretch)
    plain = pipeline.read(talk.api, family, request, other, way.known)
    assert sent.links == plain.links
    assert pipeline.lay(sent, way.ledger, other, way.known).found is None


def test_another_model_counts_for_itself() -> None:
    ways = Way(recollects=True), Way()
    talk = long_talk(turns=30)
    for way in ways:
        way.send(talk.api, talk.request(), 20_000)
    talk.model = "claude-3-haiku"
    look(ways, talk, talk.request())


@given(st.lists(st.integers(0, 40), min_size=1, max_size=60), st.integers(1, 200_000))
@settings(laws, max_examples=30)
def test_what_is_kept_is_bounded(turns: list[int], size: int) -> None:
    way = Way(recollects=True)
    way.recollections = Recollections(size, b"k" * 32)
    talk = long_talk(turns=40, size=30)
    for turn in turns:
        way.lay(talk.api, talk.request(talk.cuts[turn]))
        way.tokens(talk.api, talk.request(talk.cuts[turn]))
    kept = way.recollections._kept
    assert kept.currsize <= size


def kept_stretch() -> tuple[Recollections, Talk, bytes]:
    """What holds a talk's messages as one stretch, the talk, and its body: it was counted twice."""
    way = Way(recollects=True)
    talk = long_talk(turns=30)
    body = talk.request()
    for _ in range(2):
        way.tokens(talk.api, body)
    assert way.recollections is not None
    return way.recollections, talk, body


def test_a_damaged_tail_is_no_request_any_more() -> None:
    recollections, _, body = kept_stretch()
    for damaged in (
        body.replace(b'"toolu_29"', b'"toolu_29', 1),
        body.replace(b',{"role":"assistant"', b' {"role":"assistant"'),
        body[:-1],
        body.replace(b"}]}", b"}],}"),
    ):
        assert read(recollections, damaged) == read(None, damaged)


def test_a_stretch_counts_only_where_the_messages_stand() -> None:
    recollections, talk, body = kept_stretch()
    recognised = recollections.read(talk.api, body)
    assert recognised[1] is not None
    assert recognised[0] == talk.api.read(body)
    request = recognised[0]
    array = body[slice(*request.array)]
    end = request.array.start + recognised[1].end.size
    for other in (
        # An example in a tool's schema, which holds the conversation itself.
        b'{"tools":[{"messages":' + array + b'}],"model":"m","messages":' + array + b"}",
        # Twice, so that readers may differ.
        b'{"model":"m","messages":' + array + b',"messages":' + array + b"}",
        # The stretch is all there is, or ends otherwise than it did.
        body[:end] + b"]}",
        body[:end] + b",]}",
        body[:end] + b" , 7]}",
        body[:end],
        # More than anybody sends.
        body[:end] + b',{"role":"user","content":"x"}' * spans.MOST + b"]}",
    ):
        assert read(recollections, other) == read(None, other)


def test_what_stands_for_more_than_the_body_holds_is_not_kept() -> None:
    """An item that refers to another one says so wherever it stands."""
    recollections = Recollections(1 << 20, b"k" * 32)
    items = [b'{"type":"message","role":"user","content":"%d"}' % at for at in range(30)]
    items[3] = b'{"type":"item_reference","id":"i"}'
    body = b'{"model":"m","input":[' + b",".join(items) + b"]}"
    known = Known(MemoryStore(lru(1 << 20)), count)
    family = family_of("m")
    for _ in range(2):
        request, stretch = recollections.read(RESPONSES, body)
        assert request == RESPONSES.read(body)
        assert request.hidden
        sent = pipeline.read(RESPONSES, family, request, SEED, known, stretch)
        pipeline.counts_of(sent, known)
        sent = pipeline.read(RESPONSES, family, request, SEED, known, stretch)
        pipeline.keep(Laid(sent, sent, None), SEED, recollections)
    assert recollections.read(RESPONSES, body)[1] is None


def test_a_stretch_is_of_one_api() -> None:
    """Others may see something else in the same bytes."""
    recollections, talk, body = kept_stretch()
    assert recollections.read(talk.api, body)[1] is not None
    other = CHAT if talk.api is MESSAGES else MESSAGES
    assert recollections.read(other, body)[1] is None


@pytest.mark.parametrize("marked", [None, 2, 40, 59])
def test_whether_an_hour_is_asked_for_is_known_of_a_stretch(marked: int | None) -> None:
    way = Way(recollects=True)
    talk = long_talk(turns=30)
    body = talk.request()
    if marked is not None:
        place = talk.api.read(body).spans[marked]
        sign = b'"cache_control":{"type":"ephemeral","ttl":"1h"},'
        body = body[: place.start + 1] + sign + body[place.start + 1 :]
    for _ in range(3):
        way.tokens(talk.api, body)
    assert way.recollections is not None
    request, stretch = way.recollections.read(talk.api, body)
    assert stretch is not None
    assert wants_an_hour(request, stretch) is wants_an_hour(request, None) is (marked is not None)
