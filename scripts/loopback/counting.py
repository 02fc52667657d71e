"""A tokenizer that is nobody's: the provider's own idea of how long a request is.

It has no vocabulary. Text is split by one pattern into words, numbers, signs and white space, and
each piece has a price by its kind and length. The prices resemble a modern byte-pair encoder on
the whole and differ from it in the particular, as a real provider's tokenizer does from whatever
one counts with. A model multiplies them by a factor of its own and adds constants.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import Any

_PIECE = re.compile(
    r"(?P<word>[A-Z]?[a-z]+|[A-Z]+(?![a-z])|[A-Z])"
    r"|(?P<number>[0-9]+)"
    r"|(?P<newline>[\r\n]+)"
    r"|(?P<blank>[ \t]+)"
    r"|(?P<sign>[!-/:-@\[-`{-~]+)"
    r"|(?P<other>[^\x00-\x7f]+|.)",
    re.DOTALL,
)

_LONG_TEXT = 4_000
_IMAGE = 1_400
_PICTURES = ("image", "image_url", "document", "input_image", "input_file", "computer_screenshot")


def _price(kind: str, length: int) -> float:
    """What one piece costs: common short words are one token, everything else grows."""
    if kind == "word":
        return 0.92 if length <= 7 else 0.92 + (length - 7) / 4.5
    if kind == "number":
        return (length + 2) // 3
    if kind == "newline":
        return 1.0 if length <= 2 else 1.0 + (length - 2) / 8
    if kind == "blank":
        # One blank before a word belongs to the word; a run is an indentation.
        return 0.06 if length == 1 else 0.9 + length / 60
    if kind == "sign":
        return 0.74 if length <= 2 else 0.74 + (length - 2) / 2.8
    return max(1.0, length * 0.72)


_PRICES = {
    kind: tuple(_price(kind, length) for length in range(256))
    for kind in ("word", "number", "newline", "blank", "sign", "other")
}


def _weigh(text: str) -> float:
    total = 0.0
    for match in _PIECE.finditer(text):
        kind = match.lastgroup or "other"
        length = match.end() - match.start()
        total += _PRICES[kind][length] if length < 256 else _price(kind, length)
    return total


_weigh_long = lru_cache(maxsize=4_096)(_weigh)
_weigh_short = lru_cache(maxsize=32_768)(_weigh)


def weigh(text: str) -> float:
    """The bare price of a text, before any model's factor. Histories repeat, so it is kept."""
    return _weigh_long(text) if len(text) > _LONG_TEXT else _weigh_short(text)


@dataclass(frozen=True, slots=True)
class Model:
    """How one family of models counts, and what fits into it.

    `counts_output` says whether the requested output must fit beside the input.
    """

    pattern: str
    factor: float
    window: int
    per_message: int = 4
    per_tool: int = 12
    per_tools: int = 0
    counts_output: bool = False
    reasoning: bool = False


MODELS: tuple[Model, ...] = (
    Model("claude-3*", 1.12, 200_000, 4, 22, 340, counts_output=True),
    Model("claude-sonnet-4-5*", 1.16, 200_000, 5, 24, 346, counts_output=True),
    Model("claude-opus-4-5*", 1.16, 200_000, 5, 24, 346, counts_output=True),
    Model("claude-haiku-4-5*", 1.17, 200_000, 5, 24, 346, counts_output=True),
    Model("claude-sonnet-4*", 1.14, 200_000, 5, 24, 346, counts_output=True),
    Model("claude-*", 1.35, 1_000_000, 6, 28, 420),
    Model("gpt-4o*", 1.0, 128_000, 4, 9, 12, counts_output=True),
    Model("gpt-4.1*", 1.0, 1_047_576, 4, 9, 12, counts_output=True),
    Model("gpt-5*", 1.02, 272_000, 4, 9, 14, reasoning=True),
    Model("o[134]*", 1.0, 200_000, 4, 9, 14, counts_output=True, reasoning=True),
    Model("gpt-*", 1.04, 922_000, 5, 10, 16, reasoning=True),
    Model("gemini-*", 1.03, 1_048_576, 2, 8, 10),
    Model("*", 1.0, 128_000),
)


def model_named(name: str, models: tuple[Model, ...] = MODELS) -> Model:
    """The first family whose pattern fits. There is always one."""
    return next(model for model in models if fnmatchcase(name, model.pattern))


def _texts(value: Any) -> Iterator[str | None]:
    """Every text in a piece of JSON; None stands for an image."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)
    elif isinstance(value, dict):
        if value.get("type") in _PICTURES and "document" not in value:
            yield None
            return
        for key, item in value.items():
            if key in ("cache_control", "type", "signature"):
                continue
            if key == "images" and isinstance(item, list):
                yield from (None for _ in item)
                continue
            if key == "encrypted_content" and isinstance(item, str):
                # What is sealed, not its seal: three bytes in four signs, less what wraps them.
                yield " sealed" * (max(0, len(item) * 3 // 4 - 600) // 4)
            elif key in ("input", "arguments") and not isinstance(item, str):
                yield json.dumps(item, ensure_ascii=False)
            else:
                yield from _texts(item)


def price(value: Any) -> float:
    """The bare price of a piece of a request."""
    return sum(_IMAGE if text is None else weigh(text) for text in _texts(value))


def count_message(message: Any, model: Model) -> int:
    """What one message of a request costs."""
    return round(price(message) * model.factor) + model.per_message


def count_head(body: dict[str, Any], model: Model) -> int:
    """What stands before the messages: system prompt and tools."""
    total = price(body.get("system") or "") * model.factor
    tools = body.get("tools")
    if isinstance(tools, list) and tools:
        total += model.per_tools
        for tool in tools:
            text = json.dumps(tool, ensure_ascii=False, sort_keys=True)
            total += weigh(text) * model.factor * 0.8 + model.per_tool
    return round(total) + 3


def count(body: dict[str, Any], model: Model) -> int:
    """The input tokens of a whole request."""
    messages = body.get("messages")
    if not isinstance(messages, list):
        return count_head(body, model)
    return count_head(body, model) + sum(count_message(message, model) for message in messages)
