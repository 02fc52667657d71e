"""The size of an image is read from its header, whatever stands around or behind it."""

from __future__ import annotations

import base64
import json
import struct
import zlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mitmcontext.values import Part, Picture, Span
from mitmcontext.wire import (
    anthropic,
    bedrock,
    cohere,
    gemini_contents,
    ollama,
    openai_chat,
    responses_items,
)
from mitmcontext.wire.pictures import picture

SIDES = st.integers(1, 16_383)


def png(width: int, height: int) -> bytes:
    """A whole file, of one colour."""
    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    pixels = zlib.compress(b"\0" * (height * (width + 1)))
    chunks = [(b"IHDR", head), (b"IDAT", pixels), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )


def gif(width: int, height: int) -> bytes:
    return b"GIF89a" + struct.pack("<HH", width, height) + b"\0\0\0;"


def jpeg(width: int, height: int, before: int = 0) -> bytes:
    """Up to its frame, with so many bytes of previews and profiles before that."""
    segments = b""
    while before > 0:
        size = min(before, 60_000)
        segments += b"\xff\xe1" + struct.pack(">H", size + 2) + b"\xff\xc0" * (size // 2)
        segments += b"\0" * (size % 2)
        before -= size
    tables = b"\xff\xc4" + struct.pack(">H", 5) + b"\0\0\0"
    frame = b"\xff\xc2" + struct.pack(">HBHH", 11, 8, height, width) + b"\1\1\x11\0"
    return b"\xff\xd8" + segments + tables + b"\xff" + frame + b"\xff\xd9"


def webp(kind: bytes, body: bytes) -> bytes:
    return b"RIFF\0\0\0\0WEBP" + kind + struct.pack("<I", len(body)) + body


def lossy(width: int, height: int) -> bytes:
    return webp(b"VP8 ", b"\0\0\0\x9d\x01\x2a" + struct.pack("<HH", width, height) + b"\0" * 9)


def lossless(width: int, height: int) -> bytes:
    bits = (width - 1) | (height - 1) << 14
    return webp(b"VP8L", b"\x2f" + struct.pack("<I", bits) + b"\0" * 9)


def extended(width: int, height: int) -> bytes:
    sides = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    return webp(b"VP8X", b"\0\0\0\0" + sides + b"\0" * 9)


MAKERS = [gif, jpeg, lossy, lossless, extended]


def measured(said: str | bytes, **more: Any) -> Picture:
    text = json.dumps(said if isinstance(said, str) else base64.b64encode(said).decode()).encode()
    return picture(text, Span(0, len(text)), **more)


@given(st.sampled_from(MAKERS), SIDES, SIDES, st.binary(max_size=200))
def test_any_size_is_read(maker: Any, width: int, height: int, behind: bytes) -> None:
    assert measured(maker(width, height) + behind) == Picture(width, height)


def test_a_whole_png_is_read() -> None:
    assert measured(png(640, 480)) == Picture(640, 480)


def test_a_url_with_data_is_read() -> None:
    data = base64.b64encode(png(3, 5)).decode()
    assert measured(f"data:image/png;base64,{data}", detail="low") == Picture(3, 5, "low")


def test_the_web_safe_alphabet_is_read() -> None:
    data = base64.urlsafe_b64encode(jpeg(1_000, 2_000, 3_001)).decode().rstrip("=")
    assert measured(data) == Picture(1_000, 2_000)


def test_slashes_may_be_escaped() -> None:
    data = base64.b64encode(jpeg(4_095, 255, 1_000)).replace(b"/", b"\\/")
    assert b"\\/" in data
    assert picture(b'"' + data + b'"', Span(0, len(data) + 2)) == Picture(4_095, 255)


@pytest.mark.parametrize("before", [0, 1, 70_000, 300_000])
def test_a_frame_may_come_late(before: int) -> None:
    assert measured(jpeg(800, 600, before) + b"\0" * 1_000) == Picture(800, 600)


def test_but_not_too_late() -> None:
    assert measured(jpeg(800, 600, 600_000)) == Picture()


def test_plus_signs_may_be_escaped_and_lines_broken() -> None:
    file = jpeg(4_095, 255, 1_000)
    for data in (base64.b64encode(file), base64.encodebytes(file)):
        told = json.dumps(data.decode()).replace("+", "\\u002B").encode()
        assert picture(told, Span(0, len(told))) == Picture(4_095, 255)
    assert measured(f"data:image/png;base64, {base64.b64encode(png(3, 5)).decode()}") == Picture(
        3, 5
    )


@pytest.mark.parametrize(
    "said",
    [
        pytest.param("https://example.com/a.png", id="a link"),
        pytest.param("", id="nothing"),
        pytest.param("data:image/png;base64,", id="a URL without data"),
        pytest.param("!!!", id="no base64"),
        pytest.param(png(7, 7)[:20], id="a header cut short"),
        pytest.param(png(1, 1).replace(b"\0\0\0\1", b"\0\0\0\0"), id="no pixels"),
        pytest.param(jpeg(7, 7)[:-8], id="a frame cut short"),
        pytest.param(b"\xff\xd8\0\0\0\0\0\0", id="segments that are none"),
        pytest.param(b"%PDF-1.7", id="another file"),
    ],
)
def test_what_is_none_has_no_size(said: str | bytes) -> None:
    assert measured(said, detail="high") == Picture(detail="high")


@given(st.binary(max_size=300), st.sampled_from([b"", b"\xff\xd8", b"RIFF....WEBPVP8 ", b"GIF8"]))
def test_nothing_is_refused(data: bytes, head: bytes) -> None:
    found = measured(head + data)
    assert found.width >= 0 <= found.height


@pytest.mark.parametrize("text", [b"null", b"7", b"{}", b"[1]"])
def test_what_is_no_string_has_no_size(text: bytes) -> None:
    assert picture(text, Span(0, len(text))) == Picture()


DATA = base64.b64encode(png(30, 40)).decode()
URL = f"data:image/png;base64,{DATA}"
SOURCE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": DATA}}
INLINE = {"inline_data": {"mime_type": "image/png", "data": DATA}}


def of_user(*content: Any, **more: Any) -> dict[str, Any]:
    return {"role": "user", "content": list(content), **more}


@pytest.mark.parametrize(
    ("parse", "message", "detail"),
    [
        pytest.param(anthropic.parse, of_user(SOURCE), "", id="Anthropic"),
        pytest.param(
            anthropic.parse,
            of_user({"type": "tool_result", "tool_use_id": "a", "content": [SOURCE]}),
            "",
            id="Anthropic, in a result",
        ),
        pytest.param(
            openai_chat.parse,
            of_user({"type": "image_url", "image_url": {"url": URL, "detail": "low"}}),
            "low",
            id="OpenAI Chat",
        ),
        pytest.param(
            responses_items.parse,
            of_user({"type": "input_image", "image_url": URL, "detail": "high"}),
            "high",
            id="OpenAI Responses",
        ),
        pytest.param(
            responses_items.parse,
            {
                "type": "computer_call_output",
                "call_id": "a",
                "output": {"type": "computer_screenshot", "image_url": URL},
            },
            "",
            id="OpenAI Responses, a screenshot",
        ),
        pytest.param(
            gemini_contents.parse,
            {"role": "user", "parts": [{"inlineData": INLINE["inline_data"]}]},
            "",
            id="Gemini",
        ),
        pytest.param(
            gemini_contents.parse, {"role": "user", "parts": [INLINE]}, "", id="Gemini, in snakes"
        ),
        pytest.param(
            gemini_contents.parse,
            {
                "role": "user",
                "parts": [{"functionResponse": {"name": "f", "response": {}, "parts": [INLINE]}}],
            },
            "",
            id="Gemini, in a result",
        ),
        pytest.param(
            bedrock.parse,
            of_user({"image": {"format": "png", "source": {"bytes": DATA}}}),
            "",
            id="Bedrock",
        ),
        pytest.param(
            bedrock.parse,
            of_user(
                {
                    "toolResult": {
                        "toolUseId": "a",
                        "content": [{"image": {"format": "png", "source": {"bytes": DATA}}}],
                    }
                }
            ),
            "",
            id="Bedrock, in a result",
        ),
        pytest.param(
            cohere.parse, of_user({"type": "image_url", "image_url": {"url": URL}}), "", id="Cohere"
        ),
        pytest.param(
            ollama.parse_chat, {"role": "user", "content": "", "images": [DATA]}, "", id="Ollama"
        ),
    ],
)
def test_each_api_knows_where_its_images_are(parse: Any, message: Any, detail: str) -> None:
    parts: tuple[Part, ...] = parse(json.dumps(message).encode()).parts
    shown = [one for part in parts for one in part.pictures]
    assert shown == [Picture(30, 40, detail)]
    assert sum(part.images for part in parts) == 1


@pytest.mark.parametrize(
    ("parse", "content"),
    [
        pytest.param(
            anthropic.parse,
            {"type": "image", "source": {"type": "url", "url": "https://x/y"}},
            id="Anthropic",
        ),
        pytest.param(anthropic.parse, {"type": "image", "source": 7}, id="no source"),
        pytest.param(
            openai_chat.parse, {"type": "image_url", "image_url": "https://x/y"}, id="no object"
        ),
        pytest.param(responses_items.parse, {"type": "input_image", "file_id": "f"}, id="a file"),
    ],
)
def test_an_image_elsewhere_counts_as_one_of_no_size(parse: Any, content: Any) -> None:
    (part,) = parse(json.dumps(of_user(content)).encode()).parts
    assert part.images == 1
    assert part.pictures == (Picture(),)
