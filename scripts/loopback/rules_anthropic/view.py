"""A request to api.anthropic.com as its rules see it, and what the provider knows of an account."""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

Body = dict[str, Any]
Block = dict[str, Any]


@dataclass
class Memory:
    """What a provider knows of one account: the thinking that it wrote.

    A signature is genuine if this provider issued it or if it was seen with the same text before;
    one never seen is taken as genuine and learned, so that recorded conversations can be played.
    """

    key: bytes = b"loopback"
    text_under: dict[str, str] = field(default_factory=dict)
    signatures_beside: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def sign(self, text: str) -> str:
        """Issue the signature of a thinking text."""
        digest = hmac.new(self.key, text.encode("utf-8", "surrogatepass"), hashlib.sha512)
        signature = base64.b64encode(digest.digest()).decode()
        self.text_under[signature] = text
        return signature

    def learn(self, groups: list[Group]) -> None:
        """Remember the thinking of an accepted request and the calls that it stood beside."""
        for group in groups:
            signatures = group.signatures()
            if not signatures:
                continue
            for _, _, block in group.blocks:
                if block["type"] == "thinking":
                    self.text_under.setdefault(block["signature"], block["thinking"])
                if block["type"] == "tool_use":
                    self.signatures_beside.setdefault(block["id"], signatures)


@dataclass
class Group:
    """Neighbouring messages of one role, which the provider takes for one message."""

    role: str
    index: int
    blocks: list[tuple[int, int, Block]] = field(default_factory=list)

    def ids(self, kind: str) -> list[str]:
        """The ids of the calls or of the results in this message, in their order."""
        key = "id" if kind == "tool_use" else "tool_use_id"
        return [block[key] for _, _, block in self.blocks if block["type"] == kind]

    def signatures(self) -> tuple[str, ...]:
        """The signatures of the thinking in this message, in their order."""
        return tuple(
            block.get("signature") or block.get("data", "")
            for _, _, block in self.blocks
            if block["type"] in ("thinking", "redacted_thinking")
        )


@dataclass(frozen=True)
class View:
    """A request as the rules see it."""

    body: Body
    memory: Memory
    betas: frozenset[str]
    counting: bool

    @property
    def messages(self) -> list[Any]:
        """The messages, once their shape was found good."""
        messages: list[Any] = self.body["messages"]
        return messages

    def allows_system_messages(self) -> bool:
        """Whether a beta header lets the role `system` into the messages."""
        return any(beta.startswith("mid-conversation-system") for beta in self.betas)


Rule = Callable[[View], Iterator[str]]


def blocks_of(content: Any) -> list[Block]:
    """The blocks of a content; a string is one text block."""
    if isinstance(content, str):
        return [{"type": "text", "text": content}] if content else []
    return list(content) if isinstance(content, list) else []


def groups_of(messages: list[Body]) -> list[Group]:
    """The messages with neighbours of one role joined. Messages of role system stand aside."""
    groups: list[Group] = []
    for index, message in enumerate(messages):
        if message["role"] == "system":
            continue
        if not groups or groups[-1].role != message["role"]:
            groups.append(Group(message["role"], index))
        found = enumerate(blocks_of(message["content"]))
        groups[-1].blocks.extend((index, number, block) for number, block in found)
    return groups
