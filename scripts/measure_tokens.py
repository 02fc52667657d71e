#!/usr/bin/env python3
"""How near the estimate comes to what providers reported, cold, by family.

    scripts/measure_tokens.py [--data FOLDER] [--api API] [--media] [--least TOKENS]

FOLDER holds tokens/dev.jsonl.gz; by default it is ../shared/data beside the checkout. Requests
whose billed input cannot be told from their body are left out (`hidden_context`), and those with
images, documents or audio unless --media is given.
"""

from __future__ import annotations

import argparse
import gzip
import json
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator
from functools import cache, partial
from pathlib import Path
from statistics import median
from typing import Any

CHECKOUT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(CHECKOUT / "addon"))

from mitmcontext.tokens import vocabulary  # noqa: E402  the path above comes first
from mitmcontext.tokens.estimate import Count, fixed_tokens, message_tokens  # noqa: E402
from mitmcontext.tokens.families import family_of  # noqa: E402
from mitmcontext.values import Kind, Message, Part, Span  # noqa: E402

APIS = ("anthropic.messages", "openai.chat")
MEDIA = ("has_images", "has_documents", "has_audio_video", "remote_media")
Json = Any


def main() -> None:
    """Read the arguments, measure, print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data", type=Path, default=CHECKOUT.parent / "shared" / "data")
    parser.add_argument("--api", choices=APIS, help="one API only")
    parser.add_argument("--media", action="store_true", help="with images, documents, audio")
    parser.add_argument("--least", type=int, default=0, help="leave out requests below TOKENS")
    arguments = parser.parse_args()
    recorded = arguments.data / "tokens" / "dev.jsonl.gz"
    if not recorded.exists():
        sys.exit(f"There is no {recorded}: give the folder that holds tokens/ with --data.")
    errors: dict[str, list[float]] = defaultdict(list)
    for row in rows(recorded, arguments.media):
        if (
            arguments.api not in (None, row["api"])
            or row["reported_input_tokens"] < arguments.least
        ):
            continue
        error = estimated(row) / row["reported_input_tokens"] - 1
        for group in (f"{row['api']} {family_of(row['model']).name}", f"{row['api']} all", "~all"):
            errors[group].append(error)
    print(f"{'API and family':42} {'n':>5} {'median':>7} {'p90':>7} {'<=5 %':>6} {'bias':>7}")
    for group, found in sorted(errors.items()):
        print(line(group.lstrip("~"), found))


def rows(path: Path, media: bool) -> Iterator[Json]:
    """The recorded requests that an estimate can be held against."""
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        for row in map(json.loads, lines):
            fitting = row["api"] in APIS and not row["hidden_context"]
            if fitting and (media or not any(row[kind] for kind in MEDIA)):
                yield row


def estimated(row: Json) -> int:
    """The estimate of one recorded request, in tokens."""
    family = family_of(row["model"])
    count = counter(family.encoding)
    body = row["request"]
    system, messages = read(row["api"], body)
    tools = body.get("tools") or []
    fixed = fixed_tokens(
        system or "", 0 if system is None else 1, compact(tools), len(tools), family, count
    )
    return fixed + sum(message_tokens(message, family, count) for message in messages)


@cache
def counter(encoding: str) -> Count:
    """The counter of one encoding, loaded once."""
    return partial(vocabulary.count, vocabulary.load(encoding))


def line(group: str, found: list[float]) -> str:
    """One row of the table; errors are relative, bias is the median of the signed ones."""
    sizes = sorted(map(abs, found))
    near = sum(size <= 0.05 for size in sizes) / len(sizes)
    p90 = sizes[int(0.9 * (len(sizes) - 1))]
    return (
        f"{group:42} {len(found):5} {median(sizes):7.1%} {p90:7.1%} {near:6.0%} "
        f"{median(found):+7.1%}"
    )


# Simple readers of their own, so that the measurement does not depend on the way of a request.


def read(api: str, body: Json) -> tuple[str | None, list[Message]]:
    """The system prompt beside the messages, or None, and the messages."""
    if api == "openai.chat":
        return None, [chat_message(message) for message in body["messages"]]
    system = body.get("system")
    text = None if not system else "".join(texts(system))
    return text, [
        as_message(message["role"], blocks(message["content"])) for message in body["messages"]
    ]


def as_message(role: str, parts: Iterable[Part]) -> Message:
    """A message of which only the counting needs to know."""
    return Message(role, tuple(parts), b"")


def part(kind: Kind, text: str, call_id: str = "", images: int = 0) -> Part:
    """A part of which only the counting needs to know."""
    return Part(kind, text, Span(0, 0), call_id=call_id, images=images)


def texts(content: Json) -> Iterator[str]:
    """The texts of a string or of a list of blocks."""
    if isinstance(content, str):
        yield content
    for block in content if isinstance(content, list) else ():
        yield block if isinstance(block, str) else block.get("text") or ""


def blocks(content: Json) -> Iterator[Part]:
    """The parts of an Anthropic message."""
    if isinstance(content, str):
        yield part(Kind.TYPED, content)
        return
    for block in content:
        match block.get("type"):
            case "tool_use":
                yield part(Kind.CALL, call_text(block["name"], spaced(block["input"])), block["id"])
            case "tool_result":
                yield result(block)
            case "thinking":
                yield part(Kind.THINKING, block.get("thinking") or "")
            case "image":
                yield part(Kind.IMAGE, "", images=1)
            case _:
                yield part(Kind.TYPED, block.get("text") or "")


def result(block: Json) -> Part:
    """The part that a tool_result block is."""
    content = block.get("content") or ""
    inner = content if isinstance(content, list) else []
    images = sum(isinstance(item, dict) and item.get("type") == "image" for item in inner)
    return part(Kind.RESULT, "".join(texts(content)), block["tool_use_id"], images)


def chat_message(message: Json) -> Message:
    """A message of OpenAI's chat completions."""
    content = message.get("content") or ""
    call_id = message.get("tool_call_id") or ""
    kind = Kind.RESULT if call_id else Kind.TYPED
    parts = [part(kind, "".join(texts(content)), call_id)]
    for block in content if isinstance(content, list) else ():
        if isinstance(block, dict) and block.get("type") == "image_url":
            parts.append(part(Kind.IMAGE, "", images=1))
    for call in message.get("tool_calls") or ():
        function = call.get("function") or {}
        arguments = function.get("arguments") or ""
        parts.append(part(Kind.CALL, call_text(function.get("name") or "", arguments), call["id"]))
    return as_message(message["role"], parts)


def call_text(name: str, arguments: str) -> str:
    """A call as the text that is counted."""
    return f"{name}\n{arguments}"


def compact(value: Json) -> str:
    """JSON as most clients send it."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def spaced(value: Json) -> str:
    """JSON as most providers show it to the model."""
    return json.dumps(value, ensure_ascii=False)


if __name__ == "__main__":
    main()
