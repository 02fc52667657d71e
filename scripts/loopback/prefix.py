"""Whether one request carries on where another one ended.

Providers bill a repeated beginning at about a tenth, so it matters whether what was forwarded
before is still the beginning of what is forwarded now. `cache_control` may wander, and a text is
the same text as a string or as the only block.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any


def plain(value: Any) -> Any:
    """The same JSON without `cache_control`, a lone text block of a content as a string."""
    if isinstance(value, list):
        return [plain(item) for item in value]
    if not isinstance(value, dict):
        return value
    found = {key: plain(item) for key, item in value.items() if key != "cache_control"}
    content = found.get("content")
    if isinstance(content, list) and len(content) == 1:
        only = content[0]
        if isinstance(only, dict) and set(only) == {"type", "text"} and only["type"] == "text":
            found["content"] = only["text"]
    return found


def fingerprint(message: Any) -> bytes:
    """Equal for messages that a provider's cache would take for the same."""
    text = json.dumps(plain(message), sort_keys=True, ensure_ascii=True)
    return hashlib.blake2b(text.encode(), digest_size=16).digest()


def fingerprints(body: dict[str, Any]) -> list[bytes]:
    """The fingerprint of every message of a request."""
    messages = body.get("messages")
    return [fingerprint(message) for message in messages] if isinstance(messages, list) else []


def first_difference(before: list[bytes], after: list[bytes]) -> int | None:
    """The first message of `before` that is not at its place in `after`; None if all are."""
    for index, mark in enumerate(before):
        if index >= len(after) or after[index] != mark:
            return index
    return None


def extends(before: dict[str, Any], after: dict[str, Any]) -> bool:
    """Whether the messages of `after` begin with those of `before`."""
    return first_difference(fingerprints(before), fingerprints(after)) is None
