"""What is passed on unread under load: what is certain to fit, and of which nothing is frozen."""

from __future__ import annotations

import asyncio
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from mitmproxy import http
from mitmproxy.test import taddons, tflow
from msgspec.structs import replace

from mitmcontext.condense.entries import Entry
from mitmcontext.condense.ledger import Ledger, chain
from mitmcontext.proxy.aftermath import Aftermath
from mitmcontext.proxy.carried import carried
from mitmcontext.proxy.estimates import Estimates
from mitmcontext.proxy.job import Job, Result
from mitmcontext.proxy.load import Load
from mitmcontext.proxy.marks import Marks
from mitmcontext.proxy.reports import Reports
from mitmcontext.proxy.shelves import Shelves
from mitmcontext.proxy.state import State
from mitmcontext.proxy.unread import Unread
from mitmcontext.proxy.work import Worker
from mitmcontext.settings import Settings, load
from mitmcontext.stores.memory_store import Memory, cells
from mitmcontext.stores.sqlite import Sqlite
from mitmcontext.stores.tiers import Tiers
from mitmcontext.values import Action
from mitmcontext.wire.anthropic import MESSAGES
from mitmcontext.wire.api import Api
from mitmcontext.wire.gemini import GENERATE

PATH = "/v1/messages"
MODEL = "claude-sonnet-4-5"
SMALL = [{"role": "user", "content": "Sort this shelf, please. " * 400}]


class Proxy:
    """What `Unread` works with: a ledger, a far shelf, and windows that were learned."""

    def __init__(self, far: Tiers | None = None) -> None:
        self.windows: dict[str, int] = {}
        self.ledger = Ledger(Memory(cells(1 << 20)), far)
        reports = Reports(None, False, lambda name: name, 1.0)
        self.pool = ThreadPoolExecutor(1)
        self.unread = Unread(self.pool, self.ledger, Estimates(reports, self.windows))

    def passes(self, body: object, api: Api = MESSAGES, path: str = PATH, **options: Any) -> bool:
        """Whether a body may go unread, once the ledger was looked at."""
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        request = http.Request.make("POST", f"https://a.example{path}", raw)
        settings = with_options(**options)
        self.unread.is_safe(api, path, request, settings)
        self.pool.submit(int).result()
        return self.unread.is_safe(api, path, request, settings)


def with_options(**options: Any) -> Settings:
    return load(options, {})


def body(messages: object = SMALL, **others: Any) -> dict[str, Any]:
    return {"model": MODEL, "max_tokens": 64_000, "messages": messages} | others


def test_what_is_small_passes() -> None:
    assert Proxy().passes(body())


@pytest.mark.parametrize(
    ("sent", "options"),
    [
        (body(), {"context_windows": ["claude-*=9000"]}),
        (body(), {"context_budget": "9000"}),
        (body(), {"reduce_at_birth": "true"}),
        (body(SMALL * 30), {}),
        (body([{"role": "user", "content": [{"type": "image", "source": {}}]}]), {}),
        (body(options={"num_ctx": 2_000}), {}),
        (b"{", {}),
    ],
)
def test_on_any_doubt_it_is_read(sent: object, options: dict[str, Any]) -> None:
    assert not Proxy().passes(sent, **options)


def test_a_window_that_a_refusal_told_counts() -> None:
    proxy = Proxy()
    proxy.windows["somebody's"] = 9_000
    assert not proxy.passes(body())


def test_where_the_provider_found_one_too_long_the_next_ones_are_read() -> None:
    proxy, sent = Proxy(), json.dumps(body()).encode()
    proxy.unread.was_too_long(
        MESSAGES, PATH, http.Request.make("POST", f"https://a.example{PATH}", sent)
    )
    assert not proxy.passes(body())
    assert proxy.passes(body(model="claude-opus-4-1"))


def test_the_model_may_stand_in_the_path() -> None:
    path = "/v1beta/models/gemini-2.5-pro:generateContent"
    sent = {"contents": [{"role": "user", "parts": [{"text": "Sort this shelf. " * 400}]}]}
    assert Proxy().passes(sent, GENERATE, path)
    windows = {"context_windows": ["gemini-2.5-*=4000"]}
    assert not Proxy().passes(sent, GENERATE, path, **windows)
    # There the path decides, whatever the body says.
    another = sent | {"model": "models/gemini-2.0-flash"}
    assert Proxy().passes(another, GENERATE, path)
    assert not Proxy().passes(another, GENERATE, path, **windows)


