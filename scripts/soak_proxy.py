"""A real proxy in trouble for as long as wanted: nobody may be harmed, and nothing may grow.

    ./scripts/soak --minutes 60 --seed 7

Agents talk, hang up, go back, send nonsense and bombs; meanwhile the provider is overloaded now and
then, the model writes bad summaries, the addon is reloaded and its database damaged. Who does what
follows from the seed; when it meets what else happens does not.
"""

from __future__ import annotations

import argparse
import contextlib
import gzip
import json
import logging
import random
import re
import shutil
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

import httpx

from demo.session import Session, encode
from loopback import certificates, child, summariser
from loopback.answers import Reply
from loopback.child import Child
from loopback.client import Connection
from loopback.provider import HOSTS, Behaviour, Provider, serving, with_windows
from loopback.summariser import Summariser, fair

WATCH: Final = Path(__file__).with_name("loopback") / "loop_watch.py"
WINDOW: Final = 24_000
PATH: Final = "/v1/messages?beta=true"
TARGET_MS: Final = 20.0
"""The addon is to hold the event loop no longer."""

_SESSIONS: Final = 4
_BUSY: Final = 529
_KEPT: Final = 200
_VIOLATIONS_KEPT: Final = 50


@dataclass
class Tally:
    """What was done, and what went wrong. Threads share it."""

    did: Counter[str] = field(default_factory=Counter)
    violations: list[str] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def count(self, what: str) -> None:
        """Something was done."""
        with self._lock:
            self.did[what] += 1

    def violated(self, what: str) -> None:
        """Something happened that must not."""
        with self._lock:
            self.did["violations"] += 1
            if len(self.violations) < _VIOLATIONS_KEPT:
                self.violations.append(what)


@dataclass(frozen=True)
class Sample:
    """What the proxy took at some moment, in seconds since the start, bytes and numbers."""

    at: float
    memory: int
    descriptors: int
    threads: int
    tasks: int


@dataclass
class Stage:
    """What everybody has to do with."""

    provider: Provider
    proxy: Child
    addon: Path
    cache: Path
    port: int
    stories: Sequence[Sequence[bytes]]
    tally: Tally
    stop: threading.Event = field(default_factory=threading.Event)


