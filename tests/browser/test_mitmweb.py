"""What a person sees: a real mitmweb with the real addon, in a real browser."""

from __future__ import annotations

import contextlib
import io as stdio
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from mitmproxy import io
from tests.browser.stage import WINDOW, Mitmweb, play, program, running, send

from demo.session import Session
from loopback import devtools

CONDENSED, REAPPLIED = "✂", "♻"
ROWS = "[...document.querySelectorAll('.flow-table tbody tr')].filter(row => row.cells.length)"
PAGE = "document.querySelector('.contentview pre')?.innerText"


@pytest.fixture(scope="module")
def mitmweb(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mitmweb]:
    program()
    with running(tmp_path_factory.mktemp("mitmweb")) as started:
        play(started)
        yield started


@pytest.fixture
async def page(mitmweb: Mitmweb, tmp_path: Path) -> AsyncIterator[devtools.Page]:
    """mitmweb's flow list, with the flows of the session in it."""
    async with devtools.browser(program(), tmp_path / "profile") as opened:
        await opened.open(f"{mitmweb.address}/?token={mitmweb.token}")
        await opened.until(f"{ROWS}.some(row => row.innerText.includes('{REAPPLIED}'))")
        yield opened


async def choose(page: devtools.Page, row: str) -> None:
    """Click on the first flow whose row has this text, and wait for its request to be shown."""
    found = f"{ROWS}.find(row => row.innerText.includes({row!r}))"
    await page.until(f"{found} !== undefined")
    await page.evaluate(f"{found}.click()")
    await page.until(PAGE)


async def test_the_flow_list_has_marks_and_comments(page: devtools.Page) -> None:
    async def row_with(text: str) -> str:
        """The first row with this text; the list only has those that are in sight."""
        found = f"{ROWS}.find(row => row.innerText.includes({text!r}))"
        for place in ("0", "1e6"):
            await page.evaluate(f"document.querySelector('.flow-table').scrollTop = {place}")
            with contextlib.suppress(AssertionError):
                await page.until(f"{found} !== undefined", seconds=3)
                row: str = await page.evaluate(f"{found}.innerText")
                return row
        raise AssertionError(f"no row says {text!r}")

    condensed = await row_with(CONDENSED)
    reapplied = await row_with(REAPPLIED)
    untouched = await row_with(" % safe · ")
    assert " → " in condensed
    assert "step 1" in condensed
    assert "step 1 re-applied" in reapplied
    assert " → " not in untouched


async def test_a_condensed_request_tells_what_was_done(page: devtools.Page) -> None:
    await choose(page, CONDENSED)
    lines = (await page.evaluate(PAGE)).splitlines()
    assert lines[0].startswith("Condensed · step 1 · ")
    assert any(line.startswith("forwarded ") and "█" in line for line in lines[:6])
    text = "\n".join(lines)
    for label in ("why", "level", "tokens", "window", "model", "messages", "took"):
        assert f"\n{label} " in text
    assert f"{WINDOW:,} tokens for input" in text
    assert any(line.startswith("  - ") for line in lines)
    assert any(line.startswith("  + ") for line in lines)


async def test_its_first_screen_holds_what_tells_most(page: devtools.Page) -> None:
    await choose(page, CONDENSED)
    bottom = await page.evaluate(
        "[...document.querySelectorAll('.contentview pre div')]"
        ".find(line => line.innerText.includes('What was done')).getBoundingClientRect().bottom"
    )
    assert bottom < 900
    fits = "(pre => pre.scrollWidth <= pre.clientWidth)(document.querySelector('.contentview pre'))"
    assert await page.evaluate(fits)


async def test_its_comment_can_be_read_whole(page: devtools.Page) -> None:
    await choose(page, CONDENSED)
    await page.evaluate(
        "[...document.querySelectorAll('.flow-detail nav a')]"
        ".find(tab => tab.innerText === 'Comment').click()"
    )
    await page.until(
        "document.querySelector('.flow-detail section').innerText.includes('· step 1')"
    )


async def test_a_request_that_fits_is_shown_as_its_json(page: devtools.Page) -> None:
    await choose(page, "% safe")
    assert (await page.evaluate(PAGE)).startswith("{")


async def test_the_figures_are_a_page(mitmweb: Mitmweb, tmp_path: Path) -> None:
    through = f"--proxy-server=127.0.0.1:{mitmweb.proxy.port}"
    async with devtools.browser(program(), tmp_path / "profile", through) as page:
        await page.open("http://context.mitm/")
        text = await page.until("document.querySelector('table') && document.body.innerText")
    assert "condensed by a new step\t1" in text
    assert "unexplained prefix breaks\t0" in text


async def test_it_lists_the_conversation_message_by_message(page: devtools.Page) -> None:
    await choose(page, CONDENSED)
    lines = (await page.evaluate(PAGE)).splitlines()
    first = next(at for at, line in enumerate(lines) if "The conversation as the client" in line)
    listed = [" ".join(line.split()) for line in lines[first + 1 :]]
    assert listed[0].startswith("1 user text ")
    assert listed[0].endswith(" kept")
    assert any(" stubbed " in line or " folded " in line for line in listed)
    assert any(line.startswith("context.original @") for line in lines)


