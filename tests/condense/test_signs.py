"""No sign falls apart where a text is cut."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from mitmcontext.condense.blocks import blocks_of
from mitmcontext.condense.signs import before_a_sign

UNICODE = Path(__file__).parents[2] / "../shared/data/fuzz/unicode/unicode.tar.gz"
WHOLE = (
    "👩‍👩‍👧‍👦",
    "🏳️‍🌈",
    "👍🏽",
    "🇪🇺",
    "e\u0301\u0323",
    "각",
    "นี้",
    "षि",
    "1\ufe0f\u20e3",
)


@pytest.mark.parametrize("sign", WHOLE)
def test_a_sign_is_never_cut(sign: str) -> None:
    text = f"a{sign}b{sign} {sign}c"
    starts = [at for at in range(len(text)) if text.startswith(sign, at)]
    inside = {at for start in starts for at in range(start + 1, start + len(sign))}
    for at in range(len(text) + 1):
        assert before_a_sign(text, at) not in inside
        assert before_a_sign(text, at) <= at


def test_what_is_plain_is_cut_anywhere() -> None:
    text = "plain text, Ünïcödé, 田中さん, Ελληνικά, 🙂🙃"
    assert [before_a_sign(text, at) for at in range(len(text) + 1)] == [*range(len(text) + 1)]


def test_a_pile_of_marks_is_cut() -> None:
    assert before_a_sign("e" + "\u0301" * 500, 300) == 300


def test_a_long_line_without_any_space_keeps_its_signs() -> None:
    line = WHOLE[0] * 3_000
    cuts = blocks_of(line)
    assert len(cuts) > 3
    assert {start % len(WHOLE[0]) for start, _ in cuts} == {0}


def of_unicode() -> Iterator[str]:
    """The emoji of several characters that Unicode lists."""
    with tarfile.open(UNICODE) as archive:
        [member] = [one for one in archive if one.name.endswith("emoji-zwj-sequences.txt")]
        file = archive.extractfile(member)
        for line in file.read().decode().splitlines() if file else ():
            if line and not line.startswith("#"):
                yield "".join(chr(int(code, 16)) for code in line.split(";")[0].split())


def test_all_joined_emoji_stay_whole() -> None:
    if not UNICODE.exists():
        pytest.skip("needs Unicode's lists")
    signs = list(of_unicode())
    assert len(signs) > 1_000
    for sign in signs:
        text = f"{sign} {sign}"
        assert {before_a_sign(text, at) for at in range(1, len(sign))} == {0}
