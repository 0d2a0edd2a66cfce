"""What a comet counts (protocol.md, section 6), and a guard that counts its mistakes: one that meets one subscriber or
channel must not end the work for the others.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from twisted.logger import Logger
from twisted.python.failure import Failure

from gopush.comet.session import Session
from gopush.net.clock import Clock


@dataclass(slots=True)
class CometCounters:
    """Plain integers: counting must cost nothing. All only grow."""

    channels_accessed: int = 0
    channels_created: int = 0
    channels_deleted: int = 0
    connections_added: int = 0
    connections_removed: int = 0
    messages_succeeded: int = 0
    messages_failed: int = 0
    deliveries: int = 0
    rounds: int = 0
    catch_ups: int = 0
    gaps: int = 0
    slow_closed: int = 0
    deaf_closed: int = 0
    overflows: int = 0
    moved: int = 0
    cut_off_closed: int = 0
    cut_off_refused: int = 0
    notices_sent: int = 0
    notices_received: int = 0
    refused_parameter: int = 0
    refused_token: int = 0
    refused_key: int = 0
    refused_node: int = 0
    refused_limit: int = 0
    refused_address: int = 0
    refused_proxy: int = 0
    refused_origin: int = 0
    refused_handshake: int = 0
    accept_waits: int = 0
    errors: int = 0
    timed_out: int = 0
    handshake_timed_out: int = 0


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
