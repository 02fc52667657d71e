"""Managing a conversation from a program of one's own, under the specification's names.

    result = await apply_intelligent_context_management(messages)
    send(result.messages)

This is the addon's own way of a request, without a proxy around it: messages are read, counted and
assessed; from the warning threshold on old ones are shortened, and what was shortened once stays
the same on every later call with the same conversation. No model is asked, since there is no
provider to ask. Settings come from the environment, as the addon's do.
"""

from __future__ import annotations

import json
import logging
import os
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any, Final

import msgspec

from mitmcontext.condense.summaries.selection import TRUNCATION
from mitmcontext.proxy import logs, running
from mitmcontext.proxy.carried import carried
from mitmcontext.proxy.figures import Figures
from mitmcontext.proxy.job import Job, Result
from mitmcontext.proxy.shelves import Shelves
from mitmcontext.proxy.work import Worker
from mitmcontext.settings import Settings, load
from mitmcontext.values import Action, Outcome, Standing, Unreadable
from mitmcontext.wire import api_for
from mitmcontext.wire.api import Api

Messages = Sequence[Mapping[str, Any]]

TEXT_TOKENS: Final = 200_000
"""The window where no model is named: the specification's REAL_TEXT_MODEL_TOKENS."""

VISION_TOKENS: Final = 65_536
"""The same with `is_vision`: its REAL_VISION_MODEL_TOKENS."""

_TEXT, _VISION = "mitmcontext-text", "mitmcontext-vision"
# What only Anthropic's messages hold.
_BLOCKS: Final = ("tool_use", "tool_result", "thinking", "redacted_thinking")
_log: Final = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ContextManagementResult:
    """What became of a conversation.

    `messages` are to be sent in place of those that were given. Tokens are estimates of the whole
    request. `strategy_used` is None where nothing was shortened. `risk_level` is safe, caution,
    warning, critical or overflow, before a new step. `processing_time` is in milliseconds.
    """

    messages: list[dict[str, Any]]
    original_tokens: int
    final_tokens: int
    strategy_used: str | None
    risk_level: str
    processing_time: float
    metadata: dict[str, Any] = field(default_factory=dict)

    @property
    def tokens_saved(self) -> int:
        """Of the original tokens, those that need not be sent."""
        return self.original_tokens - self.final_tokens


async def apply_intelligent_context_management(
    messages: Messages,
    is_vision: bool = False,
    *,
    model: str = "",
    window: int | None = None,
) -> ContextManagementResult:
    """Shorten a conversation where it fills too much of the window.

    Args:
        messages: in the form of OpenAI's Chat Completions or Anthropic's Messages; not changed.
        is_vision: the default window is that of a vision model.
        model: whose tokens and window; none is a model that nobody knows, with a default window.
        window: tokens of input, where it is not the model's.

    Raises:
        ValueError: these are no messages of either form.
        BadSetting: a setting in the environment is not allowed.
    """
    began = time.perf_counter()
    if not all(isinstance(message, Mapping) for message in messages):
        raise ValueError("messages are mappings with a role and content")
    settings = _with_window(load({}, os.environ), window)
    named = model or (_VISION if is_vision else _TEXT)
    engine = _engine()
    try:
        result = await engine.manage(_body(messages, named), _api_of(messages), settings)
    except Unreadable as why:
        engine.figures.failed(str(why))
        raise ValueError(f"these messages cannot be read: {why}") from None
    took = (time.perf_counter() - began) * 1_000
    outcome = msgspec.structs.replace(result.outcome, milliseconds=took)
    engine.figures.record(outcome)
    for line in logs.lines(outcome, settings):
        _log.info("mitmcontext: %s", line)
    return _told(messages, result, outcome)


