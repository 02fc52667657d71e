"""The flow list: bounded, oldest first, marked ones last, nothing alive is touched."""

from __future__ import annotations

import secrets
import ssl
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mitmproxy import http
from mitmproxy.addons.view import View
from mitmproxy.test import taddons, tflow

from demo.session import Session, encode
from loopback import certificates, child
from loopback.devtools import free_port
from loopback.provider import HOSTS, Provider, serving, with_windows
from mitmcontext.proxy.eviction import Eviction


@pytest.fixture
def view() -> Iterator[View]:
    with taddons.context() as context:
        context.master.view = View()
        yield context.master.view


def arrive(view: View, marked: str = "") -> http.HTTPFlow:
    """A flow as it is in the last hook."""
    flow = tflow.tflow(resp=True)
    flow.timestamp_created = view.store_count()
    flow.marked = marked
    flow.live = True
    view.add([flow])
    return flow


def finish(eviction: Eviction, flow: http.HTTPFlow, keep: int) -> int:
    """That hook, and what mitmproxy does after it."""
    dropped = eviction.finished(flow, keep)
    flow.live = False
    return dropped


def kept(view: View) -> set[str]:
    return {flow.id for flow in view.resolve("@all")}


def test_the_oldest_go(view: View) -> None:
    eviction, flows = Eviction(), []
    for _ in range(25):
        flows.append(arrive(view))
        finish(eviction, flows[-1], keep=10)
    assert kept(view) == {flow.id for flow in flows[-10:]}


def test_whoever_keeps_something_of_a_flow_is_told_that_it_goes(view: View) -> None:
    gone: list[str] = []
    eviction = Eviction(None, gone.append)
    flows = [arrive(view) for _ in range(5)]
    for flow in flows:
        finish(eviction, flow, keep=2)
    assert gone == [flow.id for flow in flows[:3]]


def test_what_was_left_alone_is_marked_but_goes_with_the_others(view: View) -> None:
    eviction = Eviction()
    flows = [arrive(view, mark) for mark in (":fast_forward:", "", ":scissors:")]
    for flow in flows:
        finish(eviction, flow, keep=7)
    last = arrive(view)
    assert finish(eviction, last, keep=2) == 2
    assert kept(view) == {flows[2].id, last.id}


def test_marked_ones_go_last_but_go(view: View) -> None:
    eviction = Eviction()
    ours = [arrive(view, ":scissors:") for _ in range(3)]
    plain = [arrive(view) for _ in range(3)]
    theirs = arrive(view, ":red_circle:")
    for flow in (*ours, *plain, theirs):
        finish(eviction, flow, keep=7)
    last = arrive(view, ":scissors:")
    assert finish(eviction, last, keep=3) == 5
    assert kept(view) == {ours[2].id, theirs.id, last.id}


def test_a_flow_that_is_alive_is_not_killed(view: View) -> None:
    eviction = Eviction()
    waiting = arrive(view)
    eviction.finished(waiting, keep=2)
    flows = [waiting, *(arrive(view) for _ in range(4))]
    for flow in flows[1:]:
        finish(eviction, flow, keep=2)
    assert waiting.live
    assert waiting.error is None
    assert kept(view) == {waiting.id, flows[-1].id}
    waiting.live = False
    finish(eviction, arrive(view), keep=2)
    assert waiting.id not in kept(view)


def test_unfinished_flows_are_none_of_ours(view: View) -> None:
    unfinished = arrive(view)
    eviction = Eviction()
    for _ in range(5):
        finish(eviction, arrive(view), keep=2)
    assert unfinished.id in kept(view)
    assert len(kept(view)) == 3


def test_what_users_delete_does_not_count(view: View) -> None:
    eviction = Eviction()
    flows = [arrive(view) for _ in range(4)]
    for flow in flows:
        finish(eviction, flow, keep=4)
    view.remove([flows[2], flows[3]])
    for _ in range(2):
        assert finish(eviction, arrive(view), keep=4) == 0
    view.clear()
    assert finish(eviction, arrive(view), keep=4) == 0
    assert len(kept(view)) == 1


