"""Reading along while an answer passes through.

mitmproxy hands each piece of a streamed response to a callable and forwards what that returns. Ours
returns what it was given, always, and looks on the side for the provider's own token counts. If
looking fails, for whatever reason, the tee stops looking and the answer goes on.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from enum import StrEnum
from typing import Any, Final, Protocol

from mitmcontext.proxy import bodies
from mitmcontext.values import Usage
from mitmcontext.wire.event_stream import EventStreamReader, unwrapped
from mitmcontext.wire.json_array import JsonArrayReader
from mitmcontext.wire.ndjson import NdjsonReader
from mitmcontext.wire.sse import SseReader
from mitmcontext.wire.telling import telling

HELD = (400, 413, 422)
"""Statuses by which providers refuse a request for what it is."""

EVENT_STREAM = "text/event-stream"
AWS_EVENT_STREAM = "application/vnd.amazon.eventstream"
LINES = ("application/x-ndjson", "application/ndjson", "application/jsonl", "application/jsonlines")
_STREAMS: Final = (EVENT_STREAM, AWS_EVENT_STREAM, *LINES)

# An answer with an image in it may be large; parsing it would stall every other flow.
_JSON_LIMIT = 2 * 2**20
_EVENT_LIMIT = 2**20
# An answer that says that it is no larger comes in one piece or two.
_SMALL = 64 * 2**10
# What one piece off the wire may decode to. The wire gives at most 64 KiB at a time.
_PIECE_ROOM = 2**20

# Parsing every event would cost more than all the rest; only a few say what was used (or all of
# them, in Gemini's streams, and `null` in most of Chat Completions'). In a model's own text the
# quotes are escaped, so that these stand for keys: `usage` and Gemini's `usageMetadata`, and
# Ollama's counts.
_NEEDLE: Final = re.compile(rb'"(?:usage\w*"\s*:\s*\{|(?:prompt_)?eval_count")')


class Handling(StrEnum):
    """What is done with an answer, decided when its headers are there."""

    TEE = "streamed and read along"
    STREAM = "streamed"
    READ = "left to mitmproxy, and read when it is complete"
    HOLD = "held until complete"
    LEAVE = "left to mitmproxy"


def media_type(content_type: str | None) -> str:
    """The media type alone, in lower case."""
    return (content_type or "").partition(";")[0].strip().lower()


def handling(
    status: int,
    content_type: str | None,
    *,
    recognised: bool,
    rewritten: bool,
    length: str | None = None,
) -> Handling:
    """How to handle an answer.

    Answers to LLM requests are streamed, and so is whatever is a stream by its type, since
    mitmproxy would hold it until its end. Held is only what may have to be replaced: a refusal of
    what we rewrote. A small JSON document is of no use before it is complete, and to pass its head
    on by itself costs both sides: mitmproxy does with it what it does without us.
    """
    media = media_type(content_type)
    if status < 200:
        return Handling.LEAVE
    if recognised and rewritten and status in HELD:
        return Handling.HOLD
    small = length is not None and length.isdecimal() and int(length) <= _SMALL
    if recognised and small and _is_json(media):
        return Handling.READ
    if recognised and (media in _STREAMS or _is_json(media)):
        return Handling.TEE
    if recognised or media in _STREAMS:
        return Handling.STREAM
    return Handling.LEAVE


def merge(first: Usage | None, then: Usage | None) -> Usage | None:
    """Both together; where both say something, the later one counts."""
    if first is None or then is None:
        return then if first is None else first

    def latest(old: int | None, new: int | None) -> int | None:
        return old if new is None else new

    return Usage(
        input_tokens=latest(first.input_tokens, then.input_tokens),
        output_tokens=latest(first.output_tokens, then.output_tokens),
        cache_read_tokens=latest(first.cache_read_tokens, then.cache_read_tokens),
        cache_write_tokens=latest(first.cache_write_tokens, then.cache_write_tokens),
    )


class Framing(Protocol):
    """How an answer falls into pieces that can be read for themselves."""

    def feed(self, data: bytes, /) -> Iterable[bytes]:
        """The pieces that these bytes complete."""

    def close(self) -> Iterable[bytes]:
        """What is left at the end."""


class _Events:
    """The data of server-sent events."""

    def __init__(self) -> None:
        self._reader = SseReader(_EVENT_LIMIT)

    def feed(self, data: bytes) -> Iterable[bytes]:
        return [event.data for event in self._reader.feed(data)]

    def close(self) -> Iterable[bytes]:
        last = self._reader.close()
        return [] if last is None else [last.data]


class _Messages:
    """The payloads of an AWS event stream."""

    def __init__(self) -> None:
        self._reader = EventStreamReader(_EVENT_LIMIT)

    def feed(self, data: bytes) -> Iterable[bytes]:
        return [unwrapped(message.payload) for message in self._reader.feed(data)]

    def close(self) -> Iterable[bytes]:
        return []


def _framing(media: str) -> Framing | None:
    """The framing of a media type; None where only the first byte can tell."""
    if media == EVENT_STREAM:
        return _Events()
    if media == AWS_EVENT_STREAM:
        return _Messages()
    return NdjsonReader(_EVENT_LIMIT) if media in LINES else None


class Tee:
    """What to set as `flow.response.stream`.

    `on_usage` is called at most once, at the end, if the answer said anything about usage.
    `on_failure` is called at most once, with the kind of the error, if reading along failed.

    Of a stream the first and the last piece that speak of usage are read, once it has ended:
    providers tell the input with the first (Anthropic) or the sum with the last one (all others).
    """

    def __init__(
        self,
        usage_of: Callable[[Mapping[str, Any]], Usage | None],
        on_usage: Callable[[Usage], None],
        on_failure: Callable[[str], None],
        *,
        content_type: str | None,
        content_encoding: str | None,
    ) -> None:
        self._usage_of = usage_of
        self._on_usage = on_usage
        self._on_failure = on_failure
        self._usage: Usage | None = None
        self._reading = True
        self._framing = _framing(media_type(content_type))
        self._telling: list[bytes] = []  # the first and the last piece that speak of usage
        self._whole: list[bytes] = []
        self._whole_size = 0
        try:
            self._decoder = bodies.decoder(content_encoding)
        except BaseException as error:  # noqa: BLE001 - as in __call__
            self._give_up(error)

    def __call__(self, data: bytes) -> bytes:
        """The same data. An empty piece is the end."""
        if self._reading:
            try:
                if data:
                    self._look_at(self._decoder.feed(data, _PIECE_ROOM))
                else:
                    self._end()
            except BaseException as error:  # noqa: BLE001 - else mitmproxy lets the client hang
                self._give_up(error)
        return data

    def read(self, answer: bytes) -> None:
        """Look at a whole answer that was not streamed."""
        self(answer)
        self(b"")

    def finish(self) -> None:
        """Report what was read so far: for an answer that broke off, which gets no last piece."""
        self(b"")

    def _look_at(self, decoded: bytes) -> None:
        if self._framing is None and not self._whole:
            decoded = decoded.lstrip(b" \t\r\n")
            if decoded.startswith(b"["):
                self._framing = JsonArrayReader(_EVENT_LIMIT)
        if self._framing is not None:
            self._note(self._framing.feed(decoded))
            return
        self._whole_size += len(decoded)
        if self._whole_size > _JSON_LIMIT:
            self._stop()
        elif decoded:
            self._whole.append(decoded)

    def _end(self) -> None:
        if self._framing is not None:
            self._note(self._framing.close())
        for data in self._telling or [b"".join(self._whole)]:
            self._read(data)
        self._stop()
        if self._usage is not None:
            self._on_usage(self._usage)

    def _note(self, pieces: Iterable[bytes]) -> None:
        for piece in pieces:
            if _NEEDLE.search(piece):
                self._telling[1:] = [piece]

    def _read(self, data: bytes) -> None:
        answer = telling(data) if data else None
        if isinstance(answer, dict):
            self._usage = merge(self._usage, self._usage_of(answer))

    def _stop(self) -> None:
        self._reading = False
        self._whole.clear()
        self._telling.clear()
        self._framing = None

    def _give_up(self, error: BaseException) -> None:
        try:
            self._stop()
            self._on_failure(type(error).__name__)
        except BaseException:  # noqa: BLE001, S110 - there is nobody left to tell
            pass


def _is_json(media: str) -> bool:
    return media == "application/json" or media.endswith("+json")
