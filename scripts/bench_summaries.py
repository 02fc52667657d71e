"""What summaries by a model keep, delay and cost, through a real mitmdump.

keep    recorded dialogues, whose own summaries are the model's answers: what was refused, whether
        all fits, and how much of the answers to questions on them is still there, beside
        smart_truncation at the same size
delay   a session that grows through caution to warning while the model takes its time: how much
        longer requests take than with smart_truncation
cost    recorded coding sessions within a budget: what is saved, our questions paid for

  ./scripts/bench summaries --window 12000
"""

from __future__ import annotations

import argparse
import json
import ssl
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import mean, median
from typing import Any, NamedTuple

CHECKOUT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(CHECKOUT / "addon"), str(CHECKOUT / "scripts")]

import httpx  # noqa: E402 - the checkout comes first

import replay  # noqa: E402
from demo.session import Session, encode  # noqa: E402
from gold import Gold  # noqa: E402
from loopback import certificates, child  # noqa: E402
from loopback.counting import count, model_named  # noqa: E402
from loopback.provider import HOSTS, Provider, serving, with_windows  # noqa: E402
from loopback.summariser import Summariser, fair  # noqa: E402
from mitmcontext.condense.conversation import Conversation, Room  # noqa: E402
from mitmcontext.condense.truncate import smart_truncation  # noqa: E402
from mitmcontext.rewrite import rewritten  # noqa: E402
from mitmcontext.values import Message  # noqa: E402
from mitmcontext.wire.openai_chat import CHAT  # noqa: E402

Json = dict[str, Any]

BUDGET = 32_000
_AUTO = {"CONDENSATION_DEFAULT_STRATEGY": "auto"}
_LOCAL = {"CONDENSATION_DEFAULT_STRATEGY": "smart_truncation"}
_MARKER = {"type": "ephemeral"}


class Played(NamedTuple):
    """A proxy to play through, and what it says of itself."""

    client: httpx.Client
    provider: Provider

    def stats(self) -> Json:
        """The proxy's own figures."""
        found: Json = self.client.get("http://context.mitm/stats.json").json()
        return found

    def post(self, host: str, path: str, headers: dict[str, str], body: bytes) -> int:
        """Send a request; the status of its answer."""
        url = f"https://{host}:{self.provider.tls_port}{path}"
        sent = {"content-type": "application/json", **headers}
        return self.client.post(url, content=body, headers=sent).status_code


@contextmanager
def playing(
    window: int, model: Summariser, options: Sequence[str], environment: dict[str, str]
) -> Iterator[Played]:
    """A mitmdump with the addon before a strict provider that is asked for summaries, too."""
    with tempfile.TemporaryDirectory(prefix="mitmcontext-summaries-") as folder:
        leaf = certificates.make(Path(folder) / "provider", HOSTS)
        provider = Provider(with_windows({"*": window}), summariser=model)
        named: Json = {
            "confdir": Path(folder) / "confdir",
            "provider_authority": leaf.authority,
            "options": options,
            "environment": environment | {"CONTEXT_CACHE_DIR": str(Path(folder) / "cache")},
        }
        with (
            serving(provider, leaf),
            child.running(dict.fromkeys(HOSTS, provider.tls_port), **named) as proxy,
        ):
            trust = ssl.create_default_context(cafile=str(proxy.authority))
            with httpx.Client(
                proxy=proxy.url, verify=trust, trust_env=False, timeout=120
            ) as client:
                yield Played(client, provider)


# What is kept.


class Kept(NamedTuple):
    """What became of one dialogue. Sizes and shares are means over the requests with a step."""

    name: str
    requests: int
    refused: int
    largest: int
    steps: int
    used: int
    rejected: int
    breaks: int
    size: float
    by_model: float
    local: float
    local_size: float


class Taken(NamedTuple):
    """A request on which a step was taken: how much of it there was, as it came and as it went."""

    cut: int
    sent: bytes
    went: Json


def keep(folder: Path, window: int) -> list[Kept]:
    """Every dialogue, with the summaries that come with it as the model's answers."""
    return [_kept(one, window) for one in replay.conversations(folder, ["locomo"])]


