"""Content encodings: what goes in comes out, and no body however made costs much."""

from __future__ import annotations

import contextlib
import functools
import gzip
import random
import time
import tracemalloc
import zlib
from collections.abc import Callable
from typing import Any

import brotli  # type: ignore[import-untyped]
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from mitmcontext.proxy import bodies
from mitmcontext.proxy.bodies import decode, decoder, encode
from mitmcontext.values import Unreadable

MB = 2**20
ENCODINGS = [None, "", "identity", "gzip", "x-gzip", "GZIP", " gzip ", "deflate", "br", "zstd"]
JSON = b'{"messages": [{"role": "user", "content": "hello, hello, hello"}]}'


def gzipped(body: bytes) -> bytes:
    """The same bytes at any time, since workers that name a test differently run none."""
    return gzip.compress(body, mtime=0)


def raw_deflate(body: bytes) -> bytes:
    return zlib.compress(body, wbits=-zlib.MAX_WBITS)


def streamed_zstd(body: bytes) -> bytes:
    """A frame that does not say how long its content is."""
    compress = zstandard.ZstdCompressor().compressobj()
    return compress.compress(body) + compress.flush()


@pytest.mark.parametrize("encoding", ENCODINGS)
@given(body=st.binary())
def test_encoding_and_decoding_is_the_identity(encoding: str | None, body: bytes) -> None:
    assert decode(encode(body, encoding), encoding, len(body)) == body


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "zstd"])
@given(body=st.binary(), sizes=st.lists(st.integers(1, 50), min_size=1))
def test_how_a_body_is_cut_into_pieces_does_not_matter(
    encoding: str, body: bytes, sizes: list[int]
) -> None:
    raw, undo, out = encode(body, encoding), decoder(encoding), b""
    while raw:
        size = sizes[len(raw) % len(sizes)]
        out += undo.feed(raw[:size], MB)
        raw = raw[size:]
    assert out == body
    assert undo.complete


@pytest.mark.parametrize(
    ("encoding", "raw"),
    [
        pytest.param("gzip", gzipped(JSON[:20]) + gzipped(JSON[20:]), id="two members"),
        pytest.param("deflate", zlib.compress(JSON), id="deflate as the standard says"),
        pytest.param("deflate", raw_deflate(JSON), id="deflate as some clients send it"),
        pytest.param("br", brotli.compress(JSON), id="br at its highest level"),
        pytest.param("zstd", streamed_zstd(JSON), id="zstd without a content size"),
        pytest.param("zstd", streamed_zstd(JSON[:9]) + streamed_zstd(JSON[9:]), id="two frames"),
        pytest.param(
            "zstd", zstandard.ZstdCompressor(level=19).compress(JSON), id="zstd, level 19"
        ),
        pytest.param(
            "zstd", zstandard.ZstdCompressor(write_checksum=True).compress(JSON), id="checksum"
        ),
    ],
)
def test_every_usual_form_of_an_encoding_is_read(encoding: str, raw: bytes) -> None:
    assert decode(raw, encoding, MB) == JSON


def test_deflate_keeps_the_form_in_which_it_came() -> None:
    for raw in (zlib.compress(JSON), raw_deflate(JSON)):
        again = encode(JSON + b" ", "deflate", like=raw)
        assert bodies.zlib_or_raw(again) == bodies.zlib_or_raw(raw)
        assert decode(again, "deflate", MB) == JSON + b" "


def test_zstd_says_how_long_its_content_is() -> None:
    assert zstandard.frame_content_size(encode(JSON, "zstd")) == len(JSON)


