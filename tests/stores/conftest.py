"""One Redis server for all tests of stores, and each kind of store fresh."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.stores.makers import KEY, Clock, Made, memory, sealed, sqlite
from tests.stores.servers import real_redis

from loopback.redis_server import RealRedis
from mitmcontext.stores.redis import RedisStore
from mitmcontext.stores.redis_server import Server
from mitmcontext.stores.sealed import Sealed
from mitmcontext.stores.tiers import Tiers

KINDS = ("memory", "sqlite", "sealed sqlite", "redis", "sealed redis", "two tiers", "three tiers")
# Far more than the budget: what is tested here is what is stored, on a machine that is busy.
AMPLE = 5.0


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RealRedis]:
    with real_redis() as server:
        yield server


@pytest.fixture
def redis_store(redis_server: RealRedis) -> Iterator[RedisStore]:
    redis_server.say("FLUSHALL")
    server = Server(redis_server.url, seconds=AMPLE)
    assert server.wait(10)
    store = RedisStore(server, "tests")
    yield store
    store.close()


@pytest.fixture(params=KINDS)
def made(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Made]:
    """A store of each kind, and how to let time pass for it."""
    clock = Clock()
    kind = request.param
    if "redis" in kind or kind == "three tiers":
        # Redis has its own clock, so here all the others follow the real one, too.
        shared = Sealed(request.getfixturevalue("redis_store"), KEY, "tests", time.time)
        if kind == "redis":
            result = Made(request.getfixturevalue("redis_store"))
        elif kind == "sealed redis":
            result = Made(shared)
        else:
            real = Clock(time.time())

            def wait(seconds: float) -> None:
                time.sleep(seconds)
                real.now = time.time()

            near = sealed(sqlite(tmp_path, clock=real), real)
            result = Made(Tiers([memory(clock=real), near, shared]), wait)
    elif kind == "memory":
        result = Made(memory(clock=clock), clock.wait)
    elif kind == "sqlite":
        result = Made(sqlite(tmp_path, clock=clock), clock.wait)
    elif kind == "sealed sqlite":
        result = Made(sealed(sqlite(tmp_path, clock=clock), clock), clock.wait)
    else:
        far = sealed(sqlite(tmp_path, clock=clock), clock)
        result = Made(Tiers([memory(clock=clock), far]), clock.wait)
    yield result
    result.store.close()
