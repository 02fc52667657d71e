"""Damaged requests of every API: each leaves as it came, or in a form that its provider takes.

A long request that the strict provider takes is damaged in one to three places (values of the wrong
type, keys that are missing or unknown, elements that stand twice or elsewhere) and given to a
proxy's worker as the body of a flow is. Whatever the damage, the worker raises nothing but
`Unreadable`, upon which the addon forwards the client's own bytes; and where the provider takes the
damaged request, it takes what became of it.

A case follows from its source and its number alone. MITMCONTEXT_MUTATED says how many there are of
every source.
"""

from __future__ import annotations

import copy
import gzip
import json
import logging
import os
import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
from tests.e2e import (
    forms,
    test_bedrock,
    test_cohere,
    test_gemini,
    test_ollama,
    test_responses,
)

from demo.session import Session
from loopback.http1 import Wire
from loopback.provider import Provider, with_windows
from loopback.refusal import Refusal
from mitmcontext.proxy.carried import carried
from mitmcontext.proxy.job import Job
from mitmcontext.proxy.shelves import Shelves
from mitmcontext.proxy.work import Worker
from mitmcontext.settings import Settings, load
from mitmcontext.values import Action, Standing, Unreadable
from mitmcontext.wire import APIS, api_for
from mitmcontext.wire.ollama import GENERATE

Json = dict[str, Any]

_log = logging.getLogger(__name__)

CASES = int(os.environ.get("MITMCONTEXT_MUTATED", "16"))
CAPTURES = Path(__file__).parents[1] / "../shared/data/captures"
# A window holds a body's bytes divided by one of these: from nearly full to much too small.
BYTES_PER_TOKEN = (3.5, 4.5, 6.0, 9.0)
SMALLEST_WINDOW = 1_000
# Nothing is made of a recorded history with fewer messages.
LEAST = 3
ROUNDS = 5
# The last item where Codex wants its history compacted.
TRIGGER = "compaction_trigger"
HISTORIES = ("messages", "input", "contents")
IDS = ("id", "call_id", "tool_use_id", "tool_call_id")
# Whether a request fits is judged elsewhere; here it is the shape that matters.
BOUNDLESS = with_windows({"*": 1 << 40})
# Some lengths of the told conversation, in requests.
TURNS = slice(16, 60, 8)

# A step is given up for one of these reasons: our own checks, each in its fixed words.
HELD_BACK = frozenset(
    f"a step failed its check: {fault}"
    for fault in (
        "a tool call without its result",
        "an empty text",
        "more cache markers than before",
        "another first message",
        "the last message was changed",
        "turns no longer alternate",
        "a system message or an opaque item was changed",
        "typed text is missing",
        "one of the last results was changed",
        "a thinking block was changed",
        "a tool call without its thinking",
        "an edit does not belong to what stands there",
    )
)


class Sent(NamedTuple):
    """A request that nothing has happened to yet. `headers` have names in lower case."""

    target: str
    headers: Mapping[str, str]
    body: Json

    @property
    def path(self) -> str:
        """The target without its query."""
        return self.target.partition("?")[0]


# Where requests come from: a story told in each API's form, and recordings of real clients.


def _chat() -> Iterator[Json]:
    return Session().openai_requests()


def _ollama() -> Iterator[Json]:
    """Without the window that they ask for, so that the setting decides."""
    for body in test_ollama.told(forms.made_up()):
        yield {key: value for key, value in body.items() if key != "options"}


TOLD: dict[str, tuple[str, Callable[[], Iterator[Json]]]] = {
    "Anthropic Messages": ("/v1/messages", lambda: Session().requests()),
    "OpenAI Chat Completions": ("/v1/chat/completions", _chat),
    "OpenAI Responses": ("/v1/responses", lambda: test_responses.told(forms.made_up())),
    "OpenAI Responses, Codex": (
        "/v1/responses",
        lambda: test_responses.told_by_codex(forms.made_up()),
    ),
    "Google Gemini": (test_gemini.PLAIN, lambda: test_gemini.told(forms.made_up())),
    "Cohere chat": (test_cohere.PATH, lambda: test_cohere.told(forms.made_up())),
    "Ollama chat": ("/api/chat", _ollama),
    "Bedrock Converse": (
        f"/model/{test_bedrock.MODEL}/converse",
        lambda: test_bedrock.told(forms.made_up()),
    ),
}
# It sends one text and the provider's own tokens, and no messages.
NO_HISTORY = {GENERATE.name}


