"""What is known of a message once it was read: its digest and its tokens.

A conversation comes back whole with each request. A message is recognised by the SHA-256 of its
bytes, so that parsing and counting happen once, however often it is sent.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from functools import partial
from sys import getsizeof
from typing import Final

import msgspec

from mitmcontext.tokens.estimate import (
    Count,
    Outside,
    fixed_tokens,
    message_tokens,
    text_tokens,
)
from mitmcontext.tokens.families import Family
from mitmcontext.values import Message, Request, Span
from mitmcontext.wire.api import Api, message_of, system_texts, tool_count

_DIGEST: Final = 32
# Bytes of messages as they were read: those of a request of five megabytes.
_READ: Final = 12 << 20
# Agents beside each other have prompts of their own.
_LATEST: Final = 8
# In bytes: of longer ones only the very latest is kept.
_LONG: Final = 256 << 10
_SAID: Final = (b"False", b"True")
# Characters of a text that is looked up before it is counted: a file that is shown again, or what
# a step leaves of it. Counting so many takes twenty times as long as the look-up.
_LOOKED_UP: Final = 1_000

Pieces = list[tuple[bytes, int, str]]
"""Of each piece of a system prompt: what it is recognised by, its size in bytes, and its text."""

Counter = Callable[[str], Count]
"""Encoding name to its count. The first use of one may take most of a second."""


class Fact(msgspec.Struct, frozen=True, gc=False):
    """One message: the key it is recognised by, its digest, and its tokens once counted.

    There are tens of thousands, and no search for garbage has to look at them.
    """

    key: bytes
    digest: bytes
    tokens: int | None


class _Recent:
    """Messages as they were read, bounded in bytes: what was read first goes first."""

    def __init__(self, size: int) -> None:
        self._left = size
        self._largest = size // 16
        self._kept: dict[bytes, tuple[Message, int]] = {}
        self._lock = threading.Lock()

    def get(self, key: bytes) -> Message | None:
        found = self._kept.get(key)
        return found[0] if found is not None else None

    def put(self, key: bytes, message: Message) -> None:
        # About what it takes: its text, and the values around it.
        size = 500
        for part in message.parts:
            size += 300 + getsizeof(part.text)
        if size > self._largest:
            return
        with self._lock:
            if key not in self._kept:
                self._kept[key] = message, size
                self._left -= size
            while self._left < 0:
                _, freed = self._kept.pop(next(iter(self._kept)))
                self._left += freed

    def clear(self) -> None:
        with self._lock:
            self._left += sum(size for _, size in self._kept.values())
            self._kept.clear()


class _Latest[T]:
    """What the latest few texts came to: to compare one takes a tenth of what its digest takes.

    A client's tools and system prompts are long, and the same from request to request.
    """

    def __init__(self) -> None:
        self._kept: list[tuple[tuple[bytes, ...], T]] = []

    def get(self, pieces: tuple[bytes, ...], make: Callable[[], T]) -> T:
        for kept, made in self._kept:
            if kept == pieces:
                return made
        made = make()
        others = [one for one in self._kept if sum(map(len, one[0])) <= _LONG]
        self._kept = [(pieces, made), *others[: _LATEST - 1]]
        return made

    def clear(self) -> None:
        self._kept = []


class Known:
    """Digests and token counts by message bytes, over any mapping of bytes to bytes."""

    def __init__(self, store: MutableMapping[bytes, bytes], counter: Counter) -> None:
        self._store = store
        self._counter = counter
        # A new message is read for its digest, counted a moment later, and looked at in a step.
        self._read = _Recent(_READ)
        self._systems: _Latest[Pieces] = _Latest()
        self._besides: _Latest[bytes] = _Latest()
        self._counted = 0
        self._recalled = 0
        self.hits = 0
        self.misses = 0
        # Told of each message that is read for the first time, by its key; may be set to anything.
        self.tell: Callable[[bytes, Message], None] | None = None

    def take(self) -> tuple[int, int]:
        """How many counts were known and how many had to be made since the last call."""
        taken = self._recalled, self._counted
        self._recalled, self._counted = self._recalled - taken[0], self._counted - taken[1]
        return taken

    def recall(self, api: Api, family: Family, request: Request, first: int = 0) -> list[Fact]:
        """What is known of each message from `first` on, digests found where they were not.

        Raises:
            Unreadable: a message is none of this API's.
        """
        # Some hundred messages a request: this loop is the hot one.
        body, get, named = request.body, self._store.get, tag(api, family)
        found = []
        for start, end in request.spans[first:]:
            key = hashlib.sha256(body[start:end]).digest() + named
            kept = get(key)
            if kept is None:
                # It is kept once it is counted, which mostly is a moment later.
                message = self._read.get(key) or self._new(api, key, body[start:end])
                kept = message.digest
            tokens = int.from_bytes(kept[_DIGEST:], "big") if len(kept) > _DIGEST else None
            found.append(Fact(key, kept[:_DIGEST], tokens))
        return found

    def _new(self, api: Api, key: bytes, raw: bytes) -> Message:
        message = message_of(api, raw)
        self._read.put(key, message)
        if self.tell is not None:
            self.tell(key, message)
        return message

    def messages(self, api: Api, request: Request, facts: Sequence[Fact]) -> list[Message]:
        """The messages of a request, read; those that were read a moment ago are not read again."""
        found = []
        for at, fact in enumerate(facts):
            message = self._read.get(fact.key)
            if message is None:
                message = message_of(api, request.raw(at))
                self._read.put(fact.key, message)
            found.append(message)
        return found

    def count(
        self,
        api: Api,
        family: Family,
        request: Request,
        facts: list[Fact],
        counted: tuple[int, ...] = (),
    ) -> tuple[int, ...]:
        """The estimated tokens of each message; counts those that were never counted.

        `counted` are those of the first messages, where somebody has them at hand.
        """
        rest, new, count = [], 0, self._counting(family.encoding)
        for at, fact in enumerate(facts[len(counted) :], len(counted)):
            # Meanwhile it may have been counted, as a part of what was sent or by another request.
            tokens = fact.tokens if fact.tokens is not None else self.tokens_of(fact.key)
            if tokens is None:
                new += 1
                message = self._read.get(fact.key) or message_of(api, request.raw(at))
                tokens = message_tokens(message, family, count)
                self._keep(fact, tokens)
            rest.append(tokens)
        self._counted += new
        self._recalled += len(facts) - new
        self.misses += new
        self.hits += len(facts) - new
        return (*counted, *rest)

    def spare(self, count: int) -> None:
        """So many counts were not asked for, since what they add up to was known."""
        self._recalled += count
        self.hits += count

    def fixed(self, family: Family, request: Request, beside: bytes | None = None) -> int:
        """The estimated tokens of all that is no message.

        The pieces of the system prompt count apart, since Claude Code changes one of them on
        every request. `beside` is the request's, where somebody has it at hand.

        Raises:
            Unreadable: system prompt or tools are not what they must be.
        """
        pieces = self._system(request)

        def outside() -> int:
            tool_count(request)
            return fixed_tokens(outside_of(request), family, self._counter(family.encoding))

        tokens = self._kept(_outside_key(family, beside or beside_of(request)), outside)
        for name, _, text in pieces:
            tokens += self._kept(_outside_key(family, name), partial(self._text, family, text))
        return tokens

    def beside(self, request: Request) -> bytes:
        """What names all that stands beside the messages and the system prompt."""
        return self._besides.get(_beside(request), partial(beside_of, request))

    def lacks(
        self,
        family: Family,
        request: Request,
        facts: list[Fact],
        first: int = 0,
        beside: bytes | None = None,
    ) -> int:
        """How many bytes of a request were never counted; its `first` messages were."""
        tools = request.tools.end - request.tools.start if request.tools else 0
        outside = [(beside or beside_of(request), tools, ""), *self._system(request)]
        new = sum(
            size for name, size, _ in outside if _outside_key(family, name) not in self._store
        )
        return new + sum(
            end - start
            for (start, end), fact in zip(request.spans[first:], facts[first:], strict=True)
            if fact.tokens is None
        )

    def weigh(self, family: Family, message: Message) -> int:
        """The estimated tokens of a message that was never sent as it is."""
        return message_tokens(message, family, self._counting(family.encoding))

    def adopt(self, facts: list[Fact], counts: Mapping[bytes, int], size: int) -> None:
        """Take over counts that were made earlier, by the first `size` bytes of their keys."""
        for at, fact in enumerate(facts):
            tokens = counts.get(fact.key[:size]) if fact.tokens is None else None
            if tokens is not None:
                self._keep(fact, tokens)
                facts[at] = Fact(fact.key, fact.digest, tokens)

    def tokens_of(self, key: bytes) -> int | None:
        """The estimated tokens of the message with this key, if it was counted."""
        kept = self._store.get(key, b"")
        return int.from_bytes(kept[_DIGEST:], "big") if len(kept) > _DIGEST else None

    def forget_messages(self) -> None:
        """Forget what was read; what it counted as stays."""
        self._read.clear()

    def clear(self) -> None:
        """Forget everything."""
        self._store.clear()
        self._read.clear()
        self._systems.clear()
        self._besides.clear()

    def _counting(self, encoding: str) -> Count:
        """Counts texts; a long one that was counted before is not counted again."""
        # The vocabulary is loaded when there is something to be counted.
        counter, store, name = self._counter, self._store, encoding.encode()

        def count(text: str) -> int:
            if len(text) < _LOOKED_UP:
                return counter(encoding)(text)
            key = hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest() + name
            kept = store.get(key)
            if kept is None:
                kept = counter(encoding)(text).to_bytes(8, "big")
                store[key] = kept
            return int.from_bytes(kept, "big")

        return count

    def _keep(self, fact: Fact, tokens: int) -> None:
        self._store[fact.key] = fact.digest + tokens.to_bytes(8, "big")

    def _system(self, request: Request) -> Pieces:
        """The pieces of a system prompt, as they were read a moment ago or anew."""
        return self._systems.get((_at(request, request.system),), partial(_pieces, request))

    def _text(self, family: Family, text: str) -> int:
        return text_tokens(text, family, self._counter(family.encoding))

    def _kept(self, key: bytes, count: Callable[[], int]) -> int:
        kept = self._store.get(key)
        if kept is None:
            kept = count().to_bytes(8, "big")
            self._store[key] = kept
        return int.from_bytes(kept, "big")


def tag(api: Api, family: Family) -> bytes:
    """What a message's digest and tokens depend on beside its bytes."""
    return f"{api.name}/{family.name}/{family.mark}".encode()


def _outside_key(family: Family, digest: bytes) -> bytes:
    return digest + f"{family.name}/{family.mark}".encode()


def outside_of(request: Request) -> Outside:
    """What stands in a request beside its messages, to be counted."""
    tools, choice, schema = (
        _at(request, span).decode("utf-8", "replace")
        for span in (request.tools, request.choice, request.schema)
    )
    return Outside(request.system is not None, tools, choice, schema, request.thinks)


def _at(request: Request, span: Span | None) -> bytes:
    return request.body[slice(*span)] if span else b""


def _pieces(request: Request) -> Pieces:
    return [
        (hashlib.sha256(b"system\0" + piece).digest(), len(piece), text)
        for piece, text in system_texts(request)
    ]


def beside_of(request: Request) -> bytes:
    """SHA-256 of all that `outside_of` says: tools may be much larger than what is new."""
    return hashlib.sha256(b"\0".join((b"outside", *_beside(request)))).digest()


def _beside(request: Request) -> tuple[bytes, ...]:
    flags = b"%s %s" % (_SAID[request.system is not None], _SAID[request.thinks])
    tools, choice, schema = request.tools, request.choice, request.schema
    return flags, _at(request, tools), _at(request, choice), _at(request, schema)
