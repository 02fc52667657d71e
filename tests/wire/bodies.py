"""JSON as the tests of all APIs build it."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from hypothesis import strategies as st

SCALARS = st.none() | st.booleans() | st.integers() | st.text(max_size=5)


def dumped(value: Any) -> bytes:
    """A value as many clients write it, with text beyond ASCII as it is."""
    return json.dumps(value, ensure_ascii=False).encode()


def message(role: str, *content: Any, **others: Any) -> bytes:
    """A message as Chat Completions and its kin have it; without content where none is given."""
    held = {"content": content[0]} if content else {}
    return dumped({"role": role, **held, **others})


def text(said: str, **others: Any) -> dict[str, Any]:
    """A block of text as most APIs have it."""
    return {"type": "text", "text": said, **others}


def values_with(
    keys: Sequence[str],
    said: Sequence[str] = (),
    *,
    scalars: st.SearchStrategy[Any] = SCALARS,
    more: Callable[[st.SearchStrategy[Any]], st.SearchStrategy[Any]] | None = None,
) -> st.SearchStrategy[Any]:
    """Any JSON, with objects that come near to those of an API.

    Args:
        keys: what such objects have.
        said: strings that decide how they are read, such as names of types.
        scalars: values without others in them.
        more: a strategy for values to further ones that hold such.
    """

    def holding(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
        held = inner | st.sampled_from(said) if said else inner
        lists = st.lists(inner, max_size=3)
        objects = st.dictionaries(st.sampled_from(keys), held, max_size=4)
        found = lists | objects
        return found | more(inner) if more else found

    return st.recursive(scalars, holding, max_leaves=12)
