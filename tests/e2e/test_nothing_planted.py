"""What was planted in keys and messages lies nowhere: on no disk, in no Redis, in no log."""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
import re
import sqlite3
import stat
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, suppress
from pathlib import Path
from urllib.parse import quote

import pytest
import zstandard
from tests.browser import stage as mitmweb_stage
from tests.e2e.fixture_types import Connect, StartProxy, Stats
from tests.e2e.judging import OPTION, PATH, WINDOW, Line, changed_texts, looking_into, with_key
from tests.stores.servers import environment, real_redis

from demo.session import Session, encode
from loopback.provider import HOSTS, Provider, with_windows
from loopback.redis_server import packed
from loopback.summariser import Summariser, cut_off

KEY = "sk-ant-api03-a-planted+key/3141592653=="
TYPED = "the häfen-canary + “quay” 2718281828"
RESULT = "result-canary_1414213562 <ß>"
CANARIES = (KEY, TYPED, RESULT)


def forms(text: str) -> Iterator[tuple[str, bytes]]:
    """The shapes that a text may lie in; hex and escapes in small letters."""
    plain = text.encode()
    yield "plain", plain
    for skipped in range(3):
        # At whatever place in a text in base64: what its neighbours have a share in is left out.
        coded = base64.b64encode(b"\0" * skipped + plain)
        first, last = -(-skipped * 8 // 6), (skipped + len(plain)) * 8 // 6
        yield f"base64 at {skipped}", coded[first:last].lower()
        yield f"base64 for URLs at {skipped}", coded[first:last].translate(_FOR_URLS).lower()
    yield "as JSON", json.dumps(text)[1:-1].encode().lower()
    yield "as JSON, escaped", "".join(f"\\u{ord(sign):04x}" for sign in text).encode()
    yield "URL-quoted", quote(text, safe="").encode().lower()
    yield "URL-quoted but for slashes", quote(text).encode().lower()
    yield "URL-quoted, all of it", "".join(f"%{byte:02x}" for byte in plain).encode()
    yield "as hex", plain.hex().encode()
    yield "UTF-16", text.lower().encode("utf-16-le")
    yield "UTF-16, the other way round", text.lower().encode("utf-16-be")


_FOR_URLS = bytes.maketrans(b"+/", b"-_")


def digests(text: str) -> Iterator[tuple[str, bytes]]:
    """The plain digests of a text: whoever guesses the text could tell that it was here."""
    for name in ("md5", "sha1", "sha256", "sha512", "blake2b"):
        made = hashlib.new(name, text.encode()).digest()
        yield name, made
        yield f"{name} as hex", made.hex().encode()
        yield f"{name} in base64", base64.b64encode(made)[:-3].lower()


def opened(held: bytes) -> Iterator[bytes]:
    """What lies there, and what lies in it compressed."""
    yield held
    for start in re.finditer(rb"\x28\xb5\x2f\xfd", held):
        with suppress(zstandard.ZstdError):
            yield zstandard.ZstdDecompressor().decompressobj().decompress(held[start.start() :])
    for start in re.finditer(rb"\x78[\x01\x5e\x9c\xda]", held):
        with suppress(zlib.error):
            yield zlib.decompressobj().decompress(held[start.start() :])


def hits(held: bytes, canaries: Sequence[str] = CANARIES) -> list[str]:
    """In which shapes which canaries lie in something."""
    # Where letters are small in either, nothing is overlooked.
    places = [piece.lower() for piece in opened(held)]
    return [
        f"{text} ({name})"
        for text in canaries
        for name, shape in (*forms(text), *digests(text))
        if any(shape.lower() in place for place in places)
    ]


@pytest.mark.parametrize("beside", [b"", b"x", b"xy", b"xyz"])
def test_the_search_finds_what_is_there(beside: bytes) -> None:
    for text in CANARIES:
        around = beside.decode() + text + "behind"
        made = {
            "plain": around.encode(),
            "base64": base64.b64encode(around.encode()),
            "URL-safe base64": base64.urlsafe_b64encode(around.encode()),
            "JSON": json.dumps(around).encode(),
            "URL": quote(around).encode(),
            "hex": around.encode().hex().upper().encode(),
            "UTF-16": around.encode("utf-16"),
            "zstd": beside + zstandard.ZstdCompressor().compress(around.encode()),
            "zlib": beside + zlib.compress(around.encode()),
            "SHA-256": beside + hashlib.sha256(text.encode()).hexdigest().encode(),
        }
        assert [name for name, held in made.items() if not hits(held)] == []
    assert hits(b"nothing of the kind") == []


def planted() -> list[bytes]:
    """The requests of a session in which people and tools say a canary now and then."""
    session = Session()
    for message in session.messages:
        for block in message["content"]:
            if message["role"] == "user" and block["type"] == "text":
                block["text"] = f"{TYPED} {block['text']} {TYPED}"
            elif message["role"] == "user":
                block["content"] = f"{RESULT}\n{block['content']}\n{RESULT}"
    return [encode(body) for body in session.requests()]


def test_what_was_planted_lies_nowhere(
    provider: Provider, start_proxy: StartProxy, connect: Connect, stats: Stats, tmp_path: Path
) -> None:
    provider.models = with_windows({"*": WINDOW})
    folders = [tmp_path / "kept-1", tmp_path / "kept-2"]
    disk = tmp_path / "redis"
    disk.mkdir()
    # Uncompressed, or a text could hide; and every command is written down as it came.
    arguments = ["--dir", str(disk), "--rdbcompression", "no", "--appendonly", "yes"]
    with real_redis(*arguments) as server:
        shared = environment(tmp_path, server)
        pair = [
            start_proxy(
                OPTION,
                PATH,
                "termlog_verbosity=debug",
                environment={**shared, "CONTEXT_CACHE_DIR": str(folder)},
            )
            for folder in folders
        ]
        line, connections = Line(provider, KEY), [connect(proxy) for proxy in pair]
        for turn, body in enumerate(planted()[::2]):
            line.send(connections[turn % 2], body)
        # What is said of what goes wrong must not quote it, either.
        last = line.sent[-1].body
        for odd in (last[:-9], b'{"model":"' + last):
            connections[0].post(PATH, with_key(KEY), odd)

        assert min(stats(proxy)["steps"] for proxy in pair) >= 2
        told = "".join(changed_texts(one.body, one.went) for one in line.sent)
        assert {TYPED, RESULT} <= {text for text in CANARIES if text in told}
        with looking_into(server) as client:
            client.save()
            names = client.keys("*")
            kept = [packed(name, client.dump(name), client.get(name)) for name in names]
        assert len(kept) >= 4
        for held in kept:
            assert hits(held) == []
        written = [path for path in disk.rglob("*") if path.is_file()]
        assert {path.suffix for path in written} >= {".rdb", ".aof"}
        private(folders)
        # A long value is spread over a file's pages, so each is looked at as a whole, too.
        for held in itertools.chain.from_iterable(map(rows, folders)):
            assert hits(held) == []
        look_through([*folders, disk, *(proxy.confdir for proxy in pair)])
        for proxy in pair:
            proxy.stop()
            assert hits(proxy.said().encode()) == []
        look_through(folders)


def test_what_was_planted_is_in_nothing_that_is_shown_beside_the_flows_themselves(
    tmp_path: Path,
) -> None:
    """Pages, figures, options, events, commands, comments and marks, and the command line.

    A model is asked, too; what it says is cut off, so that its failure is told as well.
    """
    with (
        mitmweb_stage.running(
            tmp_path / "mitmweb",
            "termlog_verbosity=debug",
            "condensation_default_strategy=auto",
            "condensation_max_cost=1",
        ) as mitmweb,
        mitmweb.client() as client,
    ):
        mitmweb.provider.summariser = Summariser(sends=cut_off(TYPED.encode()))
        url = f"https://{HOSTS[0]}:{mitmweb.provider.tls_port}/v1/messages?key={quote(KEY)}"
        for body in planted()[:40]:
            headers = {"x-api-key": KEY, "cookie": f"c={KEY}", "content-type": "application/json"}
            client.post(url, content=body, headers=headers)
            client.post(url, content=body[:-9], headers={"authorization": f"Bearer {KEY}"})
        figures = mitmweb.stats()
        assert figures["steps"] >= 2
        assert figures["questions"]["asked"] >= 1
        flows = mitmweb.get("/flows").json()
        shown = {
            "comments": json.dumps([[one["comment"], one["marked"]] for one in flows]).encode(),
            "command line": (mitmweb.proxy.proc / "cmdline").read_bytes(),
        }
        assert "step" in shown["comments"].decode()
        # A content view shows what people said, but no key of theirs.
        views = [f"/flows/{flow['id']}/request/content/mitmcontext" for flow in flows]
        told = b"".join(mitmweb.get(view).content for view in views)
        told += b"".join(mitmweb.get(f"{view}-original").content for view in views)
        assert hits(told, [TYPED]) != []
        assert hits(told, [KEY]) == []
        paths = ("/options", "/events", "/commands", "/context", "/context/figures.json")
        shown |= {path: mitmweb.get(path).content for path in paths}
        for page in ("", "stats.json", "metrics"):
            shown[f"context.mitm/{page}"] = client.get(f"http://context.mitm/{page}").content
        for name in ("stats", "conversations"):
            shown[f"context.{name}"] = json.dumps(mitmweb.call(f"context.{name}")).encode()
        mitmweb.proxy.stop()
        shown["log"] = mitmweb.proxy.said().encode()
    assert {name: found for name, held in shown.items() if (found := hits(held))} == {}


def rows(folder: Path) -> list[bytes]:
    """The keys and values of a database."""
    with closing(sqlite3.connect(f"file:{folder}/ledger.db?mode=ro", uri=True)) as connection:
        found = connection.execute("SELECT key, value FROM entries").fetchall()
    assert len(found) >= 3
    return [held for row in found for held in row]


def private(folders: Iterable[Path]) -> None:
    """See that nobody else may read what is kept."""
    for folder in folders:
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        names = {path.name for path in folder.iterdir()}
        assert names >= {"ledger.db", "ledger.db-wal", "ledger.db-shm"}
        assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}


def look_through(folders: Iterable[Path], canaries: Sequence[str] = CANARIES) -> None:
    """Search every file in some folders."""
    for folder in folders:
        files = [path for path in folder.rglob("*") if path.is_file()]
        assert files
        assert {
            path.name: found for path in files if (found := hits(path.read_bytes(), canaries))
        } == {}
