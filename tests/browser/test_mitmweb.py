"""What a person sees: a real mitmweb with the real addon, in a real browser."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from tests.browser.stage import WINDOW, Mitmweb, play, program, running

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
