"""One request, sent again.

When a provider refuses the shape of a body that we had rewritten, the form before it goes out once
more and its answer takes the refusal's place. mitmproxy has passed the request on by then, so this
one travels on a connection of its own: to the same place, with the same headers, under the same
rules of trust.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import ssl
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Final
from urllib.parse import quote

import certifi
import httpx
from mitmproxy import http, optmanager
from mitmproxy.proxy import mode_specs

from mitmcontext.proxy.hosts import host_of

Field = tuple[bytes, bytes]

# What belongs to one connection and not to the message (RFC 9110, 7.6.1). mitmproxy has dealt with
# `Expect` already.
_OF_THE_CONNECTION: Final = frozenset(
    (
        b"connection",
        b"expect",
        b"http2-settings",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    )
)
_WITHOUT_BODY: Final = (204, 304)

# Both log addresses, which may hold a key, and headers.
for _name in ("httpx", "httpcore"):
    logging.getLogger(_name).setLevel(logging.WARNING)


async def resend(
    request: http.Request,
    body: bytes,
    *,
    seconds: float,
    verify: ssl.SSLContext,
    proxy: str | None,
    largest: int,
) -> http.Response | None:
    """Send a request once with another body; the complete answer, whatever its status, or None.

    Args:
        request: where to, and with which headers.
        body: what to send, in the encoding that the headers name.
        seconds: the time for all of it, until the last byte of the answer.
        verify: how to verify the server, from `tls_context`.
        proxy: the proxy to go through, from `upstream_proxy`.
        largest: the most bytes of an answer, as they come off the wire.
    """
    try:
        async with asyncio.timeout(seconds), _client(verify, proxy) as client:
            answer = await client.send(_outgoing(request, body), stream=True)
            content = await _content(answer, largest)
            return None if content is None else _response(answer, content)
    except Exception:  # noqa: BLE001 - whatever goes wrong, the client gets the first answer
        return None


def tls_context(options: optmanager.OptManager) -> ssl.SSLContext:
    """What verifies a server exactly as mitmproxy does. Reads files; one serves all requests.

    Raises:
        OSError: the certificates that the options name cannot be read.
    """
    authorities = options.ssl_verify_upstream_trusted_ca
    folder = options.ssl_verify_upstream_trusted_confdir
    if authorities is None and folder is None:
        authorities = certifi.where()
    context = ssl.create_default_context(cafile=authorities, capath=folder)
    # Python 3.13 asks more of a certificate than mitmproxy does.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    if options.ssl_insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def upstream_proxy(mode: Sequence[str], auth: str | None = None) -> str | None:
    """The address of the proxy that mitmproxy itself goes through, or None.

    Args:
        mode: mitmproxy's modes; with several, the flow's own alone.
        auth: USER:PASSWORD, as in the option `upstream_auth`.
    """
    for text in mode:
        try:
            found = mode_specs.ProxyMode.parse(text)
        except ValueError:
            continue
        if isinstance(found, mode_specs.UpstreamMode):
            host, port = found.address
            place = f"[{host}]" if ":" in host else host
            return f"{found.scheme}://{_credentials(auth)}{place}:{port}"
    return None


def _credentials(auth: str | None) -> str:
    user, colon, password = (auth or "").partition(":")
    return f"{quote(user, safe='')}:{quote(password, safe='')}@" if colon else ""


def _client(verify: ssl.SSLContext, proxy: str | None) -> httpx.AsyncClient:
    """A client that looks at no environment: its proxy variables may well lead to ourselves."""
    secure = proxy is not None and proxy.startswith("https:")
    through = None if proxy is None else httpx.Proxy(proxy, ssl_context=verify if secure else None)
    return httpx.AsyncClient(
        verify=verify,
        proxy=through,
        trust_env=False,
        follow_redirects=False,
        http2=False,
        timeout=None,  # noqa: S113 - one deadline holds for everything
    )


def _outgoing(request: http.Request, body: bytes) -> httpx.Request:
    """The request for httpx.

    Raises:
        ValueError: httpx would ask for another path than the client did.
    """
    target = request.data.path
    url = httpx.URL(scheme=request.scheme, host=request.host, port=request.port, raw_path=target)
    if url.raw_path != target:
        raise ValueError
    name = server_name(request)
    return httpx.Request(
        request.method,
        url,
        headers=_headers(request, body),
        content=body,
        extensions={"sni_hostname": name} if name else {},
    )


def server_name(request: http.Request) -> str | None:
    """Whom to ask for and to verify where the connection goes to a bare address."""
    named = host_of(request)
    return named if _is_address(request.host) and not _is_address(named) else None


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _headers(request: http.Request, body: bytes) -> list[Field]:
    """The request's own headers in their order, as HTTP/1.1 wants them."""
    found = _joined_cookies(of_the_message(request.headers.fields))
    length = str(len(body)).encode()
    sized = [(name, length if name.lower() == b"content-length" else v) for name, v in found]
    present = {name.lower() for name, _ in sized}
    if b"host" not in present and request.host_header:
        sized.insert(0, (b"Host", request.host_header.encode("utf-8", "surrogateescape")))
    if b"content-length" not in present:
        sized.append((b"Content-Length", length))
    return sized


def of_the_message(fields: Iterable[Field]) -> Iterator[Field]:
    """The headers without those that belong to one connection."""
    fields = tuple(fields)
    named = {
        option.strip().lower()
        for name, value in fields
        if name.lower() == b"connection"
        for option in value.split(b",")
    }
    dropped = _OF_THE_CONNECTION | named
    return (field for field in fields if field[0].lower() not in dropped)


def _joined_cookies(fields: Iterable[Field]) -> list[Field]:
    """HTTP/2 may split a cookie header into several, HTTP/1.1 may not (RFC 9113, 8.2.3)."""
    found: list[Field] = []
    first: int | None = None
    for name, value in fields:
        if name.lower() != b"cookie":
            found.append((name, value))
        elif first is None:
            first = len(found)
            found.append((name, value))
        else:
            found[first] = found[first][0], found[first][1] + b"; " + value
    return found


async def _content(answer: httpx.Response, largest: int) -> bytes | None:
    """The body as it comes off the wire, still encoded; None where it is larger than allowed."""
    pieces = []
    async for piece in answer.aiter_raw():
        largest -= len(piece)
        if largest < 0:
            return None
        pieces.append(piece)
    return b"".join(pieces)


def _response(answer: httpx.Response, content: bytes) -> http.Response:
    now = time.time()
    fields = [f for f in of_the_message(answer.headers.raw) if f[0].lower() != b"content-length"]
    if answer.status_code not in _WITHOUT_BODY:
        fields.append((b"content-length", str(len(content)).encode()))
    return http.Response(
        http_version=b"HTTP/1.1",
        status_code=answer.status_code,
        reason=answer.extensions.get("reason_phrase", b""),
        headers=http.Headers(fields),
        content=content,
        trailers=None,
        timestamp_start=now,
        timestamp_end=now,
    )


def commit(request: http.Request, raw: bytes) -> None:
    """The only change to a request: its body, and its length where it states one; or neither."""
    came, fields = request.raw_content, request.headers.fields
    try:
        if "content-length" in request.headers:
            request.headers["content-length"] = str(len(raw))
        request.raw_content = raw
    except BaseException:
        request.raw_content, request.headers.fields = came, fields
        raise
