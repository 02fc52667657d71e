"""The specification's monitoring of a running proxy: every field, against the provider's record."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.e2e.fixture_types import StartProxy, Stats

from demo.session import Session, encode
from loopback.child import Child
from loopback.client import NO_TLS
from loopback.provider import Provider, with_windows

WINDOW = 24_000
SECRET = "sk-canary-5e7a"
TEXT = "canary text of a person"
# Asks, inside the proxy's own process, as a program of its user's would.
PROBE = """
import json
from mitmproxy import http


def request(flow):
    if flow.request.pretty_host == "probe.example":
        from mitmcontext import get_context_performance_stats, get_performance_metrics

        found = {"stats": get_context_performance_stats(), "metrics": get_performance_metrics()}
        flow.response = http.Response.make(200, json.dumps(found))
"""


def play(provider: Provider, proxy: Child, requests: int) -> list[dict[str, Any]]:
    """A session's first requests, with words in them that must not get anywhere."""
    provider.models = with_windows({"*": WINDOW})
    bodies = [body for _, body in zip(range(requests), Session().requests(), strict=False)]
    with httpx.Client(
        proxy=proxy.url, verify=str(proxy.authority), trust_env=False, timeout=60
    ) as client:
        for body in bodies:
            client.post(
                f"https://api.anthropic.com/v1/messages?secret={SECRET}",
                content=encode(body | {"system": TEXT}),
                headers={"x-api-key": SECRET, "content-type": "application/json"},
            ).raise_for_status()
    return bodies


def ask(proxy: Child, url: str) -> httpx.Response:
    answer = httpx.get(url, proxy=proxy.url, verify=NO_TLS, trust_env=False)
    return answer.raise_for_status()


@pytest.fixture
def probe(tmp_path: Path) -> Path:
    file = tmp_path / "probe.py"
    file.write_text(PROBE)
    return file


def test_every_field_is_there_and_true(
    provider: Provider, start_proxy: StartProxy, stats: Stats, probe: Path
) -> None:
    proxy = start_proxy(f"context_windows=*={WINDOW}", arguments=["-s", str(probe)])
    bodies = play(provider, proxy, 40)
    found = ask(proxy, "http://probe.example/").json()
    figures, steps = stats(proxy), found["stats"]["condensation_stats"]
    records = provider.requests("anthropic")
    # Each step is one prefix that changed, as the provider saw it.
    assert figures["steps"] == len(provider.breaks) > 0
    assert steps["success_rate"] == 1.0
    assert found["stats"]["error_rate"] == 0.0
    assert not provider.refused
    assert steps["avg_tokens_saved"] == pytest.approx(
        sum(figures["steps_freed"]) / figures["steps"], abs=0.1
    )
    assert figures["tokens"]["forwarded"] == pytest.approx(
        sum(record.tokens for record in records), rel=0.02
    )
    assert figures["estimates"]["compared"] == len(records)
    # Each new message is counted once, however often it is sent.
    token_counts = figures["stores"]["token counts"]
    asked = token_counts["hits"] + token_counts["misses"]
    assert found["stats"]["cache_hit_ratio"] == pytest.approx(
        token_counts["hits"] / asked, abs=0.02
    )
    forms = {json.dumps(one) for body in bodies for one in body["messages"]}
    forms |= {json.dumps(one) for record in records for one in record.body["messages"]}
    # Two threads may count the same one at the same time, at the start.
    assert token_counts["misses"] <= 1.1 * len(forms)
    memory = proxy.memory_bytes() / 2**20
    assert found["stats"]["memory_usage_mb"] == pytest.approx(memory, rel=0.2)
    assert 0 < steps["avg_processing_time_ms"] <= figures["processing"]["max_ms"]
    assert figures["processing"]["requests"] == len(records)
    metrics = found["metrics"]
    assert metrics == {
        "cache_hit_ratio": found["stats"]["cache_hit_ratio"],
        "condensation_success_rate": steps["success_rate"],
        "avg_processing_time_ms": steps["avg_processing_time_ms"],
        "tokens_saved_per_request": steps["avg_tokens_saved"],
        "memory_usage_mb": pytest.approx(found["stats"]["memory_usage_mb"], rel=0.05),
        "error_rate": 0.0,
    }


