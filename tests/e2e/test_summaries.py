"""Summaries by a model, through a real mitmdump: all strategies, all large APIs, all the ways."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
from tests.e2e import forms, test_gemini, test_responses
from tests.e2e.fixture_types import Connect, Json, StartProxy, Stats
from tests.e2e.judging import AMPLE

from demo.session import Session, encode
from loopback.child import Child
from loopback.client import Connection
from loopback.counting import count, model_named
from loopback.provider import HOSTS, Provider, Record, serving, with_windows
from loopback.summariser import Summariser, fair, raw
from mitmcontext.wire import api_for

Headers = Sequence[tuple[str, str]]

WINDOW = 24_000
ASKED = {"CONDENSATION_DEFAULT_STRATEGY": "auto"}
MESSAGES = "/v1/messages?beta=true"
NOTE = "a model's summary stands here for"
HERD = int(os.environ.get("MITMCONTEXT_HERD", "50"))
"""So many clients come at once with the same history."""


def options(*more: str) -> list[str]:
    """Small windows; each step waits for a model, whatever that costs; or as said here."""
    found = {
        "context_windows": f"*={WINDOW}",
        "condensation_max_cost": "1",
        "condensation_wait": "warning",
        "condensation_caution_threshold": "0.799",
    }
    found |= dict(one.split("=", 1) for one in more)
    return [f"{name}={value}" for name, value in found.items()]


@pytest.fixture(autouse=True)
def model(provider: Provider) -> Summariser:
    """A dutiful model, and small windows."""
    provider.models = with_windows({"*": WINDOW})
    provider.summariser = Summariser(fair)
    return provider.summariser


def opened(connect: Connect, proxy: Child, provider: Provider, host: str = HOSTS[0]) -> Connection:
    """A connection on which the port is the provider's own: a question goes to that one, too."""
    return connect(proxy, host, provider.tls_port)


def with_key(key: str) -> Headers:
    return (("x-api-key", key), ("content-type", "application/json"))


def play(
    connection: Connection, bodies: Sequence[bytes], key: str = "k", path: str = MESSAGES
) -> list[int]:
    return [connection.post(path, with_key(key), body).status for body in bodies]


def session(turns: int = 40) -> list[bytes]:
    return [encode(body) for body in list(Session().requests())[:turns]]


def notes(record: Record) -> list[str]:
    """The summaries in a request as the provider got it."""
    api = api_for("POST", record.wire.path)
    assert api is not None
    request = api.read(record.wire.body)
    messages = [api.parse(request.raw(at)) for at in range(len(request.spans))]
    found = [(m.role, part.text) for m in messages for part in m.parts if NOTE in part.text[:80]]
    assert {role for role, _ in found} <= {"user"}
    return [text for _, text in found]


def settled(stats: Stats, proxy: Child, holds: Callable[[Json], bool]) -> Json:
    """The figures once they say something, which is waited for."""
    until = time.monotonic() + 30
    while not holds(found := stats(proxy)):
        assert time.monotonic() < until, found["questions"]
        time.sleep(0.05)
    return found


# The four strategies.

TALKS: dict[str, tuple[str, str, Headers]] = {
    "Anthropic": (HOSTS[0], MESSAGES, with_key("k")),
    "Chat": (HOSTS[1], "/v1/chat/completions", (("authorization", "Bearer sk-1"),)),
    "Responses": (HOSTS[1], "/v1/responses", (("authorization", "Bearer sk-2"),)),
    "Gemini": (
        "generativelanguage.googleapis.com",
        "/v1beta/models/gemini-2.5-pro:streamGenerateContent?alt=sse",
        (("x-goog-api-key", "k"),),
    ),
}


def told(name: str) -> list[bytes]:
    """The demo's session in an API's form."""
    story = replace(forms.made_up(), cuts=forms.made_up().cuts[:40])
    if name == "Anthropic":
        return session()
    if name == "Chat":
        return [encode(body) for body in list(Session().openai_requests())[:40]]
    made = test_responses.told(story) if name == "Responses" else test_gemini.told(story)
    return [encode(body) for body in made]


