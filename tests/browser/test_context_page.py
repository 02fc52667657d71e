"""The live page at /context: real mitmweb, real browser, real traffic."""

from __future__ import annotations

import asyncio
import json
import shutil
import time
from collections.abc import AsyncIterator, Iterator
from itertools import islice
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from tests.browser.stage import Mitmweb, play, program, running, send
from tornado.httpclient import HTTPClientError, HTTPRequest
from tornado.websocket import websocket_connect

from demo.session import Session
from loopback import child, devtools
from loopback.client import NO_TLS
from loopback.summariser import Summariser, fair

LIVE = "document.querySelector('#connection')?.textContent === 'live'"
HOSTILE = "m<img src=x onerror=alert(1)>\u202e\x1b[31m\r\n</script>"
PAGES = ("", "stats.json", "metrics")
ROUTES = (
    "/context",
    "/context/app.js",
    "/context/chart.js",
    "/context/style.css",
    "/context/figures.json",
    "/context/original/0123-abc",
    "/context/live",
)


@pytest.fixture(scope="module")
def mitmweb(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mitmweb]:
    program()
    with running(tmp_path_factory.mktemp("mitmweb")) as started:
        play(started)
        with started.client() as client:
            message = {"role": "user", "content": f"{HOSTILE} says the user"}
            call = {"type": "tool_use", "id": "toolu_1", "name": "x", "input": {HOSTILE: HOSTILE}}
            body = {"model": HOSTILE, "max_tokens": 9, "messages": [message]}
            send(client, body)
            tools = [{"name": HOSTILE, "input_schema": {"type": "object"}}]
            answer = {"role": "assistant", "content": [call]}
            send(client, body | {"tools": tools, "messages": [message, answer, message]})
        yield started


@pytest.fixture
async def page(mitmweb: Mitmweb, tmp_path: Path) -> AsyncIterator[devtools.Page]:
    async with devtools.browser(program(), tmp_path / "profile") as opened:
        await opened.watch()
        await opened.open(f"{mitmweb.address}/context?token={mitmweb.token}")
        await opened.until(LIVE)
        yield opened


def tile(name: str) -> str:
    """The figure under this name at the top."""
    return (
        "[...document.querySelectorAll('.tile')]"
        f".find(one => one.innerText.startsWith({name!r})).querySelector('b').textContent"
    )


def row(title: str) -> str:
    """The figure behind this name in a table."""
    return (
        "[...document.querySelectorAll('tr')]"
        f".find(row => row.cells[0].textContent === {title!r})?.cells[1].textContent"
    )


async def test_the_page_shows_the_figures_and_they_change_while_a_session_goes_on(
    mitmweb: Mitmweb, page: devtools.Page
) -> None:
    before = mitmweb.stats()
    assert await page.evaluate(tile("LLM requests")) == str(before["requests"]["recognised"])
    assert await page.evaluate(row("condensed by a new step")) == str(before["steps"])
    with mitmweb.client() as client:
        for body in islice(Session(seed=5).requests(), 3):
            send(client, body)
    after = before["requests"]["recognised"] + 3
    await page.until(f"{tile('LLM requests')} === '{after}'", seconds=5)
    assert mitmweb.stats()["requests"]["recognised"] == after
    assert not page.complaints()
    assert {urlsplit(url).netloc for url in page.requests() if not url.startswith("data:")} == {
        urlsplit(mitmweb.address).netloc
    }


async def test_a_conversation_is_drawn_with_its_steps(page: devtools.Page) -> None:
    drawn = "document.querySelectorAll('.talk svg[role=img] .step').length"
    assert await page.until(drawn) >= 1
    label = await page.evaluate(
        "[...document.querySelectorAll('.talk svg')].map(one => one.getAttribute('aria-label'))"
    )
    assert any("1 step marked" in text for text in label)
    link = await page.evaluate("document.querySelector('.talk a').getAttribute('href')")
    assert link.startswith("./#/flows/")


async def test_what_models_and_clients_say_stays_text(page: devtools.Page) -> None:
    heads = "[...document.querySelectorAll('.talk h3')].map(one => one.textContent).join('\\n')"
    text = await page.until(heads)
    assert "m<img src=x onerror=alert(1)>" in text
    assert not {"\x1b", "\u202e", "\r"} & set(text)
    assert await page.evaluate("document.querySelectorAll('img').length") == 0
    assert not page.complaints()


async def test_the_token_does_not_stay_in_the_address(
    mitmweb: Mitmweb, page: devtools.Page
) -> None:
    assert await page.evaluate("location.href") == f"{mitmweb.address}/context"