def test_a_flow_may_finish_more_than_once(view: View) -> None:
    eviction, flow = Eviction(), arrive(view)
    for _ in range(5):
        assert finish(eviction, flow, keep=1) == 0
    assert kept(view) == {flow.id}


def test_zero_keeps_all(view: View) -> None:
    eviction = Eviction()
    for _ in range(5):
        finish(eviction, arrive(view), keep=0)
    assert len(kept(view)) == 5
    assert finish(eviction, arrive(view), keep=2) == 4


def test_hidden_flows_go_too(view: View) -> None:
    view.set_filter_cmd("~u nothing-like-it")
    eviction = Eviction()
    for _ in range(5):
        finish(eviction, arrive(view), keep=2)
    assert len(kept(view)) == 2


def test_a_reload_forgets_none(view: View) -> None:
    ids: dict[str, None] = {}
    for _ in range(3):
        eviction = Eviction(ids)
        for _ in range(2):
            finish(eviction, arrive(view), keep=4)
    assert len(kept(view)) == 4


def test_what_the_user_opened_from_a_file_stays(view: View) -> None:
    eviction, opened = Eviction(), [arrive(view) for _ in range(5)]
    for flow in opened:
        flow.live = False
        eviction.finished(flow, keep=2)
    for _ in range(5):
        finish(eviction, arrive(view), keep=2)
    assert {flow.id for flow in opened} < kept(view)
    assert len(kept(view)) == 7


def test_killed_flows_go_too(view: View) -> None:
    eviction = Eviction()
    for _ in range(5):
        flow = arrive(view)
        flow.kill()
        eviction.finished(flow, keep=2)
    assert len(kept(view)) == 2


def test_without_a_flow_list_there_is_nothing_to_do() -> None:
    with taddons.context():
        eviction = Eviction()
        for _ in range(5):
            assert finish(eviction, tflow.tflow(), keep=1) == 0
        assert not eviction._finished


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 6)), max_size=30))
def test_never_more_than_were_to_be_kept(arrivals: list[tuple[bool, int]]) -> None:
    with taddons.context() as context:
        view = View()
        context.master.view = view
        eviction = Eviction()
        for marked, keep in arrivals:
            flow = arrive(view, ":scissors:" if marked else "")
            unmarked_before = [f for f in view.resolve("@unmarked") if f is not flow]
            marked_before = kept(view) - {f.id for f in view.resolve("@unmarked")} - {flow.id}
            finish(eviction, flow, keep)
            assert len(kept(view)) <= keep
            if marked_before - kept(view):
                assert not any(f.id in kept(view) for f in unmarked_before)


def test_a_real_mitmweb_keeps_no_more_than_it_was_told(tmp_path: Path) -> None:
    token, port = secrets.token_urlsafe(16), free_port()
    leaf = certificates.make(tmp_path / "provider", HOSTS)
    with serving(Provider(with_windows({"*": 24_000})), leaf) as provider:
        proxy = child.start(
            dict.fromkeys(HOSTS, provider.tls_port),
            tmp_path / "confdir",
            provider_authority=leaf.authority,
            tool="mitmweb",
            options=["context_windows=claude-*=24000", "context_keep_flows=20"],
            environment={"CONTEXT_CACHE_DIR": str(tmp_path / "cache")},
            settings={"web_password": token, "web_port": port, "web_open_browser": False},
        )
        try:
            trust = ssl.create_default_context(cafile=str(proxy.authority))
            with httpx.Client(proxy=proxy.url, verify=trust, trust_env=False, timeout=60) as client:
                headers = {"x-api-key": "k", "content-type": "application/json"}
                for body in Session().requests():
                    url = f"https://{HOSTS[0]}/v1/messages"
                    client.post(url, content=encode(body), headers=headers)
            flows = httpx.get(
                f"http://127.0.0.1:{port}/flows", params={"token": token}, trust_env=False
            ).json()
        finally:
            proxy.stop()
    assert len(provider.records) > 60
    assert len(flows) == 20
    # Of a session most is condensed, and so marked: the unmarked beginning went first.
    assert all(flow["marked"] for flow in flows)
    assert all(flow["response"]["contentLength"] for flow in flows)
