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
from collections.abc import Iterator
from functools import cache, partial
from pathlib import Path
from statistics import median
from typing import Any

CHECKOUT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(CHECKOUT / "addon"))

from mitmcontext.tokens import vocabulary  # noqa: E402  the path above comes first
from mitmcontext.tokens.estimate import Count, fixed_tokens, message_tokens  # noqa: E402
from mitmcontext.tokens.families import family_of  # noqa: E402
from mitmcontext.values import Unreadable  # noqa: E402
from mitmcontext.wire import anthropic, openai_chat  # noqa: E402

READERS = {"anthropic.messages": anthropic.MESSAGES, "openai.chat": openai_chat.CHAT}
MEDIA = ("has_images", "has_documents", "has_audio_video", "remote_media")
Json = Any


def main() -> None:
    """Read the arguments, measure, print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data", type=Path, default=CHECKOUT.parent / "shared" / "data")
    parser.add_argument("--api", choices=READERS, help="one API only")
    parser.add_argument("--media", action="store_true", help="with images, documents, audio")
    parser.add_argument("--least", type=int, default=0, help="leave out requests below TOKENS")
    arguments = parser.parse_args()
    recorded = arguments.data / "tokens" / "dev.jsonl.gz"
    if not recorded.exists():
        sys.exit(f"There is no {recorded}: give the folder that holds tokens/ with --data.")
    errors: dict[str, list[float]] = defaultdict(list)
    unreadable = 0
    for row in rows(recorded, arguments.media):
        reported = row["reported_input_tokens"]
        if arguments.api not in (None, row["api"]) or reported < arguments.least:
            continue
        try:
            error = estimated(row) / reported - 1
        except Unreadable:
            unreadable += 1
            continue
        for group in (f"{row['api']} {family_of(row['model']).name}", f"{row['api']} all", "~all"):
            errors[group].append(error)
    print(f"{'API and family':42} {'n':>5} {'median':>7} {'p90':>7} {'<=5 %':>6} {'bias':>7}")
    for group, found in sorted(errors.items()):
        print(line(group.lstrip("~"), found))
    print(f"{unreadable} requests would be left alone and are not counted.")


def rows(path: Path, media: bool) -> Iterator[Json]:
    """The recorded requests that an estimate can be held against."""
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        for row in map(json.loads, lines):
            fitting = row["api"] in READERS and not row["hidden_context"]
            if fitting and (media or not any(row[kind] for kind in MEDIA)):
                yield row


def estimated(row: Json) -> int:
    """The estimate of one recorded request, in tokens.

    Raises `Unreadable` for what is no request that would be condensed.
    """
    family = family_of(row["model"])
    count = counter(family.encoding)
    # Bedrock and Vertex name the model in the path.
    body = {"model": row["model"], **row["request"]}
    api = READERS[row["api"]]
    request = api.read(compact(body).encode(errors="surrogatepass"))
    messages = [api.parse(request.raw(index)) for index in range(len(request.spans))]
    tools = body.get("tools") or []
    system = body.get("system") if row["api"] == "anthropic.messages" else None
    fixed = fixed_tokens(
        "".join(texts(system)), 1 if system else 0, compact(tools), len(tools), family, count
    )
    return fixed + sum(message_tokens(message, family, count) for message in messages)


def texts(content: Json) -> Iterator[str]:
    """The texts of a string or of a list of blocks."""
    if isinstance(content, str):
        yield content
    for block in content if isinstance(content, list) else ():
        yield block.get("text") or ""


def compact(value: Json) -> str:
    """JSON as most clients send it."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


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


if __name__ == "__main__":
    main()
