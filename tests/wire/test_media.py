"""Images and documents: what is told of them, and text blocks in their place in each API's form."""

from __future__ import annotations

import base64
import hashlib
import json
import struct
import zlib
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loopback import (
    rules_anthropic,
    rules_bedrock,
    rules_cohere,
    rules_gemini,
    rules_openai,
    rules_responses,
)
from loopback.counting import model_named
from mitmcontext.condense.entries import FrozenEdit
from mitmcontext.rewrite import rewritten
from mitmcontext.values import MEDIA, Medium
from mitmcontext.wire import APIS, anthropic, bedrock, cohere, gemini, openai_chat
from mitmcontext.wire import openai_responses as responses
from mitmcontext.wire.api import Api
from mitmcontext.wire.media import media_in

Json = dict[str, Any]

MARK: Json = {"cache_control": {"type": "ephemeral"}}
LINE = "[mitmcontext: it was “removed”]\n\\"


def png(width: int = 1280, height: int = 800) -> bytes:
    """A black image, in grey."""

    def chunk(name: bytes, data: bytes) -> bytes:
        framed = name + data
        return struct.pack(">I", len(data)) + framed + struct.pack(">I", zlib.crc32(framed))

    rows = zlib.compress((b"\0" + b"\0" * width) * height)
    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


IMAGE = png()
PDF = b"%PDF-1.4\n" + bytes(range(256)) * 4
DATA, FILE = base64.b64encode(IMAGE).decode(), base64.b64encode(PDF).decode()
SHOWN = Medium("PNG", 1280, 800, len(IMAGE), hashlib.sha256(IMAGE).hexdigest()[:8])
READ = Medium("PDF", size=len(PDF), sha=hashlib.sha256(PDF).hexdigest()[:8])
URL = f"data:image/png;base64,{DATA}"
SOURCE = {"type": "base64", "media_type": "image/png", "data": DATA}


class Case(NamedTuple):
    """A block in a user's message, the text block that takes its place, and what is told of it."""

    api: Api
    text: Json
    block: Json
    instead: Json
    told: Medium
    body: Callable[[list[Json]], Json]
    refused: Callable[[Json], object]


def _anthropic(content: list[Json]) -> Json:
    messages = [{"role": "user", "content": content}]
    return {"model": "claude-sonnet-4-5", "max_tokens": 9, "messages": messages}


def _chat(content: list[Json]) -> Json:
    return {"model": "gpt-4o", "messages": [{"role": "user", "content": content}]}


def _cohere(content: list[Json]) -> Json:
    return {"model": "command-a", "messages": [{"role": "user", "content": content}]}


def _bedrock(content: list[Json]) -> Json:
    return {"messages": [{"role": "user", "content": content}]}


def _gemini(parts: list[Json]) -> Json:
    return {"contents": [{"role": "user", "parts": parts}]}


def _responses(content: list[Json]) -> Json:
    item = {"type": "message", "role": "user", "content": content}
    return {"model": "gpt-5.1", "input": [item], "store": False}


def _output(content: list[Json]) -> Json:
    call = {"type": "function_call", "call_id": "a", "name": "look", "arguments": "{}"}
    answer = {"type": "function_call_output", "call_id": "a", "output": content}
    asked = {"type": "message", "role": "user", "content": "Look."}
    return {"model": "gpt-5.1", "input": [asked, call, answer], "store": False}


def typed(text: str, name: str = "text") -> Json:
    return {"type": name, "text": text}


def in_anthropic(block: Json, told: Medium, mark: Json | None = None) -> Case:
    def refused(body: Json) -> object:
        return rules_anthropic.check(body, length=False)

    held, text = mark or {}, {**typed(LINE), **(mark or {})}
    return Case(anthropic.MESSAGES, typed("See:"), block | held, text, told, _anthropic, refused)


def in_chat(block: Json, told: Medium) -> Case:
    def refused(body: Json) -> object:
        return rules_openai.check(body, length=False)

    return Case(openai_chat.CHAT, typed("See:"), block, typed(LINE), told, _chat, refused)


def in_responses(block: Json, told: Medium, body: Callable[[list[Json]], Json]) -> Case:
    text = typed(LINE, "input_text")
    see = typed("See:", "input_text")
    return Case(responses.RESPONSES, see, block, text, told, body, rules_responses.check)