def told(name: str) -> list[Sent]:
    """Some requests of the made-up session in one of the forms, from short to long."""
    path, tell = TOLD[name]
    headers = {"content-type": "application/json"}
    return [Sent(path, headers, body) for body in list(tell())[TURNS]]


@cache
def recorded() -> Mapping[str, list[Sent]]:
    """What real clients sent, by API: all that have a history, made longer."""
    found: dict[str, list[Sent]] = {api.name: [] for api in APIS}
    for path in sorted(CAPTURES.glob("*.jsonl.gz")):
        with gzip.open(path, "rt", encoding="utf-8") as lines:
            for row in map(json.loads, lines):
                api = api_for(row["method"], row["path"].partition("?")[0])
                if api is None or len(history_of(row["body"])) < LEAST:
                    continue
                headers = {key.lower(): value for key, value in row["headers"]}
                # The bodies stand there decoded.
                headers.pop("content-encoding", None)
                found[api.name].append(Sent(row["path"], headers, prolonged(row["body"])))
    return found


def prolonged(body: Json) -> Json:
    """The same with what follows the first prompt told several times, calls under other ids.

    Recordings are short beside the prompts and tools that they begin with: hardly one could lose
    anything.
    """
    key = next(key for key in HISTORIES if key in body)
    history = body[key]
    start = next((at for at, one in enumerate(history) if is_models(one)), len(history))
    repeated = [one for one in history[start:] if one.get("type") != TRIGGER]
    before = [renamed(one, f"_{at}") for at in range(ROUNDS) for one in repeated]
    return {**body, key: [*history[:start], *before, *history[start:]]}


def is_models(message: Json) -> bool:
    """Whether the model said it; items without a role are calls, results and reasoning."""
    prompts = ("system", "developer", "user", "additional_tools", "compaction", TRIGGER)
    return message.get("role", message.get("type")) not in prompts


def renamed(value: Any, end: str, key: str = "") -> Any:
    """A copy in which every id has another end, and no place is marked for the cache."""
    if isinstance(value, dict):
        kept = {name: held for name, held in value.items() if name != "cache_control"}
        return {name: renamed(held, end, name) for name, held in kept.items()}
    if isinstance(value, list):
        return [renamed(held, end) for held in value]
    return value + end if key in IDS and isinstance(value, str) else value


def history_of(body: Json) -> list[Any]:
    """The messages, items or contents of a request that is in order."""
    found: Any = next((body[key] for key in HISTORIES if key in body), None)
    return found if isinstance(found, list) else []


# Damage.

ODD: tuple[Any, ...] = (
    *(None, True, 5, -1, 1.5, 1e300, "", " ", "x", "\u0000", "\ud800", "a\u2028b\r\nc"),
    *([], {}, [1], ["t"], [[]], [{}], {"a": 1}, {"type": "odd"}, {"type": "text", "text": ""}),
    "[mitmcontext: 3 earlier messages of this conversation were condensed into this note]",
    "x" * 5_000,
)
KEYS = ("zzz", "cache_control", "type", "id", "name", "text", "content", "role", "tool_calls")
TYPES = ("text", "thinking", "reasoning", "message", "image", "tool_use", "tool_result", "odd")
ROLES = ("system", "developer", "user", "assistant", "tool", "function", "model", "odd")
STYLES: tuple[Json, ...] = (
    {"separators": (",", ":"), "ensure_ascii": False},
    {"separators": (",", ":")},
    {"indent": 1},
)


