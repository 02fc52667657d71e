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
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import redis
from tests.e2e.fixture_types import Json

from demo.session import Session, encode
from loopback.client import Connection, Response
from loopback.prefix import fingerprints, first_difference
from loopback.provider import Provider
from loopback.redis_server import RealRedis

AMPLE = Path(__file__).with_name("ample.py")
"""The addon with so much time that a busy machine makes no difference."""
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
    r"\[mitmcontext: shortened from ([\d,]+) characters, ([\d,]+) lines(, line numbers left out)?, "
    r"sha256 ([0-9a-f]{8}); run the call again to see all\]\n(.*)",
    re.DOTALL,
)
_BRIEF = re.compile(
    r"\[mitmcontext: a result of ([\d,]+) characters was removed, sha256 ([0-9a-f]{8})"
    r"(?:; it named ([^\n]*))?\. Run the call again to see it\.\]"
)
_FOLD = re.compile(
    r"\[mitmcontext: ([\d,]+) earlier messages of this conversation were condensed into this note"
    r" to save context\. It is a record of what happened, not a new request\. Lines that are set in"
    r" are what the assistant called and what tools gave back\.\]"
)
_FIXED_LINES = (
    "The user wrote:",
    "- An image was shown.",
    "- A document was shown.",
    " [... said again later]",
    " [...]",
    "",
)
_SAID = re.compile(r"(?:- The assistant (?:wrote:|called)|  Result:) (.*)", re.DOTALL)
_RESULT = re.compile(
    r"  Result(?: \(of [\d,]+ characters(?:, sha256 [0-9a-f]{8})?\)( naming)?)?:(.*)"
)
_GAP = re.compile(r"\[\.\.\. (?:[\d,]+ (?:lines|characters)|1 line) \.\.\.\]")
_NAMES = re.compile(r"\[names in what was left out: ([^\n]*)\]")


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
    texts = [text for one in stood for text in (*_texts(one), *_arguments(one))]
    held = "\n".join(texts)
    squeezed = " ".join(held.split())
    for line in content[0]["text"].split("\n")[1:]:
        result = _RESULT.fullmatch(line)
        if line in _FIXED_LINES or (result and not result[2]):
            continue
        said = _SAID.fullmatch(line)
        if result and result[1]:
            pieces = result[2].strip().split(", ")
        elif said:
            pieces = said[1].split(" [...] ")
        elif line.startswith("> "):
            pieces = [line[2:]]
        elif line.startswith(" "):
            names = _NAMES.fullmatch(line.strip())
            pieces = names[1].split(", ") if names else [line.strip().removesuffix(" [...]")]
            if _GAP.fullmatch(line.strip()):
                continue
        else:
            yield f"a line of its own: {line!r}"
            continue
        if any(one not in held and " ".join(one.split()) not in squeezed for one in pieces):
            yield f"words from elsewhere: {line!r}"


def _arguments(message: Json) -> Iterator[str]:
    """The arguments of calls, as a note tells them: a line for each key."""
    content = message["content"] if isinstance(message["content"], list) else ()
    for block in content:
        if block["type"] == "tool_use":
            for key, value in block["input"].items():
                said = value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))
                yield f"{key}: {said}"


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
    sha = hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:8]
    if brief := _BRIEF.fullmatch(stub):
        if brief.groups()[:2] != (f"{len(text):,}", sha):
            yield f"a stub of another text: {stub!r}"
        if brief[3] and any(name not in text for name in brief[3].split(", ")):
            yield f"names from elsewhere: {brief[3]!r}"
        return
    shape = _STUB.fullmatch(stub)
    if shape is None:
        yield f"no stub of ours: {stub[:200]!r}"
        return
    size, lines, unnumbered, digest, rest = shape.groups(default="")
    facts = f"{len(text):,}", f"{text.count('\n') + 1:,}", sha
    if (size, lines, digest) != facts:
        yield f"a stub of another text: {(size, lines, digest)} where {facts} stood"
    original = [_UNNUMBERED.sub("", one) if unnumbered else one for one in text.split("\n")]
    at = missing = 0
    for line in rest.split("\n"):
        names = _NAMES.fullmatch(line)
        if names and any(name not in text for name in names[1].split(", ")):
            yield f"names from elsewhere: {names[1]!r}"
        elif _GAP.fullmatch(line):
            missing += 1
        elif not names:
            at = next((n + 1 for n in range(at, len(original)) if line in original[n]), -1)
            if at < 0:
                yield f"a line from elsewhere, or out of order: {line!r}"
                return
    if not missing and not unnumbered:
        yield "a stub of which nothing is missing"


_UNNUMBERED = re.compile(r"^ {0,6}\d+[\u2192\t]")


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