class Agent:
    """A client: one conversation after the other, each under a key of its own."""

    def __init__(self, stage: Stage, number: int, seed: int) -> None:
        self._stage = stage
        self._chance = random.Random(f"{seed} agent {number}")
        self._name = f"agent-{number}"
        self._talks = 0
        self._connection: Connection | None = None

    def run(self) -> None:
        """Talk until told to stop."""
        while not self._stage.stop.is_set():
            self._talks += 1
            key = f"{self._name}-{self._talks}"
            try:
                self._talk(key)
            except Exception as error:  # noqa: BLE001 - told at the end
                self._stage.tally.violated(f"{key}: {type(error).__name__}: {error}")
                self._hang_up()
            # What the provider remembers of an account would make this process grow.
            self._stage.provider.accounts.pop(key, None)
        self._hang_up()

    def _talk(self, key: str) -> None:
        chance = self._chance
        story = chance.choice(self._stage.stories)
        turn = chance.randrange(0, 24)
        for _ in range(chance.randrange(5, 40)):
            if self._stage.stop.is_set() or turn >= len(story):
                return
            self._trouble(key, story[turn])
            self._ask(key, story[turn])
            turn = max(0, turn - chance.randrange(8)) if chance.random() < 0.06 else turn + 1

    def _ask(self, key: str, body: bytes) -> None:
        answer = self._line().post(PATH, _headers(key), body)
        self._stage.tally.count("requests")
        if answer.status == _BUSY:
            self._stage.tally.count("overloaded")
        elif answer.status != 200:
            self._stage.tally.violated(f"{key}: status {answer.status}")

    def _trouble(self, key: str, body: bytes) -> None:
        chance = self._chance
        kinds: dict[float, tuple[str, Callable[[], None]]] = {
            0.04: ("went while sending", partial(self._go, key, body, chance.random())),
            0.08: ("went while waiting", partial(self._go, key, body, 1.0)),
            0.11: ("nonsense", partial(self._post, f"odd-{key}", body[: chance.randrange(9_999)])),
            0.12: ("bombs", partial(self._post, f"odd-{key}", _BOMB, ("content-encoding", "gzip"))),
        }
        drawn = chance.random()
        for share, (name, make) in kinds.items():
            if drawn < share:
                self._stage.tally.count(name)
                make()
                return

    def _post(self, key: str, body: bytes, *more: tuple[str, str]) -> None:
        self._line().post(PATH, (*_headers(key), *more), body)
        self._stage.provider.accounts.pop(key, None)

    def _go(self, key: str, body: bytes, share: float) -> None:
        head = f"POST {PATH} HTTP/1.1\r\nHost: {HOSTS[0]}\r\nx-api-key: {key}\r\n"
        data = f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body
        self._line().socket.sendall(data[: int(len(data) * share)])
        time.sleep(self._chance.random() * 0.1)
        self._hang_up()

    def _line(self) -> Connection:
        if self._connection is None:
            proxy = self._stage.proxy
            self._connection = Connection(proxy.port, proxy.authority, HOSTS[0], self._stage.port)
        return self._connection

    def _hang_up(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


class Troublemaker:
    """Everything that happens to the proxy from elsewhere."""

    def __init__(self, stage: Stage, seed: int, every: float) -> None:
        self._stage = stage
        self._chance = random.Random(f"{seed} trouble")
        self._every = every

    def run(self) -> None:
        """Make trouble until told to stop."""
        kinds = [
            self.reload,
            self.overload,
            self.slow,
            self.bad_model,
            self.good_model,
            self.damage,
        ]
        turn = 0
        while not self._stage.stop.wait(self._every * (0.5 + self._chance.random())):
            if turn % len(kinds) == 0:
                self._chance.shuffle(kinds)
            kind, turn = kinds[turn % len(kinds)], turn + 1
            self._stage.tally.count(kind.__name__.replace("_", " "))
            with contextlib.suppress(FileNotFoundError):
                kind()

    def reload(self) -> None:
        """The addon's code is loaded anew; now and then in a state that does not load."""
        text = self._stage.addon.read_text()
        if self._chance.random() < 0.3:
            self._save(text + "\nthis is no Python\n")
            self._stage.stop.wait(2)
        self._save(text)

    def _save(self, text: str) -> None:
        """Save the addon's script, as a whole: half a file would be trouble of another kind."""
        part = self._stage.addon.with_suffix(".part")
        part.write_text(text)
        part.rename(self._stage.addon)

    def overload(self) -> None:
        """The provider has too much to do."""
        self._stage.provider.replies.extend([Reply(status=_BUSY)] * 3)

    def slow(self) -> None:
        """Answers come slowly, or at once again."""
        gap = self._chance.choice((0.0, 0.0, 0.05))
        self._stage.provider.behaviour = Behaviour(gap=gap)

    def bad_model(self) -> None:
        """Summaries are of no use, or do not come."""
        bad = (summariser.silent(), summariser.dripping(0.1), summariser.as_json([1]), _CUT)
        self._model().sends = self._chance.choice(bad)

    def good_model(self) -> None:
        """Summaries are as they should be."""
        self._model().sends = None

    def damage(self) -> None:
        """Some of what is kept is overwritten."""
        database = self._stage.cache / "ledger.db"
        with database.open("r+b") as file:
            file.seek(self._chance.randrange(max(1, database.stat().st_size)))
            file.write(self._chance.randbytes(64))

    def _model(self) -> Summariser:
        model = self._stage.provider.summariser
        if model is None:
            raise RuntimeError
        # What it was asked would make this process grow.
        model.bodies.clear()
        return model


_CUT: Final = summariser.cut_off(b'{"type":"message"')
_ASKED_FOR: Final = re.compile(
    r"^(?:SyntaxError|mitmproxy\.exceptions\.AddonManagerError: An addon called 'nonetype')",
    re.MULTILINE,
)
_BOMB: Final = gzip.compress(bytes(64 << 20), 9)


def _headers(key: str) -> tuple[tuple[str, str], ...]:
    return ("x-api-key", key), ("content-type", "application/json")


def watched(client: httpx.Client) -> dict[str, Any]:
    """What the watch in the proxy has measured."""
    found: dict[str, Any] = client.get("http://watch.test/").raise_for_status().json()
    return found


def sample(proxy: Child, client: httpx.Client, began: float) -> Sample:
    """What the proxy takes now."""
    inside = watched(client)
    descriptors = len(list((proxy.proc / "fd").iterdir()))
    at = time.monotonic() - began
    return Sample(at, proxy.memory_bytes(), descriptors, inside["threads"], inside["tasks"])


def slope(samples: Sequence[Sample], what: str) -> float:
    """By how much a figure grows in a minute, by least squares over the second half."""
    half = samples[len(samples) // 2 :]
    if len(half) < 2:
        return 0.0
    times = [one.at / 60 for one in half]
    values = [float(getattr(one, what)) for one in half]
    time_mean, mean = sum(times) / len(times), sum(values) / len(values)
    spread = sum((at - time_mean) ** 2 for at in times)
    pairs = zip(times, values, strict=True)
    return sum((at - time_mean) * (value - mean) for at, value in pairs) / spread if spread else 0.0


def soak(minutes: float, seed: int, clients: int) -> dict[str, Any]:
    """Make trouble for so long; everything that was found."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mitmcontext-soak-")))
        leaf = certificates.make(folder / "provider", HOSTS)
        provider = Provider(with_windows({"*": 1_000_000}), keep=_KEPT, summariser=Summariser(fair))
        stack.enter_context(serving(provider, leaf))
        addon = folder / "addon"
        shutil.copytree(child.ADDON.parent, addon, ignore=shutil.ignore_patterns("__pycache__"))
        proxy = child.start(
            dict.fromkeys(HOSTS, provider.tls_port),
            folder / "confdir",
            provider_authority=leaf.authority,
            addon=addon / "context.py",
            arguments=["-s", str(WATCH), "--set", "flow_detail=0"],
            options=[
                f"context_windows=*={WINDOW}",
                "condensation_max_cost=1",
                "condensation_timeout=2s",
                "termlog_verbosity=warn",
            ],
            environment={
                "CONDENSATION_DEFAULT_STRATEGY": "auto",
                "CONTEXT_CACHE_DIR": str(folder / "cache"),
            },
        )
        stack.callback(proxy.stop)
        stage = Stage(
            provider,
            proxy,
            addon / "context.py",
            folder / "cache",
            provider.tls_port,
            [[encode(one) for one in Session(seed + at).requests()] for at in range(_SESSIONS)],
            Tally(),
        )
        return _run(stage, minutes * 60, seed, clients)


def _run(stage: Stage, seconds: float, seed: int, clients: int) -> dict[str, Any]:
    agents = [Agent(stage, number, seed) for number in range(clients)]
    trouble = Troublemaker(stage, seed, min(10.0, seconds / 12))
    works = [*(agent.run for agent in agents), trouble.run]
    threads = [threading.Thread(target=work, daemon=True) for work in works]
    began, samples = time.monotonic(), list[Sample]()
    for thread in threads:
        thread.start()
    with httpx.Client(proxy=stage.proxy.url, trust_env=False, timeout=60) as client:
        while time.monotonic() - began < seconds and stage.proxy.process.poll() is None:
            time.sleep(min(5.0, max(0.5, seconds / 60)))
            samples.append(sample(stage.proxy, client, began))
        stage.stop.set()
        for thread in threads:
            thread.join(60)
        watch = watched(client)
        stats = client.get("http://context.mitm/stats.json").json()
    for number, refusal in stage.provider.refused:
        record = next((one for one in stage.provider.records if one.number == number), None)
        if refusal.status == _BUSY or (record is not None and record.key.startswith("odd-")):
            continue
        if record is None:
            continue  # long ago; its client has told
        stage.tally.violated(f"{record.key}: refused: {refusal.message}")
    said = stage.proxy.said()
    # Saving what is no Python leaves one each time, and mitmproxy's own, from the second time on:
    # it takes in the place of the script something that it has in that place already.
    asked_for = len(_ASKED_FOR.findall(said))
    if said.count("Traceback") > asked_for:
        ends = Counter(re.findall(r"^(?:\w+\.)*\w*(?:Error|Exception|Exit)\b", said, re.MULTILINE))
        stage.tally.violated(f"tracebacks in the log, that end in: {dict(ends)}")
    return {
        "seed": seed,
        "minutes": round(seconds / 60, 2),
        "did": dict(sorted(stage.tally.did.items())),
        "violations": stage.tally.violations,
        "watch": watch,
        "first": asdict(samples[0]) if samples else {},
        "last": asdict(samples[-1]) if samples else {},
        "samples": [asdict(one) for one in samples],
        "slopes_per_minute": {
            name: round(slope(samples, name), 3)
            for name in ("memory", "descriptors", "threads", "tasks")
        },
        "steps": stats["steps"],
        "failures": stats["failures"],
        "breaks_unexplained": stats["prefix_breaks_unexplained"],
        "stores": {name: store["state"] for name, store in stats["stores"].items()},
        "ended": stage.proxy.process.poll(),
    }


def told(found: dict[str, Any]) -> list[str]:
    """The same in lines."""
    watch, slopes = found["watch"], found["slopes_per_minute"]
    held, cpu, late, loading = (
        watch[name] for name in ("held", "held_cpu", "loop_late", "loading_cpu")
    )
    first, last = found["first"], found["last"]
    lines = [f"{found['minutes']:g} minutes, seed {found['seed']}"]
    lines += [f"  {count:>8,}  {what}" for what, count in found["did"].items()]
    lines.append(f"  {found['steps']:>8,}  steps; failures by reason: {found['failures']}")
    lines.append(f"the addon held the event loop {held['count']:,} times; target: {TARGET_MS:g} ms")
    for name, one in (("by the wall", held), ("thread's clock", cpu)):
        worst = ", ".join(f"{most:.1f} ms ({what})" for what, most in one["worst"].items())
        lines.append(f"  {name:<15} p99 {one['p99']:.2f} ms, p99.9 {one['p999']:.2f} ms")
        lines.append(f"  {'':<15} longest {worst}")
    if loading["count"]:
        lines.append(f"  {'when reloaded':<15} {loading['max']:.1f} ms of its own clock at most")
    longest = f"garbage was collected for {watch['garbage']['max']:.1f} ms at most"
    lines.append(
        f"  whoever held it, it was late by p99 {late['p99']:.1f} ms, at most "
        f"{late['max']:.1f} ms; {longest}"
    )
    lines.append("what the proxy took, with the slope over the second half")
    lines.append(
        f"  {'memory':<12} {first['memory'] >> 20:>6} MB at first, {last['memory'] >> 20} MB at "
        f"last, {slopes['memory'] / 2**20:+.2f} MB a minute"
    )
    lines += [
        f"  {what:<12} {first[what]:>6} at first, {last[what]} at last, "
        f"{slopes[what]:+.2f} a minute"
        for what in ("descriptors", "threads", "tasks")
    ]
    lines += [f"VIOLATED: {one}" for one in found["violations"]]
    return lines


def main(arguments: Sequence[str]) -> int:
    """Soak, and say what came of it; 1 where something was violated."""
    parser = argparse.ArgumentParser(prog="soak", description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=None, help="by default a new one each time")
    parser.add_argument("--clients", type=int, default=6)
    parser.add_argument("--json", type=Path, metavar="FILE")
    asked = parser.parse_args(arguments)
    seed = asked.seed if asked.seed is not None else random.SystemRandom().randrange(1 << 31)
    # The provider's side of agents that hang up.
    logging.getLogger("asyncio").setLevel(logging.ERROR)
    print(f"seed {seed}", flush=True)
    found = soak(asked.minutes, seed, asked.clients)
    if asked.json:
        asked.json.write_text(json.dumps(found, indent=1))
    print("\n".join(told(found)))
    return 1 if found["violations"] or found["ended"] is not None else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