@pytest.mark.parametrize(
    ("strategy", "words"),
    [
        ("conversation_summary", "Write a summary"),
        ("key_point_extraction", "Write key points"),
        ("progressive_summarization", "Write one running summary"),
        ("smart_truncation", ""),
        ("auto", "Write key points"),
    ],
)
def test_every_strategy_serves_every_large_api(
    strategy: str,
    words: str,
    provider: Provider,
    model: Summariser,
    start_proxy: StartProxy,
    connect: Connect,
    stats: Stats,
) -> None:
    chosen = f"condensation_default_strategy={strategy}"
    proxy = start_proxy(*options(chosen))
    for name, (host, path, headers) in TALKS.items():
        before, asked = stats(proxy), len(model.bodies)
        provider.records.clear()
        connection = opened(connect, proxy, provider, host)
        answers = [connection.post(path, headers, body).status for body in told(name)]
        found = stats(proxy)

        assert set(answers) == {200}
        assert provider.refused == []
        steps = found["steps"] - before["steps"]
        assert steps >= 2
        assert max(record.tokens for record in provider.records) <= WINDOW
        questions = model.bodies[asked:]
        if strategy == "smart_truncation":
            assert questions == []
            continue
        assert all(words.encode() in question for question in questions)
        used = found["questions"]["used"] - before["questions"]["used"]
        assert used >= 1, found["questions"]["rejected"]
        assert notes(provider.records[-1])
    updates = [body for body in model.bodies if b"There is an earlier summary" in body]
    assert updates or strategy != "progressive_summarization"
    found = stats(proxy)
    assert found["prefix_breaks_unexplained"] == 0
    assert found["requests"]["failed_open"] == 0
    assert found["requests"]["refused_after_rewrite"] == 0


def test_a_long_stretch_is_asked_about_in_parts_of_so_many_messages(
    provider: Provider, model: Summariser, start_proxy: StartProxy, connect: Connect
) -> None:
    proxy = start_proxy(
        *options("condensation_max_messages=2", "condensation_model=claude-haiku-4-5"),
        environment=ASKED,
    )
    play(opened(connect, proxy, provider), session(20))
    asked = [json.loads(body)["messages"][0]["content"] for body in model.bodies]
    assert len(asked) >= 2
    assert all(one.count(" a tool's result:") <= 3 for one in asked)


# Ahead of need.


def test_what_is_prepared_at_caution_is_used_at_warning_and_nobody_waits(
    provider: Provider, model: Summariser, start_proxy: StartProxy, connect: Connect, stats: Stats
) -> None:
    model.delay = 1.0
    proxy = start_proxy(
        *options("condensation_caution_threshold=0.7", "condensation_wait=critical"),
        environment=ASKED,
    )
    connection = opened(connect, proxy, provider)
    for body in session(24):
        connection.post(MESSAGES, with_key("k"), body)
        if stats(proxy)["steps"] == 1:
            assert stats(proxy)["questions"]["used"] == 1, "the first step is prepared as well"
        if provider.records[-1].tokens > 0.72 * WINDOW:
            # A person reads what was answered. Meanwhile it is asked, however busy the machine is.
            settled(
                stats, proxy, lambda now: now["questions"]["prepared"] > now["questions"]["used"]
            )
    found = stats(proxy)
    assert found["questions"]["used"] >= 1
    assert found["questions"]["requests_that_waited"] == 0
    assert found["questions"]["wasted"] == 0
    assert notes(provider.records[-1])
    assert found["steps"] >= 1
    assert found["prefix_breaks_unexplained"] == 0


def test_behind_a_warm_cache_the_question_is_read_from_it(
    provider: Provider, model: Summariser, start_proxy: StartProxy, connect: Connect, stats: Stats
) -> None:
    proxy = start_proxy(*options("condensation_target=0.3"), environment=ASKED)
    play(opened(connect, proxy, provider), session(30))
    behind = [record for record in provider.questions if b'"tools"' in record.wire.body]
    assert behind
    for record in behind:
        assert record.refusal is None
        assert record.usage is not None
        assert record.usage.read > 0.5 * record.usage.total_input
    assert stats(proxy)["questions"]["used"] >= 1


