"""Keys that change hands: for a moment the comets that had them still have subscribers, which are on their way."""

from __future__ import annotations

from collections import deque

from gopush.membership.view import Coordination, View
from gopush.net.clock import Clock

MOVE_SECONDS = 1.0
"""Within this time a comet sends away the subscribers whose keys it has lost."""

MOVED_SECONDS = MOVE_SECONDS + 1.0
"""So long others send it the messages of these keys: it may have heard of the change later than they."""


class EarlierOwners:
    """Who had a key a moment ago. `own`: the NodeInfo.id of this comet."""

    __slots__ = ("_clock", "_own", "_there", "_view", "views")

    def __init__(self, clock: Clock, coordination: Coordination, own: str) -> None:
        self.views: deque[View] = deque()
        """Those that were replaced in the last MOVED_SECONDS; empty nearly always."""
        self._clock = clock
        self._own = own
        self._view = coordination.view
        self._there: set[str] = set()
        coordination.watch(self._view_changed)

    def of(self, key: str) -> list[str]:
        """The other comets, by NodeInfo.id, that had the key, do not have it now, and have not gone."""
        owners = [owner.id for view in self.views if (owner := view.owner(key)) is not None]
        now = self._view.owner(key)
        return [id for id in dict.fromkeys(owners) if id in self._there and (now is None or id != now.id)]

    def _view_changed(self, view: View) -> None:
        before, self._view = self._view, view
        self._there = {info.id for info in view.comets} - {self._own}
        if not before.active:  # this comet is new, and has never seen the others without it
            before = view.without(self._own)
        if before.active and before.active != view.active:
            self.views.append(before)
            self._clock.callLater(MOVED_SECONDS, self.views.popleft)