@pytest.mark.parametrize(
    ("encoding", "raw", "sentence"),
    [
        pytest.param("gzip, br", gzipped(JSON), bodies.STACKED, id="two encodings"),
        pytest.param("gzip, identity", gzipped(JSON), bodies.STACKED, id="one and none"),
        pytest.param("compress", JSON, bodies.UNKNOWN, id="an old encoding"),
        pytest.param("none", JSON, bodies.UNKNOWN, id="no encoding's name"),
        pytest.param("gzip", JSON, bodies.LYING, id="gzip that is plain"),
        pytest.param("gzip", zlib.compress(JSON), bodies.LYING, id="gzip that is deflate"),
        pytest.param("deflate", gzipped(JSON), bodies.LYING, id="deflate that is gzip"),
        pytest.param("br", JSON, bodies.LYING, id="br that is plain"),
        pytest.param("zstd", JSON, bodies.LYING, id="zstd that is plain"),
        pytest.param("gzip", gzipped(JSON)[:-8] + bytes(8), bodies.LYING, id="a wrong checksum"),
        pytest.param("gzip", gzipped(JSON) + b"tail", bodies.LYING, id="text behind gzip"),
        pytest.param("gzip", gzipped(JSON) + bytes(512), bodies.LYING, id="noughts behind gzip"),
        pytest.param(
            "deflate", zlib.compress(JSON) + b"tail", bodies.TRAILING, id="text behind deflate"
        ),
        pytest.param(
            "deflate", raw_deflate(JSON) + b"tail", bodies.TRAILING, id="text behind raw deflate"
        ),
        pytest.param("br", encode(JSON, "br") + b"tail", bodies.LYING, id="text behind br"),
        pytest.param("zstd", encode(JSON, "zstd") + b"tail!", bodies.LYING, id="text behind zstd"),
        pytest.param("gzip", gzipped(b"") * 1001, bodies.TRAILING, id="too many members"),
        pytest.param("zstd", encode(b"", "zstd") * 1001, bodies.TRAILING, id="too many frames"),
    ],
)
def test_what_is_not_one_body_in_one_known_encoding_is_unreadable(
    encoding: str, raw: bytes, sentence: str
) -> None:
    with pytest.raises(Unreadable, match=f"^{sentence}$"):
        decode(raw, encoding, MB)


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "zstd"])
def test_a_body_cut_off_anywhere_is_unreadable(encoding: str) -> None:
    raw = encode(JSON, encoding)
    for end in range(len(raw)):
        with pytest.raises(Unreadable):
            decode(raw[:end], encoding, MB)


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "zstd"])
@given(noise=st.binary(max_size=300))
def test_noise_is_unreadable_or_something_but_never_another_error(
    encoding: str, noise: bytes
) -> None:
    for raw in (noise, encode(JSON, encoding)[:12] + noise):
        with contextlib.suppress(Unreadable):
            decode(raw, encoding, MB)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_the_limit_is_exact(encoding: str | None) -> None:
    raw = encode(JSON * 1000, encoding)
    assert len(decode(raw, encoding, len(JSON) * 1000)) == len(JSON) * 1000
    with pytest.raises(Unreadable, match=bodies.TOO_LARGE):
        decode(raw, encoding, len(JSON) * 1000 - 1)


@functools.cache
def bomb(encoding: str) -> bytes:
    """A gigabyte of zeros as zstd, 256 MiB of the others for the time it takes to make one."""
    if encoding == "br":
        return bytes(brotli.compress(bytes(256 * MB), quality=5))
    size = 1024 if encoding == "zstd" else 256
    makers: dict[str, Callable[[], Any]] = {
        "gzip": lambda: zlib.compressobj(9, wbits=31),
        "deflate": lambda: zlib.compressobj(9),
        "zstd": lambda: zstandard.ZstdCompressor().compressobj(),
    }
    compress = makers[encoding]()
    return b"".join([*(compress.compress(bytes(MB)) for _ in range(size)), compress.flush()])


def noise_and_bomb(encoding: str) -> bytes:
    """Noise in a member of its own makes the ratio plausible: only the limit is left to stop it."""
    return encode(random.Random(0).randbytes(200_000), encoding) + bomb(encoding)


@pytest.mark.parametrize(
    ("encoding", "make"),
    [
        ("gzip", bomb),
        ("deflate", bomb),
        ("br", bomb),
        ("zstd", bomb),
        ("gzip", noise_and_bomb),
        ("zstd", noise_and_bomb),
    ],
)
def test_a_bomb_is_refused_quickly_and_with_little_memory(
    encoding: str, make: Callable[[str], bytes]
) -> None:
    raw = make(encoding)
    tracemalloc.start()
    began = time.perf_counter()
    try:
        with pytest.raises(Unreadable, match=bodies.TOO_LARGE):
            decode(raw, encoding, 32 * MB)
        seconds = time.perf_counter() - began
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert seconds < 1
    assert peak < 64 * MB


def test_a_repetitive_body_of_a_megabyte_is_no_bomb() -> None:
    for encoding in ("gzip", "br", "zstd"):
        assert decode(encode(b" " * 5 * MB, encoding), encoding, 32 * MB) == b" " * 5 * MB