@pytest.mark.parametrize("dark", [False, True])
async def test_it_fits_a_phone(page: devtools.Page, dark: bool) -> None:
    await page.resize(390, 844, dark=dark)
    assert await page.evaluate("document.documentElement.scrollWidth") == 390
    back = await page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (back == "rgb(255, 255, 255)") != dark


async def test_everything_can_be_reached_by_keyboard(page: devtools.Page) -> None:
    reached = set()
    for _ in range(12):
        await page.press("Tab")
        reached.add(await page.evaluate("document.activeElement.textContent.trim().slice(0, 20)"))
    assert {"To the figures", "mitmproxy", "newest request"} <= reached


@pytest.mark.parametrize("path", ROUTES)
@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer wrong"}], ids=["none", "wrong"])
def test_without_the_token_every_route_answers_403(
    mitmweb: Mitmweb, path: str, headers: dict[str, str]
) -> None:
    for host in (None, "evil.example"):
        sent = headers | ({"Host": host} if host else {})
        answer = httpx.get(mitmweb.address + path, headers=sent, verify=NO_TLS, trust_env=False)
        assert answer.status_code == 403
        assert "claude" not in answer.text
        assert not [name for name in answer.headers if name.startswith("access-control")]


@pytest.mark.parametrize("path", ["/", *ROUTES])
def test_nor_does_the_proxy_itself_open_a_way_in(mitmweb: Mitmweb, path: str) -> None:
    url, proxy = mitmweb.address + path, mitmweb.proxy.url
    answer = httpx.get(url, proxy=proxy, verify=NO_TLS, trust_env=False)
    assert answer.status_code == 403


async def test_the_websocket_opens_for_its_own_page_alone(mitmweb: Mitmweb) -> None:
    url = mitmweb.address.replace("http", "ws") + "/context/live"
    allowed = {"Authorization": f"Bearer {mitmweb.token}"}
    socket = await websocket_connect(HTTPRequest(url, headers=allowed))
    news = json.loads(await socket.read_message() or "")
    socket.close()
    assert news["whole"]
    for headers in ({}, allowed | {"Origin": "http://evil.example"}, allowed | {"Origin": "null"}):
        with pytest.raises(HTTPClientError, match="403"):
            await websocket_connect(HTTPRequest(url, headers=headers))


def test_a_page_of_another_site_gets_nothing(mitmweb: Mitmweb) -> None:
    headers = {"Authorization": f"Bearer {mitmweb.token}", "Sec-Fetch-Site": "cross-site"}
    for path in ROUTES[:-1]:
        url = mitmweb.address + path
        answer = httpx.get(url, headers=headers, verify=NO_TLS, trust_env=False)
        assert answer.status_code == 403
    for method in ("POST", "PUT", "DELETE", "PATCH"):
        url = mitmweb.address + "/context"
        answer = httpx.request(method, url, headers=headers, verify=NO_TLS, trust_env=False)
        assert answer.status_code in (403, 405)


def test_the_policy_lets_nothing_in(mitmweb: Mitmweb) -> None:
    answer = mitmweb.get("/context")
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'; script-src 'self'; style-src 'self';" in policy
    assert "unsafe" not in policy
    assert answer.headers["referrer-policy"] == "no-referrer"


def test_the_figures_are_there_as_json_too(mitmweb: Mitmweb) -> None:
    found = mitmweb.get("/context/figures.json").json()
    assert found["figures"]["requests"] == mitmweb.stats()["requests"]
    assert {band["name"] for band in found["bands"]} == {
        "cache_hit_ratio",
        "condensation_success_rate",
        "processing_time_ms",
        "error_rate",
    }


async def test_after_a_reload_the_page_is_the_new_codes_and_goes_on(tmp_path: Path) -> None:
    addon = tmp_path / "addon"
    shutil.copytree(child.ADDON.parent, addon, ignore=shutil.ignore_patterns("__pycache__"))
    with running(tmp_path / "mitmweb", addon=addon / "context.py") as mitmweb:
        async with devtools.browser(program(), tmp_path / "profile") as page:
            await page.open(f"{mitmweb.address}/context?token={mitmweb.token}")
            await page.until(LIVE)
            await asyncio.to_thread(talk, mitmweb, 3)
            await page.until(f"{tile('LLM requests')} === '3'", seconds=5)
            style = addon / "mitmcontext" / "proxy" / "mitmweb.py"
            style.write_text(style.read_text().replace('"no-referrer"', '"same-origin"'))
            # Two saves within a second would look like one to whoever polls once a second.
            await asyncio.sleep(1.1)
            (addon / "context.py").touch()
            await asyncio.to_thread(wait_for_new_code, mitmweb)
            await asyncio.to_thread(talk, mitmweb, 2)
            await page.until(f"{tile('LLM requests')} === '5'", seconds=10)
            assert await page.evaluate("document.querySelectorAll('.talk').length") == 1


