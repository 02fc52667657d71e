"""What of an answer says how much was used.

Providers tell that in some hundred bytes, and around it may stand megabytes of log probabilities,
or of keys that nobody knows. To build those would hold up everybody for hundreds of milliseconds;
to skip them costs a few. So of a large answer only those fields are looked at that a `usage_of`
reads.
"""

from __future__ import annotations

import json
import re
from typing import Any, Final, cast

import msgspec

from mitmcontext.wire.responses_answers import RUN_BY_SERVER

NAMES: Final = (
    *("type", "usage", "input_tokens", "x_groq", "message", "delta"),
    *("response", "previous_response_id", "conversation", "output"),
    *("usageMetadata", "totalTokens", "done", "prompt_eval_count", "eval_count"),
)
"""What `usage_of` reads of an answer, in any API, and of what wraps it."""

SMALL: Final = 16 * 2**10
"""An answer of so many bytes, or a field of one, is read as it is."""

_WRAPPERS: Final = ("response", "message", "delta")
_LISTED: Final = "output"
# In a model's own text the quotes are escaped, so that these stand for a type.
_RUN: Final = re.compile(rb'"type"\s*:\s*"(%s)"' % "|".join(RUN_BY_SERVER).encode())
_FIELDS: Final = msgspec.json.Decoder(
    msgspec.defstruct("_Fields", [(name, msgspec.Raw, msgspec.Raw()) for name in NAMES])
)


def telling(answer: bytes) -> object:
    """An answer, or one event of it, as JSON; of a large object only what says what was used.

    Of a list of items that is itself large, only whether the provider ran a tool: an item that
    says so stands for all.

    Raises:
        ValueError: it is no JSON, or large and no object.
        RecursionError: it is nested too deep.
    """
    return json.loads(answer) if len(answer) <= SMALL else _told(answer, _WRAPPERS)


def _told(answer: bytes | msgspec.Raw, wrappers: tuple[str, ...]) -> dict[str, Any]:
    fields = cast("Any", _FIELDS.decode(answer))
    told: dict[str, Any] = {}
    for name in NAMES:
        raw: msgspec.Raw = getattr(fields, name)
        if 0 < len(raw) <= SMALL:
            told[name] = json.loads(bytes(raw))
        elif name in wrappers and bytes(memoryview(raw)[:1]) == b"{":
            # Once: what wraps itself again and again would be read anew each time.
            told[name] = _told(raw, ())
        elif name == _LISTED and (run := _RUN.search(raw)):
            told[name] = [{"type": run[1].decode()}]
    return told
