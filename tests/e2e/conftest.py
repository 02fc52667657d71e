"""A real mitmdump with the addon between unmodified clients and the strict provider, over TLS."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.e2e.fixture_types import Connect, Opened, StartProxy, Stats
from tests.stores.servers import environment, real_redis

from loopback import certificates, child
from loopback.certificates import Certificates
from loopback.child import ADDON, Child
from loopback.client import NO_TLS, Connection
from loopback.provider import HOSTS, Provider, serving
from loopback.redis_server import RealRedis
from loopback.websocket import Socket


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


@pytest.fixture(scope="session")
def running_provider(leaf: Certificates) -> Iterator[Provider]:
    """One server for all tests; they get it as `provider`."""
    with serving(Provider(), leaf) as running:
        yield running


@pytest.fixture
def provider(running_provider: Provider) -> Provider:
    """A strict provider as if new; its models, behaviour and replies may be changed by the test."""
    running_provider.forget()
    return running_provider


class Starter:
    """Starts mitmdumps that find the provider, and ends them."""

    def __init__(self, provider: Provider, authority: Path, first_confdir: Path, folder: Path):
        self._hosts = dict.fromkeys(HOSTS, provider.tls_port)
        self._authority = authority
        self._first_confdir = first_confdir
        self._folder = folder
        self._number = 0
        self.children = contextlib.ExitStack()

    def start(self, *options: str, addon: Path | None = child.ADDON, **named: Any) -> Child:
        """One with these options, its own confdir and its own cache."""
        self._number += 1
        confdir = self._folder / f"proxy-{self._number}"
        shutil.copytree(self._first_confdir, confdir)
        cache = {"CONTEXT_CACHE_DIR": str(self._folder / f"cache-{self._number}")}
        cache |= named.pop("environment", {})
        started = child.start(
            self._hosts,
            confdir,
            provider_authority=self._authority,
            addon=addon,
            options=options,
            environment=cache,
            **named,
        )
        self.children.callback(started.stop)
        return started


@pytest.fixture
def start_proxy(
    provider: Provider, leaf: Certificates, first_confdir: Path, tmp_path: Path
) -> Iterator[StartProxy]:
    """A function that starts a mitmdump: options as `name=value`, `addon=None` for a bare one."""
    starter = Starter(provider, leaf.authority, first_confdir, tmp_path)
    with starter.children:
        yield starter.start


@pytest.fixture(scope="module")
def shared_proxies(
    running_provider: Provider,
    leaf: Certificates,
    first_confdir: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[StartProxy]:
    """What `share_proxy` hands out, for as long as one module's tests run."""
    folder = tmp_path_factory.mktemp("shared")
    starter = Starter(running_provider, leaf.authority, first_confdir, folder)
    running: dict[tuple[Any, ...], Child] = {}

    def share(
        *options: str,
        addon: Path | None = child.ADDON,
        environment: Mapping[str, str] | None = None,
    ) -> Child:
        wanted = (options, addon, *sorted((environment or {}).items()))
        if wanted not in running or running[wanted].process.poll() is not None:
            more = {"environment": environment} if environment else {}
            running[wanted] = starter.start(*options, addon=addon, **more)
        return running[wanted]

    with starter.children:
        yield share


@pytest.fixture
def share_proxy(provider: Provider, shared_proxies: StartProxy) -> StartProxy:
    """As `start_proxy`, but tests of a module that ask for the same get the same.

    A start costs more than a second of computing. This is for tests that use keys of their own and
    look at differences of figures, so that it does not matter to them what came before.
    """
    return shared_proxies


@pytest.fixture
def redis() -> Iterator[RealRedis]:
    """A server of the test's own."""
    with real_redis() as server:
        yield server


@pytest.fixture
def shared(tmp_path: Path, redis: RealRedis) -> Mapping[str, str]:
    """The environment of proxies that share that server."""
    return environment(tmp_path, redis)


@pytest.fixture
def connect() -> Iterator[Connect]:
    """A function that opens a connection to a host through a proxy, for bytes made by hand."""
    with contextlib.ExitStack() as connections:

        def open_(proxy: Child, host: str = HOSTS[0], port: int = 443) -> Connection:
            connection = Connection(proxy.port, proxy.authority, host, port)
            connections.callback(connection.close)
            return connection

        yield open_


@pytest.fixture
def opened(connect: Connect) -> Opened:
    """A function that opens a WebSocket through a proxy."""

    def open_(proxy: Child, host: str = "api.openai.com", **named: Any) -> Socket:
        return Socket(connect(proxy, host), **named)

    return open_


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
        url = "http://context.mitm/stats.json"
        answer = httpx.get(url, proxy=proxy.url, verify=NO_TLS, trust_env=False)
        answer.raise_for_status()
        found: dict[str, Any] = answer.json()
        return found

    return fetch


@pytest.fixture
def addon(tmp_path: Path) -> Path:
    """The addon's folder, copied, so that a test may change what is in it."""
    copy = tmp_path / "addon"
    shutil.copytree(ADDON.parent, copy, ignore=shutil.ignore_patterns("__pycache__"))
    return copy
