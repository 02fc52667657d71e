"""Python's search for garbage, which holds up everybody for as long as it takes.

A full search looks at every object that may be part of a circle. What stays as long as the process
need not be looked at. What takes longest is to free what was found: mitmproxy leaves a circle of
some hundred objects for each connection, with its bodies and its TLS. Left to themselves, full
searches came after a thousand requests and held the event loop for 50 ms under `./scripts/soak`.
"""

from __future__ import annotations

import gc
from typing import Final

# With nothing to free a search takes two milliseconds or three: hundredths of one for each request.
_REQUESTS: Final = 100
# A search takes the longer the more is kept, such as thousands of flows in mitmweb. So for each
# request since the last one there may be so many objects.
_OBJECTS: Final = 250


class Garbage:
    """Has full searches come often, so that each of them is short."""

    def __init__(self) -> None:
        self._left = _REQUESTS

    def is_due(self) -> bool:
        """Whether to search now; to be asked once for each request."""
        self._left -= 1
        if self._left > 0:
            return False
        self._left = _REQUESTS
        return True

    async def search(self) -> None:
        """A full search."""
        gc.collect()
        self._left = max(_REQUESTS, len(gc.get_objects()) // _OBJECTS)


def set_aside() -> None:
    """Look no more at what there is now: it is the code, most of it."""
    gc.collect()
    gc.freeze()


def take_back() -> None:
    """Look at everything again, since after a reload the old code is garbage.

    What requests in flight still hold of it goes with the next reload.
    """
    gc.unfreeze()
