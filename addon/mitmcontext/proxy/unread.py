"""Which requests need not even be read: they are passed on while there is too much to do.

A request is that small if it fits whatever it holds, and if nothing can be frozen of it, since
nothing was ever frozen for so short a conversation. What is lost is that nobody counts it, and that
nothing helps one that the provider finds too long all the same: the next ones there are read.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from cachetools import TTLCache
from mitmproxy import http

from mitmcontext import pipeline
from mitmcontext.condense.ledger import Ledger
from mitmcontext.proxy.estimates import Estimates
from mitmcontext.proxy.hosts import host_of
from mitmcontext.settings import Settings
from mitmcontext.wire import glance
from mitmcontext.wire.api import Api

UNREAD: Final = "unread under load: it surely fits"
# Seconds: how often others are asked for what they froze, and how long their answer counts.
_EVERY: Final = 1.0
_TRUSTED: Final = 3.0
# And how long a model is doubted whose window is smaller than the table has it, of how many. When
# one of its requests was read and refused, its window is known.
_DOUBTED: Final = 600.0
_MODELS: Final = 1_000
# Looking for pictures in so much takes a few tenths of a millisecond, as much as is saved.
_LARGEST: Final = 256 << 10


class Unread:
    """Knows what is too small to matter.

    Args:
        pool: threads.
        ledger: what is frozen.
        estimates: what refusals taught of windows.
    """

    def __init__(self, pool: ThreadPoolExecutor, ledger: Ledger, estimates: Estimates) -> None:
        self._pool = pool
        self._ledger = ledger
        self._estimates = estimates
        self._asked = self._answered = -_TRUSTED
        self._doubted: TTLCache[tuple[str, str], bool] = TTLCache(_MODELS, _DOUBTED)

    def is_safe(self, api: Api, path: str, request: http.Request, settings: Settings) -> bool:
        """Whether it is certain that a request needs nothing, without reading it."""
        body = request.raw_content
        if body is None or len(body) > _LARGEST:
            return False
        if settings.reduce_at_birth or not self._is_certain(len(body)):
            return False
        models = _models(api, path, body)
        host = host_of(request)
        if not models or any((host, model) in self._doubted for model in models):
            return False
        room = min(self._estimates.least_room(model, settings) for model in models)
        return pipeline.surely_fits(body, room, settings.thresholds, settings.context_budget)

    def was_too_long(self, api: Api, path: str, request: http.Request) -> None:
        """The provider says so of a request that was not read."""
        for model in _models(api, path, request.raw_content or b""):
            self._doubted[host_of(request), model] = True

    def _is_certain(self, size: int) -> bool:
        """Whether nothing was frozen for what fits in so many bytes, here or elsewhere."""
        now = time.monotonic()
        if now - self._asked >= _EVERY:
            self._asked = now
            self._pool.submit(self._ask)
        return now - self._answered < _TRUSTED and size < self._ledger.smallest

    def _ask(self) -> None:
        if self._ledger.look_for_smaller():
            self._answered = time.monotonic()


def _models(api: Api, path: str, body: bytes) -> set[str]:
    """The models that a request may be for; none where that cannot be said without reading it.

    Some APIs go by the body and some by the path, where both name one.
    """
    # What is compressed is no JSON, so that nothing is found there.
    named = glance.model_in(body)
    return set() if named is None else {named, api.model_in_path(path)} - {""} or {""}
