"""Whom a request is for."""

from __future__ import annotations

from functools import lru_cache
from typing import Final

from mitmproxy import http
from mitmproxy.net.http.url import parse_authority

# No longer name can be looked up.
_LONGEST: Final = 255


def host_of(request: http.Request) -> str:
    """As `request.pretty_host`, which reads the name anew each time."""
    authority = request.host_header
    if not authority:
        return request.host
    return _known(authority) if len(authority) <= _LONGEST else _host_in(authority)


def _host_in(authority: str) -> str:
    return parse_authority(authority, check=False)[0]


_known: Final = lru_cache(maxsize=1_000)(_host_in)
