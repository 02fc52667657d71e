"""The C library's memory, which would otherwise stay with the process once it was used.

Bodies of some hundred kilobytes come and go in several threads. glibc gives each thread an arena of
its own and keeps what is freed in the middle of one, and it puts ever larger blocks there as time
goes by: under `./scripts/soak` more than half of what the proxy took held nothing.
"""

from __future__ import annotations

import ctypes
import os
from typing import Final

# From glibc's <malloc.h>.
_TRIM_THRESHOLD: Final = -1
_MMAP_THRESHOLD: Final = -3
_ARENA_MAX: Final = -8
# The event loop and a thread that works; more than that wait for the interpreter anyway.
_ARENAS: Final = 2
# Blocks from this size on are given back when they are freed. Told once, it stays like that.
_OWN_PAGES: Final = 256 << 10
# So much may lie free at the end of an arena: to give it back for each body would take time.
_AT_THE_END: Final = 16 << 20
# Who sets one of these has thought about it.
_SET_BY_HAND: Final = ("MALLOC_ARENA_MAX", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES")


def give_back() -> None:
    """Have freed memory go back to the system. Nothing happens where there is no glibc."""
    if any(name in os.environ for name in _SET_BY_HAND):
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):
        return
    for parameter, value in (
        (_ARENA_MAX, _ARENAS),
        (_MMAP_THRESHOLD, _OWN_PAGES),
        (_TRIM_THRESHOLD, _AT_THE_END),
    ):
        mallopt(parameter, value)
