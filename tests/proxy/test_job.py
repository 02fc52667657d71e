"""What is read of a flow."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from mitmproxy import http

from mitmcontext.proxy.job import headers_of

NAMES = st.sampled_from([b"Accept", b"accept", b"ACCEPT", b"X-Api-Key", b"Vary", b"x-\xff"])
VALUES = st.binary(max_size=8)


@given(st.lists(st.tuples(NAMES, VALUES), max_size=8))
def test_headers_are_those_of_mitmproxys_own_mapping(fields: list[tuple[bytes, bytes]]) -> None:
    request = http.Request.make("POST", "https://api.example/", b"", http.Headers(fields))
    expected = {name.lower(): value for name, value in request.headers.items()}
    assert headers_of(request) == expected
