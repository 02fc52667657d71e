"""The estimate of a request's input tokens: what is fixed, and each message for itself.

The total of a request is `fixed_tokens` plus the sum of its `message_tokens`. A message's figure
depends on nothing but the message and the family, so it can be kept and reused. Each figure is
rounded up: the error of that is less than a token per message, and never in the dangerous
direction.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence

from mitmcontext.tokens.families import Family
from mitmcontext.values import Kind, Message, Part

Count = Callable[[str], int]
"""The tokens of a text, in the family's encoding."""


def message_tokens(message: Message, family: Family, count: Count) -> int:
    """Input tokens of one message: per_message + text·n(parts) + per_call·calls + images."""
    tokens = family.per_message + family.per_call * _calls_and_results(message.parts)
    for part in message.parts:
        tokens += family.text * count(part.text) if part.text else 0.0
        tokens += family.per_image * _images(part)
    return _up(tokens)


def _calls_and_results(parts: Sequence[Part]) -> int:
    """How many calls and results there are; a result may have several parts.

    A result without an id is a user's text in the API's eyes, and wrapped as such.
    """
    results = {part.call_id for part in parts if part.kind is Kind.RESULT and part.call_id}
    return sum(part.kind is Kind.CALL for part in parts) + len(results)


def _images(part: Part) -> int:
    return max(part.images, 1 if part.kind is Kind.IMAGE else 0)


def fixed_tokens(
    system_text: str, n_system: int, tools_json: str, n_tools: int, family: Family, count: Count
) -> int:
    """Input tokens of all that is no message: the request itself, the system prompt, the tools.

    per_request + per_system·n_system + text·n(system) + tools·n(JSON) + per_tool·n_tools +
    tools_fixed. `n_system` is 1 where the API has a system prompt beside its messages, else 0.
    `tools_json` is the array of tools as sent; its spacing does not matter.
    """
    tokens = family.per_request + family.per_system * n_system
    if system_text:
        tokens += family.text * count(system_text)
    if n_tools:
        tokens += family.tools * count(_compact(tools_json))
        tokens += family.per_tool * n_tools + family.tools_fixed
    return _up(tokens)


def _compact(text: str) -> str:
    """JSON without white space and escapes, which providers do not see; as it is if unreadable."""
    try:
        return json.dumps(json.loads(text), ensure_ascii=False, separators=(",", ":"))
    except (ValueError, RecursionError):
        return text


def _up(tokens: float) -> int:
    # The tiny amount keeps the noise of 0.1 + 0.2 from becoming a token.
    return max(0, math.ceil(tokens - 1e-6))
