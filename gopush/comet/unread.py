"""Backlogs that were sent and wait for their clients: who reads next to nothing of it for a while is closed.

What somebody resumes with counts for no limit of slow subscribers, so it is time that bounds how long it is held.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice

from gopush.comet.counters import CometCounters
from gopush.comet.guard import Guard
from gopush.comet.session import Session, State
from gopush.net.clock import Clock

LOOK_SECONDS = 0.5
MOST_LOOKS = 500
"""So many are looked at in one turn, the longest ago first."""
DEAF_SECONDS = 10.0
LEAST_BYTES = 4096
"""What a client has to read of it in that time, or all that is left."""
LEAST_LOOKS = 3
"""After this process stood still, a client has not had its time before it was looked at again."""


@dataclass(slots=True)
class _Left:
    """Bytes that waited when the client had last read enough, and how often was looked since then."""

    size: int
    since: float
    looks: int = 0


class Unread:
    """Looks after the sessions that have a backlog waiting."""

    def __init__(self, clock: Clock, counters: CometCounters, guard: Guard) -> None:
        self._guard = guard
        self._clock = clock
        self._counters = counters
        self._tracked: dict[Session, _Left] = {}

    def watch(self, session: Session) -> None:
        """The session was sent a part of its backlog."""
        size = session.unread
        if not size:
            return
        if not self._tracked:
            self._clock.callLater(LOOK_SECONDS, self._look)
        self._tracked[session] = _Left(size, self._clock.seconds())

    def _look(self) -> None:
        for session in list(islice(self._tracked, MOST_LOOKS)):
            left = self._tracked.pop(session)
            try:
                if self._goes_on(session, left):
                    self._tracked[session] = left
            except Exception:
                self._guard.caught("looking after a backlog", (session,))
        if self._tracked:
            self._clock.callLater(LOOK_SECONDS, self._look)

    def _goes_on(self, session: Session, left: _Left) -> bool:
        size = 0 if session.state is State.CLOSING else session.unread
        now = self._clock.seconds()
        left.looks += 1
        if size <= left.size - LEAST_BYTES:
            left.size, left.since, left.looks = size, now, 0
        elif size and now - left.since >= DEAF_SECONDS and left.looks >= LEAST_LOOKS:
            self._counters.deaf_closed += 1
            session.abort()
            return False
        return size > 0
