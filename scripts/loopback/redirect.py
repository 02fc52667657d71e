"""Loaded into a mitmproxy process with `-s`: real host names lead to the loopback provider.

Only names are remapped and no others resolve, so certificates are verified as always and nothing
can leave the machine. The process ends by itself when the one that started it is gone.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mitmproxy import ctx
from mitmproxy.addonmanager import Loader
from mitmproxy.http import HTTPFlow

_OWN = ("127.0.0.1", "localhost", "::1", "0.0.0.0", "::", None, "")  # noqa: S104 -- only named


class Redirect:
    """Resolve some names to a port on the loopback and refuse all others."""

    def __init__(self) -> None:
        self.name = "loopback_redirect"
        self.ports: dict[str, int] = {}
        self.real = socket.getaddrinfo
        self.parent = os.getppid()
        self.watch: asyncio.Task[None] | None = None

    def load(self, loader: Loader) -> None:
        """Declare where names lead to, and where to say that the proxy is ready."""
        loader.add_option("loopback_hosts", Sequence[str], [], "HOST=PORT pairs on the loopback")
        loader.add_option("loopback_ready", str, "", "file that is written once it listens")
        loader.add_option("loopback_comments", str, "", "file that each flow's comment goes to")

    def configure(self, updated: set[str]) -> None:
        """Take over the table of names."""
        if "loopback_hosts" in updated:
            pairs = (pair.partition("=") for pair in ctx.options.loopback_hosts)
            self.ports = {host: int(port) for host, _, port in pairs}
            socket.getaddrinfo = self.resolve

    def resolve(self, host: Any, port: Any, *rest: Any, **named: Any) -> Any:
        """The place of socket.getaddrinfo."""
        name = host.decode() if isinstance(host, bytes) else host
        if name in self.ports:
            return self.real("127.0.0.1", self.ports[name], *rest, **named)
        if name not in _OWN:
            raise socket.gaierror(socket.EAI_NONAME, "no such name on the loopback")
        return self.real(host, port, *rest, **named)

    def running(self) -> None:
        """Say on which port the proxy listens; that is also the sign that it does."""
        server = ctx.master.addons.get("proxyserver")
        port = server.listen_addrs()[0][1]
        ready = Path(ctx.options.loopback_ready)
        part = ready.with_suffix(".part")
        part.write_text(json.dumps({"port": port, "pid": os.getpid()}))
        part.rename(ready)
        self.watch = asyncio.get_running_loop().create_task(self.end_with_parent())

    def responseheaders(self, flow: HTTPFlow) -> None:
        """Write down what a person would read beside this flow, before the client gets on."""
        if ctx.options.loopback_comments and flow.comment:
            with Path(ctx.options.loopback_comments).open("a", encoding="utf-8") as comments:
                comments.write(flow.comment.replace("\n", " ") + "\n")

    async def end_with_parent(self) -> None:
        """An orphan shuts down, so that an aborted test run leaves nothing behind."""
        # Nothing announces the end of a parent, so it is looked for.
        while os.getppid() == self.parent:  # noqa: ASYNC110
            await asyncio.sleep(1)
        logging.getLogger(__name__).info("the process that started this proxy is gone")
        ctx.master.shutdown()

    def done(self) -> None:
        """Give the name resolution back."""
        socket.getaddrinfo = self.real
        if self.watch is not None:
            self.watch.cancel()


addons = [Redirect()]
