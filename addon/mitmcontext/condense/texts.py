"""The words that take the place of what was shortened.

They are written for the model that reads them: what stood there, what is left, and how to get the
rest back. The same original always gives the same words, so a prefix stays the same to the byte.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from functools import partial
from itertools import islice
from typing import Final, NamedTuple

import msgspec

from mitmcontext.condense.signs import before_a_sign
from mitmcontext.values import Kind, Message, Part, Picture

OPENING: Final = "[mitmcontext:"
"""How each text of ours begins. A client's own may begin so too, and is nothing special."""

_HEAD: Final = 500
_TAIL: Final = 300
_RESULT: Final = 80
_NAME_OF_CALL: Final = 160
_LATER: Final = " [... said again later]"
# Names that a later turn may ask for: paths, dotted and snake_case names, CamelCase, hex digests.
# Words are taken first, without backtracking, since tool results may hold a megabyte of one letter.
_WORD: Final = re.compile(r"[\w~./-]++")
# The same of ASCII, where what is in no word becomes a space: several times as fast.
_WORDS: Final = bytes(
    byte if byte < 0x80 and (chr(byte).isalnum() or chr(byte) in "_~./-") else 0x20
    for byte in range(256)
)
_NO_ASCII: Final = re.compile(r"[^\x00-\x7f]+")
_NAME: Final = re.compile(
    r"[\w~.-]*+/[\w./~-]*+|[^\W_]++(?:[._]++[^\W_]++)++|[A-Z][a-z0-9]++(?:[A-Z][a-z0-9]*+)++"
    r"|[0-9a-f]{7,40}"
)
# What has the form of a name and is a figure: 29.148Z, 146.5ms.
_FIGURE: Final = re.compile(r"[0-9]++[._][0-9]++[A-Za-z]{0,2}+")
_SEARCHED: Final = 6_000
_NAMES: Final = 200
_NAME_LENGTH: Final = range(5, 81)


class Excerpt(NamedTuple):
    """What is left of a result: a text and its stretches that stay, in order, not touching.

    The text is without the numbers of its lines, of which there were `numbers`.
    """

    text: str
    kept: Sequence[tuple[int, int]]
    numbers: int


class Saying(NamedTuple):
    """How much a note keeps of what the model said: characters of prose, and of a call."""

    prose: int
    call: int


AT_LENGTH: Final = Saying(160, 3_000)
IN_SHORT: Final = Saying(120, 160)


def stub(part: Part, excerpt: Excerpt, names: str) -> str:
    """What takes the place of an old tool result of which some lines stay.

    Args:
        part: the whole result.
        excerpt: what stays.
        names: an index of what was left out.
    """
    lines = part.text.count("\n") + 1
    numbers = ", line numbers left out" if excerpt.numbers else ""
    said = f"{len(part.text):,} characters, {lines:,} lines{numbers}{_beside(part)}"
    opening = (
        f"{OPENING} shortened from {said}, sha256 {_sha(part.text)}; run the call again to see all]"
    )
    pieces = [opening, *_pieces(excerpt)]
    if names:
        pieces.append(f"[names in what was left out: {names}]")
    return "\n".join(pieces)


def brief_stub(part: Part, names: str = "") -> str:
    """The strongest form of a stub: that something stood there, and how to get it back."""
    held = f"; it named {names}" if names else ""
    return (
        f"{OPENING} a result of {len(part.text):,} characters{_beside(part)} was removed, sha256 "
        f"{_sha(part.text)}{held}. Run the call again to see it.]"
    )


def with_images(part: Part) -> str:
    """What images a part shows: "an image of 1280x800 pixels", "2 images"; "" where it has none."""
    if part.images > 1:
        return f"{part.images:,} images"
    if not part.images:
        return ""
    size = part.pictures[0] if part.pictures else Picture()
    return f"an image of {size.width}x{size.height} pixels" if size.width else "an image"


def _beside(part: Part) -> str:
    return f", with {with_images(part)}" if part.images else ""


def excerpt_at_birth(part: Part, excerpt: Excerpt, names: str) -> str:
    """What takes the place of a new and large result of which some lines stay.

    It does not begin as the others do: a later step may shorten it further.
    """
    pieces = [*_pieces(excerpt)]
    if names:
        pieces.append(f"[names in what was left out: {names}]")
    pieces.append(
        f"[mitmcontext left out what is missing: the whole result has {len(part.text):,} "
        f"characters, sha256 {_sha(part.text)}; make the very same call again to see all of it]"
    )
    return "\n".join(pieces)


