"""What api.anthropic.com refuses, and in which words.

Every rule is a generator of complaints and the first complaint is the answer, so a new rule is
one more function in `RULES`. `shapes.py` says what JSON is taken at all, `history.py` what a
history must look like. Nothing here does any input or output.
"""

from __future__ import annotations

from typing import Any

from loopback.counting import MODELS, Model, count, model_named
from loopback.refusal import Refusal
from loopback.rules_anthropic.history import (
    MOST_MARKERS,
    calls_have_results,
    count_markers,
    end_has_no_blanks,
    first_is_the_users,
    markers,
    texts_are_not_blank,
    texts_are_not_empty,
    thinking_is_complete,
    thinking_is_genuine,
)
from loopback.rules_anthropic.shapes import (
    EXTRA,
    block_shapes,
    message_shapes,
    thinking_budget,
    tool_shapes,
    top_level,
)
from loopback.rules_anthropic.view import Body, Memory, Rule, View, blocks_of, groups_of

__all__ = (
    "EXTRA",
    "MOST_MARKERS",
    "Memory",
    "blocks_of",
    "check",
    "count_markers",
    "say",
)

RULES: tuple[Rule, ...] = (
    top_level,
    thinking_budget,
    message_shapes,
    block_shapes,
    tool_shapes,
    texts_are_not_empty,
    texts_are_not_blank,
    first_is_the_users,
    end_has_no_blanks,
    markers,
    calls_have_results,
    thinking_is_genuine,
    thinking_is_complete,
)


def check_length(body: Body, model: Model) -> Refusal | None:
    """Refuse what does not fit into the model's window by the provider's own count."""
    tokens = count(body, model)
    if tokens > model.window:
        message = f"prompt is too long: {tokens} tokens > {model.window} maximum"
        return Refusal(message, too_long=True)
    output = body.get("max_tokens") or 0
    if model.counts_output and tokens + output > model.window:
        message = (
            f"input length and `max_tokens` exceed context limit: {tokens} + {output} >"
            f" {model.window}, decrease input length or `max_tokens` and try again"
        )
        return Refusal(message, too_long=True)
    return None


def check(
    body: Any,
    memory: Memory | None = None,
    *,
    betas: frozenset[str] = frozenset(),
    model: Model | None = None,
    counting: bool = False,
    length: bool = True,
) -> Refusal | None:
    """Say how the provider refuses this request, or None if it takes it and has learned from it.

    `counting` is the form of `/v1/messages/count_tokens`. With `length` false only the shape is
    looked at.
    """
    memory = memory if memory is not None else Memory()
    if not isinstance(body, dict):
        return Refusal("Input should be a valid dictionary or object to extract fields from")
    view = View(body, memory, betas, counting)
    for rule in RULES:
        complaint = next(rule(view), None)
        if complaint is not None:
            return Refusal(complaint)
    if length and not counting:
        refusal = check_length(body, model or model_named(body["model"], MODELS))
        if refusal is not None:
            return refusal
    memory.learn(groups_of(view.messages))
    return None


def say(refusal: Refusal, request_id: str) -> Body:
    """The refusal as the provider's JSON."""
    error = {"type": refusal.kind, "message": refusal.message}
    return {"type": "error", "error": error, "request_id": request_id}