def in_bedrock(block: Json, told: Medium) -> Case:
    def refused(body: Json) -> object:
        return rules_bedrock.check(body, rules_bedrock.Memory(), None, model_named("claude-3"))

    return Case(bedrock.CONVERSE, {"text": "See:"}, block, {"text": LINE}, told, _bedrock, refused)


def in_cohere(block: Json, told: Medium) -> Case:
    def refused(body: Json) -> object:
        return rules_cohere.check(body, rules_cohere.Memory(), None, model_named("command-a"))

    return Case(cohere.CHAT, typed("See:"), block, typed(LINE), told, _cohere, refused)


def in_gemini(block: Json, told: Medium) -> Case:
    def refused(body: Json) -> object:
        path = "/v1beta/models/gemini-2.5-flash:generateContent"
        return rules_gemini.judge(body, rules_gemini.Memory(), path, "gemini-2.5-flash", None)

    return Case(gemini.GENERATE, {"text": "See:"}, block, {"text": LINE}, told, _gemini, refused)


LINKED = Medium(link="https://x.example/a.png")
CASES = {
    "an image": in_anthropic({"type": "image", "source": SOURCE}, SHOWN),
    "an image with a marker": in_anthropic({"type": "image", "source": SOURCE}, SHOWN, MARK),
    "a linked image": in_anthropic(
        {"type": "image", "source": {"type": "url", "url": "https://x.example/a.png?key=1"}}, LINKED
    ),
    "an image that the provider keeps": in_anthropic(
        {"type": "image", "source": {"type": "file", "file_id": "file_1"}}, Medium()
    ),
    "a document": in_anthropic(
        {
            "type": "document",
            "source": {"type": "base64", "media_type": "application/pdf", "data": FILE},
            "title": "A",
        },
        READ,
    ),
    "a plain document": in_anthropic(
        {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "é"}},
        Medium("PLAIN", size=2, sha=hashlib.sha256("é".encode()).hexdigest()[:8]),
    ),
    "Chat, an image": in_chat(
        {"type": "image_url", "image_url": {"url": URL, "detail": "high"}}, SHOWN
    ),
    "Chat, a linked image": in_chat(
        {"type": "image_url", "image_url": {"url": "https://x.example/a.png"}}, LINKED
    ),
    "Chat, a file": in_chat(
        {
            "type": "file",
            "file": {"filename": "a.pdf", "file_data": f"data:application/pdf;base64,{FILE}"},
        },
        READ,
    ),
    "Responses, an image": in_responses(
        {"type": "input_image", "image_url": URL, "detail": "auto"}, SHOWN, _responses
    ),
    "Responses, a file": in_responses(
        {"type": "input_file", "filename": "a.pdf", "file_data": FILE}, READ, _responses
    ),
    "Responses, an image in an output": in_responses(
        {"type": "input_image", "image_url": URL}, SHOWN, _output
    ),
    "Converse, an image": in_bedrock(
        {"image": {"format": "png", "source": {"bytes": DATA}}}, SHOWN
    ),
    "Converse, a document": in_bedrock(
        {"document": {"format": "pdf", "name": "a", "source": {"bytes": FILE}}}, READ
    ),
    "Cohere, an image": in_cohere({"type": "image_url", "image_url": {"url": URL}}, SHOWN),
    "Gemini, an image": in_gemini({"inlineData": {"mimeType": "image/png", "data": DATA}}, SHOWN),
    "Gemini, in snake case": in_gemini(
        {"inline_data": {"mime_type": "application/pdf", "data": FILE}}, READ
    ),
    "Gemini, a file": in_gemini(
        {"fileData": {"mimeType": "application/pdf", "fileUri": "https://x.example/a.png"}},
        Medium("PDF", link="https://x.example/a.png"),
    ),
}
cases = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


def laid(case: Case, body: bytes) -> tuple[bytes, int, int]:
    """The body with a line in the block's place; the message and the part that it stood in."""
    request = case.api.read(body)
    for at in range(len(request.spans)):
        for index, part in enumerate(case.api.parse(request.raw(at)).parts):
            if part.kind in MEDIA:
                edit = FrozenEdit(at, index, part.digest, LINE)
                return rewritten(case.api, request, [edit]), at, index
    raise AssertionError("nothing is shown")


