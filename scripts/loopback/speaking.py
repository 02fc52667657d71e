"""What the provider needs to know of an API beyond Anthropic Messages and Chat Completions.

Each further API is one module `rules_<api>.py` that fills a `Speaking`, and one line in `SPEAKING`
of `provider.py`. Judging, counting, caching and recording are the same for all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from .answers import Reply, Usage
from .counting import Model
from .http1 import Wire
from .refusal import Refusal

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Said:
    """An answer in an API's own form: one JSON value, or the pieces of a stream as bytes.

    `content_type` is that of the stream.
    """

    value: Any = None
    pieces: Iterable[bytes] | None = None
    content_type: str = "text/event-stream; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Speaking:
    """One API as its provider sees it.

    Attributes:
        name: as records have it.
        recognises: whether a request is for this API.
        counts: whether a request only asks for its size; `counted` then makes the answer.
        model: (wire, body) to the model's name.
        history: the messages or items of a body that was accepted.
        head: what stands before them and counts: {"system": ..., "tools": [...]}.
        memory: (key) to what is remembered for one account: signatures, answers.
        check: (body, memory, wire, model) to a refusal, or None.
        say: (refusal, number) to the body of the refusal.
        answer: (wire, body, number, reply, usage, memory) to the answer.
        counted: (tokens) to the answer of a request that asks for its size.
        needs_key: whether a request without credential is refused.
    """

    name: str
    recognises: Callable[[Wire], bool]
    model: Callable[[Wire, Any], str]
    history: Callable[[Any], list[Any]]
    head: Callable[[Any], Json]
    memory: Callable[[bytes], Any]
    check: Callable[[Any, Any, Wire, Model], Refusal | None]
    say: Callable[[Refusal, int], Any]
    answer: Callable[[Wire, Any, int, Reply, Usage, Any], Said]
    counts: Callable[[Wire], bool] = lambda wire: False
    counted: Callable[[int], Any] = lambda tokens: {"total_tokens": tokens}
    needs_key: bool = True
