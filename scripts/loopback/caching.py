"""A provider's prompt cache: what of a request it has read before, by whole messages.

Simplified where it does not matter to us: nothing expires, and a prefix is found however far it
lies before a marker.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import Any

from .counting import Model, count_head, count_message
from .prefix import fingerprints, plain
from .rules_anthropic import blocks_of

Json = dict[str, Any]

_OPENAI_LEAST = 1_024
_OPENAI_GRAIN = 128
_BILLING = "x-anthropic-billing-header"


@dataclass
class PromptCache:
    """The prefixes that one account has sent before."""

    known: set[bytes] = field(default_factory=set)

    def anthropic(self, body: Json, model: Model) -> tuple[int, int, int]:
        """Fresh, read and written tokens; only what lies before a marker is ever kept."""
        chain = _chain(body, model)
        last = _last_marked(body)
        total = chain[-1][1]
        if last is None:
            return total, 0, 0
        read = max((tokens for mark, tokens in chain[: last + 1] if mark in self.known), default=0)
        written = chain[last][1] - read
        self.known.update(mark for mark, _ in chain[: last + 1])
        return total - read - written, read, written

    def openai(self, body: Json, model: Model) -> tuple[int, int, int]:
        """Fresh and read tokens; nothing need be marked and writing costs nothing."""
        chain = _chain(body, model)
        total = chain[-1][1]
        read = max((tokens for mark, tokens in chain if mark in self.known), default=0)
        read = read // _OPENAI_GRAIN * _OPENAI_GRAIN if read >= _OPENAI_LEAST else 0
        self.known.update(mark for mark, _ in chain)
        return total - read, read, 0


def _chain(body: Json, model: Model) -> list[tuple[bytes, int]]:
    """A digest of each prefix, the one before the messages first, and its tokens."""
    head = [body.get("tools"), _without_billing(body.get("system"))]
    mark = hashlib.blake2b(
        json.dumps(plain(head), sort_keys=True).encode(), digest_size=16
    ).digest()
    tokens = count_head(body, model)
    chain = [(mark, tokens)]
    for message, own in zip(body["messages"], fingerprints(body), strict=True):
        mark = hashlib.blake2b(mark + own, digest_size=16).digest()
        tokens += count_message(message, model)
        chain.append((mark, tokens))
    return chain


def _without_billing(system: Any) -> list[Json]:
    """The system prompt without the line that one client changes on every request."""
    return [block for block in blocks_of(system) if not block["text"].startswith(_BILLING)]


def _last_marked(body: Json) -> int | None:
    """Where in the chain the last marker stands; None if there is no marker."""
    for index in range(len(body["messages"]) - 1, -1, -1):
        if _marked(blocks_of(body["messages"][index]["content"])):
            return index + 1
    head = [*(body.get("tools") or []), *blocks_of(body.get("system"))]
    return 0 if _marked(head) else None


def _marked(blocks: list[Json]) -> bool:
    return any(
        block.get("cache_control")
        or (block.get("type") == "tool_result" and _marked(blocks_of(block.get("content"))))
        for block in blocks
    )
