"""A browser, driven over its DevTools protocol: just what these tests need of it."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import itertools
import json
import shutil
import socket
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from tornado.httpclient import AsyncHTTPClient
from tornado.websocket import WebSocketClientConnection, websocket_connect

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--no-default-browser-check",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    # High enough that mitmweb, which draws only the rows in sight, draws a short session's all.
    "--window-size=1400,1800",
    "--remote-debugging-port=0",
)


def find() -> str | None:
    """The program of a browser that speaks the protocol, if there is one."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


def free_port() -> int:
    """A port that nobody listens on: mitmweb cannot choose one and tell us."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Page:
    """One tab. `events` are what it said unasked, as soon as `watch` was called."""

    def __init__(self, socket: WebSocketClientConnection) -> None:
        self.events: list[dict[str, Any]] = []
        self._socket = socket
        self._ids = itertools.count(1)

    async def command(self, method: str, **params: Any) -> dict[str, Any]:
        """Send a command and wait for its answer."""
        number = next(self._ids)
        await self._socket.write_message(
            json.dumps({"id": number, "method": method, "params": params})
        )
        while True:
            message = await self._socket.read_message()
            if message is None:
                raise ConnectionError("the browser went away")
            answer: dict[str, Any] = json.loads(message)
            if "method" in answer:
                self.events.append(answer)
            if answer.get("id") == number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                result: dict[str, Any] = answer["result"]
                return result

    async def watch(self) -> None:
        """Take note of requests, of what the console says and of what scripts throw."""
        for domain in ("Network", "Runtime", "Log"):
            await self.command(f"{domain}.enable")

    def requests(self) -> list[str]:
        """The addresses of everything that was asked for, WebSockets too."""
        asked = [one["params"] for one in self.events if one["method"].startswith("Network.")]
        plain = [
            one["request"]["url"] for one in asked if "request" in one and "url" in one["request"]
        ]
        sockets = [one["params"]["url"] for one in self._said("Network.webSocketCreated")]
        return [*plain, *sockets]

    def complaints(self) -> list[dict[str, Any]]:
        """Errors and warnings on the console, and exceptions that nobody caught."""
        logged = [one["params"]["entry"] for one in self._said("Log.entryAdded")]
        told = [one["params"] for one in self._said("Runtime.consoleAPICalled")]
        return [
            *(one["params"] for one in self._said("Runtime.exceptionThrown")),
            *(one for one in logged if one["level"] in ("error", "warning")),
            *(one for one in told if one["type"] in ("error", "warning", "assert")),
        ]

    def _said(self, method: str) -> list[dict[str, Any]]:
        return [one for one in self.events if one["method"] == method]

    async def resize(self, width: int, height: int, *, dark: bool = False) -> None:
        """Show it at this size, in light or in dark colours."""
        await self.command(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 600,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        await self.command("Emulation.setEmulatedMedia", features=[scheme])

    async def open(self, url: str) -> None:
        """Go there."""
        await self.command("Page.navigate", url=url)

    async def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression."""
        answer = await self.command(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        if "exceptionDetails" in answer:
            raise RuntimeError(f"{expression}: {answer['exceptionDetails']}")
        return answer["result"].get("value")

    async def until(self, expression: str, seconds: float = 20) -> Any:
        """The value of an expression, as soon as it is a true one."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if value := await self.evaluate(expression):
                return value
            await asyncio.sleep(0.1)
        text = await self.evaluate("document.body.innerText")
        raise AssertionError(f"never true: {expression}\n{text}")

    async def press(self, key: str) -> None:
        """Press a key, as a person would."""
        code = {"Tab": 9, "Enter": 13}[key]
        for kind in ("keyDown", "keyUp"):
            await self.command(
                "Input.dispatchKeyEvent", type=kind, key=key, windowsVirtualKeyCode=code
            )

    async def screenshot(self, path: Path) -> None:
        """What is to be seen now, as a PNG file."""
        answer = await self.command("Page.captureScreenshot", format="png")
        path.write_bytes(base64.b64decode(answer["data"]))  # noqa: ASYNC240 - a small local file


@contextlib.asynccontextmanager
async def browser(
    program: str, profile: Path, proxy: str = "--no-proxy-server"
) -> AsyncIterator[Page]:
    """A running browser with an empty profile, and its one tab."""
    process = await asyncio.create_subprocess_exec(
        program,
        *FLAGS,
        proxy,
        f"--user-data-dir={profile}",
        "about:blank",
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
        env={"HOME": str(profile), "PATH": "/usr/bin:/bin"},
    )
    try:
        async with asyncio.timeout(60):
            port = await _port(profile / "DevToolsActivePort")
            socket = await websocket_connect(
                f"ws://127.0.0.1:{port}{await _tab(port)}", max_message_size=64 * 2**20
            )
        yield Page(socket)
        socket.close()
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        try:
            await asyncio.wait_for(process.wait(), 10)
        except TimeoutError:
            process.kill()
            await process.wait()


async def _port(file: Path) -> int:
    """The port that the browser chose; it writes it down when it is ready."""
    while True:
        with contextlib.suppress(OSError, ValueError, IndexError):
            return int(file.read_text().split()[0])  # noqa: ASYNC240 - a small local file
        await asyncio.sleep(0.1)


async def _tab(port: int) -> str:
    client = AsyncHTTPClient()
    while True:
        listing = await client.fetch(f"http://127.0.0.1:{port}/json/list")
        for target in json.loads(listing.body):
            if target["type"] == "page":
                return "/" + str(target["webSocketDebuggerUrl"]).split("/", 3)[3]
        await asyncio.sleep(0.1)
