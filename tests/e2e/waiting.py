"""Waiting for what comes by itself, on a machine that may be busy."""

from __future__ import annotations

import time
from collections.abc import Callable


def wait_for(
    holds: Callable[[], object], seconds: float = 60, told: Callable[[], object] = str
) -> None:
    """Wait until something holds; `told` says at the end what there is instead."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"it did not happen in time {told()}"
        time.sleep(0.05)
