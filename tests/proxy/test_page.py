"""The figures' page: counts for anyone who may use the proxy, and nothing else."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from typing import Any

import pytest
from mitmproxy.addons.asgiapp import ASGIApp
from mitmproxy.http import HTTPFlow, Response
from mitmproxy.test import taddons, tflow, tutils

from mitmcontext.proxy.figures import Figures
from mitmcontext.proxy.page import as_html, page
from mitmcontext.values import Action, Money, Outcome


def busy() -> Figures:
    figures = Figures(lambda: 0.0)
    figures.record(Outcome(Action.CONDENSED, "", "anthropic", sent=12_345, freed=7, forwarded=1))
    figures.record(Outcome(Action.LEFT_ALONE, "<b>no & JSON</b>"))
    return figures


async def ask(path: str, method: str = "GET") -> Response:
    """Through mitmproxy's own ASGI host, as in the real proxy."""
    app = ASGIApp(page(busy().snapshot), "context.mitm", 80)
    with taddons.context():
        flow: HTTPFlow = tflow.tflow(
            req=tutils.treq(
                method=method.encode(), host="context.mitm", port=80, path=path.encode()
            )
        )
        await app.request(flow)
        assert flow.response is not None
        return flow.response


async def test_stats_as_json() -> None:
    response = await ask("/stats.json")
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/json"
    assert response.headers["cache-control"] == "no-store"
    stats = json.loads(response.text or "")
    assert stats["requests"]["condensed"] == 1
    assert stats["tokens"]["saved"] == 12_344
    assert (await ask("/stats.json?x=1")).status_code == 200


class Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.texts: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


async def test_stats_as_a_page() -> None:
    response = await ask("/")
    assert response.headers["content-type"] == "text/html; charset=utf-8"
    assert "default-src 'none'" in response.headers["content-security-policy"]
    reader = Reader()
    reader.feed(response.text or "")
    assert "script" not in reader.tags
    assert not [name for name, _ in reader.attributes if name.startswith("on")]
    assert "12,345" in reader.texts
    assert "<b>no & JSON</b>" in reader.texts
    assert "b" not in reader.tags


def test_money_is_told_in_dollars_and_losses_with_their_sign() -> None:
    figures = busy()
    figures.billed(Money(True, 1.25, -0.0625, 1.25, -0.0625), observed=False)
    shown = as_html(figures.snapshot())
    assert "<td>cost</td><td>$1.2500</td>" in shown
    assert "<td>saved</td><td>-$0.0625</td>" in shown
    assert "<td>requests with a known price</td><td>1</td>" in shown


def test_a_page_of_nothing() -> None:
    assert "<h2>" in as_html({})
    assert "100.0 %" in as_html({"cache_hit_ratio": 1, "news": 7})


async def test_head_has_no_body() -> None:
    response = await ask("/stats.json", "HEAD")
    assert (response.status_code, response.content) == (200, b"")


@pytest.mark.parametrize("path", ["/stats", "/stats.json/", "//", "/../stats.json", "/%2e", "/x?/"])
async def test_there_is_nothing_else(path: str) -> None:
    assert (await ask(path)).status_code == 404


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH"])
async def test_and_nothing_to_change(method: str) -> None:
    response = await ask("/stats.json", method)
    assert response.status_code == 405
    assert response.headers["allow"] == "GET, HEAD"


async def test_no_other_site_may_read_it() -> None:
    for path in ("/", "/stats.json", "/else"):
        headers: Any = (await ask(path)).headers
        assert not [name for name in headers if name.lower().startswith("access-control")]
