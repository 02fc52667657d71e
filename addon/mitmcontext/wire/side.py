"""Requests that clients make on the side, by what their prompts announce.

A title or a summary is no turn of the conversation, and no step may be taken on it. Claude Code and
Codex say so in headers and fields of their own; others only in the first words of their prompt.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from mitmcontext.values import Request, Span, Standing

# OpenCode's, as its system prompts begin.
_TITLE: Final = re.compile(rb"You are a title generator\b")
_SUMMARY: Final = re.compile(rb"You are a context summarization agent\b")
# Claude Code's last user text when it compacts, also in versions without a header that says so.
_COMPACTION: Final = re.compile(rb"CRITICAL: Respond with TEXT ONLY\. Do NOT call any tools\.")
_HEAD: Final = 400
_SYSTEM_FIRST: Final = re.compile(rb'\{\s*"role"\s*:\s*"(?:system|developer)"')


def standing_by_prompt(request: Request, system: Span | None) -> tuple[Standing, str] | None:
    """What the first words of the prompts announce; None where they announce nothing.

    Args:
        request: as read.
        system: where the system prompt stands, as a value or as the first message.
    """
    if system is not None:
        head = request.body[system.start : min(system.end, system.start + _HEAD)]
        if _at_text(_TITLE, head):
            return Standing.ALONE, "the client asks for a title"
        if _at_text(_SUMMARY, head):
            return Standing.NO_TURN, "the client's own compaction"
    last = request.spans[-1]
    if _at_text(_COMPACTION, request.body[last.start : min(last.end, last.start + _HEAD)]):
        return Standing.NO_TURN, "the client's own compaction"
    return None


def standing_of_chat(
    path: str, headers: Mapping[str, str], request: Request
) -> tuple[Standing, str]:
    """As `standing_by_prompt`, for APIs whose system prompt is the first message; else a turn."""
    first = request.spans[0] if _SYSTEM_FIRST.match(request.body, request.spans[0].start) else None
    return standing_by_prompt(request, first) or (Standing.TURN, "")


def _at_text(mark: re.Pattern[bytes], head: bytes) -> bool:
    """Whether a text in this piece of JSON begins with the mark: only a quote stands before it."""
    found = mark.search(head)
    before = head[: found.start()] if found is not None else b""
    return before.endswith(b'"') and not before.endswith(b'\\"')
