"""What holds of every message that an API reads, for the tests of each API to say of theirs."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence

from mitmcontext.values import Kind, Message, Part
from mitmcontext.wire.api import Api

STUB = 'short "text"\n'


def read_as(api: Api, raw: bytes, parts: Sequence[tuple[Kind, str, bool]]) -> Message:
    """Read a message and compare: each part's kind and text, and whether it may become shorter.

    It may be edited, and all parts stand where they say; (0, 0) is nowhere.
    """
    found = api.parse(raw)
    assert [(p.kind, p.text, p.value is not None) for p in found.parts] == parts
    assert found.editable
    for part in found.parts:
        if part.span != (0, 0):
            json.loads(raw[slice(*part.span)])
        if part.value is not None:
            assert part.span.start <= part.value.start < part.value.end <= part.span.end
    return found


def stub_changes_its_part(
    api: Api, raw: bytes, but: Callable[[Part], bool] = lambda part: False
) -> None:
    """Put a short text in the place of each part that allows it: no other part is another then.

    Args:
        api: how the message is read.
        raw: the message.
        but: which parts are left out.
    """
    before = api.parse(raw)
    for index, part in enumerate(before.parts):
        if part.value is None or but(part):
            continue
        start, end = part.value
        new = api.in_place_of(part, raw[start:end], STUB)
        after = api.parse(raw[:start] + new + raw[end:])
        assert after.parts[index].text == STUB
        assert (after.role, after.markers) == (before.role, before.markers)
        assert after.parts[index].call_id == part.call_id
        pairs = zip(before.parts, after.parts, strict=True)
        assert [a.digest == b.digest for a, b in pairs] == [
            at != index for at in range(len(before.parts))
        ]
        assert after.digest != before.digest
