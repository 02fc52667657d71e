"""The demo's session with large and noisy results in it, as builds and services give them."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Sequence
from typing import Any

from demo.session import Session

Json = dict[str, Any]
OFTEN = 5
"""Every so many calls of tools that read no file a service's log comes behind the result."""


def requests() -> Iterator[Json]:
    """The body of every request of the session, each the beginning of the next one."""
    for body in Session().requests():
        yield body | {"messages": messages(body["messages"])}


def messages(stood: Sequence[Json]) -> list[Json]:
    """The messages of the session, or the first of them, with noisy results."""
    return [_noisy(one, at) for at, one in enumerate(stood)]


def _noisy(message: Json, at: int) -> Json:
    if message["role"] != "user" or isinstance(message["content"], str) or (at // 2) % OFTEN:
        return message
    made = copy.deepcopy(message)
    for block in made["content"]:
        if block["type"] == "tool_result" and not block.get("is_error"):
            block["content"] = _log(at)
    return made


def _log(at: int) -> Any:
    lines = [f"\x1b[32m{at}.{n:03}\x1b[0m berth_{n % 37}.crane_{n} is idle" for n in range(at, 300)]
    rows = [{"ship": f"S{n}", "berth": n % 37, "notes": " two  blanks "} for n in range(12)]
    said = json.dumps(rows, indent=2) if at % 4 else "\n".join([*lines, *["waiting"] * 40])
    return [{"type": "text", "text": said}] if at % 3 else said
