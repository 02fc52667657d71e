"""What a program for a library has to do: look at one shelf after the other."""

from __future__ import annotations

from typing import Any

TASK = "Which shelf holds the book that nobody wrote? Look at every shelf."
NAME = "look"
DESCRIPTION = "Look at one shelf."
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"shelf": {"type": "integer"}},
    "required": ["shelf"],
}


def look(shelf: int) -> str:
    """Look at one shelf."""
    return "\n".join(f"{place:3} a book called title-{shelf}-{place}" for place in range(90))
