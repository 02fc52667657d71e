"""What the measurements of the proxy share: conversations that grow, and proxies for them."""

from __future__ import annotations

import json
import random
import re
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import httpx

from demo.session import MODEL, Session
from loopback import child
from loopback.certificates import Certificates
from loopback.provider import HOSTS

Json = dict[str, Any]

HEADERS = (("x-api-key", "k"), ("content-type", "application/json"))
_TURNS_BEFORE_BACK = 20
# Seconds that a proxy computes in half a second in which it has nothing to do, at most.
_IDLE = 0.003


class Growing:
    """A conversation of some size that grows by a small turn with each request.

    After some turns it goes back to where it began and goes on differently, so that it keeps its
    size and its number of messages while each request holds something new. Another `number` is
    another conversation; `stream` asks for an answer in events.
    """

    def __init__(self, size: int, number: int = 1, *, stream: bool = False) -> None:
        self.first = _texts_of(size, number)
        self.messages = list(self.first)
        self.turns = 0
        self._stream = b'"stream":true,' if stream else b""
        self.size = len(self.body())

    def grow(self) -> bytes:
        """Another turn, and the request that follows it."""
        if self.turns % _TURNS_BEFORE_BACK == 0:
            self.messages = list(self.first)
        self.turns += 1
        id_ = f"toolu_more_{self.turns:06}"
        call = {"type": "tool_use", "id": id_, "name": "note", "input": {"text": f"{self.turns}"}}
        text = " ".join(f"note-{self.turns}-{place} is kept" for place in range(3))
        result = {"type": "tool_result", "tool_use_id": id_, "content": text}
        self.messages.append(compact({"role": "assistant", "content": [call]}))
        self.messages.append(compact({"role": "user", "content": [result]}))
        return self.body()

    def body(self) -> bytes:
        """The request as it is now."""
        head = b'{"model":"' + MODEL.encode() + b'",' + self._stream + b'"max_tokens":500,'
        return head + b'"messages":[' + b",".join(self.messages) + b"]}"


class Fresh:
    """Prompts of some size, none of which was ever sent before."""

    def __init__(self, size: int, number: int) -> None:
        self._size = size
        self._chance = random.Random(number)
        said = b" ".join(_texts_of(size, number)).decode()
        self._words = re.findall(r"\w+", said)

    def grow(self) -> bytes:
        """Another one."""
        words = self._chance.choices(self._words, k=self._size // 5)
        prompt = {"role": "user", "content": " ".join(words)[: self._size]}
        return compact({"model": MODEL, "max_tokens": 500, "messages": [prompt]})


def _texts_of(size: int, number: int) -> list[bytes]:
    return [compact(message) for message in _messages_of(size, number)]


def compact(value: Any) -> bytes:
    """A value as JSON, the way most clients write it."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def _messages_of(size: int, number: int) -> Iterator[Json]:
    """Sessions with different seeds, one after the other, up to about this many bytes.

    The last message is the user's, so that a turn can follow.
    """
    left = size
    for seed in count(1_000 * (number - 1) + 1):
        for message in Session(seed).messages:
            left -= len(compact(message))
            yield message
            if left < 0 and message["role"] == "user":
                return


class Bench:
    """A provider's port on the loopback, and the files that all proxies share."""

    def __init__(self, port: int, leaf: Certificates, folder: Path) -> None:
        self._port = port
        self._leaf = leaf
        self._folder = folder
        self._started = 0

    def start(self, *options: str, addon: Path | None) -> child.Child:
        """A proxy to be measured."""
        self._started += 1
        name = f"{self._port}-{self._started}"
        return child.start(
            dict.fromkeys(HOSTS, self._port),
            self._folder / f"proxy-{name}",
            provider_authority=self._leaf.authority,
            addon=addon,
            options=options,
            environment={"CONTEXT_CACHE_DIR": str(self._folder / f"cache-{name}")},
            # mitmdump would otherwise spend much of its time on describing flows.
            arguments=["--set", "flow_detail=0"],
        )


def wait_until_idle(*proxies: child.Child) -> None:
    """Let what was begun at the start, such as reading the vocabulary, come to its end."""
    for _ in range(60):
        used = [proxy.cpu_seconds() for proxy in proxies]
        time.sleep(0.5)
        if all(one.cpu_seconds() - had < _IDLE for had, one in zip(used, proxies, strict=True)):
            return


def stats(proxy: child.Child) -> Json:
    """The addon's own counts."""
    url = "http://context.mitm/stats.json"
    found: Json = httpx.get(url, proxy=proxy.url, trust_env=False).json()
    return found
