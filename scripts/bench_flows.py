"""Many flows through mitmweb while somebody looks at /context: what the two of them take.

Conversations of our own grow by a turn at a time, several side by side, each of them until its
window was condensed a few times; then a new one begins. Memory of mitmweb comes from /proc, the
page's heap, its nodes and how long it takes to draw come from the browser.

    ./scripts/bench flows --flows 10000
"""

from __future__ import annotations

import argparse
import asyncio
import json
import secrets
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import count, islice
from pathlib import Path
from typing import Any

from demo.session import Session, encode
from loopback import certificates, child, devtools
from loopback.client import Connection
from loopback.provider import HOSTS, Provider, serving, with_windows

_WINDOW = 24_000
_SIDE_BY_SIDE = 8
_HEADERS = (("x-api-key", "k"), ("content-type", "application/json"))
_DRAWN = """new Promise(resolve => {
  const began = performance.now();
  requestAnimationFrame(() => requestAnimationFrame(() => resolve(performance.now() - began)));
})"""


@dataclass(frozen=True, slots=True)
class Row:
    """As it was after so many flows: megabytes, nodes, and milliseconds for two frames."""

    flows: int
    per_second: float
    mitmweb_mb: float
    heap_mb: float
    nodes: int
    frames_ms: float
    conversations: int


def bodies() -> Iterator[bytes]:
    """The requests of endless conversations, several of them in turns."""
    seeds = count(1)
    running = [Session(next(seeds)).requests() for _ in range(_SIDE_BY_SIDE)]
    while True:
        for at, requests in enumerate(running):
            body = next(requests, None)
            if body is None:
                running[at] = Session(next(seeds)).requests()
            else:
                yield encode(body)


async def measure(flows: int, every: int, program: str) -> list[Row]:
    """Send them all; look every so many flows."""
    token, port = secrets.token_urlsafe(16), devtools.free_port()
    rows = []
    with tempfile.TemporaryDirectory(prefix="mitmcontext-flows-") as name:
        folder = Path(name)
        leaf = certificates.make(folder / "provider", HOSTS)
        models = with_windows({"*": _WINDOW})
        with serving(Provider(models, keep=4), leaf) as provider:
            proxy = child.start(
                dict.fromkeys(HOSTS, provider.tls_port),
                folder / "confdir",
                provider_authority=leaf.authority,
                tool="mitmweb",
                options=[f"context_windows=*={_WINDOW}"],
                settings={
                    "web_password": token,
                    "web_host": "127.0.0.1",
                    "web_port": port,
                    "web_open_browser": False,
                },
            )
            try:
                async with devtools.browser(program, folder / "profile") as page:
                    await page.open(f"http://127.0.0.1:{port}/context?token={token}")
                    await page.until(
                        "document.querySelector('#connection')?.textContent === 'live'"
                    )
                    line = Connection(proxy.port, proxy.authority, HOSTS[0])
                    source = bodies()
                    for sent in range(every, flows + 1, every):
                        began = time.monotonic()
                        await asyncio.to_thread(_send, line, list(islice(source, every)))
                        speed = every / (time.monotonic() - began)
                        rows.append(await _look(page, proxy, sent, speed))
                        print(told(rows[-1]), flush=True)
            finally:
                proxy.stop()
    return rows


def _send(line: Connection, several: Sequence[bytes]) -> None:
    for body in several:
        answer = line.post("/v1/messages", _HEADERS, body)
        if answer.status != 200:
            raise RuntimeError(f"refused: {answer.body[:300]!r}")


async def _look(page: devtools.Page, proxy: child.Child, sent: int, speed: float) -> Row:
    await asyncio.sleep(1.5)
    await page.command("HeapProfiler.collectGarbage")
    heap = (await page.command("Runtime.getHeapUsage"))["usedSize"]
    return Row(
        flows=sent,
        per_second=round(speed, 1),
        mitmweb_mb=round(proxy.memory_bytes() / 2**20, 1),
        heap_mb=round(heap / 2**20, 1),
        nodes=await page.evaluate("document.querySelectorAll('*').length"),
        frames_ms=round(await page.evaluate(_DRAWN), 1),
        conversations=await page.evaluate("document.querySelectorAll('.talk').length"),
    )


def told(row: Row) -> str:
    """One look as a line."""
    return (
        f"{row.flows:>7,} flows  {row.per_second:>6.1f}/s  mitmweb {row.mitmweb_mb:>6.1f} MB  "
        f"page {row.heap_mb:>5.1f} MB, {row.nodes:>5,} nodes, two frames {row.frames_ms:>6.1f} ms"
    )


def main(arguments: Sequence[str]) -> int:
    """Measure and print a line for each look."""
    parser = argparse.ArgumentParser(prog="bench flows", description=__doc__.split("\n")[0])
    parser.add_argument("--flows", type=int, default=10_000)
    parser.add_argument("--every", type=int, default=500, help="look after so many flows")
    parser.add_argument("--json", type=Path, help="write the figures there as well")
    asked = parser.parse_args(arguments)
    program = devtools.find()
    if program is None:
        print("This needs a Chromium or Chrome.", file=sys.stderr)
        return 2
    rows: list[Any] = asyncio.run(measure(asked.flows, asked.every, program))
    if asked.json:
        asked.json.write_text(json.dumps([asdict(row) for row in rows], indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
