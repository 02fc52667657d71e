"""Questions cost no more than is allowed, whatever they turn out to cost."""

from __future__ import annotations

from cachetools import LRUCache
from hypothesis import given
from hypothesis import strategies as st

from mitmcontext.proxy.purse import Purse, root_of


def purse() -> Purse:
    return Purse(LRUCache(100))


def test_a_price_is_set_aside_until_it_is_known() -> None:
    own = purse()
    assert own.take(b"x", 0.6, 1.0)
    assert not own.take(b"x", 0.6, 1.0)
    own.settle(b"x", 0.6, 0.1)
    assert own.take(b"x", 0.6, 1.0)
    assert own.take(b"y", 1.0, 1.0)


def test_what_is_free_is_always_allowed() -> None:
    own = purse()
    assert own.take(b"x", 0.0, 0.0)
    assert not own.take(b"x", 0.01, 0.0)


prices = st.floats(0.0, 1.0)


@given(st.lists(st.tuples(prices, prices, prices)))
def test_as_long_as_nothing_costs_more_than_was_set_aside_no_more_is_spent(
    asked: list[tuple[float, float, float]],
) -> None:
    own, spent, most = purse(), 0.0, 0.0
    for price, share, allowed in asked:
        if own.take(b"x", price, allowed):
            own.settle(b"x", price, price * share)
            spent, most = spent + price * share, max(most, allowed)
            assert spent <= allowed + 1e-9 or price == 0
    assert spent <= most + 1e-9


def test_a_conversation_keeps_its_root_as_it_grows() -> None:
    links = [bytes([n]) * 32 for n in range(10)]
    assert {root_of(links[:n]) for n in range(3, 10)} == {links[2]}
