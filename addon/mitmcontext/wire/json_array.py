r"""The elements of a JSON array, read as they arrive.

Gemini streams its answers so unless it is asked for events: `[{...},\r\n{...}]`, one piece of the
answer each. Bytes go in, whole elements come out; none of them is decoded. Only strings and
brackets are looked at, so that what is no JSON gives nonsense elements, or none. An element that
grows beyond the bound is skipped, and reading goes on with the next one.
"""

from __future__ import annotations

import re
from typing import Final

from mitmcontext.wire.held import Held

_SPACE: Final = b" \t\r\n"
# What a string holds, up to its end or to a backslash that its piece ends with.
_IN_STRING: Final = re.compile(rb'[^"\\]*+(?:\\.[^"\\]*+)*+', re.DOTALL)
_SIGN: Final = re.compile(rb'["\[\]{},]')


class JsonArrayReader:
    """Reads one array. At most about `limit` bytes of it are held at any time."""

    def __init__(self, limit: int = 2**20) -> None:
        self._depth = 0  # 1 within the array itself, 0 before and behind it
        self._in_string = False
        self._escaped = False  # the last piece ended within an escape
        self._held = Held(limit)
        self._found: list[bytes] = []

    def feed(self, data: bytes) -> list[bytes]:
        """The elements that this piece completes, without the space around them."""
        at = start = 0
        while at < len(data):
            if self._in_string:
                at = self._through_string(data, at)
                continue
            sign = _SIGN.search(data, at)
            if sign is None:
                break
            at = sign.end()
            inside = self._depth > 0
            if self._is_boundary(sign.group()):
                if inside:
                    self._held.add(data[start : at - 1])
                    self._end_element()
                start = at
        if self._depth:
            self._held.add(data[start:])
        found, self._found = self._found, []
        return found

    def close(self) -> list[bytes]:
        """Nothing: an element that broke off says nothing."""
        self._held.take()
        return []

    def _through_string(self, data: bytes, at: int) -> int:
        """Where the string ends, or the piece."""
        if self._escaped:
            self._escaped = False
            return at + 1
        held = _IN_STRING.match(data, at)
        end = held.end() if held else at
        if end < len(data):
            self._escaped = data[end] == 0x5C
            self._in_string = self._escaped
            end += 1
        return end

    def _is_boundary(self, sign: bytes) -> bool:
        """Take note of a sign outside strings; whether an element begins or ends there."""
        if sign == b'"':
            self._in_string = True
        elif sign in (b"[", b"{"):
            self._depth += 1
            return self._depth == 1
        elif sign in (b"]", b"}"):
            self._depth = max(0, self._depth - 1)
            return self._depth == 0
        return sign == b"," and self._depth == 1

    def _end_element(self) -> None:
        element = self._held.take().strip(_SPACE)
        if element:
            self._found.append(element)
