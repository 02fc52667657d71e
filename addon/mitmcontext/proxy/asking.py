"""One question to a model, over the network: sent once, answered within bounds or not at all.

It goes past every proxy, ours included: the environment is not looked at, and what goes out is
remembered for as long as it is under way, so that it is known should it come by here after all (a
proxy that takes all of a machine's traffic). No redirect is followed, since it would hand the
credential to somebody else. Nothing of an answer is ever logged.
"""

from __future__ import annotations

import asyncio
import hashlib
import ssl
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, NamedTuple

import httpx
import msgspec
from mitmproxy import http

from mitmcontext.proxy import bodies
from mitmcontext.proxy.resend import Field, of_the_message, server_name
from mitmcontext.values import Unreadable, Usage
from mitmcontext.wire.asking import Said

_LARGEST: Final = 1 << 20
_LONGEST_WAIT: Final = 3_600.0
# What belongs to the client's own request and not to ours.
_THEIRS: Final = frozenset(
    (
        *(b"accept", b"accept-encoding", b"content-encoding", b"content-length", b"content-type"),
        *(b"idempotency-key", b"x-client-request-id", b"x-codex-turn-metadata", b"cookie"),
        *(b"content-md5", b"digest", b"content-digest", b"if-none-match", b"range"),
    )
)
_THEIR_KINDS: Final = (b"x-stainless-", b"x-claude-code-", b"sec-", b"traceparent", b"tracestate")


class Trouble:
    """Why there is no answer, in words; those of an API's own form are `wire.asking.Fault`'s."""

    REFUSED: Final = "the key is refused"
    BUSY: Final = "the provider is busy"
    REDIRECT: Final = "a redirect"
    STATUS: Final = "the provider refuses the question"
    NO_JSON: Final = "no JSON"
    LARGE: Final = "too large"
    CONNECTION: Final = "no connection"
    LATE: Final = "no answer in time"


@dataclass(frozen=True, slots=True)
class Target:
    """Where questions go, and with which headers: the flow's own, with its credential.

    `path` has no query; `query` begins with "?" where there is one. `name` is whom to verify where
    the host is a bare address.
    """

    scheme: str
    host: str
    port: int
    path: str
    query: str
    headers: tuple[Field, ...]
    name: str | None = None


class Asks(msgspec.Struct, frozen=True, dict=True):
    """What it takes to ask on behalf of a flow.

    Attributes:
        request: the flow's own.
        is_gone: whether its client has hung up.
        paid: told what a question has cost, in dollars.
    """

    request: http.Request
    is_gone: Callable[[], bool]
    paid: Callable[[float], None]

    @cached_property
    def target(self) -> Target:
        """Where the flow's own requests go. Few requests are ever asked about."""
        return target_of(self.request)


class Answer(NamedTuple):
    """What a model said, or why it did not.

    `status` is the provider's, 0 without one; `wait` is for how many seconds it wants to be left
    alone, as it says.
    """

    text: str = ""
    fault: str = ""
    usage: Usage | None = None
    status: int = 0
    wait: float | None = None


class Post(NamedTuple):
    """A question as it goes out."""

    target: Target
    path: str
    body: bytes
    said: Callable[[Mapping[str, Any]], Said]
    usage_of: Callable[[Mapping[str, Any]], Usage | None]


def target_of(request: http.Request) -> Target:
    """Where a client's request goes, with what a question of ours takes over of it."""
    path, mark, query = request.path.partition("?")
    kept = "&".join(piece for piece in query.split("&") if piece != "alt=sse") if mark else ""
    headers = [
        (name, value)
        for name, value in of_the_message(request.headers.fields)
        if name.lower() not in _THEIRS and not name.lower().startswith(_THEIR_KINDS)
    ]
    if request.host_header and not any(name.lower() == b"host" for name, _ in headers):
        headers.insert(0, (b"Host", request.host_header.encode("utf-8", "surrogateescape")))
    return Target(
        scheme=request.scheme,
        host=request.host,
        port=request.port,
        path=path,
        query=f"?{kept}" if kept else "",
        headers=tuple(headers),
        name=server_name(request),
    )


