"""What says how much was used is read of any answer, and of a large one nothing else is made."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest

from mitmcontext.values import Usage
from mitmcontext.wire import APIS, anthropic, gemini, ollama, responses_answers
from mitmcontext.wire.api import Api
from mitmcontext.wire.event_stream import unwrapped
from mitmcontext.wire.telling import NAMES, SMALL, telling

UsageOf = Callable[[Mapping[str, Any]], Usage | None]

LONG = "x" * SMALL
RUN: dict[str, Any] = {"type": "web_search_call", "action": {"query": LONG}}
USAGE = {"input_tokens": 1200, "output_tokens": 42}
RESPONSE: dict[str, Any] = {"instructions": LONG, "output": [], "usage": USAGE}
COUNTED = {"promptTokenCount": 1200, "candidatesTokenCount": 42}


@pytest.mark.parametrize(
    ("usage_of", "answer", "used"),
    [
        (anthropic.usage_of, {"content": [LONG], "usage": USAGE}, (1200, 42)),
        (
            anthropic.usage_of,
            {"type": "message_start", "message": {"id": LONG, "usage": USAGE}},
            (1200, 42),
        ),
        (
            responses_answers.usage_of,
            {"type": "response.completed", "response": RESPONSE},
            (1200, 42),
        ),
        (responses_answers.usage_of, RESPONSE | {"previous_response_id": "r"}, (None, 42)),
        (responses_answers.usage_of, RESPONSE | {"output": [{}, RUN]}, (None, 42)),
        (
            responses_answers.usage_of,
            {"response": RESPONSE | {"output": [RUN]}},
            (None, 42),
        ),
        (
            responses_answers.usage_of,
            RESPONSE | {"output": [{"type": "message", "text": json.dumps(RUN)}]},
            (1200, 42),
        ),
        (gemini.usage_of, {"candidates": [LONG], "usageMetadata": COUNTED}, (1200, 42)),
        (
            gemini.usage_of,
            {"response": {"candidates": [LONG], "usageMetadata": COUNTED}},
            (1200, 42),
        ),
        (
            ollama.usage_of,
            {
                "message": {"content": LONG},
                "done": True,
                "prompt_eval_count": 1200,
                "eval_count": 42,
            },
            (1200, 42),
        ),
    ],
)
def test_it_is_found_wherever_it_stands(
    usage_of: UsageOf, answer: Mapping[str, Any], used: tuple[int | None, int]
) -> None:
    data = json.dumps(answer).encode()
    assert len(data) > SMALL
    told = telling(data)
    assert isinstance(told, dict)
    assert usage_of(told) == usage_of(answer)
    found = usage_of(told)
    assert found is not None
    assert (found.input_tokens, found.output_tokens) == used


class Watched(dict[str, Any]):
    """A mapping in which everything can be found, and what was looked for."""

    def __init__(self, held: object) -> None:
        super().__init__()
        self.asked: set[str] = set()
        self._held = held

    def get(self, key: str, default: object = None) -> Any:
        self.asked.add(key)
        return self._held

    def __getitem__(self, key: str) -> Any:
        return self.get(key)


@pytest.mark.parametrize("api", APIS, ids=lambda api: api.name)
def test_whatever_an_api_reads_is_left(api: Api) -> None:
    anything: tuple[object, ...] = (None, 7, "x", {})
    for held in anything:
        watched = Watched(held)
        api.usage_of(watched)
        assert watched.asked
        assert watched.asked <= set(NAMES)


def crowded() -> Iterator[tuple[str, bytes]]:
    """Answers of megabytes that hold very many values."""
    used = b'"usage":{"input_tokens":1200,"output_tokens":42}}'
    keys = b"".join(b'"%d":0,' % number for number in range(200_000))
    yield "keys", b"{" + keys + used
    yield "keys in a wrapper", b'{"response":{' + keys + used + b"}"
    yield "items", b'{"output":[' + b"{}," * 600_000 + b"0]," + used
    yield "fields", b"{" + b'"a":[%s0],' % (b"{}," * 5_000) * 120 + used
    yield "usage", b"{" + (used[:-1] + b",") * 40_000 + used


@pytest.mark.parametrize(
    ("name", "answer"), list(crowded()), ids=lambda given: given if isinstance(given, str) else ""
)
def test_nothing_is_made_of_what_tells_nothing(name: str, answer: bytes) -> None:
    assert len(answer) > 1_500_000, name
    with traced() as most:
        told = telling(answer)
    assert isinstance(told, dict)
    assert responses_answers.usage_of(told) == Usage(1200, 42)
    assert most() < 2**20


def test_nor_of_what_wraps_an_event() -> None:
    keys = b"".join(b'"%d":0,' % number for number in range(100_000))
    payload = b"{" + keys + b'"bytes":"e30="}'
    with traced() as most:
        event = unwrapped(payload)
    assert event == b"{}"
    assert most() < 2**16


@contextmanager
def traced() -> Iterator[Callable[[], int]]:
    """How many bytes were held at most at any time within the block."""
    tracemalloc.start()
    try:
        yield lambda: most
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_what_wraps_itself_without_end_is_no_answer() -> None:
    with pytest.raises(RecursionError):
        telling(b'{"response":' * 100_000 + b"{}" + b"}" * 100_000)
    deep = b'{"response":' * 400 + b'{"a":"%s"}' % LONG.encode() + b"}" * 400
    assert telling(deep) == {"response": {}}
