"""What a model's tokens cost: `prices.toml` and its look-up."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache, lru_cache
from typing import Any, Final

import msgspec
from msgspec.structs import replace

from mitmcontext.models.names import longest_match, plain
from mitmcontext.models.tables import rows_by_pattern

_MINUTE: Final = 60.0
_HOUR: Final = 3_600.0


class Prices(msgspec.Struct, frozen=True):
    """What a model's tokens cost, in US dollars per million.

    `input` is the plain price; `cache_read` and `cache_write` are those of tokens that come out of
    the provider's prompt cache and go into it; `hour_write` is the latter where the request asks
    that it be kept for an hour (None: nobody can ask for that). `keeps` is for how many seconds
    without use it may be kept. Above `long_above` input tokens the whole request costs
    `long_input` and `long_output` times as much. `known` is False where nothing is known: then all
    prices are 0, and neither a cost nor a saving is to be told.
    """

    input: float
    cache_read: float
    cache_write: float
    output: float
    keeps: float
    known: bool
    source: str
    hour_write: float | None = None
    long_above: int | None = None
    long_input: float = 1.0
    long_output: float = 1.0

    def at(self, tokens: int) -> Prices:
        """The prices of a request with so many input tokens."""
        if self.long_above is None or tokens <= self.long_above:
            return self
        return replace(
            self,
            input=self.input * self.long_input,
            cache_read=self.cache_read * self.long_input,
            cache_write=self.cache_write * self.long_input,
            output=self.output * self.long_output,
            hour_write=None,
            long_above=None,
        )

    def kept_an_hour(self) -> Prices:
        """The same where the request asks for an hour in the cache."""
        if self.hour_write is None:
            return self
        return replace(self, cache_write=self.hour_write, keeps=_HOUR)


@lru_cache(maxsize=1_000)
def prices_of(model: str) -> Prices:
    """What a model's tokens cost, by its name as the request gives it."""
    table, unknown = _table()
    pattern = longest_match(table, plain(model))
    return unknown if pattern is None else table[pattern]


@cache
def _table() -> tuple[dict[str, Prices], Prices]:
    """Pattern to prices, and those of unknown models."""
    rows, unknown = rows_by_pattern("prices.toml", "price")
    table = {
        pattern: _prices(row, known=True, source=f"table {pattern}")
        for pattern, row in rows.items()
    }
    return table, _prices(unknown, known=False, source="not known")


def _prices(row: Mapping[str, Any], *, known: bool, source: str) -> Prices:
    long = row.get("long", {})
    return Prices(
        input=row["input"],
        cache_read=row.get("read", row["input"]),
        cache_write=row.get("write", row["input"]),
        output=row["output"],
        keeps=row["keeps"] * _MINUTE,
        known=known,
        source=source,
        hour_write=row.get("hour_write"),
        long_above=long.get("above"),
        long_input=long.get("input_times", 1.0),
        long_output=long.get("output_times", 1.0),
    )
