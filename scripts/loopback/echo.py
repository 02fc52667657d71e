"""A provider that answers everything alike, in a process of its own, for measuring under load.

It looks at no request, so that it is not what holds others up. A header `x-answer-after` says how
many milliseconds it takes its time, as a model would.

    with answering(leaf) as port:
        ...  # https://localhost:<port>
"""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import re
import ssl
from collections.abc import Iterator
from multiprocessing.connection import Connection as Pipe

from .certificates import Certificates

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_AFTER = re.compile(rb"\r\nx-answer-after: *(\d+)", re.IGNORECASE)
_BODY = (
    b'{"id":"msg_1","type":"message","role":"assistant","model":"m","stop_reason":"end_turn",'
    b'"content":[{"type":"text","text":"Done."}],"usage":{"input_tokens":10,"output_tokens":2}}'
)
_ANSWER = (
    b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(_BODY)
) + _BODY
_START_SECONDS = 30.0


@contextlib.contextmanager
def answering(leaf: Certificates) -> Iterator[int]:
    """Run the server for as long as the block lasts; its port.

    Raises:
        RuntimeError: it did not start.
    """
    spawn = multiprocessing.get_context("spawn")
    ours, its = spawn.Pipe()
    server = spawn.Process(target=_serve, args=(leaf, its), daemon=True)
    server.start()
    try:
        if not ours.poll(_START_SECONDS):
            raise RuntimeError("the loopback server did not start")
        yield int(ours.recv())
    finally:
        server.terminate()
        server.join(_START_SECONDS)


def _serve(leaf: Certificates, started: Pipe) -> None:
    async def run() -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(leaf.chain, leaf.key)
        server = await asyncio.start_server(
            _answer, "127.0.0.1", 0, ssl=context, backlog=1_000, limit=1 << 20
        )
        started.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(run())


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            length = _LENGTH.search(head)
            await reader.readexactly(int(length[1]) if length else 0)
            if after := _AFTER.search(head):
                await asyncio.sleep(int(after[1]) / 1_000)
            writer.write(_ANSWER)
            await writer.drain()
    writer.close()
