"""Which subscribers are furthest behind."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from heapq import nlargest
from itertools import chain, islice
from typing import Any

from twisted.internet.defer import Deferred, succeed

from gopush.comet.channel import Channel
from gopush.comet.session import Session
from gopush.net.clock import Clock, pause
from gopush.reports import SlowConsumer

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
        sessions = self._sessions()
        found: list[SlowConsumer] = []
        while some := list(islice(sessions, SLICE_SESSIONS)):
            found = nlargest(MOST, chain(found, filter(None, map(_slow_consumer, some))), key=lambda slow: slow.bytes)
            await pause(0, self._clock)
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
