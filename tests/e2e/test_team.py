"""One proxy for many people: real logins over real TLS, and nobody sees what another one does."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import dataclasses
import itertools
import json
import secrets
import ssl
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import bcrypt
import httpx
import pytest
from tests.e2e.fixture_types import StartProxy
from tests.e2e.test_untouched import body_of, history

from demo.session import Session, encode
from loopback.child import REPOSITORY, Child, NotStarted
from loopback.http1 import Wire
from loopback.provider import HOSTS, Provider, with_windows

WINDOW = "context_windows=*=8000"
URL = f"https://{HOSTS[0]}/v1/messages?beta=true"
PASSWORDS = {"alice": "a wonder", "bob": "built", "boss": "in charge"}
KEY = "sk-ant-a-planted-canary-2718281828"
HEADERS = {"x-api-key": KEY, "content-type": "application/json"}
CHANGE = {"X-Mitmcontext": "1"}


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file as `htpasswd -B` makes it."""
    file = tmp_path_factory.mktemp("people") / "team.htpasswd"
    lines = [
        f"{name}:{bcrypt.hashpw(password.encode(), bcrypt.gensalt(4)).decode()}\n"
        for name, password in PASSWORDS.items()
    ]
    file.write_text("".join(lines))
    return file


@pytest.fixture
def start_team(start_proxy: StartProxy, people: Path, provider: Provider) -> StartProxy:
    """A function that starts a proxy for a team."""
    # What goes out whole must not be refused for that.
    provider.models = with_windows({"*": 1_000_000})

    def start(*options: str, **named: Any) -> Child:
        ours = ("context_team=true", "flow_detail=0", f"proxyauth=@{people}")
        windows = () if any(o.startswith("context_windows") for o in options) else (WINDOW,)
        return start_proxy(*ours, *windows, *options, **named)

    return start


def client(proxy: Child, user: str = "", password: str | None = None) -> httpx.Client:
    """An HTTP client that goes through the proxy as this user."""
    auth = (user, PASSWORDS[user] if password is None else password) if user else None
    trust = ssl.create_default_context(cafile=str(proxy.authority))
    return httpx.Client(proxy=httpx.Proxy(proxy.url, auth=auth), verify=trust, trust_env=False)


def page(proxy: Child, user: str, path: str = "/stats.json") -> Any:
    with client(proxy, user) as one:
        answer = one.get(f"http://context.mitm{path}")
    assert answer.status_code == 200, answer.text
    return answer.json() if path.endswith(".json") else answer.text


def choose(proxy: Child, user: str, path: str) -> str:
    with client(proxy, user) as one:
        answer = one.post(f"http://context.mitm{path}", headers=CHANGE)
    assert answer.status_code == 200, answer.text
    return answer.text


def send(proxy: Child, user: str, body: bytes) -> None:
    with client(proxy, user) as one:
        one.post(URL, headers=HEADERS, content=body, timeout=60).raise_for_status()


def last(provider: Provider) -> Wire:
    return provider.records[-1].wire


def test_each_sees_only_their_own_figures(start_team: StartProxy, provider: Provider) -> None:
    proxy = start_team("context_operators=boss")
    full = body_of(history())
    send(proxy, "alice", full)
    send(proxy, "alice", full)
    send(proxy, "bob", body_of(history(1, 3)))

    alice, bob = page(proxy, "alice"), page(proxy, "bob")
    assert (alice["user"], bob["user"]) == ("alice", "bob")
    assert alice["requests"]["recognised"] == 2
    assert alice["requests"]["condensed"] == alice["steps"] == len(alice["steps_freed"]) == 1
    assert bob["requests"]["recognised"] == bob["requests"]["under_threshold"] == 1
    assert bob["steps"] == 0
    assert "stores" not in alice
    assert "bob" not in json.dumps(alice)
    assert "<b>alice</b>" in page(proxy, "alice", "/")
    assert "bob" not in page(proxy, "alice", "/")

    everybody = page(proxy, "boss", "/team.json")
    assert list(everybody["users"]) == ["alice", "bob"]
    assert everybody["users"]["alice"]["recognised"] == 2
    assert everybody["totals"]["requests"]["recognised"] == 3
    assert "<td>alice</td>" in page(proxy, "boss", "/team")
    for path in ("/team", "/team.json"):
        with client(proxy, "alice") as one:
            answer = one.get(f"http://context.mitm{path}")
        assert answer.status_code == 403
        assert "bob" not in answer.text

    proxy.stop()
    said = proxy.said()
    assert '"alice": 2 requests, 2 of an LLM, 1 condensed' in said
    assert '"bob": 1 requests, 1 of an LLM, 0 condensed' in said


