"""What the README says of settings is what the code declares."""

from __future__ import annotations

from pathlib import Path

import pytest

from mitmcontext.settings import declared

README = Path(__file__).parents[1] / "README.md"


@pytest.mark.parametrize("item", declared(), ids=lambda item: item.name)
def test_the_table_of_settings_is_the_declarations(item: object) -> None:
    default = item.metadata["default"]  # type: ignore[attr-defined]
    shown = f"`{default}`" if default else ""
    row = f"| `{item.name}` | {shown} | {item.metadata['help']} |"  # type: ignore[attr-defined]
    assert row in README.read_text(encoding="utf-8").splitlines()
