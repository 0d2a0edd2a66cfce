"""Closes subscribers that do not read the backlog that they resumed with."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice

from gopush.comet.counters import CometCounters, Guard
from gopush.comet.session import Session, State
from gopush.net.clock import Clock

LOOK_SECONDS = 0.5
MOST_LOOKS = 500
"""How many it looks at in one turn, the longest ago first."""
DEAF_SECONDS = 10.0
LEAST_BYTES = 4096
"""What a client has to read of it in that time, or all that is left."""
STOOD_STILL_SECONDS = 1.0
"""Where a look comes so late, this process stood still and could not see who reads: their time begins anew, once."""


@dataclass(slots=True)
class _Left:
    """Bytes that were unread when the client had last read enough, and whether its time has begun anew since then."""

    size: int
    since: float
    anew: bool = False


class Unread:
    """Looks after the sessions that have a backlog waiting."""

    def __init__(self, clock: Clock, counters: CometCounters, guard: Guard) -> None:
        self._guard = guard
        self._clock = clock
        self._counters = counters
        self._tracked: dict[Session, _Left] = {}
        self._looked = 0.0

    def watch(self, session: Session) -> None:
        """The session was sent a part of its backlog."""
        size = session.unread
        if not size:
            return
        now = self._clock.seconds()
        if not self._tracked:
            self._looked = now
            self._clock.callLater(LOOK_SECONDS, self._look)
        self._tracked[session] = _Left(size, now)

    def _look(self) -> None:
        now, before = self._clock.seconds(), self._looked
        self._looked = now
        if now - before > STOOD_STILL_SECONDS:
            for left in self._tracked.values():
                left.since, left.anew = left.since if left.anew else now, True
        for session in list(islice(self._tracked, MOST_LOOKS)):
            left = self._tracked.pop(session)
            try:
                if self._goes_on(session, left, now):
                    self._tracked[session] = left
            except Exception:
                self._guard.caught("looking after a backlog", (session,))
        if self._tracked:
            self._clock.callLater(LOOK_SECONDS, self._look)

    def _goes_on(self, session: Session, left: _Left, now: float) -> bool:
        size = 0 if session.state is State.CLOSING else session.unread
        if size <= left.size - LEAST_BYTES:
            left.size, left.since, left.anew = size, now, False
        elif size and now - left.since >= DEAF_SECONDS:
            self._counters.deaf_closed += 1
            session.abort()
            return False
        return size > 0