def test_a_late_answer_serves_the_next_step(
    provider: Provider, model: Summariser, start_proxy: StartProxy, connect: Connect, stats: Stats
) -> None:
    model.delay = 2.0
    proxy = start_proxy(*options("condensation_timeout=1s"), environment=ASKED)
    connection = opened(connect, proxy, provider)
    bodies = iter(session(60))
    for body in bodies:
        connection.post(MESSAGES, with_key("k"), body)
        if stats(proxy)["questions"]["late"]:
            break
    assert stats(proxy)["steps"] == 1
    assert notes(provider.records[-1]) == []  # the local one served
    settled(stats, proxy, lambda now: now["questions"]["prepared"] == 1)
    model.delay = 0.0
    for body in bodies:
        connection.post(MESSAGES, with_key("k"), body)
        if stats(proxy)["steps"] == 2:
            break
    assert stats(proxy)["questions"]["used"] == 1
    assert notes(provider.records[-1])


# One question, however many ask.


def gathered(
    count: int, provider: Provider, proxy: Child, connect: Connect, stats: Stats
) -> tuple[list[Connection], bytes]:
    """So many clients with the same history, and the request about which a model will be asked."""
    bodies = session(40)
    first = next(at for at, body in enumerate(bodies) if _tokens(provider, body) > 0.82 * WINDOW)
    herd = [opened(connect, proxy, provider) for _ in range(count)]
    play(herd[0], bodies[:first])
    assert stats(proxy)["steps"] == 0
    assert not provider.questions
    return herd, bodies[first]


def at_once(herd: Sequence[Connection], body: bytes) -> list[int]:
    """The statuses that clients get who all send the same."""
    answers: list[int] = []

    def one(own: Connection) -> None:
        answers.append(own.post(MESSAGES, with_key("k"), body).status)

    clients = [threading.Thread(target=one, args=(own,)) for own in herd]
    for client in clients:
        client.start()
    for client in clients:
        client.join(60)
    return answers


def test_many_clients_at_once_make_one_question(
    provider: Provider, model: Summariser, start_proxy: StartProxy, connect: Connect, stats: Stats
) -> None:
    chosen = options("condensation_max_messages=1000")
    proxy = start_proxy(*chosen, addon=AMPLE, environment=ASKED)
    herd, last = gathered(HERD, provider, proxy, connect, stats)
    model.delay = 1.0

    assert at_once(herd, last) == [200] * HERD

    assert len(model.bodies) == 1
    assert len({record.wire.body for record in list(provider.records)[-HERD:]}) == 1
    assert notes(provider.records[-1])


def test_the_first_of_many_hangs_up_and_the_others_get_what_was_asked(
    provider: Provider, model: Summariser, start_proxy: StartProxy, connect: Connect, stats: Stats
) -> None:
    chosen = options("condensation_max_messages=1000")
    proxy = start_proxy(*chosen, addon=AMPLE, environment=ASKED)
    (leader, *others), last = gathered(9, provider, proxy, connect, stats)
    model.delay = 4.0
    leader.socket.settimeout(2)
    went = provider.number

    def leads() -> None:
        with pytest.raises(TimeoutError):
            leader.post(MESSAGES, with_key("k"), last)
        leader.close()

    first = threading.Thread(target=leads)
    first.start()
    until = time.monotonic() + 2
    while not provider.questions and time.monotonic() < until:
        time.sleep(0.02)
    assert len(provider.questions) == 1
    answers = at_once(others, last)
    first.join(20)

    assert answers == [200] * 8
    assert len(model.bodies) == 1
    assert stats(proxy)["questions"]["stopped"] == 0
    arrived = [record.wire.body for record in provider.records if record.number > went]
    assert len(arrived) == 8
    assert len(set(arrived)) == 1
    assert notes(provider.records[-1])


