"""Become a command that goes through the proxy, starting a proxy for it if none runs.

The command takes this very process over, so its exit status, signals, terminal and files need no
passing on. The proxy therefore cannot be waited for here: it is nobody's child, and watches for
the end of the process that it serves.
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import hashlib
import http.client
import json
import os
import select
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn
from urllib.parse import SplitResult, unquote, urlsplit

# Started as a script, apart from what the user has set up for Python; the packages are above it.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from lib import environment as env
from lib.environment import Trust

FOLDER = env.CACHE / "with-proxy"
OURS = "http://context.mitm/stats.json"
ITS_CA = "http://mitm.it/cert/pem"
START_SECONDS = 60.0
LOGS = 20  # kept of earlier proxies

FAILED, CANNOT_RUN, NOT_FOUND = 125, 126, 127


class Failed(Exception):
    """We could not get as far as the command. The message is for the person."""


@dataclass
class Wanted:
    """What the command line says."""

    command: list[str] = field(default_factory=list)
    proxy: str = ""
    ca: Path | None = None
    arguments: list[str] = field(default_factory=list)


def wanted(arguments: Sequence[str]) -> Wanted:
    """Read the command line. Raises Failed."""
    if "--" not in arguments:
        raise Failed("what to run stands behind a --; see --help")
    cut = arguments.index("--")
    found, rest = Wanted(list(arguments[cut + 1 :])), list(arguments[:cut])
    while rest:
        argument = rest.pop(0)
        name, equals, value = argument.partition("=")
        if name in ("--proxy", "--ca"):
            if not equals and not rest:
                raise Failed(f"{name} needs a value")
            value = value if equals else rest.pop(0)
            if name == "--proxy":
                found.proxy = value
            else:
                found.ca = Path(value).absolute()
        else:
            found.arguments.append(argument)
    if not found.command:
        raise Failed("no command behind the --")
    if found.proxy and found.arguments:
        raise Failed("arguments for a proxy of the command's own do not go with --proxy")
    return found


# A proxy that runs already.


def answer(proxy: SplitResult, url: str) -> bytes | None:
    """What a proxy gives for a plain URL; None if it gives nothing good."""
    headers = {}
    if proxy.username is not None:
        login = f"{unquote(proxy.username)}:{unquote(proxy.password or '')}"
        headers["Proxy-Authorization"] = f"Basic {base64.b64encode(login.encode()).decode()}"
    connection = http.client.HTTPConnection(proxy.hostname or "", proxy.port or 80, timeout=5)
    try:
        connection.request("GET", url, headers=headers)
        response = connection.getresponse()
        body = response.read()
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()
    return body if response.status == 200 else None


def is_ours(proxy: SplitResult) -> bool:
    """Whether a proxy with the addon listens there."""
    try:
        return isinstance(json.loads(answer(proxy, OURS) or b""), dict)
    except ValueError:
        return False


def default_proxy() -> tuple[str, Trust] | None:
    """This checkout's proxy where it listens by default.

    Its CA is the one that lies here. Whoever else might listen there cannot use it.
    """
    url = f"http://{env.HOST}:{env.PORT}"
    trust = Trust.of(env.CONFDIR)
    try:
        ours = trust.ca.read_bytes()
    except OSError:
        return None
    proxy = urlsplit(url)
    if not is_ours(proxy) or (answer(proxy, ITS_CA) or ours).strip() != ours.strip():
        return None
    return url, trust


def named_proxy(url: str, ca: Path | None) -> tuple[str, Trust]:
    """The proxy that the user names, trusted by what it says itself. Raises Failed."""
    try:
        proxy = urlsplit(url if "://" in url else f"http://{url}")
        usable = proxy.scheme == "http" and proxy.hostname and proxy.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise Failed(f"{url} is no proxy's address; one looks like http://{env.HOST}:{env.PORT}")
    if not is_ours(proxy):
        raise Failed(f"no proxy with mitmcontext answers at {url}")
    if ca is not None:
        try:
            found: bytes | None = ca.read_bytes()
        except OSError as error:
            raise Failed(f"{ca}: {error.strerror}") from None
    elif proxy.hostname in (env.HOST, "localhost", "::1"):
        found = answer(proxy, ITS_CA)
    else:
        # On the way here someone could put a certificate of their own in its place.
        raise Failed(f"{url} is not on this machine: name its CA's certificate with --ca FILE")
    if not found or b"BEGIN CERTIFICATE" not in found:
        raise Failed(f"{ca or url} gives no CA certificate; name one with --ca FILE")
    return proxy.geturl(), kept(found)


def kept(ca: bytes) -> Trust:
    """A CA as files, in a folder of its own."""
    folder = FOLDER / hashlib.sha256(ca).hexdigest()[:16]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / env.CA_NAME).write_bytes(ca)
    env.write_bundle(folder, ca, os.environ)
    return Trust.of(folder)


# A proxy of the command's own.


def own_proxy(arguments: Sequence[str]) -> tuple[str, Trust]:
    """Start a proxy that ends with this process. Raises Failed."""
    log = new_log()
    with one_makes_the_ca():
        alive = start(arguments, log)
        lines = announced(alive, log)
    os.close(alive)
    exported = dict(
        word.split("=", 1)
        for line in lines
        if line.startswith("  export ")
        for word in shlex.split(line)[1:]
    )
    if "HTTPS_PROXY" not in exported:
        raise Failed("the proxy was not started in a mode that takes HTTPS_PROXY")
    trust = Trust(Path(exported["NODE_EXTRA_CA_CERTS"]), Path(exported["SSL_CERT_FILE"]))
    return exported["HTTPS_PROXY"], trust


def new_log() -> Path:
    """An empty file that only its user can read, in place of the oldest ones."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    logs = sorted(FOLDER.glob("*.log"), key=lambda log: log.name)
    for log in logs[: max(0, len(logs) - LOGS + 1)]:
        log.unlink(missing_ok=True)
    number, name = tempfile.mkstemp(".log", time.strftime("%Y%m%d-%H%M%S-"), FOLDER)
    os.close(number)
    return Path(name)