def test_two_people_on_one_keep_alive_connection_are_told_apart(start_team: StartProxy) -> None:
    """As behind something that shares its connections: each request brings its own login."""
    proxy = start_team()
    with client(proxy) as shared:
        for user in ("alice", "bob"):
            login = base64.b64encode(f"{user}:{PASSWORDS[user]}".encode()).decode()
            answer = shared.get(
                "http://context.mitm/stats.json", headers={"Proxy-Authorization": f"Basic {login}"}
            )
            assert answer.json()["user"] == user
        assert shared.get("http://context.mitm/stats.json").status_code == 407


def test_who_has_not_logged_in_gets_nothing(start_team: StartProxy, provider: Provider) -> None:
    proxy = start_team("context_max_body=100KB")
    for user, password in (("", None), ("alice", "wrong"), ("nobody", "x"), ("alice", "")):
        with client(proxy, user, password) as stranger:
            for path in ("/", "/stats.json", "/team.json"):
                assert stranger.get(f"http://context.mitm{path}").status_code == 407
            answer = stranger.post("http://context.mitm/opt-out", headers=CHANGE)
            assert answer.status_code == 407
            # Larger than what is looked at, and so one that would be streamed.
            big = stranger.post(f"http://{HOSTS[0]}/v1/messages", content=b"x" * 200_000)
            assert big.status_code == 407
            with pytest.raises(httpx.ProxyError):
                stranger.post(URL, headers=HEADERS, content=b"{}")
    assert not provider.records
    assert "Traceback" not in proxy.said()
    assert page(proxy, "alice")["requests"]["seen"] == 0


def test_who_opted_out_is_forwarded_byte_for_byte(
    start_team: StartProxy, start_proxy: StartProxy, provider: Provider, tmp_path: Path
) -> None:
    kept = {"CONTEXT_CACHE_DIR": str(tmp_path / "kept")}
    bare = start_proxy(addon=None)
    full = body_of(history())
    with client(bare) as one:
        one.post(URL, headers=HEADERS, content=full, timeout=60).raise_for_status()
    as_it_came = last(provider)

    proxy = start_team(environment=kept)
    send(proxy, "alice", full)
    assert len(last(provider).body) < len(full)
    assert choose(proxy, "alice", "/opt-out").startswith("opted out")
    send(proxy, "alice", full)
    assert last(provider).head == as_it_came.head
    assert last(provider).raw_body == as_it_came.raw_body == full
    send(proxy, "bob", full)
    assert len(last(provider).body) < len(full)
    stats = page(proxy, "alice")
    assert stats["opted_out"] is True
    assert stats["requests"]["seen"] == 2
    assert stats["requests"]["recognised"] == 1
    proxy.stop()

    again = start_team(environment=kept)
    send(again, "alice", full)
    assert last(provider).raw_body == full
    send(again, "bob", full)
    assert len(last(provider).body) < len(full)
    assert choose(again, "alice", "/opt-in") == "opted in\n"
    send(again, "alice", full)
    assert len(last(provider).body) < len(full)
    for file in (tmp_path / "kept").iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert b"alice" not in file.read_bytes()


def test_the_operator_can_opt_people_out(start_team: StartProxy, provider: Provider) -> None:
    proxy = start_team("context_opt_out=bob")
    full = body_of(history())
    send(proxy, "bob", full)
    assert last(provider).raw_body == full
    assert page(proxy, "bob")["opted_out"] is True
    with client(proxy, "bob") as one:
        assert one.post("http://context.mitm/opt-in", headers=CHANGE).status_code == 409
    send(proxy, "alice", full)
    assert len(last(provider).body) < len(full)


def test_no_other_site_can_opt_anybody_out(start_team: StartProxy) -> None:
    proxy = start_team()
    url = "http://context.mitm/opt-out"
    with client(proxy, "alice") as one:
        assert one.get(url, headers=CHANGE).status_code == 405
        assert one.post(url).status_code == 403
        for origin in ("null", "http://evil.test", "https://context.mitm", "http://context.mitm.x"):
            assert one.post(url, headers={"Origin": origin}).status_code == 403
        preflight = {"Origin": "http://evil.test", "Access-Control-Request-Method": "POST"}
        answer = one.options(url, headers=preflight)
        assert answer.status_code == 405
        assert not [name for name in answer.headers if name.startswith("access-control")]
        assert page(proxy, "alice")["opted_out"] is False
        answer = one.post(url, headers={"Origin": "http://context.mitm"})
        assert (answer.status_code, answer.headers["location"]) == (303, "/")
    assert page(proxy, "alice")["opted_out"] is True


def test_an_opt_out_holds_at_all_proxies_that_share_a_redis(
    start_team: StartProxy, provider: Provider, shared: Mapping[str, str]
) -> None:
    first, second = (start_team(environment=shared) for _ in range(2))
    full = body_of(history())
    send(second, "alice", full)
    assert len(last(provider).body) < len(full)
    assert "within 5 seconds" in choose(first, "alice", "/opt-out")
    # What it knew a moment ago may hold for so long.
    time.sleep(5.5)
    send(second, "alice", full)
    assert last(provider).raw_body == full


