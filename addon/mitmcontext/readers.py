"""What the text of a setting may be, and the value that it stands for."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Final
from urllib.parse import urlsplit

from mitmcontext.models.windows import SMALLEST, parse_windows

_SIZE: Final = re.compile(r"(\d{1,12})\s*(B|KB|MB|GB)?", re.IGNORECASE)
_UNITS: Final = {"": 1, "B": 1, "KB": 1 << 10, "MB": 1 << 20, "GB": 1 << 30}
# Nobody's request is larger, and so much would have to be held for each one.
_LARGEST: Final = 1 << 30
# More of anything is a slip of the pen, and would be more than any machine holds.
_MOST: Final = 1_000_000_000
_LONGEST_DAYS: Final = 3_650
_LONGEST_TEXT: Final = 4_096
# Not even a tab: what is set goes into names of files and models, and into sentences.
_CONTROL: Final = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")
# Signs of a host's name and of globs, brackets in pairs.
_GLOB: Final = re.compile(r"(?:[^\s/\[\]]|\[!?[^\s/\[\]]+\])+")


class BadSetting(ValueError):
    """A setting holds what it may not hold; the message says what is allowed."""


def plain(value: str) -> str:
    """The same text without what stands around it.

    Raises:
        BadSetting: it holds control characters, or is longer than anything that may be set.
    """
    found = value.strip()
    if _CONTROL.search(found):
        raise BadSetting("must not hold control characters such as line breaks")
    if len(found) > _LONGEST_TEXT:
        raise BadSetting(f"must not be longer than {_LONGEST_TEXT:,} characters")
    return found


def share(text: str) -> float:
    """A share such as 0.8 or 80 %, to a number above 0 and at most 1."""
    number = text.strip()
    try:
        found = float(number.rstrip("% ")) / (100 if number.endswith("%") else 1)
    except ValueError:
        found = 0.0
    if not 0 < found <= 1:
        raise BadSetting("must be a share above 0 and at most 1, such as 0.8 or 80%")
    return found


def size(text: str) -> int:
    """A size such as 32MB or 500000 (bytes; 1 KB is 1,024 bytes), to bytes."""
    match = _SIZE.fullmatch(text.strip())
    found = int(match[1]) * _UNITS[(match[2] or "").upper()] if match else 0
    if not 0 < found <= _LARGEST:
        raise BadSetting("must be a size above 0 and at most 1GB, such as 32MB or 500000")
    return found


def at_least(low: int) -> Callable[[str], int]:
    """A reader of whole numbers that are not below `low`."""

    def read(text: str) -> int:
        if not re.fullmatch(r"\d{1,10}", text.strip()) or not low <= int(text) <= _MOST:
            raise BadSetting(f"must be a whole number of {low} or more, at most {_MOST:,}")
        return int(text)

    return read


def budget(text: str) -> int:
    """A number of tokens, or 0 for none; less than a small window is a slip of the pen."""
    found = at_least(0)(text)
    if 0 < found < SMALLEST:
        raise BadSetting(f"must be 0 (off), or a whole number of {SMALLEST:,} tokens or more")
    return found


def amount(text: str) -> float:
    """A number that is not below 0, such as 0.25."""
    try:
        found = float(text.strip())
    except ValueError:
        found = -1.0
    if not 0 <= found < 1e9:
        raise BadSetting("must be a number of 0 or more, such as 0.25")
    return found


def if_set[T](read: Callable[[str], T]) -> Callable[[str], T | None]:
    """As `read`; None for nothing."""
    return lambda text: read(text) if text.strip() else None


_ON: Final = ("true", "yes", "on", "1")
_OFF: Final = ("false", "no", "off", "0")
_DAYS: Final = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}


def duration(text: str) -> float:
    """A time such as 30d, 12h, 90m or 3600s, to seconds."""
    match = re.fullmatch(r"(\d{1,9})\s*([smhd])?", text.strip().lower())
    found = int(match[1]) * _DAYS[match[2] or "s"] if match else 0
    if not 0 < found <= _LONGEST_DAYS * _DAYS["d"]:
        most = f"at most {_LONGEST_DAYS}d"
        raise BadSetting(f"must be a time above 0 and {most}, such as 30d, 12h, 90m or 3600s")
    return float(found)


def switch(text: str) -> bool:
    """true or false, also as yes or no, on or off, 1 or 0."""
    word = text.strip().lower()
    if word not in (*_ON, *_OFF):
        raise BadSetting("must be true or false")
    return word in _ON


def text(value: str) -> str:
    """Any text."""
    return value.strip()


def one_of(*choices: str) -> Callable[[str], str]:
    """A reader of one word out of several; "" among them stands for none."""
    named = ", ".join(choice for choice in choices if choice)
    allowed = f"empty or one of {named}" if "" in choices else f"one of {named}"

    def read(text: str) -> str:
        if text.strip().lower() not in choices:
            raise BadSetting(f"must be {allowed}")
        return text.strip().lower()

    return read


def people(names: Sequence[str]) -> tuple[str, ...]:
    """Names of proxy users, none of them empty."""
    if not all(name.strip() for name in names):
        raise BadSetting("must be names of proxy users, as proxyauth knows them")
    return tuple(name.strip() for name in names)


def globs(texts: Sequence[str]) -> tuple[str, ...]:
    """Host globs, none of them empty, half a bracket or a whole address."""
    if not all(_GLOB.fullmatch(text.strip()) for text in texts):
        raise BadSetting("must be host globs such as *.example.com")
    return tuple(text.strip().lower() for text in texts)


def windows(texts: Sequence[str]) -> tuple[tuple[str, int], ...]:
    """GLOB=TOKENS pairs."""
    try:
        return parse_windows(texts)
    except ValueError:
        raise BadSetting(
            f"must be GLOB=TOKENS with {SMALLEST:,} tokens or more, such as claude-opus-*=200000"
        ) from None


def address(text: str) -> str:
    """The address of a web server's API, without a credential in it; or nothing."""
    found = text.strip().rstrip("/")
    try:
        parts = urlsplit(found)
        port = parts.port
    except ValueError:
        parts, port = urlsplit(""), 0
    odd = parts.username is not None or parts.query or parts.fragment or port == 0
    if found and (parts.scheme not in ("http", "https") or not parts.hostname or odd):
        raise BadSetting("must be an address such as http://localhost:11434/v1, without a key")
    return found
