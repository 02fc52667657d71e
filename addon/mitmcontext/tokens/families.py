"""What each family of models adds to the tokens of the bare text: `families.toml` and its look-up.

The estimate is linear. All providers wrap messages, calls and tools in text of their own, of
constant size, and some have another vocabulary than the one we count with.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib.resources import files
from typing import Any

from mitmcontext.models.names import longest_match, plain


@dataclass(frozen=True, slots=True)
class Family:
    """The coefficients of one family. Everything is in the provider's tokens.

    `encoding` names the vocabulary that text is counted with; `text` and `tools` turn its tokens
    into the provider's, `tools` those of the tools' JSON as sent. `per_call` comes on top for
    each tool call and each result, `tools_fixed` once where there are tools. `per_image` is flat.
    """

    name: str
    encoding: str
    per_request: float
    per_message: float
    text: float
    per_call: float
    per_system: float
    tools: float
    per_tool: float
    tools_fixed: float
    per_image: float


@lru_cache(maxsize=1_000)
def family_of(model: str) -> Family:
    """The family of a model, as the request names it; unknown models have one of their own."""
    families, images = _tables()
    name = plain(model)
    return Family(
        **families[longest_match(families, name) or ANY],
        per_image=images[longest_match(images, name) or ANY],
    )


ANY = "*"  # the pattern of unknown models

Table = tuple[dict[str, dict[str, Any]], dict[str, float]]


@cache
def _tables() -> Table:
    """Pattern to a family's coefficients, and pattern to tokens per image.

    Images have patterns of their own, since the small models of a family differ in nothing else.
    """
    data = tomllib.loads(files(__package__).joinpath("families.toml").read_text(encoding="utf-8"))
    families = {
        pattern: {key: value for key, value in row.items() if key != "models"}
        for row in data["family"]
        for pattern in row["models"]
    }
    images = {pattern: row["per_image"] for row in data["image"] for pattern in row["models"]}
    return families, images
