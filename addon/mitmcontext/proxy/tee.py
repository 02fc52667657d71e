"""Reading along while an answer passes through.

mitmproxy hands each piece of a streamed response to a callable and forwards what that returns. Ours
returns what it was given, always, and looks on the side for the provider's own token counts. If
looking fails, for whatever reason, the tee stops looking and the answer goes on.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Any

from mitmcontext.proxy import bodies
from mitmcontext.values import Usage
from mitmcontext.wire.sse import SseReader

HELD = (400, 413, 422)
"""Statuses by which providers refuse a request for what it is."""

EVENT_STREAM = "text/event-stream"

# An answer with an image in it may be large; parsing it would stall every other flow.
_JSON_LIMIT = 2 * 2**20
_EVENT_LIMIT = 2**20
# What one piece off the wire may decode to. The wire gives at most 64 KiB at a time.
_PIECE_ROOM = 2**20

# Parsing every event would cost more than all the rest; only a few speak of usage. In a model's own
# text the quotes are escaped, so that this stands for a key (also `usageMetadata`).
_NEEDLE = b'"usage'


class Handling(StrEnum):
    """What is done with an answer, decided when its headers are there."""

    TEE = "streamed and read along"
    STREAM = "streamed"
    HOLD = "held until complete"
    LEAVE = "left to mitmproxy"


def media_type(content_type: str | None) -> str:
    """The media type alone, in lower case."""
    return (content_type or "").partition(";")[0].strip().lower()


def handling(
    status: int, content_type: str | None, *, recognised: bool, rewritten: bool
) -> Handling:
    """How to handle an answer.

    Answers to LLM requests are streamed, and so is every event stream, since mitmproxy would hold
    it until its end. Held is only what may have to be replaced: a refusal of what we rewrote.
    """
    media = media_type(content_type)
    if status < 200:
        return Handling.LEAVE
    if recognised and rewritten and status in HELD:
        return Handling.HOLD
    if recognised and (media == EVENT_STREAM or _is_json(media)):
        return Handling.TEE
    if recognised or media == EVENT_STREAM:
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


class Tee:
    """What to set as `flow.response.stream`.

    `on_usage` is called at most once, at the end, if the answer said anything about usage.
    `on_failure` is called at most once, with the kind of the error, if reading along failed.
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
        self._events = SseReader(_EVENT_LIMIT)
        self._is_stream = media_type(content_type) == EVENT_STREAM
        self._json: list[bytes] = []
        self._json_size = 0
        try:
            self._decoder = bodies.decoder(content_encoding)
        except BaseException as error:  # noqa: BLE001 - as in __call__
            self._give_up(error)

    def __call__(self, data: bytes) -> bytes:
        """The same data. An empty piece is the end."""
        if self._reading:
            try:
                if data:
                    self._look_at(data)
                else:
                    self._end()
            except BaseException as error:  # noqa: BLE001 - else mitmproxy lets the client hang
                self._give_up(error)
        return data

    def finish(self) -> None:
        """Report what was read so far: for an answer that broke off, which gets no last piece."""
        self(b"")

    def _look_at(self, data: bytes) -> None:
        decoded = self._decoder.feed(data, _PIECE_ROOM)
        if self._is_stream:
            for event in self._events.feed(decoded):
                self._read_event(event.data)
            return
        self._json_size += len(decoded)
        if self._json_size > _JSON_LIMIT:
            self._stop()
        else:
            self._json.append(decoded)

    def _end(self) -> None:
        if self._is_stream:
            last = self._events.close()
            if last is not None:
                self._read_event(last.data)
        elif self._json:
            self._read_json(b"".join(self._json))
        self._stop()
        if self._usage is not None:
            self._on_usage(self._usage)

    def _read_event(self, data: bytes) -> None:
        if _NEEDLE in data:
            self._read_json(data)

    def _read_json(self, data: bytes) -> None:
        answer = json.loads(data)
        for item in answer if isinstance(answer, list) else [answer]:
            if isinstance(item, dict):
                self._usage = merge(self._usage, self._usage_of(item))

    def _stop(self) -> None:
        self._reading = False
        self._json.clear()
        self._events = SseReader(0)

    def _give_up(self, error: BaseException) -> None:
        try:
            self._stop()
            self._on_failure(type(error).__name__)
        except BaseException:  # noqa: BLE001, S110 - there is nobody left to tell
            pass


def _is_json(media: str) -> bool:
    return media == "application/json" or media.endswith("+json")