class Asker:
    """Sends questions.

    Args:
        verify: makes what verifies a server; asked once, when it is first needed.
    """

    def __init__(self, verify: Callable[[], ssl.SSLContext]) -> None:
        self._make = verify
        self._verify: ssl.SSLContext | None = None
        self._under_way: Counter[bytes] = Counter()

    def is_ours(self, body: bytes) -> bool:
        """Whether a body is that of a question which is under way."""
        return bool(self._under_way) and _name(body) in self._under_way

    def forget(self) -> None:
        """Read anew what verifies a server: the options have changed."""
        self._verify = None

    async def ask(self, post: Post, seconds: float) -> Answer:
        """Ask once; whatever happens is an answer.

        Raises:
            CancelledError: from outside.
        """
        name = _name(post.body)
        self._under_way[name] += 1
        try:
            async with asyncio.timeout(seconds):
                return await self._ask(post)
        except TimeoutError:
            return Answer(fault=Trouble.LATE)
        except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError, OSError, ValueError):
            return Answer(fault=Trouble.CONNECTION)
        finally:
            self._under_way[name] -= 1
            self._under_way += Counter()  # without those that are at zero

    async def _ask(self, post: Post) -> Answer:
        if self._verify is None:
            self._verify = await asyncio.to_thread(self._make)
        client = httpx.AsyncClient(
            verify=self._verify,
            proxy=None,
            trust_env=False,
            follow_redirects=False,
            timeout=None,  # noqa: S113 - one deadline holds for everything
        )
        async with client:
            response = await client.send(_outgoing(post), stream=True)
            try:
                if response.status_code != 200:
                    return _refusal(response)
                content = await _content(response)
            finally:
                await response.aclose()
        return Answer(fault=Trouble.LARGE) if content is None else _read(post, content)


def _outgoing(post: Post) -> httpx.Request:
    target = post.target
    url = httpx.URL(
        scheme=target.scheme,
        host=target.host,
        port=target.port,
        raw_path=f"{post.path}{target.query}".encode("utf-8", "surrogateescape"),
    )
    own = (
        (b"Content-Type", b"application/json"),
        (b"Accept", b"application/json"),
        (b"Accept-Encoding", b"identity"),
        (b"Content-Length", str(len(post.body)).encode()),
    )
    return httpx.Request(
        "POST",
        url,
        headers=[*target.headers, *own],
        content=post.body,
        extensions={"sni_hostname": target.name} if target.name else {},
    )


async def _content(response: httpx.Response) -> bytes | None:
    """The body as it comes off the wire; None where it is larger than any answer."""
    pieces, left = [], _LARGEST
    async for piece in response.aiter_raw():
        left -= len(piece)
        if left < 0:
            return None
        pieces.append(piece)
    try:
        coding = response.headers.get("content-encoding")
        return bodies.decode(b"".join(pieces), coding, _LARGEST)
    except Unreadable:
        return b""


def _read(post: Post, content: bytes) -> Answer:
    try:
        found = msgspec.json.decode(content)
    except (msgspec.MsgspecError, RecursionError, ValueError):
        return Answer(fault=Trouble.NO_JSON, status=200)
    if not isinstance(found, dict):
        return Answer(fault=Trouble.NO_JSON, status=200)
    said, usage = post.said(found), post.usage_of(found)
    return Answer(said.text, said.fault.value if said.fault else "", usage, 200)


def _refusal(response: httpx.Response) -> Answer:
    status = response.status_code
    wait = _seconds(response.headers.get("retry-after", ""))
    if status in (401, 403):
        return Answer(fault=Trouble.REFUSED, status=status)
    if 300 <= status < 400:
        return Answer(fault=Trouble.REDIRECT, status=status)
    if status in (408, 409, 429) or status >= 500:
        return Answer(fault=Trouble.BUSY, status=status, wait=wait)
    return Answer(fault=Trouble.STATUS, status=status)


def _seconds(said: str) -> float | None:
    try:
        return min(_LONGEST_WAIT, max(0.0, float(said)))
    except ValueError:
        return None  # a date, or nothing


def _name(body: bytes) -> bytes:
    return hashlib.sha256(body).digest()
