"""Two tenants share nothing, and one whose token rotates stays one."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import random
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from tests.e2e.fixture_types import Connect, Json, StartProxy, Stats
from tests.e2e.judging import OPTION, WINDOW, Line, bodies, breaks, changed_texts, complaints

from demo.session import Session, encode
from loopback.client import Connection
from loopback.provider import HOSTS, Provider, with_windows

INTERLEAVED = int(os.environ.get("MITMCONTEXT_INTERLEAVED", "190"))
TURNS = 34
"""As far as most tests here go: by then there were some steps."""
ROTATED = (19, 30)
# From this message on the two tenants' histories differ, in what was typed and in tool results.
_LATE = 60


def planted(session: Session, canary: str) -> list[bytes]:
    """The requests of a session with a canary in each late text that is not the model's own."""
    for message in session.messages[_LATE:]:
        for block in message["content"]:
            name = "text" if block["type"] == "text" else "content"
            if message["role"] == "user":
                block[name] = f"{canary} {block[name]} {canary}"
    return [encode(body) for body in session.requests()]


class Tenant:
    """One of two who say the same for a long while."""

    def __init__(self, provider: Provider, connection: Connection, key: str, canary: str) -> None:
        self.line = Line(provider, key)
        self.connection = connection
        self.canary = canary
        self.waiting: list[bytes] = []

    def send(self, seen: int, body: bytes) -> None:
        """Send a request that may overtake the other tenant's."""
        answer = self.connection.post(self.line.path, self.line.headers, body)
        self.line.note(seen, body, answer)


def play(tenants: Sequence[Tenant], chance: random.Random, threads: ThreadPoolExecutor) -> int:
    """Send what both have to say, in random order and often at the same time; how much it was."""
    count = 0
    while waiting := [tenant for tenant in tenants if tenant.waiting]:
        now = chance.sample(waiting, chance.randint(1, len(waiting)))
        seen = tenants[0].line.provider.number
        for done in [threads.submit(one.send, seen, one.waiting.pop(0)) for one in now]:
            done.result()
        count += len(now)
    return count


def test_two_tenants_with_the_same_history_share_nothing(
    provider: Provider, start_proxy: StartProxy, connect: Connect, stats: Stats
) -> None:
    provider.models = with_windows({"*": WINDOW})
    proxy = start_proxy(OPTION)
    people = [(name, connect(proxy)) for name in ("anna-e4b1", "bert-7c09")]
    sent, seed, steps, told = 0, 14, 0, [0, 0]
    with ThreadPoolExecutor(len(people)) as threads:
        while sent < INTERLEAVED:
            # Keys that were never used: what a tenant's own past taught corrects its estimates, and
            # there the two did not say the same.
            tenants = [
                Tenant(provider, connection, f"key-{seed}-of-{name}", f"canary-of-{name}")
                for name, connection in people
            ]
            for tenant in tenants:
                session = Session(seed)
                tenant.waiting = planted(session, tenant.canary)
                early = sum(cut <= _LATE for cut in session.cuts)
            sent += play(tenants, random.Random(seed), threads)
            lines = [tenant.line for tenant in tenants]
            # What both said alike went out alike: nobody's requests depend on the other's.
            alike = [[one.went for one in line.sent[:early]] for line in lines]
            assert [a == b for a, b in zip(*alike, strict=True)] == [True] * early
            assert any(one.changed for one in lines[0].sent[:early])
            for at, (tenant, other) in enumerate([tenants, tenants[::-1]]):
                assert tenant.line.complaints() == []
                for one in tenant.line.sent:
                    assert other.canary.encode() not in one.went
                    told[at] += tenant.canary in changed_texts(one.body, one.went)
                steps += len(tenant.line.breaks())
            provider.records.clear()
            seed += 1
    found = stats(proxy)
    assert found["steps"] == steps
    assert found["prefix_breaks_unexplained"] == 0
    assert found["requests"]["failed_open"] == 0
    # What was looked for was there to be found.
    assert min(told) > 0


