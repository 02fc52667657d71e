"""What is known of a message once it was read: its digest and its tokens.

A conversation comes back whole with each request. A message is recognised by the SHA-256 of its
bytes, so that parsing and counting happen once, however often it is sent.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, MutableMapping
from dataclasses import dataclass
from functools import partial
from typing import Final

from mitmcontext.tokens.estimate import Count, fixed_tokens, message_tokens
from mitmcontext.tokens.families import Family
from mitmcontext.values import Message, Request
from mitmcontext.wire.api import Api, system_texts, tool_count

_DIGEST: Final = 32

Counter = Callable[[str], Count]
"""Encoding name to its count. The first use of one may take most of a second."""


@dataclass(frozen=True, slots=True)
class Fact:
    """One message: the key it is recognised by, its digest, and its tokens once counted."""

    key: bytes
    digest: bytes
    tokens: int | None


class Known:
    """Digests and token counts by message bytes, over any mapping of bytes to bytes."""

    def __init__(self, store: MutableMapping[bytes, bytes], counter: Counter) -> None:
        self._store = store
        self._counter = counter
        self._counted = 0
        self._recalled = 0

    def take(self) -> tuple[int, int]:
        """How many counts were known and how many had to be made since the last call."""
        taken = self._recalled, self._counted
        self._recalled, self._counted = self._recalled - taken[0], self._counted - taken[1]
        return taken

    def recall(self, api: Api, family: Family, request: Request) -> list[Fact]:
        """What is known of each message, digests found where they were not.

        Raises:
            Unreadable: a message is none of this API's.
        """
        return [self._recall(api, family, request.raw(at)) for at in range(len(request.spans))]

    def count(
        self, api: Api, family: Family, request: Request, facts: list[Fact]
    ) -> tuple[int, ...]:
        """The estimated tokens of each message; counts those that were never counted."""
        new = sum(fact.tokens is None for fact in facts)
        self._counted += new
        self._recalled += len(facts) - new
        return tuple(
            self._count(api, family, request.raw(at), fact) if fact.tokens is None else fact.tokens
            for at, fact in enumerate(facts)
        )

    def fixed(self, family: Family, request: Request) -> int:
        """The estimated tokens of all that is no message.

        The pieces of the system prompt count apart, since Claude Code changes one of them on
        every request.

        Raises:
            Unreadable: system prompt or tools are not what they must be.
        """
        pieces = system_texts(request)
        tools = request.body[slice(*request.tools)] if request.tools else b""
        named = b"tools\0" + (b"1" if pieces else b"0")

        def outside() -> int:
            listed = tools.decode("utf-8", "replace")
            offered = tool_count(request)
            count = self._counter(family.encoding)
            return fixed_tokens("", min(1, len(pieces)), listed, offered, family, count)

        tokens = self._kept(family, named + tools, outside)
        for raw, text in pieces:
            tokens += self._kept(family, b"system\0" + raw, partial(self._text, family, text))
        return tokens

    def weigh(self, family: Family, message: Message) -> int:
        """The estimated tokens of a message that was never sent as it is."""
        return message_tokens(message, family, self._counter(family.encoding))

    def clear(self) -> None:
        """Forget everything."""
        self._store.clear()

    def _recall(self, api: Api, family: Family, raw: bytes) -> Fact:
        key = _key(family, raw)
        kept = self._store.get(key)
        if kept is None:
            kept = api.parse(raw).digest
            self._store[key] = kept
        rest = kept[_DIGEST:]
        return Fact(key, kept[:_DIGEST], int.from_bytes(rest, "big") if rest else None)

    def _count(self, api: Api, family: Family, raw: bytes, fact: Fact) -> int:
        tokens = self.weigh(family, api.parse(raw))
        self._store[fact.key] = fact.digest + tokens.to_bytes(8, "big")
        return tokens

    def _text(self, family: Family, text: str) -> int:
        return math.ceil(family.text * self._counter(family.encoding)(text))

    def _kept(self, family: Family, raw: bytes, count: Callable[[], int]) -> int:
        key = _key(family, raw)
        kept = self._store.get(key)
        if kept is None:
            kept = count().to_bytes(8, "big")
            self._store[key] = kept
        return int.from_bytes(kept, "big")


def _key(family: Family, raw: bytes) -> bytes:
    return hashlib.sha256(raw).digest() + family.name.encode()
