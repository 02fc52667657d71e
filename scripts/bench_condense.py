"""What condensing keeps and what it costs, over recorded conversations, beside crude baselines.

    ./scripts/bench condense [--data FOLDER] [--sample N] [--birth] [--json] [--plot FILE]

Two kinds of work. *Per request*: each request of 8,000 tokens or more at which a probe is used is
condensed on its own to a share of its tokens. *Sticky*: every turn of every conversation goes
through the pipeline and a ledger, as it would through the proxy, for each window; with `--birth`
once more with `reduce_at_birth`.

A probe is a string that a later tool call uses and that until then stood only in tool results:
whole lines, or identifiers (the files `probes_*.jsonl.gz` of the folder). A list of words satisfies
identifiers, so neither counts without the other. Own words are lines that the agent uses again from
calls or prose of its own. "Far": last seen five or more results earlier. Cost is relative to no
rewriting: 0.1 for a token that an earlier request began with, 1.25 for any other; nothing expires.
"""

from __future__ import annotations

import argparse
import gzip
import json
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache, lru_cache, partial
from pathlib import Path
from statistics import median
from typing import Any

CHECKOUT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(CHECKOUT / "addon"), str(CHECKOUT / "scripts")]

from lib.progress import Progress  # noqa: E402
from loopback import rules_anthropic, rules_openai  # noqa: E402
from mitmcontext import pipeline  # noqa: E402
from mitmcontext.births import Births  # noqa: E402
from mitmcontext.condense.assess import Thresholds  # noqa: E402
from mitmcontext.condense.conversation import Conversation, Room, with_texts  # noqa: E402
from mitmcontext.condense.cost import Cache  # noqa: E402
from mitmcontext.condense.ledger import Found, FrozenEdit, Ledger  # noqa: E402
from mitmcontext.condense.truncate import smart_truncation  # noqa: E402
from mitmcontext.condense.units import kept, units  # noqa: E402
from mitmcontext.known import Known  # noqa: E402
from mitmcontext.models.prices import prices_of  # noqa: E402
from mitmcontext.models.windows import Window  # noqa: E402
from mitmcontext.rewrite import rewritten  # noqa: E402
from mitmcontext.stores.memory_store import Memory, cells  # noqa: E402
from mitmcontext.tokens import vocabulary  # noqa: E402
from mitmcontext.tokens.calibration import Scale  # noqa: E402
from mitmcontext.tokens.families import Family, family_of  # noqa: E402
from mitmcontext.values import Broken, Kind, Message  # noqa: E402
from mitmcontext.wire.anthropic import MESSAGES  # noqa: E402
from mitmcontext.wire.api import Api, message_of  # noqa: E402
from mitmcontext.wire.openai_chat import CHAT  # noqa: E402
from replay import DATA, conversations  # noqa: E402

Json = dict[str, Any]

CORPORA = ("claude_code_sessions", "swebench_miniswe")
WINDOWS = (32_000, 64_000)
SHARES = (0.9, 0.8, 0.7, 0.6, 0.5, 0.4)
FAR = 5
READ, WRITE = 0.1, 1.25
_SMALLEST = 8_000
_LINE = 24
_ANTHROPIC = "anthropic-messages"
_MODEL = {_ANTHROPIC: "claude-sonnet-4-5", "openai-chat": "gpt-4o"}
# The window of most models today; a budget is a smaller one within it.
_LARGE = 200_000
_CLEARED = "[Old tool result content cleared]"


@cache
def counter(encoding: str) -> Callable[[str], int]:
    """Counts the tokens of a text; the vocabulary is loaded once."""
    engine = vocabulary.load(encoding)

    @lru_cache(200_000)
    def count(text: str) -> int:
        return vocabulary.count(engine, text)

    return count


@dataclass(frozen=True)
class Probe:
    """A string that message `use` needs, last seen `since` results before."""

    kind: str
    text: str
    use: int
    since: int


@dataclass
class Recorded:
    """A conversation, its messages as JSON and as read, and what is asked of it."""

    name: str
    corpus: str
    model: str
    api: Api
    family: Family
    head: bytes
    raw: list[bytes]
    cuts: list[int]
    messages: list[Message]
    tokens: list[int]
    probes: list[Probe] = field(default_factory=list)

    def body(self, cut: int) -> bytes:
        """The request that ends before message `cut`."""
        return self.head + b",".join(self.raw[:cut]) + b"]}"


