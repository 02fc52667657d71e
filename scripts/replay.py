"""Play recorded conversations, turn by turn, through a real mitmdump to the strict provider.

Everything is judged from the provider's side, by what it received and by its own count; from the
proxy come only its counts, at http://context.mitm/stats.json.

    ./scripts/bench replay --window 32000 --count 20
"""

from __future__ import annotations

import argparse
import gzip
import json
import ssl
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import httpx

from loopback import certificates, child
from loopback.counting import Model, count, count_head, count_message, model_named
from loopback.provider import HOSTS, Provider, Record, serving, with_windows

Json = dict[str, Any]

DATA = child.REPOSITORY.parent / "shared" / "data" / "conversations"
CORPORA = ("claude_code_sessions", "swebench_miniswe")
_MODELS = {"anthropic-messages": "claude-sonnet-4-5", "openai-chat": "gpt-4o"}
_LEAST_FREED = 0.15
# A request this small cannot be near any threshold, however the proxy counts.
_SURELY_SAFE = 0.5


@dataclass
class Report:
    """What became of one conversation. Tokens are the provider's."""

    name: str
    api: str
    turns: int = 0
    sent: int = 0
    forwarded: int = 0
    largest: int = 0
    identical: int = 0
    steps: int = 0
    breaks: int = 0
    unexplained_breaks: int = 0
    changed_outside: int = 0
    changed_too_early: int = 0
    failed_open: int = 0
    freed: list[int] = field(default_factory=list)
    refused_on_shape: list[str] = field(default_factory=list)
    refused_on_length: list[str] = field(default_factory=list)

    def is_good(self) -> bool:
        """Whether nothing happened that may never happen."""
        return not (
            self.refused_on_shape
            or self.unexplained_breaks
            or self.changed_outside
            or self.changed_too_early
        )


@dataclass(frozen=True, slots=True)
class Turn:
    """One request: its body in three pieces, of which only the middle one may change."""

    head: bytes
    messages: list[Json]
    tail: bytes

    def body(self) -> bytes:
        """The request as it is sent."""
        return self.head + _compact(self.messages) + self.tail


def conversations(folder: Path, corpora: Sequence[str]) -> Iterator[Json]:
    """Every conversation of some corpora, with `corpus` added to it."""
    for corpus in corpora:
        with gzip.open(folder / f"{corpus}.jsonl.gz", "rt", encoding="utf-8") as lines:
            for line in lines:
                yield {**json.loads(line), "corpus": corpus}


def longest(folder: Path, corpora: Sequence[str], number: int) -> list[Json]:
    """The longest conversations of some corpora, by the size of their messages."""
    found = list(conversations(folder, corpora))
    found.sort(key=lambda one: len(_compact(one["messages"])), reverse=True)
    return found[:number]


def turns(conversation: Json) -> Iterator[Turn]:
    """The requests that a client would have sent, with the whole history each time."""
    model = _MODELS[conversation["api"]]
    before: Json = {"model": model, "max_tokens": 1_024}
    if conversation.get("system"):
        before["system"] = conversation["system"]
    head = _compact(before)[:-1] + b',"messages":'
    tail = b',"temperature":1.0}'
    for cut in conversation["cuts"]:
        yield Turn(head, conversation["messages"][:cut], tail)


