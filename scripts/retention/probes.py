"""Recorded conversations, and what later turns of them need of earlier ones."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

from mitmcontext.known import Known
from mitmcontext.tokens import vocabulary
from mitmcontext.tokens.families import Family, family_of
from mitmcontext.values import Kind, Message
from mitmcontext.wire.anthropic import MESSAGES
from mitmcontext.wire.api import Api, message_of
from mitmcontext.wire.openai_chat import CHAT
from replay import conversations

Json = dict[str, Any]
_LINE = 24
_ANTHROPIC = "anthropic-messages"
_MODEL = {_ANTHROPIC: "claude-sonnet-4-5", "openai-chat": "gpt-4o"}


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


@lru_cache(50_000)
def read_message(api: Api, raw: bytes) -> Message:
    """One message as its API reads it; the same bytes are read once."""
    return message_of(api, raw)


def weight_of(one: Recorded) -> Callable[[Message], int]:
    """Weighs messages, in tokens of the conversation's model; each once."""
    known = Known({}, counter)
    return lambda message: _weight(known, one.family, message)


_WEIGHTS: dict[tuple[str, bytes], int] = {}


def _weight(known: Known, family: Family, message: Message) -> int:
    key = family.name, message.digest
    if key not in _WEIGHTS:
        _WEIGHTS[key] = known.weigh(family, message)
    return _WEIGHTS[key]