def test_the_judge_sees_what_comes_from_elsewhere(
    provider: Provider, start_proxy: StartProxy, connect: Connect
) -> None:
    provider.models = with_windows({"*": WINDOW})
    line, connection = Line(provider, "key-of-anna"), connect(start_proxy(OPTION))
    for body in bodies()[34:36]:
        line.send(connection, body)
    one = line.sent[-1]
    assert complaints(one.body, one.went) == []
    assert b"- The assistant called " in one.went
    for ours, foreign in (
        (b"- The assistant called ", b"- The assistant called berts_tool "),
        (b"The user wrote:\\n> ", b"The user wrote:\\n> as bert said, "),
        (b" lines ...]\\n", b" lines ...]\\n bert's line\\n"),
        (b"[names in what was left out: ", b"[names in what was left out: bert.py, "),
        (b", sha256 ", b", sha256 0"),
        (b"condensed into this note to save context.", b"condensed into bert's note."),
        (b'"max_tokens":', b'"max_tokens":1'),
    ):
        assert ours in one.went
        assert complaints(one.body, one.went.replace(ours, foreign, 1)) != []


def token(expires: int) -> str:
    """A JSON web token of one person: it changes with its expiry, issuer and subject do not."""

    def part(value: Json) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")

    claims = {"iss": "https://auth.example", "sub": "user-1", "exp": expires}
    head = f"{part({'alg': 'RS256'})}.{part(claims)}"
    return f"{head}.{part({'of': hashlib.sha256(head.encode()).hexdigest()})}"


def bearer(given: str) -> tuple[tuple[str, str], ...]:
    """The headers of a client with a token."""
    return ("authorization", f"Bearer {given}"), ("content-type", "application/json")


def test_a_token_that_rotates_keeps_its_conversation(
    provider: Provider, start_proxy: StartProxy, connect: Connect, stats: Stats
) -> None:
    provider.models = with_windows({"*": WINDOW})
    steady = Line(provider, "key-of-another")
    proxy = start_proxy(OPTION)
    connection = connect(proxy)
    for body in bodies()[:TURNS]:
        steady.send(connection, body)
    steps = stats(proxy)["steps"]

    rotating = Line(provider, token(1), bearer(token(1)))
    for turn, body in enumerate(bodies()[:TURNS]):
        if turn in ROTATED:
            # The provider takes it for another account, so the line's own bytes are compared.
            rotating.key = token(turn)
            rotating.headers = bearer(token(turn))
        rotating.send(connection, body)

    found = stats(proxy)
    assert [one.went for one in rotating.sent] == [one.went for one in steady.sent]
    assert found["steps"] == 2 * steps
    broke = breaks([one.went for one in rotating.sent])
    assert len(broke) == steps
    # There was something to lose when it rotated, and it was not made anew then.
    assert [rotating.sent[turn].changed for turn in ROTATED] == [True, True]
    assert not {*ROTATED} & set(broke)
    assert found["prefix_breaks_unexplained"] == 0


def test_the_same_history_elsewhere_is_another_conversation(
    provider: Provider, start_proxy: StartProxy, connect: Connect, stats: Stats
) -> None:
    provider.models = with_windows({"*": WINDOW})
    proxy = start_proxy(OPTION)
    old, new = b'"model":"claude-sonnet-4-5"', b'"model":"claude-opus-4-5"'
    told = bodies()[:TURNS]
    renamed = [body.replace(old, new) for body in told]
    went: list[list[bytes]] = []
    for key, host, sent in (
        ("key-of-anna", HOSTS[0], told),
        ("key-of-bert", HOSTS[0], told),
        ("key-of-anna", HOSTS[1], told),
        ("key-of-anna", HOSTS[0], renamed),
    ):
        line, connection = Line(provider, key), connect(proxy, host)
        for body in sent:
            line.send(connection, body)
        went.append([one.went.replace(new, old) for one in line.sent])
        # What was frozen for the first would be laid over the others before it is needed.
        assert went[-1] == went[0]
        assert line.complaints() == []
        steps = len(line.breaks())
        assert stats(proxy)["steps"] == steps * len(went) >= 3 * len(went)