def test_what_fails_for_the_first_of_many_fails_for_none(
    provider: Provider, model: Summariser, start_proxy: StartProxy, connect: Connect, stats: Stats
) -> None:
    chosen = options("condensation_max_messages=1000")
    proxy = start_proxy(*chosen, addon=AMPLE, environment=ASKED)
    herd, last = gathered(9, provider, proxy, connect, stats)
    model.delay = 1.0
    model.sends = raw("500 Internal Server Error", "content-length: 0\r\n")

    assert at_once(herd, last) == [200] * 9

    # They all take the local step, and the provider is left alone.
    assert len(provider.questions) == 1
    assert len({record.wire.body for record in list(provider.records)[-9:]}) == 1
    assert notes(provider.records[-1]) == []
    found = stats(proxy)
    assert found["questions"]["rejected"] == {"the provider is busy": 1}
    assert found["requests"]["failed_open"] == 0


def _tokens(provider: Provider, body: bytes) -> int:
    """How large a request is by the provider's own count."""
    known = model_named("claude-sonnet-4-5", provider.models)
    return count(json.loads(body), known)


# Whom we ask, and whom we do not.


KEY = with_key("k")


def asked_of(
    provider: Provider,
    start_proxy: StartProxy,
    connect: Connect,
    stats: Stats,
    *more: str,
    headers: Headers = KEY,
    environment: dict[str, str] | None = None,
) -> Json:
    if "context_mode=observe" in more:
        provider.models = with_windows({"*": 10 * WINDOW})
    proxy = start_proxy(*options(*more), environment=environment or ASKED)
    connection = opened(connect, proxy, provider)
    assert {connection.post(MESSAGES, headers, body).status for body in session(24)} == {200}
    found = stats(proxy)
    assert found["steps"] >= 1 or "context_mode=observe" in more
    assert found["failures"] == {}
    questions: Json = found["questions"]
    return questions


LOGIN = (("authorization", "Bearer sk-ant-oat01-x"), ("content-type", "application/json"))


@pytest.mark.parametrize(
    ("option", "headers", "reason"),
    [
        pytest.param("context_mode=observe", with_key("k"), "", id="observe mode"),
        pytest.param("enable_ai_condensation=false", with_key("k"), "", id="switched off"),
        pytest.param(
            "condensation_max_cost=0.0001",
            with_key("k"),
            "more than condensation_max_cost",
            id="too dear",
        ),
        pytest.param(
            "condensation_use_login=false",
            LOGIN,
            "a subscription's login (condensation_use_login)",
            id="a login",
        ),
    ],
)
def test_nobody_is_asked(
    option: str,
    headers: Headers,
    reason: str,
    provider: Provider,
    model: Summariser,
    start_proxy: StartProxy,
    connect: Connect,
    stats: Stats,
) -> None:
    found = asked_of(provider, start_proxy, connect, stats, option, headers=headers)
    assert model.bodies == []
    assert found["asked"] == 0
    assert set(found["not_asked"]) == ({reason} if reason else set())


def test_a_login_is_used_where_the_user_allows_it(
    provider: Provider, model: Summariser, start_proxy: StartProxy, connect: Connect, stats: Stats
) -> None:
    option = "condensation_use_login=true"
    assert asked_of(provider, start_proxy, connect, stats, option, headers=LOGIN)["used"] >= 1


def test_our_questions_pass_no_proxy(
    provider: Provider, model: Summariser, start_proxy: StartProxy, connect: Connect, stats: Stats
) -> None:
    nowhere = "http://127.0.0.1:9"
    proxies = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"), nowhere)
    found = asked_of(provider, start_proxy, connect, stats, environment=ASKED | proxies)
    assert found["used"] >= 1
    keys = {record.key for record in provider.questions}
    assert keys == {"k"}


def test_a_cheaper_model_is_asked_at_the_same_place(
    provider: Provider, model: Summariser, start_proxy: StartProxy, connect: Connect, stats: Stats
) -> None:
    option = "condensation_model=claude-haiku-4-5"
    assert asked_of(provider, start_proxy, connect, stats, option)["used"] >= 1
    assert {json.loads(body)["model"] for body in model.bodies} == {"claude-haiku-4-5"}