def get_context_performance_stats() -> dict[str, Any]:
    """How managing contexts fares: of the proxy that runs in this process, else of the calls here.

    Shares are between 0 and 1, times in milliseconds, sizes in megabytes.
    """
    settings = load({}, os.environ)
    found = running.figures() or _engine().snapshot()
    analyses = found.get("stores", {}).get("assessments", {})
    return {
        "cache_hit_ratio": found["cache_hit_ratio"],
        "condensation_stats": dict(found["condensation_stats"]),
        "memory_usage_mb": found["memory_usage_mb"],
        "error_rate": found["error_rate"],
        # What the program that the specification describes returned in their place.
        "cache_size": analyses.get("entries") or 0,
        "cache_limit": settings.context_cache_size,
        "condensation_engine_available": True,
        "accurate_token_counter_available": settings.enable_accurate_token_counting,
        "ai_condensation_enabled": settings.enable_ai_condensation,
        "configuration": {
            "caution_threshold": settings.condensation_caution_threshold,
            "warning_threshold": settings.condensation_warning_threshold,
            "critical_threshold": settings.condensation_critical_threshold,
            "target": settings.condensation_target,
            "min_messages": settings.condensation_min_messages,
            "default_strategy": settings.condensation_default_strategy,
            "text_model_tokens": TEXT_TOKENS,
            "vision_model_tokens": VISION_TOKENS,
        },
    }


class _Own:
    """What the engine's caches hang on."""


class _Engine:
    """The addon's engine, with a ledger in memory and figures of its own."""

    def __init__(self, settings: Settings) -> None:
        key = secrets.token_bytes(32)
        self._worker = Worker(carried(_Own()), Shelves(key, None, False, ""), settings)
        self._key = key
        self.figures = Figures(time.monotonic)

    async def manage(self, body: bytes, api: Api, settings: Settings) -> Result:
        """Send a request down the addon's way; counted in any case.

        Raises:
            Unreadable: it is none of this API's.
        """
        job = Job(api, _PATHS[api.name], self._key, self._key, {}, body, at=time.time())
        ready = await self._worker.look(job, settings)
        if ready.standing == Standing.ALONE:
            raise Unreadable(ready.why)
        result = await self._worker.decide(ready)
        if not result.counted:
            result = await self._worker.count_later(result)
        await self._worker.confirm(result)
        self.figures.counted(*self._worker.known.take())
        return result

    def snapshot(self) -> Mapping[str, Any]:
        """The figures, as the addon's `stats.json` has them."""
        return self.figures.snapshot() | {"stores": self._worker.stores()}


@cache
def _engine() -> _Engine:
    return _Engine(load({}, os.environ))


_CHAT, _MESSAGES = "/v1/chat/completions", "/v1/messages"


def _api(path: str) -> Api:
    found = api_for("POST", path)
    if found is None:
        raise AssertionError(path)
    return found


_PATHS: Final = {_api(path).name: path for path in (_CHAT, _MESSAGES)}


def _api_of(messages: Messages) -> Api:
    """Whose form these messages have."""
    for message in messages:
        content = message.get("content")
        for block in content if isinstance(content, list) else ():
            if isinstance(block, Mapping) and block.get("type") in _BLOCKS:
                return _api(_MESSAGES)
    return _api(_CHAT)


def _body(messages: Messages, model: str) -> bytes:
    try:
        return json.dumps({"model": model, "messages": list(messages)}).encode()
    except (TypeError, RecursionError) as error:
        raise ValueError(f"these messages are no JSON: {type(error).__name__}") from None


def _with_window(settings: Settings, window: int | None) -> Settings:
    """The settings with the windows of models that nobody knows, or one window for all."""
    defaults = ((_TEXT, TEXT_TOKENS), (_VISION, VISION_TOKENS))
    windows = (*defaults, *settings.context_windows)
    if window is not None:
        windows = (*((name, window) for name, _ in defaults), ("*", window))
    return replace(settings, context_windows=windows, context_mode="condense")


def _told(messages: Messages, result: Result, outcome: Outcome) -> ContextManagementResult:
    raw = result.raw
    made = [dict(one) for one in messages] if raw is None else json.loads(raw)["messages"]
    return ContextManagementResult(
        messages=made,
        original_tokens=outcome.sent,
        final_tokens=outcome.forwarded,
        strategy_used=None if raw is None else TRUNCATION,
        risk_level=outcome.level.value,
        processing_time=outcome.milliseconds,
        metadata={
            "action": outcome.action.value,
            "reason": outcome.reason,
            "is_new_step": outcome.action == Action.CONDENSED,
            "steps": outcome.steps,
            "utilization_percent": 100 * outcome.utilisation,
            "limit_tokens": outcome.room,
        },
    )
