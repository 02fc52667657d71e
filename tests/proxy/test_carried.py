"""What outlives a reload, and what must not."""

from __future__ import annotations

import gc
from types import SimpleNamespace

from mitmproxy.test import tflow

from mitmcontext.proxy.carried import carried, drop_finished


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