@contextmanager
def balancer(*ports: int) -> Iterator[int]:
    """Passes TCP connections on to these ports in turn; yields its own port."""
    turns = itertools.cycle(ports)

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(1 << 16):
                writer.write(data)
                await writer.drain()
            writer.write_eof()

    async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there = await asyncio.open_connection("127.0.0.1", next(turns))
        await asyncio.gather(pump(reader, there[1]), pump(there[0], writer))
        writer.close()
        there[1].close()

    loop = asyncio.new_event_loop()
    server = loop.run_until_complete(asyncio.start_server(pass_on, "127.0.0.1", 0))
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    yield server.sockets[0].getsockname()[1]
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    server.close()
    left = asyncio.all_tasks(loop)
    for task in left:
        task.cancel()
    if left:  # without any, gather asks for a loop of its own
        loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
    loop.close()


def test_a_conversation_behind_a_balancer_moves_between_proxies(
    start_team: StartProxy, provider: Provider, shared: Mapping[str, str]
) -> None:
    options = ("context_windows=*=24000", "context_operators=boss")
    proxies = [start_team(*options, environment=shared) for _ in range(2)]
    provider.models = with_windows({"*": 24_000})
    bodies = [encode(body) for body in Session().requests()]
    with balancer(*(proxy.port for proxy in proxies)) as port:
        front = dataclasses.replace(proxies[0], port=port)
        for body in bodies[:60]:
            send(front, "alice", body)  # a connection each, so that they alternate

    own = [page(proxy, "boss", "/team.json") for proxy in proxies]
    assert [one["users"]["alice"]["recognised"] for one in own] == [30, 30]
    steps = sum(one["totals"]["steps"] for one in own)
    assert steps >= 2
    assert not provider.refused
    assert len(provider.breaks) <= steps
    assert [one["totals"]["prefix_breaks_unexplained"] for one in own] == [0, 0]


def test_nothing_of_a_request_is_in_the_log_or_on_the_disk(
    start_team: StartProxy, provider: Provider, tmp_path: Path
) -> None:
    folder, comments = tmp_path / "kept", tmp_path / "comments"
    proxy = start_team(
        f"loopback_comments={comments}", environment={"CONTEXT_CACHE_DIR": str(folder)}
    )
    canary = f"the-harbour-canary-{secrets.token_hex(8)}"
    bodies = [encode(body).replace(b"quayside", canary.encode()) for body in Session().requests()]
    url = f"{URL}&key=a-canary-in-the-url"
    with client(proxy, "alice") as one:
        for body in bodies[:25]:
            one.post(url, headers=HEADERS, content=body, timeout=60).raise_for_status()
    assert page(proxy, "alice")["steps"] >= 1
    proxy.stop()

    said = proxy.said()
    words = (canary, KEY, "berths.py", "a-canary-in-the-url", *PASSWORDS.values())
    for word in words:
        shapes = [word, base64.b64encode(word.encode()).decode()[:-4]]
        assert not [shape for shape in shapes if shape in said]
        for file in folder.iterdir():
            held = file.read_bytes()
            assert not [shape for shape in shapes if shape.encode() in held]
    assert "step 1" in said
    assert not comments.exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ([], "set proxyauth"),
        (["proxyauth=any"], "lets everybody in"),
        (["proxyauth=a:b", "mode=reverse:https://api.anthropic.com"], "cannot ask for names"),
        (["proxyauth=a:b", "save_stream_file={here}/flows"], "save_stream_file must not"),
        (["proxyauth=a:b", "hardump={here}/har"], "hardump must not"),
        (["proxyauth=a:b", "flow_detail=3"], "flow_detail must be 0"),
        (["proxyauth=a:b", "stickyauth=~a"], "stickyauth must not"),
        (["proxyauth=a:b", "termlog_verbosity=debug"], "must not be debug"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_would_show_people_to_each_other_stops_the_start(
    options: list[str], said: str, start_proxy: StartProxy, tmp_path: Path
) -> None:
    given = [option.format(here=tmp_path) for option in options]
    quiet = [] if any(option.startswith("flow_detail") for option in given) else ["flow_detail=0"]
    with pytest.raises(NotStarted, match=said):
        start_proxy("context_team=true", *quiet, *given)


def test_the_script_stops_in_one_sentence(tmp_path: Path) -> None:
    started = subprocess.run(
        [
            *(sys.executable, str(REPOSITORY / "scripts" / "lib" / "start.py")),
            *("--team", "--set", f"confdir={tmp_path}", "--listen-port", "0"),
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert started.returncode == 1
    assert started.stdout == ""
    [sentence] = started.stderr.splitlines()
    assert "set proxyauth, such as --proxyauth @team.htpasswd" in sentence
