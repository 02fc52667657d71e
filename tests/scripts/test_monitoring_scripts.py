"""./scripts/load, ./scripts/monitor and ./scripts/bench specification, with real servers."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import bench_specification
import load_base_url
import watch_proxy
from loopback import certificates, child
from loopback.devtools import free_port
from loopback.provider import HOSTS, Provider, serving
from mitmcontext.proxy.figures import Figures
from mitmcontext.values import Action, Outcome

SCRIPTS = Path(__file__).parents[2] / "scripts"


@pytest.fixture(scope="module")
def leaf(tmp_path_factory: pytest.TempPathFactory) -> certificates.Certificates:
    return certificates.make(tmp_path_factory.mktemp("provider"), HOSTS)


def test_load_through_the_proxy_is_seen_by_the_monitor(
    leaf: certificates.Certificates,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A reverse proxy for the load, and a regular port beside it for the figures."""
    file = tmp_path / "load.json"
    with serving(Provider(), leaf) as provider:
        port = free_port()
        reverse = f"reverse:http://127.0.0.1:{provider.plain_port}@127.0.0.1:{port}"
        modes = ["--mode", "regular@127.0.0.1:0", "--mode", reverse]
        with child.running({}, confdir=tmp_path / "confdir", arguments=modes) as proxy:
            url = f"http://127.0.0.1:{port}"
            code = load_base_url.main(
                [url, "--requests", "150", "--concurrent", "4", "--json", str(file)]
            )
            told = capsys.readouterr().out
            assert watch_proxy.main([proxy.url, "--once"]) == 0
            shown = capsys.readouterr().out
        assert len(provider.requests("openai")) == 150
    assert code == 0
    assert "succeeded           150   100.00%" in told
    assert "150 x 200" in told
    found = json.loads(file.read_text())
    assert found["p50_processing_time_ms"] <= found["p99_processing_time_ms"]
    assert "150 LLM requests" in shown
    assert "errors per LLM request" in shown


def test_nobody_there_is_said_in_a_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert load_base_url.main(["http://127.0.0.1:9", "--requests", "3"]) == 1
    assert "3 x ConnectError" in capsys.readouterr().out
    assert watch_proxy.main(["http://127.0.0.1:9", "--once"]) == 1
    assert "no proxy answers there" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments",
    [["ftp://x"], ["http://x", "--concurrent", "5000"], ["http://x", "--requests", "0"]],
)
def test_what_is_asked_for_is_bounded(arguments: list[str]) -> None:
    with pytest.raises(SystemExit):
        load_base_url.main(arguments)


def test_the_monitor_shows_nothing_that_acts_on_a_terminal(
    capsys: pytest.CaptureFixture[str],
) -> None:
    figures = Figures(lambda: 0.0)
    figures.record(Outcome(Action.FAILED_OPEN, "\x1b[2J\x1b]0;title\x07\nsecond line", "api"))
    looks = [watch_proxy.Look(figures.snapshot(), at) for at in (0.0, 2.0)]
    watch_proxy.show(list(watch_proxy.screen(looks)), again=False)
    shown = capsys.readouterr().out
    assert "\x1b" not in shown
    assert "^[[2J" in shown
    assert "0.0 a second" in shown


def test_a_sparkline_goes_from_low_to_high() -> None:
    assert watch_proxy.sparkline([0, 1, 2, 3, 4, 5, 6, 7]) == watch_proxy.BLOCKS
    assert watch_proxy.sparkline([5, 5]) == "▁▁"


def test_the_suite_is_told_beside_its_targets(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plot, file = tmp_path / "plot.svg", tmp_path / "results.json"
    arguments = ["--iterations", "3", "--requests", "40"]
    arguments += ["--plot", str(plot), "--json", str(file)]
    assert bench_specification.main(arguments) in (0, 1)
    told = capsys.readouterr().out
    assert told.count("> 10,000") == 7
    assert told.count("tokens saved") == 3
    for target in ("speed", "counting accuracy", "hit ratio", "response time", "token savings"):
        assert told.count(target) == 1
    assert set(json.loads(file.read_text())) == {"token_counting", "condensation"}
    assert plot.read_text().count("<rect") == 9


@pytest.mark.parametrize("script", ["load", "monitor", "bench", "soak"])
def test_the_scripts_have_help(script: str) -> None:
    said = subprocess.run([SCRIPTS / script, "--help"], capture_output=True, text=True, check=True)
    assert said.stdout.startswith(f"Usage: ./scripts/{script}")


def test_they_run_by_themselves() -> None:
    """As the shell scripts start them: with nothing on the path but what they put there."""
    for name in ("load_base_url", "watch_proxy", "bench_specification", "soak_proxy"):
        command = [sys.executable, str(SCRIPTS / f"{name}.py"), "--help"]
        subprocess.run(command, capture_output=True, check=True, env={})
