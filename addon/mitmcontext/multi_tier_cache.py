"""The specification's cache for a program of one's own: memory, a file, Redis where there is one.

cache = MultiTierCache()
await cache.set("key", {"any": "JSON"}, ttl=600)
await cache.get("key")
"""

from __future__ import annotations

import os

from mitmcontext.proxy.shelves import cache_shelf
from mitmcontext.settings import load
from mitmcontext.stores import multi_tier
from mitmcontext.stores.base import Store


class MultiTierCache(multi_tier.MultiTierCache):
    """The first tier is memory, the second a file, the third Redis if CONTEXT_REDIS_URL is set.

    What lies in file and Redis is sealed. Each tier is bounded in bytes and keeps what was used
    last; a value goes when its time is up. A hit in a later tier is kept in the earlier ones.

    Args:
        tiers: other ones than these.

    Raises:
        BadSetting: a setting in the environment is not allowed.
    """

    def __init__(self, tiers: Store | None = None) -> None:
        if tiers is not None:
            super().__init__(tiers)
            return
        shelf, key = cache_shelf(load({}, os.environ), os.environ)
        super().__init__(shelf, key=key)