@cases
def test_a_text_block_of_the_api_takes_its_place_and_is_taken(case: Case) -> None:
    sent = case.body([case.text, case.block, case.text])
    assert case.refused(sent) is None
    made = json.loads(laid(case, json.dumps(sent).encode())[0])
    assert made == case.body([case.text, case.instead, case.text])
    assert case.refused(made) is None


@cases
def test_what_it_was_is_told(case: Case) -> None:
    assert media_in(json.dumps(case.block).encode()) == (case.told,)


@cases
@given(st.sampled_from([(",", ":"), (", ", ": "), (" ,\t", " :\n ")]), st.booleans())
def test_nothing_else_changes(case: Case, separators: tuple[str, str], ascii_: bool) -> None:
    sent = case.body([case.text, case.block, case.text])
    body = json.dumps(sent, separators=separators, ensure_ascii=ascii_).encode()
    block = json.dumps(case.block, separators=separators, ensure_ascii=ascii_).encode()
    made, at, _ = laid(case, body)
    start = body.index(block)
    assert made[:start] == body[:start]
    behind = len(body) - start - len(block)
    assert made[len(made) - behind :] == body[start + len(block) :]
    after = case.api.parse(case.api.read(made).raw(at))
    assert LINE in "\n".join(part.text for part in after.parts)
    assert not any(part.kind in MEDIA for part in after.parts)


CITED = {"citations": {"enabled": True}}
STAY: dict[str, tuple[Api, Json]] = {
    "a document that may be cited": (
        anthropic.MESSAGES,
        {
            "role": "user",
            "content": [
                {
                    "type": "document",
                    "source": {"type": "text", "media_type": "text/plain", "data": "x"},
                    **CITED,
                }
            ],
        },
    ),
    "the same at Bedrock": (
        bedrock.CONVERSE,
        {
            "role": "user",
            "content": [{"document": {"name": "a", "source": {"text": "x"}, **CITED}}],
        },
    ),
    "what the model drew and signed": (
        gemini.GENERATE,
        {
            "role": "model",
            "parts": [
                {
                    "inlineData": {"mimeType": "image/png", "data": DATA},
                    "thoughtSignature": "c2ln",
                }
            ],
        },
    ),
    "a screenshot that has to be one": (
        responses.RESPONSES,
        {
            "type": "computer_call_output",
            "call_id": "a",
            "output": {"type": "computer_screenshot", "image_url": URL},
        },
    ),
    "images beside a message's text": (
        next(api for api in APIS if api.name == "Ollama chat"),
        {"role": "user", "content": "See:", "images": [DATA]},
    ),
    "an image under an unknown key": (
        anthropic.MESSAGES,
        {"role": "user", "content": [{"type": "image", "source": SOURCE, "odd": 1}]},
    ),
}


@pytest.mark.parametrize(("api", "message"), STAY.values(), ids=STAY)
def test_these_stay(api: Api, message: Json) -> None:
    shown = [part for part in api.parse(json.dumps(message).encode()).parts if part.kind in MEDIA]
    assert [part.value for part in shown] == [None]


def test_images_in_a_result_may_go_with_it() -> None:
    content = [typed("Done."), {"type": "image", "source": SOURCE, **MARK}]
    result = {"type": "tool_result", "tool_use_id": "a", "content": content}
    raw = json.dumps({"role": "user", "content": [result]}).encode()
    (part,) = anthropic.MESSAGES.parse(raw).parts
    assert part.value is not None
    old = raw[slice(*part.value)]
    assert json.loads(old) == content
    assert json.loads(anthropic.MESSAGES.replacement(old, "x")) == [{**typed("x"), **MARK}]
    assert media_in(old) == (SHOWN,)

    held = {"toolUseId": "a", "content": [{"image": {"format": "png", "source": {"bytes": DATA}}}]}
    raw = json.dumps({"role": "user", "content": [{"toolResult": held}]}).encode()
    (part,) = bedrock.CONVERSE.parse(raw).parts
    assert part.value is not None
    assert bedrock.CONVERSE.replacement(raw[slice(*part.value)], "x") == b'[{"text":"x"}]'


@pytest.mark.parametrize(
    "odd", [b"", b"{", b"1", b'{"data": 5}', b'{"url": "x"}', b"[" * 5_000, b'{"data":"\\ud800"}']
)
def test_of_what_cannot_be_read_little_or_nothing_is_told(odd: bytes) -> None:
    assert all(medium.width == 0 and medium.link == "" for medium in media_in(odd))
