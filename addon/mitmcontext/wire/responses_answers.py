"""OpenAI Responses: what an answer reports, adds to the history, or refuses."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec

from mitmcontext.values import TooLong, Usage
from mitmcontext.wire import openai_chat
from mitmcontext.wire.sse import SseReader

# Tools that the server runs itself: its figure sums over rounds that never stood in one window.
RUN_BY_SERVER: Final = (
    "web_search_call",
    "file_search_call",
    "code_interpreter_call",
    "mcp_call",
)


def usage_of(event: Mapping[str, Any]) -> Usage | None:
    """Usage of a plain answer, of the event that ends a streamed one, or of a count.

    Where the provider added history of its own, or summed over the rounds of tools that it runs
    itself, its figure says nothing of this request's size.
    """
    said = event.get("response")
    answer = said if isinstance(said, dict) else event
    usage = answer.get("usage")
    if not isinstance(usage, dict):
        counted = event.get("input_tokens")
        return Usage(input_tokens=counted) if isinstance(counted, int) else None
    output = usage.get("output_tokens")
    if answer.get("previous_response_id") or answer.get("conversation") or _ran_tools(answer):
        return Usage(output_tokens=output)
    details = usage.get("input_tokens_details")
    details = details if isinstance(details, dict) else {}
    cached, written = details.get("cached_tokens"), details.get("cache_write_tokens")
    return Usage(usage.get("input_tokens"), output, cached, written)


def _ran_tools(answer: Mapping[str, Any]) -> bool:
    return any(item.get("type") in RUN_BY_SERVER for item in _listed(answer))


def items_added(event: Mapping[str, Any]) -> tuple[Mapping[str, Any], ...]:
    """The items that one event of a streamed answer says were added to the history, in order.

    `response.output_item.done` brings one item as it is finished. `response.completed` (and
    `response.incomplete`) brings them all once more, or none where the server does not repeat
    itself: if it brings any, they take the place of those that came one by one.
    """
    match event.get("type"):
        case "response.output_item.done":
            item = event.get("item")
            return (item,) if isinstance(item, dict) else ()
        case "response.completed" | "response.incomplete":
            answer = event.get("response")
            return _listed(answer) if isinstance(answer, dict) else ()
        case _:
            return ()


def _listed(answer: Mapping[str, Any]) -> tuple[Mapping[str, Any], ...]:
    output = answer.get("output")
    listed = output if isinstance(output, list) else ()
    return tuple(item for item in listed if isinstance(item, dict))


def refuses_shape(status: int, body: bytes) -> bool:
    """Whether an answer refuses how the request is built, and not its length."""
    return openai_chat.refuses_shape(status, body)


def refuses_length(status: int, body: bytes) -> TooLong | None:
    """Whether an answer refuses a request as too long.

    In a stream this comes after a 200, as an event that says the response has failed.
    """
    if status != 200:
        return openai_chat.refuses_length(status, body)
    for failure in _failures(body):
        found = openai_chat.refuses_length(400, failure)
        if found is not None:
            return found
    return None


def _failures(body: bytes) -> Iterator[bytes]:
    """The errors of an answer: an event of a failure, or those in a stream, as JSON."""
    for data in (body,) if body[:1] == b"{" else _events(body):
        if b'"error"' not in data:
            continue
        try:
            event = msgspec.json.decode(data)
        except (msgspec.MsgspecError, RecursionError):
            continue
        if not isinstance(event, dict):
            continue
        if event.get("type") == "error":
            yield data
        elif event.get("type") == "response.failed" and isinstance(event.get("response"), dict):
            yield msgspec.json.encode(event["response"].get("error"))


def _events(body: bytes) -> Iterator[bytes]:
    reader = SseReader()
    yield from (event.data for event in reader.feed(body))
    last = reader.close()
    if last is not None:
        yield last.data
