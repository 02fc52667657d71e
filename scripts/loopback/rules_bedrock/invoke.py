"""Anthropic's bodies at InvokeModel and at Vertex: judged and answered as Anthropic does it."""

from __future__ import annotations

import base64
import re
from typing import Any
from urllib.parse import unquote

from loopback import answers, rules_anthropic
from loopback.answers import Json, Reply, Usage
from loopback.counting import Model
from loopback.http1 import Wire
from loopback.refusal import Refusal
from loopback.rules_bedrock.converse_answers import EVENT_STREAM, event
from loopback.rules_bedrock.signing import MISMATCH, is_forged
from loopback.speaking import Said

INVOKED = re.compile(r"/model/(.+)/invoke(-with-response-stream)?\Z")
AT_VERTEX = re.compile(r"/publishers/anthropic/models/([^/]+):(?:rawPredict|streamRawPredict)\Z")


def model_of(path: re.Pattern[str], wire: Wire) -> str:
    """The model that a path names, without region and vendor where it is one of Anthropic's."""
    found = path.search(wire.path)
    name = unquote(found[1]) if found else ""
    return name[name.find("claude") :] if "claude" in name else name


def check_invoke(
    body: Any, memory: rules_anthropic.Memory, wire: Wire | None, model: Model
) -> Refusal | None:
    """Say how InvokeModel or `rawPredict` refuses this request, or None if it takes it."""
    if is_forged(wire):
        return Refusal(MISMATCH, 403)
    if not isinstance(body, dict) or not isinstance(body.get("anthropic_version"), str):
        return Refusal(
            "Malformed input request: #: required key [anthropic_version] not found, please"
            " reformat your input and try again."
        )
    streams = wire is not None and AT_VERTEX.search(wire.path) is not None
    for key in ("model",) if streams else ("model", "stream"):
        if key in body:
            return Refusal(f"{key}: {rules_anthropic.EXTRA}")
    rest = {key: value for key, value in body.items() if not key.startswith("anthropic_")}
    betas = body.get("anthropic_beta")
    betas = betas if isinstance(betas, list) else []
    return rules_anthropic.check(
        {**rest, "model": "claude"},
        memory,
        betas=frozenset(b for b in betas if isinstance(b, str)),
        model=model,
    )


def head_of_invoke(body: Json) -> Json:
    """What counts before the messages."""
    return {"system": body.get("system") or "", "tools": body.get("tools") or []}


def answer_invoke(
    wire: Wire,
    body: Json,
    number: int,
    reply: Reply,
    usage: Usage,
    memory: rules_anthropic.Memory,
) -> Said:
    """Anthropic's answer: plain, as Bedrock wraps its events, or as Vertex hands them on."""
    content = answers.anthropic_content(
        reply, number, memory.sign(reply.thinking) if reply.thinking else ""
    )
    name = model_of(INVOKED, wire) or model_of(AT_VERTEX, wire)
    if AT_VERTEX.search(wire.path) and body.get("stream"):
        return Said(pieces=answers.anthropic_events(name, number, content, reply, usage))
    if wire.path.endswith("-stream"):
        events = answers.anthropic_events(name, number, content, reply, usage)
        return Said(pieces=map(_wrapped, events), content_type=EVENT_STREAM)
    return Said(answers.anthropic_message(name, number, content, reply, usage))


def _wrapped(said: bytes) -> bytes:
    data = said.split(b"data: ", 1)[1].strip()
    return event("chunk", {"bytes": base64.b64encode(data).decode()})
