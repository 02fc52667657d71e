"""What clients sent is kept for comparing, bounded in bytes."""

from __future__ import annotations

import gzip
import os

import pytest

from mitmcontext.proxy.originals import SIZE, Originals, fresh
from mitmcontext.values import Unreadable


def test_what_was_sent_comes_back_decoded() -> None:
    originals = Originals(fresh(), lambda: 1 << 20)
    originals.keep("plain", b'{"a": 1}' * 1_000, "")
    originals.keep("packed", gzip.compress(b'{"b": 2}'), "gzip")
    assert originals.find("plain") == b'{"a": 1}' * 1_000
    assert originals.find("packed") == b'{"b": 2}'
    assert originals.find("other") is None
    originals.clear()
    assert originals.find("plain") is None


def test_a_bomb_is_not_unpacked() -> None:
    originals = Originals(fresh(), lambda: 1 << 20)
    originals.keep("bomb", gzip.compress(b"0" * (4 << 20)), "gzip")
    with pytest.raises(Unreadable):
        originals.find("bomb")


def test_the_oldest_go_first_and_giants_are_not_kept() -> None:
    kept = fresh()
    originals = Originals(kept, lambda: 1 << 30)
    for number in range(80):
        originals.keep(str(number), os.urandom(1 << 20), "")
    originals.keep("giant", os.urandom(20 << 20), "")
    assert kept.currsize <= SIZE
    assert "0" not in originals
    assert "79" in originals
    assert "giant" not in originals
