"""What all rules of `/v1/responses` look at: the items, and what the provider knows."""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from loopback.refusal import Refusal, names

Json = dict[str, Any]

PATH, COUNT, COMPACT = "/responses", "/responses/input_tokens", "/responses/compact"
# Which output answers which call, as refusals call the two.
ANSWERS = {
    "function_call": "function call",
    "custom_tool_call": "custom tool call",
    "local_shell_call": "local shell call",
    "shell_call": "shell call",
    "apply_patch_call": "apply patch call",
    "computer_call": "computer call",
}
# What a model makes in one go with its reasoning.
_MADE = frozenset(
    (
        *ANSWERS,
        *names("reasoning web_search_call file_search_call code_interpreter_call"),
        *names("image_generation_call mcp_list_tools mcp_call mcp_approval_request"),
    )
)


@dataclass
class Memory:
    """What the provider knows of one account: what it sealed, answered and stored.

    A sealed text, and which item belongs to which reasoning, is taken as genuine and learned where
    it was never seen, so that recorded conversations can be played; from then on it must stay.
    """

    key: bytes = b"loopback"
    sealed: dict[str, str] = field(default_factory=dict)
    reasoned: dict[str, str] = field(default_factory=dict)
    stored: dict[str, list[Json]] = field(default_factory=dict)

    def seal(self, text: str) -> str:
        """The reasoning as only the provider can read it."""
        mark = hmac.new(self.key, text.encode("utf-8", "surrogatepass"), hashlib.sha512).digest()
        return "gAAAAA" + base64.b64encode(mark * 12 + text.encode()[:2_000]).decode()

    def learn(self, items: list[Json]) -> None:
        """Remember the reasoning of what was accepted, and what was said with it."""
        before = ""
        for item in items:
            if item.get("type") == "reasoning":
                before = str(item.get("id") or "")
                if item.get("encrypted_content"):
                    self.sealed[before] = item["encrypted_content"]
            elif not is_made(item):
                before = ""
            elif before and item.get("id"):
                self.reasoned.setdefault(item["id"], before)

    def held(self) -> Iterator[Json]:
        """Every item that was stored."""
        for items in self.stored.values():
            yield from items


Rule = Callable[[Json, Memory], Iterator[Refusal]]


def items_of(body: Json) -> list[Any]:
    """The items of an input; a bare string is one message."""
    given = body["input"]
    if isinstance(given, str):
        return [{"type": "message", "role": "user", "content": given}]
    return list(given)


def type_of(item: Json) -> str:
    """An item's type, which may go without saying."""
    return str(item.get("type") or ("message" if "role" in item else "item_reference"))


def is_made(item: Json) -> bool:
    """Whether a model makes such an item, as one answer with its reasoning."""
    spoken = type_of(item) == "message" and item.get("role") == "assistant"
    return spoken or item.get("type") in _MADE
