"""Data files whose rows hold for models by patterns of their names."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

Row = Mapping[str, Any]


def rows_by_pattern(file: str, kind: str) -> tuple[dict[str, Row], Row]:
    """Pattern to row, in the file's order, and the row of unknown models.

    Args:
        file: a TOML file of this package.
        kind: what its list of rows is called; each names its patterns as `models`.
    """
    data = tomllib.loads(files(__package__).joinpath(file).read_text(encoding="utf-8"))
    return {pattern: row for row in data[kind] for pattern in row["models"]}, data["unknown"]