@pytest.mark.parametrize("path", ["/v1", "/v1/messages"])
def test_the_users_own_endpoint_is_asked_with_its_own_key(
    path: str,
    provider: Provider,
    model: Summariser,
    start_proxy: StartProxy,
    connect: Connect,
    stats: Stats,
) -> None:
    own = Provider(with_windows({"*": 100_000}), summariser=Summariser(fair))
    with serving(own):
        found = asked_of(
            provider,
            start_proxy,
            connect,
            stats,
            f"condensation_endpoint=http://127.0.0.1:{own.plain_port}{path}",
            "condensation_model=my-own",
            environment=ASKED | {"CONDENSATION_API_KEY": "own-secret"},
        )
    assert found["used"] >= 1
    assert found["price"] == 0
    assert model.bodies == []
    assert {record.key for record in own.questions} == {"own-secret"}
    assert {record.api for record in own.questions} == (
        {"anthropic"} if "messages" in path else {"openai"}
    )
    assert not any(b"own-secret" in record.wire.head for record in provider.records)


def test_a_client_that_hangs_up_ends_the_question(
    provider: Provider, model: Summariser, start_proxy: StartProxy, connect: Connect, stats: Stats
) -> None:
    model.delay = 20.0
    proxy = start_proxy(*options(), environment=ASKED)
    connection = opened(connect, proxy, provider)
    connection.socket.settimeout(3)
    with pytest.raises(TimeoutError):
        play(connection, session(30))
    connection.close()
    found = settled(stats, proxy, lambda now: now["questions"]["stopped"] == 1)
    assert found["questions"]["answered"] == 0
    # Nor is there a step that would hold for what the client says next.
    found = settled(stats, proxy, lambda now: now["requests"]["no_step"] == 1)
    assert found["steps"] == 0


def test_what_questions_cost_comes_off_what_is_saved(
    provider: Provider, model: Summariser, start_proxy: StartProxy, connect: Connect, stats: Stats
) -> None:
    proxy = start_proxy(*options(), environment=ASKED)
    play(opened(connect, proxy, provider), session(40))
    found = stats(proxy)
    billed = 0.0
    for record in provider.questions:
        usage = record.usage
        assert usage is not None
        prices = usage.fresh * 3 + usage.read * 0.3 + usage.written * 3.75 + usage.output * 15
        billed += prices / 1e6
    assert billed > 0
    assert found["questions"]["price"] == pytest.approx(billed, abs=1e-5)
    assert found["money"]["questions"] == pytest.approx(billed, abs=1e-5)
    proxied = [record.usage for record in provider.records]
    cost = sum(
        (u.fresh * 3 + u.read * 0.3 + u.written * 3.75 + u.output * 15) / 1e6
        for u in proxied
        if u is not None
    )
    assert found["money"]["cost"] == pytest.approx(cost, abs=1e-5)


def test_no_more_is_paid_than_is_allowed(
    provider: Provider, model: Summariser, start_proxy: StartProxy, connect: Connect, stats: Stats
) -> None:
    proxy = start_proxy(*options("condensation_max_cost=0.15"), environment=ASKED)
    play(opened(connect, proxy, provider), session(70))
    found = stats(proxy)
    assert found["questions"]["asked"] >= 1
    assert found["questions"]["price"] <= 0.15 * found["money"]["cost"]


def test_under_load_questions_are_shed_and_no_request(
    provider: Provider, model: Summariser, start_proxy: StartProxy, connect: Connect, stats: Stats
) -> None:
    """Twenty people reach the threshold at once; twelve conversations are asked about."""
    proxy = start_proxy(
        *options("condensation_timeout=2s", "condensation_max_messages=1000"), environment=ASKED
    )
    bodies = session(40)
    first = next(at for at, body in enumerate(bodies) if _tokens(provider, body) > 0.82 * WINDOW)
    keys = [f"person {n}" for n in range(20)]
    for key in keys:
        play(opened(connect, proxy, provider), bodies[:first], key)
    assert model.bodies == []
    model.delay = 3.0
    answers: list[int] = []

    def one(key: str) -> None:
        answers.extend(play(opened(connect, proxy, provider), [bodies[first]], key))

    people = [threading.Thread(target=one, args=(key,)) for key in keys]
    for person in people:
        person.start()
    for person in people:
        person.join(60)
    assert answers == [200] * 20
    found = stats(proxy)
    assert found["questions"]["shed"] == 8
    assert found["steps"] == 20
    assert found["requests"]["failed_open"] == 0
    assert provider.refused == []
