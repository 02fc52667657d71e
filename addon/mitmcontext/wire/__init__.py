"""The APIs that are understood, each by a module of its name. A new one is one line here."""

from __future__ import annotations

from typing import Final

from mitmcontext.wire import (
    anthropic,
    bedrock,
    cohere,
    gemini,
    ollama,
    openai_chat,
    openai_responses,
)
from mitmcontext.wire.api import Api

APIS: Final[tuple[Api, ...]] = (
    anthropic.MESSAGES,
    openai_chat.CHAT,
    openai_responses.RESPONSES,
    ollama.CHAT,
    ollama.GENERATE,
    cohere.CHAT,
    bedrock.CONVERSE,
    gemini.GENERATE,
)


def api_for(method: str, path: str) -> Api | None:
    """The API that a request is for, by its method and its path without the query."""
    if method != "POST":
        return None
    return next((api for api in APIS if api.recognises(path)), None)
