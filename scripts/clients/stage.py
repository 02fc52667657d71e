"""One client on stage: the strict provider, a real mitmdump with the addon, and what was seen.

The provider lets the client call a harmless tool again and again, until the history has outgrown
a small window more than once. It reports what it counts, so that a client's own compaction stays
as quiet as it is with a real provider behind this proxy.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from lib import environment as env
from loopback import child
from loopback.answers import Call, Reply
from loopback.certificates import Certificates
from loopback.child import Child
from loopback.codings import Undecodable, decode
from loopback.http1 import Wire
from loopback.provider import Behaviour, Provider, Record, serving, with_windows
from loopback.websocket import Turn

from .install import Installed

WITNESS = Path(__file__).with_name("witness.py")
# What the client must have understood and shown in the end.
ANSWER = "4711"
FINAL = Reply(f"That was the last one. The answer is {ANSWER}.")
ASIDE = Reply("Counting shelves")

# What the addon counts that must not happen.
UNWELCOME = ("failed_open", "refused_after_rewrite", "refused_length")
STATS = "http://context.mitm/stats.json"


@dataclass(frozen=True, slots=True)
class Command:
    """One start of the client."""

    arguments: Sequence[str | Path]
    stdin: str = ""


@dataclass(frozen=True, slots=True)
class Scene:
    """Where a client runs: its program, an empty home, an empty folder to work in."""

    program: Path
    home: Path
    work: Path


@dataclass(frozen=True, slots=True)
class Driver:
    """How one client is driven, over one API.

    Attributes:
        name: the row of the table.
        client: the entry in clients.toml, or a program of the system's.
        api: as the table shows it.
        hosts: the names that lead to the provider. No other name leads anywhere.
        commands: what is started, one after the other.
        call: the tool that the model calls at a step. None: it only talks, at length.
        turns: how often.
        window: of all models, to the proxy and to the provider.
        environment: what a user would set besides the proxy and the CA.
        seconds: for all commands.
        options: of the proxy.
    """

    name: str
    client: str
    api: str
    hosts: tuple[str, ...]
    commands: Callable[[Scene], Sequence[Command]]
    call: Callable[[int], Call] | None
    turns: int = 24
    window: int = 16_000
    environment: Mapping[str, str] = field(default_factory=dict)
    seconds: float = 120.0
    options: tuple[str, ...] = ()


@dataclass
class Seen:
    """What came of one run."""

    requests: int = 0
    condensed: int = 0
    steps: int = 0
    refused: list[str] = field(default_factory=list)
    largest: int = 0
    honoured: bool = False
    trusted: bool | None = None
    problems: list[str] = field(default_factory=list)

    @property
    def works(self) -> bool:
        """Everything went as it should."""
        return not self.problems


class Script(Provider):
    """A provider that knows its part: a call for each turn, then the answer."""

    def __init__(self, driver: Driver) -> None:
        super().__init__(with_windows({"*": driver.window}), behaviour=Behaviour(encoding="accept"))
        self.driver = driver
        self.turn = 0

    def handle(self, wire: Wire) -> tuple[Record, Any]:
        """Judge a request as any, with a reply that fits it."""
        said = self.prompt(body_of(wire))
        record, answer = super().handle(wire)
        self.go_on(said, record.status)
        return record, answer

    def take(self, wire: Wire, body: Any) -> Turn:
        """The same for a turn that came over a WebSocket."""
        said = self.prompt(body)
        turn = super().take(wire, body)
        self.go_on(said, turn.status)
        return turn

    def prompt(self, body: Any) -> Reply:
        """Lay out what is said next, if anything is."""
        said = self.reply(body)
        self.replies.clear()
        self.replies.append(said)
        return said

    def go_on(self, said: Reply, status: int) -> None:
        """The next turn, if a part of the play was spoken."""
        if status == 200 and not self.replies and said not in (FINAL, ASIDE):
            self.turn += 1

    def reply(self, body: Any) -> Reply:
        """What is said next. A request without the tool is one that the client makes for itself."""
        call = self.driver.call
        if self.turn >= self.driver.turns:
            return FINAL
        if call is None:
            return Reply(talk(self.turn))
        wanted = call(self.turn)
        if wanted.name not in tool_names(body):
            return ASIDE
        return Reply(f"On to shelf {self.turn}.", (wanted,))


def body_of(wire: Wire) -> Any:
    """The JSON of a request, None if there is none."""
    try:
        return json.loads(decode(wire.body, wire.header("content-encoding").lower()))
    except (ValueError, Undecodable):
        return None


def talk(number: int) -> str:
    """A long answer that is like no other one."""
    lines = (f"Shelf {number}, place {place}: title-{number}-{place}." for place in range(110))
    return "\n".join(lines)


def tool_names(value: Any, *, inside: bool = False) -> list[str]:
    """Every name below a key that holds tools; a history can hold some, too."""
    if isinstance(value, list):
        return [name for item in value for name in tool_names(item, inside=inside)]
    if not isinstance(value, dict):
        return []
    found = [value["name"]] if inside and isinstance(value.get("name"), str) else []
    for key, item in value.items():
        tools = inside or key in ("tools", "functionDeclarations", "function_declarations")
        if tools or key in ("input", "contents", "request"):
            found += tool_names(item, inside=tools)
    return found


def play(driver: Driver, installed: Installed, folder: Path, provider_leaf: Certificates) -> Seen:
    """Run a client through its part and say what was seen."""
    scene = Scene(installed.program, folder / "home", folder / "work")
    for place in (scene.home, scene.work, scene.home / "tmp"):
        place.mkdir(parents=True)
    if git := shutil.which("git"):
        # Agents look for a repository, and the one around this folder is none of theirs.
        subprocess.run([git, "init", "--quiet", str(scene.work)], check=True)
    notes = folder / "witness.jsonl"
    notes.touch()
    with serving(Script(driver), provider_leaf) as provider:
        proxy = start_proxy(driver, folder, provider, provider_leaf, notes)
        try:
            problem = run(driver, scene, proxy, folder / "client.log")
            stats = figures(proxy)
        finally:
            proxy.stop()
    return judge(driver, provider, stats, notes, problem)


def start_proxy(
    driver: Driver, folder: Path, provider: Provider, leaf: Certificates, notes: Path
) -> Child:
    """A mitmdump whose only way out is the provider."""
    proxy = child.start(
        dict.fromkeys(driver.hosts, provider.tls_port),
        folder / "confdir",
        provider_authority=leaf.authority,
        options=(
            f"context_windows=*={driver.window}",
            f"witness_file={notes}",
            *driver.options,
        ),
        arguments=("-s", str(WITNESS)),
    )
    env.write_bundle(proxy.confdir, proxy.authority.read_bytes(), os.environ)
    return proxy


def run(driver: Driver, scene: Scene, proxy: Child, log: Path) -> str:
    """Run the client's commands; a sentence if one did not end well."""
    clean = {
        "HOME": str(scene.home),
        "TMPDIR": str(scene.home / "tmp"),
        "PATH": os.pathsep.join([str(scene.program.parent), os.environ.get("PATH", os.defpath)]),
        "LANG": "C.UTF-8",
        "TERM": "dumb",
        "PYTHONUNBUFFERED": "1",
        "PYTHONPATH": str(env.ROOT / "scripts"),  # for our own programs
    }
    variables = env.for_a_command(clean, proxy.url, env.Trust.of(proxy.confdir))
    variables |= driver.environment
    deadline = time.monotonic() + driver.seconds
    with log.open("wb") as output:
        for command in driver.commands(scene):
            left = deadline - time.monotonic()
            status = call_within(command, left, cwd=scene.work, env=variables, stdout=output)
            if status is None:
                return f"did not end within {driver.seconds:.0f} s"
            if status:
                return f"ended with {status}: {last_line(log)}"
    return "" if ANSWER in log.read_text(errors="replace") else "did not show the answer"


