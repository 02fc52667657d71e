"""Random histories as real agents send them.

A `Talk` is a whole conversation of one client: what it has said and heard, how it writes its JSON,
and where its requests end. Each request repeats what went before, with its cache markers at other
places. All texts are made here.
"""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st

from loopback import rules_anthropic, rules_openai
from loopback.refusal import Refusal
from mitmcontext.wire.anthropic import MESSAGES
from mitmcontext.wire.api import Api
from mitmcontext.wire.openai_chat import CHAT

Json = dict[str, Any]

laws = settings(
    max_examples=40,
    deadline=None,
    phases=(Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink),
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
"""For laws that run whole conversations: fewer examples, no clock."""


BETAS = frozenset({"mid-conversation-system-2026-08-21", "context-management-2025-06-27"})


_WORDS: Final = (
    "the order queue retries worker src/app/worker.py a message twice OrderService.handle when "
    "state=idle config.load_settings() fails with ValueError: not found in /srv/data/7f3a9c2e.log "
    'and then return None # TODO naïve café 世界 🙂 "quoted" back\\slash tab\there <tag> 42 3.14'
)


def words(seed: int, size: int) -> str:
    """About `size` characters of text that looks like an agent's; the same seed, the same text."""
    chance, known = random.Random(seed), _WORDS.split(" ")
    found: list[str] = []
    length = 0
    while length < size:
        line = " ".join(chance.choices(known, k=chance.randint(1, 12)))
        found.append("  " * chance.randint(0, 2) + line)
        length += len(found[-1]) + 1
    return "\n".join(found)[: max(1, size)].strip() or "x"


# What people and programs say.

seeds = st.integers(0, 1 << 16)
fullness = st.integers(80, 140)
"""How full a window is to be, in percent."""
odd_texts = st.sampled_from(
    [
        "> quoted\n> twice\n\n> again",
        "The user wrote:\n> not me",
        "[mitmcontext: 3 earlier messages of this conversation were condensed into this note]",
        "a\r\nb\r\nc",
        " leading and trailing ",
        "line\u2028separator\u0085next\x0cpage\x00zero",
        '{"role":"user","content":"x"}',
        "\\ud800 \\u0041 \\\\",
        "…",
    ]
)
short = st.builds(words, seeds, st.integers(5, 400))
typed_texts = short | odd_texts | st.builds(words, seeds, st.sampled_from([700, 1_900]))
results = st.builds(words, seeds, st.sampled_from([0, 30, 400, 1_400, 1_600, 3_000, 9_000]))
observations = results.map(lambda text: f"Observation: {text}")
environments = results.map(lambda text: f"<environment_details>\n{text}\n</environment_details>")


@dataclass(frozen=True)
class Style:
    """How a client writes JSON."""

    ascii: bool = False
    separators: tuple[str, str] = (",", ":")
    indent: int | None = None

    def dump(self, value: Any) -> bytes:
        text = json.dumps(
            value, ensure_ascii=self.ascii, separators=self.separators, indent=self.indent
        )
        return text.encode()


styles = st.builds(
    Style,
    st.booleans(),
    st.sampled_from([(",", ":"), (", ", ": "), (" ,\t", " : ")]),
    st.sampled_from([None, None, 1]),
)


@dataclass
class Talk:
    """A conversation: all its messages, and after how many of them the client sends a request."""

    api: Api
    model: str
    messages: list[Json] = field(default_factory=list)
    cuts: list[int] = field(default_factory=list)
    head: Json = field(default_factory=dict)
    tail: Json = field(default_factory=dict)
    style: Style = field(default_factory=Style)

    def request(self, cut: int | None = None, marks: Sequence[int] = ()) -> bytes:
        """The body of one request; `marks` say where cache markers go, modulo the places."""
        messages = self.messages[: cut if cut is not None else self.cuts[-1]]
        if self.api is MESSAGES:
            messages = marked(messages, marks)
        body = {"model": self.model, **self.head, "messages": messages, **self.tail}
        return self.style.dump(body)

    def fork(self, cut: int, messages: Sequence[Json]) -> Talk:
        """The same up to a cut, then something else."""
        begun = [*copy.deepcopy(self.messages[:cut]), *messages]
        cuts = [*(at for at in self.cuts if at <= cut), len(begun)]
        return Talk(self.api, self.model, begun, cuts, self.head, self.tail, self.style)

    def refusal(self, body: bytes, memory: Any = None) -> Refusal | None:
        """What a strict provider has against a request's shape."""
        read = json.loads(body)
        if self.api is MESSAGES:
            return rules_anthropic.check(read, memory, betas=BETAS, length=False)
        return rules_openai.check(read, memory, length=False)


def memory_of(talk: Talk) -> Any:
    """What the provider remembers of an account once it has seen the whole conversation."""
    memory = rules_anthropic.Memory() if talk.api is MESSAGES else rules_openai.Memory()
    assert talk.refusal(talk.request(), memory) is None
    return memory


def marked(messages: Sequence[Json], marks: Sequence[int]) -> list[Json]:
    """The messages with `cache_control` at some places, a string becoming a text block for it."""
    found = copy.deepcopy(list(messages))
    places = list(_places(found))
    for mark in set(list(marks)[: rules_anthropic.MOST_MARKERS]):
        if places:
            places[mark % len(places)]()
    return found


def _places(messages: list[Json]) -> Iterator[Callable[[], None]]:
    for message in messages:
        content = message["content"]
        if isinstance(content, str):
            yield lambda message=message, content=content: message.update(  # type: ignore[misc]
                content=[{"type": "text", "text": content, **MARK}]
            )
            continue
        for block in content:
            if block["type"] in ("text", "tool_use", "tool_result", "image", "document"):
                yield lambda block=block: block.update(MARK)  # type: ignore[misc]
            if block["type"] == "tool_result" and isinstance(block.get("content"), list):
                for inner in block["content"]:
                    yield lambda inner=inner: inner.update(MARK)  # type: ignore[misc]


MARK: Json = {"cache_control": {"type": "ephemeral"}}


# Anthropic.


def text_block(text: str) -> Json:
    return {"type": "text", "text": text}


IMAGE: Json = {
    "type": "image",
    "source": {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="},
}
DOCUMENT: Json = {"type": "document", "source": {"type": "text", "data": "x " * 400}}
TOOL: Json = {"name": "read", "description": "Reads.", "input_schema": {"type": "object"}}


@st.composite
def anthropic_users(draw: st.DrawFn) -> Json:
    """What a person says, with what clients put beside it, or an observation as text."""
    typed = text_block(draw(typed_texts))
    kind = draw(st.integers(0, 7))
    if kind <= 1:
        return {"role": "user", "content": typed["text"]}
    if kind == 2:
        return {"role": "user", "content": draw(observations)}
    beside = {
        3: [typed],
        4: [text_block(draw(environments)), typed],
        5: [typed, text_block(draw(environments))],
        6: [IMAGE, typed],
        7: [DOCUMENT, typed, text_block(draw(typed_texts))],
    }
    return {"role": "user", "content": copy.deepcopy(beside[kind])}


@st.composite
def anthropic_results(draw: st.DrawFn, id_: str) -> Json:
    """A tool's result in one of its forms."""
    text = draw(results)
    form = draw(st.integers(0, 6))
    content: Any = {
        2: [text_block(text)],
        3: [text_block(text), text_block("done")],
        4: [text_block(text), copy.deepcopy(IMAGE)],
        5: None,
    }.get(form, text)
    block = {"type": "tool_result", "tool_use_id": id_}
    if content is not None:
        block["content"] = content
    return {**block, "is_error": True} if form == 6 else block


@dataclass
class Ids:
    """Ids that no call of this conversation had before."""

    prefix: str
    last: int = 0

    def next(self) -> str:
        self.last += 1
        return f"{self.prefix}{self.last:04d}"


def thinking(seed: int) -> Json:
    return {"type": "thinking", "thinking": words(seed, 300), "signature": f"c2ln{seed}"}


@st.composite
def anthropic_steps(draw: st.DrawFn, ids: Ids, *, thinks: bool) -> list[Json]:
    """A model's message with calls, and the user's with their results."""
    calls = [ids.next() for _ in range(draw(st.integers(1, 3)))]
    blocks: list[Json] = [thinking(draw(seeds))] if thinks else []
    if draw(st.booleans()):
        blocks.append(text_block(draw(short)))
    for id_ in calls:
        given = {"path": f"src/{id_}.py", "note": draw(short)}
        blocks.append({"type": "tool_use", "id": id_, "name": "read", "input": given})
    answers = [draw(anthropic_results(id_)) for id_ in draw(st.permutations(calls))]
    if draw(st.integers(0, 5)) == 0:
        answers.append(text_block(draw(typed_texts | environments)))
    return [{"role": "assistant", "content": blocks}, {"role": "user", "content": answers}]


@st.composite
def anthropic_ends(draw: st.DrawFn, ids: Ids, *, thinks: bool) -> list[Json]:
    """What ends a model's turn."""
    said = draw(short)
    form = draw(st.integers(0, 5))
    if thinks:
        return [{"role": "assistant", "content": [thinking(draw(seeds)), text_block(said)]}]
    if form == 0:
        id_ = ids.next().replace("toolu", "srvtoolu")
        searched = {"type": "server_tool_use", "id": id_, "name": "web_search", "input": {}}
        found = {"type": "web_search_tool_result", "tool_use_id": id_, "content": []}
        return [{"role": "assistant", "content": [searched, found, text_block(said)]}]
    if form == 1:
        return [{"role": "assistant", "content": [text_block(said)]}]
    return [{"role": "assistant", "content": said}]


@st.composite
def anthropic_talks(draw: st.DrawFn, turns: int = 6, steps: int = 8) -> Talk:
    """A conversation with Anthropic Messages."""
    ids = Ids("toolu_")
    thinks = draw(st.booleans())
    talk = Talk(MESSAGES, "claude-opus-4-5", style=draw(styles))
    talk.head = {"max_tokens": 1000, "system": draw(st.just("Be brief.") | short.map(_blocks))}
    talk.tail = {"tools": [TOOL], "metadata": {"user_id": "u\u00e9"}, "stream": True}
    for turn in range(draw(st.integers(1, turns))):
        if turn:
            talk.messages += draw(anthropic_ends(ids, thinks=thinks))
        talk.messages.append(draw(anthropic_users()))
        if draw(st.integers(0, 9)) == 0:
            said = {"role": "system", "content": draw(short), "output_config": {"effort": "low"}}
            talk.messages.append(said)
        talk.cuts.append(len(talk.messages))
        for _ in range(draw(st.integers(0, steps))):
            talk.messages += draw(anthropic_steps(ids, thinks=thinks))
            talk.cuts.append(len(talk.messages))
    return talk


def _blocks(text: str) -> list[Json]:
    return [text_block("x-anthropic-billing-header: cc_version=2.1;"), text_block(text)]


# OpenAI.


@st.composite
def openai_users(draw: st.DrawFn) -> Json:
    """What a person says, with what clients put beside it, or an observation as text."""
    said = draw(typed_texts)
    forms: list[Json] = [
        {"content": said},
        {"content": said, "name": "ann"},
        {"content": draw(observations)},
        {"content": [text_block(said), text_block(draw(environments))]},
        {"content": [text_block(said), {"type": "image_url", "image_url": {"url": "https://x"}}]},
    ]
    return {"role": "user", **draw(st.sampled_from(forms))}


@st.composite
def openai_steps(draw: st.DrawFn, ids: Ids) -> list[Json]:
    """A model's message with calls, and the messages with their results."""
    said: Any = draw(st.none() | short)
    if draw(st.integers(0, 7)) == 0:
        legacy = {"name": "run", "arguments": json.dumps({"command": draw(short)})}
        return [
            {"role": "assistant", "content": said, "function_call": legacy},
            {"role": "function", "name": "run", "content": draw(results)},
        ]
    if draw(st.integers(0, 7)) == 0:
        return [
            {"role": "assistant", "content": draw(short)},
            {"role": "user", "content": draw(observations)},
        ]
    calls = [ids.next() for _ in range(draw(st.integers(1, 3)))]
    listed = [
        {
            "id": id_,
            "type": "function",
            "function": {"name": "run", "arguments": json.dumps({"command": draw(short)})},
        }
        for id_ in calls
    ]
    answers = [
        {
            "role": "tool",
            "tool_call_id": id_,
            "content": draw(results | results.map(lambda text: [text_block(text)])),
        }
        for id_ in draw(st.permutations(calls))
    ]
    return [{"role": "assistant", "content": said, "tool_calls": listed}, *answers]


@st.composite
def openai_ends(draw: st.DrawFn) -> list[Json]:
    """What ends a model's turn."""
    form = draw(st.integers(0, 9))
    if form == 0:
        return [{"role": "assistant", "content": None, "refusal": draw(short)}]
    if form == 1:
        return [{"role": "assistant", "content": None, "audio": {"id": "audio_1"}}]
    if form == 2:
        return [{"role": "assistant", "content": [text_block(draw(short))]}]
    return [{"role": "assistant", "content": draw(short)}]


@st.composite
def openai_talks(draw: st.DrawFn, turns: int = 6, steps: int = 8) -> Talk:
    """A conversation with Chat Completions."""
    ids = Ids("call_")
    talk = Talk(CHAT, "gpt-4o", style=draw(styles))
    talk.head = {"temperature": 1e2}
    function = {"name": "run", "parameters": {"type": "object"}}
    talk.tail = {"tools": [{"type": "function", "function": function}], "stream": True}
    starts = [[], ["system"], ["developer"], ["system", "developer"], ["assistant"]]
    first = draw(st.sampled_from(starts))
    talk.messages = [{"role": role, "content": "Be brief. " + draw(short)} for role in first]
    for turn in range(draw(st.integers(1, turns))):
        if turn:
            talk.messages += draw(openai_ends())
        talk.messages.append(draw(openai_users()))
        if draw(st.integers(0, 9)) == 0:
            talk.messages.append({"role": "system", "content": draw(short)})
        talk.cuts.append(len(talk.messages))
        for _ in range(draw(st.integers(0, steps))):
            talk.messages += draw(openai_steps(ids))
            talk.cuts.append(len(talk.messages))
    return talk


def long_talk(turns: int = 12, size: int = 4_000, **others: Any) -> Talk:
    """One prompt, many calls."""
    talk = Talk(MESSAGES, "claude-opus-4-5", head={"max_tokens": 1000, "system": "Be brief."})
    talk.messages.append({"role": "user", "content": "Find the bug."})
    talk.cuts.append(1)
    for turn in range(turns):
        id_ = f"toolu_{turn}"
        call = {"type": "tool_use", "id": id_, "name": "read", "input": {"path": f"{turn}.py"}}
        result = {"type": "tool_result", "tool_use_id": id_, "content": words(turn, size)}
        blocks = [thinking(turn), call] if others.get("thinks") else [call]
        talk.messages += [
            {"role": "assistant", "content": blocks},
            {"role": "user", "content": [result]},
        ]
        talk.cuts.append(len(talk.messages))
    return talk


talks = anthropic_talks() | openai_talks()
markers = st.lists(st.integers(0, 1 << 12), max_size=4)
