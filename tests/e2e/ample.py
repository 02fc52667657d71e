"""Loaded in the place of `context.py`: the addon with ample time, for tests of something else.

On a busy machine a Redis does not answer in its 20 ms, nor is a step there in its two seconds. Then
a request goes out one rung lower, as it should, and a test of what two proxies agree on, or fifty
clients, has seen nothing of what it is about. What happens when time runs out has tests of its own.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Final

sys.path.insert(0, str(Path(__file__).parents[2] / "addon"))

from mitmcontext.proxy import deciding
from mitmcontext.proxy.addon import ContextAddon
from mitmcontext.stores import links
from mitmcontext.stores.redis_server import BUDGET_SECONDS, Server

AMPLE: Final = 20.0

assert deciding._STEP_SECONDS < AMPLE
deciding._STEP_SECONDS = AMPLE  # type: ignore[misc]
assert links._CONNECT_SECONDS < AMPLE
links._CONNECT_SECONDS = AMPLE  # type: ignore[misc]
assert Server.__init__.__defaults__ == (time.monotonic, BUDGET_SECONDS)
Server.__init__.__defaults__ = (time.monotonic, AMPLE)

addons = [ContextAddon()]
