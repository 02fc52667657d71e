"""The proxy that runs in this process, if one does: for programs that ask for its figures."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

type Snapshot = Callable[[], Mapping[str, Any]]

_running: list[Snapshot] = []


def began(snapshot: Snapshot) -> None:
    """A proxy runs; the newest is the one that is asked."""
    _running.append(snapshot)


def ended(snapshot: Snapshot) -> None:
    """It does not run any more."""
    if snapshot in _running:
        _running.remove(snapshot)


def figures() -> Mapping[str, Any] | None:
    """What `stats.json` of the proxy in this process has; None where none runs."""
    return _running[-1]() if _running else None
