"""Known suites of hostile JSON and text, inside requests that are much too long for their window.

What is no JSON goes out as it came. What is JSON stays to the byte where it stands in a call that
nobody may change, and what becomes of the rest is a request that the strict provider takes.
"""

from __future__ import annotations

import gzip
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

import pytest

from loopback.http1 import Wire
from loopback.provider import Provider, with_windows
from mitmcontext.proxy.carried import carried
from mitmcontext.proxy.job import Job
from mitmcontext.proxy.shelves import Shelves
from mitmcontext.proxy.work import Worker
from mitmcontext.settings import load
from mitmcontext.values import Unreadable
from mitmcontext.wire.anthropic import MESSAGES

FUZZ: Final = Path(__file__).parents[1] / "../shared/data/fuzz"
SUITE, NAUGHTY = FUZZ / "json_test_suite.tar.gz", FUZZ / "naughty_strings.json.gz"
PATH = "/v1/messages"
PLACE = b'"odd": 0'
_SETTINGS: Final = load({"context_windows": ["*=3000"]}, {})

pytestmark = pytest.mark.skipif(not FUZZ.is_dir(), reason="needs the suites of hostile data")


def suite() -> Iterator[tuple[str, bytes]]:
    """Names and bytes of the suite's files: y_ has to be read, n_ refused, others may be either."""
    with tarfile.open(SUITE) as archive:
        for member in archive:
            file = archive.extractfile(member) if member.name.endswith(".json") else None
            if file is not None:
                yield Path(member.name).name, file.read()


def naughty() -> list[str]:
    """Strings that programs stumble over; none of them empty, which no provider takes."""
    with gzip.open(NAUGHTY) as file:
        return [text for text in json.load(file) if text.strip()]


def call(number: int, given: Any) -> dict[str, Any]:
    return {"type": "tool_use", "id": f"t{number}", "name": "look", "input": given}


def result(number: int, text: str) -> dict[str, Any]:
    return {"type": "tool_result", "tool_use_id": f"t{number}", "content": text}


def too_long(texts: list[str], *, turns: int = 12) -> bytes:
    """A history of calls with these texts in what was typed, called and answered."""
    messages: list[dict[str, Any]] = [{"role": "user", "content": f"Look. {texts[0]}"}]
    for number in range(turns):
        text = texts[number % len(texts)]
        told = f"{text}\n" + "".join(f"line {n} of {number}\n" for n in range(60)) + text
        given = {"x": text} if number < turns - 1 else {"odd": 0}
        messages += [
            {"role": "assistant", "content": [call(number, given)]},
            {"role": "user", "content": [result(number, told)]},
        ]
        if number % 4 == 3:
            messages += [
                {"role": "assistant", "content": [{"type": "text", "text": f"So: {text}."}]},
                {"role": "user", "content": [{"type": "text", "text": f"And {text}?"}]},
            ]
    body = {"model": "claude-sonnet-4-5", "max_tokens": 64, "messages": messages}
    return json.dumps(body).encode()


@pytest.fixture(scope="module")
def worker() -> Worker:
    shelves = Shelves(tenants=b"t" * 32, far=None, shared=False, note="")
    return Worker(carried(SimpleNamespace()), shelves, _SETTINGS)


async def what_goes_out(worker: Worker, body: bytes, key: str) -> bytes:
    """What leaves for a body; `key` is a client who was never here."""
    job = Job(MESSAGES, PATH, key.encode().ljust(32), b"p" * 32, {}, body)
    try:
        ready = await worker.look(job, _SETTINGS)
    except Unreadable:
        return body
    result = await worker.decide(ready)
    return body if result.raw is None else result.raw


def takes(body: bytes) -> bool:
    """Whether the strict provider does."""
    headers = ((b"x-api-key", b"k"), (b"content-type", b"application/json"))
    provider = Provider(with_windows({"*": 1 << 40}), keep=1)
    record, _ = provider.handle(Wire("POST", PATH, b"", headers, body, body))
    return record.refusal is None


async def test_json_that_is_none_passes_and_other_json_stays_to_the_byte(worker: Worker) -> None:
    changed = 0
    for name, value in suite():
        whole = too_long(["plain"])
        assert whole.count(PLACE) == 1
        body = whole.replace(PLACE, b'"odd":' + value)
        out = await what_goes_out(worker, body, name)
        changed += out != body
        if name.startswith("n_"):
            assert out == body, name
        elif out != body:
            assert b'"odd":' + value in out, name
            assert not takes(body) or takes(out), name
        elif name.startswith("y_"):
            assert "object" in name or "surrogate" in name or "dup" in name, name
    assert changed > 80


async def test_naughty_strings_everywhere(worker: Worker) -> None:
    texts = naughty()
    changed = 0
    for at in range(0, len(texts), 6):
        body = too_long(texts[at : at + 6])
        assert takes(body)
        out = await what_goes_out(worker, body, f"naughty {at}")
        changed += out != body
        assert takes(out)
        json.loads(out.decode())
    assert changed >= len(texts) // 6 * 0.9
