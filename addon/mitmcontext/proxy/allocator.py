"""Memory that was given back goes back to the system, where the C library is glibc.

glibc gives each thread a heap of its own, up to eight for each core, and keeps what is freed there.
Large bodies come and go in many threads here: under mixed load that held two hundred megabytes and
more that nobody used. Python runs one thread at a time, so that two heaps are enough. From a size
that only large bodies have memory is mapped for itself, so that it goes back when it is free.
"""

from __future__ import annotations

import ctypes
import sys
from typing import Final

# <malloc.h>
_M_MMAP_THRESHOLD: Final = -3
_M_ARENA_MAX: Final = -8
_HEAPS: Final = 2
_LARGE: Final = 4 << 20


def keep_little() -> bool:
    """Have the C library keep little of what is freed; whether it is one that can be told."""
    if not sys.platform.startswith("linux"):
        return False
    try:
        tell = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    return bool(tell(_M_ARENA_MAX, _HEAPS)) and bool(tell(_M_MMAP_THRESHOLD, _LARGE))
