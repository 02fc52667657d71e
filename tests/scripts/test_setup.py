"""Finding a Python, keeping starts apart, and starting: with real shells and a real mitmproxy.

What takes a network (installing the packages) is done by running the scripts themselves.
"""

import json
import os
import shlex
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# What the set-up script calls, besides Python.
TOOLS = ("cat", "cksum", "dirname", "grep", "head", "mkdir", "rm", "rmdir", "sh", "sleep")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of the scripts, with an addon that does nothing, under a name that has a space."""
    folder = tmp_path / "a check out"
    shutil.copytree(ROOT / "scripts" / "lib", folder / "scripts" / "lib")
    shutil.copy(ROOT / "scripts" / "run", folder / "scripts" / "run")
    (folder / "addon").mkdir()
    (folder / "addon" / "context.py").write_text("addons = []\n")
    (folder / "requirements.lock").write_text("")
    (folder / ".python-version").write_text("3.13\n")
    return folder


@pytest.fixture
def home(tmp_path: Path) -> Path:
    folder = tmp_path / "home"
    folder.mkdir()
    return folder


@pytest.fixture
def tools(tmp_path: Path) -> Path:
    """A folder for PATH that has what any system has, and no Python."""
    folder = tmp_path / "tools"
    folder.mkdir()
    for tool in TOOLS:
        found = shutil.which(tool)
        assert found, tool
        (folder / tool).symlink_to(found)
    return folder


def program(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def real_python(path: Path) -> None:
    program(path, f'exec {shlex.quote(sys.executable)} "$@"')


def failing_shim(path: Path) -> None:
    program(path, "echo 'pyenv: command not found' >&2; exit 127")


def environment(home: Path, *path: Path) -> dict[str, str]:
    return {"HOME": str(home), "PATH": os.pathsep.join(map(str, path))}


def shell(
    checkout: Path, script: str, variables: Mapping[str, str]
) -> subprocess.CompletedProcess[str]:
    """Run a few lines that may use the functions of the set-up script."""
    prelude = f'set -u; root={shlex.quote(str(checkout))}; . "$root/scripts/lib/setup.sh"\n'
    return subprocess.run(
        ["/bin/sh", "-c", prelude + script],
        env=dict(variables),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


class TestFindingPython:
    def test_a_python_on_the_path_is_taken_by_what_it_is(
        self, checkout: Path, home: Path, tools: Path
    ) -> None:
        real_python(tools / "python3")
        found = shell(checkout, "find_python", environment(home, tools))
        assert found.returncode == 0
        assert Path(found.stdout.strip()).exists()

    def test_a_failing_shim_is_passed_over(self, checkout: Path, home: Path, tools: Path) -> None:
        for name in ("python3.13", "python3.12"):
            failing_shim(tools / name)
        real_python(tools / "python3.14")
        assert shell(checkout, "find_python", environment(home, tools)).returncode == 0

    @pytest.mark.parametrize("bound", ["oldest=3.99", "too_new=3.12"])
    def test_the_version_is_asked_of_the_python_itself(
        self, bound: str, checkout: Path, home: Path, tools: Path
    ) -> None:
        real_python(tools / "python3.13")
        found = shell(checkout, f"{bound}; find_python", environment(home, tools))
        assert found.returncode != 0

    def test_none_is_said_to_be_none(self, checkout: Path, home: Path, tools: Path) -> None:
        failing_shim(tools / "python3")
        found = shell(checkout, "find_python", environment(home, tools))
        assert found.returncode != 0
        assert found.stdout == ""

    @pytest.mark.parametrize(
        ("place", "variables"),
        [
            ("py env", {"PYENV_ROOT": "{here}/py env"}),
            ("home/.pyenv", {}),
            ("elsewhere", {"PATH": "{here}/elsewhere/bin:{here}/tools"}),
            ("elsewhere", {"PATH": "{here}/elsewhere/shims:{here}/tools"}),
            ("a check out/.cache", {}),
        ],
        ids=["PYENV_ROOT", "HOME", "above pyenv", "above its shims", "brought by uv"],
    )
    def test_one_that_is_installed_but_not_activated_is_found(
        self,
        place: str,
        variables: dict[str, str],
        tmp_path: Path,
        checkout: Path,
        home: Path,
        tools: Path,
    ) -> None:
        folder = tmp_path / place
        failing_shim(folder / "bin" / "pyenv")
        failing_shim(folder / "shims" / "python3")
        failing_shim(folder / "shims" / "python3.13")
        failing_shim(folder / "versions" / "3.12.1" / "bin" / "python3.12")
        real_python(folder / "versions" / "3.13.0" / "bin" / "python3.13")
        # uv calls the folder differently.
        real_python(folder / "python" / "cpython-3.13.0-linux" / "bin" / "python3.13")
        given = {name: value.format(here=tmp_path) for name, value in variables.items()}
        found = shell(checkout, "find_python", environment(home, tools) | given)
        assert found.returncode == 0, found.stderr

    def test_an_activated_environment_is_looked_through(
        self, checkout: Path, home: Path, tools: Path
    ) -> None:
        # It may be the very one that is about to be removed and made anew.
        real_python(tools / "python3")
        found = shell(checkout, "find_python", environment(home, tools))
        base = subprocess.check_output(
            [found.stdout.strip(), "-c", "import sys; print(sys.prefix == sys.base_prefix)"],
            text=True,
        )
        assert base == "True\n"

    def test_where_none_fits_uv_brings_one(self, checkout: Path, home: Path, tools: Path) -> None:
        brought = checkout / ".cache" / "python" / "cpython-3.13.9" / "bin" / "python3.13"
        program(
            checkout / ".cache" / "uv" / "bin" / "uv",
            f'[ "$*" = "python install --no-bin 3.13" ] || exit 9\n'
            f"{shlex.quote(sys.executable)} -c 'import pathlib, sys; "
            f"p = pathlib.Path(sys.argv[1]); p.parent.mkdir(parents=True); "
            f'p.write_text("#!/bin/sh\\nexec {sys.executable} \\"$@\\"\\n"); p.chmod(0o755)\' '
            f"{shlex.quote(str(brought))}",
        )
        found = shell(checkout, "bring_python", environment(home, tools))
        assert found.returncode == 0, found.stderr

    def test_without_any_way_to_get_one_a_sentence_says_what_to_do(
        self, checkout: Path, home: Path, tools: Path
    ) -> None:
        start = subprocess.run(
            ["/bin/sh", checkout / "scripts" / "run"],
            env=environment(home, tools),
            capture_output=True,
            text=True,
            check=False,
        )
        assert start.returncode == 1
        assert start.stdout == ""
        assert start.stderr.splitlines()[-1].endswith("install Python 3.13, then start this again.")
        assert not list(home.iterdir())
        assert not (checkout / ".cache" / "setup.lock").exists()


class TestKeepingStartsApart:
    @pytest.fixture
    def finished(self, checkout: Path, home: Path, tools: Path) -> dict[str, str]:
        """The variables to look at an environment that is finished."""
        variables = environment(home, tools)
        real_python(checkout / ".venv" / "bin" / "python")
        made = shell(checkout, 'stamp_of "$root/requirements.lock" >"$venv/run.stamp"', variables)
        assert made.returncode == 0, made.stderr
        return variables

    @staticmethod
    def is_ready(checkout: Path, variables: Mapping[str, str]) -> bool:
        return shell(checkout, 'is_ready run "$root/requirements.lock"', variables).returncode == 0

    def test_a_finished_environment_is_used_as_it_is(
        self, checkout: Path, finished: dict[str, str]
    ) -> None:
        assert self.is_ready(checkout, finished)

    def test_a_changed_lock_asks_for_a_new_one(
        self, checkout: Path, finished: dict[str, str]
    ) -> None:
        (checkout / "requirements.lock").write_text("mitmproxy==99\n")
        assert not self.is_ready(checkout, finished)

    def test_an_interrupted_installation_asks_for_a_new_one(
        self, checkout: Path, finished: dict[str, str]
    ) -> None:
        (checkout / ".venv" / "unfinished").touch()
        assert not self.is_ready(checkout, finished)

    def test_a_python_that_is_gone_asks_for_a_new_one(
        self, checkout: Path, finished: dict[str, str]
    ) -> None:
        (checkout / ".venv" / "bin" / "python").unlink()
        assert not self.is_ready(checkout, finished)

    def test_one_start_waits_for_the_other(self, checkout: Path, home: Path) -> None:
        work = 'mkdir -p "$cache"; take_lock; echo in; sleep 1.2; echo out; release_lock'
        variables = environment(home) | {"PATH": os.environ["PATH"]}
        outputs: list[str] = []
        said = checkout / "said"
        starts = [
            threading.Thread(
                target=lambda: outputs.append(
                    shell(checkout, f"exec >>{shlex.quote(str(said))}; {work}", variables).stderr
                )
            )
            for _ in range(3)
        ]
        for start in starts:
            start.start()
        for start in starts:
            start.join()
        assert said.read_text().split() == ["in", "out"] * 3
        assert sum("Waiting for another start" in output for output in outputs) == 2

    def test_the_lock_of_a_killed_start_is_taken_over(self, checkout: Path, home: Path) -> None:
        gone = subprocess.Popen(["/bin/sh", "-c", "exit"])
        gone.wait()
        lock = checkout / ".cache" / "setup.lock"
        lock.mkdir(parents=True)
        (lock / "pid").write_text(f"{gone.pid}\n")
        variables = environment(home) | {"PATH": os.environ["PATH"]}
        taken = shell(checkout, 'take_lock; [ "$(cat "$setup_lock/pid")" = $$ ]', variables)
        assert taken.returncode == 0
        assert taken.stderr == ""
        assert not lock.exists()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def command(checkout: Path, *arguments: str) -> list[str]:
    return [sys.executable, str(checkout / "scripts" / "lib" / "start.py"), *arguments]


class Started:
    """A proxy that runs, and the lines it has printed."""

    def __init__(self, process: "subprocess.Popen[str]", lines: list[str]) -> None:
        self.process = process
        self.lines = lines

    def line(self, begin: str) -> str:
        """What follows these words."""
        [found] = [line for line in self.lines if line.strip().startswith(begin)]
        return found.strip().removeprefix(begin).strip()

    def exported(self) -> dict[str, str]:
        """The variables that a shell has after pasting what was printed."""
        pasted = "\n".join(line for line in self.lines if line.startswith("  export"))
        shown = subprocess.check_output(["/bin/sh", "-c", f"{pasted}\nenv"], env={}, text=True)
        return dict(line.split("=", 1) for line in shown.splitlines())


@contextmanager
def started(
    checkout: Path, home: Path, *arguments: str, variables: Mapping[str, str] | None = None
) -> Iterator[Started]:
    process = subprocess.Popen(
        command(checkout, *arguments),
        env=environment(home) | {"PATH": os.environ["PATH"]} | dict(variables or {}),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    watchdog = threading.Timer(60, process.kill)
    watchdog.start()
    assert process.stdout
    assert process.stderr
    try:
        lines: list[str] = []
        for line in process.stdout:
            lines.append(line.rstrip("\n"))
            if "CURL_CA_BUNDLE" in line:
                break
        else:
            pytest.fail(f"it did not start: {process.stderr.read()}")
        yield Started(process, lines)
    finally:
        process.send_signal(signal.SIGINT)
        process.wait()
        watchdog.cancel()
        process.stdout.close()
        process.stderr.close()


def fetch(url: str) -> bytes:
    """The page as this machine gets it, whatever proxy is set; an error of urllib's if refused."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(url) as answer:
        body: bytes = answer.read()
        return body


