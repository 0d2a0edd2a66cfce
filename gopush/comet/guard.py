"""A mistake of ours that meets one subscriber or one channel must not end the work for the others."""

from __future__ import annotations

from collections.abc import Iterable

from twisted.logger import Logger
from twisted.python.failure import Failure

from gopush.comet.counters import CometCounters
from gopush.comet.session import Session
from gopush.net.clock import Clock

QUIET_SECONDS = 10.0
"""One traceback in that time: the others are counted."""

log = Logger()


class Guard:
    """Counts exceptions that were caught, logs one of them now and then, and closes whom they met: these resume."""

    def __init__(self, clock: Clock, counters: CometCounters) -> None:
        self._clock = clock
        self._counters = counters
        self._quiet_until = float("-inf")

    def caught(self, doing: str, sessions: Iterable[Session] = (), failure: Failure | None = None) -> None:
        """An exception is handled, or a failure: what was being done, and who cannot go on after it."""
        self._counters.errors += 1
        if self._clock.seconds() >= self._quiet_until:
            self._quiet_until = self._clock.seconds() + QUIET_SECONDS
            log.failure("{doing} failed; all else goes on", failure, doing=doing)
        for session in sessions:
            try:
                session.abort()
            except Exception:
                log.failure("a connection could not be closed")
