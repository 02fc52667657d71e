"""A request message by message, for its content view: whose it is, what it holds, its tokens.

What a message holds is noted when it is read for the first time, so that showing a long request
later parses nothing: its messages are known again by their bytes. What was never noted (after a
restart) is read now, up to a size that takes a few milliseconds.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from typing import Final, NamedTuple

from mitmproxy import http

from mitmcontext.known import Known, tag
from mitmcontext.proxy import bodies
from mitmcontext.proxy.reading import asked
from mitmcontext.settings import Settings
from mitmcontext.tokens.families import family_of
from mitmcontext.values import Kind, Message, Request, Unreadable
from mitmcontext.wire import api_for
from mitmcontext.wire.api import Api, message_of

# A noted message takes some 250 bytes; beyond this all are forgotten, and read anew when looked at.
_MOST: Final = 20_000
_READ_NOW: Final = 192 << 10
# Recognising the messages of so large a body takes some ten milliseconds.
_LARGEST: Final = 2 << 20
_LONGEST: Final = 48
_WORDS: Final = {Kind.CALL: "call", Kind.RESULT: "result", Kind.TYPED: "text", Kind.PROSE: "text"}


class Row(NamedTuple):
    """One message of the client's: its role, what it holds in a few words, its tokens.

    The words are "" and the tokens None where they are not known.
    """

    role: str
    what: str
    tokens: int | None


class Descriptions:
    """What messages hold in a few words, by what they are known by."""

    def __init__(self) -> None:
        self._kept: dict[bytes, tuple[str, str]] = {}

    def note(self, key: bytes, message: Message) -> None:
        """Take note of a message. From any thread."""
        if len(self._kept) >= _MOST:
            self._kept.clear()
        self._kept[key] = (message.role, described(message))

    def find(self, key: bytes) -> tuple[str, str] | None:
        """Role and words, where they were noted."""
        return self._kept.get(key)


def described(message: Message) -> str:
    """What a message holds, such as `call read_file, 2 x call grep`."""
    if len(message.parts) == 1:  # as most: a cold request has some hundred
        return _cut(_noun(message.parts[0].kind, message.parts[0].name))
    parts = Counter(_noun(part.kind, part.name) for part in message.parts)
    words = (what if count == 1 else f"{count} x {what}" for what, count in parts.items())
    return _cut(", ".join(words))


def _cut(said: str) -> str:
    return said if len(said) <= _LONGEST else f"{said[: _LONGEST - 2]} …"


def _noun(kind: Kind, name: str) -> str:
    word = _WORDS.get(kind, kind.value)
    return f"{word} {name[:_LONGEST]}" if name else word


def rows(
    flow: http.HTTPFlow,
    sent: bytes | None,
    known: Known,
    descriptions: Descriptions,
    settings: Settings,
) -> list[Row]:
    """The messages of a request.

    Args:
        flow: the request.
        sent: its body as the client sent it, decoded; None if that is what the flow holds.
        known: the tokens of messages.
        descriptions: what they hold.
        settings: how tokens are counted.

    Raises:
        Unreadable: it is not a request that we understand.
    """
    path = flow.request.path.partition("?")[0]
    api = api_for(flow.request.method, path)
    if api is None:
        raise Unreadable("no API that is known")
    if sent is None:
        coding = flow.request.headers.get("content-encoding")
        sent = bodies.decode(flow.request.raw_content or b"", coding, settings.context_max_body)
    if len(sent) > _LARGEST:
        raise Unreadable("too large to be listed")
    request = api.read(sent)
    model = request.model or api.model_in_path(path)
    named = tag(api, family_of(model, api.name, asked(settings)))
    return _listed(api, request, known, descriptions, named)


def _listed(
    api: Api, request: Request, known: Known, descriptions: Descriptions, named: bytes
) -> list[Row]:
    left = _READ_NOW
    found = []
    for start, end in request.spans:
        raw = request.body[start:end]
        key = hashlib.sha256(raw).digest() + named
        words = descriptions.find(key)
        if words is None and left > 0:
            left -= len(raw)
            descriptions.note(key, message_of(api, raw))
            words = descriptions.find(key)
        role, what = words or ("", "")
        found.append(Row(role, what, known.tokens_of(key)))
    return found
