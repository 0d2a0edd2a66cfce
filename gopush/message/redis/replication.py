"""Which part of a Redis server's logs enough replicas have, where a message must be on some before it is delivered.

A script's writes are readable at once, and stay so where WAIT then says that too few replicas have them; a fail-over
forgets them. So readers get a log only up to a mid that replicas are known to have. Before they get what lies past it,
something is written and waited for: replicas get all writes in their order. Many share that, because a wait for
replicas that are away holds up all that Redis gets behind it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from twisted.internet.defer import Deferred, fail
from twisted.python.failure import Failure

from gopush.errors import UnavailableError
from gopush.message.redis.connection import UnreplicatedError
from gopush.model import MID_STEP, Head, mid_at


class Replication:
    """Replicas have what lies below `until`, 0 where nothing is known. `write` writes something and waits for them; a
    failure of it is that of all who asked. `missing`: in words, that the latest write found too few of them; else "".
    `writes_to`: the server of this `name` that writes go to, by its run id.
    """

    def __init__(self, write: Callable[[], Deferred[None]], name: str, writes_to: Callable[[], str]) -> None:
        self._write = write
        self._name = name
        self._writes_to = writes_to
        self.until = 0
        self.missing = ""
        self._server = ""
        self._clocks: dict[str, float] = {}
        self._asked: list[Deferred[None]] = []
        self._waiting: list[Deferred[None]] = []

    def at(self, server: str) -> None:
        """Writes go to the server of this run id from now on, or a connection was lost: what replicas have of another
        one's, nobody knows, nor whether they are still missing.
        """
        self.missing = ""
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
        self.missing = ""

    def lacks(self, last: int) -> bool:
        """Whether a log that ends at this mid may hold what the replicas do not have."""
        return last >= self.until

    async def cover(self, heads: Iterable[Head], servers: set[str]) -> None:
        """Fails with UnavailableError where something of these logs may be on fewer replicas than it must."""
        if servers != {self._writes_to()} or any(self.lacks(head.last) for head in heads):
            await self.confirm_at(servers)

    async def confirm_at(self, servers: set[str]) -> None:
        """`servers` told of logs, or wrote: what a new master confirms says nothing of what is at the old one."""
        await self.confirm()
        if servers != {self._writes_to()}:
            raise UnavailableError(f"Redis {self._name}: the master has moved")

    def confirm(self) -> Deferred[None]:
        """Fires once the replicas have all that was written before this call."""
        asked: Deferred[None] = Deferred()
        self._asked.append(asked)
        if not self._waiting:
            self._next()
        return asked

    def check(self) -> None:
        """Raises UnreplicatedError while they are missing: for who need not be the one that finds them again."""
        if self.missing:
            raise UnreplicatedError(self.missing)

    def ping(self) -> Deferred[None]:
        """As look(), but for check()."""
        return fail(UnreplicatedError(self.missing)) if self.missing else self.look()

    def look(self) -> Deferred[None]:
        """Fires with the write that is under way, or else with one that begins now."""
        asked: Deferred[None] = Deferred()
        if self._waiting:
            self._waiting.append(asked)
        else:
            self._asked.append(asked)
            self._next()
        return asked

    def _next(self) -> None:
        self._waiting, self._asked = self._asked, []
        self._write().addBoth(self._written)

    def _written(self, result: Failure | None) -> None:
        waiting, self._waiting = self._waiting, []
        self.missing = result.getErrorMessage() if result is not None and result.check(UnreplicatedError) else ""
        if self.missing:
            waiting, self._asked = waiting + self._asked, []
        if self._asked:
            self._next()
        for asked in waiting:
            asked.callback(result)
