"""Which part of a Redis server's logs enough replicas have, where a message must be on some before it is delivered.

A script's writes are readable at once, and stay so where WAIT then says that too few replicas have them; a fail-over
forgets them. So readers get a log only up to a mid that replicas are known to have. Before they get what lies past it,
something is written and waited for: replicas get all writes in their order.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from gopush.model import MID_STEP, mid_at


class Replication:
    """Replicas have what lies below `until`, 0 where nothing is known. `write` writes something and waits for them; a
    failure of it is that of all who asked.
    """

    def __init__(self, write: Callable[[], Deferred[None]]) -> None:
        self._write = write
        self.until = 0
        self._server = ""
        self._clocks: dict[str, float] = {}
        self._asked: list[Deferred[None]] = []
        self._waiting: list[Deferred[None]] = []

    def at(self, server: str) -> None:
        """Writes go to the server of this run id from now on; what replicas have of another one's, nobody knows."""
        if server != self._server:
            self._server, self.until = server, 0

    def saw(self, link: str, now: float) -> None:
        """A script that this connection ran found this time: where the clock steps back, mids prove nothing."""
        if now < self._clocks.get(link, 0.0):
            self.until = 0
        self._clocks[link] = now

    def reached(self, now: float, count: int = 1) -> None:
        """The replicas have what a script wrote that ran at `now`, `count` messages: and so all before it."""
        self.until = max(self.until, mid_at(now) + MID_STEP * count)

    def lacks(self, last: int) -> bool:
        """Whether a log that ends at this mid may hold what the replicas do not have."""
        return last >= self.until

    def confirm(self) -> Deferred[None]:
        """Fires once the replicas have all that was written before this call."""
        asked: Deferred[None] = Deferred()
        self._asked.append(asked)
        if not self._waiting:
            self._next()
        return asked

    def written(self) -> Deferred[None]:
        """Fires with the write that is under way, or else with one that begins now."""
        if not self._waiting:
            return self.confirm()
        asked: Deferred[None] = Deferred()
        self._waiting.append(asked)
        return asked

    def _next(self) -> None:
        self._waiting, self._asked = self._asked, []
        if self._waiting:
            self._write().addBoth(self._written)

    def _written(self, result: Failure | None) -> None:
        waiting, self._waiting = self._waiting, []
        if self._asked:
            self._next()
        for asked in waiting:
            asked.callback(result)