def recorded(folder: Path, corpora: Sequence[str], sample: int) -> Iterator[Recorded]:
    """The conversations of some corpora, at most `sample` of each (0: all), spread evenly."""
    probes = {kind: _probes(folder, kind) for kind in ("lines", "identifiers")}
    for corpus in corpora:
        found = list(conversations(folder, [corpus]))
        step = max(1, len(found) // sample) if sample else 1
        for one in found[::step][: sample or None]:
            yield _recorded(one, probes)


def _probes(folder: Path, kind: str) -> dict[str, list[Json]]:
    path = folder / f"probes_{kind}.jsonl.gz"
    if not path.exists():
        return {}
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    return {row["conversation_id"]: row["probes"] for row in rows}


def _recorded(one: Json, probes: dict[str, dict[str, list[Json]]]) -> Recorded:
    api = MESSAGES if one["api"] == _ANTHROPIC else CHAT
    model = _MODEL[one["api"]]
    family = family_of(model, api.name)
    raw = [_compact(message) for message in one["messages"]]
    messages = [message_of(api, text) for text in raw]
    known = Known({}, counter)
    before: Json = {"model": model, "max_tokens": 1_024}
    if one.get("system"):
        before["system"] = one["system"]
    asked = [
        Probe(kind, row["s"], row["use_msg"], row["results_since"])
        for kind, rows in probes.items()
        for row in rows.get(one["conversation_id"], ())
    ]
    return Recorded(
        name=one["conversation_id"],
        corpus=one["corpus"],
        model=model,
        api=api,
        family=family,
        head=_compact(before)[:-1] + b',"messages":[',
        raw=raw,
        cuts=one["cuts"],
        messages=messages,
        tokens=[known.weigh(family, message) for message in messages],
        probes=[*asked, *_own_words(messages)],
    )


def _compact(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def _own_words(messages: Sequence[Message]) -> Iterator[Probe]:
    """Lines of a call that the agent had said before and nobody else."""
    own: dict[str, int] = {}
    others: set[str] = set()
    results = 0
    for at, message in enumerate(messages):
        lines = _lines(said(message))
        if message.role != "assistant":
            others |= set(lines)
            results += any(part.kind is Kind.RESULT for part in message.parts)
            continue
        called = _lines("\n".join(_said(p.kind, p.text) for p in message.parts if p.call_id))
        for line in dict.fromkeys(called or ()):
            if line in own and line not in others:
                yield Probe("own words", line, at, results - own[line])
        own |= dict.fromkeys(lines, results)


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.split("\n") if len(line.strip()) >= _LINE]


_SAID: dict[bytes, str] = {}


def said(message: Message) -> str:
    """All decoded text of a message, the arguments of calls too."""
    if message.digest not in _SAID:
        parts = (_said(part.kind, part.text) for part in message.parts)
        _SAID[message.digest] = "\n".join(parts)
    return _SAID[message.digest]


def _said(kind: Kind, text: str) -> str:
    if kind is not Kind.CALL:
        return text
    try:
        return "\n".join(_strings(json.loads(text[text.index("{") :])))
    except ValueError:
        return text


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _strings(item)


# Figures.


@dataclass
class Tally:
    """How much of what was asked for is left, and of how many tokens."""

    asked: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    kept: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    sent: int = 0
    forwarded: int = 0
    seconds: list[float] = field(default_factory=list)

    def judge(self, probes: Iterable[Probe], text: str, original: str) -> None:
        """Count the probes that are left; one that the request itself lacks says nothing."""
        for probe in probes:
            if probe.text not in original:
                continue
            held = probe.text in text
            for name in (probe.kind, f"{probe.kind}, far")[: 2 if probe.since >= FAR else 1]:
                self.asked[name] += 1
                self.kept[name] += held

    def judge_typed(self, messages: Iterable[Message], text: str) -> None:
        """Count the characters of typed texts that are left, whole texts only."""
        unmarked = text.replace("\n> ", "\n")
        for message in messages:
            for part in message.parts:
                if part.kind is Kind.TYPED:
                    self.asked["typed words"] += len(part.text)
                    held = part.text in text or part.text in unmarked
                    self.kept["typed words"] += len(part.text) * held

    def figures(self) -> Json:
        """Shares of 1; times in milliseconds."""
        shares = {name: self.kept[name] / asked for name, asked in self.asked.items() if asked}
        found: Json = {"tokens": self.forwarded / max(1, self.sent), **shares}
        if self.seconds:
            found["ms, median"] = median(self.seconds) * 1_000
            found["ms, p95"] = sorted(self.seconds)[int(len(self.seconds) * 0.95)] * 1_000
        return found


# Per request.


def _weigh(one: Recorded) -> Callable[[Message, int | None], int]:
    known = Known({}, counter)
    return lambda message, _: known.weigh(one.family, message)


def planned(one: Recorded, cut: int, share: float) -> tuple[tuple[FrozenEdit, ...], float]:
    """The edits that smart_truncation makes of a request alone, and the seconds that it took."""
    whole = one.tokens[:cut]
    conversation = Conversation(one.messages[:cut], whole, 0, (), _weigh(one))
    begun = time.perf_counter()
    edits = smart_truncation(conversation, Room(int(share * sum(whole)), None))
    return edits, time.perf_counter() - begun


def per_request(found: Sequence[Recorded], shares: Sequence[float]) -> list[Json]:
    """For each corpus and share asked for: what is left at the requests that use a probe."""
    tallies: dict[tuple[str, str, float], Tally] = defaultdict(Tally)
    progress = Progress("per request", len(found))
    for number, one in enumerate(found):
        for cut in sorted({probe.use for probe in one.probes}):
            total = sum(one.tokens[:cut])
            if total < _SMALLEST:
                continue
            probes = [probe for probe in one.probes if probe.use == cut]
            original = "\n".join(map(said, one.messages[:cut]))
            for policy, share, plan in _policies(shares):
                messages, seconds = plan(one, cut)
                tally = tallies[one.corpus, policy, share]
                tally.judge(probes, "\n".join(map(said, messages)), original)
                tally.sent += total
                tally.forwarded += sum(map(_weight_of(one), messages))
                tally.seconds.append(seconds)
        progress(number + 1)
    return [
        {"corpus": corpus, "policy": policy, "asked for": share, **tally.figures()}
        for (corpus, policy, share), tally in tallies.items()
    ]


Planned = Callable[[Recorded, int], tuple[Sequence[Message], float]]


def _policies(shares: Sequence[float]) -> Iterator[tuple[str, float, Planned]]:
    for share in shares:
        yield "smart_truncation", share, partial(_ours, share)
        yield "drop oldest", share, partial(_dropped_to, share)
    yield "clear all but 3 results", 0, lambda one, cut: (_cleared(one.messages[:cut], 3), 0.0)


def _ours(share: float, one: Recorded, cut: int) -> tuple[Sequence[Message], float]:
    edits, seconds = planned(one, cut, share)
    request = one.api.read(rewritten(one.api, one.api.read(one.body(cut)), edits))
    return [_read(one.api, request.raw(at)) for at in range(len(request.spans))], seconds


@lru_cache(50_000)
def _read(api: Api, raw: bytes) -> Message:
    return message_of(api, raw)


def _weight_of(one: Recorded) -> Callable[[Message], int]:
    known = Known({}, counter)
    return lambda message: _weight(known, one.family, message)


_WEIGHTS: dict[tuple[str, bytes], int] = {}


def _weight(known: Known, family: Family, message: Message) -> int:
    key = family.name, message.digest
    if key not in _WEIGHTS:
        _WEIGHTS[key] = known.weigh(family, message)
    return _WEIGHTS[key]


def _dropped_to(share: float, one: Recorded, cut: int) -> tuple[Sequence[Message], float]:
    target = share * sum(one.tokens[:cut])
    gone = drop_oldest(one.messages[:cut], one.tokens[:cut], frozenset(), target)
    return [message for at, message in enumerate(one.messages[:cut]) if at not in gone], 0.0


def drop_oldest(
    messages: Sequence[Message], tokens: Sequence[int], gone: frozenset[int], target: float
) -> frozenset[int]:
    """The messages to drop: whole units, the oldest first; system, task and newest unit stay."""
    spans = units(messages)
    task = next((at for at, message in enumerate(messages) if message.role == "user"), 0)
    fixed = {at for at, m in enumerate(messages) if m.role in ("system", "developer")} | {task}
    total = sum(weight for at, weight in enumerate(tokens) if at not in gone)
    for span in spans[:-1]:
        if total <= target:
            break
        for at in range(*span):
            if at not in fixed and at not in gone:
                gone |= {at}
                total -= tokens[at]
    return gone


def _cleared(
    messages: Sequence[Message], keep: int, places: frozenset[tuple[int, int]] | None = None
) -> list[Message]:
    """The messages with all but the last results replaced by a line, or just those at `places`."""
    if places is None:
        places = frozenset(result_places(messages)[:-keep])
    found = list(messages)
    for at, index in places:
        found[at] = _blank(found[at], index)
    return found


def _blank(message: Message, index: int) -> Message:
    made = with_texts(message, {index: _CLEARED})
    return Message(made.role, made.parts, b"cleared" + index.to_bytes(2, "big") + message.digest)


def result_places(messages: Sequence[Message]) -> list[tuple[int, int]]:
    """Message and part of each tool result, in order."""
    return [
        (at, index)
        for at, message in enumerate(messages)
        for index, part in enumerate(message.parts)
        if part.kind is Kind.RESULT
    ]


# In sticky sequence.


@dataclass
class Played:
    """What became of all turns under one policy and window."""

    tally: Tally = field(default_factory=Tally)
    turns: int = 0
    cost: float = 0.0
    cost_before: float = 0.0
    steps: int = 0
    freed: list[int] = field(default_factory=list)
    too_small: int = 0
    misfits: int = 0
    could_fit: int = 0
    refused: list[str] = field(default_factory=list)
    unexplained: int = 0
    broken: list[str] = field(default_factory=list)

    def figures(self) -> Json:
        """As shares of doing nothing, and counts."""
        return {
            **self.tally.figures(),
            "cost": self.cost / max(1.0, self.cost_before),
            "turns": self.turns,
            "steps": self.steps,
            "least freed": min(self.freed, default=0),
            "freed": sum(self.freed),
            "freed too little": self.too_small,
            "did not fit": self.misfits,
            "that could": self.could_fit,
            "refused": len(self.refused),
            "unexplained breaks": self.unexplained,
            "checks failed": len(self.broken),
        }


class PromptCache:
    """What an account has sent before, by whole messages."""

    def __init__(self) -> None:
        self._known: set[bytes] = set()

    def price(self, keys: Iterable[bytes], tokens: Iterable[int]) -> float:
        """The price of a request in plain tokens, and remember it."""
        link, warm, total = b"", True, 0.0
        for key, weight in zip(keys, tokens, strict=True):
            link = hash((link, key)).to_bytes(8, "big", signed=True)
            warm = warm and link in self._known
            self._known.add(link)
            total += weight * (READ if warm else WRITE)
        return total


@dataclass(frozen=True)
class Forwarded:
    """What one turn became: each message's key and tokens, and its messages as read."""

    messages: Sequence[Message]
    stepped: bool = False
    freed: int = 0
    body: bytes = b""
    level: str = ""


class Ours:
    """The proxy's way of a request, with a ledger in memory and a provider that takes all."""

    def __init__(self, one: Recorded, window: int, out: Played, *, birth: bool = False) -> None:
        self._one, self._out = one, out
        self._birth = birth
        self._window = Window(window, None, None, True, "bench")
        self._budget = 0
        self._market: pipeline.Market | None = None
        self._known = Known({}, counter)
        self._births = Births(self._known)
        self._ledger = Ledger(Memory(cells(64 << 20)))
        self._thresholds = Thresholds()
        self._seed = b"\0" * 32

    def __call__(self, cut: int) -> Forwarded:
        one, known, seed = self._one, self._known, self._seed
        sent = pipeline.read(one.api, one.family, one.api.read(one.body(cut)), seed, known)
        laid = pipeline.lay_found(sent, self._found(sent), seed, known, self._births)
        assessment = pipeline.assess(
            laid, self._window, self._thresholds, known, lambda *_: Scale(), self._budget
        )
        forwarded, found, freed = laid.forwarded, laid.found, 0
        begun = time.perf_counter()
        try:
            step = pipeline.plan_step(
                laid,
                assessment,
                self._thresholds,
                known,
                seed,
                self._market,
                births=self._births,
            )
        except Broken as fault:
            self._out.broken.append(f"{one.name} {cut}: {fault}")
            step = ""
        if assessment.level.value in ("warning", "critical", "overflow"):
            self._out.tally.seconds.append(time.perf_counter() - begun)
        if isinstance(step, pipeline.Step):
            found = self._ledger.freeze(sent.links, step.entry, laid.found)
            forwarded, freed = step.forwarded, step.entry.before - step.entry.after
        if found is not None:
            self._ledger.confirm(sent.links, found)
        request = forwarded.request
        messages = [_read(one.api, request.raw(at)) for at in range(len(request.spans))]
        return Forwarded(messages, freed > 0, freed, request.body, assessment.level.value)

    def _found(self, sent: pipeline.Reading) -> Found | None:
        """What is frozen; where results are reduced at birth, from the first such one on."""
        found = self._ledger.find(sent.links)
        if not self._birth or (found is not None and found.entry.born is not None):
            return found
        entry = pipeline.first_birth(sent, found, self._births)
        return self._ledger.freeze(sent.links, entry, found) if entry else found


class OursWithinBudget(Ours):
    """The same in a large window, with the smaller one as `context_budget`: steps have to pay."""

    def __init__(self, one: Recorded, window: int, out: Played) -> None:
        super().__init__(one, _LARGE, out)
        self._budget = window
        self._market = pipeline.Market(prices_of(one.model), True, Cache.WARM, must_pay=True)


class DropOldest:
    """At the warning threshold the oldest units go until the target is met; they stay gone."""

    def __init__(self, one: Recorded, window: int, _: Played) -> None:
        self._one, self._window = one, window
        self._gone: frozenset[int] = frozenset()

    def __call__(self, cut: int) -> Forwarded:
        one, limits = self._one, Thresholds()
        weights = one.tokens[:cut]
        total = sum(weight for at, weight in enumerate(weights) if at not in self._gone)
        stepped = total >= limits.warning * self._window
        if stepped:
            target = limits.target * self._window
            self._gone = drop_oldest(one.messages[:cut], weights, self._gone, target)
        left = [m for at, m in enumerate(one.messages[:cut]) if at not in self._gone]
        return Forwarded(left, stepped)


class ClearOld:
    """At the warning threshold all results but the last three are cleared; they stay cleared."""

    def __init__(self, one: Recorded, window: int, _: Played) -> None:
        self._one, self._window = one, window
        self._places: frozenset[tuple[int, int]] = frozenset()
        self._weigh = _weight_of(one)

    def __call__(self, cut: int) -> Forwarded:
        messages = self._one.messages[:cut]
        made = _cleared(messages, 3, self._places)
        total = sum(map(self._weigh, made))
        stepped = total >= Thresholds().warning * self._window
        if stepped:
            self._places |= frozenset(result_places(messages)[:-3])
            made = _cleared(messages, 3, self._places)
        return Forwarded(made, stepped)


class ClearEachTurn:
    """All results but the last three are cleared on every turn."""

    def __init__(self, one: Recorded, window: int, _: Played) -> None:
        self._one = one

    def __call__(self, cut: int) -> Forwarded:
        return Forwarded(_cleared(self._one.messages[:cut], 3), True)


_BIRTH = "with reduce_at_birth"
POLICIES: dict[str, Callable[[Recorded, int, Played], Callable[[int], Forwarded]]] = {
    "smart_truncation": Ours,
    "... within a budget": OursWithinBudget,
    "drop oldest": DropOldest,
    "clear old results": ClearOld,
    "clear each turn": ClearEachTurn,
    _BIRTH: partial(Ours, birth=True),
}


def sticky(
    found: Sequence[Recorded], windows: Sequence[int], policies: Sequence[str], verbose: bool
) -> list[Json]:
    """For each corpus, policy and window: every turn of every conversation."""
    outs: dict[tuple[str, str, int], Played] = defaultdict(Played)
    progress = Progress("sticky", len(found) * len(windows))
    for number, (window, one) in enumerate((w, o) for w in windows for o in found):
        for policy in policies:
            out = outs[one.corpus, policy, window]
            _play(one, window, POLICIES[policy](one, window, out), out)
        progress(number + 1)
    if verbose:
        for out in outs.values():
            print("\n".join([*out.refused[:20], *out.broken[:20]]), file=sys.stderr)
    return [
        {"corpus": corpus, "policy": policy, "window": window, **out.figures()}
        for (corpus, policy, window), out in outs.items()
    ]


def _play(one: Recorded, window: int, policy: Callable[[int], Forwarded], out: Played) -> None:
    weigh, limits = _weight_of(one), Thresholds()
    cache_now, cache_before = PromptCache(), PromptCache()
    before: list[bytes] = []
    memory: Any = rules_anthropic.Memory() if one.api is MESSAGES else rules_openai.Memory()
    for cut in one.cuts:
        made = policy(cut)
        weights = [weigh(message) for message in made.messages]
        whole, total = sum(one.tokens[:cut]), sum(weights)
        keys = [message.digest for message in made.messages]
        out.turns += 1
        out.tally.sent += whole
        out.tally.forwarded += total
        out.cost += cache_now.price(keys, weights)
        out.cost_before += cache_before.price(
            (message.digest for message in one.messages[:cut]), one.tokens[:cut]
        )
        out.steps += made.stepped
        if made.freed:
            out.freed.append(made.freed)
            small = made.level == "warning" and made.freed < 0.15 * window
            out.too_small += small
        room = _LARGE if isinstance(policy, OursWithinBudget) else window
        out.misfits += total > room
        out.could_fit += total > room >= _least(one, cut)
        out.unexplained += keys[: len(before)] != before and not made.stepped
        before = keys
        if made.body:
            refusal = _refusal(one, made.body, memory)
            out.refused += [f"{one.name} {cut}: {refusal}"] if refusal else []
        probes = [probe for probe in one.probes if probe.use == cut]
        if probes and whole >= limits.caution * window:
            text = "\n".join(map(said, made.messages))
            out.tally.judge(probes, text, "\n".join(map(said, one.messages[:cut])))
            out.tally.judge_typed(one.messages[:cut], text)


def _least(one: Recorded, cut: int) -> int:
    """The tokens of what stays in any case."""
    messages = one.messages[:cut]
    stay = kept(messages)
    whole = stay.messages | {at for at, _ in stay.parts}
    return sum(one.tokens[at] for at in whole)


def _refusal(one: Recorded, body: bytes, memory: Any) -> str:
    rules: Any = rules_anthropic if one.api is MESSAGES else rules_openai
    refusal = rules.check(json.loads(body), memory, length=False)
    return refusal.message if refusal else ""


# What comes out.

_CELLS = ("lines", "identifiers", "own words")


def said_of(result: Json) -> Iterator[str]:
    """The figures as tables."""
    if "per request" in result:
        yield (
            f"{'per request':22} {'policy':24} {'asked':>5} {'tokens':>6}"
            + "".join(f"{cell + ' all/far':>22}" for cell in _CELLS)
            + f"{'ms p50/p95':>14}"
        )
        for row in result["per request"]:
            yield _row(row, f"{row['asked for']:5.2f}") + f"{_times(row):>14}"
        yield ""
    if "sticky" in result:
        yield (
            f"{'sticky':22} {'policy':24} {'window':>6} {'tokens':>6}"
            + "".join(f"{cell + ' all/far':>22}" for cell in _CELLS)
            + f" {'typed':>5} {'cost':>5} {'steps':>5} {'unfit':>9} {'ref':>3} {'odd':>3}"
            + (f" {'chk':>3} {'small':>5} {'ms p50/p95':>12}")
        )
        for row in result["sticky"]:
            yield _row(row, f"{row['window']:6}") + (
                f" {row.get('typed words', 1):5.3f} {row['cost']:5.3f} {row['steps']:5}"
                f" {row['did not fit']:4}/{row['that could']:4} {row['refused']:3}"
                f" {row['unexplained breaks']:3} {row['checks failed']:3}"
                f" {row['freed too little']:5} {_times(row):>12}"
            )


def _row(row: Json, asked: str) -> str:
    cells = "".join(
        f"{_share(row, cell) + '/' + _share(row, f'{cell}, far'):>22}" for cell in _CELLS
    )
    return f"{row['corpus']:22} {row['policy']:24} {asked} {row['tokens']:6.3f}{cells}"


def _share(row: Json, name: str) -> str:
    return f"{row[name]:.3f}" if name in row else "-"


def _times(row: Json) -> str:
    return f"{row['ms, median']:.0f}/{row['ms, p95']:.0f}" if row.get("ms, p95") else "-"


_COLOURS = ("#1b6ca8", "#c23b22", "#7a7a7a", "#4f9d4f")


def picture(rows: Sequence[Json]) -> str:
    """An SVG of lines retained against tokens kept, one curve for each corpus and policy."""
    curves: dict[tuple[str, str], list[tuple[float, float]]] = defaultdict(list)
    for row in rows:
        if "lines" in row:
            curves[row["corpus"], row["policy"]].append((row["tokens"], row["lines"]))
    pieces = [
        (
            '<svg xmlns="http://www.w3.org/2000/svg" width="760" height="520" '
            'font-family="sans-serif" font-size="12"><rect width="760" height="520" fill="#fff"/>'
        )
    ]
    for tick in range(11):
        at = tick / 10
        x, y = 60 + 480 * at, 470 - 440 * at
        pieces.append(f'<path d="M{x} 30V470M60 {y}H540" stroke="#ddd"/>')
        pieces.append(
            f'<text x="{x - 8}" y="488">{at:.1f}</text><text x="34" y="{y}">{at:.1f}</text>'
        )
    pieces.append(
        '<text x="240" y="508">tokens kept</text><text x="10" y="20">lines retained</text>'
    )
    corpora = list(dict.fromkeys(corpus for corpus, _ in curves))
    policies = list(dict.fromkeys(policy for _, policy in curves))
    for number, ((corpus, policy), points) in enumerate(curves.items()):
        colour = _COLOURS[policies.index(policy) % len(_COLOURS)]
        dash = "" if corpora.index(corpus) == 0 else ' stroke-dasharray="5 4"'
        places = [(60 + 480 * x, 470 - 440 * y) for x, y in sorted(points)]
        line = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        pieces.append(f'<polyline points="{line}" fill="none" stroke="{colour}"{dash}/>')
        pieces += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in places]
        pieces.append(f'<text x="552" y="{50 + 34 * number}" fill="{colour}">{policy}</text>')
        pieces.append(f'<text x="552" y="{64 + 34 * number}" fill="#555">{corpus}</text>')
    return "\n".join([*pieces, "</svg>\n"])


