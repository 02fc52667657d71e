"""What each family of models adds to the tokens of the bare text: `families.toml` and its look-up.

All providers wrap messages, calls and tools in text of their own, of constant size, and some have
another vocabulary than the one we count with. One model may see them differently by API.
"""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib.resources import files
from typing import Any, Final, NamedTuple

from mitmcontext.models.names import longest_match, plain
from mitmcontext.tokens.images import Price
from mitmcontext.tokens.vocabulary import CHARACTERS

ANY: Final = "*"  # the pattern of unknown models
CHAT: Final = "OpenAI Chat Completions"
RESPONSES: Final = "OpenAI Responses"
# Who names OpenAI's models so (OpenRouter and others) asks for them through Responses.
_THROUGH_RESPONSES: Final = "openai/"


@dataclass(frozen=True, slots=True)
class Family:
    """How one family of models counts, in one API.

    Attributes:
        name: its own, in the table.
        encoding: the vocabulary that text is counted with.
        form: how its models see tools: "typescript" or "json".
        weights: what is counted (`estimate.message_counts`, `outside_counts`) to the provider's
            tokens for each of it.
        image: the price of an image.
        mark: equal for equal figures, so that what was counted by others is not taken over.
    """

    name: str
    encoding: str
    form: str
    weights: Mapping[str, float]
    image: Price
    mark: str = ""

    def weigh(self, counts: Mapping[str, float]) -> float:
        """The provider's tokens of what was counted; what has no weight costs nothing."""
        weights = self.weights
        return sum([number * weights.get(name, 0.0) for name, number in counts.items() if number])


class Asked(NamedTuple):
    """How to count, where somebody wants it otherwise than the provider does.

    Attributes:
        accurate: with a real vocabulary; a token is four characters without.
        base: tokens of an image; 85 if only one of the others is set.
        per_char: more tokens for each character of its description; 0.25 likewise.
        dynamic: whether descriptions count at all; they do if not said otherwise.
    """

    accurate: bool = True
    base: int | None = None
    per_char: float | None = None
    dynamic: bool | None = None

    def price(self) -> Price | None:
        """What an image costs; None where nothing was said of it."""
        if self.base is None and self.per_char is None and self.dynamic is None:
            return None
        base = 85 if self.base is None else self.base
        per_char = 0.25 if self.per_char is None else self.per_char
        return Price("described", base, 0.0 if self.dynamic is False else per_char)


@lru_cache(maxsize=1_000)
def family_of(model: str, api: str = "", asked: Asked = Asked()) -> Family:  # noqa: B008  a value
    """The family of a model, as the request names it; unknown models have one of their own.

    Args:
        model: its name, with or without vendor, region and date.
        api: the name of the API (`Api.name`), for those that count a model in a way of their own.
        asked: how to count.
    """
    families, images = _tables()
    if api == CHAT and model.startswith(_THROUGH_RESPONSES):
        api = RESPONSES
    price = asked.price() or images[longest_match(images, plain(model)) or ANY]
    return _family(row_of(families, model, api), price, "" if asked.accurate else CHARACTERS)


def all_families() -> tuple[Family, ...]:
    """Every family of the table, each with the price of an image that unknown models have."""
    families, images = _tables()
    return tuple(_family(row, images[ANY]) for row in families)


Row = Mapping[str, Any]


def _family(row: Row, image: Price, encoding: str = "") -> Family:
    encoding = encoding or row["encoding"]
    said = repr((sorted(row["weights"].items()), encoding, row["form"], image)).encode()
    return Family(
        name=row["name"],
        encoding=encoding,
        form=row["form"],
        weights=row["weights"],
        image=image,
        mark=hashlib.sha256(said).hexdigest()[:8],
    )


def row_of(families: Iterable[Row], model: str, api: str) -> Row:
    """The row whose longest pattern fits; of equal ones, that which names the API."""
    name, best, reach = plain(model), None, (-1, False)
    for row in families:
        own = row.get("apis")
        pattern = longest_match(row["models"], name) if own is None or api in own else None
        if pattern is not None:
            length = len(pattern.replace("*", ""))
            if (length, own is not None) >= reach:
                best, reach = row, (length, own is not None)
    if best is None:
        raise LookupError("the table has no family for unknown models")
    return best


@cache
def _tables() -> tuple[tuple[Row, ...], Mapping[str, Price]]:
    """The families, and pattern to the price of an image.

    Images have patterns of their own, since the small models of a family differ in nothing else.
    """
    data = tomllib.loads(files(__package__).joinpath("families.toml").read_text(encoding="utf-8"))
    images = {
        pattern: Price(row["formula"], row.get("a", 0.0), row.get("b", 0.0))
        for row in data["image"]
        for pattern in row["models"]
    }
    return tuple(data["family"]), images
