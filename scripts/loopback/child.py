"""A real mitmproxy as a child process, with its names led to a loopback provider."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[2]
ADDON = REPOSITORY / "addon" / "context.py"
_REDIRECT = Path(__file__).with_name("redirect.py")
# As mitmproxy's own command. Looking for garbage while modules load and once all is over finds none
# and takes a fifth of what a start computes.
_PROGRAM = """
import gc
gc.disable()
from mitmproxy.tools.main import {tool}
gc.enable()
try:
    {tool}()
finally:
    gc.freeze()
"""
_START_SECONDS = 60.0
_END_SECONDS = 10.0


class NotStarted(Exception):
    """The child did not come up; the message holds the end of what it said."""


@dataclass(frozen=True)
class Child:
    """A running proxy: where it listens, what a client must trust, and what it says."""

    process: subprocess.Popen[bytes]
    port: int
    confdir: Path
    log: Path

    @property
    def pid(self) -> int:
        """The process itself; there is no shell around it."""
        return self.process.pid

    @property
    def url(self) -> str:
        """What a client sets HTTPS_PROXY to."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def authority(self) -> Path:
        """The CA that a client of this proxy must trust."""
        return self.confdir / "mitmproxy-ca-cert.pem"

    def environment(self) -> dict[str, str]:
        """The variables by which an unmodified client finds and trusts this proxy."""
        return {
            "HTTPS_PROXY": self.url,
            "HTTP_PROXY": self.url,
            "NO_PROXY": "",
            "SSL_CERT_FILE": str(self.authority),
        }

    def said(self) -> str:
        """Everything on its standard output and error so far."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def cpu_seconds(self) -> float:
        """User and system time that the process has used so far.

        By the kernel's clock of the process (clock_getcpuclockid(3)), which counts nanoseconds;
        /proc has hundredths of a second.
        """
        return time.clock_gettime(~self.pid << 3 | 2)

    def memory_bytes(self) -> int:
        """The resident memory of the process."""
        pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    @property
    def proc(self) -> Path:
        """What the system tells of the process."""
        return Path(f"/proc/{self.pid}")

    def peak_memory_bytes(self) -> int:
        """The most resident memory that the process ever had."""
        status = (self.proc / "status").read_text().splitlines()
        return next(int(line.split()[1]) << 10 for line in status if line.startswith("VmHWM"))

    def stop(self) -> None:
        """End this child and no other process: kindly, then firmly."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(_END_SECONDS)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait(_END_SECONDS)


def start(
    hosts: Mapping[str, int],
    confdir: Path,
    *,
    provider_authority: Path | None = None,
    addon: Path | None = ADDON,
    tool: str = "mitmdump",
    options: Sequence[str] = (),
    arguments: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    settings: Mapping[str, Any] | None = None,
) -> Child:
    """Start a proxy on a free port and wait until it listens.

    `hosts` maps host names to ports on the loopback; no other name resolves. `addon` is None for
    a bare proxy. `options` are given as `--set`. `settings` go to the confdir's own file, which
    unlike arguments other users cannot read.
    """
    confdir.mkdir(parents=True, exist_ok=True)
    if settings:
        # JSON is YAML, so no writer of YAML is needed.
        (confdir / "config.yaml").write_text(json.dumps(dict(settings)))
        (confdir / "config.yaml").chmod(0o600)
    ready, log = confdir / "ready.json", confdir / f"{tool}.log"
    ready.unlink(missing_ok=True)
    command = [sys.executable, "-c", _PROGRAM.format(tool=tool)]
    command += ["--listen-host", "127.0.0.1", "--listen-port", "0", "-s", str(_REDIRECT)]
    command += ["-s", str(addon)] if addon else []
    values = [f"confdir={confdir}", f"loopback_ready={ready}"]
    values += [f"loopback_hosts={host}={port}" for host, port in hosts.items()]
    if provider_authority:
        values.append(f"ssl_verify_upstream_trusted_ca={provider_authority}")
    for value in [*values, *options]:
        command += ["--set", value]
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*command, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={
                **_clean_environment(),
                "CONTEXT_CACHE_DIR": str(confdir / "cache"),
                # What the loopback answers is no summary: who wants it asked says so.
                "CONDENSATION_DEFAULT_STRATEGY": "smart_truncation",
                **(environment or {}),
            },
            cwd=cwd,
        )
    port = _wait_until_ready(process, ready, log)
    return Child(process, port, confdir, log)


def _clean_environment() -> dict[str, str]:
    """Ours without what would steer the addon or send its own calls through another proxy."""
    steering = ("CONTEXT_", "CONDENSATION_", "ENABLE_", "TIKTOKEN_", "REDUCE_")
    proxies = ("http_proxy", "https_proxy", "all_proxy", "no_proxy", "ssl_cert_file")
    return {
        name: value
        for name, value in os.environ.items()
        if not name.upper().startswith(steering) and name.lower() not in proxies
    } | {"PYTHONUNBUFFERED": "1"}


def _wait_until_ready(process: subprocess.Popen[bytes], ready: Path, log: Path) -> int:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline:
        if ready.exists():
            port: int = json.loads(ready.read_text())["port"]
            return port
        if process.poll() is not None:
            raise NotStarted(log.read_text(errors="replace")[-4_000:])
        time.sleep(0.05)
    process.kill()
    process.wait(_END_SECONDS)
    raise NotStarted(
        "it was not ready within a minute\n" + log.read_text(errors="replace")[-4_000:]
    )


@contextlib.contextmanager
def running(hosts: Mapping[str, int], **named: Any) -> Iterator[Child]:
    """A proxy for as long as the block lasts, by default in a temporary confdir."""
    with tempfile.TemporaryDirectory(prefix="mitmcontext-") as folder:
        child = start(hosts, **{"confdir": Path(folder) / "confdir", **named})
        try:
            yield child
        finally:
            child.stop()