def main(arguments: Sequence[str]) -> int:
    """Read the arguments, measure, say what came out."""
    parser = argparse.ArgumentParser(
        prog="./scripts/bench condense",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--data", type=Path, default=DATA, metavar="FOLDER")
    parser.add_argument("--corpora", nargs="+", default=list(CORPORA))
    parser.add_argument("--sample", type=int, default=0, metavar="N", help="N of each corpus")
    parser.add_argument("--only", choices=("request", "sticky"))
    parser.add_argument("--shares", nargs="+", type=float, default=list(SHARES))
    parser.add_argument("--windows", nargs="+", type=int, default=list(WINDOWS))
    usual = [policy for policy in POLICIES if policy != _BIRTH]
    parser.add_argument("--policies", nargs="+", default=usual, choices=list(POLICIES))
    parser.add_argument("--birth", action="store_true", help=f"the policy {_BIRTH!r} beside them")
    parser.add_argument("--json", action="store_true", help="the figures as JSON")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="an SVG of retention and tokens")
    asked = parser.parse_args(arguments)
    if not asked.data.is_dir():
        print(f"There are no recorded conversations in {asked.data}.", file=sys.stderr)
        return 2
    found = list(recorded(asked.data, asked.corpora, asked.sample))
    result: Json = {}
    if asked.only in (None, "request"):
        result["per request"] = per_request(found, asked.shares)
    if asked.only in (None, "sticky"):
        policies = dict.fromkeys([*asked.policies, *([_BIRTH] if asked.birth else [])])
        result["sticky"] = sticky(found, asked.windows, list(policies), not asked.json)
    print(json.dumps(result, indent=1) if asked.json else "\n".join(said_of(result)))
    if asked.plot:
        rows = result.get("per request") or result["sticky"]
        asked.plot.write_text(picture(rows), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
