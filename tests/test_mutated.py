"""Damaged requests of every API: each leaves as it came, or in a form that its provider takes.

A long request that the strict provider takes is damaged in one to three places (values of the wrong
type, keys that are missing or unknown, elements that stand twice or elsewhere) and given to a
proxy's worker as the body of a flow is. Whatever the damage, the worker raises nothing but
`Unreadable`, upon which the addon forwards the client's own bytes; and where the provider takes the
damaged request, it takes what became of it.

A case follows from its source and its number alone. MITMCONTEXT_MUTATED says how many there are of
every source. The first ones and then every two-hundredth are told at full length; the others tell
the same story in few words, so that a million of them take an hour of one core, and not half a day.
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
# Where texts are short, there is more around them, and sealed thoughts are most of a body.
IN_FEW_WORDS = (4.5, 6.0, 9.0, 15.0, 25.0)
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
# Some lengths of the told conversation, in requests, at full length and in few words.
TURNS = slice(16, 60, 8)
FEW_TURNS = slice(3, 8)
# Characters that are left of results, when there are to be few, and the tools that are.
FEW_WORDS = (30, 60, 60, 120, 900)
FEW_TOOLS = 2
WHOLE_AT_FIRST = 64
WHOLE_EVERY = 200

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
# Or since nobody could count it. A provider has to refuse such a request, too.
UNCOUNTED = "what stands beside the messages: "
# What a machine may cause that is busy with something else; of many cases few.
LATE = "no step in time"


class Sent(NamedTuple):
    """A request that nothing has happened to yet. `headers` have names in lower case."""

    target: str
    headers: Mapping[str, str]
    text: str

    @property
    def body(self) -> Json:
        """The body, which may be changed: it is another one each time."""
        read: Json = json.loads(self.text)
        return read

    @property
    def path(self) -> str:
        """The target without its query."""
        return self.target.partition("?")[0]


# Where requests come from: a story told in each API's form, and recordings of real clients.


def _ollama(session: Session) -> Iterator[Json]:
    """Without the window that they ask for, so that the setting decides."""
    for body in test_ollama.told(forms.story_of(session)):
        yield {key: value for key, value in body.items() if key != "options"}


def _in_form(tell: Callable[[forms.Story], Iterator[Json]]) -> Callable[[Session], Iterator[Json]]:
    return lambda session: tell(forms.story_of(session))


TOLD: dict[str, tuple[str, Callable[[Session], Iterator[Json]]]] = {
    "Anthropic Messages": ("/v1/messages", Session.requests),
    "OpenAI Chat Completions": ("/v1/chat/completions", Session.openai_requests),
    "OpenAI Responses": ("/v1/responses", _in_form(test_responses.told)),
    "OpenAI Responses, Codex": ("/v1/responses", _in_form(test_responses.told_by_codex)),
    "Google Gemini": (test_gemini.PLAIN, _in_form(test_gemini.told)),
    "Cohere chat": (test_cohere.PATH, _in_form(test_cohere.told)),
    "Ollama chat": ("/api/chat", _ollama),
    "Bedrock Converse": (f"/model/{test_bedrock.MODEL}/converse", _in_form(test_bedrock.told)),
}
# It sends one text and the provider's own tokens, and no messages.
NO_HISTORY = {GENERATE.name}


def told(name: str) -> list[Sent]:
    """Some requests of the made-up session in one of the forms, from short to long."""
    path, tell = TOLD[name]
    headers = {"content-type": "application/json"}
    return [Sent(path, headers, json.dumps(body)) for body in list(tell(Session()))[TURNS]]


def told_in_few_words(name: str) -> list[Sent]:
    """The same with hardly anything left of each text, and shorter conversations."""
    path, tell = TOLD[name]
    headers, session, chance = {"content-type": "application/json"}, Session(), random.Random(3)
    for message in session.messages:
        for block in message["content"]:
            if block["type"] == "tool_use":
                given: Json = block["input"]
                block["input"] = {
                    key: clipped(value, 60) if isinstance(value, str) else value
                    for key, value in given.items()
                }
            else:
                key = {"tool_result": "content"}.get(block["type"], block["type"])
                most = chance.choice(FEW_WORDS) if key == "content" else 60
                block[key] = clipped(block[key], most)
    bodies = list(tell(session))[FEW_TURNS]
    for body in bodies:
        spare_tools(body)
    return [Sent(path, headers, json.dumps(body)) for body in bodies]


def spare_tools(value: Any) -> None:
    """Leave hardly any of the tools that are offered, wherever they stand."""
    if isinstance(value, dict):
        for key, held in value.items():
            if key in ("tools", "functionDeclarations"):
                value[key] = held = held[:FEW_TOOLS]
            if key not in HISTORIES:
                spare_tools(held)
    elif isinstance(value, list):
        for held in value:
            spare_tools(held)


def clipped(text: str, most: int) -> str:
    """The text's beginning and end, of about so many characters at the most."""
    return text if len(text) <= most else f"{text[: most // 2]}\n{text[-most // 2 :]}"


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
                text = json.dumps(prolonged(row["body"]))
                found[api.name].append(Sent(row["path"], headers, text))
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
    """Where a value stands: `holder[key]`, behind the keys of `path`."""

    holder: Any
    key: Any
    path: tuple[Any, ...]

    @property
    def words(self) -> str:
        """The same to be read."""
        return "".join(f"[{key!r}]" for key in (*self.path, self.key))


