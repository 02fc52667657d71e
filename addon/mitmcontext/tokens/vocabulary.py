"""tiktoken on a vocabulary that ships with the package, made safe for hostile text.

tiktoken alone downloads its vocabulary, panics on a million spaces and spends a second on a
million newlines. So the rank tables lie beside this module, and long text is counted in slices.

A cut costs nothing where the encodings' own splitting patterns would begin a new piece anyway: that
is so behind a letter or digit where punctuation or white space follows, and between a letter and a
digit. Text without any such place for 16,384 characters (a run of one letter, of spaces or emoji)
is cut where it is, which moves the count by at most about one token per slice.

The patterns look ahead only to leave a word the last of the spaces before it, and for that alone
they are matched step by step, which is slow. So the other spaces of such a run are counted for
themselves and left out of the text: what is left has the same pieces without looking ahead. The
tokens themselves nobody wants, so they stay in tiktoken's own buffer, and none becomes an object.

gigatoken (`pip install 'mitmcontext[fast]'`, `context_tokenizer=gigatoken`) counts several times
faster and to the same result, but holds the interpreter for most of a second while it loads.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import re
import threading
import zipfile
from binascii import a2b_base64
from collections import Counter
from collections.abc import Buffer, Callable, Iterator, Set, Sized
from functools import partial
from importlib import import_module
from importlib.resources import as_file, files
from typing import Final, Protocol

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

# The same patterns without looking ahead, and in a form that needs no steps back.
QUICK: Final = {
    "o200k_base": PATTERNS["o200k_base"].replace(r"|\s+(?!\S)", ""),
    "cl100k_base": (
        r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
        r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s+$|\s*[\r\n]|\s+"
    ),
}
# How the name of such an encoding ends.
_IS_QUICK: Final = ", without looking ahead"
# Without any special token the buffer's method looks for it at every character.
_SPECIAL: Final = "<|mitmcontext|>"
# Behind tiktoken's encode_to_numpy since 0.8, which wants numpy.
_BUFFER: Final = "encode_to_tiktoken_buffer"
_TOKEN_BYTES: Final = 4
_NOTHING: Final = frozenset[str]()
# White space but for line ends as the encodings take it: Python counts four characters more.
_ODD: Final = r"\x0b\x0c\x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
_SPACE: Final = rf"[\t {_ODD}]"
_WORD: Final = rf"(?=[^\t\r\n {_ODD}])"
# A run before a word: all but its last character, and that one.
_RUN: Final = re.compile(rf"(?<!{_SPACE})({_SPACE}+)({_SPACE}){_WORD}")
# Nearly all runs are of plain spaces, and found several times as fast. So many are one token.
_SPACES: Final = re.compile("  ++" + _WORD)
ONE_TOKEN: Final = 79
# What makes that too simple: tabs beside other space, longer runs, other kinds of space.
_PAIRS: Final = ("\t\t", " \t", "\t ")
_LONG: Final = " " * (ONE_TOKEN + 2)
_ODD_SPACE: Final = re.compile(f"[{_ODD}]")

# In characters. Long enough that slicing is rarely felt, short enough that the splitting pattern
# never backtracks deep enough to overflow, and that no single call holds anything up.
SLICE = 16_384

# The last place in a stretch where a cut costs nothing. An apostrophe may belong to the letters
# before it ("it's"), an underscore is no letter to the encodings but one to Python.
CUT = re.compile(
    r"""(?s:.*)(?:[^\W_](?=[ \t\r\n!"#$%&()*+,\-./:;<=>?@[\\\]^_`{|}~，。！？；：、])"""
    r"""|[A-Za-z](?=[0-9])|[0-9](?=[A-Za-z]))"""
)
# So far back from the end of a slice it is looked for.
REACH = 4_096

CHARACTERS: Final = "characters"
"""The name of an encoding that only counts characters."""

TIKTOKEN: Final = "tiktoken"
FAST: Final = "gigatoken"
# Its memory of words grows by some five bytes for each character of text that is nothing but new
# words. So many characters it reads before it begins afresh.
AFRESH: Final = 64 << 20


Encode = Callable[[str, Set[str]], Buffer]
"""A text, and the special tokens that may be in it, to tokens of four bytes each."""


class Encoder(Protocol):
    """What turns text into tokens."""

    def encode_ordinary(self, text: str, /) -> Sized:
        """The tokens of a text, special tokens taken as ordinary text."""


def load(name: str, engine: str = TIKTOKEN) -> Encoder:
    """The encoding of that name. Takes 0.3 to 1 s and 80 MB: call it in a thread, once.

    Args:
        name: of the encoding.
        engine: "tiktoken" or "gigatoken".

    Raises:
        ValueError: the name is unknown, or the rank table is not the expected one.
        ImportError: this engine is not installed.
    """
    if name == CHARACTERS:
        return _Characters()
    if name not in SHA256:
        raise ValueError(f"no vocabulary named {name!r}; there are: {', '.join(SHA256)}")
    if engine == FAST:
        return _Fast(name)
    quick = _quick_encoding(name)
    # It is none of tiktoken's promises, and another version may have it otherwise.
    return quick if _buffered(quick) is not None else tiktoken_encoding(name)


def tiktoken_encoding(name: str) -> Encoding:
    """tiktoken's own encoding, built from our table."""
    return Encoding(
        name=name,
        pat_str=PATTERNS[name],
        mergeable_ranks=dict(_ranks(_rank_table(name))),
        # None: what looks like a special token in somebody's text is counted as the text it is.
        special_tokens={},
    )


def _quick_encoding(name: str) -> Encoding:
    """One that finds the same pieces, but for runs of spaces before words."""
    ranks = dict(_ranks(_rank_table(name)))
    return Encoding(
        name=name + _IS_QUICK,
        pat_str=QUICK[name],
        mergeable_ranks=ranks,
        special_tokens={_SPECIAL: max(ranks.values()) + 1},
    )


def _buffered(encoding: Encoding) -> Encode | None:
    return getattr(getattr(encoding, "_core_bpe", None), _BUFFER, None)


class _Characters:
    """No vocabulary: a token is four characters."""

    def encode_ordinary(self, text: str, /) -> Sized:
        """So many numbers as there may be tokens."""
        return range(-(-len(text) // 4))


class _Fast:
    """gigatoken, which remembers the words that it saw."""

    _SCHEMES: Final = {"o200k_base": "o200k", "cl100k_base": "cl100k"}

    def __init__(self, name: str) -> None:
        self._name = name
        # Its tokenizer belongs to one thread at a time, and says so by an error.
        self._lock = threading.Lock()
        self._load()

    def _load(self) -> None:
        table = io.BytesIO()
        # It reads nothing but files.
        with zipfile.ZipFile(table, "w") as packed:
            packed.writestr(self._name, _rank_table(self._name))
            with as_file(zipfile.Path(packed, self._name)) as path:
                self._tokenizer = import_module(FAST).Tokenizer.from_tiktoken(
                    path, pretokenizer=self._SCHEMES[self._name], special_tokens={}
                )
        self._left = AFRESH

    def encode_ordinary(self, text: str, /) -> Sized:
        """The tokens of a text; lone surrogates count as the replacement character."""
        with self._lock:
            return self._encode(text)

    def _encode(self, text: str) -> Sized:
        self._left -= len(text)
        if self._left < 0:
            self._load()
        try:
            tokens: Sized = self._tokenizer.encode(text)
        except TypeError:
            tokens = self._tokenizer.encode(_readable(text))
        return tokens


def _readable(text: str) -> str:
    """The text with replacement characters for lone surrogates, as tiktoken itself does it."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _rank_table(name: str) -> bytes:
    packed = files(__package__).joinpath("data", f"{name}.tiktoken.gz").read_bytes()
    table = gzip.decompress(packed)
    if hashlib.sha256(table).hexdigest() != SHA256[name]:
        raise ValueError(f"the rank table of {name} is damaged: its sha256 is not the expected one")
    return table


def _ranks(table: bytes) -> Iterator[tuple[bytes, int]]:
    """One line of the table is the token in base64, a space and its rank."""
    for line in table.splitlines():
        token, _, rank = line.partition(b" ")
        yield a2b_base64(token), int(rank)


def count(encoding: Encoder, text: str) -> int:
    """The number of tokens in `text`, special tokens taken as ordinary text.

    Exact but for text without anything to cut at: there within about one token per 16,384
    characters. Lone surrogates count as the replacement character.
    """
    return counting(encoding)(text)


def counting(encoding: Encoder) -> Callable[[str], int]:
    """What counts texts as `count` does, for whoever has many: most are short."""
    count_piece = partial(_count, encoding)
    # By its name: tiktoken's own objects outlive a reload, a class of ours would not.
    if isinstance(encoding, Encoding) and encoding.name.endswith(_IS_QUICK):
        encode = _buffered(encoding)
        if encode is not None:
            count_piece = partial(_count_quick, encode)

    def count_text(text: str) -> int:
        if len(text) <= SLICE:
            return count_piece(text)
        return sum(map(count_piece, slices(text)))

    return count_text


def _count(encoding: Encoder, text: str) -> int:
    return len(encoding.encode_ordinary(text))


def _count_quick(encode: Encode, text: str) -> int:
    if _has_plain_runs(text):
        left, tokens = _SPACES.subn(" ", text) if "  " in text else (text, 0)
    else:
        runs = Counter(run for run, _ in _RUN.findall(text))
        tokens = sum(count * _sized(encode, run) for run, count in runs.items())
        left = _RUN.sub(r"\2", text)
    return tokens + _sized(encode, left)


def _has_plain_runs(text: str) -> bool:
    """Whether all runs before words are of plain spaces, and their tokens known."""
    if "\t" in text and any(pair in text for pair in _PAIRS):
        return False
    if _LONG in text or "\x0b" in text or "\x0c" in text:
        return False
    return text.isascii() or _ODD_SPACE.search(text) is None


def _sized(encode: Encode, text: str) -> int:
    try:
        tokens = encode(text, _NOTHING)
    except UnicodeEncodeError:
        tokens = encode(_readable(text), _NOTHING)
    return memoryview(tokens).nbytes // _TOKEN_BYTES


def slices(text: str, size: int = SLICE) -> Iterator[str]:
    """`text` in order, in stretches of at most `size` characters, cut where it costs least."""
    start = 0
    while len(text) - start > size:
        end = _cut(text, start, start + size)
        yield text[start:end]
        start = end
    yield text[start:]


def _cut(text: str, start: int, high: int) -> int:
    """The last good place to cut up to `high`, or `high` where there is none in reach."""
    # One character further, since what follows decides.
    found = CUT.match(text, max(start, high - REACH), high + 1)
    return found.end() if found else high
