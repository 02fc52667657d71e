"""Recorded conversations, where they are present, turn by turn through the whole proxy."""

from __future__ import annotations

import pytest
from tests.e2e.fixture_types import Connect, StartProxy, Stats

import replay
from loopback.provider import Provider, with_windows

WINDOW = 32_000

pytestmark = pytest.mark.skipif(
    not replay.DATA.is_dir(), reason="the recorded conversations are not on this machine"
)


@pytest.mark.parametrize(
    ("corpus", "place"),
    [("claude_code_sessions", 4), ("swebench_miniswe", 0), ("swebench_miniswe", 3)],
)
def test_a_recorded_conversation(
    corpus: str,
    place: int,
    provider: Provider,
    start_proxy: StartProxy,
    connect: Connect,
    stats: Stats,
) -> None:
    conversation = replay.longest(replay.DATA, [corpus], place + 1)[place]
    provider.models = with_windows({"*": WINDOW})
    proxy = start_proxy(f"context_windows=*={WINDOW}")

    report = replay.play(conversation, provider, proxy, WINDOW)

    assert report.refused_on_shape == []
    assert report.unexplained_breaks == 0
    assert report.changed_outside == 0
    assert report.changed_too_early == 0
    assert stats(proxy)["requests"]["failed_open"] == 0
