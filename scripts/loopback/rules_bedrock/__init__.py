"""What Amazon Bedrock refuses (Converse and InvokeModel), and Vertex of Anthropic's bodies.

Converse has rules and words of its own; the bodies of InvokeModel and `rawPredict` are judged as
Anthropic judges them. A request that is signed (SigV4) is refused if a byte of its body is another
than the one that was signed.
"""

from __future__ import annotations

import re

from loopback import rules_anthropic
from loopback.answers import Json
from loopback.refusal import Refusal
from loopback.rules_bedrock.converse import Memory, check, head, history
from loopback.rules_bedrock.converse_answers import EVENT_STREAM, answer
from loopback.rules_bedrock.invoke import (
    AT_VERTEX,
    INVOKED,
    answer_invoke,
    check_invoke,
    head_of_invoke,
    model_of,
)
from loopback.rules_bedrock.signing import signed
from loopback.speaking import Speaking

__all__ = (
    "CONVERSE",
    "EVENT_STREAM",
    "INVOKE",
    "VERTEX",
    "Memory",
    "answer",
    "answer_invoke",
    "check",
    "check_invoke",
    "head",
    "history",
    "signed",
)

_CONVERSE = re.compile(r"/model/(.+)/converse(-stream)?\Z")


def say(refusal: Refusal, number: int) -> Json:
    """The refusal as Bedrock's JSON."""
    return {"message": refusal.message}


CONVERSE = Speaking(
    name="bedrock.converse",
    recognises=lambda wire: _CONVERSE.search(wire.path) is not None,
    model=lambda wire, body: model_of(_CONVERSE, wire),
    history=history,
    head=head,
    memory=Memory,
    check=check,
    say=say,
    answer=answer,
)

INVOKE = Speaking(
    name="bedrock.invoke",
    recognises=lambda wire: INVOKED.search(wire.path) is not None,
    model=lambda wire, body: model_of(INVOKED, wire),
    history=lambda body: list(body["messages"]),
    head=head_of_invoke,
    memory=rules_anthropic.Memory,
    check=check_invoke,
    say=say,
    answer=answer_invoke,
)

VERTEX = Speaking(
    name="vertex.anthropic",
    recognises=lambda wire: AT_VERTEX.search(wire.path) is not None,
    model=lambda wire, body: model_of(AT_VERTEX, wire),
    history=lambda body: list(body["messages"]),
    head=head_of_invoke,
    memory=rules_anthropic.Memory,
    check=check_invoke,
    say=lambda refusal, number: rules_anthropic.say(refusal, f"req_vrtx_{number:08d}"),
    answer=answer_invoke,
)
