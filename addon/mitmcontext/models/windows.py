"""How much a model can take: `windows.toml` and its look-up."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, lru_cache

import msgspec
from msgspec.structs import replace

from mitmcontext.models.names import longest_match, plain
from mitmcontext.models.tables import Row, rows_by_pattern

LONG_CONTEXT = 1_000_000  # Claude Code writes `[1m]` behind a model that has it switched on
SMALLEST = 1_000  # an override below this is taken for a slip of the pen
_LARGEST = 1_000_000_000  # and so is one above this


class Window(msgspec.Struct, frozen=True):
    """A model's limits in tokens. None is "not known" or, for `total`, "not counted together".

    `input` is the most it reads, `output` the most it writes, `total` what both may be together.
    `known` is False where the careful default had to do; `source` says where the figures are from.
    """

    input: int
    output: int | None
    total: int | None
    known: bool
    source: str

    def room(self, requested_output: int | None) -> int:
        """The input tokens that fit beside the requested output.

        Anthropic and OpenAI's chat refuse what exceeds `total` together: min(input, total -
        requested). A request for more than the model can write counts as what it can write, and
        at least a quarter of the input window always remains: who asks for the whole window as
        output does not mean that nothing may be read.
        """
        if self.total is None or requested_output is None:
            return self.input
        reserved = max(0, requested_output)
        if self.output is not None:
            reserved = min(reserved, self.output)
        return max(min(self.input, self.total - reserved), self.input // 4)


def window_of(model: str, overrides: Sequence[tuple[str, int]] = ()) -> Window:
    """The window of a model, as the request names it.

    `overrides` are pairs of a glob and an input window; they win over the table. The longest
    pattern that fits wins, in both. The globs are tried on the name as sent and on the bare one.
    """
    return _window_of(model, tuple(overrides))


@lru_cache(maxsize=1_000)
def _window_of(model: str, overrides: tuple[tuple[str, int], ...]) -> Window:
    window = _from_table(model)
    names = (model.strip().lower(), plain(model))
    chosen = longest_match((glob.lower() for glob, _ in overrides), *names)
    if chosen is None:
        return window
    tokens = [tokens for glob, tokens in overrides if glob.lower() == chosen][-1]
    # Somebody who knows of a larger window than the table does knows a larger total, too.
    total = window.total if window.total is not None and window.total > tokens else None
    return replace(
        window, input=tokens, total=total, known=True, source=f"context_windows {chosen}"
    )


def parse_windows(settings: Sequence[str]) -> tuple[tuple[str, int], ...]:
    """`GLOB=TOKENS` texts as pairs. Raises ValueError with a sentence that says what is allowed."""
    return tuple(_parse(setting) for setting in settings)


def _parse(setting: str) -> tuple[str, int]:
    glob, equals, tokens = setting.rpartition("=")
    glob, tokens = glob.strip(), tokens.strip()
    digits = tokens.replace("_", "")
    if not (equals and glob and digits.isascii() and digits.isdigit() and len(digits) <= 12):
        raise ValueError(_allowed(setting))
    if not SMALLEST <= int(digits) <= _LARGEST:
        raise ValueError(_allowed(setting))
    return glob, int(digits)


def _allowed(setting: str) -> str:
    return (
        f"context_windows is {setting!r}, but must be GLOB=TOKENS with a whole number of "
        f"{SMALLEST} tokens or more, for example claude-opus-*=200000."
    )


def _from_table(model: str) -> Window:
    table, default = _table()
    pattern = longest_match(table, plain(model))
    window = default if pattern is None else table[pattern]
    if model.strip().lower().endswith("[1m]") and window.input < LONG_CONTEXT:
        return replace(window, input=LONG_CONTEXT, total=LONG_CONTEXT, source="[1m] in the name")
    return window


@cache
def _table() -> tuple[dict[str, Window], Window]:
    """Pattern to window, and the window of unknown models."""
    rows, unknown = rows_by_pattern("windows.toml", "window")
    table = {
        pattern: _window(row, known=True, source=f"table {pattern}")
        for pattern, row in rows.items()
    }
    return table, _window(unknown, known=False, source="careful default")


def _window(row: Row, known: bool, source: str) -> Window:
    return Window(row["input"], row.get("output"), row.get("total"), known, source)