def call_within(command: Command, seconds: float, **named: Any) -> int | None:
    """Run a command and all that it starts; None if the time was not enough."""
    process = subprocess.Popen(
        [str(argument) for argument in command.arguments],
        stdin=subprocess.PIPE if command.stdin else subprocess.DEVNULL,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        **named,
    )
    try:
        process.communicate(command.stdin.encode() or None, timeout=max(0.1, seconds))
        return process.returncode
    except subprocess.TimeoutExpired:
        return None
    finally:
        end_session(process)
        if process.stdin:
            with contextlib.suppress(OSError):
                process.stdin.close()


def end_session(process: subprocess.Popen[bytes]) -> None:
    """End what a client has left behind: it has a session of its own."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    process.wait()


def last_line(log: Path) -> str:
    """What a client said last."""
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1].strip()[:160] if lines else "it said nothing"


def figures(proxy: Child) -> dict[str, Any]:
    """The addon's own counts."""
    with httpx.Client(proxy=proxy.url, trust_env=False, timeout=20) as client:
        found: dict[str, Any] = client.get(STATS).json()
    return found


def judge(
    driver: Driver, provider: Provider, stats: dict[str, Any], notes: Path, problem: str
) -> Seen:
    """Hold what happened against what should have."""
    events = [json.loads(line) for line in notes.read_text().splitlines()]
    kinds = {note["event"] for note in events if note["host"] in driver.hosts}
    # What only asked for a WebSocket has no body; what came over one has.
    records = [
        record
        for record in provider.requests()
        if record.api and (record.wire.method == "POST" or record.body is not None)
    ]
    counts = stats["requests"]
    seen = Seen(
        requests=len(records),
        condensed=counts["condensed"] + counts["reapplied"],
        steps=stats["steps"],
        refused=[record.refusal.message for record in records if record.refusal],
        largest=max((record.tokens for record in records), default=0),
        honoured=bool(kinds),
        trusted=("request" in kinds) if kinds & {"request", "distrusted"} else None,
    )
    seen.problems = list(problems(driver, seen, provider, stats))
    if problem:
        seen.problems.insert(0, problem)
    return seen


def problems(driver: Driver, seen: Seen, provider: Provider, stats: dict[str, Any]) -> list[str]:
    """What is not as it should be, the most telling first."""
    found = []
    if not seen.honoured:
        found.append("did not use the proxy")
    elif not seen.trusted:
        found.append("did not trust the CA")
    if seen.refused:
        found.append(f"refused: {seen.refused[0][:160]}")
    if seen.requests and not seen.condensed:
        found.append("passes untouched")
    elif seen.steps < 1:
        found.append("no step was taken")
    counts = stats["requests"]
    found += [f"{name}: {counts[name]}" for name in UNWELCOME if counts.get(name)]
    if stats["prefix_breaks_unexplained"]:
        found.append(f"unexplained prefix breaks: {stats['prefix_breaks_unexplained']}")
    if seen.largest > driver.window:
        found.append(f"{seen.largest} tokens got through")
    return found