class TestStarting:
    def test_mitmweb_is_printed_with_a_token_that_opens_it_and_that_no_one_else_sees(
        self, checkout: Path, home: Path
    ) -> None:
        port, web_port = free_port(), free_port()
        arguments = ("-p", str(port), "--web-port", str(web_port))
        with started(checkout, home, *arguments) as proxy:
            page, token = proxy.line("mitmweb:").split("?token=")
            assert page == f"http://127.0.0.1:{web_port}/"
            with pytest.raises(urllib.error.HTTPError, match="403"):
                fetch(f"{page}options")
            options = json.loads(fetch(f"{page}options?token={token}"))
            assert "comment" in options["web_columns"]["value"]
            assert options["web_password"]["value"] == ""
            pid = str(proxy.process.pid)
            seen = subprocess.check_output(["ps", "-ww", "-o", "args=", "-p", pid], text=True)
            assert "start.py" in seen
            assert token not in seen

    def test_what_is_printed_can_be_pasted_and_is_true(self, checkout: Path, home: Path) -> None:
        port = free_port()
        with started(checkout, home, "--dump", "--listen-port", str(port)) as proxy:
            assert proxy.line("HTTP(S) proxy:") == f"http://127.0.0.1:{port}"
            variables = proxy.exported()
        assert variables["HTTPS_PROXY"] == variables["HTTP_PROXY"] == f"http://127.0.0.1:{port}"
        ca = Path(variables["NODE_EXTRA_CA_CERTS"])
        bundle = Path(variables["SSL_CERT_FILE"])
        assert ca.is_relative_to(checkout)
        assert ca.read_text() in bundle.read_text()
        roots = ssl.create_default_context(cafile=str(bundle)).cert_store_stats()["x509_ca"]
        assert roots > 20
        assert "https_proxy" not in variables
        assert not list(home.iterdir())

    def test_lower_case_names_are_set_where_they_would_win(
        self, checkout: Path, home: Path
    ) -> None:
        address = f"regular@{free_port()}"
        with started(
            checkout, home, "--dump", "--mode", address, variables={"https_proxy": "http://other"}
        ) as proxy:
            variables = proxy.exported()
        assert variables["https_proxy"] == variables["HTTPS_PROXY"]
        assert "http_proxy" not in variables

    def test_a_bundle_made_from_our_own_does_not_grow(self, checkout: Path, home: Path) -> None:
        sizes = []
        variables: dict[str, str] = {}
        for _ in range(2):
            mode = f"regular@{free_port()}"
            with started(checkout, home, "--dump", "--mode", mode, variables=variables) as proxy:
                variables = {"SSL_CERT_FILE": proxy.exported()["SSL_CERT_FILE"]}
            sizes.append(Path(variables["SSL_CERT_FILE"]).stat().st_size)
        assert sizes[0] == sizes[1]

    def test_arguments_win(self, checkout: Path, home: Path, tmp_path: Path) -> None:
        port, reverse = free_port(), free_port()
        other = tmp_path / "other.py"
        other.write_text("def running(): print('the other script runs', flush=True)\n")
        arguments = [
            *("--dump", "--mode", f"regular@{port}", "--mode"),
            *(f"reverse:https://127.0.0.1:1@127.0.0.1:{reverse}", "--set", "confdir=conf dir"),
            *("--set", f"scripts={other}"),
        ]
        (tmp_path / "conf dir").mkdir()
        old = Path.cwd()
        os.chdir(tmp_path)
        try:
            with started(checkout, home, *arguments) as proxy:
                variables = proxy.exported()
        finally:
            os.chdir(old)
        assert variables["HTTPS_PROXY"] == f"http://127.0.0.1:{port}"
        assert Path(variables["SSL_CERT_FILE"]).parent == tmp_path / "conf dir"
        assert f"http://127.0.0.1:{reverse}" in proxy.line("reverse proxy to https://127.0.0.1:1:")
        assert any(str(checkout / "addon" / "context.py") in line for line in proxy.lines)
        assert "the other script runs" in proxy.lines

    def test_it_ends_quietly(self, checkout: Path, home: Path) -> None:
        with started(checkout, home, "--dump", "-p", str(free_port())) as proxy:
            assert proxy.process.stdout
            assert proxy.process.stderr
            proxy.process.send_signal(signal.SIGINT)
            assert proxy.process.wait() == 0
            assert proxy.process.stderr.read() == ""
            assert proxy.process.stdout.read() == ""

    @pytest.mark.parametrize(
        ("arguments", "advice"),
        [
            (("--dump", "--listen-port", "{port}"), "--listen-port {next}"),
            (("--dump", "--mode", "regular@{port}"), "--mode regular@{next}"),
            (("-p", "{free}", "--web-port", "{port}"), "--web-port {next}"),
        ],
        ids=["the proxy's", "a mode's own", "mitmweb's"],
    )
    def test_a_port_in_use_is_one_sentence(
        self, arguments: tuple[str, ...], advice: str, checkout: Path, home: Path
    ) -> None:
        with socket.socket() as holder:
            holder.bind(("127.0.0.1", 0))
            holder.listen()
            port = holder.getsockname()[1]
            names = {"port": port, "next": port + 10, "free": free_port()}
            refused = subprocess.run(
                command(checkout, *(argument.format(**names) for argument in arguments)),
                env=environment(home) | {"PATH": os.environ["PATH"]},
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )
        assert refused.returncode == 1
        assert refused.stdout == ""
        [sentence] = refused.stderr.splitlines()
        assert f"127.0.0.1:{port} is in use" in sentence
        assert sentence.endswith(advice.format(**names))


@pytest.mark.parametrize("script", ["run", "test"])
def test_help_sets_nothing_up(script: str, checkout: Path, home: Path, tools: Path) -> None:
    shutil.copy(ROOT / "scripts" / script, checkout / "scripts" / script)
    shown = subprocess.run(
        ["/bin/sh", checkout / "scripts" / script, "--help"],
        env=environment(home, tools),
        capture_output=True,
        text=True,
        check=True,
    )
    assert shown.stdout.startswith("Usage:")
    assert not (checkout / ".cache").exists()
    assert not (checkout / ".venv").exists()


@pytest.mark.parametrize("lock", ["requirements.lock", "tests/requirements.lock"])
def test_locks_name_no_host_and_hash_everything(lock: str) -> None:
    text = (ROOT / lock).read_text()
    assert "://" not in text
    assert "--index" not in text
    assert "--find-links" not in text
    pins = [line for line in text.splitlines() if line and not line.startswith((" ", "#"))]
    assert pins
    assert all("==" in pin and pin.endswith("\\") for pin in pins)
