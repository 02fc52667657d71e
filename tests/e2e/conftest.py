"""A real mitmdump with the addon between unmodified clients and the strict provider, over TLS."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from loopback import certificates, child
from loopback.certificates import Certificates
from loopback.child import Child
from loopback.client import Connection
from loopback.provider import HOSTS, Provider, serving

StartProxy = Callable[..., Child]
Stats = Callable[[Child], dict[str, Any]]


@pytest.fixture(scope="session")
def leaf(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """The provider's certificate for the real host names."""
    return certificates.make(tmp_path_factory.mktemp("provider"), HOSTS)


@pytest.fixture(scope="session")
def first_confdir(tmp_path_factory: pytest.TempPathFactory, leaf: Certificates) -> Path:
    """A confdir with a CA in it: making one takes a while, so all proxies share it."""
    confdir = tmp_path_factory.mktemp("proxy") / "confdir"
    child.start({}, confdir, addon=None).stop()
    return confdir


@pytest.fixture
def provider(leaf: Certificates) -> Iterator[Provider]:
    """A strict provider; its models, behaviour and replies may be changed by the test."""
    with serving(Provider(), leaf) as running:
        yield running


@pytest.fixture
def start_proxy(
    provider: Provider, leaf: Certificates, first_confdir: Path, tmp_path: Path
) -> Iterator[StartProxy]:
    """A function that starts a mitmdump: options as `name=value`, `addon=None` for a bare one."""
    with contextlib.ExitStack() as children:
        number = 0

        def start(*options: str, addon: Path | None = child.ADDON, **named: Any) -> Child:
            nonlocal number
            number += 1
            confdir = tmp_path / f"proxy-{number}"
            shutil.copytree(first_confdir, confdir)
            hosts = dict.fromkeys(HOSTS, provider.tls_port)
            cache = {"CONTEXT_CACHE_DIR": str(tmp_path / f"cache-{number}")}
            cache |= named.pop("environment", {})
            started = child.start(
                hosts,
                confdir,
                provider_authority=leaf.authority,
                addon=addon,
                options=options,
                environment=cache,
                **named,
            )
            children.callback(started.stop)
            return started

        yield start


@pytest.fixture
def connect() -> Iterator[Callable[..., Connection]]:
    """A function that opens a connection to a host through a proxy, for bytes made by hand."""
    with contextlib.ExitStack() as connections:

        def open_(proxy: Child, host: str = HOSTS[0], port: int = 443) -> Connection:
            connection = Connection(proxy.port, proxy.authority, host, port)
            connections.callback(connection.close)
            return connection

        yield open_


@pytest.fixture
def through(monkeypatch: pytest.MonkeyPatch) -> Callable[[Child], None]:
    """A function that sends this process's SDK clients through a proxy, by the environment only."""

    def send(proxy: Child) -> None:
        for name, value in proxy.environment().items():
            monkeypatch.setenv(name, value)
        for name in ("http_proxy", "https_proxy", "all_proxy", "ALL_PROXY", "no_proxy"):
            monkeypatch.delenv(name, raising=False)

    return send


@pytest.fixture
def stats() -> Stats:
    """A function that fetches the addon's counts, as a person would: through the proxy."""

    def fetch(proxy: Child) -> dict[str, Any]:
        answer = httpx.get("http://context.mitm/stats.json", proxy=proxy.url, trust_env=False)
        answer.raise_for_status()
        found: dict[str, Any] = answer.json()
        return found

    return fetch
