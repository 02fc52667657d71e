"""What a provider says when it will not take a request."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Refusal:
    """A refused request, in the words of the provider that refuses it.

    `too_long` tells a context that does not fit from a broken shape; `param` and `code` exist in
    OpenAI's answers only.
    """

    message: str
    status: int = 400
    kind: str = "invalid_request_error"
    param: str | None = None
    code: str | None = None
    too_long: bool = False


def names(text: str) -> frozenset[str]:
    """The words of a text as a set: the keys that a provider knows."""
    return frozenset(text.split())
