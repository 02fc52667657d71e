"""What the README says of settings is what the code declares; what that of tests names is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from mitmcontext.settings import declared

TESTS = Path(__file__).parent
README = TESTS.parent / "README.md"


@pytest.mark.parametrize("item", declared(), ids=lambda item: item.name)
def test_the_table_of_settings_is_the_declarations(item: object) -> None:
    default = item.metadata["default"]  # type: ignore[attr-defined]
    shown = f"`{default}`" if default else ""
    row = f"| `{item.name}` | {shown} | {item.metadata['help']} |"  # type: ignore[attr-defined]
    assert row in README.read_text(encoding="utf-8").splitlines()


def test_each_test_that_a_row_names_is_there() -> None:
    named = re.findall(r"`([\w/]+\.py)::(\w+)`", (TESTS / "README.md").read_text(encoding="utf-8"))
    assert len(named) > 60
    missing = [
        f"{path}::{name}"
        for path, name in named
        if f"def {name}(" not in (TESTS / path).read_text(encoding="utf-8")
    ]
    assert missing == []
