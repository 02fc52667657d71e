"""A command through the proxy: the real script, a real mitmproxy with the addon, real signals."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 60
Run = Callable[..., "subprocess.CompletedProcess[str]"]

# What a command says of itself: its environment, and the figures that its proxy gives.
LOOK = """
import http.client, json, os, sys
proxy = os.environ["http_proxy"].removeprefix("http://")
connection = http.client.HTTPConnection(proxy, timeout=20)
connection.request("GET", "http://context.mitm/stats.json")
stats = json.load(connection.getresponse())
json.dump({"environment": dict(os.environ), "stats": stats, "arguments": sys.argv[1:]}, sys.stdout)
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """The scripts and the addon under a name that has a space, set up already."""
    folder = tmp_path / "a check out"
    shutil.copytree(ROOT / "scripts" / "lib", folder / "scripts" / "lib")
    for script in ("run", "with-proxy"):
        shutil.copy(ROOT / "scripts" / script, folder / "scripts" / script)
    (folder / "addon").symlink_to(ROOT / "addon")
    (folder / "requirements.lock").write_text("")
    python = folder / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} "$@"\n')
    python.chmod(0o755)
    stamp = 'root=$1; . "$1/scripts/lib/setup.sh"; stamp_of "$1/requirements.lock"'
    with (folder / ".venv" / "run.stamp").open("w") as output:
        subprocess.run(["/bin/sh", "-c", stamp, "sh", str(folder)], stdout=output, check=True)
    return folder


@pytest.fixture
def variables(tmp_path: Path) -> dict[str, str]:
    """An environment with nothing in it that would matter."""
    (tmp_path / "home").mkdir()
    return {"HOME": str(tmp_path / "home"), "PATH": os.environ["PATH"], "LANG": "C"}


@pytest.fixture
def run(checkout: Path, variables: dict[str, str], nobody_at_the_default: None) -> Run:
    """A function that runs the script to its end."""

    def call(*arguments: str, **named: Any) -> subprocess.CompletedProcess[str]:
        extra = named.pop("extra", {})
        return subprocess.run(
            [str(checkout / "scripts" / "with-proxy"), *arguments],
            env=variables | extra,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
            **named,
        )

    return call