def environment_stub(part: Part) -> str:
    """What takes the place of an environment block that a newer one follows."""
    return (
        f"{OPENING} an older environment block of {len(part.text):,} characters was removed, "
        f"sha256 {_sha(part.text)}. A newer one follows.]"
    )


def quoted(part: Part, excerpt: Excerpt, names: str) -> str:
    """A result in a note, every line set in, so that nothing in it can pass for a line of ours."""
    lines = [f"  {line}" for piece in _pieces(excerpt) for line in _lines(piece)]
    if names:
        lines.append(f"  [names in what was left out: {names}]")
    whole = excerpt.kept == [(0, len(excerpt.text))]
    size = f"of {len(part.text):,} characters{_beside(part)}, sha256 {_sha(part.text)}"
    said = _beside(part) if whole else f" ({size})"
    return "\n".join([f"  Result{said}:", *lines])


def quoted_briefly(part: Part, names: str) -> str:
    """A result in a note of which no line stays."""
    if names:
        return f"  Result (of {len(part.text):,} characters{_beside(part)}) naming: {names}"
    return f"  Result{_beside(part)}: {_clip(part.text, _RESULT)}"


def _lines(text: str) -> list[str]:
    """The lines of a text, by whatever some reader may take for the end of one."""
    return text.splitlines() or [""]


def _pieces(excerpt: Excerpt) -> Iterator[str]:
    """The stretches that stay, and a line where something is missing."""
    text, at = excerpt.text, 0
    for start, end in (*excerpt.kept, (len(text), len(text))):
        if start > at:
            yield _gap(text, at, start)
        if end > start:
            yield text[start:end].removesuffix("\n")
        at = end


def _gap(text: str, start: int, end: int) -> str:
    lines = text.count("\n", start, end)
    if not lines:
        return f"[... {end - start:,} characters ...]"
    return f"[... {lines:,} lines ...]" if lines > 1 else "[... 1 line ...]"


def is_ours(text: str) -> bool:
    """Whether a text begins as ours do."""
    return text.startswith(OPENING)


def fold_opening(messages: int) -> str:
    """The first line of a note that takes the place of so many messages."""
    return (
        f"{OPENING} {messages:,} earlier messages of this conversation were condensed into this "
        "note to save context. It is a record of what happened, not a new request. Lines that are "
        "set in are what the assistant called and what tools gave back.]"
    )


def note(
    messages: Iterable[tuple[int, Message]],
    saying: Saying,
    newer: Container[str],
    result: Callable[[int, int], str | None],
) -> str:
    """What a fold keeps of one unit: typed text word for word, of all else the most telling.

    Args:
        messages: of the unit, with their indices.
        saying: how much stays of what the model said and called.
        newer: lines, without spaces around them, that stand in what the model said later.
        result: message and part to what is to be said of that result, None for a line of it.
    """
    return "\n".join(
        line
        for at, message in messages
        for index, part in enumerate(message.parts)
        for line in _note(part, saying, newer, partial(result, at, index))
    )


def typed_note(messages: Iterable[Message]) -> str:
    """What is kept of a unit that is dropped: only what a person typed."""
    return "\n".join(
        _typed(part.text)
        for message in messages
        for part in message.parts
        if part.kind == Kind.TYPED
    )


def clipped_note(messages: Iterable[Message]) -> str:
    """As `typed_note`, each text cut to head and tail: only where nothing else makes it fit."""
    return "\n".join(
        _typed(_clip(part.text, _HEAD + _TAIL))
        for message in messages
        for part in message.parts
        if part.kind == Kind.TYPED
    )


def _note(
    part: Part, saying: Saying, newer: Container[str], result: Callable[[], str | None]
) -> Iterator[str]:
    match part.kind:
        case Kind.TYPED:
            yield _typed(part.text)
        case Kind.PROSE if part.text.strip():
            yield f"- The assistant wrote: {_prose(part.text, saying, newer)}"
        case Kind.CALL:
            yield f"- The assistant called {_call(part, saying.call, newer)}"
        case Kind.RESULT if part.text.strip():
            said = result()
            yield quoted_briefly(part, "") if said is None else said
        case Kind.RESULT if part.images:
            yield f"  Result: {with_images(part)}"
        case Kind.IMAGE:
            yield f"- {with_images(part).capitalize() or 'An image'} was shown."
        case Kind.DOCUMENT:
            yield "- A document was shown."
        case _:
            pass


def _prose(text: str, saying: Saying, newer: Container[str]) -> str:
    """What the agent wrote, clipped; commands in fences stay like calls, line by line."""
    pieces = text.split("```")
    if len(pieces) < 3:
        return _clip(text, saying.prose)
    said = _clip(" ".join(pieces[::2]), saying.prose)
    return "\n".join([said, *(_set_in(code, saying.call, newer) for code in pieces[1::2])])


