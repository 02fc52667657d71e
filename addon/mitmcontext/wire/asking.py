"""How a model is asked a question of our own, in whatever API.

Beside the client's conversation (`alone`), or behind it (`behind`): then what stands before the
question is the client's to the byte, so that the provider has it in its cache.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, NamedTuple

import msgspec

from mitmcontext.values import Request

Fields = dict[str, msgspec.Raw]

THINKING: Final = 4
"""Where thoughts count as output: how many times as much the answer may be, with them."""

# Answers that must call a tool are none to us.
_FORCED: Final = (b'"any"', b'"tool"', b'"required"', b'"function"', b'"ANY"', b'"validated"')
_FIELDS: Final = msgspec.json.Decoder(Fields)


class Fault(StrEnum):
    """Why an answer holds no text that can be used."""

    CUT_OFF = "cut off by its length"
    TOOL = "a tool call"
    REFUSAL = "a refusal"
    ROLE = "not the assistant's"
    SHAPE = "not in the API's form"


class Said(NamedTuple):
    """What a model's answer says, or why it cannot be used."""

    text: str = ""
    fault: Fault | None = None


class Prompt(NamedTuple):
    """What to ask: which model, told what of its task, with how many tokens for the answer."""

    model: str
    system: str
    text: str
    limit: int


@dataclass(frozen=True, slots=True)
class Asking:
    """One API's way to be asked.

    Attributes:
        path: (the request's path without query, model or "") to the path of a plain question.
        alone: (the client's request, prompt) to a body that holds the prompt alone.
        behind: (a request, prompt) to its body with the prompt as its last message; None where
            that cannot be, or would be answered by something else than text.
        said: a decoded answer to what it says.
    """

    path: Callable[[str, str], str]
    alone: Callable[[Request, Prompt], bytes]
    behind: Callable[[Request, Prompt], bytes | None]
    said: Callable[[Mapping[str, Any]], Said]


def same_path(path: str, model: str) -> str:
    """The path as it is, where the body says all."""
    return path


def never_behind(request: Request, prompt: Prompt) -> bytes | None:
    """For APIs that keep nothing of a conversation in a cache."""
    return None


def fields_of(body: bytes) -> Fields:
    """The fields of an object, each as it stands there.

    Raises:
        msgspec.MsgspecError: no JSON object.
    """
    return _FIELDS.decode(body)


def raw(value: Any) -> msgspec.Raw:
    """A value as JSON."""
    return msgspec.Raw(msgspec.json.encode(value))


def dumped(fields: Mapping[str, Any]) -> bytes:
    """An object as JSON; fields that were taken over stay as they were, to the byte."""
    return msgspec.json.encode(dict(fields))


def with_last(request: Request, messages: bytes) -> msgspec.Raw:
    """The request's messages with more of them (comma-separated JSON) behind."""
    array = request.body[slice(*request.array)].rstrip()
    return msgspec.Raw(array[:-1] + b"," + messages + b"]")


def answers_in_text(request: Request) -> bool:
    """Whether the answer to a question behind this request would be text of our choosing."""
    choice = request.body[slice(*request.choice)] if request.choice else b""
    return request.schema is None and not any(word in choice for word in _FORCED)


def without(fields: Fields, *names: str) -> Fields:
    """The fields but for some."""
    return {name: value for name, value in fields.items() if name not in names}


def text_in(parts: Any, key: str = "text") -> str:
    """The texts of those parts that have one under a key, as one text."""
    if isinstance(parts, str):
        return parts
    found = parts if isinstance(parts, list) else []
    return "".join(
        part[key] for part in found if isinstance(part, dict) and isinstance(part.get(key), str)
    )


def mapped(value: Any) -> Mapping[str, Any]:
    """The value if it is an object, else an empty one."""
    return value if isinstance(value, dict) else {}


def first(value: Any) -> Any:
    """The first of a list; None where there is none."""
    return value[0] if isinstance(value, list) and value else None
