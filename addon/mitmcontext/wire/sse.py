"""Server-sent events, read as they arrive.

Bytes go in, finished events come out; what is unfinished waits for more. Nothing is decoded: data
are bytes, since most events are only looked at for a word. An event that grows beyond the bound is
skipped whole, and reading goes on with the next one.
"""

from __future__ import annotations

from typing import NamedTuple

_BOM = b"\xef\xbb\xbf"


class Event(NamedTuple):
    """One event: its type ("message" if it names none) and its data lines joined by newlines."""

    event: str
    data: bytes


class SseReader:
    """Reads one stream. At most about `limit` bytes of it are held at any time."""

    def __init__(self, limit: int = 2**20) -> None:
        self._limit = limit
        self._at_start = True
        self._after_cr = False
        self._line: list[bytes] = []  # pieces of the line that has not ended yet
        self._line_size = 0
        self._line_dropped = False
        self._type = b""
        self._data: list[bytes] = []
        self._data_size = 0
        self._skipping = False

    def feed(self, data: bytes) -> list[Event]:
        """The events that this piece completes."""
        if self._after_cr and data.startswith(b"\n"):
            # The line ended with the CR of the last piece; this is the other half of its CRLF.
            data = data[1:]
            self._after_cr = False
        if not data:
            return []
        self._after_cr = data.endswith(b"\r")
        if b"\r" in data:
            data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        *ended, rest = data.split(b"\n")
        events = [event for line in ended if (event := self._end_line(line)) is not None]
        self._hold(rest)
        return events

    def close(self) -> Event | None:
        """The last event, if the stream ended without the empty line that should follow it.

        The standard drops it. A reader that only wants a number from it need not be so strict.
        """
        return self._end_line(b"") or self._dispatch()

    def _hold(self, piece: bytes) -> None:
        if not piece or self._line_dropped:
            return
        self._line.append(piece)
        self._line_size += len(piece)
        if self._line_size > self._limit:
            # An endless comment hides nothing; any other line takes its event with it.
            if not self._line[0].startswith(b":"):
                self._skipping = True
                self._forget_data()
            self._line.clear()
            self._line_dropped = True

    def _end_line(self, piece: bytes) -> Event | None:
        self._hold(piece)
        line = b"".join(self._line)
        dropped = self._line_dropped
        self._line.clear()
        self._line_size = 0
        self._line_dropped = False
        if self._at_start:
            line = line.removeprefix(_BOM)
            self._at_start = False
        if dropped:
            return None
        if not line:
            return self._dispatch()
        self._take(line)
        return None

    def _take(self, line: bytes) -> None:
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"event":
            self._type = value
        elif name == b"data" and not self._skipping:
            self._data.append(value)
            self._data_size += len(value) + 1
            if self._data_size > self._limit:
                self._skipping = True
                self._forget_data()

    def _dispatch(self) -> Event | None:
        event = None
        if self._data and not self._skipping:
            event = Event(
                self._type.decode("utf-8", "replace") or "message", b"\n".join(self._data)
            )
        self._type = b""
        self._skipping = False
        self._forget_data()
        return event

    def _forget_data(self) -> None:
        self._data.clear()
        self._data_size = 0