def _call(part: Part, size: int, newer: Container[str]) -> str:
    """A call: its name and its arguments as they read without JSON's escapes, line by line."""
    given = part.text[len(part.name) :].strip()
    try:
        found = msgspec.json.decode(given.encode("utf-8", "replace"))
    except (msgspec.MsgspecError, RecursionError):
        found = None
    if size < AT_LENGTH.call or not isinstance(found, dict):
        return _clip(part.text, size)
    lines = [
        f"{key}: {value if isinstance(value, str) else msgspec.json.encode(value).decode()}"
        for key, value in found.items()
    ]
    return f"{_clip(part.name, _NAME_OF_CALL)}\n{_set_in('\n'.join(lines), size, newer)}"


def _set_in(text: str, size: int, newer: Container[str]) -> str:
    """Lines of the agent's own, each set in by a space; of a long text beginning and end."""
    lines: list[str] = []
    for line in text.splitlines():
        bare = line.strip()
        if bare in newer:
            if lines[-1:] != [_LATER]:
                lines.append(_LATER)
        elif bare:
            lines.append(f" {line}")
    kept = "\n".join(lines)
    if len(kept) <= size:
        return kept
    head, tail = kept[: size * 2 // 3], kept[-size // 3 :]
    return f"{head[: head.rfind('\n') + 1 or None]} [...]\n {tail.partition('\n')[2] or tail}"


def _typed(text: str) -> str:
    """Typed text, every line marked, so that nothing in it can pass for a line of ours."""
    return "The user wrote:\n" + "\n".join(f"> {line}" for line in text.split("\n"))


def _clip(text: str, size: int) -> str:
    """The text on one line, at most about `size` characters: its beginning and its end."""
    # So many words, with a space between, are longer than that: of more, the middle is not shown.
    most = size // 2 + 2
    head = text.split(None, most)
    if len(head) <= most:
        line = " ".join(head)
        if len(line) <= size:
            return line
        return _ends(line, line, size)
    return _ends(" ".join(head[:most]), " ".join(text.rsplit(None, most)[1:]), size)


def _ends(head: str, tail: str, size: int) -> str:
    """What a line begins and ends with."""
    until, since = before_a_sign(head, size * 2 // 3), len(tail) - -(-size // 3)
    return f"{head[:until]} [...] {tail[before_a_sign(tail, since) :]}"


def _sha(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:8]


def decoded(part: Part) -> str:
    """The text of a part; of a call's arguments, near enough what they are without escapes."""
    if part.kind != Kind.CALL:
        return part.text
    return part.text.replace("\\n", "\n").replace('\\"', '"').replace("\\t", "\t")


def names_in(text: str, known: dict[str, bool] | None = None) -> Iterator[str]:
    """The names in a text, the most frequent first; of those alike, what stands first.

    Args:
        text: of which only the beginning is searched.
        known: which words are names, as far as it was asked before; is added to.
    """
    counts = Counter(_words(text))
    words = sorted(counts, key=counts.__getitem__, reverse=True)
    # Looked at only as far down as somebody asks.
    return islice(_names(words, {} if known is None else known), _NAMES)


def _names(words: Iterable[str], known: dict[str, bool]) -> Iterator[str]:
    for word in words:
        named = known.get(word)
        if named is None:
            named = known[word] = _is_name(word)
        if named:
            yield word


def _is_name(word: str) -> bool:
    # Most words are none by their letters alone: small ones, not all of them hexadecimal.
    if len(word) not in _NAME_LENGTH or (
        word.isalpha() and word.islower() and word.strip("abcdef")
    ):
        return False
    return _NAME.fullmatch(word) is not None and not _FIGURE.fullmatch(word)


def words_in(text: str) -> set[str]:
    """All that might be one of `names_in`."""
    return set(_words(text))


def _words(text: str) -> list[str]:
    """The words that a text begins with, as `_WORD` finds them, without signs at their ends."""
    text = text[:_SEARCHED]
    if any(map(str.isalnum, "".join(_NO_ASCII.findall(text)))):
        found = _WORD.findall(text)
    else:
        found = text.encode("utf-8", "replace").translate(_WORDS).decode("ascii").split()
    return [word.strip(".-") for word in found]


def index(names: Iterable[str], size: int) -> str:
    """As many of the names as fit into so many characters."""
    found: list[str] = []
    for name in names:
        size -= len(name) + 2
        if size < 0:
            break
        found.append(name)
    return ", ".join(found)
