"""How a message node reaches the store."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred, fail, succeed

from gopush.errors import UnavailableError
from gopush.message.rules import UNAVAILABLE
from gopush.model import Append, Appended

if TYPE_CHECKING:
    from tests.simulation.store import SharedStore


class Way:
    """A message node's way to the store: two connections, of which the one that writes is `cut`, or not.

    `whole_since`: since when it is not.
    """

    def __init__(self, store: SharedStore) -> None:
        self.cuts = 0
        self.whole_since = -inf
        self._store = store

    @property
    def cut(self) -> bool:
        """Whether it is, for any reason."""
        return self.cuts > 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def append(self, appends: Sequence[Append]) -> Deferred[list[Appended]]:
        return succeed([UNAVAILABLE] * len(appends)) if self.cut else self._store.append(appends)

    def delete(self, key: str) -> Deferred[None]:
        return fail(UnavailableError("no way to the store")) if self.cut else self._store.delete(key)

    def ping(self) -> Deferred[None]:
        return fail(UnavailableError("no way to the store")) if self.cut else self._store.ping()
