"""Summaries that are ready belong to the very messages that they stand for."""

from __future__ import annotations

from mitmcontext.condense.summaries.fold import Summary
from mitmcontext.proxy.notes import Notes
from mitmcontext.stores.memory_store import Memory, cells
from mitmcontext.stores.tiers import Tiers

LINKS = [bytes([n]) * 32 for n in range(10)]
ONE, TWO = Summary(1, 4, "one"), Summary(1, 7, "two")


def notes(far: Tiers | None = None) -> Notes:
    return Notes(cells(1 << 20), far, lambda link: b"named" + link)


def test_the_deepest_is_found() -> None:
    own = notes()
    assert own.find(LINKS) is None
    own.keep(LINKS[3], [ONE], 60)
    own.keep(LINKS[6], [TWO], 60)
    assert own.find(LINKS) == (LINKS[6], (TWO,))
    assert own.find(LINKS[:6]) == (LINKS[3], (ONE,))
    assert own.has(LINKS[3])


def test_another_history_finds_nothing() -> None:
    own = notes()
    own.keep(LINKS[3], [ONE], 60)
    assert own.find([*LINKS[:3], b"other" * 6 + b"xx", *LINKS[4:]]) is None


def test_the_last_message_is_never_part_of_it() -> None:
    own = notes()
    own.keep(LINKS[3], [ONE], 60)
    assert own.find(LINKS[:4]) is None


def test_proxies_with_one_store_share_them() -> None:
    far = Tiers([Memory(cells(1 << 20))])
    notes(far).keep(LINKS[3], [ONE], 60)
    assert notes(far).find(LINKS) == (LINKS[3], (ONE,))
    assert notes().find(LINKS) is None
