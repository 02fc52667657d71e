"""A real mitmweb with the real addon before a strict provider, and a session played through it."""

from __future__ import annotations

import contextlib
import os
import secrets
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from demo.session import Session, encode
from loopback import certificates, child, devtools
from loopback.client import NO_TLS
from loopback.devtools import free_port
from loopback.provider import HOSTS, Provider, serving, with_windows

WINDOW = 24_000
COLUMNS = ["icon", "path", "method", "status", "size", "time", "comment"]


def program() -> str:
    """The browser; without one these tests skip, unless it was said that there must be one."""
    found = devtools.find()
    if found is None and os.environ.get("MITMCONTEXT_REQUIRE_BROWSER") == "1":
        pytest.fail("no chromium here, but MITMCONTEXT_REQUIRE_BROWSER=1")
    if found is None:
        pytest.skip("no chromium here")
    return found


@dataclass(frozen=True)
class Mitmweb:
    """A running one: its web address, what opens it, and what it stands before."""

    address: str
    token: str
    proxy: child.Child
    provider: Provider

    @contextlib.contextmanager
    def client(self) -> Iterator[httpx.Client]:
        """A client that goes through the proxy and trusts it."""
        trust = ssl.create_default_context(cafile=str(self.proxy.authority))
        with httpx.Client(
            proxy=self.proxy.url, verify=trust, trust_env=False, timeout=60
        ) as client:
            yield client

    def stats(self) -> dict[str, Any]:
        """The figures, as whoever uses the proxy gets them."""
        url = "http://context.mitm/stats.json"
        answer = httpx.get(url, proxy=self.proxy.url, verify=NO_TLS, trust_env=False)
        found: dict[str, Any] = answer.json()
        return found

    def call(self, command: str, *arguments: str) -> Any:
        """The value of a command, called as mitmweb's own command bar calls it."""
        with httpx.Client(base_url=self.address, verify=NO_TLS, trust_env=False) as web:
            web.headers["Authorization"] = f"Bearer {self.token}"
            # The cookie comes with a page that has a form, or with a WebSocket.
            cookies = {"_mitmproxy_xsrf": "x" * 32}
            answer = web.post(
                f"/commands/{command}",
                json={"arguments": arguments},
                headers={"X-XSRFToken": "x" * 32},
                cookies=cookies,
            )
            answer.raise_for_status()
            said = answer.json()
            assert "error" not in said, said
            return said["value"]

    def set(self, **options: Any) -> httpx.Response:
        """What mitmweb says to options that its own editor would change."""
        return httpx.put(
            f"{self.address}/options",
            json=options,
            headers={"Authorization": f"Bearer {self.token}", "X-XSRFToken": "x" * 32},
            cookies={"_mitmproxy_xsrf": "x" * 32},
            verify=NO_TLS,
            trust_env=False,
        )

    def get(self, path: str) -> httpx.Response:
        """A page or file of mitmweb's, for whoever may see it."""
        headers = {"Authorization": f"Bearer {self.token}"}
        url = f"{self.address}{path}"
        return httpx.get(url, headers=headers, verify=NO_TLS, trust_env=False)


@contextlib.contextmanager
def running(folder: Path, *options: str, addon: Path = child.ADDON) -> Iterator[Mitmweb]:
    """One that was just started."""
    leaf = certificates.make(folder / "provider", HOSTS)
    token, port = secrets.token_urlsafe(16), free_port()
    with contextlib.ExitStack() as stack:
        provider = stack.enter_context(serving(Provider(with_windows({"*": WINDOW})), leaf))
        proxy = child.start(
            dict.fromkeys(HOSTS, provider.tls_port),
            folder / "confdir",
            provider_authority=leaf.authority,
            tool="mitmweb",
            addon=addon,
            options=[f"context_windows=*={WINDOW}", *options],
            environment={"CONTEXT_CACHE_DIR": str(folder / "cache")},
            settings={
                "web_password": token,
                "web_host": "127.0.0.1",
                "web_port": port,
                "web_open_browser": False,
                "web_columns": COLUMNS,
            },
        )
        stack.callback(proxy.stop)
        yield Mitmweb(f"http://127.0.0.1:{port}", token, proxy, provider)


def send(client: httpx.Client, body: Any, port: int = 443) -> httpx.Response:
    """One request of an Anthropic client."""
    headers = {"x-api-key": "k", "content-type": "application/json"}
    url = f"https://{HOSTS[0]}:{port}/v1/messages"
    return client.post(url, content=encode(body), headers=headers)


def play(mitmweb: Mitmweb, reapplied: int = 2, port: int = 443) -> None:
    """Send a session's requests until one was condensed and a few more were re-applied."""
    with mitmweb.client() as client:
        for body in Session().requests():
            send(client, body, port)
            stats = mitmweb.stats()
            if stats["steps"] and stats["requests"]["reapplied"] >= reapplied:
                return
    pytest.fail("the session was never condensed")
