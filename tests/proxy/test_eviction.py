"""The flow list: bounded, oldest first, marked ones last, nothing alive is touched."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mitmproxy import http
from mitmproxy.addons.view import View
from mitmproxy.test import taddons, tflow

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
