"""Sending a request again: to the same place, with the same headers, within bounds."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import ssl
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from mitmproxy import http, options
from mitmproxy.test import tutils

from loopback import certificates
from loopback.certificates import Certificates
from loopback.http1 import Closed, Wire, read_request
from mitmcontext.proxy.resend import commit, resend, tls_context, upstream_proxy

NAME = "api.provider.test"
BODY = b'{"model":"m","messages":[]}'
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"

Answering = Callable[[asyncio.StreamWriter], Awaitable[None]]


class Server:
    """Takes requests as they come, answers each with the same bytes."""

    def __init__(self, answer: bytes | Answering = ANSWER) -> None:
        self.answer = answer
        self.seen: list[Wire] = []
        self.asked_for: list[str | None] = []
        self.connections = 0
        self.port = 0
        self.asked = asyncio.Event()

    async def connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        with contextlib.suppress(Closed, OSError):
            self.seen.append(await read_request(reader))
            self.asked.set()
            if isinstance(self.answer, bytes):
                writer.write(self.answer)
                await writer.drain()
            else:
                await self.answer(writer)
        writer.close()

    def note_name(self, _: Any, name: str | None, __: ssl.SSLContext) -> None:
        self.asked_for.append(name)


@contextlib.asynccontextmanager
async def serving(server: Server, files: Certificates | None = None) -> AsyncIterator[Server]:
    context = None
    if files is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(files.chain, files.key)
        context.sni_callback = server.note_name
    listening = await asyncio.start_server(server.connection, "127.0.0.1", 0, ssl=context)
    server.port = listening.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        listening.close()


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return certificates.make(tmp_path_factory.mktemp("certificates"), [NAME, "localhost"])


@pytest.fixture
def trust(files: Certificates) -> ssl.SSLContext:
    return tls_context(options.Options(ssl_verify_upstream_trusted_ca=str(files.authority)))


def request(
    server: Server,
    *fields: tuple[bytes, bytes],
    host: str = "localhost",
    scheme: bytes = b"https",
    path: bytes = b"/v1/messages?beta=true",
    version: bytes = b"HTTP/1.1",
    authority: bytes = b"",
) -> http.Request:
    """A request as mitmproxy holds it once it has been sent."""
    return http.Request(
        host=host,
        port=server.port,
        method=b"POST",
        scheme=scheme,
        authority=authority,
        path=path,
        http_version=version,
        headers=http.Headers(fields or ((b"Host", NAME.encode()), (b"content-length", b"999"))),
        content=b"the rewritten body",
        trailers=None,
        timestamp_start=0.0,
        timestamp_end=0.0,
    )


async def sent(
    to: http.Request,
    trust: ssl.SSLContext,
    body: bytes = BODY,
    *,
    seconds: float = 10.0,
    proxy: str | None = None,
    largest: int = 1 << 20,
) -> http.Response | None:
    return await resend(to, body, seconds=seconds, verify=trust, proxy=proxy, largest=largest)


def pieces(*data: bytes, end: bool = True) -> bytes:
    """A chunked body."""
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in data)
    return chunks + (b"0\r\n\r\n" if end else b"")


async def test_the_request_keeps_method_path_and_headers_in_their_order(
    files: Certificates, trust: ssl.SSLContext
) -> None:
    async with serving(Server(), files) as server:
        fields = (
            (b"Host", NAME.encode()),
            (b"X-Api-Key", b"secret"),
            (b"content-length", b"999"),
            (b"anthropic-Beta", b"a, b"),
            (b"Anthropic-beta", b"c"),
            (b"Content-Encoding", b"gzip"),
            (b"accept-encoding", b"zstd"),
        )
        body = gzip.compress(BODY)
        answer = await sent(request(server, *fields), trust, body)
    assert answer is not None
    (wire,) = server.seen
    assert (wire.method, wire.target) == ("POST", "/v1/messages?beta=true")
    length = (b"content-length", str(len(body)).encode())
    assert list(wire.headers) == [length if n == b"content-length" else (n, v) for n, v in fields]
    assert wire.raw_body == body


async def test_what_belongs_to_the_connection_is_left_out(
    files: Certificates, trust: ssl.SSLContext
) -> None:
    async with serving(Server(), files) as server:
        fields = (
            (b"Host", NAME.encode()),
            (b"Connection", b"keep-alive, X-Hop"),
            (b"Keep-Alive", b"timeout=5"),
            (b"X-Hop", b"1"),
            (b"Proxy-Authorization", b"Basic c2VjcmV0"),
            (b"Proxy-Connection", b"keep-alive"),
            (b"Transfer-Encoding", b"chunked"),
            (b"TE", b"trailers"),
            (b"Expect", b"100-continue"),
            (b"X-Stays", b"1"),
        )
        assert await sent(request(server, *fields), trust) is not None
    (wire,) = server.seen
    names = [name for name, _ in wire.headers]
    assert names == [b"Host", b"X-Stays", b"Content-Length"]
    assert wire.raw_body == BODY


async def test_a_request_of_http2_goes_out_as_http1(
    files: Certificates, trust: ssl.SSLContext
) -> None:
    async with serving(Server(), files) as server:
        fields = ((b"cookie", b"a=1"), (b"x-a", b"1"), (b"cookie", b"b=2"))
        to = request(server, *fields, version=b"HTTP/2.0", authority=NAME.encode())
        assert await sent(to, trust) is not None
    (wire,) = server.seen
    assert list(wire.headers) == [
        (b"Host", NAME.encode()),
        (b"cookie", b"a=1; b=2"),
        (b"x-a", b"1"),
        (b"Content-Length", str(len(BODY)).encode()),
    ]


async def test_the_answer_keeps_its_status_headers_and_encoded_bytes(
    files: Certificates, trust: ssl.SSLContext
) -> None:
    encoded = gzip.compress(b'{"usage":{"input_tokens":7}}')
    head = (
        b"HTTP/1.1 429 Slow Down\r\nContent-Type: application/json\r\nX-A: 1\r\nx-a: 2\r\n"
        b"Content-Encoding: gzip\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
    )
    async with serving(Server(head + pieces(encoded[:9], encoded[9:])), files) as server:
        answer = await sent(request(server), trust)
    assert answer is not None
    assert (answer.status_code, answer.reason) == (429, "Slow Down")
    assert answer.raw_content == encoded
    assert answer.content == b'{"usage":{"input_tokens":7}}'
    assert list(answer.headers.fields) == [
        (b"Content-Type", b"application/json"),
        (b"X-A", b"1"),
        (b"x-a", b"2"),
        (b"Content-Encoding", b"gzip"),
        (b"content-length", str(len(encoded)).encode()),
    ]


async def test_a_stream_of_events_is_given_when_it_is_complete(
    files: Certificates, trust: ssl.SSLContext
) -> None:
    async def answer(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n")
        writer.write(b"Transfer-Encoding: chunked\r\n\r\n")
        for event in (b"data: 1\n\n", b"data: 2\n\n"):
            writer.write(pieces(event, end=False))
            await writer.drain()
            await asyncio.sleep(0.02)
        writer.write(pieces())

    async with serving(Server(answer), files) as server:
        found = await sent(request(server), trust)
    assert found is not None
    assert found.raw_content == b"data: 1\n\ndata: 2\n\n"


async def test_an_answer_without_body_stays_without(
    files: Certificates, trust: ssl.SSLContext
) -> None:
    async with serving(Server(b"HTTP/1.1 204 No Content\r\n\r\n"), files) as server:
        found = await sent(request(server), trust)
    assert found is not None
    assert (found.raw_content, list(found.headers.fields)) == (b"", [])


async def test_a_redirect_is_not_followed(files: Certificates, trust: ssl.SSLContext) -> None:
    async with serving(Server()) as elsewhere:
        place = f"http://127.0.0.1:{elsewhere.port}/"
        answer = f"HTTP/1.1 307 T\r\nLocation: {place}\r\nContent-Length: 0\r\n\r\n".encode()
        async with serving(Server(answer), files) as server:
            found = await sent(request(server), trust)
    assert found is not None
    assert (found.status_code, elsewhere.connections) == (307, 0)


@pytest.mark.parametrize("where", ["before the answer", "within the answer"])
async def test_one_deadline_holds_for_everything(
    where: str, files: Certificates, trust: ssl.SSLContext
) -> None:
    async def answer(writer: asyncio.StreamWriter) -> None:
        if where == "within the answer":
            writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(200):
            await asyncio.sleep(0.05)
            if where == "within the answer":
                writer.write(pieces(b"still going", end=False))
                await writer.drain()

    async with serving(Server(answer), files) as server:
        clock = asyncio.get_running_loop()
        begun = clock.time()
        assert await sent(request(server), trust, seconds=0.5) is None
        assert clock.time() - begun < 5


@pytest.mark.parametrize(
    ("size", "fits"), [(1000, True), (1001, False)], ids=["at the bound", "above it"]
)
@pytest.mark.parametrize("framing", ["length", "chunks"])
async def test_the_answer_is_bounded_in_size(
    size: int, fits: bool, framing: str, files: Certificates, trust: ssl.SSLContext
) -> None:
    body = b"x" * size
    head = b"HTTP/1.1 200 OK\r\n"
    plain = head + b"Content-Length: %d\r\n\r\n" % size + body
    chunked = head + b"Transfer-Encoding: chunked\r\n\r\n" + pieces(body[:400], body[400:])
    async with serving(Server(plain if framing == "length" else chunked), files) as server:
        found = await sent(request(server), trust, largest=1000)
    assert (found is not None) == fits


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"SSH-2.0-OpenSSH\r\n\r\n", id="another protocol"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort", id="half an answer"),
        pytest.param(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", id="a broken chunk"
        ),
    ],
)
async def test_a_broken_answer_is_none(
    answer: bytes, files: Certificates, trust: ssl.SSLContext
) -> None:
    async with serving(Server(answer), files) as server:
        assert await sent(request(server), trust) is None


async def test_a_server_that_is_not_there_is_none(trust: ssl.SSLContext) -> None:
    async with serving(Server()) as server:
        pass
    assert await sent(request(server), trust) is None


@pytest.mark.parametrize(
    "path", [b"/v1/a b", b"/v1/../messages", b"/v1/\xff", b"*"], ids=["space", "dots", "raw", "*"]
)
async def test_a_path_that_would_change_on_the_way_is_not_asked_for(
    path: bytes, files: Certificates, trust: ssl.SSLContext
) -> None:
    async with serving(Server(), files) as server:
        assert await sent(request(server, path=path), trust) is None
    assert server.seen == []


@pytest.mark.parametrize(
    "path",
    [b"/v1/messages", b"/openai/deployments/gpt%2D4/chat/completions?api-version=2024-10-21&q=%20"],
)
async def test_a_path_is_asked_for_to_the_byte(
    path: bytes, files: Certificates, trust: ssl.SSLContext
) -> None:
    async with serving(Server(), files) as server:
        assert await sent(request(server, path=path), trust) is not None
    assert server.seen[0].target == path.decode()


async def test_a_cancelled_request_stays_cancelled(
    files: Certificates, trust: ssl.SSLContext
) -> None:
    async def answer(_: asyncio.StreamWriter) -> None:
        await asyncio.sleep(30)

    async with serving(Server(answer), files) as server:
        task = asyncio.create_task(sent(request(server), trust))
        await server.asked.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_proxies_in_the_environment_are_not_used(
    files: Certificates, trust: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine localhost login someone password secret\n")
    async with serving(Server()) as wrong, serving(Server(), files) as server:
        for name in ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY", "https_proxy", "all_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{wrong.port}")
        monkeypatch.delenv("NO_PROXY", raising=False)
        monkeypatch.setenv("NETRC", str(netrc))
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "missing.pem"))
        assert await sent(request(server), trust) is not None
    assert wrong.connections == 0
    assert server.seen[0].header("authorization") == ""


# Whom we talk to.


async def test_an_address_is_verified_by_the_name_that_the_client_asked_for(
    files: Certificates, trust: ssl.SSLContext
) -> None:
    async with serving(Server(), files) as server:
        assert await sent(request(server, host="127.0.0.1"), trust) is not None
    assert server.asked_for == [NAME]


async def test_a_name_is_verified_whatever_the_host_header_says(
    files: Certificates, trust: ssl.SSLContext
) -> None:
    async with serving(Server(), files) as server:
        fields = ((b"Host", b"somewhere.else.test"),)
        assert await sent(request(server, *fields), trust) is not None
        assert await sent(request(server, *fields, host="127.0.0.1"), trust) is None
    assert server.asked_for == ["localhost", "somewhere.else.test"]
    assert [wire.header("host") for wire in server.seen] == ["somewhere.else.test"]


async def test_a_server_that_nobody_vouches_for_is_not_spoken_to(files: Certificates) -> None:
    async with serving(Server(), files) as server:
        assert await sent(request(server), tls_context(options.Options())) is None
        unverified = tls_context(options.Options(ssl_insecure=True))
        assert await sent(request(server), unverified) is not None
    assert len(server.seen) == 1


def test_roots_are_those_that_the_options_name(files: Certificates, tmp_path: Path) -> None:
    named = tls_context(options.Options(ssl_verify_upstream_trusted_ca=str(files.authority)))
    assert [root["serialNumber"] for root in named.get_ca_certs()] != []
    assert len(named.get_ca_certs()) == 1
    folder = tls_context(options.Options(ssl_verify_upstream_trusted_confdir=str(tmp_path)))
    assert folder.get_ca_certs() == []
    assert len(tls_context(options.Options()).get_ca_certs()) > 50
    with pytest.raises(OSError):  # noqa: PT011 - the kind is the promise
        tls_context(options.Options(ssl_verify_upstream_trusted_ca=str(tmp_path / "missing.pem")))


@pytest.mark.parametrize(
    ("mode", "auth", "proxy"),
    [
        pytest.param(["regular"], None, None, id="regular"),
        pytest.param([], None, None, id="no mode"),
        pytest.param(["reverse:https://a.test"], "a:b", None, id="reverse"),
        pytest.param(["no such mode"], None, None, id="unknown"),
        pytest.param(["upstream:http://p.test:8080"], None, "http://p.test:8080", id="upstream"),
        pytest.param(["upstream:p.test:8080"], None, "http://p.test:8080", id="without scheme"),
        pytest.param(["upstream:https://p.test"], None, "https://p.test:443", id="over TLS"),
        pytest.param(["upstream:http://[::1]:81@9000"], None, "http://[::1]:81", id="with a port"),
        pytest.param(
            ["regular@8081", "upstream:http://p.test:1@8080"], None, "http://p.test:1", id="both"
        ),
        pytest.param(
            ["upstream:http://p.test:8080"],
            "us@er:p:w/d",
            "http://us%40er:p%3Aw%2Fd@p.test:8080",
            id="with credentials",
        ),
    ],
)
def test_upstream_modes(mode: list[str], auth: str | None, proxy: str | None) -> None:
    assert upstream_proxy(mode, auth) == proxy


async def test_plain_requests_go_through_the_upstream_proxy(trust: ssl.SSLContext) -> None:
    async with serving(Server()) as proxy:
        place = upstream_proxy([f"upstream:http://127.0.0.1:{proxy.port}"], "user:p:w")
        fields = ((b"Host", b"ollama.test:11434"),)
        to = request(proxy, *fields, host="ollama.test", scheme=b"http", path=b"/v1/x?a=1")
        to.data.port = 11434
        assert await sent(to, trust, proxy=place) is not None
    (wire,) = proxy.seen
    assert wire.target == "http://ollama.test:11434/v1/x?a=1"
    assert wire.header("host") == "ollama.test:11434"
    assert wire.header("proxy-authorization") == "Basic dXNlcjpwOnc="


async def test_secure_requests_tunnel_through_the_upstream_proxy(
    files: Certificates, trust: ssl.SSLContext
) -> None:
    heads: list[bytes] = []

    async def tunnel(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        await asyncio.gather(pump(reader, inner_writer), pump(inner_reader, writer))

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(1 << 16):
                writer.write(data)
                await writer.drain()
        writer.close()

    async with serving(Server(), files) as server:
        listening = await asyncio.start_server(tunnel, "127.0.0.1", 0)
        port = listening.sockets[0].getsockname()[1]
        to = request(server, (b"Host", NAME.encode()), (b"X-Api-Key", b"secret"), host=NAME)
        proxy = upstream_proxy([f"upstream:http://127.0.0.1:{port}"], "user:pw")
        assert await sent(to, trust, proxy=proxy) is not None
        listening.close()
    (head,) = heads
    assert head.startswith(f"CONNECT {NAME}:{server.port} HTTP/1.1\r\n".encode())
    assert b"Proxy-Authorization: Basic dXNlcjpwdw==\r\n" in head
    assert b"secret" not in head
    (wire,) = server.seen
    assert (wire.target, wire.header("x-api-key")) == ("/v1/messages?beta=true", "secret")
    assert wire.header("proxy-authorization") == ""


@pytest.mark.parametrize("stated", [True, False])
def test_a_body_and_its_length_change_both_or_neither(stated: bool) -> None:
    """Whatever line of it an error comes from, such as want of memory."""
    lines = 0
    for line in range(1, 20):
        request = tutils.treq(content=b"as it came")
        if not stated:
            del request.headers["content-length"]
        before = request.raw_content, request.headers.fields
        raised = False
        left = line

        def trace(frame: FrameType, event: str, _: Any) -> Any:
            nonlocal left, raised
            if frame.f_code is not commit.__code__:
                return None
            left -= event == "line" and not raised
            if left == 0 and not raised:
                raised = True
                raise MemoryError
            return trace

        sys.settrace(trace)
        try:
            commit(request, b"another body")
        except MemoryError:
            assert (request.raw_content, request.headers.fields) == before
            lines += 1
        finally:
            sys.settrace(None)
        if not raised:
            break
    assert lines >= 3
    assert request.raw_content == b"another body"
    assert request.headers.get("content-length", "12") == "12"
