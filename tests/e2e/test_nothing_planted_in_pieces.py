"""What was planted lies nowhere either if it came in pieces, stood in errors, or broke off."""

from __future__ import annotations

import gzip
import itertools
import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import quote

import httpx
from tests.e2e import forms
from tests.e2e.codex import LONG, Codex, full, spoken
from tests.e2e.faults import HOST as FAULTS_HOST
from tests.e2e.fixture_types import Connect, StartProxy, Stats
from tests.e2e.judging import PATH, WINDOW, Line, changed_texts, with_key
from tests.e2e.test_nothing_planted import CANARIES, KEY, RESULT, TYPED, hits, look_through, planted
from tests.e2e.test_nth_fault import FAULTS
from tests.e2e.test_untouched import ODD_BODY

from loopback.answers import Reply
from loopback.child import ADDON, Child
from loopback.client import Connection
from loopback.http1 import chunk_of
from loopback.provider import HOSTS, Behaviour, Provider, with_windows
from loopback.summariser import Summariser, cut_off
from loopback.websocket import Socket

# What came in two pieces may be written down in two.
PIECES = tuple(
    half for text in CANARIES for half in (text[: len(text) // 2], text[len(text) // 2 :])
)
OPTIONS = (
    *(f"context_windows=*={WINDOW}", "termlog_verbosity=debug", "flow_detail=0"),
    *("enable_context_performance_logging=true", "enable_token_counting_logging=true"),
)
QUERY = f"{PATH}&key={quote(KEY, safe='')}"
COOKIE = ("cookie", f"first=1; session={KEY}")


def cut(data: bytes) -> list[bytes]:
    """The same in pieces that end in the middle of every canary."""
    texts = [text.encode() for text in CANARIES] + [
        json.dumps(text)[1:-1].encode() for text in CANARIES
    ]
    texts += [quote(text, safe="").encode() for text in CANARIES]
    ends = {
        at + len(text) // 2
        for text in texts
        for at in range(len(data))
        if data.startswith(text[:4], at) and data.startswith(text, at)
    }
    places = [0, *sorted(ends), len(data)]
    return [data[first:last] for first, last in itertools.pairwise(places)]


def head_of(path: str, headers: Sequence[tuple[str, str]], *framing: str) -> bytes:
    """The head of a request; not all that stands in it has to be ASCII."""
    lines = [f"POST {path} HTTP/1.1", "Host: x"]
    lines += [*(f"{name}: {value}" for name, value in headers), *framing]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def whole(path: str, headers: Sequence[tuple[str, str]], body: bytes) -> list[bytes]:
    """A request in one piece."""
    return [head_of(path, headers, f"Content-Length: {len(body)}") + body]


def in_segments(path: str, headers: Sequence[tuple[str, str]], body: bytes) -> list[bytes]:
    """A request that is cut within every canary, in its head and in its body."""
    return cut(*whole(path, headers, body))


def in_chunks(path: str, headers: Sequence[tuple[str, str]], body: bytes) -> list[bytes]:
    """The same, and each piece of its body is a chunk."""
    head = head_of(path, headers, "Transfer-Encoding: chunked")
    return [*cut(head), *(chunk_of(piece) for piece in cut(body)), chunk_of(b"")]


def in_packed_chunks(path: str, headers: Sequence[tuple[str, str]], body: bytes) -> list[bytes]:
    """In gzip, in chunks of a hundred bytes that come in two segments each."""
    head = head_of(path, headers, "Content-Encoding: gzip", "Transfer-Encoding: chunked")
    packed = gzip.compress(body, 1)
    chunks = b"".join(chunk_of(packed[at : at + 100]) for at in range(0, len(packed), 100))
    return [
        *cut(head),
        *(chunks[at : at + 3_000] for at in range(0, len(chunks), 3_000)),
        chunk_of(b""),
    ]


WAYS = (whole, in_segments, in_chunks, in_packed_chunks)


def test_cuts_go_through_every_canary() -> None:
    headers = (*with_key(KEY), COOKIE)
    body = planted()[3]
    for way in (in_segments, in_chunks):
        pieces = way(QUERY, headers, body)
        # In the address, twice in the head, and at least twice in what people and tools said.
        assert len(pieces) > 6
        assert not any(text.encode() in piece for text in CANARIES for piece in pieces)
    assert b"".join(cut(body)) == body


def shown(proxy: Child) -> dict[str, list[str]]:
    """In what of all that is told whoever asks which canaries lie, and in which shapes."""
    with httpx.Client(proxy=proxy.url, trust_env=False) as client:
        told = {
            page: client.get(f"http://context.mitm/{page}").content
            for page in ("", "stats.json", "metrics")
        }
    told["log"] = proxy.said().encode()
    wanted = (*CANARIES, *PIECES)
    return {name: found for name, held in told.items() if (found := hits(held, wanted))}


def test_what_came_in_pieces_and_what_is_said_of_it(
    provider: Provider, start_proxy: StartProxy, connect: Connect, stats: Stats, tmp_path: Path
) -> None:
    provider.models = with_windows({"*": WINDOW})
    provider.summariser = Summariser(sends=cut_off(TYPED.encode()))
    kept = tmp_path / "kept"
    proxy = start_proxy(
        *OPTIONS,
        "condensation_max_cost=1",
        environment={"CONTEXT_CACHE_DIR": str(kept), "CONDENSATION_DEFAULT_STRATEGY": "auto"},
    )
    # A question goes to where the request goes, so the port has to be a real one.
    connection = connect(proxy, HOSTS[0], provider.tls_port)
    headers = (*with_key(KEY), COOKIE)
    line = Line(provider, KEY, headers)
    for way, body in zip(itertools.cycle(WAYS), planted()[2:42:3], strict=False):
        provider.behaviour = Behaviour(split=1 if way is in_chunks else 0)
        provider.default = Reply(f"{TYPED} {RESULT} {KEY}", pieces=3)
        line.note(provider.number, body, connection.exchange(*way(QUERY, headers, body)))
    refused(provider, connection, line.sent[-1].body)
    on_a_socket(
        provider, Socket(connect(proxy, HOSTS[1]), headers=(("authorization", KEY), COOKIE))
    )

    found = stats(proxy)
    assert found["steps"] >= 2
    assert found["questions"]["asked"] >= 1
    assert found["requests"]["refused_after_rewrite"] >= 1
    plain = [one for one in line.sent if one.went.startswith(b"{")]
    told = "".join(changed_texts(one.body, one.went) for one in plain)
    assert {TYPED, RESULT} <= {text for text in CANARIES if text in told}
    assert shown(proxy) == {}
    proxy.stop()
    assert hits(proxy.said().encode(), (*CANARIES, *PIECES)) == []
    look_through([kept, proxy.confdir], (*CANARIES, *PIECES))


def refused(provider: Provider, connection: Connection, body: bytes) -> None:
    """The provider says what it was sent when it refuses: the key, the shape, the length."""
    said = f"messages.3: invalid: {TYPED} and {RESULT}, of {KEY}"
    for status, kind in (
        (401, "authentication_error"),
        (400, "invalid_request_error"),
        (529, "overloaded_error"),
    ):
        error = {"type": "error", "error": {"type": kind, "message": said}}
        provider.replies.append(Reply(status=status, error=error))
        # Who never came by before has a step of its own, which is then taken back.
        headers = (*with_key(f"{KEY}{status}"), COOKIE)
        connection.exchange(*in_chunks(QUERY, headers, body))
        provider.replies.clear()


def on_a_socket(provider: Provider, socket: Socket) -> None:
    """The key opens a WebSocket; a turn is shortened, another one goes on from it."""
    provider.behaviour = Behaviour()
    story = forms.made_up()
    codex = Codex(socket, story)
    codex.say([*full(story, story.cuts[LONG]), spoken(f"{TYPED} {RESULT}")])
    codex.say([spoken(TYPED)])
    assert len(provider.lines[0].came[0]) < len(codex.sent[0])


def test_what_an_error_of_ours_says(
    provider: Provider, start_proxy: StartProxy, connect: Connect, stats: Stats
) -> None:
    """Whatever fails says the key; what is told of it is the error's kind."""
    provider.models = with_windows({"*": 1_000_000})
    proxy = start_proxy(*OPTIONS, addon=FAULTS, arguments=["-s", str(ADDON)])
    connection = connect(proxy)
    body = planted()[24]
    with httpx.Client(proxy=proxy.url, trust_env=False) as client:
        for n in (*range(1, 12, 3), *range(20, 200, 20)):
            asked = {"seam": "all", "n": n, "each": "", "error": "OSError", "says": KEY}
            assert client.get(f"http://{FAULTS_HOST}/arm", params=asked).status_code == 200
            answer = connection.post(QUERY, (*with_key(f"{KEY}{n}"), COOKIE), body)
            assert answer.status == 200
            assert client.get(f"http://{FAULTS_HOST}/done").json()["failed"]
    assert stats(proxy)["failures"]["OSError"] >= 3
    assert "(OSError)" in proxy.said()
    assert shown(proxy) == {}


def broken_off() -> Iterator[tuple[str, list[bytes]]]:
    """Requests whose head never ends, or cannot be read, in one piece and in two."""
    start = head_of(QUERY, [*with_key(KEY), COOKIE])[:-2]
    yield "half a head", [start]
    yield "half a head in pieces", cut(start)
    yield "half a key", [start[: start.index(b"x-api-key") + 30]]
    yield "a line that is none", [f"POST {QUERY} and more HTTP/1.1\r\n\r\n".encode()]
    yield "a header that is none", [start + f"x-odd {KEY}\r\n\r\n".encode()]
    yield "a name that is none", [start + f"x {KEY}: 1\r\n\r\n".encode()]
    yield "a length that is none", [start + f"content-length: {KEY}\r\n\r\n".encode()]
    yield "a transfer that is none", [start + f"transfer-encoding: {KEY}\r\n\r\n".encode()]
    coded = start + b"transfer-encoding: chunked\r\n\r\n"
    yield "a chunk that is none", [coded, chunk_of(b'{"model":"'), KEY.encode() + b"\r\n"]
    yield "half a body", [start + b"content-length: 5000\r\n\r\n", *cut(f"{KEY} {TYPED}".encode())]
    yield "half a chunk", [coded, chunk_of(TYPED.encode())[:-9]]
    yield "no HTTP", [f"{KEY}\r\n{TYPED}".encode()]


def test_what_breaks_off_is_not_quoted(
    start_proxy: StartProxy, connect: Connect, provider: Provider
) -> None:
    """mitmproxy by itself writes into its log what it could not read."""
    bare, ours = (start_proxy(*OPTIONS[1:3], addon=addon) for addon in (None, ADDON))
    quoted = [said_of_what_breaks_off(proxy, connect) for proxy in (bare, ours)]
    assert {one.key for one in provider.records} == {"whole"}
    assert hits(quoted[0].encode()) != []
    assert hits(quoted[1].encode(), (*CANARIES, *PIECES)) == []
    assert quoted[1].count("left out by mitmcontext") >= 3


def said_of_what_breaks_off(proxy: Child, connect: Connect) -> str:
    """What a proxy writes into its log when all of that comes by."""
    requests = list(broken_off())
    for _, pieces in requests:
        send_and_go(connect(proxy), pieces)
    connect(proxy).post(PATH, with_key("whole"), ODD_BODY)
    until = time.monotonic() + 20
    while (said := proxy.said()).count("client disconnect") < len(requests):
        assert time.monotonic() < until
        time.sleep(0.05)
    return said


def send_and_go(connection: Connection, pieces: Sequence[bytes]) -> None:
    """Send what is no request, piece by piece, and hang up."""
    for piece in pieces:
        connection.socket.sendall(piece)
        time.sleep(0.02)
    connection.close()
