"""Google Gemini: whatever is condensed, the strict provider takes."""

from __future__ import annotations

import base64
import copy
import json
import random
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from tests.conversations import Style, laws, seeds, styles, words
from tests.way import Way, window
from tests.wire.gemini_bodies import (
    CODE,
    PATH,
    PDF,
    PNG,
    RAN,
    STORED,
    WAV,
    Json,
    call,
    json_values,
    response,
    signed,
    text,
)

from loopback import rules_gemini
from mitmcontext import pipeline
from mitmcontext.values import Unreadable
from mitmcontext.wire.api import message_of
from mitmcontext.wire.gemini import GENERATE

# Whole conversations.


@st.composite
def conversations(draw: st.DrawFn) -> list[Json]:
    """The contents of a conversation: typed texts, calls with results, answers, thoughts."""
    signs = draw(st.booleans())
    chance = random.Random(draw(seeds))
    contents: list[Json] = []
    for turn in range(draw(st.integers(1, 4))):
        if turn:
            contents.append({"role": "model", "parts": _answer(chance, signs)})
        contents.append({"role": "user", "parts": _typed(chance)})
        for _ in range(draw(st.integers(0, 9))):
            contents += _step(chance, signs)
    return contents


def _typed(chance: random.Random) -> list[Json]:
    said = text(words(chance.randrange(1 << 16), chance.choice([20, 400])))
    beside: list[list[Json]] = [
        [],
        [],
        [PNG],
        [text("<environment_details>\n" + words(chance.randrange(99), 900))],
        [WAV],
    ]
    return [*copy.deepcopy(chance.choice(beside)), said]


def _answer(chance: random.Random, signs: bool) -> list[Json]:
    said = text(words(chance.randrange(1 << 16), 200))
    parts = [text(words(chance.randrange(99), 200), thought=True)] if signs else []
    if signs:
        return [*parts, said, signed(text(""), _signature(chance))]
    return [CODE, RAN, said] if chance.random() < 0.2 else [said]


def _step(chance: random.Random, signs: bool) -> list[Json]:
    names = chance.choices(["read", "run", "look"], k=chance.choice([1, 1, 2, 3]))
    calls = [call(name, **({"id": f"c{chance.random()}"} if signs else {})) for name in names]
    if signs:
        calls[0] = signed(calls[0], _signature(chance))
    said = [text(words(chance.randrange(99), 90))] if chance.random() < 0.5 else []
    results = [response(_outcome(chance), name) for name in names]
    role = "function" if chance.random() < 0.1 else "user"
    if chance.random() < 0.1:
        spread = [{"role": role, "parts": [result]} for result in results]
        return [{"role": "model", "parts": [*said, *calls]}, *spread]
    return [{"role": "model", "parts": [*said, *calls]}, {"role": role, "parts": results}]


def _signature(chance: random.Random) -> str:
    """One of its own for each part, as a provider's are."""
    return base64.b64encode(chance.randbytes(24)).decode()


def _outcome(chance: random.Random) -> Json:
    said = words(chance.randrange(1 << 16), chance.choice([10, 1_600, 3_000, 9_000]))
    forms: list[Json] = [{"output": said}, {"result": said}, {"error": said}]
    forms.append({"output": said, "code": 0})
    return copy.deepcopy(chance.choice(forms))


def body_of(contents: list[Json], style: Style, envelope: bool = False) -> bytes:
    request = {
        "contents": contents,
        "systemInstruction": {"parts": [text("Be brief.")], "role": "user"},
        "tools": [{"functionDeclarations": [{"name": n} for n in ("read", "run", "look")]}],
        "generationConfig": {"temperature": 1},
    }
    if envelope:
        wrapped = {"model": "gemini-3.8-flash", "project": "p", "request": request}
        return style.dump(wrapped)
    return style.dump(request)


def refusal(body: bytes, memory: rules_gemini.Memory, model: str, path: str = PATH) -> Any:
    return rules_gemini.judge(json.loads(body), memory, path, model, None)


