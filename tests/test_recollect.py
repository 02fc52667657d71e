"""What is recognised of a conversation's beginning changes nothing but the time that it takes."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.conversations import (
    HUGE,
    Talk,
    Way,
    anthropic_talks,
    by,
    laws,
    long_talk,
    markers,
    openai_talks,
    window,
    words,
)

from mitmcontext import pipeline
from mitmcontext.pipeline import Laid
from mitmcontext.recollect import Recollection, Recollections
from mitmcontext.tokens.families import family_of
from mitmcontext.values import Request, Unreadable
from mitmcontext.wire import spans
from mitmcontext.wire.anthropic import MESSAGES
from mitmcontext.wire.api import Elements

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


def read(body: bytes, elements: Elements) -> Request | None:
    try:
        return MESSAGES.read(body, elements)
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
    recollection = Recollection(way.recollections, body)
    request = talk.api.read(body, recollection.elements)
    assert recollection.stretch is not None
    family = family_of(request.model)
    other = b"\1" * 32
    sent = pipeline.read(talk.api, family, request, other, way.known, recollection.stretch)
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
    way.recollections = Recollections(size)
    talk = long_talk(turns=40, size=30)
    for turn in turns:
        way.lay(talk.api, talk.request(talk.cuts[turn]))
        way.tokens(talk.api, talk.request(talk.cuts[turn]))
    kept = way.recollections._kept
    assert kept.currsize <= size


def test_a_damaged_tail_is_no_request_any_more() -> None:
    way = Way(recollects=True)
    talk = long_talk(turns=30)
    body = talk.request()
    way.tokens(talk.api, body)
    way.tokens(talk.api, body)
    assert way.recollections is not None
    for damaged in (
        body.replace(b'"toolu_29"', b'"toolu_29', 1),
        body.replace(b',{"role":"assistant"', b' {"role":"assistant"'),
        body[:-1],
        body.replace(b"}]}", b"}],}"),
    ):
        recollection = Recollection(way.recollections, damaged)
        assert read(damaged, recollection.elements) == read(damaged, spans.elements)
