"""The cache for programs: what is kept where, and that it is sealed."""

from __future__ import annotations

from pathlib import Path

import pytest

from mitmcontext import MultiTierCache


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CONTEXT_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.delenv("CONTEXT_REDIS_URL", raising=False)
    return tmp_path / "cache"


async def test_what_is_set_is_got_and_outlives_the_process(folder: Path) -> None:
    cache = MultiTierCache()
    assert await cache.get("nothing") is None
    await cache.set("key of secrets", {"said": "words of secrets", "numbers": [1, 2.5, None]})
    again = MultiTierCache()  # with nothing in its memory
    assert await again.get("key of secrets") == {
        "said": "words of secrets",
        "numbers": [1, 2.5, None],
    }
    kept = b"".join(file.read_bytes() for file in folder.iterdir())  # noqa: ASYNC240 - a test
    assert b"of secrets" not in kept


async def test_what_has_lived_its_time_is_gone() -> None:
    cache = MultiTierCache()
    await cache.set("key", 1, ttl=0)
    assert await cache.get("key") is None