def flows_of(mitmweb: Mitmweb, marked: str) -> list[str]:
    """The ids of the flows with this mark."""
    found = mitmweb.get("/flows").json()
    return [one["id"] for one in found if one["marked"] == marked]


def test_commands_answer_in_sentences(mitmweb: Mitmweb) -> None:
    stats = mitmweb.stats()
    said = mitmweb.call("context.stats")
    assert said[0].startswith(f"{stats['requests']['seen']} requests, ")
    assert any(f"{stats['tokens']['sent']:,} sent" in line for line in said)
    (talk,) = mitmweb.call("context.conversations")
    assert f"{stats['requests']['recognised']} requests" in talk
    assert ", 1 steps" in talk


def test_a_command_explains_a_request(mitmweb: Mitmweb) -> None:
    flow = flows_of(mitmweb, CONDENSED)[0]
    text = mitmweb.call("context.explain", f"@{flow}")
    assert text.startswith("Condensed · step 1 · ")
    assert "provider    counted " in text
    assert " kept\n" in text


def test_the_original_and_the_forwarded_body_can_both_be_had(
    mitmweb: Mitmweb, tmp_path: Path
) -> None:
    flow = flows_of(mitmweb, CONDENSED)[0]
    told = [json.dumps(body).encode() for body in Session().requests()]
    sent = [json.loads(body)["messages"] for body in told]
    file = tmp_path / "original.json"
    mitmweb.call("context.original", f"@{flow}", str(file))
    original = json.loads(file.read_bytes())["messages"]
    assert original in sent
    assert json.loads(mitmweb.get(f"/context/original/{flow}").content)["messages"] == original
    forwarded = mitmweb.get(f"/flows/{flow}/request/content.data").json()["messages"]
    at_provider = [one.body["messages"] for one in mitmweb.provider.requests("anthropic")]
    assert forwarded in at_provider
    assert forwarded != original
    shown = mitmweb.get(f"/flows/{flow}/request/content/mitmcontext-original").json()
    assert shown["view_name"] == "mitmcontext-original"
    assert json.loads(shown["text"])["messages"] == original


def test_every_kind_can_be_filtered_by_its_comment(mitmweb: Mitmweb) -> None:
    """By mitmproxy's own filter, as the search field of mitmweb uses it."""
    with mitmweb.client() as client:
        client.post("https://api.anthropic.com/v1/messages", content=b"[]")
    for words, mark in (
        ("step [0-9]+$", ":scissors:"),
        ("re-applied", ":recycle:"),
        ("left alone", ":fast_forward:"),
    ):
        dump = mitmweb.get(f"/flows/dump?filter=~comment%20%22{quote(words)}%22").content
        found = list(io.FlowReader(stdio.BytesIO(dump)).stream())
        assert found
        assert {flow.marked for flow in found} == {mark}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("condensation_model", "a\nb"),
        ("context_cache_dir", "kept\0here"),
        ("context_cache_dir", "~nobody-of-this-name/kept"),
        ("context_hosts", ["[!"]),
        ("context_max_body", "9999999999GB"),
        ("condensation_timeout", "999999999d"),
    ],
)
def test_what_may_not_be_set_is_refused_while_it_runs(
    name: str, value: Any, mitmweb: Mitmweb
) -> None:
    before = mitmweb.get("/options").json()[name]["value"]
    answer = mitmweb.set(**{name: value})
    assert answer.status_code == 400
    assert f"{name} must " in answer.text
    assert mitmweb.get("/options").json()[name]["value"] == before
    assert "Traceback" not in mitmweb.proxy.said()


def test_the_mode_changes_while_it_runs(mitmweb: Mitmweb) -> None:
    assert mitmweb.call("context.observe") == "context_mode is observe; it was condense"
    try:
        assert mitmweb.get("/options").json()["context_mode"]["value"] == "observe"
        with mitmweb.client() as client:
            before = mitmweb.stats()["requests"]["observed"]
            bodies = list(Session().requests())
            for body in bodies[: mitmweb.stats()["requests"]["recognised"] + 3]:
                send(client, body)
        assert mitmweb.stats()["requests"]["observed"] > before
        assert flows_of(mitmweb, "👀")
        comments = [one["comment"] for one in mitmweb.get("/flows").json()]
        assert any("would be" in comment for comment in comments)
    finally:
        assert mitmweb.call("context.condense") == "context_mode is condense; it was observe"


def test_every_command_has_help(mitmweb: Mitmweb) -> None:
    found = mitmweb.get("/commands").json()
    ours = {name: one for name, one in found.items() if name.startswith("context.")}
    assert set(ours) == {
        f"context.{name}"
        for name in (
            *("stats", "conversations", "explain", "original"),
            *("observe", "condense", "forget", "clear"),
        )
    }
    assert all(one["help"] for one in ours.values())
    assert ours["context.explain"]["parameters"][0]["type"] == "flow"
    assert ours["context.original"]["parameters"][1]["type"] == "path"
