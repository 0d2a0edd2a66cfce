"""Bytes to lines, none of them longer than a limit. Pure."""

from __future__ import annotations


class Lines:
    """Cuts what is fed into lines; of a line that is too long only the fact is kept."""

    __slots__ = ("_at", "_buffer", "_ended", "_limit", "_searched", "_skips")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._buffer = bytearray()
        self._at = 0
        self._searched = 0
        self._skips = False
        self._ended = False

    def feed(self, piece: bytes) -> None:
        """Add a piece."""
        del self._buffer[: self._at]
        self._searched -= self._at
        self._at = 0
        self._buffer += piece

    def end(self) -> None:
        """Nothing more comes: what is left is a line, too."""
        self._ended = True

    def next(self) -> bytes | None:
        """The next line without its end, None where none is complete. A line that is too long is given as b""."""
        found = self._buffer.find(b"\n", max(self._at, self._searched))
        if found < 0:
            return self._unfinished()
        line = b"" if self._skips or found - self._at > self._limit else bytes(self._buffer[self._at : found])
        self._skips = False
        self._at = self._searched = found + 1
        return line

    def _unfinished(self) -> bytes | None:
        length = len(self._buffer) - self._at
        self._searched = len(self._buffer)
        if length > self._limit:
            self._skips = True
            self._at += length
        if not self._ended or not (length or self._skips):
            return None
        line = b"" if self._skips else bytes(self._buffer[self._at :])
        self._skips = False
        self._at = len(self._buffer)
        return line
