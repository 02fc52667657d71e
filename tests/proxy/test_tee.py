"""The tee: the answer passes as it is, whatever becomes of reading along."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.wire.test_event_stream import event_message

from mitmcontext.proxy.bodies import encode
from mitmcontext.proxy.tee import Handling, Tee, handling, merge
from mitmcontext.values import Usage

AWS = "application/vnd.amazon.eventstream"


def usage_of(event: Mapping[str, Any]) -> Usage | None:
    """As an Anthropic reader would."""
    usage = event.get("usage") or event.get("message", {}).get("usage")
    if not usage:
        return None
    return Usage(input_tokens=usage.get("input_tokens"), output_tokens=usage.get("output_tokens"))


class Heard:
    """A tee and what it reported."""

    def __init__(
        self,
        content_type: str | None = "text/event-stream",
        content_encoding: str | None = None,
        usage_of: Callable[[Mapping[str, Any]], Usage | None] = usage_of,
    ) -> None:
        self.usages: list[Usage] = []
        self.failures: list[str] = []
        self.tee = Tee(
            usage_of,
            self.usages.append,
            self.failures.append,
            content_type=content_type,
            content_encoding=content_encoding,
        )

    def passes(self, *pieces: bytes) -> Heard:
        for piece in pieces:
            assert self.tee(piece) is piece
        return self


STREAM = (
    'event: message_start\ndata: {"type":"message_start","message":{"usage":'
    '{"input_tokens":1200,"output_tokens":1}}}\n\n'
    'event: ping\ndata: {"type": "ping"}\n\n'
    'event: content_block_delta\ndata: {"delta":{"text":"the \\"usage\\" … 🙂"}}\n\n'
    'event: message_delta\ndata: {"type":"message_delta","usage":{"output_tokens":42}}\n\n'
    'event: message_stop\ndata: {"type":"message_stop"}\n\n'
).encode()
ANSWER = json.dumps(
    {"content": [{"text": "x" * 3000}], "usage": {"input_tokens": 1200, "output_tokens": 42}}
).encode()
TOLD = Usage(input_tokens=1200, output_tokens=42)
LINES = (
    b'{"message":{"content":"the \\"usage\\""},"done":false}\n'
    b'{"message":{"content":""},"done":true,"prompt_eval_count":1200,"eval_count":42}\n'
)
ARRAY = (
    b'[{"text": "the \\"usage\\": { ]", "usage": {"input_tokens": 1100}}\n,\r\n'
    b'{"text": "no \\\\"}\n,\r\n'
    b'{"text": "x", "usage": {"input_tokens": 1200, "output_tokens": 42}}\n]\n'
)
MESSAGES = b"".join(
    event_message({":event-type": name}, payload)
    for name, payload in [
        ("messageStart", b'{"role":"assistant"}'),
        ("contentBlockDelta", b'{"delta":{"text":"the \\"usage\\""},"p":"abc"}'),
        ("metadata", b'{"usage":{"input_tokens":1200,"output_tokens":42},"p":"ab"}'),
    ]
)
WRAPPED = b"".join(
    event_message(
        {":event-type": "chunk"}, json.dumps({"bytes": base64.b64encode(data).decode()}).encode()
    )
    for data in re.findall(rb"data: (.*)", STREAM)
)


def ollamas(event: Mapping[str, Any]) -> Usage | None:
    if "prompt_eval_count" in event:
        return Usage(event["prompt_eval_count"], event["eval_count"])
    return usage_of(event)


EVERY_ENCODING = pytest.mark.parametrize("encoding", [None, "gzip", "deflate", "br", "zstd"])


@EVERY_ENCODING
@pytest.mark.parametrize("size", [1, 7, 1000])
@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("text/event-stream; charset=utf-8", STREAM),
        ("application/json", ANSWER),
        ("application/json; charset=UTF-8", ARRAY),
        ("application/json", b" \r\n" + ARRAY),
        ("application/x-ndjson", LINES),
        ("application/x-ndjson", LINES.rstrip()),
        (AWS, MESSAGES),
        (AWS, WRAPPED),
    ],
    ids=["events", "json", "array", "space", "lines", "a last line", "messages", "wrapped"],
)
def test_usage_is_read_however_the_answer_is_encoded_and_cut(
    encoding: str | None, size: int, content_type: str, body: bytes
) -> None:
    raw = encode(body, encoding)
    heard = Heard(content_type, encoding, ollamas)
    heard.passes(*(raw[i : i + size] for i in range(0, len(raw), size)))
    assert heard.usages == []  # only at the end
    heard.passes(b"", b"")
    assert (heard.usages, heard.failures) == ([TOLD], [])


def test_an_answer_that_breaks_off_tells_what_it_had_told() -> None:
    heard = Heard().passes(STREAM[:200])
    heard.tee.finish()
    heard.tee.finish()
    assert (heard.usages, heard.failures) == ([Usage(input_tokens=1200, output_tokens=1)], [])


def test_a_list_of_answers_is_read_as_a_stream_would_be() -> None:
    body = b'[{"usage":{"input_tokens":1200}},7,{"usage":{"output_tokens":42}}]'
    assert Heard("application/json").passes(body, b"").usages == [TOLD]


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("text/event-stream", b"data: [DONE]\n\n"),
        ("text/event-stream", b""),
        ("application/json", b'{"id": 1}'),
        ("application/json", b""),
        ("application/json", b'"text"'),
    ],
)
def test_an_answer_that_says_nothing_is_no_failure(content_type: str, body: bytes) -> None:
    heard = Heard(content_type).passes(body, b"") if body else Heard(content_type).passes(b"")
    assert (heard.usages, heard.failures) == ([], [])


@pytest.mark.parametrize(
    ("content_type", "body"),
    [("text/event-stream", STREAM), ("application/json", ARRAY), (AWS, WRAPPED)],
    ids=["events", "array", "wrapped"],
)
def test_only_the_first_and_the_last_that_speak_of_usage_are_parsed(
    content_type: str, body: bytes
) -> None:
    parsed: list[Mapping[str, Any]] = []

    def remember(event: Mapping[str, Any]) -> None:
        parsed.append(event)

    Heard(content_type, usage_of=remember).passes(body, b"")
    assert len(parsed) == 2
    assert [usage_of(event) is not None for event in parsed] == [True, True]


def test_what_is_broken_and_does_not_speak_of_usage_does_no_harm() -> None:
    assert Heard().passes(STREAM, b"data: {broken\n\n", b'data: {"usage":null\n\n', b"").usages == [
        TOLD
    ]


def test_an_array_of_any_length_is_read_and_not_kept() -> None:
    heard = Heard("application/json").passes(b"[")
    large = b'{"text":"' + b"x" * 2**16 + b'","usage":{"input_tokens":1}},'
    heard.passes(*[large] * 100, b'{"image":"', *[b"x" * 2**16] * 40, b'"},')
    held = sum(map(len, heard.tee._telling))
    heard.passes(b'{"usage":{"input_tokens":1200,"output_tokens":42}}]', b"")
    assert held < 2**18
    assert (heard.usages, heard.failures) == ([TOLD], [])


@pytest.mark.parametrize(
    ("content_type", "encoding", "pieces"),
    [
        ("text/event-stream", "gzip", [STREAM]),
        ("text/event-stream", "zstd", [b"\x28\xb5\x2f\xfd" + STREAM]),
        ("text/event-stream", "br, gzip", [STREAM]),
        ("text/event-stream", "compress", [STREAM]),
        ("text/event-stream", None, [b'data: {"usage":{ \n\n' + STREAM]),
        ("text/event-stream", None, [b'data: {"usage":{"a":' + b"[" * 100_000 + b"\n\n", STREAM]),
        (AWS, None, [b"\x00\x00\x00\x10" * 8]),
        (AWS, None, [event_message({}, b'{"bytes":"x"}')]),
        (AWS, None, [event_message({}, b'{"bytes"')]),
        ("application/x-ndjson", None, [b'{"eval_count"']),
        ("application/json", None, [b"<html>"]),
        ("application/json", None, [b"\xff\xfe"]),
        ("application/json", "zstd", [encode(bytes(64 * 2**20), "zstd")]),
    ],
)
def test_what_cannot_be_read_passes_all_the_same_and_is_counted_once(
    content_type: str, encoding: str | None, pieces: list[bytes]
) -> None:
    heard = Heard(content_type, encoding).passes(*pieces, *pieces, b"", b"")
    assert heard.usages == []
    assert len(heard.failures) == 1
    assert heard.failures[0].isidentifier()


@pytest.mark.parametrize("error", [ValueError("secret"), SystemExit(1), KeyboardInterrupt()])
def test_a_reader_that_fails_does_not_disturb_the_answer(error: BaseException) -> None:
    def fail(event: Mapping[str, Any]) -> Usage | None:
        raise error

    heard = Heard(usage_of=fail).passes(STREAM, STREAM, b"")
    assert heard.failures == [type(error).__name__]


def test_listeners_that_fail_do_not_disturb_the_answer_either() -> None:
    def fail(what: object) -> None:
        raise RuntimeError

    tee = Tee(usage_of, fail, fail, content_type="text/event-stream", content_encoding=None)
    assert [tee(STREAM), tee(b""), tee(b"")] == [STREAM, b"", b""]
    assert Tee(usage_of, fail, fail, content_type=None, content_encoding="x")(b"a") == b"a"


def test_a_large_plain_answer_is_given_up_silently_and_not_kept() -> None:
    heard = Heard("application/json")
    heard.passes(*[b"x" * 2**16] * 100, b"")
    assert (heard.usages, heard.failures) == ([], [])
    assert heard.tee._whole == []


def test_a_large_event_is_left_out_and_the_next_one_is_read() -> None:
    heard = Heard().passes(b'data: "', *[b"x" * 2**16] * 40, b'"\n\n', STREAM, b"")
    assert (heard.usages, heard.failures) == ([TOLD], [])


@EVERY_ENCODING
@pytest.mark.parametrize(
    "content_type", ["text/event-stream", "application/json", "application/x-ndjson", AWS, "", None]
)
@given(pieces=st.lists(st.binary()))
def test_any_pieces_pass_unchanged(
    content_type: str | None, encoding: str | None, pieces: list[bytes]
) -> None:
    Heard(content_type, encoding).passes(*pieces, b"")


def test_later_usage_counts_where_it_says_something() -> None:
    assert merge(None, None) is None
    assert merge(TOLD, None) == merge(None, TOLD) == TOLD
    assert merge(Usage(1, 2, 3, None), Usage(None, 5, 0, None)) == Usage(1, 5, 0, None)


@pytest.mark.parametrize(
    ("length", "expected"),
    [
        ("900", Handling.READ),
        ("65536", Handling.READ),
        ("65537", Handling.TEE),
        (None, Handling.TEE),
        ("-1", Handling.TEE),
        ("9, 9", Handling.TEE),
    ],
)
def test_a_small_document_is_left_to_mitmproxy(length: str | None, expected: Handling) -> None:
    media = "application/json"
    found = handling(200, media, recognised=True, rewritten=False, length=length)
    assert found is expected
    plain = handling(200, media, recognised=False, rewritten=False, length=length)
    assert plain is Handling.LEAVE
    stream = handling(200, "text/event-stream", recognised=True, rewritten=False, length=length)
    assert stream is Handling.TEE


def test_of_a_large_answer_only_what_was_used_is_built() -> None:
    heard = Heard("application/json")
    said = ", ".join(f'{{"token": "w{n}", "logprob": -{n}.5}}' for n in range(20_000))
    answer = f'{{"choices": [{said}], "usage": {{"input_tokens": 9, "output_tokens": 4}}}}'
    heard.tee.read(answer.encode())
    assert heard.usages == [Usage(input_tokens=9, output_tokens=4)]
    broken = Heard("application/json")
    broken.tee.read(answer.encode()[:-1])
    assert not broken.usages
    assert broken.failures == ["DecodeError"]


def test_what_bedrock_adds_to_the_last_event_does_not_stand_for_what_was_used() -> None:
    added = b'{"type":"message_stop","amazon-bedrock-invocationMetrics":{"inputTokenCount":1200}}'
    stream = STREAM.replace(b'{"type":"message_stop"}', added)
    assert added in stream
    assert Heard().passes(stream, b"").usages == [TOLD]


def test_a_whole_answer_is_read_at_once() -> None:
    heard = Heard("application/json")
    heard.tee.read(b'{"usage":{"input_tokens":7,"output_tokens":2}}')
    assert heard.usages == [Usage(input_tokens=7, output_tokens=2)]
    nothing = Heard("application/json")
    nothing.tee.read(b"")
    assert not nothing.usages
    assert not nothing.failures


@pytest.mark.parametrize(
    ("status", "content_type", "recognised", "rewritten", "expected"),
    [
        (200, "text/event-stream", True, True, Handling.TEE),
        (200, "Application/JSON; charset=utf-8", True, False, Handling.TEE),
        (200, AWS, True, False, Handling.TEE),
        (200, AWS, False, False, Handling.STREAM),
        (200, "application/x-ndjson", True, False, Handling.TEE),
        (200, "application/x-ndjson", False, False, Handling.STREAM),
        (200, "text/plain", True, False, Handling.STREAM),
        (200, None, True, False, Handling.STREAM),
        (200, "text/event-stream", False, False, Handling.STREAM),
        (200, "application/json", False, False, Handling.LEAVE),
        (101, None, True, False, Handling.LEAVE),
        (400, "application/json", True, True, Handling.HOLD),
        (422, "text/html", True, True, Handling.HOLD),
        (413, "application/json", True, True, Handling.HOLD),
        (400, "application/json", True, False, Handling.TEE),
        (429, "application/json", True, True, Handling.TEE),
        (400, "application/json", False, False, Handling.LEAVE),
    ],
)
def test_how_an_answer_is_handled(
    status: int, content_type: str | None, recognised: bool, rewritten: bool, expected: Handling
) -> None:
    assert handling(status, content_type, recognised=recognised, rewritten=rewritten) is expected
