"""Loaded into a mitmproxy process with `-s`: writes down who came and who trusted the proxy."""

from __future__ import annotations

import json
from pathlib import Path

from mitmproxy import ctx
from mitmproxy.addonmanager import Loader
from mitmproxy.http import HTTPFlow
from mitmproxy.tls import TlsData


class Witness:
    """One line of JSON per event. Hosts, methods and paths, nothing of any content."""

    def load(self, loader: Loader) -> None:
        """Declare where to write."""
        loader.add_option("witness_file", str, "", "file that events are written to")

    def http_connect(self, flow: HTTPFlow) -> None:
        """A client asks for a tunnel."""
        self.note("connect", flow.request.host)

    def tls_established_client(self, data: TlsData) -> None:
        """A client has taken our certificate."""
        self.note("trusted", data.conn.sni or "")

    def tls_failed_client(self, data: TlsData) -> None:
        """A client has not."""
        self.note("distrusted", data.conn.sni or "")

    def request(self, flow: HTTPFlow) -> None:
        """A request that could be read."""
        path = flow.request.path.partition("?")[0]
        self.note("request", flow.request.pretty_host, f"{flow.request.method} {path}")

    def note(self, event: str, host: str, what: str = "") -> None:
        """Write a line."""
        with Path(ctx.options.witness_file).open("a", encoding="utf-8") as notes:
            notes.write(json.dumps({"event": event, "host": host, "what": what}) + "\n")


addons = [Witness()]