Levels = list[list[tuple[Any, Any, tuple[Any, ...]]]]


def gather(value: Any, path: tuple[Any, ...], levels: Levels) -> None:
    """Add every place in a JSON value to those on its level, from the outside in."""
    inner: Iterable[tuple[Any, Any]]
    if isinstance(value, dict):
        inner = value.items()
    elif isinstance(value, list):
        inner = enumerate(value)
    else:
        return
    depth = len(path)
    while len(levels) <= depth:
        levels.append([])
    level = levels[depth]
    for key, held in inner:
        level.append((value, key, path))
        if isinstance(held, dict | list):
            gather(held, (*path, key), levels)


def some_place(body: Json, chance: random.Random) -> Place:
    """Mostly one in the history, as likely on each of its levels."""
    levels: Levels = []
    if chance.random() < 0.9:
        for key in HISTORIES:
            gather(body.get(key), (key,), levels)
    else:
        gather(body, (), levels)
    return Place(*chance.choice(chance.choice([level for level in levels if level])))


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

    def forget(self) -> None:
        """Forget all accounts and what became of them: of a million, that would be much."""
        self._provider.accounts.clear()
        self._provider.refused.clear()
        self._provider.breaks.clear()

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
        assert reason in {*HELD_BACK, LATE} or reason.startswith(UNCOUNTED), reason
    again = await worker.look(job, settings)
    assert again.raw == result.raw, "what was frozen is not what is forwarded the next time"
    word = "uncounted" if reason.startswith(UNCOUNTED) else action.name.lower()
    word = "late" if reason == LATE else word
    return word, raw if result.raw is None else result.raw


async def survive(
    worker: Worker,
    name: str,
    sources: Sequence[Sent],
    few_words: Sequence[Sent],
    numbers: Iterable[int],
) -> Counter[str]:
    """Run the cases of one source that have these numbers; how many met which fate."""
    judge, fates = Judge(), Counter[str]()
    for number in numbers:
        chance = random.Random(f"{name} {number}")
        whole = number < WHOLE_AT_FIRST or number % WHOLE_EVERY == 0 or not few_words
        sent = chance.choice(sources if whole else few_words)
        body = sent.body
        done = damage(body, chance)
        text = json.dumps(body, **chance.choice(STYLES))
        # Half a surrogate pair can only be sent escaped.
        raw = text.encode("utf-8", "backslashreplace")
        tokens = int(len(raw) / chance.choice(BYTES_PER_TOKEN if whole else IN_FEW_WORDS))
        case = f"{name} {number}: {', '.join(done)}"
        try:
            word, out = await fate(worker, sent, raw, f"{name} {number}", tokens)
        except Exception as error:
            error.add_note(case)
            raise
        fates[word] += 1
        if word == "uncounted":
            assert not judge.takes_as_it_came(sent, raw, case), case
        if out != raw and judge.takes_as_it_came(sent, raw, case):
            refusal = judge.refuses(sent, out, case)
            assert refusal is None, f"{case}: {refusal.message}"
            fates["taken both times"] += 1
            judge.forget()
    return fates


def test_every_api_with_messages_is_damaged_here() -> None:
    named = {api.name for path, _ in TOLD.values() if (api := api_for("POST", path)) is not None}
    assert named == {api.name for api in APIS} - NO_HISTORY


async def all_survive(
    worker: Worker, name: str, sources: Sequence[Sent], few_words: Sequence[Sent] = ()
) -> None:
    """Whole the sources are taken; what is made of them once they are damaged, if it was before."""
    judge = Judge()
    whole = [judge.refuses(sent, sent.text.encode(), "k") for sent in sources]
    assert whole == [None] * len(sources)
    briefly = [judge.refuses(sent, sent.text.encode(), "f") for sent in few_words]
    assert briefly == [None] * len(few_words)
    fates = await survive(worker, name, sources, few_words, range(CASES))
    _log.info("%s: %s", name, dict(sorted(fates.items())))
    assert fates["late"] <= 2 + CASES // 100
    # Else hardly anything was put to the test.
    assert fates["taken both times"] >= CASES // 12


@pytest.mark.parametrize("name", TOLD)
async def test_what_is_made_of_damage_is_taken_if_the_damage_was(name: str, worker: Worker) -> None:
    await all_survive(worker, name, told(name), told_in_few_words(name))


@pytest.mark.parametrize("name", sorted({api.name for api in APIS} - NO_HISTORY))
async def test_the_same_with_what_real_clients_sent(name: str, worker: Worker) -> None:
    if not any(recorded().values()):
        pytest.skip("needs the captures of real clients")
    if not recorded()[name]:
        pytest.skip(f"no client of {name} was captured with a history")
    await all_survive(worker, f"{name}, captured", recorded()[name])