def _kept(conversation: Json, window: int) -> Kept:
    gold = Gold(conversation)
    options = [
        f"context_windows=*={window}",
        "condensation_max_cost=1",
        "condensation_wait=warning",
        "condensation_model=gpt-4o-mini",
        "condensation_max_messages=1000",
    ]
    headers = {"authorization": "Bearer sk-bench"}
    taken: list[Taken] = []
    with playing(window, Summariser(gold.answer), options, _AUTO) as played:
        before = 0
        for cut, turn in zip(conversation["cuts"], replay.turns(conversation), strict=True):
            played.post(HOSTS[1], "/v1/chat/completions", headers, turn.body())
            found = played.stats()
            if found["steps"] > before:
                before = found["steps"]
                taken.append(Taken(cut, turn.body(), played.provider.records[-1].body))
        records = list(played.provider.records)
    told = [_told(one, gold, window) for one in taken]
    return Kept(
        name=conversation["conversation_id"],
        requests=len(records),
        refused=sum(record.refusal is not None for record in records),
        largest=max(record.tokens for record in records),
        steps=found["steps"],
        used=found["questions"]["used"],
        rejected=sum(found["questions"]["rejected"].values()),
        breaks=found["prefix_breaks_unexplained"],
        size=mean(one[0] for one in told),
        by_model=mean(one[1] for one in told),
        local_size=mean(one[2] for one in told),
        local=mean(one[3] for one in told),
    )


def _told(taken: Taken, gold: Gold, window: int) -> tuple[int, float, int, float]:
    """Tokens, and the share of the answers' words that stand there: with the model, and locally."""
    size = count(taken.went, model_named("gpt-4o", with_windows({"*": window})))
    local, local_size = _locally(taken.sent, size, window)
    asked = [one for one in gold.questions if max(one.evidence) < taken.cut]
    text, other = _text(taken.went), _text(local)
    return (
        size,
        mean(one.kept(text) for one in asked),
        local_size,
        mean(one.kept(other) for one in asked),
    )


def _locally(sent: bytes, size: int, window: int) -> tuple[Json, int]:
    """The same request by smart_truncation alone: the nearest that is no smaller, if there is."""
    model = model_named("gpt-4o", with_windows({"*": window}))
    request = CHAT.read(sent)
    messages = [CHAT.parse(request.raw(at)) for at in range(len(request.spans))]

    def weigh(message: Message, at: int | None = None) -> int:
        said = [{"role": "user", "content": part.text} for part in message.parts]
        return sum(count({"messages": [one]}, model) for one in said)

    of = Conversation(messages, [weigh(one) for one in messages], 0, (), weigh)
    best: tuple[Json, int] | None = None
    low, high = 0, 2 * size
    while high - low > 20:
        target = (low + high) // 2
        made: Json = json.loads(
            rewritten(CHAT, request, smart_truncation(of, Room(target, target)))
        )
        got = count(made, model)
        if got >= size:
            best, high = (made, got), target
        else:
            low = target
    if best is None:
        raise SystemExit("nothing that smart_truncation makes is as large")
    return best


def _text(body: Json) -> str:
    return " ".join(str(message["content"]) for message in body["messages"]).lower()


# What is delayed.


def delay(seconds: float, window: int) -> Iterator[str]:
    """A session that grows while the model takes so long; the person reads while it writes."""
    options = [f"context_windows=*={window}", "condensation_max_cost=1"]
    times: dict[str, list[Timed]] = {}
    found: Json = {}
    for name, environment in (("local", _LOCAL), ("model", _AUTO)):
        with playing(window, Summariser(fair, delay=seconds), options, environment) as played:
            # The first one waits for the vocabulary.
            times[name] = [_timed(played, encode(body)) for body in _growing()][1:]
            found = played.stats()
    asked = found["questions"]
    waited = asked["requests_that_waited"]
    yield f"model answers in                {seconds:g} s"
    yield f"requests                        {len(times['model'])}, steps {found['steps']}"
    yield f"prepared / used / waited        {asked['prepared']} / {asked['used']} / {waited}"
    for kind, rows in times.items():
        usual = median(one.seconds for one in rows) * 1000
        yield f"{f'median, {kind}':<31} {usual:.0f} ms"
    for stepped, name in ((True, "slowest with a step"), (False, "slowest without a step")):
        local, model = (
            max(one.seconds for one in times[kind] if one.stepped is stepped) * 1000
            for kind in ("local", "model")
        )
        yield f"{name:<31} {local:.0f} ms without a model, {model:.0f} ms with one"


class Timed(NamedTuple):
    """How long a request took, and whether a step was taken on it."""

    seconds: float
    stepped: bool


def _growing() -> list[Json]:
    return list(Session().requests())[:30]


def _timed(played: Played, body: bytes) -> Timed:
    before = played.stats()["steps"]
    began = time.perf_counter()
    played.post(HOSTS[0], "/v1/messages?beta=true", {"x-api-key": "k"}, body)
    spent = time.perf_counter() - began
    while (now := played.stats()["questions"])["asked"] > now["answered"]:
        time.sleep(0.2)  # The person reads the answer, and the model writes the summary.
    return Timed(spent, played.stats()["steps"] > before)


# What it costs.


class Cost(NamedTuple):
    """What sessions cost within a budget, in dollars. `saved` has our questions taken off."""

    cost: float
    saved: float
    questions: float
    asked: int
    used: int
    steps: int
    refused: int


