"""Play the session through a real proxy against the loopback provider, and say what came of it.

    main.py           mitmweb, which stays open afterwards so that one can look at it
    main.py --dump    mitmdump; prints a table, and ends with 0 if nothing was refused or broken

No key is needed and nothing leaves the machine. Every further argument goes to mitmproxy.
"""

# ruff: noqa: E402  (the packages can be imported only after the path was set)
from __future__ import annotations

import secrets
import shutil
import socket
import ssl
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

# Started as a script, so only this folder is on the path; the packages are one above it.
sys.path[0] = str(Path(__file__).resolve().parents[1])

from demo.session import MODEL, Session, encode
from loopback import certificates, child
from loopback.answers import Reply
from loopback.counting import count, model_named
from loopback.provider import HOSTS, Provider, serving, with_windows

FOLDER = child.REPOSITORY / ".demo"
WINDOW = 24_000
_COLUMNS = ["tls", "icon", "path", "method", "status", "size", "time", "comment"]
_REPLY = Reply("Understood, I'll go on with the next step.")


@dataclass
class Played:
    """What was seen from outside: by the client, and by the provider with its own count."""

    turns: int = 0
    failed: int = 0
    sent: int = 0
    forwarded: int = 0
    largest: int = 0
    stats: dict[str, Any] = field(default_factory=dict)
    breaks: int = 0
    refused: int = 0

    @property
    def unexplained(self) -> int:
        """Prefix breaks that no step accounts for, by whichever side saw more of them."""
        steps = int(self.stats.get("steps", 0))
        own = int(self.stats.get("prefix_breaks_unexplained", 0))
        return max(own, self.breaks - steps)

    @property
    def refusals(self) -> int:
        """Requests that somebody refused."""
        return max(self.refused, self.failed)


def main(arguments: Sequence[str]) -> int:
    """Play, show and, with mitmweb, wait until the person has seen enough."""
    dump = "--dump" in arguments
    rest = [argument for argument in arguments if argument != "--dump"]
    leaf = certificates.make(FOLDER / "provider", HOSTS)
    # Each time the same session: what the last one froze would hold from its first turns on.
    shutil.rmtree(FOLDER / "cache", ignore_errors=True)
    models = with_windows({"claude-*": WINDOW})
    with serving(Provider(models, default=_REPLY), leaf) as provider:
        token, web_port = secrets.token_urlsafe(16), free_port()
        proxy = child.start(
            dict.fromkeys(HOSTS, provider.tls_port),
            FOLDER / "confdir",
            provider_authority=leaf.authority,
            tool="mitmdump" if dump else "mitmweb",
            options=[f"context_windows=claude-*={WINDOW}"],
            arguments=rest,
            environment={"CONTEXT_CACHE_DIR": str(FOLDER / "cache")},
            settings={} if dump else _web_settings(token, web_port),
        )
        try:
            if not dump:
                say(f"mitmweb: http://127.0.0.1:{web_port}/?token={token}")
                say(f"live figures: http://127.0.0.1:{web_port}/context?token={token}")
            played = play(provider, proxy)
            say("", *table(played))
            if not dump:
                say("", "mitmweb stays open; Ctrl-C ends it.")
                wait_for(proxy)
        except KeyboardInterrupt:
            say("")
            return 0
        finally:
            proxy.stop()
    return 0 if not dump or (played.unexplained == 0 and played.refusals == 0) else 1


def _web_settings(token: str, port: int) -> dict[str, Any]:
    return {
        "web_password": token,
        "web_host": "127.0.0.1",
        "web_port": port,
        "web_open_browser": False,
        "web_columns": _COLUMNS,
    }


def free_port() -> int:
    """A port that nobody listens on. mitmweb cannot choose one by itself and tell us."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def play(provider: Provider, proxy: child.Child) -> Played:
    """Send every request of the session through the proxy, one after the other."""
    played, model = Played(), model_named(MODEL)
    bodies = list(Session().requests())
    say(f"A session of {len(bodies)} requests, a window of {WINDOW:,} tokens.", "")
    headers = {
        "x-api-key": "a-key-of-nobody",
        "anthropic-version": "2023-06-01",
        "content-type": "application/json",
    }
    with httpx.Client(
        proxy=proxy.url, verify=trusting(proxy.authority), trust_env=False, timeout=60
    ) as client:
        for number, body in enumerate(bodies, 1):
            began = time.monotonic()
            answer = client.post(
                f"https://{HOSTS[0]}/v1/messages", content=encode(body), headers=headers
            )
            record, sent = provider.records[-1], count(body, model)
            played.turns += 1
            played.failed += answer.status_code != 200
            played.sent += sent
            played.forwarded += record.tokens
            played.largest = max(played.largest, record.tokens)
            if record.broke is not None or answer.status_code != 200 or number % 10 == 0:
                seconds = time.monotonic() - began
                say(line(number, sent, record.tokens, answer, seconds, broke=record.broke))
        played.stats = client.get("http://context.mitm/stats.json").json()
    played.breaks, played.refused = len(provider.breaks), len(provider.refused)
    return played


def trusting(authority: Path) -> ssl.SSLContext:
    """Trust this proxy and nobody else."""
    return ssl.create_default_context(cafile=str(authority))


def line(
    number: int,
    sent: int,
    forwarded: int,
    answer: httpx.Response,
    seconds: float,
    *,
    broke: int | None,
) -> str:
    """One request, as the person at the terminal sees it."""
    shown = f"  request {number:3}   sent {sent:8,}   forwarded {forwarded:7,} tokens"
    if answer.status_code != 200:
        return f"{shown}   refused: {answer.text[:200]}"
    return shown if broke is None else f"{shown}   condensed in {seconds * 1000:.0f} ms"


def table(played: Played) -> Iterator[str]:
    """What the whole session came to."""
    stats = played.stats
    tokens, requests = stats["tokens"], stats["requests"]
    freed = [int(number) for number in stats.get("steps_freed", [])]
    rows = [
        ("turns", f"{played.turns}"),
        ("  forwarded as they came", f"{requests['under_threshold']}"),
        ("  condensed, or with earlier edits", f"{requests['condensed'] + requests['reapplied']}"),
        ("tokens sent", f"{tokens['sent']:,} (by the provider's count {played.sent:,})"),
        ("tokens forwarded", f"{tokens['forwarded']:,} ({played.forwarded:,})"),
        ("largest request forwarded", f"{played.largest:,} of {WINDOW:,} by the provider's count"),
        ("steps", f"{stats['steps']}"),
        ("tokens freed per step", ", ".join(f"{number:,}" for number in freed) or "none"),
        ("unexplained prefix breaks", f"{played.unexplained}"),
        ("refused requests", f"{played.refusals}"),
    ]
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        yield f"{name:<{width}}   {value}"


def wait_for(proxy: child.Child) -> None:
    """Wait until the proxy has ended or the person ends this."""
    while proxy.process.poll() is None:
        time.sleep(0.5)


def say(*lines: str) -> None:
    """Print at once, so that progress is seen where output is piped too."""
    for text in lines:
        print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
