"""JSON as the tests of all APIs build it."""

from __future__ import annotations

import json
from typing import Any


def dumped(value: Any) -> bytes:
    """A value as many clients write it, with text beyond ASCII as it is."""
    return json.dumps(value, ensure_ascii=False).encode()


def message(role: str, *content: Any, **others: Any) -> bytes:
    """A message as Chat Completions and its kin have it; without content where none is given."""
    held = {"content": content[0]} if content else {}
    return dumped({"role": role, **held, **others})


def text(said: str, **others: Any) -> dict[str, Any]:
    """A block of text as most APIs have it."""
    return {"type": "text", "text": said, **others}
