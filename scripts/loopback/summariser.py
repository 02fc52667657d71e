"""A model that is asked for summaries: what it says is scripted, and how it sends it may be odd.

Questions are known by what the addon's prompts say of themselves. They are judged by the strict
rules like any request, but they are no turns of the client's conversation.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from .answers import Reply

SIGN = b"You condense the history of a conversation"

Sending = Callable[[asyncio.StreamWriter], Awaitable[None]]


@dataclass
class Summariser:
    """How questions are answered.

    Attributes:
        tell: (the question's body as text) to what the model says.
        delay: seconds until it does.
        sends: writes the answer in place of the provider, from the status line on; the connection
            is closed behind it.
        bodies: of the questions so far.
    """

    tell: Callable[[str], Reply] = lambda question: Reply()
    delay: float = 0.0
    sends: Sending | None = None
    bodies: list[bytes] = field(default_factory=list)

    def is_asked(self, body: bytes) -> bool:
        """Whether this is a question to the model and no turn of a conversation."""
        return SIGN in body

    def reply(self, body: bytes) -> Reply:
        """What it says to a question."""
        return self.tell(body.decode("utf-8", "replace"))


def raw(status: str, head: str, body: bytes = b"") -> Sending:
    """An answer that is written as it stands here."""

    async def send(writer: asyncio.StreamWriter) -> None:
        writer.write(f"HTTP/1.1 {status}\r\n{head}\r\n".encode() + body)
        await writer.drain()

    return send


def dripping(seconds: float) -> Sending:
    """A body that comes at a byte each so many seconds and never ends."""

    async def send(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n")
        while True:
            writer.write(b" ")
            await writer.drain()
            await asyncio.sleep(seconds)

    return send


def gigantic(size: int) -> Sending:
    """A body of so many bytes, as fast as they are taken."""

    async def send(writer: asyncio.StreamWriter) -> None:
        head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {size}"
        writer.write(f"{head}\r\n\r\n".encode() + b'{"content":"')
        for _ in range(size >> 16):
            writer.write(b"x" * (1 << 16))
            await writer.drain()

    return send


def silent() -> Sending:
    """Nothing, ever."""

    async def send(writer: asyncio.StreamWriter) -> None:
        await asyncio.Event().wait()

    return send


def cut_off(body: bytes) -> Sending:
    """Half of what was promised."""
    head = f"content-type: application/json\r\ncontent-length: {2 * len(body)}\r\n"
    return raw("200 OK", head, body)


def as_json(value: Any) -> Sending:
    """An answer of any shape, lawful or not."""
    body = json.dumps(value).encode()
    head = f"content-type: application/json\r\ncontent-length: {len(body)}\r\n"
    return raw("200 OK", head, body)


_CHARACTERS = 5
_WORDS = re.compile(r"at most (\d+) words")
_NAME = re.compile(
    r"[\w~.@-]*(?:[./_][\w.@-]+)+|[A-Za-z]+[a-z][A-Z]\w*|\b\d{3,}\b|\b[0-9a-f]{7,40}\b"
)


def fair(question: str) -> Reply:
    """What a dutiful model might say: the names that stand in most lines, in a sentence or two."""
    text = question.replace("\\n", "\n")
    asked = _WORDS.findall(text)
    # Names are long: a path is several tokens.
    room = int(asked[-1]) * _CHARACTERS if asked else 600
    counted = Counter(
        name.strip(".") for line in text.split("\n") for name in set(_NAME.findall(line))
    )
    names = []
    for name, _ in counted.most_common():
        if 2 < len(name) < 80 and (room := room - len(name) - 2) > 0:
            names.append(name)
    return Reply(
        "The assistant went through the project as the user had asked, and it spoke of "
        f"{', '.join(names)}. Nothing that the user had ruled out was done; the work goes on."
    )