def wait_for_new_code(mitmweb: Mitmweb) -> None:
    """Until the page comes with the header that the edited code sends."""
    deadline = time.monotonic() + 20
    while mitmweb.get("/context").headers.get("referrer-policy") != "same-origin":
        assert time.monotonic() < deadline, "the old page is still there"
        time.sleep(0.1)


def talk(mitmweb: Mitmweb, count: int) -> None:
    """A conversation's first requests."""
    with mitmweb.client() as client:
        for body in islice(Session(seed=9).requests(), count):
            send(client, body)


def test_no_secret_and_no_text_is_in_options_events_or_figures(tmp_path: Path) -> None:
    program()
    secret, said, tool = "sk-canary-77", "words of a person 4711", "tool canary 1312"
    with running(tmp_path / "mitmweb") as mitmweb, mitmweb.client() as client:
        tools = [{"name": "t", "description": tool, "input_schema": {"type": "object"}}]
        message = {"role": "user", "content": said * 20}
        body = {"model": "claude-sonnet-4-5", "max_tokens": 9, "messages": [message]}
        url = f"https://api.anthropic.com/v1/messages?key={secret}"
        for headers in ({"x-api-key": secret}, {"authorization": f"Bearer {secret}"}):
            client.post(url, json=body | {"tools": tools, "system": said}, headers=headers)
            client.post(url, content=f'{{"messages": "{said}', headers=headers)
        shown = [
            mitmweb.get(path).text
            for path in ("/options", "/events", "/context/figures.json", "/commands", "/context")
        ]
        shown += [client.get(f"http://context.mitm/{page}").text for page in PAGES]
        shown += [
            json.dumps(mitmweb.call(f"context.{name}")) for name in ("stats", "conversations")
        ]
        shown.append(mitmweb.proxy.said())
        assert mitmweb.stats()["requests"]["recognised"] == 4
    for secret_word in (secret, said, tool):
        assert not [text for text in shown if secret_word in text]


async def test_many_conversations_stay_few_on_the_page(tmp_path: Path) -> None:
    with running(tmp_path / "mitmweb") as mitmweb:
        async with devtools.browser(program(), tmp_path / "profile") as page:
            await page.open(f"{mitmweb.address}/context?token={mitmweb.token}")
            await page.until(LIVE)
            await asyncio.to_thread(chatter, mitmweb, 130)
            await page.until(f"{tile('LLM requests')} === '130'", seconds=20)
            assert await page.evaluate("document.querySelectorAll('.talk').length") == 12
            more = "document.querySelector('#conversations button')"
            assert await page.evaluate(f"{more}.textContent") == "Show all 100"
            await page.evaluate(f"{more}.click()")
            assert await page.evaluate("document.querySelectorAll('.talk').length") == 100
            assert await page.evaluate("document.querySelectorAll('*').length") < 6_000
            assert await asyncio.to_thread(mitmweb.call, "context.clear") == "cleared"
            await page.until("document.querySelectorAll('.talk').length === 0", seconds=5)
            assert await page.evaluate(tile("LLM requests")) == "0"


def chatter(mitmweb: Mitmweb, count: int) -> None:
    """So many conversations of one request each."""
    with mitmweb.client() as client:
        for number in range(count):
            message = {"role": "user", "content": f"number {number}"}
            send(client, {"model": "claude-sonnet-4-5", "max_tokens": 9, "messages": [message]})


async def test_questions_to_models_are_told(tmp_path: Path) -> None:
    """A provider that is asked for summaries itself, on the port that the client names."""
    options = [
        *("condensation_max_cost=1", "condensation_wait=warning"),
        *("condensation_caution_threshold=0.799", "condensation_default_strategy=auto"),
    ]
    with running(tmp_path / "mitmweb", *options) as mitmweb:
        mitmweb.provider.summariser = Summariser(fair)
        await asyncio.to_thread(play, mitmweb, port=mitmweb.provider.tls_port)
        async with devtools.browser(program(), tmp_path / "profile") as page:
            await page.watch()
            await page.open(f"{mitmweb.address}/context?token={mitmweb.token}")
            await page.until(LIVE)
            asked = mitmweb.stats()["questions"]
            assert asked["answered"] > 0
            assert await page.evaluate(row("answered")) == str(asked["answered"])
            cost = await page.evaluate(row("cost of the questions"))
            assert float(cost.removeprefix("$")) == pytest.approx(asked["price"], abs=1e-4)
            assert not page.complaints()
        (flow, *_) = [one["id"] for one in mitmweb.get("/flows").json() if one["marked"] == "✂"]
        explained = mitmweb.call("context.explain", f"@{flow}")
        assert "ms, and waited " in explained
