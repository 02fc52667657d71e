"""Conversations to summarise, and what a model might say of them."""

from __future__ import annotations

from collections.abc import Sequence

from mitmcontext.condense.conversation import Conversation, Room
from mitmcontext.condense.entries import FrozenEdit
from mitmcontext.condense.summaries import plan
from mitmcontext.condense.summaries.plan import SummaryPlan, Wanted
from mitmcontext.values import Kind, Message, Part, Span


def weigh(message: Message, at: int | None = None) -> int:
    """About four characters a token."""
    return 4 + sum(len(part.text) // 4 + 2 for part in message.parts)


def user(text: str, kind: Kind = Kind.TYPED) -> Message:
    return Message("user", (Part(kind, text, Span(0, 0), digest=text.encode()),), text.encode())


def model(text: str) -> Message:
    part = Part(Kind.PROSE, text, Span(0, 0), digest=text.encode())
    return Message("assistant", (part,), text.encode())


def call(number: int, text: str) -> Message:
    part = Part(Kind.CALL, text, Span(0, 0), call_id=f"c{number}", digest=text.encode())
    return Message("assistant", (part,), text.encode())


def result(number: int, text: str) -> Message:
    part = Part(
        Kind.RESULT, text, Span(0, 0), Span(0, 0), call_id=f"c{number}", digest=text.encode()
    )
    return Message("user", (part,), text.encode())


def agents(turns: int) -> list[Message]:
    """A coding agent: a task, then calls and results that speak of the same few files."""
    found = [user("Make the orders importable. Never touch config/live.toml.")]
    for n in range(turns):
        file = f"src/orders/part_{n % 6}.py"
        found.append(call(n, f'Read {{"path":"{file}"}}'))
        body = "\n".join(f"{line:>4}\tdef handle_{n % 6}(row):  # {file}" for line in range(40))
        found.append(result(n, body))
    return found


def chat(turns: int) -> list[Message]:
    """People talking, in turn."""
    found = []
    for n in range(turns):
        found.append(user(f"Question {n}: what about the garden in week {n}?"))
        found.append(
            model(f"Answer {n}: " + "the roses want water and the hedge wants none. " * 12)
        )
    return [*found, user("And now?")]


def conversation(messages: Sequence[Message], frozen: Sequence[FrozenEdit] = ()) -> Conversation:
    return Conversation(messages, [weigh(m) for m in messages], 100, tuple(frozen), weigh)


def wanted(strategy: str = "conversation_summary", messages: int = 1_000) -> Wanted:
    return Wanted(strategy, messages, 3, 0.8, 100_000)


def room_of(of: Conversation, share: float) -> Room:
    """Room for a share of the conversation."""
    return Room(int(share * (of.fixed + sum(of.tokens))), None)


def planned(
    of: Conversation, share: float = 0.5, strategy: str = "conversation_summary", most: int = 1_000
) -> SummaryPlan:
    """A plan to come down to a share of the conversation."""
    found = plan.plan(of, room_of(of, share), wanted(strategy, most))
    assert isinstance(found, SummaryPlan), found
    return found


AGENTS_SUMMARY = (
    "The assistant read src/orders/part_0.py, part_1.py, part_2.py, part_3.py, part_4.py and "
    "part_5.py to make the orders importable. Each has a handler: handle_0, handle_1, handle_2, "
    "handle_3, handle_4 and handle_5. Nothing was changed yet; the next step is the importer."
)