class Place(NamedTuple):
    """Where a value stands: `holder[key]`, `depth` steps below the body."""

    holder: Any
    key: Any
    depth: int
    words: str


def places(value: Any, depth: int = 1, words: str = "") -> Iterator[Place]:
    """Every place in a JSON value, from the outside in."""
    inner: Iterable[tuple[Any, Any]] = ()
    if isinstance(value, dict):
        inner = value.items()
    elif isinstance(value, list):
        inner = enumerate(value)
    for key, held in inner:
        there = f"{words}[{key!r}]"
        yield Place(value, key, depth, there)
        yield from places(held, depth + 1, there)


def some_place(body: Json, chance: random.Random) -> Place:
    """Mostly one in the history, as likely on each of its levels."""
    keys = [key for key in HISTORIES if body.get(key)]
    around: dict[int, list[Place]] = {}
    within = chance.random() < 0.9
    for place in places(body):
        if not within or any(place.words.startswith(f"[{key!r}][") for key in keys):
            around.setdefault(place.depth, []).append(place)
    return chance.choice(around[chance.choice(sorted(around))])


def replace(place: Place, chance: random.Random) -> None:
    place.holder[place.key] = copy.deepcopy(chance.choice(ODD))


def remove(place: Place, chance: random.Random) -> None:
    del place.holder[place.key]


def repeat(place: Place, chance: random.Random) -> None:
    if isinstance(place.holder, list):
        place.holder.insert(place.key, copy.deepcopy(place.holder[place.key]))


def exchange(place: Place, chance: random.Random) -> None:
    """Swap with any other value beside it."""
    keys = list(place.holder) if isinstance(place.holder, dict) else range(len(place.holder))
    holder, other = place.holder, chance.choice(keys)
    holder[place.key], holder[other] = holder[other], holder[place.key]


def add(place: Place, chance: random.Random) -> None:
    """Put an odd value beside what is there."""
    if isinstance(place.holder, list):
        place.holder.insert(place.key, copy.deepcopy(chance.choice(ODD)))
    else:
        place.holder[chance.choice(KEYS)] = copy.deepcopy(chance.choice(ODD))


def rename(place: Place, chance: random.Random) -> None:
    """Give a message another role, and anything else another type."""
    named = place.holder[place.key]
    if isinstance(named, dict):
        key = "role" if "role" in named else "type"
        named[key] = chance.choice(ROLES if key == "role" else TYPES)


DAMAGES = (replace, replace, remove, repeat, exchange, add, rename)


def damage(body: Json, chance: random.Random) -> list[str]:
    """Damage a body in place; says where and how."""
    done = []
    for _ in range(chance.choice((1, 1, 1, 2, 3))):
        place, harm = some_place(body, chance), chance.choice(DAMAGES)
        harm(place, chance)
        done.append(f"{harm.__name__} {place.words}")
        if not history_of(body):
            break
    return done


# Judging.


class Judge:
    """One strict provider. A case has an account of its own, so that signatures stay genuine."""

    def __init__(self) -> None:
        self._provider = Provider(BOUNDLESS, keep=1)

    def refuses(self, sent: Sent, raw: bytes, key: str) -> Refusal | None:
        """How the provider refuses these bytes, or None."""
        headers = {**sent.headers, "authorization": f"Bearer {key}"}
        headers.pop("x-api-key", None)
        headers.pop("x-goog-api-key", None)
        pairs = tuple((name.encode(), value.encode()) for name, value in headers.items())
        record, _ = self._provider.handle(Wire("POST", sent.target, b"", pairs, raw, raw))
        return record.refusal

    def takes_as_it_came(self, sent: Sent, raw: bytes, key: str) -> bool:
        """Whether the client's own request would be taken."""
        try:
            return self.refuses(sent, raw, key) is None
        except Exception:  # noqa: BLE001 - a body that breaks the judge itself proves nothing of us
            return False


@cache
def with_window(tokens: int) -> Settings:
    return load({"context_windows": [f"*={max(SMALLEST_WINDOW, tokens)}"]}, {})