def test_costs_are_what_the_provider_reports(
    provider: Provider, start_proxy: StartProxy, stats: Stats
) -> None:
    proxy = start_proxy(f"context_windows=*={WINDOW}")
    play(provider, proxy, 30)
    usages = [record.usage for record in provider.requests("anthropic") if record.usage]
    assert stats(proxy)["money"]["requests_priced"] == len(usages)
    metrics = ask(proxy, "http://context.mitm/metrics").text
    (cost,) = [
        line for line in metrics.splitlines() if line.startswith("mitmcontext_cost_dollars_total")
    ]
    assert float(cost.rpartition(" ")[2]) == stats(proxy)["money"]["cost"]


def test_two_switches_tell_times_and_tokens_and_the_end_is_summed_up(
    provider: Provider, start_proxy: StartProxy, stats: Stats
) -> None:
    proxy = start_proxy(
        f"context_windows=*={WINDOW}",
        environment={
            "ENABLE_CONTEXT_PERFORMANCE_LOGGING": "true",
            "ENABLE_TOKEN_COUNTING_LOGGING": "true",
        },
    )
    play(provider, proxy, 30)
    figures, records = stats(proxy), provider.requests("anthropic")
    proxy.stop()
    said = proxy.said()
    assert said.count("mitmcontext: performance: ") == 30
    for record in records:
        assert record.usage is not None
        assert f"mitmcontext: tokens: {record.usage.total_input:,} counted by the" in said
    assert f"mitmcontext: tokens: {figures['tokens']['sent']:,} sent, " in said
    assert "30 of them to LLMs: " in said


def test_no_secret_and_no_text_gets_anywhere(
    provider: Provider, start_proxy: StartProxy, probe: Path
) -> None:
    proxy = start_proxy(
        f"context_windows=*={WINDOW}",
        "flow_detail=0",
        arguments=["-s", str(probe)],
        environment={
            "ENABLE_CONTEXT_PERFORMANCE_LOGGING": "true",
            "ENABLE_TOKEN_COUNTING_LOGGING": "true",
        },
    )
    bodies = play(provider, proxy, 40)
    pages = [
        ask(proxy, f"http://{place}").text
        for place in (
            *("context.mitm/", "context.mitm/stats.json", "context.mitm/metrics"),
            "probe.example/",
        )
    ]
    proxy.stop()
    shown = "\n".join([*pages, proxy.said()])
    assert "mitmcontext" in shown
    sent = json.dumps(bodies[-1]["messages"][0])[20:60]
    for secret in (SECRET, TEXT, sent):
        assert secret not in shown


HOSTILE = "gpt\x1b[31m\r\nmitmcontext: FORGED\u202e<img src=x onerror=alert(1)>\u2028\x9b2J"


def test_hostile_names_and_texts_break_no_line_and_become_no_markup(
    provider: Provider, start_proxy: StartProxy, stats: Stats
) -> None:
    """In a request that is condensed, so that a line is told of it."""
    provider.models = with_windows({"*": WINDOW})
    proxy = start_proxy(
        f"context_windows=*={WINDOW}",
        "flow_detail=0",
        environment={
            "ENABLE_CONTEXT_PERFORMANCE_LOGGING": "true",
            "ENABLE_TOKEN_COUNTING_LOGGING": "true",
        },
    )
    messages: list[dict[str, Any]] = [{"role": "user", "content": HOSTILE}]
    for number in range(30):
        named = {"name": "look", "arguments": json.dumps({HOSTILE: HOSTILE})}
        call = {"id": f"call_{number}", "type": "function", "function": named}
        messages.append({"role": "assistant", "content": None, "tool_calls": [call]})
        result = f"{number} {HOSTILE} " + "many words of a result " * 200
        messages.append({"role": "tool", "tool_call_id": call["id"], "content": result})
    with httpx.Client(
        proxy=proxy.url, verify=str(proxy.authority), trust_env=False, timeout=60
    ) as client:
        answer = client.post(
            "https://api.openai.com/v1/chat/completions?x=%0d%0amitmcontext:%20FORGED%1b[31m",
            json={"model": HOSTILE, "messages": messages},
            headers={"authorization": "Bearer k"},
        )
        assert answer.status_code == 200, answer.text
    assert stats(proxy)["steps"] == 1
    page = ask(proxy, "http://context.mitm/").text
    proxy.stop()
    lines = [text for text in proxy.said().split("\n") if "mitmcontext: " in text]
    assert any(" · step 1 · " in text for text in lines)
    assert not [text for text in lines if text.startswith("mitmcontext: FORGED")]
    for shown in lines:
        assert not {"\x1b", "\r", "\u202e", "\u2028", "\x9b"} & set(shown)
    assert "<img" not in page
