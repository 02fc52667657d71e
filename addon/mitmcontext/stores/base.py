"""What a store is: bytes by bytes, each entry with a time to live, all together bounded in bytes.

Memory, SQLite, Redis and their tiers are such stores; whoever uses one cannot tell which. A store
never raises because its medium is broken. It goes out of service for a while, counts that by
reason, and until then behaves as if it were empty; what it could not do it says by its answer.
Nothing here is asynchronous: all of it is to be called off the event loop, from any thread.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple, Protocol

OK: Final = "ok"


class Kept(NamedTuple):
    """A value, and for how many seconds more it is kept."""

    value: bytes
    seconds: float


@dataclass(frozen=True, slots=True)
class Figures:
    """What a store holds and how it fares.

    Args:
        entries: how many; None where that is not known.
        size: bytes held, as the store counts them; None where that is not known.
        hits: keys that were asked for and found.
        misses: keys that were asked for and not found.
        state: "ok", or "set aside: " and the reason.
        faults: how often something went wrong, by reason.
    """

    entries: int | None
    size: int | None
    hits: int
    misses: int
    state: str = OK
    faults: Mapping[str, int] = field(default_factory=dict)


def hit_ratio(figures: Figures) -> float:
    """The share of the keys asked for that were found; 0 where nothing was asked."""
    asked = figures.hits + figures.misses
    return round(figures.hits / asked, 6) if asked else 0.0


class Store(Protocol):
    """Bytes by bytes. Times are seconds from now; what lives for none of them is not kept."""

    def get_many(self, keys: Iterable[bytes]) -> dict[bytes, bytes]:
        """The values of those keys that have one."""

    def look_up(self, keys: Iterable[bytes]) -> dict[bytes, Kept]:
        """The same, each with the seconds that it has left."""

    def set(self, key: bytes, value: bytes, seconds: float) -> bool:
        """Keep a value, whatever was there; whether it is kept now."""

    def add(self, key: bytes, value: bytes, seconds: float) -> bytes | None:
        """Insert if absent, in one step. What holds now; None if the store could not decide."""

    def replace(self, key: bytes, old: bytes, value: bytes, seconds: float) -> bool:
        """Put a value in the place of another, in one step; whether that one stood there."""

    def extend(self, key: bytes, seconds: float) -> bool:
        """Keep an entry for at least so long from now; whether there is one."""

    def delete(self, keys: Iterable[bytes]) -> bool:
        """Remove entries; whether it is certain that none of them is left."""

    def clear(self) -> bool:
        """Remove all entries for good; whether it is certain that none is left."""

    def clean_up(self) -> int:
        """Remove what has expired; how many entries that were. To be called now and then."""

    def close(self) -> None:
        """Let go of files and connections. Afterwards the store behaves as empty."""

    def figures(self) -> Figures:
        """What it holds and how it fares."""
