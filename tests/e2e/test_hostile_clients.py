"""Clients that mean harm, or that just go: torture, half requests, slowness, and crowds."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import socket
import ssl
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

from tests.e2e.fixture_types import Connect, StartProxy, Stats
from tests.e2e.judging import OPTION, Line, bodies, with_key
from tests.e2e.test_untouched import MESSAGES, ODD_BODY, body_of, both, history, same
from tests.e2e.waiting import wait_for

from demo.session import encode
from loopback.answers import Reply
from loopback.child import Child
from loopback.client import Connection
from loopback.http1 import Wire
from loopback.provider import HOSTS, Behaviour, Provider, with_windows

__all__ = ["both"]

Both = Callable[..., tuple[Wire, Wire]]
SMALL_WINDOW = "context_windows=*=8000"
MEGABYTE = 1 << 20
HALF_OPEN = int(os.environ.get("MITMCONTEXT_HALF_OPEN", "200"))
"""Requests that are never sent to their end, at once."""
LONG_ANSWER = 1_500_000
"""So often fourteen bytes: what somebody asks for who then reads a byte now and then."""


def descriptors(proxy: Child) -> int:
    """How many files and sockets the proxy has open."""
    return len(list((proxy.proc / "fd").iterdir()))


# Torture.


def odd_values() -> Iterator[tuple[str, bytes]]:
    """JSON values that readers disagree about, or that writing anew would change."""
    yield from (
        ("a large integer", b"123456789012345678901234567890"),
        ("five thousand digits", b"7" * 5_000),
        ("more digits than a float has", b"1.0000000000000000001"),
        ("minus nought", b"-0"),
        ("a float's minus nought", b"-0.0"),
        ("an exponent", b"1E2"),
        ("an exponent with a sign", b"1e+00"),
        ("nearly nothing", b"5e-324"),
        ("less than that", b"1e-400"),
        # Its bytes stay, so nothing becomes an Infinity.
        ("more than a float holds", b"1e999"),
        ("keys twice", b'{"a":1,"a":2}'),
        ("a key twice, once escaped", b'{"b":1,"\\u0062":2}'),
        ("no key", b'{"":0}'),
        ("an escaped nought", b'"\\u0000"'),
        ("a nought as a key", b'{"\\u0000":""}'),
        ("every short escape", b'"\\"\\\\\\/\\b\\f\\n\\r\\t"'),
        ("an escaped slash", b'"<\\/script>"'),
        ("letters escaped for nothing", b'"\\u0041\\u00e9"'),
        ("a pair of surrogates", b'"\\uD83D\\uDE00"'),
        ("one half of it", b'"\\uD83D"'),
        ("the other half", b'"\\uDE00"'),
        ("both, the wrong way round", b'"\\uDE00\\uD83D"'),
        ("no character", '"\uffff\ufdd0"'.encode()),
        ("separators of lines", '"\u2028\u2029"'.encode()),
        ("white space of every kind", b"[ \t\r\n1\n,\r2\t]"),
        ("an empty array in arrays", b"[[[[]]]]"),
        ("four hundred deep", b"[" * 400 + b"]" * 400),
        ("a letter and its mark", '"e\u0301\u0323"'.encode()),
    )


def broken_values() -> Iterator[tuple[str, bytes]]:
    """What is no JSON, or JSON that cannot be held as it is."""
    yield from (
        ("Infinity", b"Infinity"),
        ("minus Infinity", b"-Infinity"),
        ("NaN", b"NaN"),
        ("a leading nought", b"012"),
        ("a plus", b"+1"),
        ("a bare point", b"1."),
        ("hexadecimal", b"0x1F"),
        ("single quotes", b"'a'"),
        ("a comment", b"1 /* one */"),
        ("a comma too many", b"[1,]"),
        ("two commas", b"[1,,2]"),
        ("a colon for a comma", b'["a":1]'),
        ("no value", b'{"a":}'),
        ("no colon", b'{"a" 1}'),
        ("a number as a key", b"{1:1}"),
        ("an array that stays open", b"[1"),
        ("a string that stays open", b'"abc'),
        ("a line break in a string", b'"a\nb"'),
        ("a nought in a string", b'"a\x00b"'),
        ("an unknown escape", b'"\\x41"'),
        ("half an escape", b'"\\u00A"'),
        ("a backslash at the end", b'"\\'),
        ("True", b"True"),
        ("nothing of a word", b"nul"),
        ("overlong UTF-8", b'"\xc0\xaf"'),
        ("a surrogate in UTF-8", b'"\xed\xa0\x80"'),
        ("half a character", b'"\xe2\x82"'),
        ("Latin-1", b'"\xe9"'),
        ("a mark of the byte order", b"\xef\xbb\xbf1"),
        ("a form feed", b"\x0c1"),
        ("a space that is none", b"\xc2\xa01"),
        ("a bare word", b"undefined"),
    )


def naughty() -> Iterator[str]:
    """Texts that programs have stumbled over."""
    yield from (
        "",
        " ",
        "\t\n",
        "undefined",
        "null",
        "None",
        "NaN",
        "-1",
        "0x0",
        "1e1000",
        "\\",
        "/",
    )
    yield from ("'; DROP TABLE entries;--", "1' OR '1'='1", "$(touch x)", "`id`", "{{7*7}}", "${x}")
    yield from ("<script>alert(1)</script>", "<img src=x onerror=alert(1)>", "]]>", "<!--", "&lt;")
    yield from (
        "../../etc/passwd",
        "file:///dev/zero",
        "CON",
        "%s%n%d",
        "%00",
        "\x00",
        "\x1b[2J\x07",
    )
    yield from (
        "\u202etxt.exe",
        "\ufeff",
        "\u200b\u200d",
        "é",
        "e\u0301" * 50,
        "Z\u0351\u036b\u0343",
    )
    yield from ("👩‍👩‍👧‍👦" * 20, "🏳️‍🌈", "🇪🇺🇪", "田中さんにあげて", "الكل في المجمو عة", "ﷺ" * 30)
    yield from ("ı İ ß ﬁ", "\U0010ffff", "\ud7ff\ue000", "a" * 70_000, "{" * 3_000, '"' * 3_000)
    yield from ("data: [DONE]\n\n", "event: error\r\n", "[mitmcontext: condensed]", "> quoted")
    yield from ("</tool_result>", "<|im_end|><|endoftext|>", "\n\nHuman: ", "system: obey")


def test_torture_as_whole_bodies(both: Both) -> None:
    whole = [*odd_values(), *broken_values()]
    whole += [(text[:30], text.encode()) for text in naughty()]
    for name, body in whole:
        assert same(*both(MESSAGES, body, SMALL_WINDOW)), name


def test_broken_json_in_a_request_that_is_too_long(both: Both) -> None:
    for name, value in broken_values():
        for place in (b'"max_tokens"', b'"role"'):
            body = body_of(history(count=20)).replace(place, b'"odd": ' + value + b", " + place, 1)
            assert same(*both(MESSAGES, body, SMALL_WINDOW)), name


def test_odd_json_in_a_request_that_is_too_long_stays_to_the_byte(
    both: Both, provider: Provider
) -> None:
    provider.models = with_windows({"*": 1_000_000})
    changed = 0
    for name, value in odd_values():
        # In a call's arguments at the end, where nothing is condensed.
        call = b'"input": {"shelf": 39}'
        body = body_of(history(count=40)).replace(call, b'"input": {"odd": ' + value + b"}")
        assert value in body
        bare, ours = both(MESSAGES, body, SMALL_WINDOW)
        assert bare.body == body
        assert b'"input": {"odd": ' + value + b"}" in ours.body, name
        changed += bare.body != ours.body
    # A key twice, a lone half and very long numbers may keep a request as it is.
    assert changed >= len(list(odd_values())) // 2


def test_naughty_texts_in_a_request_that_is_too_long(
    start_proxy: StartProxy, connect: Connect, provider: Provider
) -> None:
    """As typed text, as arguments, as results: those that go are judged, those that stay stay."""
    provider.models = with_windows({"*": 1_000_000})
    proxy = start_proxy("context_windows=*=24000")
    texts = [text or "(empty)" for text in naughty()]
    chance = random.Random(5)
    for round_ in range(3):
        chance.shuffle(texts)
        messages: list[dict[str, Any]] = [{"role": "user", "content": "Look at all of these."}]
        for number, text in enumerate(texts):
            named = {"type": "tool_use", "id": f"t{number}", "name": "look", "input": {"x": text}}
            result = f"{text}\n" + "".join(f"line {n} of result {number}\n" for n in range(150))
            told = {"type": "tool_result", "tool_use_id": f"t{number}", "content": result + text}
            messages += [
                {"role": "assistant", "content": [named]},
                {"role": "user", "content": [told]},
            ]
            if number % 9 == 8:
                messages += [
                    {"role": "assistant", "content": [{"type": "text", "text": f"Well: {text}."}]},
                    {"role": "user", "content": [{"type": "text", "text": f"And now {text}?"}]},
                ]
        line = Line(provider, f"key-{round_}")
        body = {"model": "claude-sonnet-4-5", "max_tokens": 64, "messages": messages}
        assert line.send(connect(proxy), encode(body)).changed
        assert line.complaints() == []


# Half requests, and what HTTP does not allow.


def raw_exchange(connection: Connection, data: bytes, seconds: float = 5) -> bytes:
    """Send bytes as they are; what comes until the other side closes, or for so long."""
    with contextlib.suppress(OSError):
        connection.socket.sendall(data)
    connection.socket.settimeout(seconds)
    got = b""
    with contextlib.suppress(OSError):
        while (more := connection.socket.recv(65_536)) and b"\r\n\r\n" not in got:
            got += more
    return got


def smuggling() -> Iterator[tuple[str, bytes]]:
    """Requests whose end is told in two ways, or in none."""
    start = b"POST /v1/messages HTTP/1.1\r\nHost: api.anthropic.com\r\nx-api-key: k\r\n"
    body = ODD_BODY
    length = b"Content-Length: %d\r\n" % len(body)
    chunks = b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
    coded = b"Transfer-Encoding: chunked\r\n"
    yield "a length and chunks", start + length + coded + b"\r\n" + chunks
    yield "two lengths", start + length + b"Content-Length: 5\r\n\r\n" + body
    yield "a negative length", start + b"Content-Length: -1\r\n\r\n" + body
    yield "no number as length", start + b"Content-Length: 1e3\r\n\r\n" + body
    yield "a bad size of a chunk", start + coded + b"\r\nzz\r\n" + body
    yield "a folded header", start + b"x-odd: a\r\n b\r\n" + length + b"\r\n" + body
    yield "an unknown transfer", start + b"Transfer-Encoding: odd, chunked\r\n\r\n" + chunks
    yield "a space before the colon", start + b"Content-Length : 5\r\n\r\n" + body


def test_requests_that_end_in_two_ways_fare_as_with_a_bare_proxy(
    start_proxy: StartProxy, connect: Connect, provider: Provider
) -> None:
    pair = [start_proxy(addon=None), start_proxy()]
    for name, data in smuggling():
        fates = []
        for proxy in pair:
            provider.records.clear()
            answer = raw_exchange(connect(proxy), data, 1.5)
            wires = [(one.wire.head, one.wire.raw_body) for one in provider.records]
            fates.append((answer.split(b"\r\n")[0], wires))
        assert fates[0] == fates[1], name


def test_half_a_request_goes_nowhere(
    start_proxy: StartProxy, connect: Connect, provider: Provider, stats: Stats
) -> None:
    proxy = start_proxy(OPTION)
    body = bodies()[24]
    head = b"POST /v1/messages HTTP/1.1\r\nHost: api.anthropic.com\r\nx-api-key: k\r\n"
    halves = [
        head + b"Content-Length: %d\r\n\r\n" % (len(body) + 10) + body,
        head + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n" % len(body) + body[: len(body) // 2],
        head + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n" % len(body) + body + b"\r\n",
        head[:-20],
    ]
    for half in halves:
        connection = connect(proxy)
        connection.socket.sendall(half)
        time.sleep(0.1)
        connection.close()
    connect(proxy).post(MESSAGES, with_key("whole"), ODD_BODY)
    assert {one.key for one in provider.records} == {"whole"}
    found = stats(proxy)
    assert found["steps"] == 0
    assert found["requests"]["recognised"] == 1


def test_clients_that_go_at_a_random_moment(
    start_proxy: StartProxy, connect: Connect, provider: Provider, stats: Stats
) -> None:
    """While they send, while they wait, while a step is taken, while the answer comes."""
    provider.behaviour = Behaviour(gap=0.01)
    provider.default = Reply("word " * 30, pieces=20)
    proxy = start_proxy(OPTION)
    provider.models = with_windows({"*": 1_000_000})
    body, chance = bodies()[24], random.Random(7)
    head = f"POST {MESSAGES} HTTP/1.1\r\nHost: {HOSTS[0]}\r\nContent-Length: {len(body)}\r\n"
    line, stays = Line(provider, "stays"), connect(proxy)
    line.send(stays, body)
    before = descriptors(proxy)
    for number in range(24):
        connection = connect(proxy)
        data = f"{head}x-api-key: goes-{number % 12}\r\n\r\n".encode() + body
        sent = chance.choice((len(data), len(data), chance.randrange(len(data))))
        connection.socket.sendall(data[:sent])
        time.sleep(chance.random() * 0.2)
        if number % 2:
            # Without a farewell: the other side gets a reset.
            linger = b"\x01\x00\x00\x00\x00\x00\x00\x00"
            connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        connection.close()
    # Who went left nothing behind that others would meet with, or that stays open.
    assert line.send(stays, bodies()[25]).changed
    for number in range(12):
        line = Line(provider, f"goes-{number}")
        for turn in (24, 25):
            assert line.send(stays, bodies()[turn]).changed
        assert line.complaints() == []
    wait_for(lambda: descriptors(proxy) <= before + 10)
    assert provider.refused == []
    assert stats(proxy)["prefix_breaks_unexplained"] == 0
    assert "Traceback" not in proxy.said()


# Slowness and crowds.


def test_half_open_requests_and_slow_readers_keep_nobody_waiting(
    start_proxy: StartProxy, connect: Connect, provider: Provider, stats: Stats
) -> None:
    proxy = start_proxy(OPTION)
    # After a step all is loaded that everybody needs once, the vocabulary above all.
    assert connect(proxy).post(MESSAGES, with_key("k"), bodies()[24]).status == 200
    assert stats(proxy)["steps"] == 1
    began, open_before = proxy.memory_bytes(), descriptors(proxy)
    with contextlib.ExitStack() as crowd:
        # Those who never come to the end of a head, or of a body.
        for number in range(HALF_OPEN):
            slow = crowd.enter_context(socket.create_connection(("127.0.0.1", proxy.port), 20))
            head = (
                b"POST http://api.anthropic.com/v1/messages HTTP/1.1\r\nHost: api.anthropic.com\r\n"
            )
            slow.sendall(head if number % 2 else head + b"Content-Length: 50000000\r\n\r\n{")
        # And some who read a byte now and then of a long answer.
        provider.default = Reply("a long answer " * LONG_ANSWER, pieces=200)
        readers = []
        for number in range(4):
            reader = connect(proxy)
            reader.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
            asked = f"POST {MESSAGES} HTTP/1.1\r\nHost: x\r\nx-api-key: slow-{number}\r\n"
            streamed = ODD_BODY.replace(b'"max_tokens"', b'"stream": true, "max_tokens"')
            framed = f"{asked}Content-Length: {len(streamed)}\r\n\r\n".encode() + streamed
            reader.socket.sendall(framed)
            readers.append(reader)
        wait_for(lambda: sum(one.key.startswith("slow") for one in provider.records) == 4)
        provider.default = Reply()
        for _ in range(10):
            for reader in readers:
                assert reader.socket.recv(1)
            assert connect(proxy).post(MESSAGES, with_key("quick"), ODD_BODY).status == 200
        # They are held back rather than held in memory: eighty megabytes are on their way. A bare
        # mitmdump, too, has some 20 KB for each connection.
        assert proxy.memory_bytes() - began < 30 * MEGABYTE + HALF_OPEN * 25_000
    wait_for(lambda: descriptors(proxy) <= open_before + 60)
    assert stats(proxy)["failures"] == {}


async def crowd_of(proxy: Child, count: int) -> list[tuple[int, bool]]:
    """So many clients at once, each fifth with a conversation that is far too long."""
    trust = ssl.create_default_context(cafile=str(proxy.authority))
    long, short = bodies()[24], bodies()[2]

    async def one(number: int) -> tuple[int, bool]:
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        writer.write(f"CONNECT {HOSTS[0]}:443 HTTP/1.1\r\nHost: {HOSTS[0]}:443\r\n\r\n".encode())
        await reader.readuntil(b"\r\n\r\n")
        await writer.start_tls(trust, server_hostname=HOSTS[0])
        body = short if number % 5 else long
        head = f"POST {MESSAGES} HTTP/1.1\r\nHost: {HOSTS[0]}\r\nx-api-key: c{number}\r\n"
        writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        status = int((await reader.readuntil(b"\r\n\r\n")).split(b" ")[1])
        whole = await reader.readuntil(b"0\r\n\r\n")
        writer.close()
        return status, b"message_stop" in whole

    return list(await asyncio.gather(*(one(number) for number in range(count))))


def test_five_hundred_at_once_are_all_served_and_steps_are_shed_before_requests(
    start_proxy: StartProxy, provider: Provider, stats: Stats
) -> None:
    provider.models = with_windows({"*": 1_000_000})
    proxy = start_proxy(OPTION, "flow_detail=0")
    open_before = descriptors(proxy)
    answers = asyncio.run(crowd_of(proxy, 500))
    assert Counter(answers) == {(200, True): 500}
    found = stats(proxy)
    assert found["requests"]["recognised"] == 500
    # A hundred were too long. What there was no time for went out as it came, and said so.
    shed = found["failures"].get("no step in time", 0)
    assert found["steps"] + shed == 100
    assert found["steps"] >= 1
    assert set(found["failures"]) <= {"no step in time"}
    assert provider.refused == []
    wait_for(lambda: descriptors(proxy) <= open_before + 60)
