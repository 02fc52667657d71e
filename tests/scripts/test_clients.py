"""Driving clients: with curl, which is there, and with clients that do what they should not."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from clients import install, stage
from clients.drivers import ANTHROPIC, CHAT, DRIVERS, KEYS, OPENAI, curl, look
from clients.install import Installed, NotInstalled, Wanted
from clients.main import Row, table
from clients.stage import Command, Driver, Scene, Seen, tool_names
from loopback import certificates
from loopback.certificates import Certificates

PYTHON = Installed("3", Path(sys.executable))
CURL = Driver("curl", "curl", CHAT, OPENAI, curl, look, environment=KEYS, window=9_000, turns=12)
needs_curl = pytest.mark.skipif(not shutil.which("curl"), reason="there is no curl")


@pytest.fixture(scope="module")
def leaf(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return certificates.make(tmp_path_factory.mktemp("provider"), [*ANTHROPIC, *OPENAI])


def says(program: str) -> Driver:
    """A client that is a line of Python."""

    def commands(scene: Scene) -> Sequence[Command]:
        return [Command([scene.program, "-c", program])]

    return replace(CURL, name="python", commands=commands)


@needs_curl
def test_a_client_that_works(leaf: Certificates, tmp_path: Path) -> None:
    seen = stage.play(CURL, install.install("curl"), tmp_path, leaf)
    assert seen.problems == []
    assert (seen.honoured, seen.trusted, seen.requests, seen.refused) == (True, True, 13, [])
    assert seen.steps >= 1
    assert seen.largest <= CURL.window


@needs_curl
@pytest.mark.parametrize(
    ("environment", "problem"),
    [
        ({"CURL_CA_BUNDLE": "", "SSL_CERT_FILE": ""}, "did not trust the CA"),
        ({"https_proxy": "", "HTTPS_PROXY": ""}, "did not use the proxy"),
    ],
)
def test_a_client_that_is_set_up_wrongly(
    environment: dict[str, str], problem: str, leaf: Certificates, tmp_path: Path
) -> None:
    # No one must be asked in truth: a name that exists nowhere.
    hosts = ("nowhere.invalid",)
    fetch = ("-c", "exec curl --silent https://nowhere.invalid/v1/chat/completions -d {}")
    driver = replace(
        CURL,
        hosts=hosts,
        environment=environment,
        commands=lambda scene: [Command(["/bin/sh", *fetch])],
    )
    own = certificates.make(tmp_path / "own", hosts)
    seen = stage.play(driver, install.install("curl"), tmp_path / "run", own)
    assert problem in seen.problems
    assert not seen.works


@pytest.mark.parametrize(
    ("program", "seconds", "problem"),
    [
        ("import time; print('busy', flush=True); time.sleep(60)", 1, "did not end within 1 s"),
        ("import sys; sys.exit('out of paper')", 30, "ended with 1: out of paper"),
        ("print('the answer is 12')", 30, "did not show the answer"),
    ],
)
def test_a_client_that_fails(
    program: str, seconds: float, problem: str, leaf: Certificates, tmp_path: Path
) -> None:
    seen = stage.play(replace(says(program), seconds=seconds), PYTHON, tmp_path, leaf)
    assert seen.problems[0] == problem


def test_a_client_leaves_nothing_behind_that_runs(tmp_path: Path) -> None:
    started = tmp_path / "pid"
    command = Command(["/bin/sh", "-c", f"sleep 600 & echo $! >'{started}'"])
    assert stage.call_within(command, 20, cwd=tmp_path, stdout=subprocess.DEVNULL) == 0
    pid = started.read_text().strip()
    shown = subprocess.run(["ps", "-o", "stat=", "-p", pid], capture_output=True, check=False)
    # Gone, or waiting for the system to clear it away; a busy machine gives it a second letter.
    assert shown.stdout.strip()[:1] in (b"", b"Z")


def test_tools_are_found_in_every_api_and_not_in_a_history() -> None:
    tool = {"name": "look"}
    assert tool_names({"tools": [{"type": "function", "function": tool}]}) == ["look"]
    assert tool_names({"tools": [{"functionDeclarations": [tool]}]}) == ["look"]
    assert tool_names({"request": {"tools": [{"function_declarations": [tool]}]}}) == ["look"]
    assert tool_names({"input": [{"type": "additional_tools", "tools": [tool]}]}) == ["look"]
    assert tool_names({"messages": [{"content": [{"type": "tool_use", **tool}]}]}) == []
    assert tool_names({"input": [{"type": "function_call", **tool}]}) == []
    assert tool_names(None) == []


def test_what_cannot_be_installed_says_why(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(install, "FOLDER", tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NotInstalled, match="there is no npm"):
        list(install.by_npm(Wanted("a", "1", "a", npm="a")))
    with pytest.raises(NotInstalled, match=r"needs Python 3\.2"):
        list(install.by_pip(Wanted("a", "1", "a", pip="a", python="3.2")))
    with pytest.raises(NotInstalled, match="there is no curl"):
        install.install("curl")
    with pytest.raises(NotInstalled, match="no such thing"):
        install.carry_out([sys.executable, "-c", "import sys; sys.exit('no such thing')"])


def test_every_client_has_exactly_one_version() -> None:
    listed = tomllib.loads(install.TABLE.read_text())
    assert set(listed) == {driver.client for driver in DRIVERS} - {"curl"}
    for row in listed.values():
        assert row["version"][0].isdigit()
        assert ("npm" in row) != ("pip" in row)


def test_the_table() -> None:
    rows = [
        Row(CURL, "8", Seen(13, 7, 1, honoured=True, trusted=True)),
        Row(CURL, "", reason="there is no curl"),
    ]
    head, _, works, missing = table(rows)
    assert [cell.strip() for cell in head.split("|")][1:3] == ["client", "version"]
    assert "| yes   | yes | OpenAI Chat | 13       | 7 in 1 step | 0 " in works
    assert works.rstrip(" |").endswith("works")
    assert missing.rstrip(" |").endswith("not installed: there is no curl")
    assert len({len(line) for line in (head, works, missing)}) == 1
