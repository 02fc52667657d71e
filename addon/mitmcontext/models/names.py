"""A model's name without what hosts, regions and releases put around it.

`us.anthropic.claude-haiku-4-5-20251001-v1:0`, `anthropic/claude-haiku-4.5` and
`claude-haiku-4-5@20251001` all mean `claude-haiku-4-5`, and one pattern should find them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from fnmatch import fnmatchcase

# Bedrock: an optional region, the vendor, a dot. Not every name with a dot has one: `gpt-4.1`.
REGION_AND_VENDOR = re.compile(
    r"^(?:[a-z]{2,6}(?:-gov)?\.)?"
    r"(?:ai21|amazon|anthropic|cohere|deepseek|google|meta|minimax|mistral|moonshot|moonshotai"
    r"|nvidia|openai|qwen|writer|zai)\."
)
HOST = re.compile(r"^databricks-")
RELEASE = re.compile(r"(?:[-_]\d{4}-\d{2}-\d{2}|-20\d{6}|-latest|-v1)$")
DIGIT_DOT_DIGIT = re.compile(r"(?<=\d)\.(?=\d)")


def plain(model: str) -> str:
    """The bare name in lower case: no vendor, region, release date, tag or `[1m]`.

    Claude's versions are written with dashes, as its own API does.
    """
    name = model.strip().lower().partition("[")[0]
    name = name.rpartition("/")[2]
    name = name.removeprefix("ft:")
    name = name.partition("@")[0].partition(":")[0]
    name = HOST.sub("", REGION_AND_VENDOR.sub("", name))
    while (shorter := RELEASE.sub("", name)) != name:
        name = shorter
    return DIGIT_DOT_DIGIT.sub("-", name) if name.startswith("claude") else name


def longest_match(patterns: Iterable[str], *names: str) -> str | None:
    """The longest of the glob patterns that fits one of the names; of equals, the last one.

    The length is without stars, so that `gpt-4` is longer than `gpt-*`.
    """
    best: str | None = None
    for pattern in patterns:
        longer = best is None or _length(pattern) >= _length(best)
        if longer and any(fnmatchcase(name, pattern) for name in names):
            best = pattern
    return best


def _length(pattern: str) -> int:
    return len(pattern.replace("*", ""))
