"""Whom to ask: the flow's own provider with its own credential, or the user's own endpoint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from mitmcontext.condense.summaries.prompts import Question
from mitmcontext.models.prices import Prices, prices_of
from mitmcontext.models.windows import window_of
from mitmcontext.proxy.asking import Asks, Post, Target
from mitmcontext.proxy.job import Ready
from mitmcontext.settings import API_KEY, Settings
from mitmcontext.summarising import prompt_of
from mitmcontext.values import Request, Span
from mitmcontext.wire.anthropic import MESSAGES
from mitmcontext.wire.api import Api
from mitmcontext.wire.asking import Asking
from mitmcontext.wire.openai_chat import CHAT

_MESSAGES: Final = "/messages"
_CHAT: Final = "/chat/completions"
_VERSION: Final = (b"anthropic-version", b"2023-06-01")
# Of a model's window, for what is asked about.
_SHARE: Final = 0.75
_AT_HOME: Final = "Ollama"


@dataclass(frozen=True, slots=True)
class Whom:
    """Who is asked, for one request.

    Attributes:
        api: that is spoken there.
        asking: how it is asked.
        target: where.
        path: for a plain question there.
        model: that is asked.
        other: its name, if it is not the request's own or not at its provider; else "".
        prices: of it; all 0 where nothing is billed.
        free: whether nothing is billed.
        tokens: that a question may hold.
        asks: what the flow lends.
    """

    api: Api
    asking: Asking
    target: Target
    path: str
    model: str
    other: str
    prices: Prices
    free: bool
    tokens: int
    asks: Asks

    def alone(self, question: Question, request: Request) -> Post:
        """A question on a transcript."""
        theirs = request if self.api.name != CHAT.name or not self.is_elsewhere else _NOBODYS
        body = self.asking.alone(theirs, prompt_of(question, self.model))
        return Post(self.target, self.path, body, self.asking.said, self.api.usage_of)

    def behind(self, body: bytes) -> Post:
        """A question behind the conversation."""
        return Post(self.target, self.path, body, self.asking.said, self.api.usage_of)

    @property
    def is_elsewhere(self) -> bool:
        """Whether it is not the flow's own provider."""
        return self.target is not self.asks.target


_NOBODYS: Final = Request(b"{}", "", Span(0, 0), ())


def whom(ready: Ready, environment: Mapping[str, str]) -> Whom | str:
    """Whom to ask about a request, or in words why nobody."""
    settings, job = ready.settings, ready.job
    if job.asks is None:
        return "no questions on this kind of connection"
    if settings.condensation_endpoint:
        return _elsewhere(settings, job.asks, environment.get(API_KEY, ""))
    if job.api.asking is None:
        return "this API has no way to be asked"
    if job.login and not settings.condensation_use_login:
        return "a subscription's login (condensation_use_login)"
    model = settings.condensation_model
    named = model or job.api.model_name(job.headers, ready.request)
    free = job.api.name.startswith(_AT_HOME)
    prices = prices_of("") if free else prices_of(named)
    if not free and not prices.known:
        return "nobody knows what this model's answers cost"
    return Whom(
        api=job.api,
        asking=job.api.asking,
        target=job.asks.target,
        path=job.api.asking.path(job.asks.target.path, model),
        model=model or ready.request.model,
        other=model,
        prices=prices,
        free=free,
        tokens=_tokens(named, settings),
        asks=job.asks,
    )


def _elsewhere(settings: Settings, asks: Asks, key: str) -> Whom:
    api, target = endpoint(settings.condensation_endpoint, key)
    prices = prices_of(settings.condensation_model)
    asking = api.asking
    if asking is None:
        raise RuntimeError("both APIs can be asked")
    return Whom(
        api=api,
        asking=asking,
        target=target,
        path=target.path,
        model=settings.condensation_model,
        other=settings.condensation_model,
        prices=prices,
        # What the user runs or rents under a name that no price list has is the user's affair.
        free=not prices.known,
        tokens=_tokens(settings.condensation_model, settings),
        asks=asks,
    )


def _tokens(model: str, settings: Settings) -> int:
    return int(window_of(model, settings.context_windows).input * _SHARE)


def endpoint(address: str, key: str) -> tuple[Api, Target]:
    """The API that an address speaks, and where its questions go.

    Anthropic's where the address ends in /messages or is on a host of Anthropic's, else OpenAI's
    Chat Completions. What is missing of the path is added.
    """
    parts = urlsplit(address)
    host, path = parts.hostname or "", parts.path.rstrip("/")
    anthropic = path.endswith(_MESSAGES) or host.endswith("anthropic.com")
    end = _MESSAGES if anthropic else _CHAT
    if not path.endswith(end):
        path = f"{path or '/v1'}{end}"
    secret = key.encode("utf-8", "surrogateescape")
    given: list[tuple[bytes, bytes]] = [_VERSION] if anthropic else []
    if key:
        given.append(
            (b"x-api-key", secret) if anthropic else (b"Authorization", b"Bearer " + secret)
        )
    port = parts.port or (443 if parts.scheme == "https" else 80)
    shown = f"[{host}]" if ":" in host else host
    named = shown if parts.port is None else f"{shown}:{port}"
    headers = ((b"Host", named.encode()), *given)
    target = Target(parts.scheme, host, port, path, "", tuple(headers))
    return (MESSAGES if anthropic else CHAT), target
