"""The figures of `bench tokens` are what they say, and the fit finds what is there to be found."""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import bench_tokens
import fit_tokens
from mitmcontext.known import Known
from mitmcontext.stores.memory import MemoryStore, lru
from mitmcontext.tokens.families import all_families, family_of
from mitmcontext.wire.anthropic import MESSAGES
from mitmcontext.wire.openai_chat import CHAT
from recorded import Case, cases, counter, rows

TOOL = {"name": "look", "description": "Look it up.", "input_schema": {"type": "object"}}
SHARED = fit_tokens.default_data()


def row(number: int, api: str, reported: int, repo: str = "a", **request: Any) -> dict[str, Any]:
    return {
        "id": str(number),
        "source_repo": repo,
        "host": "example.com",
        "api": api,
        "model": "gpt-4o" if api.startswith("openai") else "claude-sonnet-4-5",
        "reported_input_tokens": reported,
        "hidden_context": False,
        "request": request,
    }


def said(chance: random.Random) -> list[dict[str, str]]:
    words = chance.choices(["harbour", "berth", "tide", "vessel"], k=chance.randrange(1, 900))
    return [{"role": "user", "content": " ".join(words)}]


def recorded(count: int, off: float) -> Iterator[dict[str, Any]]:
    """Chat that is reported as it is estimated, and Messages that are off by a constant share."""
    chance = random.Random(5)
    for number in range(count):
        chat = row(number, "openai.chat", 1, messages=said(chance))
        (case,) = cases([chat])
        yield {**chat, "reported_input_tokens": case.estimate}
        asked = row(number, "anthropic.messages", 1, messages=said(chance), tools=[TOOL], repo="b")
        (case,) = cases([asked])
        yield {**asked, "reported_input_tokens": round(case.estimate * off)}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    hidden = {**row(0, "openai.chat", 5, messages=said(random.Random())), "hidden_context": True}
    unread = row(1, "openai.chat", 5, messages=7)
    path = tmp_path / "recorded.jsonl.gz"
    with gzip.open(path, "wt", encoding="utf-8") as lines:
        lines.writelines(json.dumps(one) + "\n" for one in [*recorded(40, 1.2), hidden, unread])
    return path


def test_the_bench_says_how_far_off_estimates_are(
    data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bench_tokens.main(["--data", str(data), "--json", "--only", "accuracy"]) == 0
    found = json.loads(capsys.readouterr().out)["accuracy"]
    assert (found["requests"], found["counted"]) == (82, 80)
    cold, online, without = found["cold"], found["online"], found["left out"]
    assert cold["API: openai.chat"]["median"] == 0
    assert cold["API: openai.chat"]["within 5 %"] == 1
    assert cold["500 and more: Claude"]["bias"] == pytest.approx(1 / 1.2 - 1, abs=0.01)
    assert cold["500 and more: Claude"]["within 5 %"] == 0
    assert online["API: anthropic.messages"]["within 5 %"] > 0.8
    # Without the only source of Claude there are the figures that the fit begins with.
    assert without["API: anthropic.messages"]["requests"] == 40
    assert without["tools: yes"] == without["family: claude-4.5"]


def test_the_bench_says_it_in_a_table(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert bench_tokens.main(["--data", str(data), "--quick", "--only", "accuracy"]) == 0
    table = capsys.readouterr().out
    assert "80 of 82 requests" in table
    assert "500 and more: OpenAI" in table
    assert "left out" not in table


def test_without_data_it_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert bench_tokens.main(["--data", str(tmp_path / "none"), "--only", "accuracy"]) == 2
    assert "--data" in capsys.readouterr().err


def test_a_conversation_that_is_sent_again_is_known() -> None:
    found = bench_tokens.resent()
    assert found["turns"] == 200
    assert found["hits"] >= 0.98
    assert found["Mtokens/s"] > 10


@pytest.mark.parametrize("api", [MESSAGES, CHAT], ids=lambda api: api.name)
def test_a_case_is_estimated_as_the_addon_estimates(api: Any) -> None:
    name = "anthropic.messages" if api is MESSAGES else "openai.chat"
    more = {"system": "Be brief."} if api is MESSAGES else {}
    asked = row(0, name, 1, messages=said(random.Random(1)) * 5, tools=[TOOL], **more)
    (case,) = cases([asked])
    request = api.read(json.dumps({"model": asked["model"], **asked["request"]}).encode())
    known = Known(MemoryStore(lru(1 << 20)), counter)
    family = family_of(asked["model"], api.name)
    each = known.count(api, family, request, known.recall(api, family, request))
    assert case.estimate == sum(each) + known.fixed(family, request)


def test_the_fit_finds_the_weights_that_there_are() -> None:
    """Recordings of a Claude with weights of its own, one in twenty of them wrong."""
    true = fit_tokens.KINDS["claude"].beginning("claude-4.5") | {"tools": 500, "text": 1.25}
    chance = random.Random(9)
    found: list[Case] = []
    for number in range(120):
        tools = [TOOL] * chance.randrange(3)
        asked = row(number, "anthropic.messages", 1, messages=said(chance), tools=tools)
        for case in cases([asked]):
            reported = round(replace(case.family, weights=true).weigh(case.counts))
            wrong = 3 if number % 20 == 0 else 1
            found.append(replace(case, reported=reported * wrong))
    weights = fit_tokens.fitted(found, all_families())["claude-4.5"]
    assert weights["text"] == pytest.approx(1.25, rel=0.01)
    assert weights["tools"] == pytest.approx(500, abs=15)


def test_where_nothing_was_recorded_the_fit_stays_where_it_began() -> None:
    weights = fit_tokens.fitted([], all_families())
    assert weights["gpt-4o"] == fit_tokens.KINDS["openai"].begin
    assert weights["claude-3-opus"]["tools"] == 530


def test_writing_changes_nothing_but_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = tmp_path / "families.toml"
    before = fit_tokens.TABLE.read_text(encoding="utf-8")
    table.write_text(before, encoding="utf-8")
    monkeypatch.setattr(fit_tokens, "TABLE", table)
    fit_tokens.write({family.name: dict(family.weights) for family in all_families()})
    assert table.read_text(encoding="utf-8") == before
    fit_tokens.write({"gpt-4o": {"text": 1.0, "message": 77.0, "call": 0.0}})
    changed = table.read_text(encoding="utf-8").splitlines()
    assert "message = 77" in changed
    assert len(changed) < len(before.splitlines())


@pytest.mark.skipif(not SHARED.is_file(), reason="the shared recordings are not here")
def test_estimates_come_as_near_as_they_are_said_to() -> None:
    found = bench_tokens.accuracy(SHARED, without=False)
    cold, online = found["cold"], found["online"]
    assert cold["500 and more: OpenAI"]["within 5 %"] >= 0.9
    assert cold["500 and more: Claude"]["within 5 %"] >= 0.8
    assert cold["images: OpenAI"]["within 5 %"] >= 0.9
    assert cold["images: Claude"]["within 5 %"] >= 0.9
    assert online["500 and more: all"]["within 5 %"] >= 0.8


def test_rows_may_be_plain_lines(tmp_path: Path) -> None:
    path = tmp_path / "recorded.jsonl"
    path.write_text('{"a":1}\n{"a":2}\n', encoding="utf-8")
    assert list(rows(path)) == [{"a": 1}, {"a": 2}]
