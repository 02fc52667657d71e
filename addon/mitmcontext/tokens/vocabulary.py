"""tiktoken on a vocabulary that ships with the package, made safe for hostile text.

tiktoken alone downloads its vocabulary, panics on a million spaces and spends a second on a
million newlines. So the rank tables lie beside this module, and long text is counted in slices.

A cut costs nothing where the encoding's own splitting pattern would begin a new piece anyway:
after a line break and before a space between two words. Only where no such place is in reach (a
run of one letter, base64, Chinese without spaces) is a piece cut in two, which moves the count by
about one token per slice.
"""

from __future__ import annotations

import gzip
import hashlib
import re
from base64 import b64decode
from collections.abc import Iterator
from importlib.resources import files

from tiktoken import Encoding

# sha256 of the unpacked rank tables, the same that tiktoken checks after downloading them.
SHA256 = {
    "o200k_base": "446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d",
    "cl100k_base": "223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7",
}

UPPER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]"
LOWER = r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
CONTRACTION = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"

# The splitting patterns belong to the encodings as the rank tables do (tiktoken 0.14,
# tiktoken_ext/openai_public.py; a test compares them).
PATTERNS = {
    "o200k_base": "|".join(
        [
            r"[^\r\n\p{L}\p{N}]?" + UPPER + "*" + LOWER + "+" + CONTRACTION,
            r"[^\r\n\p{L}\p{N}]?" + UPPER + "+" + LOWER + "*" + CONTRACTION,
            r"\p{N}{1,3}",
            r" ?[^\s\p{L}\p{N}]+[\r\n/]*",
            r"\s*[\r\n]+",
            r"\s+(?!\S)",
            r"\s+",
        ]
    ),
    "cl100k_base": (
        r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+"
        r"| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$|\s*[\r\n]|\s+(?!\S)|\s"
    ),
}

# In characters. Long enough that slicing is rarely felt, short enough that the splitting pattern
# never backtracks deep enough to overflow, and that no single call holds anything up.
SLICE = 16_384

# Both encodings end a piece after the last line break of a run of white space, and a "/" may
# still belong to the punctuation before it.
AFTER_LINE = re.compile(r"\n(?=[ \t]*[^\s/])")
BETWEEN_WORDS = re.compile(r"(?<=[A-Za-z0-9])(?= [A-Za-z0-9])")
LOOKAHEAD = 256  # in characters behind a cut; few lines are indented deeper


def load(name: str) -> Encoding:
    """The encoding of that name. Takes 0.3 to 0.8 s and 80 MB: call it in a thread, once.

    Raises ValueError when the name is unknown or the rank table is not the expected one.
    """
    if name not in SHA256:
        raise ValueError(f"no vocabulary named {name!r}; there are: {', '.join(SHA256)}")
    return Encoding(
        name=name,
        pat_str=PATTERNS[name],
        mergeable_ranks=dict(_ranks(_rank_table(name))),
        # None: what looks like a special token in somebody's text is counted as the text it is.
        special_tokens={},
    )


def _rank_table(name: str) -> bytes:
    packed = files(__package__).joinpath("data", f"{name}.tiktoken.gz").read_bytes()
    table = gzip.decompress(packed)
    if hashlib.sha256(table).hexdigest() != SHA256[name]:
        raise ValueError(f"the rank table of {name} is damaged: its sha256 is not the expected one")
    return table


def _ranks(table: bytes) -> Iterator[tuple[bytes, int]]:
    """One line of the table is the token in base64, a space and its rank."""
    for line in table.splitlines():
        token, rank = line.split()
        yield b64decode(token), int(rank)


def count(encoding: Encoding, text: str) -> int:
    """The number of tokens in `text`, special tokens taken as ordinary text.

    Exact for text with line breaks or spaced words; elsewhere within about one token per 16,384
    characters. Lone surrogates count as the replacement character.
    """
    return sum(len(encoding.encode_ordinary(piece)) for piece in slices(text))


def slices(text: str, size: int = SLICE) -> Iterator[str]:
    """`text` in order, in stretches of at most `size` characters, cut where it costs least."""
    start = 0
    while len(text) - start > size:
        end = _cut(text, start, start + size)
        yield text[start:end]
        start = end
    yield text[start:]


def _cut(text: str, start: int, high: int) -> int:
    """The last good place to cut before `high`, or `high` where there is none.

    Most text has one near the end of the slice; the longer search is for what has not.
    """
    for reach in ((high - start) // 16, (high - start) // 2):
        for pattern in (AFTER_LINE, BETWEEN_WORDS):
            if end := _last(pattern, text, high - reach, high):
                return end
    return high


def _last(pattern: re.Pattern[str], text: str, low: int, high: int) -> int | None:
    """Where the last match that ends within `low`..`high` ends."""
    end = None
    for match in pattern.finditer(text, low, high + LOOKAHEAD):
        if match.end() > high:
            break
        end = match.end()
    return end
