"""What the fixtures hand out: functions, of which a test that asks for one names the type."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from loopback.child import Child
from loopback.client import Connection
from loopback.websocket import Socket

Json = dict[str, Any]

StartProxy = Callable[..., Child]
"""(Options as `name=value`, more by name) to a running proxy: `start_proxy`, `share_proxy`."""

Connect = Callable[..., Connection]
"""(Proxy, host) to a connection through it."""

Opened = Callable[..., Socket]
"""(Proxy, host) to a WebSocket through it."""

Stats = Callable[[Child], Json]
"""A proxy to the addon's counts in it."""