def _compact(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


class Player:
    """Plays conversations through one proxy, each under a key of its own."""

    def __init__(
        self,
        provider: Provider,
        proxy: child.Child,
        window: int,
        comments: Path | None = None,
    ) -> None:
        self.provider = provider
        self.comments = comments
        self.proxy = proxy
        self.window = window
        trust = ssl.create_default_context(cafile=str(proxy.authority))
        self.client = httpx.Client(proxy=proxy.url, verify=trust, trust_env=False, timeout=120)

    def stats(self) -> Json:
        """The proxy's own counts."""
        found: Json = self.client.get("http://context.mitm/stats.json").json()
        return found

    def play(self, conversation: Json) -> Report:
        """Send every request of a conversation and judge what arrives."""
        key, api = conversation["conversation_id"], conversation["api"]
        report = Report(key, api)
        model = model_named(_MODELS[api], self.provider.models)
        before, unconfirmed = self.stats(), 0
        for turn in turns(conversation):
            seen = self.provider.number
            self._send(api, key, turn.body())
            records = [r for r in list(self.provider.records) if r.number > seen]
            after = self.stats()
            unconfirmed += after["steps"] - before["steps"]
            self._judge(report, turn, records, model, unconfirmed)
            if records[-1].refusal is None:
                unconfirmed = 0
            elif records[-1].refusal.too_long:
                report.refused_on_length.append(self._too_long(report, turn, records[-1], model))
            self._compare(report, before, after)
            before = after
        return report

    def _send(self, api: str, key: str, body: bytes) -> None:
        anthropic = api == "anthropic-messages"
        url = (
            f"https://{HOSTS[0]}/v1/messages"
            if anthropic
            else f"https://{HOSTS[1]}/v1/chat/completions"
        )
        credential = {"x-api-key": key} if anthropic else {"authorization": f"Bearer {key}"}
        headers = {**credential, "content-type": "application/json"}
        self.client.post(url, content=body, headers=headers)

    def _judge(
        self, report: Report, turn: Turn, records: list[Record], model: Model, unconfirmed: int
    ) -> None:
        sent = turn.body()
        own = count(json.loads(sent), model)
        report.turns += 1
        report.sent += own
        report.refused_on_shape += [
            f"request {report.turns}: {r.refusal.message}"
            for r in records
            if r.refusal is not None and not r.refusal.too_long
        ]
        last = records[-1]
        body = last.wire.body
        report.forwarded += count(last.body, model)
        report.largest = max(report.largest, last.tokens)
        report.identical += body == sent
        report.changed_outside += not (body.startswith(turn.head) and body.endswith(turn.tail))
        early = report.steps + unconfirmed == 0
        report.changed_too_early += early and own < _SURELY_SAFE * self.window and body != sent
        if last.broke is not None:
            report.breaks += 1
            report.unexplained_breaks += unconfirmed == 0

    def _too_long(self, report: Report, turn: Turn, record: Record, model: Model) -> str:
        """Why a request did not fit: by the proxy's own words, and by a bound of ours."""
        words = record.refusal.message if record.refusal else ""
        comment = ""
        if self.comments is not None and self.comments.exists():
            comment = self.comments.read_text(encoding="utf-8").splitlines()[-1]
        return (
            f"request {report.turns}: sent {count(json.loads(turn.body()), model):,}, {words};"
            f" at least {least_that_stays(turn, model):,} must stay; proxy: {comment}"
        )

    def _compare(self, report: Report, before: Json, after: Json) -> None:
        steps = after["steps"] - before["steps"]
        report.steps += steps
        report.freed += after["steps_freed"][-steps:] if steps else []
        report.failed_open += after["requests"]["failed_open"] - before["requests"]["failed_open"]


def least_that_stays(turn: Turn, model: Model) -> int:
    """The tokens of what always stays: head, first task, last exchange, last three results."""
    body = json.loads(turn.body())
    messages = turn.messages
    results = [index for index, message in enumerate(messages) if _has_result(message)][-3:]
    last_call = max((i for i, m in enumerate(messages) if m["role"] == "assistant"), default=0)
    first = next((i for i, m in enumerate(messages) if m["role"] == "user"), 0)
    systems = [i for i, m in enumerate(messages) if m["role"] in ("system", "developer")]
    kept = {*systems, first, *results, *range(last_call, len(messages))}
    return count_head(body, model) + sum(count_message(messages[i], model) for i in kept)


def _has_result(message: Json) -> bool:
    content = message.get("content")
    return message["role"] == "tool" or (
        isinstance(content, list)
        and any(isinstance(block, dict) and block.get("type") == "tool_result" for block in content)
    )


def play(
    conversation: Json,
    provider: Provider,
    proxy: child.Child,
    window: int,
    comments: Path | None = None,
) -> Report:
    """Play one conversation through a running proxy; `comments` is where it writes its own."""
    player = Player(provider, proxy, window, comments)
    try:
        return player.play(conversation)
    finally:
        player.client.close()


def table(reports: Sequence[Report], window: int) -> Iterator[str]:
    """One line per conversation, then what needs an explanation."""
    yield (
        f"{'conversation':<34} {'turns':>5} {'sent':>11} {'forwarded':>11} {'largest':>7}"
        f" {'same':>5} {'steps':>5} {'least freed':>11} {'breaks':>6} {'odd':>3} {'long':>4}"
        f" {'shape':>5}"
    )
    for report in reports:
        least = f"{min(report.freed) / window:.0%}" if report.freed else "-"
        yield (
            f"{report.name[:34]:<34} {report.turns:>5} {report.sent:>11,} {report.forwarded:>11,}"
            f" {report.largest:>7,} {report.identical:>5} {report.steps:>5} {least:>11}"
            f" {report.breaks:>6} {report.unexplained_breaks:>3} {len(report.refused_on_length):>4}"
            f" {len(report.refused_on_shape):>5}"
        )
    yield ""
    yield from _totals(reports, window)
    for report in reports:
        for line in (*report.refused_on_shape, *report.refused_on_length):
            yield f"{report.name}: {line}"


def _totals(reports: Sequence[Report], window: int) -> Iterator[str]:
    freed = [tokens for report in reports for tokens in report.freed]
    small = [tokens for tokens in freed if tokens < _LEAST_FREED * window]
    sent, forwarded = sum(r.sent for r in reports), sum(r.forwarded for r in reports)
    yield f"requests                        {sum(r.turns for r in reports):,}"
    yield f"  byte-identical                {sum(r.identical for r in reports):,}"
    yield f"tokens sent / forwarded         {sent:,} / {forwarded:,} ({forwarded / sent:.0%})"
    yield f"refused on shape                {sum(len(r.refused_on_shape) for r in reports)}"
    yield f"refused on length               {sum(len(r.refused_on_length) for r in reports)}"
    yield f"changed outside messages        {sum(r.changed_outside for r in reports)}"
    yield f"changed though surely safe      {sum(r.changed_too_early for r in reports)}"
    yield f"failed open                     {sum(r.failed_open for r in reports)}"
    yield f"steps                           {len(freed)}"
    yield f"  that freed less than 15 %     {len(small)}"
    yield f"prefix breaks                   {sum(r.breaks for r in reports)}"
    yield f"  unexplained                   {sum(r.unexplained_breaks for r in reports)}"


def _arguments(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench replay", description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, default=DATA, help="folder of recorded conversations")
    parser.add_argument("--corpora", nargs="+", default=list(CORPORA))
    parser.add_argument("--count", type=int, default=20, help="how many, the longest first")
    parser.add_argument("--window", type=int, default=32_000)
    parser.add_argument("--only", default="", help="part of a conversation's id")
    parser.add_argument("--set", action="append", default=[], help="an option for mitmproxy")
    parser.add_argument("--json", type=Path, help="write the reports there as well")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str]) -> int:
    """Play what was asked for and print the table; 0 if nothing forbidden happened."""
    asked = _arguments(arguments)
    if not asked.data.is_dir():
        print(f"There are no recorded conversations in {asked.data}.", file=sys.stderr)
        return 2
    chosen = longest(asked.data, asked.corpora, 10_000 if asked.only else asked.count)
    chosen = [one for one in chosen if asked.only in one["conversation_id"]]
    reports: list[Report] = []
    with tempfile.TemporaryDirectory(prefix="mitmcontext-replay-") as folder:
        leaf = certificates.make(Path(folder) / "provider", HOSTS)
        provider = Provider(with_windows({"*": asked.window}), keep=8)
        hosts = {"confdir": Path(folder) / "confdir", "provider_authority": leaf.authority}
        comments = Path(folder) / "comments"
        options = [f"context_windows=*={asked.window}", f"loopback_comments={comments}", *asked.set]
        with serving(provider, leaf):
            ports = dict.fromkeys(HOSTS, provider.tls_port)
            cache = {"CONTEXT_CACHE_DIR": str(Path(folder) / "cache")}
            with child.running(ports, options=options, environment=cache, **hosts) as proxy:
                for conversation in chosen:
                    reports.append(play(conversation, provider, proxy, asked.window, comments))
                    _progress(reports[-1], len(reports), len(chosen))
    print("\n".join(table(reports, asked.window)))
    if asked.json:
        asked.json.write_text(json.dumps([asdict(report) for report in reports], indent=1))
    return 0 if all(report.is_good() for report in reports) else 1


def _progress(report: Report, number: int, total: int) -> None:
    if sys.stderr.isatty():
        print(f"{number}/{total} {report.name}: {report.turns} requests", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