def test_nothing_passes_for_which_something_may_be_frozen() -> None:
    far = Tiers([Memory(cells(1 << 20))])
    here, there = Proxy(far), Proxy(far)
    assert here.passes(body())
    size = len(json.dumps(SMALL).encode())
    there.ledger.freeze(
        chain(b"\0" * 32, [b"d" * 32] * 5), Entry((), 1, 2, 1, ""), None, 100 * size
    )
    assert Proxy(far).passes(body()), "all that is frozen is longer"
    there.ledger.freeze(chain(b"\1" * 32, [b"d" * 32] * 5), Entry((), 1, 2, 1, ""), None, size)
    assert not there.passes(body())
    assert not Proxy(far).passes(body()), "after a start"
    here.ledger.look_for_smaller()
    assert not here.passes(body()), "another proxy"


def test_where_the_ledger_does_not_answer_everything_is_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    proxy = Proxy()

    def fails() -> None:
        raise MemoryError

    monkeypatch.setattr(proxy.ledger, "look_for_smaller", fails)
    assert not proxy.passes(body())


def test_where_the_disk_does_not_answer_everything_is_read(tmp_path: Path) -> None:
    disk = Sqlite(tmp_path / "ledger.db", 1 << 20)
    proxy = Proxy(Tiers([disk]))
    assert proxy.passes(body())

    away = Proxy(Tiers([Sqlite(tmp_path, 1 << 20)]))
    assert not away.passes(body())


class Concluded:
    """A request that fits by size alone, once it was forwarded."""

    def __init__(self) -> None:
        self.state = State()
        self.state.take_over(carried(SimpleNamespace()))
        self.state.worker = Worker(
            carried(SimpleNamespace()), Shelves(b"t" * 32, None, False, ""), Settings()
        )
        self.aftermath = Aftermath(self.state, Marks(self.state))
        self.flow = tflow.tflow()

    async def conclude(self) -> Result:
        """Conclude it; what it came to."""
        long = [{"role": "user", "content": f"shelf {number} " * 400} for number in range(6)]
        raw = json.dumps(body(long)).encode()
        worker = self.state.at_work()
        job = Job(MESSAGES, PATH, b"t" * 32, b"p" * 32, {}, raw)
        result = await worker.decide(await worker.look(job, self.state.settings))
        assert not result.counted
        self.aftermath.conclude(self.flow, result)
        return result

    async def settled(self) -> dict[str, int]:
        """The tokens, once all was done that was to be done later."""
        await asyncio.gather(*(asyncio.all_tasks() - {asyncio.current_task()}))
        tokens: dict[str, int] = self.state.figures.snapshot()["tokens"]
        return tokens


@pytest.mark.parametrize("is_heavy", [False, True])
async def test_under_load_what_fits_by_size_alone_is_not_counted(
    is_heavy: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Load, "is_heavy", is_heavy)
    with taddons.context():
        concluded = Concluded()
        await concluded.conclude()
        sent = (await concluded.settled())["sent"]
    assert sent == 0 if is_heavy else sent > 1_000


@pytest.mark.parametrize("is_heavy", [False, True])
async def test_a_step_for_what_was_not_counted_counts_it_once(
    is_heavy: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The provider refused it as too long: what is forwarded in all is never below nothing."""
    monkeypatch.setattr(Load, "is_heavy", is_heavy)
    with taddons.context():
        concluded = Concluded()
        result = await concluded.conclude()
        counted = concluded.aftermath.is_counted(concluded.flow, result)
        before = await concluded.settled()
        whole = (await concluded.state.at_work().count_later(result)).outcome
        step = replace(whole, freed=600, forwarded=whole.sent - 600, action=Action.CONDENSED)
        concluded.aftermath.stepped(concluded.flow, step, counted=counted)
        after = await concluded.settled()
    assert before["sent"] == (0 if is_heavy else whole.sent)
    assert (after["sent"], after["forwarded"]) == (whole.sent, whole.sent - 600)
