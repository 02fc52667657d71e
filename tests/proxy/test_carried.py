"""What outlives a reload, and what must not."""

from __future__ import annotations

import gc
from types import SimpleNamespace

import pytest
from mitmproxy.test import tflow

from mitmcontext.proxy.carried import carried, drop_finished, ledger
from mitmcontext.stores.memory_store import Memory


def test_requests_that_ended_while_no_addon_was_there_hold_nothing() -> None:
    kept = carried(SimpleNamespace())
    running, ended, gone = tflow.tflow(live=True), tflow.tflow(live=False), tflow.tflow(live=True)
    for flow in (running, ended, gone):
        kept["flows"][flow.id] = flow
        kept["pending"][flow.id] = kept["tees"][flow.id] = object()
    del flow, gone
    gc.collect()

    drop_finished(kept)

    assert list(kept["pending"]) == list(kept["tees"]) == [running.id]


@pytest.mark.parametrize("before", [False, True])
def test_frozen_edits_stay_where_a_disk_is_found_or_lost_at_a_reload(before: bool) -> None:
    kept = carried(SimpleNamespace())
    Memory(ledger(kept, only=before)).set(b"gone", b"edits", 1e-9)
    Memory(ledger(kept, only=before)).set(b"link", b"edits", 60.0)

    after = Memory(ledger(kept, only=not before))

    assert after.get_many([b"gone", b"link"]) == {b"link": b"edits"}


def test_what_an_older_version_did_not_carry_is_made() -> None:
    master = SimpleNamespace()
    older = carried(master)
    older["figures"]["requests"] = 7
    del older["pools"]  # type: ignore[misc]

    kept = carried(master)

    assert kept is older
    assert (kept["figures"], kept["pools"]) == ({"requests": 7}, {})