@pytest.fixture
def nobody_at_the_default(checkout: Path) -> int:
    """Whatever runs on this machine, at our default address there is nobody."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    code = checkout / "scripts" / "lib" / "environment.py"
    code.write_text(code.read_text().replace('"127.0.0.1", 8080', f'"127.0.0.1", {port}'))
    return port


@pytest.fixture
def started(checkout: Path, variables: dict[str, str], nobody_at_the_default: int) -> Iterator[str]:
    """The address of a proxy that was started by hand where the script looks for one."""
    port = str(nobody_at_the_default)
    process = subprocess.Popen(
        [str(checkout / "scripts" / "run"), "--dump", "--listen-port", port],
        env=variables,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout
    try:
        assert any("CURL_CA_BUNDLE" in line for line in process.stdout)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(SECONDS)
        process.stdout.close()


def proxies_of(checkout: Path) -> list[int]:
    """The proxies that run from this checkout."""
    listing = subprocess.check_output(["ps", "-ww", "-axo", "pid=,args="], text=True)
    program = str(checkout / "scripts" / "lib" / "start.py")
    # Not the shells whose command line names it, too.
    found = (line.split() for line in listing.splitlines() if f"{program} --" in line)
    return [int(words[0]) for words in found if words[1].rpartition("/")[2] != "sh"]


def until(happened: Callable[[], object]) -> None:
    deadline = time.monotonic() + 20
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def looked(finished: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    assert finished.returncode == 0, finished.stderr
    found: dict[str, Any] = json.loads(finished.stdout)
    return found


def test_a_command_is_sent_through_a_proxy_of_its_own_that_ends_with_it(
    run: Run, checkout: Path
) -> None:
    finished = run("--", sys.executable, "-c", LOOK, "a b", "--", "--proxy")
    found = looked(finished)
    environment = found["environment"]
    assert found["arguments"] == ["a b", "--", "--proxy"]
    assert found["stats"]["requests"]
    assert finished.stderr == ""
    for name in ("HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY"):
        assert environment[name] == environment[name.lower()]
    bundle, ca = Path(environment["SSL_CERT_FILE"]), Path(environment["NODE_EXTRA_CA_CERTS"])
    assert environment["REQUESTS_CA_BUNDLE"] == environment["CURL_CA_BUNDLE"] == str(bundle)
    assert environment["GIT_SSL_CAINFO"] == str(bundle)
    assert environment["CODEX_CA_CERTIFICATE"] == str(ca)
    assert ca.read_text().strip() in bundle.read_text()
    assert ssl.create_default_context(cafile=str(bundle)).cert_store_stats()["x509_ca"] > 20
    until(lambda: not proxies_of(checkout))


def test_what_was_set_before_stays_and_what_would_lead_elsewhere_does_not(run: Run) -> None:
    extra = {
        "https_proxy": "http://elsewhere:1",
        "ALL_PROXY": "socks5://elsewhere:1",
        "PIP_CERT": "/elsewhere.pem",
        "SSL_CERT_FILE": "/elsewhere.pem",
        "PYTHONPATH": "/somewhere",
        "TMPDIR": "/somewhere/tmp",
        "XDG_CACHE_HOME": "/somewhere/cache",
        "MINE": "a\nb",
    }
    environment = looked(run("--", sys.executable, "-c", LOOK, extra=extra))["environment"]
    for name in ("PYTHONPATH", "TMPDIR", "XDG_CACHE_HOME", "MINE"):
        assert environment[name] == extra[name]
    assert environment["https_proxy"] == environment["ALL_PROXY"] == environment["HTTPS_PROXY"]
    assert environment["PIP_CERT"] == environment["SSL_CERT_FILE"] != "/elsewhere.pem"
    assert "AWS_CA_BUNDLE" not in environment
    ours = ("CONTEXT_", "PIP_CACHE", "UV_", "RUFF_", "MYPY_", "RUSTUP_", "CARGO_")
    assert not [name for name in environment if name.startswith(ours)]


def test_input_and_output_are_the_commands_own(run: Run) -> None:
    text = "first\nlast without an end"
    finished = run("--", "sh", "-c", "cat; echo complaint >&2", input=text)
    assert (finished.stdout, finished.stderr) == (text, "complaint\n")


@pytest.mark.parametrize("status", [7, 125])
def test_the_exit_status_is_the_commands(status: int, run: Run) -> None:
    assert run("--", "sh", "-c", f"exit {status}").returncode == status


def test_to_a_shell_a_killed_command_is_128_and_the_signal(
    checkout: Path, variables: dict[str, str], nobody_at_the_default: int
) -> None:
    script = shlex.quote(str(checkout / "scripts" / "with-proxy"))
    shown = subprocess.run(
        ["/bin/sh", "-c", f"{script} -- sh -c 'kill -KILL $$'; echo $?"],
        env=variables,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=True,
    )
    assert shown.stdout == f"{128 + signal.SIGKILL}\n"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("handled", [True, False])
def test_signals_reach_the_command_once_and_its_proxy_not_at_all(
    *,
    number: signal.Signals,
    handled: bool,
    checkout: Path,
    variables: dict[str, str],
    nobody_at_the_default: int,
) -> None:
    trap = f"trap 'echo caught; exit 9' {number.name.removeprefix('SIG')}; " if handled else ""
    process = subprocess.Popen(
        [
            *(str(checkout / "scripts" / "with-proxy"), "--", "sh", "-c"),
            f"{trap}echo ready; while :; do sleep 0.05; done",
        ],
        env=variables,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout
    assert process.stdout.readline() == "ready\n"
    assert len(proxies_of(checkout)) == 1
    os.killpg(process.pid, number)  # as a terminal does it
    output, _ = process.communicate(timeout=SECONDS)
    assert output == ("caught\n" if handled else "")
    assert process.returncode == (9 if handled else -number)
    until(lambda: not proxies_of(checkout))


def test_a_command_that_waits_for_its_children_does_not_wait_for_the_proxy(run: Run) -> None:
    waits = "import os\ntry:\n    os.wait()\nexcept ChildProcessError:\n    print('none')"
    finished = run("--", sys.executable, "-c", waits)
    assert (finished.returncode, finished.stdout) == (0, "none\n")


def test_a_broken_pipe_ends_the_command_as_it_would_elsewhere(run: Run) -> None:
    finished = run("--", "sh", "-c", "yes | head -n 1; kill -PIPE $$")
    assert (finished.returncode, finished.stdout) == (-signal.SIGPIPE, "y\n")


def test_a_proxy_that_runs_is_used_and_goes_on(started: str, run: Run, checkout: Path) -> None:
    before = proxies_of(checkout)
    for arguments in ((), ("--proxy", started), (f"--proxy={started.removeprefix('http://')}",)):
        found = looked(run(*arguments, "--", sys.executable, "-c", LOOK))
        assert found["environment"]["HTTPS_PROXY"] == started
        ca = Path(found["environment"]["NODE_EXTRA_CA_CERTS"]).read_text().strip()
        assert ca == (checkout / ".mitmproxy" / "mitmproxy-ca-cert.pem").read_text().strip()
        assert ca in Path(found["environment"]["SSL_CERT_FILE"]).read_text()
    assert proxies_of(checkout) == before


def test_arguments_are_for_a_proxy_of_its_own(started: str, run: Run) -> None:
    found = looked(run("--set", "context_mode=off", "--", sys.executable, "-c", LOOK))
    assert found["environment"]["HTTPS_PROXY"] != started


def test_one_with_another_ca_at_the_default_address_is_left_alone(
    started: str, run: Run, checkout: Path
) -> None:
    # As another user's would be, or one that only says it were ours.
    shutil.rmtree(checkout / ".mitmproxy")
    found = looked(run("--", sys.executable, "-c", LOOK))
    assert found["environment"]["HTTPS_PROXY"] != started


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (("--", "no-such-program-anywhere"), 127, "not found"),
        (("--", "/"), 126, "/: "),
        (("true",), 125, "behind a --"),
        (("--",), 125, "no command"),
        (("--proxy", "--", "true"), 125, "--proxy needs a value"),
        (("--proxy", "http://127.0.0.1:9", "--", "true"), 125, "no proxy with mitmcontext"),
        (("--proxy", "socks5://127.0.0.1:9", "--", "true"), 125, "no proxy's address"),
        (("--proxy", "http://[", "--", "true"), 125, "no proxy's address"),
        (("--no-such-option", "--", "true"), 125, "--no-such-option"),
        (("--set", "context_mode=nothing", "--", "true"), 125, "context_mode"),
        (("--mode", "socks5", "--", "true"), 125, "takes HTTPS_PROXY"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_what_goes_wrong_is_said_and_tells_itself_from_the_command(
    arguments: tuple[str, ...], status: int, said: str, run: Run, checkout: Path
) -> None:
    finished = run(*arguments)
    assert finished.returncode == status
    assert finished.stdout == ""
    assert finished.stderr.startswith("with-proxy: ")
    assert said in finished.stderr
    assert "Traceback" not in finished.stderr
    until(lambda: not proxies_of(checkout))


@pytest.mark.skipif(not shutil.which("git"), reason="there is no git")
def test_what_an_agent_starts_trusts_the_proxy_too(run: Run) -> None:
    # There is no such host, which the proxy can only say to a git that trusts it.
    git = ("git", "ls-remote", "https://nowhere.invalid/a.git")
    finished = run("--set", "connection_strategy=lazy", "--", *git)
    assert "502" in finished.stderr


def test_what_a_proxy_says_is_kept_for_its_user_alone(run: Run, checkout: Path) -> None:
    for _ in range(2):
        assert run("--", "true").returncode == 0
    logs = list((checkout / ".cache" / "with-proxy").glob("*.log"))
    assert len(logs) == 2
    assert {log.stat().st_mode & 0o777 for log in logs} == {0o600}


def test_help_sets_nothing_up(run: Run, checkout: Path) -> None:
    shutil.rmtree(checkout / ".venv")
    shown = run("--help")
    assert shown.returncode == 0
    assert shown.stdout.startswith("Usage:")
    assert not (checkout / ".cache").exists()