@contextlib.contextmanager
def one_makes_the_ca() -> Iterator[None]:
    """Proxies that start at the same time must not each make a CA."""
    if (env.CONFDIR / env.CA_NAME).exists():
        yield
        return
    with (FOLDER / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def start(arguments: Sequence[str], log: Path) -> int:
    """Start a proxy and return the file that is at its end when the proxy has ended.

    It is put up for adoption: a command that waits for its children must not wait for a proxy.
    """
    mine = os.getpid()
    reading, writing = os.pipe()
    middle = os.fork()
    if middle == 0:
        status = 1
        with contextlib.suppress(OSError), log.open("ab") as output:
            subprocess.Popen(
                [
                    *(sys.executable, "-I", str(Path(__file__).with_name("start.py"))),
                    *("--until-end-of", str(mine), "--dump", "--listen-port", "0"),
                    # What it says is kept, so addresses, which may hold keys, are not said.
                    *("--set", "flow_detail=0", *arguments),
                ],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                pass_fds=[writing],
                start_new_session=True,  # Ctrl-C is for the command
            )
            status = 0
        os._exit(status)
    os.close(writing)
    os.waitpid(middle, 0)
    return reading


def announced(alive: int, log: Path) -> list[str]:
    """What the proxy says once it listens. Raises Failed if it has ended or takes too long."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        ended = bool(select.select([alive], [], [], 0.02)[0])
        lines = log.read_text(errors="replace").split("\n")[:-1]
        if env.RUNNING in lines:
            return lines
        if ended:
            raise Failed("\n".join(["the proxy did not start:", *lines[-10:]]))
    raise Failed(f"the proxy was not ready within a minute; see {log}")


# The command.


def become(command: Sequence[str], environment: Mapping[str, str]) -> NoReturn:
    """Run the command in place of this program."""
    # Python ignores these for itself, and what is ignored stays so.
    for ignored in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(ignored, signal.SIG_DFL)
    try:
        os.execvpe(command[0], list(command), dict(environment))  # noqa: S606
    except FileNotFoundError:
        complain(f"{command[0]}: not found")
        sys.exit(NOT_FOUND)
    except (OSError, ValueError) as error:
        complain(f"{command[0]}: {error}")
        sys.exit(CANNOT_RUN)


def complain(text: str) -> None:
    """Where the command's own complaints go."""
    print(f"with-proxy: {text}", file=sys.stderr)


def main(arguments: Sequence[str]) -> NoReturn:
    """Find or start the proxy, and become the command."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        want = wanted(arguments)
        if want.proxy:
            proxy, trust = named_proxy(want.proxy, want.ca)
        else:
            running = None if want.arguments else default_proxy()
            proxy, trust = running or own_proxy(want.arguments)
    except Failed as error:
        complain(str(error))
        sys.exit(FAILED)
    become(want.command, env.for_a_command(os.environ, proxy, trust))


if __name__ == "__main__":
    main(sys.argv[1:])
