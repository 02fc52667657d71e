"""Our settings as mitmproxy's options.

mitmproxy cannot set an option that holds a fraction, and lets the start go on where a whole number
is none, so all but lists are declared to it as text and read by `settings`. Whether an option was
set at all decides whether the environment is looked at: one set to its default still wins.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from typing import Any

from mitmproxy import optmanager
from mitmproxy.addonmanager import Loader

from mitmcontext.settings import ENVIRONMENT, declared

_PREFIXES = ("context", "condensation", "tiktoken", "cache")


def declare(loader: Loader) -> None:
    """Add every setting as an option."""
    for item in declared():
        default = item.metadata["default"]
        choices = item.metadata["choices"]
        if isinstance(default, tuple):
            loader.add_option(item.name, Sequence[str], list(default), item.metadata["help"])
        else:
            loader.add_option(item.name, str, default, item.metadata["help"], choices)


def those_set(options: optmanager.OptManager) -> dict[str, Any]:
    """Our options that somebody set, by name."""
    names = [item.name for item in declared()]
    return {
        name: getattr(options, name)
        for name in names
        if name in options and options._options[name].value is not optmanager.unset
    }


def misspelt(deferred: Iterable[str], environment: Iterable[str]) -> list[str]:
    """A sentence for each name that nobody declared and that is nearly one of ours."""
    names = [item.name for item in declared()]
    variables = [*(name.upper() for name in names), *ENVIRONMENT]
    return [
        *(_sentence("option", name, near) for name, near in _nearly(deferred, names)),
        *(_sentence("variable", name, near) for name, near in _nearly(environment, variables)),
    ]


def _nearly(given: Iterable[str], names: list[str]) -> list[tuple[str, str]]:
    found = []
    for name in given:
        if name not in names and name.lower().startswith(_PREFIXES):
            near = difflib.get_close_matches(name, names, n=1, cutoff=0.75)
            found += [(name, near[0])] if near else []
    return found


def _sentence(what: str, name: str, near: str) -> str:
    return f"There is no {what} {name}; did you mean {near}?"
