"""Recorded requests with the size that the provider reported, in counts that weights are for.

Lines of JSON, gzipped or not, one request each: `request` is the body, `api`, `model`,
`reported_input_tokens` and `source_repo` say what of it, and `hidden_context`, `has_images` and so
on what it holds.
"""

from __future__ import annotations

import gzip
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

from mitmcontext.known import outside_of
from mitmcontext.tokens import vocabulary
from mitmcontext.tokens.estimate import (
    Count,
    fixed_tokens,
    message_counts,
    message_tokens,
    outside_counts,
    pictures_of,
    text_tokens,
)
from mitmcontext.tokens.families import Family, family_of
from mitmcontext.values import Message, Unreadable
from mitmcontext.wire import anthropic, bedrock, cohere, gemini, ollama, openai_chat
from mitmcontext.wire import openai_responses as responses
from mitmcontext.wire.api import Api, message_of, system_texts

Json = Any

READERS: Mapping[str, Api] = {
    "anthropic.messages": anthropic.MESSAGES,
    "anthropic.count_tokens": anthropic.MESSAGES,
    "bedrock.converse": bedrock.CONVERSE,
    "bedrock.invoke": anthropic.MESSAGES,
    "cohere.chat": cohere.CHAT,
    "gemini.generate": gemini.GENERATE,
    "gemini.count": gemini.GENERATE,
    "ollama.chat": ollama.CHAT,
    "openai.chat": openai_chat.CHAT,
    "openai.responses": responses.RESPONSES,
}
"""`api` in the recordings to what reads it."""

_INVOKE, _INVOKE_ANTHROPIC = "bedrock.invoke", "anthropic_version"
_DECIDING = ("tools", "any", "none", "schema", "strict", "thinks")
_OTHER_MEDIA = ("has_documents", "has_audio_video", "remote_media")


@dataclass(frozen=True, slots=True)
class Case:
    """One request, read and counted.

    `counts` are those of everything in it but images, which cost `images` tokens. `media` says that
    it holds documents, audio, video or links to any of these. `estimate` is what the addon expects,
    `fixed` the part of it that is no message. `coarse` and `shape` say what decides about the rest.
    """

    api: str
    repo: str
    model: str
    family: Family
    reported: int
    tools: bool
    pictures: bool
    media: bool
    hidden: bool
    thinking: bool
    images: float
    counts: Mapping[str, float]
    fixed: int
    estimate: int
    host: str
    coarse: str
    shape: str

    def estimated(self, family: Family) -> float:
        """What the weights of another family say."""
        return max(1.0, family.weigh(self.counts) + self.images)


def rows(path: Path) -> Iterator[Json]:
    """The recorded requests of a file."""
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "rt", encoding="utf-8") as lines:
        yield from map(json.loads, lines)


def cases(found: Iterable[Json], note: Callable[[int], None] = lambda _: None) -> Iterator[Case]:
    """Each request that an addon would read; `note` is told of each that was looked at."""
    for at, row in enumerate(found):
        note(at)
        api = READERS.get(row["api"])
        if row["api"] == _INVOKE and _INVOKE_ANTHROPIC not in row["request"]:
            continue  # Other vendors' bodies under this path are not read by the addon.
        if api is not None and row["reported_input_tokens"] > 0:
            try:
                yield case(api, row)
            except (Unreadable, KeyError):
                continue


def case(api: Api, row: Json) -> Case:
    """One request, read and counted.

    Raises:
        Unreadable: no request that would be condensed.
    """
    # Some APIs name the model in the path.
    body = compact({"model": row["model"], **row["request"]}).encode(errors="surrogatepass")
    request = api.read(body)
    family = family_of(row["model"], api.name)
    count = counter(family.encoding)
    messages = [message_of(api, request.raw(at)) for at in range(len(request.spans))]
    outside = outside_of(request)
    system = [text for _, text in system_texts(request)]
    total: Counter[str] = Counter(outside_counts(outside, family.form, count))
    for message in messages:
        total.update(message_counts(message, count))
    total["text"] += sum(map(count, system))
    fixed = fixed_tokens(outside, family, count)
    fixed += sum(text_tokens(text, family, count) for text in system)
    estimate = fixed + sum(message_tokens(message, family, count) for message in messages)
    return Case(
        api=row["api"],
        repo=row["source_repo"],
        model=row["model"],
        family=family,
        reported=row["reported_input_tokens"],
        tools=bool(total["tools"]),
        pictures=bool(row.get("has_images")),
        media=any(row.get(kind) for kind in _OTHER_MEDIA),
        hidden=bool(row.get("hidden_context")) or request.hidden,
        thinking=total["thinking"] > 0,
        images=sum(_images(message, family) for message in messages),
        counts=dict(total),
        fixed=fixed,
        estimate=max(1, estimate),
        host=row.get("host", ""),
        coarse=" ".join(word for word in _DECIDING if total[word]),
        shape=compact([outside.tools, outside.choice, outside.schema, outside.thinks]),
    )


def _images(message: Message, family: Family) -> float:
    return sum(family.image.tokens(*shown) for shown in pictures_of(message))


def compact(value: Json) -> str:
    """JSON as most clients send it."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


@cache
def counter(encoding: str) -> Count:
    """The counter of one encoding, loaded once, with each text counted once."""
    count = partial(vocabulary.count, vocabulary.load(encoding))
    return cache(count)
