"""What tests through real proxies judge by.

Nothing here is the addon's: what its words may look like is written down a second time, so that
neither can hide the other's mistakes. A body is judged against the request that it was made from:
every stub has to be one of the very result that stood there, every line of a note has to come from
the messages that it stands for.
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import redis

from demo.session import Session, encode
from loopback.child import Child
from loopback.client import Connection, Response
from loopback.prefix import fingerprints, first_difference
from loopback.provider import Provider
from loopback.redis_server import RealRedis

Json = dict[str, Any]
StartProxy = Callable[..., Child]
Connect = Callable[..., Connection]
Stats = Callable[[Child], Json]

WINDOW = 24_000
OPTION = f"context_windows=claude-*={WINDOW}"
PATH = "/v1/messages?beta=true"


def with_key(key: str) -> tuple[tuple[str, str], ...]:
    """The headers of a client with an API key."""
    return ("x-api-key", key), ("content-type", "application/json")


@cache
def bodies() -> tuple[bytes, ...]:
    """The made-up session, turn by turn."""
    return tuple(encode(body) for body in Session().requests())


def environment(folder: Path, server: RealRedis) -> dict[str, str]:
    """What proxies need that share a Redis."""
    key = folder / "shared-key"
    if not key.exists():
        key.write_text(secrets.token_hex(32))
        key.chmod(0o600)
    return {"CONTEXT_REDIS_URL": server.url, "CONTEXT_KEY_FILE": str(key)}


@contextmanager
def looking_into(server: RealRedis) -> Iterator[Any]:
    """A client of a Redis, to look at and meddle with what the proxies keep there."""
    client = redis.Redis.from_url(server.url)
    try:
        yield client
    finally:
        client.close()


@dataclass(frozen=True)
class Sent:
    """A request as the client sent it, and as the provider received it.

    `broke` says that it did not begin with what the provider had received before.
    """

    body: bytes
    went: bytes
    broke: bool

    @property
    def changed(self) -> bool:
        """Whether it was forwarded in other bytes."""
        return self.body != self.went


class Line:
    """A client with a key of its own, who sends one request after the other."""

    def __init__(
        self,
        provider: Provider,
        key: str,
        headers: Sequence[tuple[str, str]] = (),
        path: str = PATH,
    ) -> None:
        self.provider = provider
        self.key = key
        self.headers = headers or with_key(key)
        self.path = path
        self.sent: list[Sent] = []

    def send(self, connection: Connection, body: bytes) -> Sent:
        """Send a request; exactly one must arrive, and the client must get its answer."""
        seen = self.provider.number
        answer = connection.post(self.path, self.headers, body)
        return self.note(seen, body, answer)

    def note(self, seen: int, body: bytes, answer: Response) -> Sent:
        """Take note of what became of a request that was sent after so many others."""
        records = list(self.provider.records)
        arrived = [one for one in records if one.number > seen and one.key == self.key]
        assert [one.refusal for one in arrived] == [None]
        assert answer.status == 200
        # What came before a line's first request was another line's.
        broke = bool(self.sent) and arrived[0].broke is not None
        self.sent.append(Sent(body, arrived[0].wire.body, broke))
        return self.sent[-1]

    def breaks(self) -> list[int]:
        """The turns that did not go on where the one before had ended, as the provider says."""
        return [turn for turn, one in enumerate(self.sent) if one.broke]

    def complaints(self) -> list[str]:
        """What was forwarded and cannot have been made of the request alone."""
        return [
            f"turn {turn}: {said}"
            for turn, one in enumerate(self.sent)
            for said in complaints(one.body, one.went)
        ]


def breaks(went: Sequence[bytes]) -> list[int]:
    """The same for bodies that the provider took for those of several accounts."""
    marks = [fingerprints(json.loads(body)) for body in went]
    return [
        turn
        for turn in range(1, len(marks))
        if first_difference(marks[turn - 1], marks[turn]) is not None
    ]


# Where every changed text comes from.

_STUB = re.compile(
    r"\[mitmcontext: an older tool result was shortened to save context; it had ([\d,]+) characters"
    r" in ([\d,]+) lines \(sha256 ([0-9a-f]{16})\)\. Run the call again to see it all\.\]\n"
    r"(.*?)\n\[\.\.\. ([\d,]+) characters left out \.\.\.\](?:\n(.*?))??"
    r"(?:\n\[names in what was left out: ([^\n]*)\])?",
    re.DOTALL,
)
_BRIEF = (
    "[mitmcontext: an older tool result of {:,} characters was removed to save context"
    " (sha256 {}). Run the call again to see it.]"
)
_FOLD = re.compile(
    r"\[mitmcontext: ([\d,]+) earlier messages of this conversation were condensed into this note"
    r" to save context\. It is a record of what happened, not a new request\.\]"
)
_FIXED_LINES = ("The user wrote:", "- An image was shown.", "- A document was shown.", "")
_SAID = re.compile(r"(?:- The assistant (?:wrote:|called)|  Result:) (.*)", re.DOTALL)


def complaints(body: bytes, went: bytes) -> list[str]:
    """What a forwarded Anthropic request holds that cannot have been made of the one sent."""
    if body == went:
        return []
    before, after = json.loads(body), json.loads(went)
    old, new = before.pop("messages"), after.pop("messages")
    found = [] if list(before.items()) == list(after.items()) else ["changed beside the messages"]
    at = 0
    for message in new:
        count = _folded(message)
        if at + max(count, 1) > len(old):
            return [*found, f"stands for more than the {len(old)} messages that were sent"]
        if count:
            found += [f"message {at}: {said}" for said in _note(message, old[at : at + count])]
        else:
            found += [f"message {at}: {said}" for said in _message(old[at], message)]
        at += count or 1
    return found if at == len(old) else [*found, f"{len(old) - at} messages are missing"]


def changed_texts(body: bytes, went: bytes) -> str:
    """The texts of a forwarded request that the client did not send so."""
    old = {text for message in json.loads(body)["messages"] for text in _texts(message)}
    new = (text for message in json.loads(went)["messages"] for text in _texts(message))
    return "\n".join(text for text in new if text not in old)


def _folded(message: Json) -> int:
    """For how many messages a message stands that is a note; 0 if it is none."""
    texts = list(_texts(message))
    opening = _FOLD.match(texts[0]) if texts and message["role"] == "user" else None
    return int(opening[1].replace(",", "")) if opening else 0


def _note(message: Json, stood: Sequence[Json]) -> Iterator[str]:
    """What is wrong with a note that stands for some messages."""
    content = message["content"]
    if len(content) != 1 or set(content[0]) != {"type", "text"}:
        yield "a note with something beside its text"
        return
    texts = [text for one in stood for text in _texts(one)]
    known = {line for text in texts for line in text.split("\n")}
    squeezed = "\n".join(" ".join(text.split()) for text in texts)
    for line in content[0]["text"].split("\n")[1:]:
        said = _SAID.fullmatch(line)
        quoted = line[2:] if line.startswith("> ") else None
        words = said[1] if said else quoted
        if words is None:
            if line not in _FIXED_LINES:
                yield f"a line of its own: {line!r}"
        elif words not in known and any(one not in squeezed for one in words.split(" [...] ")):
            yield f"words from elsewhere: {line!r}"


def _message(old: Json, new: Json) -> Iterator[str]:
    """What is wrong with a message of which some parts may have been shortened."""
    if old == new:
        return
    if {**old, "content": 0} != {**new, "content": 0}:
        yield "changed beside the content"
    elif isinstance(old["content"], str) or isinstance(new["content"], str):
        yield from _shortened(old["content"], new["content"])
    elif len(old["content"]) != len(new["content"]):
        yield "another number of parts"
    else:
        for part, instead in zip(old["content"], new["content"], strict=True):
            if part == instead:
                continue
            name = "content" if part["type"] == "tool_result" else "text"
            if part["type"] not in ("tool_result", "text"):
                yield f"a changed {part['type']}"
            elif {**part, name: 0} != {**instead, name: 0}:
                yield "changed beside the text"
            else:
                yield from _shortened(part[name], instead[name])


def _shortened(old: Any, new: Any) -> Iterator[str]:
    """What is wrong with a text that stands in another one's place."""
    if isinstance(new, list) and _markers(new) != _markers(old)[-1:]:
        yield "a marker that was not there"
    text, stub = _plain(old), _plain(new)
    sha = hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:16]
    if stub == _BRIEF.format(len(text), sha):
        return
    shape = _STUB.fullmatch(stub)
    if shape is None:
        yield f"no stub of ours: {stub[:200]!r}"
        return
    size, lines, digest, head, left_out, tail, names = shape.groups(default="")
    facts = f"{len(text):,}", f"{text.count('\n') + 1:,}", sha
    if (size, lines, digest) != facts:
        yield f"a stub of another text: {(size, lines, digest)} where {facts} stood"
    if not text.startswith(head) or not text.endswith(tail):
        yield f"head or tail from elsewhere: {stub!r}"
    if left_out != f"{len(text) - len(head) - len(tail):,}":
        yield "a wrong number of characters left out"
    if any(name not in text for name in names.split(", ")):
        yield f"names from elsewhere: {names!r}"


def _markers(content: Any) -> list[Any]:
    blocks = content if isinstance(content, list) else []
    return [block["cache_control"] for block in blocks if "cache_control" in block]


def _plain(content: Any) -> str:
    if isinstance(content, str):
        return content
    return "\n".join(block.get("text", "") for block in content)


def _texts(message: Json) -> Iterator[str]:
    """Every text of a message; a call is its name and its arguments as they were sent."""
    content = message["content"]
    if isinstance(content, str):
        yield content
        return
    for block in content:
        if block["type"] == "text":
            yield block["text"]
        elif block["type"] == "tool_result":
            yield _plain(block.get("content") or "")
        elif block["type"] == "tool_use":
            given = json.dumps(block["input"], ensure_ascii=False, separators=(",", ":"))
            yield f"{block['name']} {given}"
