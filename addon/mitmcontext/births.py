"""New tool results as they are sent for the first time, and on every turn from then on.

What becomes of a message follows from its bytes and from the links before it. So nothing of it has
to be kept but the place in a conversation from which on it holds: an entry's `born` in the ledger.
What was found before is remembered here, so that no result is looked at twice.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final, Protocol

from cachetools import LRUCache

from mitmcontext.condense.birth import Call, at_birth
from mitmcontext.condense.entries import FrozenEdit
from mitmcontext.known import Fact, Known
from mitmcontext.tokens.families import Family
from mitmcontext.values import Edit, Kind, Message, Part, Request, Span
from mitmcontext.wire import spans
from mitmcontext.wire.api import Api, message_of

# Bytes of messages as they were reduced.
_SIZE: Final = 32 << 20
EXCERPT: Final = 2_000
"""Characters of what stood there, for people to read."""

# What a message takes that stays as it is.
_NOTHING: Final = 300
# A result follows its call within so many messages: a model seldom calls more tools at once.
_CALLED_WITHIN: Final = 64
# In a text the quotes would be escaped, so that what is found is the block's own.
_FAILED: Final = re.compile(rb'"is_?[eE]rror"\s*+:\s*+true|"status"\s*+:\s*+"error"')


@dataclass(frozen=True, slots=True)
class Born:
    """A message with reduced results: its bytes, what is known of it, and what was changed.

    `before` are excerpts of what stood there, one for each edit.
    """

    raw: bytes
    fact: Fact
    edits: tuple[FrozenEdit, ...]
    before: tuple[str, ...]


class Read(Protocol):
    """The part of a reading that decides."""

    @property
    def api(self) -> Api:
        """Whose request it is."""

    @property
    def family(self) -> Family:
        """Of the model."""

    @property
    def request(self) -> Request:
        """As the client sent it."""

    @property
    def facts(self) -> Sequence[Fact]:
        """What is known of each message."""

    @property
    def links(self) -> Sequence[bytes]:
        """The links of the conversation."""


class Births:
    """What becomes of new results, by the bytes and the link of their message.

    Args:
        known: what is known of messages.
        size: how many bytes the reduced messages may take that are remembered.
    """

    def __init__(self, known: Known, size: int = _SIZE) -> None:
        self._known = known
        self._found: LRUCache[bytes, Born | None] = LRUCache(size, getsizeof=_size_of)
        self._lock = threading.Lock()

    def knows(self, sent: Read, first: int) -> bool:
        """Whether all messages from `first` on were looked at before."""
        with self._lock:
            return all(_key(sent, at) in self._found for at in range(first, len(sent.facts)))

    def of(self, sent: Read, first: int) -> dict[int, Born]:
        """The messages from `first` on of which something is reduced, by their index."""
        found: dict[int, Born] = {}
        for at in range(first, len(sent.facts)):
            key = _key(sent, at)
            with self._lock:
                known = key in self._found
                born = self._found.get(key)
            if not known:
                born = self._reduced(sent, at)
                with self._lock:
                    if _size_of(born) <= self._found.maxsize:
                        self._found[key] = born
            if born is not None:
                found[at] = born
        return found

    def clear(self) -> None:
        """Forget everything: it is found again, the same, when it is asked for."""
        with self._lock:
            self._found.clear()

    def _reduced(self, sent: Read, at: int) -> Born | None:
        api, raw = sent.api, sent.request.raw(at)
        message = message_of(api, raw)
        if not message.editable:
            return None
        edits: list[FrozenEdit] = []
        before: list[str] = []
        pieces: list[Edit] = []
        for index, part in enumerate(message.parts):
            if part.kind != Kind.RESULT or part.value is None:
                continue
            call = _call(sent, at, part)
            failed = _FAILED.search(raw, *part.span) is not None
            text = at_birth(part, call, failed=failed, again=partial(_again, sent, at, call))
            if text is None:
                continue
            old = raw[slice(*part.value)]
            new = api.replacement(old, text)
            if len(new) < len(old):
                edits.append(FrozenEdit(at, index, part.digest, text))
                before.append(part.text[:EXCERPT])
                pieces.append(Edit(part.value, new))
        if not pieces:
            return None
        made = spans.splice(raw, pieces)
        if not _is_same_but(message, message_of(api, made), {edit.part for edit in edits}):
            return None
        place = Span(0, len(made))
        whole = Request(made, "", place, (place,))
        (fact,) = self._known.recall(api, sent.family, whole)
        return Born(made, fact, tuple(edits), tuple(before))


def _key(sent: Read, at: int) -> bytes:
    return sent.facts[at].key + sent.links[at]


def _size_of(born: Born | None) -> int:
    return _NOTHING if born is None else _NOTHING + 2 * (len(born.raw) + EXCERPT)


def _is_same_but(before: Message, after: Message, edited: set[int]) -> bool:
    """Whether nothing but the text of some parts is another one, read as the provider will."""
    if (before.role, before.item, after.editable) != (after.role, after.item, True):
        return False
    if len(before.parts) != len(after.parts) or before.markers != after.markers:
        return False
    pairs = enumerate(zip(before.parts, after.parts, strict=True))
    return all(
        (old.kind, old.call_id, old.name) == (new.kind, new.call_id, new.name)
        if at in edited
        else old.digest == new.digest
        for at, (old, new) in pairs
    )


def _call(sent: Read, at: int, part: Part) -> Call | None:
    """The call that a result answers, by its id or name."""
    ticket = part.call_id or part.name
    if not ticket:
        return None
    for before in range(at - 1, max(-1, at - 1 - _CALLED_WITHIN), -1):
        message = message_of(sent.api, sent.request.raw(before))
        if message.role != "assistant":
            continue
        for said in reversed(message.parts):
            if said.kind == Kind.CALL and ticket in (said.call_id, said.name):
                return Call(said.name, said.text)
    return None


def _again(sent: Read, at: int, call: Call | None) -> bool:
    """Whether the same call was made before the one that a message answers."""
    if call is None:
        return False
    name = call.name.encode()
    count = 0
    for before in range(at):
        raw = sent.request.raw(before)
        if name in raw:
            parts = message_of(sent.api, raw).parts
            count += sum(p.kind == Kind.CALL and p.text == call.text for p in parts)
    return count > 1


def edits_of(births: Mapping[int, Born]) -> tuple[FrozenEdit, ...]:
    """What was changed, in the order of the conversation."""
    return tuple(edit for at in sorted(births) for edit in births[at].edits)
