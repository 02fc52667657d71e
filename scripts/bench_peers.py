"""Other proxies on the same work, where they are installed as commands.

Clients are pointed at them by a base URL, without TLS, which is how they are used: so their CPU is
to be read beside mitmdump's, which does TLS on both sides. Their caches, settings and logs go into
the measurement's folder.
"""

from __future__ import annotations

import http.client
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from bench_talk import HEADERS, Growing
from demo.session import MODEL
from lib.progress import Progress

_START_SECONDS = 120.0
_ANSWER_SECONDS = 60.0
_END_SECONDS = 10.0
_REQUESTS = {100_000: 24, 1_000_000: 8}
_WARM_UP = 3
_KEY = "sk-local-measurement"


@dataclass(frozen=True, slots=True)
class Peer:
    """What another proxy took for growing conversations of one size.

    CPU per request in milliseconds, of all its processes; the median milliseconds that the client
    waited, and that it waits without any proxy; megabytes of all its processes.
    """

    name: str
    size: int
    requests: int
    cpu: float
    wall: float
    direct_wall: float
    memory_mb: int

    def line(self) -> str:
        """For people to read."""
        return (
            f"{self.size / 1_000:>6,.0f} KB  {self.name:<24} {self.requests:>8}"
            f" {self.cpu:>6.1f} ms CPU {self.wall:>7.1f} ms, directly {self.direct_wall:.1f} ms"
            f" {self.memory_mb:>5} MB"
        )


@dataclass(frozen=True, slots=True)
class _Program:
    """How one is started: command and variables by its port, the provider's port and a folder."""

    name: str
    command: str
    start: Callable[[int, int, Path], tuple[list[str], Mapping[str, str]]]


def _headroom(port: int, provider: int, folder: Path) -> tuple[list[str], Mapping[str, str]]:
    return ["proxy", "--port", str(port)], {
        "ANTHROPIC_TARGET_API_URL": f"http://127.0.0.1:{provider}",
        "HEADROOM_TELEMETRY": "off",
        "HF_HUB_OFFLINE": "1",
    }


def _litellm(port: int, provider: int, folder: Path) -> tuple[list[str], Mapping[str, str]]:
    config = folder / "litellm.yaml"
    config.write_text(
        f"model_list:\n  - model_name: {MODEL}\n    litellm_params:\n"
        f"      model: anthropic/{MODEL}\n      api_key: {_KEY}\n"
        f"      api_base: http://127.0.0.1:{provider}\n"
        f"general_settings:\n  master_key: {_KEY}\n"
    )
    arguments = ["--config", str(config), "--port", str(port), "--host", "127.0.0.1"]
    return arguments, {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_TELEMETRY": "False"}


_PROGRAMS = (
    _Program("headroom", "headroom", _headroom),
    _Program("LiteLLM", "litellm", _litellm),
)


def measure(provider: int, sizes: Sequence[int], folder: Path) -> Iterator[Peer | str]:
    """Each of them with each size; in words where one is not installed, or does not work.

    Args:
        provider: the plain port of a provider on the loopback.
        sizes: bytes of the conversations.
        folder: for all that they write.
    """
    for program in _PROGRAMS:
        command = shutil.which(program.command)
        if command is None:
            yield f"{program.name}: not measured, no command {program.command} is installed"
            continue
        try:
            yield from _measured(program, command, provider, sizes, folder)
        except (OSError, RuntimeError, http.client.HTTPException) as error:
            yield f"{program.name}: not measured, {str(error) or type(error).__name__}"


def _measured(
    program: _Program, command: str, provider: int, sizes: Sequence[int], folder: Path
) -> Iterator[Peer]:
    home = folder / program.command
    home.mkdir()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    arguments, variables = program.start(port, provider, home)
    places = {"HOME": str(home), "XDG_CACHE_HOME": str(home), "TMPDIR": str(home)}
    with (home / "log").open("wb") as log:
        process = subprocess.Popen(
            [command, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, **places, **variables},
            start_new_session=True,
        )
    try:
        _wait_until_it_answers(process, port)
        for size in sizes:
            yield _of_size(program.name, process.pid, port, provider, size)
    finally:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(_END_SECONDS)
        process.kill()
        process.wait()


def _of_size(name: str, pid: int, port: int, provider: int, size: int) -> Peer:
    talk = Growing(size)
    for _ in range(_WARM_UP):
        _post(port, talk.grow())
    requests = next((n for most, n in _REQUESTS.items() if size <= most), 4)
    through, directly = [], []
    used = -_cpu_seconds(pid)
    progress = Progress(name, requests, 1)
    for number in range(requests):
        body = talk.grow()
        directly.append(_post(provider, body))
        through.append(_post(port, body))
        progress(number + 1)
    used += _cpu_seconds(pid)
    memory = sum(_pages(one) for one in _family(pid)) * os.sysconf("SC_PAGE_SIZE") >> 20
    wall, direct = 1_000 * median(through), 1_000 * median(directly)
    return Peer(name, talk.size, requests, 1_000 * used / requests, wall, direct, memory)


def _post(port: int, body: bytes) -> float:
    """The seconds until the whole answer is there.

    Raises:
        RuntimeError: the request was refused.
    """
    line = http.client.HTTPConnection("127.0.0.1", port, timeout=_ANSWER_SECONDS)
    headers = dict(HEADERS) | {"x-api-key": _KEY, "anthropic-version": "2023-06-01"}
    began = time.perf_counter()
    try:
        line.request("POST", "/v1/messages", body, headers)
        answer = line.getresponse()
        answer.read()
    finally:
        line.close()
    if answer.status != 200:
        raise RuntimeError(f"it answers with status {answer.status}")
    return time.perf_counter() - began


def _wait_until_it_answers(process: subprocess.Popen[bytes], port: int) -> None:
    """Wait for its first answer to a small request.

    Raises:
        RuntimeError: there is none.
    """
    body = Growing(1_000).body()
    deadline = time.monotonic() + _START_SECONDS
    why = "it does not listen"
    while time.monotonic() < deadline and process.poll() is None:
        try:
            _post(port, body)
        except OSError:
            pass
        except RuntimeError as error:
            why = str(error)
        else:
            return
        time.sleep(0.5)
    raise RuntimeError(why if process.poll() is None else "it ended at once")


def _family(pid: int) -> list[int]:
    """A process and all that it started."""
    parents: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            fields = stat.read_text().rpartition(")")[2].split()
            parents.setdefault(int(fields[1]), []).append(int(stat.parent.name))
    found = [pid]
    for one in found:
        found += parents.get(one, ())
    return found


def _cpu_seconds(pid: int) -> float:
    used = 0
    for one in _family(pid):
        with suppress(OSError):
            fields = Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()
            used += int(fields[11]) + int(fields[12])
    return used / os.sysconf("SC_CLK_TCK")


def _pages(pid: int) -> int:
    with suppress(OSError):
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return 0
