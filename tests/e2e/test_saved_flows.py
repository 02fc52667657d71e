"""Saved flows are read, and what condensing would have done with them is told; nothing changes."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.e2e.fixture_types import Connect, StartProxy

from demo.session import Session, encode
from loopback import child
from loopback.child import Child
from loopback.provider import Provider, with_windows

WINDOW = 24_000
PATH = "/v1/messages?beta=true"
HEADERS = (("x-api-key", "k"), ("content-type", "application/json"))


def recorded(proxy: Child, connect: Connect, flows: Path, count: int) -> list[bytes]:
    """Play the beginning of a session through a proxy that saves its flows."""
    connection = connect(proxy)
    bodies = [encode(body) for body in list(Session().requests())[:count]]
    for body in bodies:
        connection.post(PATH, HEADERS, body)
    proxy.stop()
    assert flows.stat().st_size > sum(map(len, bodies))
    return bodies


def read(flows: Path, folder: Path, *options: str, save_to: Path | None = None) -> str:
    """What mitmdump says when it reads the flows with our addon, and nothing else."""
    mitmdump = str(Path(sys.executable).with_name("mitmdump"))
    command = [mitmdump, "-nr", str(flows), "-s", str(child.ADDON)]
    command += ["--set", f"confdir={folder / 'confdir'}", "--set", "flow_detail=0"]
    command += ["-w", str(save_to)] if save_to else []
    for option in options:
        command += ["--set", option]
    environment = os.environ | {"CONTEXT_CACHE_DIR": str(folder / "cache")}
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=60, check=True
    )
    return done.stdout + done.stderr


@pytest.fixture
def flows(provider: Provider, start_proxy: StartProxy, connect: Connect, tmp_path: Path) -> Path:
    """A file with the flows of a session of 45 requests."""
    provider.models = with_windows({"*": 1_000_000})
    file = tmp_path / "flows.mitm"
    proxy = start_proxy(f"save_stream_file={file}", addon=None)
    recorded(proxy, connect, file, 45)
    return file


def figure(said: str, pattern: str) -> float:
    match = re.search(pattern, said)
    assert match is not None, said
    return float(match[1].replace(",", ""))


def test_saved_flows_tell_what_condensing_would_have_saved_and_lost(
    flows: Path, tmp_path: Path
) -> None:
    before = flows.read_bytes()
    said = read(flows, tmp_path, f"context_windows=claude-*={WINDOW}")

    assert figure(said, r"(\d+) requests, 45 of them to LLMs") == 45
    sent = figure(said, r"([\d,]+) tokens sent")
    forwarded = figure(said, r"would have forwarded ([\d,]+)")
    assert 0.3 * sent < forwarded < sent
    assert figure(said, r"by (\d+) steps") >= 1
    assert figure(said, r"they cost \$([\d.]+)") > 0
    assert re.search(r"would have saved -?\$[\d.]+ \(-?[\d.]+%\) after cache effects", said)
    assert re.search(r"what would have been shortened: .*\d+ x tool result", said)
    assert "without a report" not in said
    assert "Traceback" not in said
    assert flows.read_bytes() == before


def test_nothing_of_a_saved_flow_changes(flows: Path, tmp_path: Path) -> None:
    copy, plain = tmp_path / "copy.mitm", tmp_path / "plain.mitm"
    read(flows, tmp_path, f"context_windows=claude-*={WINDOW}", save_to=copy)
    read(flows, tmp_path, "context_mode=off", save_to=plain)
    assert copy.read_bytes() == plain.read_bytes()
    assert not list(tmp_path.glob("cache/*.db")) or b"claude" not in b"".join(
        file.read_bytes() for file in tmp_path.glob("cache/*")
    )


def test_of_an_unknown_model_no_saving_in_money_is_claimed(
    provider: Provider, start_proxy: StartProxy, connect: Connect, tmp_path: Path
) -> None:
    provider.models = with_windows({"*": 1_000_000})
    file = tmp_path / "flows.mitm"
    connection = connect(proxy := start_proxy(f"save_stream_file={file}", addon=None))
    body = encode(next(iter(Session().requests())))
    renamed = re.sub(rb'"model":\s*"[^"]+"', b'"model":"claude-of-tomorrow-9"', body, count=1)
    assert renamed != body
    answer: Any = connection.post(PATH, HEADERS, renamed)
    assert answer.status == 200
    proxy.stop()

    said = read(file, tmp_path)

    assert "1 requests of models whose prices are not known" in said
    assert "$" not in said