@laws
@given(conversations(), styles, st.booleans())
def test_whatever_is_condensed_is_taken_and_changes_nothing_else(
    contents: list[Json], style: Style, envelope: bool
) -> None:
    path = "/v1internal:generateContent" if envelope else PATH
    memory = rules_gemini.Memory()
    signs = any("thoughtSignature" in p for c in contents for p in c["parts"])
    model = "gemini-3.8-flash" if signs else "gemini-2.5-pro"
    whole = body_of(contents, style, envelope)
    assert refusal(whole, memory, model, path) is None
    way = Way()
    room = max(900, way.tokens(GENERATE, whole) * 2 // 3)
    forwarded: list[bytes] = []
    for cut in range(1, len(contents) + 1):
        if any("functionCall" in part for part in contents[cut - 1]["parts"]):
            continue  # A client sends results with the calls.
        body = body_of(contents[:cut], style, envelope)
        if refusal(body, memory, model, path):
            continue  # Results that are spread over several contents come together.
        sent = way.send(GENERATE, body, room)
        forwarded.append(sent.forwarded)
        assert refusal(sent.forwarded, memory, model, path) is None
        before, after = GENERATE.read(body), GENERATE.read(sent.forwarded)
        assert sent.forwarded[: after.array.start] == body[: before.array.start]
        assert sent.forwarded[after.array.end :] == body[before.array.end :]
        again = way.lay(GENERATE, body).forwarded.request.body
        assert again == sent.forwarded


def test_a_long_turn_is_condensed_and_keeps_its_signatures() -> None:
    contents: list[Json] = [{"role": "user", "parts": [text("Find the bug.")]}]
    for number in range(30):
        made = signed(call("read"), base64.b64encode(bytes([number] * 30)).decode())
        contents.append({"role": "model", "parts": [made]})
        contents.append({"role": "user", "parts": [response({"output": words(number, 4_000)})]})
    body = body_of(contents, Style())
    sent = Way().send(GENERATE, body, 20_000)
    assert sent.step is not None
    after = json.loads(sent.forwarded)["contents"]
    assert [c for c in after if c["role"] == "model"] == [
        c for c in contents if c["role"] == "model"
    ]
    assert after[-6:] == contents[-6:]
    stub = after[2]["parts"][0]["functionResponse"]
    assert stub["name"] == "run"
    assert list(stub["response"]) == ["output"]
    assert stub["response"]["output"].startswith("[mitmcontext:")


def test_older_turns_fold_whole() -> None:
    contents: list[Json] = []
    for number in range(8):
        made = signed(call("read"), base64.b64encode(bytes([number] * 30)).decode())
        contents += [
            {"role": "user", "parts": [text(f"Find bug {number}.")]},
            {"role": "model", "parts": [made, call("run")]},
            {"role": "user", "parts": [response({"output": "x " * 900}), response({"a": 1})]},
            {"role": "model", "parts": [text("Found it. " * 40)]},
        ]
    contents.append({"role": "user", "parts": [text("Thank you.")]})
    body = body_of(contents, Style())
    sent = Way().send(GENERATE, body, 3_300)
    assert sent.step is not None
    after = json.loads(sent.forwarded)["contents"]
    assert len(after) < len(contents)
    notes = [
        c["parts"][0]["text"] for c in after if len(c["parts"]) == 1 and "text" in c["parts"][0]
    ]
    assert any(note.startswith("[mitmcontext:") and "> Find bug 2." in note for note in notes)
    assert refusal(sent.forwarded, rules_gemini.Memory(), "gemini-3.8-flash") is None


def test_media_are_never_taken_for_small() -> None:
    """A picture may be short in bytes and long in tokens."""
    contents = [{"role": "user", "parts": [text("What is it?")]}]
    for media, safe in [([], True), ([PDF], False), ([STORED], False), ([WAV], False)]:
        body = body_of([*contents, {"role": "user", "parts": [*media, text("x")]}], Style())
        laid = Way().lay(GENERATE, body)
        assert pipeline.is_surely_safe(laid, window(1_000_000), Way().thresholds) == safe


# Requests that are broken somewhere.


@st.composite
def broken_bodies(draw: st.DrawFn) -> bytes:
    """A request with one value somewhere in its contents replaced, left out or doubled."""
    chance = random.Random(draw(seeds))
    contents = draw(conversations())
    while len(json.dumps(contents)) < 30_000:
        contents += [
            {"role": "model", "parts": [text("ok")]},
            {"role": "user", "parts": [text("go")]},
        ]
        contents += [content for _ in range(4) for content in _step(chance, False)]
    holders = list(_holders(contents))
    holder, key = chance.choice(holders)
    kind = chance.randrange(3)
    if kind == 0:
        del holder[key]
    elif kind == 1:
        holder[key] = draw(json_values)
    elif isinstance(holder, list):
        holder.insert(key, copy.deepcopy(holder[key]))
    else:
        holder[f"{key}_x"] = holder[key]
    return body_of(contents, Style())


def _holders(value: Any) -> Any:
    places = enumerate(value) if isinstance(value, list) else value.items()
    for key, item in list(places):
        yield value, key
        if isinstance(item, list | dict):
            yield from _holders(item)


@laws
@given(broken_bodies())
def test_a_broken_request_is_left_or_becomes_one_that_is_no_worse(body: bytes) -> None:
    memory = rules_gemini.Memory()
    was = refusal(body, memory, "gemini-2.5-pro")
    try:
        request = replace(GENERATE.read(body), model="gemini-2.5-pro")
    except Unreadable:
        return
    messages = [message_of(GENERATE, request.raw(at)) for at in range(len(request.spans))]
    if not messages:
        return
    way = Way()
    sent = way.send(GENERATE, body, max(900, way.tokens(GENERATE, body) // 2))
    if was is None:
        assert refusal(sent.forwarded, memory, "gemini-2.5-pro") is None
    else:
        json.loads(sent.forwarded)