@pytest.fixture(scope="module")
def worker() -> Worker:
    """A worker that keeps nothing at rest; each case is a tenant of its own."""
    shelves = Shelves(tenants=b"t" * 32, far=None, shared=False, note="")
    return Worker(carried(SimpleNamespace()), shelves, with_window(SMALLEST_WINDOW))


async def fate(worker: Worker, sent: Sent, raw: bytes, key: str, tokens: int) -> tuple[str, bytes]:
    """What the worker does with a body, in a word or two, and what goes out."""
    api = api_for("POST", sent.path)
    assert api is not None
    settings = with_window(tokens)
    tenant = key.encode().ljust(32)
    job = Job(api, sent.path, tenant, b"p" * 32, sent.headers, raw)
    try:
        ready = await worker.look(job, settings)
    except Unreadable:
        return "unreadable", raw
    assert ready.raw is None, "something was frozen before the conversation was ever seen"
    if ready.standing is Standing.ALONE:
        return "left alone", raw
    result = await worker.decide(ready)
    action, reason = result.outcome.action, result.outcome.reason
    if action is Action.FAILED_OPEN:
        assert reason in HELD_BACK, reason
    again = await worker.look(job, settings)
    assert again.raw == result.raw, "what was frozen is not what is forwarded the next time"
    return action.name.lower(), raw if result.raw is None else result.raw


async def survive(worker: Worker, name: str, sources: Sequence[Sent], cases: int) -> Counter[str]:
    """Run the cases of one source; how many met which fate."""
    judge, fates = Judge(), Counter[str]()
    for number in range(cases):
        chance = random.Random(f"{name} {number}")
        sent = chance.choice(sources)
        body = copy.deepcopy(sent.body)
        done = damage(body, chance)
        text = json.dumps(body, **chance.choice(STYLES))
        # Half a surrogate pair can only be sent escaped.
        raw = text.encode("utf-8", "backslashreplace")
        tokens = int(len(raw) / chance.choice(BYTES_PER_TOKEN))
        case = f"{name} {number}: {', '.join(done)}"
        taken = judge.takes_as_it_came(sent, raw, case)
        try:
            word, out = await fate(worker, sent, raw, f"{name} {number}", tokens)
        except Exception as error:
            error.add_note(case)
            raise
        fates[word] += 1
        fates["taken"] += taken
        if out != raw and taken:
            refusal = judge.refuses(sent, out, case)
            assert refusal is None, f"{case}: {refusal.message}"
            fates["taken both times"] += 1
    return fates


def test_every_api_with_messages_is_damaged_here() -> None:
    named = {api.name for path, _ in TOLD.values() if (api := api_for("POST", path)) is not None}
    assert named == {api.name for api in APIS} - NO_HISTORY


async def all_survive(worker: Worker, name: str, sources: Sequence[Sent]) -> None:
    """Whole the sources are taken; what is made of them once they are damaged, if it was before."""
    judge = Judge()
    whole = [judge.refuses(sent, json.dumps(sent.body).encode(), "k") for sent in sources]
    assert whole == [None] * len(sources)
    fates = await survive(worker, name, sources, CASES)
    _log.info("%s: %s", name, dict(sorted(fates.items())))
    # Else hardly anything was put to the test.
    assert fates["taken both times"] >= CASES // 12


@pytest.mark.parametrize("name", TOLD)
async def test_what_is_made_of_damage_is_taken_if_the_damage_was(name: str, worker: Worker) -> None:
    await all_survive(worker, name, told(name))


@pytest.mark.parametrize("name", sorted({api.name for api in APIS} - NO_HISTORY))
async def test_the_same_with_what_real_clients_sent(name: str, worker: Worker) -> None:
    if not any(recorded().values()):
        pytest.skip("needs the captures of real clients")
    if not recorded()[name]:
        pytest.skip(f"no client of {name} was captured with a history")
    await all_survive(worker, f"{name}, captured", recorded()[name])
