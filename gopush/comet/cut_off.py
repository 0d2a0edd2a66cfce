"""Whether a comet is cut off from its cluster: it is of no use to its subscribers then, and closes them."""

from __future__ import annotations

from gopush.membership.view import Coordination
from gopush.net.clock import Clock
from gopush.routing.messages import Messages

MISSED = 3
"""How often in a row no message node has answered before this counts."""
PAUSE_SECONDS = 1.0


class CutOff:
    """It `holds` while there was no ZooKeeper for some time and no message node answers.

    Without ZooKeeper for that long this comet is dead to the others: they have its keys (Messages.reachable says which
    message nodes count). A cluster of one is never without its coordination: there is nobody else to go to.
    """

    holds = False

    def __init__(self, clock: Clock, coordination: Coordination, messages: Messages) -> None:
        self._clock = clock
        self._coordination = coordination
        self._messages = messages
        self._alone_since: float | None = None
        self._missed = 0
        self._asking = False
        self._ask_at = 0.0

    def look(self, patience: float) -> bool:
        """Look around, twice a second or so; whether it has changed. `patience`: seconds without ZooKeeper."""
        held, self.holds = self.holds, self._holds(patience)
        return held != self.holds

    def _holds(self, patience: float) -> bool:
        now = self._clock.seconds()
        if self._coordination.connected:
            self._alone_since = None
            self._missed = 0
            return False
        if self._alone_since is None:
            self._alone_since = now
        if not self._asking and now >= self._ask_at:
            self._asking = True
            self._ask_at = now + PAUSE_SECONDS
            self._messages.reachable().addCallback(self._asked)
        return self._missed >= MISSED and now - self._alone_since > patience

    def _asked(self, answered: bool) -> None:
        self._asking = False
        self._missed = 0 if answered else self._missed + 1
