"""Pieces of something unfinished: what the readers of streams hold until its end is there."""

from __future__ import annotations


class Held:
    """Joins pieces; once there is more than `limit` bytes, all of it is forgotten."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._pieces: list[bytes] = []
        self._size = 0

    @property
    def size(self) -> int:
        """How many bytes are held."""
        return self._size if self._pieces else 0

    def add(self, piece: bytes) -> None:
        """Hold one more piece, unless it is too much already."""
        if not piece or self._size > self._limit:
            return
        self._pieces.append(piece)
        self._size += len(piece)
        if self._size > self._limit:
            self._pieces.clear()

    def take(self) -> bytes:
        """All pieces as one, nothing where it was too much; then begin anew."""
        whole = b"".join(self._pieces)
        self._pieces.clear()
        self._size = 0
        return whole
