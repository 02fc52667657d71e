"""A team's figures, page and opt-outs, on mitmproxy's own flows and options."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from mitmproxy import options
from mitmproxy.http import HTTPFlow, Response
from mitmproxy.test import tflow, tutils
from mitmproxy.tools.dump import DumpMaster

from mitmcontext.proxy import page
from mitmcontext.proxy import team as team_module
from mitmcontext.proxy.figures import Figures
from mitmcontext.proxy.optouts import OptOuts
from mitmcontext.proxy.team import Team, objections, user_of
from mitmcontext.settings import Settings
from mitmcontext.stores.base import Figures as Figures_
from mitmcontext.stores.base import Store
from mitmcontext.stores.memory_store import Memory, cells
from mitmcontext.stores.sqlite import Sqlite
from mitmcontext.values import Action, Outcome

KEY = b"k" * 32
CONDENSED = Outcome(Action.CONDENSED, "", "anthropic", sent=900, forwarded=500, freed=400)


def memory() -> Memory:
    return Memory(cells(1 << 20))


def a_team(kept: dict[str, Any] | None = None, *stores: Store) -> tuple[Team, Figures]:
    kept = {} if kept is None else kept
    total = Figures(lambda: 0.0, kept)
    return Team(kept, total, stores, KEY, shared=len(stores) > 1), total


def flow_of(user: str, path: str = "/", method: str = "GET", **headers: str) -> HTTPFlow:
    pairs = tuple((name.encode(), value.encode()) for name, value in headers.items())
    request = tutils.treq(
        host="context.mitm", port=80, path=path.encode(), method=method.encode(), headers=pairs
    )
    flow: HTTPFlow = tflow.tflow(req=request)
    if user:
        flow.metadata["proxyauth"] = (user, "password")
    return flow


async def ask(team: Team, flow: HTTPFlow, settings: Settings | None = None) -> Response:
    await team.serve(flow, settings or Settings(), {"all": 1})
    assert flow.response is not None
    return flow.response


async def own(team: Team, user: str) -> dict[str, Any]:
    found: dict[str, Any] = (await ask(team, flow_of(user, "/stats.json"))).json()
    return found


def test_the_name_is_what_mitmproxy_verified() -> None:
    assert user_of(flow_of("alice")) == "alice"
    assert user_of(flow_of("")) == ""
    flow = flow_of("alice")
    flow.metadata["proxyauth"] = ["alice", "password"]  # as a saved flow has it
    assert user_of(flow) == "alice"


async def test_what_one_does_counts_for_them_and_in_the_total() -> None:
    team, total = a_team()
    figures = team.figures_of(flow_of("alice"))
    figures.saw()
    figures.record(CONDENSED)
    figures.recount(CONDENSED)
    figures.failed("why")
    figures.refused()
    figures.resumed_step()
    figures.broke_prefix()
    team.figures_of(flow_of("bob")).saw()
    team.figures_of(flow_of("")).saw()

    both = ("steps", "steps_resumed", "prefix_breaks_unexplained", "failures", "tokens")
    alice, all_of_them = await own(team, "alice"), total.snapshot()
    assert [alice[name] for name in both] == [all_of_them[name] for name in both]
    assert alice["requests"]["seen"] == 2
    assert all_of_them["requests"]["seen"] == 4
    assert (await own(team, "bob"))["requests"]["seen"] == 1


async def test_beyond_so_many_users_all_others_are_one_that_nobody_sees(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(team_module, "USERS", 3)
    team, total = a_team()
    for number in range(10):
        team.figures_of(flow_of(f"user-{number}")).record(CONDENSED)
    team.figures_of(flow_of("x" * 10_000)).record(CONDENSED)

    assert list(team.rows(Settings())) == ["user-0", "user-1", "user-2"]
    assert team.others()["condensed"] == 8
    assert total.snapshot()["steps"] == 11
    assert (await own(team, "user-7"))["steps"] == 0
    assert (await own(team, "user-1"))["steps"] == 1


def test_a_users_figures_stay_small() -> None:
    kept: dict[str, Any] = {}
    team, _ = a_team(kept)
    for _ in range(2_000):
        team.figures_of(flow_of("alice")).record(CONDENSED)
    assert len(kept["users"]["alice"]["steps_freed"]) == 50
    assert team.rows(Settings())["alice"]["condensed"] == 2_000


async def test_a_reload_keeps_figures_and_choices_and_clearing_keeps_choices() -> None:
    kept: dict[str, Any] = {}
    old, _ = a_team(kept)
    old.figures_of(flow_of("alice")).record(CONDENSED)
    await ask(old, flow_of("alice", "/opt-out", "POST", **{"x-mitmcontext": "1"}))
    new, _ = a_team(kept)
    assert (await own(new, "alice"))["steps"] == 1
    new.clear()
    assert (await own(new, "alice"))["steps"] == 0
    assert await new.is_out(flow_of("alice"), Settings())


async def test_names_are_no_html_and_no_control_characters_for_a_terminal() -> None:
    name = "<script>\x1b[2J</script>"
    team, _ = a_team()
    team.figures_of(flow_of(name)).saw()
    settings = Settings(context_operators=("boss",))
    for asking, path in ((name, "/"), ("boss", "/team")):
        text = (await ask(team, flow_of(asking, path), settings)).text or ""
        assert "<script>" not in text
        assert "&lt;script&gt;" in text
    assert "\x1b" not in "".join(team.summary(settings))


async def test_nobody_without_a_name_is_served() -> None:
    team, _ = a_team()
    for path in ("/", "/stats.json", "/team.json"):
        assert (await ask(team, flow_of("", path))).status_code == 403


@pytest.mark.parametrize(
    ("path", "method", "status"),
    [
        ("/else", "GET", 404),
        ("/", "POST", 405),
        ("/stats.json", "DELETE", 405),
        ("/opt-out", "GET", 405),
        ("/opt-out", "POST", 403),
        ("/team", "GET", 403),
        ("/team.json", "HEAD", 403),
    ],
)
async def test_there_is_nothing_else(path: str, method: str, status: int) -> None:
    team, _ = a_team()
    assert (await ask(team, flow_of("alice", path, method))).status_code == status


async def test_a_fault_shows_nobodys_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    team, _ = a_team()
    monkeypatch.setattr(page, "as_html", lambda *_: 1 / 0)
    response = await ask(team, flow_of("alice"))
    assert (response.status_code, response.text) == (500, "the page failed\n")


async def test_an_answer_says_where_a_choice_could_not_be_written() -> None:
    headers = {"x-mitmcontext": "1"}
    nowhere, _ = a_team({})
    said = (await ask(nowhere, flow_of("alice", "/opt-out", "POST", **headers))).text
    assert "until it restarts" in (said or "")
    somewhere, _ = a_team({}, memory())
    said = (await ask(somewhere, flow_of("alice", "/opt-out", "POST", **headers))).text
    assert said == "opted out: your requests go out as they came\n"


def opt_outs(*stores: Store, shared: bool = False, now: float = 1_000.0) -> OptOuts:
    return OptOuts({}, stores, KEY, shared=shared, clock=lambda: now)


async def test_a_choice_outlives_the_process(tmp_path: Path) -> None:
    file = tmp_path / "choices.db"
    assert await opt_outs(Sqlite(file, 1 << 20)).choose("alice", out=True)
    later = opt_outs(Sqlite(file, 1 << 20))
    assert await later.has("alice")
    assert not await later.has("bob")
    assert await later.choose("alice", out=False)
    assert not await opt_outs(Sqlite(file, 1 << 20)).has("alice")


async def test_the_newest_choice_holds_whatever_another_proxys_clock_says() -> None:
    redis = memory()
    ahead, behind = (opt_outs(memory(), redis, shared=True, now=now) for now in (5_000.0, 10.0))
    await ahead.choose("alice", out=False)
    await behind.choose("alice", out=True)
    assert await behind.has("alice")
    assert await opt_outs(memory(), redis, shared=True).has("alice")


async def test_a_store_that_was_away_learns_a_choice_later() -> None:
    own_file, redis = memory(), memory()
    proxy = opt_outs(own_file, redis, shared=True)
    await proxy.choose("alice", out=True)
    redis.clear()
    proxy._looked.clear()  # some seconds later
    assert await proxy.has("alice")
    assert await opt_outs(memory(), redis, shared=True).has("alice")


async def test_what_lies_in_a_store_names_nobody(tmp_path: Path) -> None:
    await opt_outs(Sqlite(tmp_path / "choices.db", 1 << 20)).choose("alice", out=True)
    written = b"".join(file.read_bytes() for file in tmp_path.glob("*"))  # noqa: ASYNC240
    assert written
    assert b"alice" not in written


async def why_not(*, keeps_flows: bool = False, **given: Any) -> list[str]:
    """The objections to options of a real mitmdump."""
    master = DumpMaster(options.Options())
    try:
        master.options.update(**{"flow_detail": 0, **given})
        return list(objections(master.options, keeps_flows=keeps_flows))
    finally:
        await master.done()
        master.addons.get("errorcheck").finish()


async def test_what_will_do_for_a_team(tmp_path: Path) -> None:
    people = tmp_path / "team.htpasswd"
    people.write_text("alice:{SHA}x\n")
    assert await why_not(proxyauth=f"@{people}") == []
    assert await why_not(proxyauth="a:b", mode=["regular@8080", "socks5@1080"]) == []
    assert await why_not(proxyauth="a:b", mode=["upstream:http://proxy:3128"]) == []


@pytest.mark.parametrize(
    "given",
    [
        {"proxyauth": None},
        {"proxyauth": ""},
        {"proxyauth": "any"},
        {"mode": ["regular", "transparent@8081"]},
        {"mode": ["dns"]},
        {"mode": ["reverse:https://api.anthropic.com"]},
        {"keeps_flows": True},
        {"save_stream_file": "x"},
        {"hardump": "x"},
        {"stickyauth": "~a"},
        {"stickycookie": "~a"},
        {"flow_detail": 1},
        {"termlog_verbosity": "debug"},
    ],
    ids=str,
)
async def test_what_will_not_is_said_in_one_sentence(
    given: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    [sentence] = await why_not(**{"proxyauth": "a:b", **given})
    assert "\n" not in sentence


def test_the_rows_are_plain_values() -> None:
    team, _ = a_team()
    team.figures_of(flow_of("alice")).record(CONDENSED)
    assert json.loads(json.dumps(team.rows(Settings())))["alice"]["saved"] == 400


async def test_while_nobody_knows_a_user_is_left_alone() -> None:
    """Somebody who opted out before a restart, whose store cannot be read after it."""
    store = memory()
    broken = memory()
    broken.get_many = lambda keys: {}  # type: ignore[method-assign]
    broken.figures = lambda: Figures_(0, 0, 0, 0, "set aside: locked")  # type: ignore[method-assign]
    assert not await opt_outs(store).has("alice")
    choices = opt_outs(broken)
    assert await choices.has("alice")
    assert choices.has_at_hand("alice")
    broken.figures = store.figures  # type: ignore[method-assign]
    assert not await choices.has("alice")
