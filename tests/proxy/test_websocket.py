"""Which connections are followed, and how much of them is kept."""

from __future__ import annotations

from typing import Any

import pytest
from mitmproxy.test import tflow, tutils

from mitmcontext.proxy.carried import carried
from mitmcontext.proxy.websocket import Line, is_upgrade
from mitmcontext.wire.responses_socket import Mirror

UPGRADES: list[Any] = [
    pytest.param("GET", b"/v1/responses", b"websocket", True, id="OpenAI"),
    pytest.param("GET", b"/backend-api/codex/responses", b"websocket", True, id="ChatGPT"),
    pytest.param("GET", b"/v1/responses?model=gpt-6", b"WebSocket", True, id="a query"),
    pytest.param("GET", b"/v1/realtime?to=/responses", b"websocket", False, id="another path"),
    pytest.param("GET", b"/v1/responses/compact", b"websocket", False, id="below it"),
    pytest.param("GET", b"/v1/responses", b"h2c", False, id="another upgrade"),
    pytest.param("GET", b"/v1/responses", None, False, id="no upgrade"),
    pytest.param("POST", b"/v1/responses", b"websocket", False, id="no GET"),
]


@pytest.mark.parametrize(("method", "path", "upgrade", "expected"), UPGRADES)
def test_what_asks_for_a_websocket_to_responses(
    method: str, path: bytes, upgrade: bytes | None, expected: bool
) -> None:
    headers = [(b"Host", b"api.openai.com")]
    if upgrade is not None:
        headers += [(b"Connection", b"Upgrade"), (b"Upgrade", upgrade)]
    request = tutils.treq(method=method.encode(), path=path)
    request.headers.fields = tuple(headers)

    assert is_upgrade(tflow.tflow(req=request)) == expected


class Master:
    """What hangs on mitmproxy's master outlives a reload."""


def test_the_mirrors_of_all_connections_are_bounded() -> None:
    lines = carried(Master())["lines"]
    item = bytes(40 << 20)

    for number in range(4):
        lines[str(number)] = Line(Mirror(response="resp_1", items=(item,)))

    assert list(lines) == ["1", "2", "3"]
    assert lines.currsize <= lines.maxsize == 128 << 20
    # What is larger than all may be is no reason to keep nothing of the others.
    with pytest.raises(ValueError, match="too large"):
        lines["4"] = Line(Mirror(items=(item,) * 4))
    assert len(lines) == 3
