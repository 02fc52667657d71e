"""What api.openai.com refuses on `/v1/responses`, in which words, and what it answers.

Built like `rules_anthropic`: every rule is a generator of refusals and the first one counts.
`shapes.py` says which items are taken at all, `history.py` what a history of them must look like,
`answers.py` what the model says.
"""

from __future__ import annotations

from typing import Any

from loopback import rules_openai
from loopback.counting import Model, count
from loopback.http1 import Wire
from loopback.refusal import Refusal
from loopback.rules_responses.answers import answer
from loopback.rules_responses.history import (
    calls_have_outputs,
    nothing_stands_twice,
    reasoning_stays_with_what_follows,
    the_trigger_is_last,
    what_is_meant_is_there,
    what_is_sealed_is_genuine,
)
from loopback.rules_responses.items import COMPACT, COUNT, PATH, Json, Memory, Rule, items_of
from loopback.rules_responses.shapes import ITEMS, item_shapes, top_level
from loopback.speaking import Speaking

__all__ = (
    "ITEMS",
    "PATH",
    "SPEAKING",
    "Memory",
    "answer",
    "check",
    "items_of",
    "say",
)

RULES: tuple[Rule, ...] = (
    top_level,
    item_shapes,
    nothing_stands_twice,
    what_is_meant_is_there,
    calls_have_outputs,
    reasoning_stays_with_what_follows,
    what_is_sealed_is_genuine,
    the_trigger_is_last,
)


def head(body: Json) -> Json:
    """What stands before the items and counts."""
    return {"system": body.get("instructions") or "", "tools": body.get("tools") or []}


def check_length(body: Json, model: Model) -> Refusal | None:
    """Refuse what does not fit into the model's window by the provider's own count."""
    tokens = count({**head(body), "messages": items_of(body)}, model)
    output = (body.get("max_output_tokens") or 0) if model.counts_output else 0
    if tokens + output <= model.window:
        return None
    return Refusal(
        "Your input exceeds the context window of this model. Please adjust your input and try"
        " again.",
        param="input",
        code="context_length_exceeded",
        too_long=True,
    )


def check(
    body: Any, memory: Memory | None = None, wire: Wire | None = None, model: Model | None = None
) -> Refusal | None:
    """Say how the provider refuses this request, or None if it takes it.

    Without a `model` the length is not looked at.
    """
    if not isinstance(body, dict):
        return Refusal("We could not parse the JSON body of your request.")
    known = memory or Memory()
    refusal = next((found for rule in RULES for found in rule(body, known)), None)
    if refusal is None and model is not None:
        refusal = check_length(body, model)
    if refusal is None:
        known.learn(items_of(body))
    return refusal


def say(refusal: Refusal, number: int) -> Json:
    """The refusal as the provider's JSON."""
    return rules_openai.say(refusal)


SPEAKING = Speaking(
    name="openai.responses",
    recognises=lambda wire: wire.path.endswith((PATH, COUNT, COMPACT)),
    model=lambda wire, body: str(body.get("model") or ""),
    history=items_of,
    head=head,
    memory=Memory,
    check=check,
    say=say,
    answer=answer,
    counts=lambda wire: wire.path.endswith(COUNT),
    counted=lambda tokens: {"object": "response.input_tokens", "input_tokens": tokens},
)
