"""The subscribers that a comet closes: slow ones, those that read nothing, and all of them once it is cut off."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from heapq import nlargest
from itertools import chain, islice
from typing import Any, cast

from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import deferLater

from gopush.comet.channel import Channel
from gopush.comet.counters import CometCounters, Guard
from gopush.comet.session import Session, State
from gopush.membership.view import Coordination
from gopush.net.clock import Clock
from gopush.reports import SlowConsumer
from gopush.routing.messages import Messages

MOST = 100
SLICE_SESSIONS = 500
"""How many connections are looked at in one turn of the reactor: half a millisecond."""

HOLDS_SECONDS = 0.5
"""How long an answer holds: callers meanwhile get the same one."""


class SlowConsumers:
    """Walks over all subscribers, a slice in each turn, and never twice at a time."""

    def __init__(self, clock: Clock, channels: Mapping[str, Channel]) -> None:
        self._clock = clock
        self._channels = channels
        self._found: list[SlowConsumer] = []
        self._until = float("-inf")
        self._asking: list[Deferred[list[SlowConsumer]]] = []

    def find(self, most: int) -> Deferred[list[SlowConsumer]]:
        """The connections for which most bytes wait, the worst first, at most so many and MOST."""
        if self._clock.seconds() < self._until:
            return succeed(self._found[:most])
        asked: Deferred[list[SlowConsumer]] = Deferred()
        self._asking.append(asked)
        if len(self._asking) == 1:
            Deferred.fromCoroutine(self._walk()).addBoth(self._tell)
        return asked.addCallback(lambda found: found[:most])

    async def _walk(self) -> list[SlowConsumer]:
        reactor_time = cast(Any, self._clock)
        sessions = self._sessions()
        found: list[SlowConsumer] = []
        while some := list(islice(sessions, SLICE_SESSIONS)):
            found = nlargest(MOST, chain(found, filter(None, map(_slow_consumer, some))), key=lambda slow: slow.bytes)
            await deferLater(reactor_time, 0, lambda: None)
        self._found = found
        self._until = self._clock.seconds() + HOLDS_SECONDS
        return found

    def _sessions(self) -> Iterator[Session]:
        for channel in list(self._channels.values()):
            yield from (*channel.live, *channel.recovering)

    def _tell(self, outcome: Any) -> None:
        asking, self._asking = self._asking, []
        for asked in asking:
            asked.callback(outcome)  # a Failure counts as one


def _slow_consumer(session: Session) -> SlowConsumer | None:
    behind = session.wire.behind()
    if behind is None or session.request is None:
        return None
    kind, peer, size, seconds, _ = behind
    return SlowConsumer(session.request.key, kind, peer, session.waiting_messages(size), size, round(seconds, 3))


LOOK_SECONDS = 0.5
MOST_LOOKS = 500
"""How many it looks at in one turn, the longest ago first."""
DEAF_SECONDS = 10.0
LEAST_BYTES = 4096
"""What a client has to read of it in that time, or all that is left."""
STOOD_STILL_SECONDS = 1.0
"""Where a look comes so late after the one before, nobody could show that they read: their time begins anew, once."""


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
        self.counters = counters
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
            self.counters.deaf_closed += 1
            session.abort()
            return False
        return size > 0


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
