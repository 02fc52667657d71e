"""Lines of JSON, read as they arrive: one value a line, as Ollama streams its answers.

Bytes go in, whole lines come out; none of them is decoded. A line that grows beyond the bound is
skipped whole.
"""

from __future__ import annotations

from mitmcontext.wire.held import Held


class NdjsonReader:
    """Reads one stream. At most about `limit` bytes of it are held at any time."""

    def __init__(self, limit: int = 2**20) -> None:
        self._held = Held(limit)

    def feed(self, data: bytes) -> list[bytes]:
        """The lines that this piece completes, without the space around them; no empty ones."""
        *ended, rest = data.split(b"\n")
        found = [line for piece in ended if (line := self._end_line(piece))]
        self._held.add(rest)
        return found

    def close(self) -> list[bytes]:
        """The last line, if no newline ended it."""
        last = self._end_line(b"")
        return [last] if last else []

    def _end_line(self, piece: bytes) -> bytes:
        self._held.add(piece)
        return self._held.take().strip()
