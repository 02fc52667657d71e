"""Processes as /proc tells of them."""

from __future__ import annotations

import sys
from pathlib import Path


def is_there() -> bool:
    """Whether there is a /proc to read CPU time from; where not, that is said."""
    found = Path("/proc/self/stat").exists()
    if not found:
        print(
            "This reads the CPU time of processes from /proc, which is not here.", file=sys.stderr
        )
    return found
