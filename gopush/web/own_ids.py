"""Ids that web gives to pushes without a publisher's: they tell our own repeats of the same push apart. Pure."""

from __future__ import annotations

from itertools import count
from secrets import token_urlsafe

MOST_KEYS = 50
"""Pushes under one id at most: the store reads all of them at once, to see whether one is a repeat."""


class OwnIds:
    """Ids that no other process gives. A push is known by its key and its id, so pushes to different keys share one."""

    def __init__(self) -> None:
        self._prefix = token_urlsafe(9)
        self._serials = count()
        self._id = ""
        self._keys: set[str] = set()
        self._begin()

    def take(self, key: str) -> str:
        """An id that was not given for this key before."""
        if key in self._keys or len(self._keys) >= MOST_KEYS:
            self._begin()
        self._keys.add(key)
        return self._id

    def _begin(self) -> None:
        self._id = f"{self._prefix}{next(self._serials)}"
        self._keys.clear()