def cost(folder: Path, number: int, environment: dict[str, str]) -> Cost:
    """The longest recorded coding sessions, each under a key of its own."""
    options = [f"context_budget={BUDGET}"]
    with playing(1_000_000, Summariser(fair), options, environment) as played:
        for conversation in replay.longest(folder, replay.CORPORA, number):
            _play(played, conversation)
        found, refused = played.stats(), len(played.provider.refused)
    money, asked = found["money"], found["questions"]
    return Cost(
        cost=money["cost"],
        saved=money["saved"],
        questions=money["questions"],
        asked=asked["asked"],
        used=asked["used"],
        steps=found["steps"],
        refused=refused,
    )


def _play(played: Played, conversation: Json) -> None:
    key, anthropic = conversation["conversation_id"], conversation["api"] == "anthropic-messages"
    for turn in replay.turns(conversation):
        if anthropic:
            played.post(HOSTS[0], "/v1/messages", {"x-api-key": key}, _marked(turn))
        else:
            named = {"authorization": f"Bearer sk-{key}"}
            played.post(HOSTS[1], "/v1/chat/completions", named, turn.body())
        while (now := played.stats()["questions"])["asked"] > now["answered"] + _failed(now):
            time.sleep(0.02)
    played.provider.records.clear()


def _failed(questions: Json) -> int:
    return sum(questions["rejected"].values())


def _marked(turn: replay.Turn) -> bytes:
    """The request with a cache marker on its last message, as coding agents send it."""
    *before, last = turn.messages
    content = last["content"]
    blocks = [{"type": "text", "text": content}] if isinstance(content, str) else list(content)
    blocks[-1] = {**blocks[-1], "cache_control": _MARKER}
    messages = [*before, {**last, "content": blocks}]
    return turn.head + json.dumps(messages, ensure_ascii=False).encode() + turn.tail


# The tables.


def table(rows: Sequence[Kept]) -> Iterator[str]:
    """One line per dialogue, and the mean."""
    yield (
        f"{'dialogue':<12} {'requests':>8} {'refused':>7} {'largest':>7} {'steps':>5} {'used':>4}"
        f" {'rejected':>8} {'odd':>3} {'tokens':>7} {'kept':>5} {'local':>7} {'kept':>5}"
    )
    for row in rows:
        yield (
            f"{row.name:<12} {row.requests:>8,} {row.refused:>7} {row.largest:>7,} {row.steps:>5}"
            f" {row.used:>4} {row.rejected:>8} {row.breaks:>3} {row.size:>7,.0f}"
            f" {row.by_model:>5.1%} {row.local_size:>7,.0f} {row.local:>5.1%}"
        )
    by_model, local = mean(row.by_model for row in rows), mean(row.local for row in rows)
    yield f"{'mean':<63} {by_model:>5.1%} {'':>7} {local:>5.1%}"


def _costs(folder: Path, number: int) -> Iterator[str]:
    yield f"{'':<10} {'cost':>9} {'saved':>9} {'questions':>9} asked used steps"
    for name, environment in (("model", _AUTO), ("local", _LOCAL)):
        row = cost(folder, number, environment)
        yield (
            f"{name:<10} {row.cost:>9.4f} {row.saved:>9.4f} {row.questions:>9.4f} {row.asked:>5}"
            f" {row.used:>4} {row.steps:>5}" + (f"  {row.refused} refused" if row.refused else "")
        )


def _arguments(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench summaries", description=__doc__.split("\n")[0])
    parser.add_argument("what", nargs="*", help="keep, delay, cost; all of them by default")
    parser.add_argument("--data", type=Path, default=replay.DATA, help="folder of recordings")
    parser.add_argument("--window", type=int, default=16_000, help="for what is kept")
    parser.add_argument("--seconds", type=float, default=20.0, help="that the model takes")
    parser.add_argument("--count", type=int, default=6, help="coding sessions, the longest first")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str]) -> int:
    """Measure and print; 0 if nothing forbidden happened."""
    asked = _arguments(arguments)
    wanted = asked.what or ["keep", "delay", "cost"]
    if not asked.data.is_dir() and set(wanted) & {"keep", "cost"}:
        print(f"There are no recorded conversations in {asked.data}.", file=sys.stderr)
        return 2
    good = True
    if "keep" in wanted:
        rows = keep(asked.data, asked.window)
        print("\n".join(table(rows)), flush=True)
        good = not any(row.refused or row.breaks or row.largest > asked.window for row in rows)
    if "delay" in wanted:
        print("\n".join(["", *delay(asked.seconds, 24_000)]), flush=True)
    if "cost" in wanted:
        print("\n".join(["", *_costs(asked.data, asked.count)]))
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
