"""What the real Codex sent over a WebSocket, played once more."""

from __future__ import annotations

import gzip
import json
from collections.abc import Sequence

import pytest
from tests.e2e.codex import CONDENSE, FALLBACK, OBSERVE, faults, refusals
from tests.e2e.fixture_types import Json, Opened, StartProxy, Stats

from loopback.answers import Call, Reply
from loopback.child import REPOSITORY, Child
from loopback.provider import Provider, with_windows
from loopback.websocket import Socket

CAPTURES = REPOSITORY.parent / "shared" / "data" / "captures"
RECORDED = ("websocket", "chatgpt-auth-websocket", "compaction-websocket")
OUTPUTS = ("function_call_output", "custom_tool_call_output")


def recorded(name: str) -> list[Json]:
    """The upgrade and the frames of a session of the real Codex; no answers were recorded."""
    file = CAPTURES / f"codex-0.169.0__{name}.jsonl.gz"
    if not file.exists():
        pytest.skip("the recorded requests are not on this machine")
    with gzip.open(file, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def replayed(
    name: str, provider: Provider, socket: Socket, more: int = 0
) -> tuple[list[str], list[str]]:
    """Play a session, and go on with its last turn; the client's frames and the provider's.

    Where a frame goes on from a response or answers a call, it is made to be the provider's: the
    session's own answers are not known.
    """
    frames: list[Json] = [one["body"] for one in recorded(name)[1:]]
    frames += [another(frames[-1], number) for number in range(more)]
    sent: list[str] = []
    came: list[str] = []
    previous = ""
    for frame, following in zip(frames, [*frames[1:], None], strict=True):
        if frame["input"]:
            provider.replies.append(calling(following["input"] if following else []))
        if "previous_response_id" in frame:
            frame["previous_response_id"] = previous
        sent.append(json.dumps(frame, ensure_ascii=False, separators=(",", ":")))
        came += socket.turn(sent[-1])
        previous = json.loads(came[-1]).get("response", {}).get("id", "")
    return sent, came


def another(frame: Json, number: int) -> Json:
    """The same turn once more: the output of another call."""
    text = json.dumps(frame)
    for item in frame["input"]:
        for own in filter(None, (item.get("id"), item.get("call_id"))):
            text = text.replace(own, f"{own[:40]}_{number}")
    found: Json = json.loads(text)
    return found


def calling(items: Sequence[Json]) -> Reply:
    """What a model says that is answered by these items."""
    calls = [item["call_id"] for item in items if item.get("type") in OUTPUTS]
    script = {"input": "text(await tools.exec_command({cmd: 'cat notes.txt'}))"}
    return Reply("Next.", tuple(Call("exec", script, id_) for id_ in calls), "What comes next?")


def let_in(opened: Opened, proxy: Child, name: str) -> Socket:
    """A WebSocket with the very headers of a recorded one."""
    upgrade = recorded(name)[0]
    ours = ("host", "connection", "upgrade", "authorization")
    headers = [
        (key, value)
        for key, value in upgrade["headers"]
        if key.lower() not in ours and not key.lower().startswith("sec-websocket")
    ]
    headers.append(("authorization", "Bearer k"))
    return opened(proxy, upgrade["host"], path=upgrade["path"], headers=headers)


@pytest.mark.parametrize("setting", [OBSERVE, CONDENSE])
def test_recorded_sessions_pass_while_there_is_room(
    setting: str, provider: Provider, start_proxy: StartProxy, opened: Opened, stats: Stats
) -> None:
    proxy = start_proxy(setting)
    for name in RECORDED:
        sent, came = replayed(name, provider, let_in(opened, proxy, name))
        assert provider.lines[-1].came == sent
        assert provider.lines[-1].sent == came
    assert refusals(provider) == []
    found = stats(proxy)
    assert faults(found) == []
    # The two sessions that begin with an empty turn.
    assert list(found["left_alone"].values()) == [2]


def test_recorded_sessions_are_sent_back_to_post(
    provider: Provider, start_proxy: StartProxy, opened: Opened
) -> None:
    proxy = start_proxy(FALLBACK)
    for name in RECORDED:
        assert let_in(opened, proxy, name).status == 426
    assert provider.number == 0


@pytest.mark.parametrize("name", ["websocket", "chatgpt-auth-websocket"])
def test_recorded_sessions_that_go_on_are_condensed(
    name: str, provider: Provider, start_proxy: StartProxy, opened: Opened, stats: Stats
) -> None:
    # Four fifths of its first turn are tools and prompts.
    window = 48_000
    provider.models = with_windows({"*": window})
    proxy = start_proxy(f"context_windows=gpt-*={window}", CONDENSE)

    sent, came = replayed(name, provider, let_in(opened, proxy, name), more=40)

    assert refusals(provider) == []
    assert max(record.tokens for record in provider.records) <= window
    assert provider.lines[0].sent == came
    found = stats(proxy)
    assert found["steps"] >= 2
    assert faults(found) == []
    assert found["prefix_breaks_unexplained"] == 0
    changed = sum(a != b for a, b in zip(sent, provider.lines[0].came, strict=True))
    assert changed == found["steps"]
