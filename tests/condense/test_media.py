"""Old images and documents become lines: which, in which order, and what the lines say."""

from __future__ import annotations

import base64
import copy
from dataclasses import replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from tests.conversations import Talk, laws, long_talk, talks, text_block
from tests.wire.test_media import CASES, DATA, SHOWN, png

from mitmcontext.condense.conversation import Conversation, Room
from mitmcontext.condense.entries import WHOLE, FrozenEdit
from mitmcontext.condense.media import described
from mitmcontext.condense.truncate import smart_truncation
from mitmcontext.condense.units import kept
from mitmcontext.values import MEDIA, Kind, Medium, Message, Part
from mitmcontext.wire.media import media_in

Json = dict[str, Any]
Edits = tuple[FrozenEdit, ...]

PRICE = 1_000


def weigh(message: Message, at: int | None = None) -> int:
    """Four characters are a token, and an image costs as much as many of them."""
    shown = sum(max(part.images, part.kind in MEDIA) for part in message.parts)
    return 4 + PRICE * shown + sum(len(part.text) // 4 for part in message.parts)


def conversation(talk: Talk, frozen: Edits = ()) -> Conversation:
    raws = [talk.style.dump(message) for message in talk.messages]
    messages = [talk.api.parse(raw) for raw in raws]

    def shown(part: Part, at: int) -> tuple[Medium, ...]:
        return media_in(raws[at][slice(*part.span)])

    return Conversation(messages, [weigh(m) for m in messages], 100, frozen, weigh, shown)


def total(of: Conversation) -> int:
    return of.fixed + sum(of.tokens)


def cut(talk: Talk, target: int, frozen: Edits = ()) -> Edits:
    return smart_truncation(conversation(talk, frozen), Room(target, None))


def image(width: int = 1280) -> Json:
    data = base64.b64encode(png(width, 80)).decode()
    return {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": data}}


def screenshots(turns: int = 12, size: int = 60) -> Talk:
    """Every result is a few words and a screenshot; what is typed last has an image too."""
    talk = long_talk(turns=turns, size=size)
    for at, message in enumerate(talk.messages):
        for block in message["content"] if isinstance(message["content"], list) else ():
            if block["type"] == "tool_result":
                block["content"] = [text_block(block["content"]), image(1_000 + at)]
    return talk


def places(edits: Edits) -> list[tuple[int, int]]:
    return [(edit.message, edit.part) for edit in edits if edit.part != WHOLE]


def texts_of(edits: Edits) -> list[str]:
    return [edit.text or "" for edit in edits if edit.part != WHOLE]


def test_screenshots_go_first_the_oldest_before_the_newer_and_no_more_than_needed() -> None:
    talk = screenshots()
    whole = total(conversation(talk))
    assert places(cut(talk, whole - 500)) == [(2, 0)]
    assert places(cut(talk, whole - 2_500)) == [(2, 0), (4, 0), (6, 0)]
    edits = cut(talk, whole - 4_500)
    assert not [edit for edit in edits if edit.part == WHOLE]
    for edit in edits:
        was = conversation(talk).messages[edit.message].parts[edit.part].text
        assert (edit.text or "").startswith(f"{was}\n[mitmcontext: an image (PNG, 10")
        assert (edit.text or "").endswith("Run the call again to see it.]")


def test_a_line_says_what_it_was() -> None:
    talk = long_talk(turns=6)
    shown = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": DATA}}
    talk.messages[2:2] = [
        {"role": "assistant", "content": "Show me."},
        {"role": "user", "content": [text_block("There."), shown]},
        {"role": "assistant", "content": "I see."},
        {"role": "user", "content": "Go on."},
    ]
    talk.messages[-1]["content"].append(image())
    (edit,) = cut(talk, total(conversation(talk)) - 10)
    assert (edit.message, edit.part) == (3, 1)
    assert edit.text == (
        f"[mitmcontext: an image (PNG, 1280x800 pixels, {SHOWN.size:,} bytes, sha256 {SHOWN.sha})"
        " was removed to save context. Ask for it again to see it.]"
    )


def test_the_newest_image_stays_and_so_do_the_last_results() -> None:
    talk = screenshots()
    whole = conversation(talk)
    edits = cut(talk, 0)
    shown = [at for at, message in enumerate(whole.messages) if message.parts[0].images]
    assert not set(places(edits)) & {(at, 0) for at in shown[-3:]}
    # Where no result follows, the only image stays as well.
    talk = long_talk(turns=8)
    talk.messages[2]["content"].append(image())
    whole = conversation(talk)
    assert (2, 1) not in places(cut(talk, total(whole) - 900))


def test_what_was_told_once_stays_told() -> None:
    talk = screenshots()
    whole = total(conversation(talk))
    first = cut(talk, whole - 2_500)
    second = cut(talk, whole - 4_500, frozen=first)
    assert first == second[: len(first)]
    assert len(second) > len(first)


def test_a_result_that_loses_more_says_that_it_showed_something() -> None:
    talk = screenshots(turns=12, size=6_000)
    edits = cut(talk, 20_000)
    stubs = [text for text in texts_of(edits) if "characters" in text]
    assert stubs
    assert all(", with an image of 10" in text.split("\n")[0] for text in stubs)
    notes = [edit.text or "" for edit in cut(talk, 12_000) if edit.part == WHOLE and edit.text]
    lines = [line for note in notes for line in note.split("\n") if line.startswith("  Result")]
    assert lines
    assert all("with an image of 10" in line for line in lines)


def test_a_result_that_is_nothing_but_an_image_is_told_too() -> None:
    talk = screenshots()
    for message in talk.messages[2:9:2]:
        for block in message["content"]:
            if block["type"] == "tool_result":
                block["content"] = [image()]
    edit = cut(talk, total(conversation(talk)) - 500)[0]
    assert (edit.text or "").startswith("[mitmcontext: an image (PNG, 1280x80 pixels")


def test_media_are_described_by_what_is_known_of_them() -> None:
    assert described(Medium()) == ""
    assert described(Medium(link="https://x/y")) == "https://x/y"
    assert (
        described(Medium("PDF", size=1_234, sha="abcdef01")) == "PDF, 1,234 bytes, sha256 abcdef01"
    )


def test_small_images_are_not_worth_a_line() -> None:
    talk = screenshots()
    of = conversation(talk)

    def cheap(message: Message, at: int | None) -> int:
        return weigh(message) - (PRICE - 50) * sum(part.images for part in message.parts)

    small = replace(of, tokens=[cheap(m, 0) for m in of.messages], weigh=cheap)
    assert not any(
        "an image (" in text for text in texts_of(smart_truncation(small, Room(0, None)))
    )


@st.composite
def shown_talks(draw: st.DrawFn) -> Talk:
    """Random conversations with the blocks of their API's images and documents put in."""
    talk = draw(talks)
    talk.messages = copy.deepcopy(talk.messages)
    blocks = [case.block for case in CASES.values() if case.api is talk.api]
    for message in talk.messages:
        if message["role"] == "user" and isinstance(message["content"], list):
            message["content"] += draw(st.lists(st.sampled_from(blocks), max_size=2))
    return talk


@given(shown_talks(), st.integers(0, 60_000))
@laws
def test_what_must_stay_is_never_told(talk: Talk, target: int) -> None:
    whole = conversation(talk)
    stay = kept(whole.messages)
    shown = [
        ((at, index), part)
        for at, message in enumerate(whole.messages)
        for index, part in enumerate(message.parts)
        if part.images or part.kind in MEDIA
    ]
    edits = cut(talk, target)
    for documents in (True, False):
        same = [place for place, part in shown if (part.kind is Kind.DOCUMENT) is documents]
        assert not set(same[-1:]) & set(places(edits))
    for (at, index), part in shown:
        if (at, index) in places(edits):
            assert (at, index) not in stay.parts
            assert part.value is not None
            assert whole.messages[at].editable


@given(shown_talks(), st.integers(0, 60_000))
@laws
def test_the_estimate_goes_down_by_what_is_freed(talk: Talk, target: int) -> None:
    """Where nothing but media went, they were what was needed and no more."""
    whole = conversation(talk)
    edits = cut(talk, target)
    told = [edit for edit in edits if edit.part != WHOLE and "an image" in (edit.text or "")]
    if told and len(told) == len(edits):
        last = max(whole.tokens[edit.message] for edit in edits)
        left = total(whole) - PRICE * len(told)
        assert left + last + 200 >= target
