"""JSON drawn at random, with objects in it that come near to those of an API."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from hypothesis import strategies as st

Values = st.SearchStrategy[Any]

SCALARS: Values = st.none() | st.booleans() | st.integers() | st.text(max_size=5)


def values_with(
    keys: Sequence[str],
    said: Sequence[str] = (),
    *,
    scalars: Values = SCALARS,
    more: Callable[[Values], Values] | None = None,
) -> Values:
    """Any JSON, in small, for what reads it.

    Args:
        keys: what such objects have.
        said: strings that decide how they are read, such as names of types.
        scalars: values without others in them.
        more: a strategy for values to further ones that hold such.
    """

    def holding(inner: Values) -> Values:
        held = inner | st.sampled_from(said) if said else inner
        lists = st.lists(inner, max_size=3)
        objects = st.dictionaries(st.sampled_from(keys), held, max_size=4)
        found = lists | objects
        return found | more(inner) if more else found

    return st.recursive(scalars, holding, max_leaves=12)


def anything_with(keys: str, said: str) -> Values:
    """Any JSON, for what judges it: larger, with numbers, texts and keys of every kind.

    Args:
        keys: what objects of the API have, in words.
        said: strings that decide how they are judged, in words.
    """
    names, words = st.sampled_from(keys.split()), st.sampled_from(said.split())
    return st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
        lambda inner: (
            st.lists(inner, max_size=4)
            | st.dictionaries(names | st.text(max_size=5), inner | words, max_size=6)
        ),
        max_leaves=30,
    )
