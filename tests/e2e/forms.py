"""Long conversations in the forms of further APIs, played turn by turn and judged.

One story, the demo's made-up session or a recorded one, is told in each API's own form: what a
client of that API would have sent at every turn.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle, pairwise
from typing import Any

import pytest
from tests.e2e.fixture_types import Json

import replay
from demo.session import TOOLS, Session, encode
from loopback.client import Connection
from loopback.provider import Provider
from mitmcontext.condense.units import unpaired
from mitmcontext.wire.api import Api

Blocks = list[Json]


@dataclass(frozen=True)
class Story:
    """A conversation in Anthropic's form, and after how many messages each request is sent."""

    system: str
    messages: Sequence[Json]
    cuts: Sequence[int]

    def turns(self) -> Iterator[Sequence[Json]]:
        """The messages of each request."""
        for cut in self.cuts:
            yield self.messages[:cut]


def made_up() -> Story:
    """The session of the demo, up to its sixtieth request."""
    return story_of(Session())


def story_of(session: Session) -> Story:
    """A session as a story, up to its sixtieth request."""
    system = "\n\n".join(block["text"] for block in next(session.requests())["system"])
    return Story(system, session.messages, session.cuts[:60])


def recorded(place: int) -> Story:
    """One of the longest recorded sessions, up to its sixtieth request."""
    if not replay.DATA.is_dir():
        pytest.skip("the recorded conversations are not on this machine")
    found = replay.longest(replay.DATA, ["claude_code_sessions"], place + 1)[place]
    return Story(found.get("system") or "", found["messages"], found["cuts"][:60])


STORIES: list[Any] = [
    pytest.param(made_up, id="made up"),
    pytest.param(lambda: recorded(4), id="recorded"),
]


def blocks(message: Json) -> Blocks:
    """A message's blocks; a string is one."""
    content = message["content"]
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def of_kind(message: Json, kind: str) -> Blocks:
    """The blocks of one type."""
    return [block for block in blocks(message) if block["type"] == kind]


def text_of(message: Json) -> str:
    """What a message says beside calls, results and thinking."""
    return "\n\n".join(block["text"] for block in of_kind(message, "text"))


def result_text(block: Json) -> str:
    """What a tool's result says."""
    content = block.get("content") or ""
    if isinstance(content, str):
        return content
    return "\n".join(inner.get("text", "") for inner in content)


def functions() -> list[Json]:
    """The tools of the demo as functions, which is how most APIs offer them."""
    return [
        {
            "type": "function",
            "function": {
                "name": tool["name"],
                "description": tool["description"],
                "parameters": tool["input_schema"],
            },
        }
        for tool in TOOLS
    ]


def poster(
    connection: Connection, headers: Sequence[tuple[str, str]], *paths: str
) -> Callable[[bytes], tuple[int, bytes]]:
    """What `play` takes for sending: by this connection, to one path after the other in turn."""
    turns = cycle(paths)

    def post(body: bytes) -> tuple[int, bytes]:
        answer = connection.post(next(turns), headers, body)
        return answer.status, answer.body

    return post


def play(
    api: Api,
    bodies: Sequence[Json],
    post: Callable[[bytes], tuple[int, bytes]],
    provider: Provider,
    stats: Callable[[], Json],
    window: int,
    least_steps: int,
) -> None:
    """Send a conversation and judge what arrived, and what came back.

    Nothing is refused and all fits by the provider's own count; beside the messages every byte is
    the client's; what was forwarded once is forwarded again, byte for byte, unless a step is taken;
    calls have their results; answers are the provider's to the byte, and their usage is read.
    """
    sent = [encode(body) for body in bodies]
    answers = [post(body) for body in sent]

    records = list(provider.records)
    refused = [r.refusal.message for r in records if r.refusal]
    assert refused == []
    assert [status for status, _ in answers] == [200] * len(sent)
    assert [answer for _, answer in answers] == [record.answer for record in records]
    assert max(record.tokens for record in records) <= window

    forwarded = [api.read(record.wire.body) for record in records]
    for body, made in zip(sent, forwarded, strict=True):
        asked = api.read(body)
        assert made.body[: made.array.start] == body[: asked.array.start]
        assert made.body[made.array.end :] == body[asked.array.end :]
    histories = [[api.parse(r.raw(at)) for at in range(len(r.spans))] for r in forwarded]
    assert not any(unpaired(history) for history in histories)
    digests = [[message.digest for message in history] for history in histories]
    changed = sum(now[: len(before)] != before for before, now in pairwise(digests))

    found = stats()
    assert found["steps"] >= least_steps
    assert changed <= found["steps"]
    assert len(provider.breaks) <= found["steps"]
    assert found["requests"]["failed_open"] == 0
    assert found["requests"]["refused_after_rewrite"] == 0
    assert found["prefix_breaks_unexplained"] == 0
    assert found["tokens"]["forwarded"] < found["tokens"]["sent"]
    # Most answers are streamed; small requests teach nothing.
    assert found["estimates"]["compared"] > 0.7 * len(sent)


def raw_prefixes_hold(api: Api, provider: Provider, steps: int) -> None:
    """Forwarded messages are the same bytes at the next turn, but for steps.

    For APIs in which clients put nothing into older messages from turn to turn.
    """
    requests = [api.read(record.wire.body) for record in provider.records]
    raws = [[r.raw(at) for at in range(len(r.spans))] for r in requests]
    assert sum(now[: len(before)] != before for before, now in pairwise(raws)) <= steps
