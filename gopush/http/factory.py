"""All connections of one HTTP interface."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Factory

from gopush.clock import Clock
from gopush.http.channel import HttpChannel
from gopush.http.counters import Counters
from gopush.http.response import Renderer
from gopush.http.routing import Routes, RouteTable
from gopush.timers import Wheel


class HttpFactory(Factory):
    """Serves `routes`; a connection that is idle for `idle` seconds, half a request included, is closed.

    `now`: seconds since the epoch.
    """

    noisy = False

    def __init__(self, routes: Routes, clock: Clock, idle: float, now: Callable[[], float] = time.time) -> None:
        self.table = RouteTable(routes)
        self.counters = Counters()
        self.clock = clock
        self.idle = idle
        self.renderer = Renderer(now())
        self._now = now
        self.wheel: Wheel[HttpChannel] = Wheel(clock.seconds())
        self._channels: set[HttpChannel] = set()
        self._ticking = False
        self._stopped: Deferred[None] | None = None

    def buildProtocol(self, _addr: IAddress | None) -> Any:
        """See IProtocolFactory."""
        return HttpChannel(self)

    def opened(self, channel: HttpChannel) -> None:
        """A connection was made."""
        self._channels.add(channel)
        if not self._ticking:
            self._ticking = True
            self._tick()
        self.wheel.add(channel)

    def closed(self, channel: HttpChannel) -> None:
        """A connection was lost."""
        self._channels.discard(channel)
        self.wheel.discard(channel)
        self._check_stopped()

    def stop(self) -> Deferred[None]:
        """Close the connections, each once its requests are answered; fires when none is left.

        New connections are the listener's affair: stop that first.
        """
        self._stopped = Deferred()
        for channel in list(self._channels):
            channel.stop()
        self._check_stopped()
        return self._stopped or succeed(None)

    def _check_stopped(self) -> None:
        if self._stopped is not None and not self._channels:
            stopped, self._stopped = self._stopped, None
            stopped.callback(None)

    def _tick(self) -> None:
        """Once a second while there are connections."""
        now = self.clock.seconds()
        self.renderer.set_time(self._now())
        for channel in self.wheel.advance(now):
            channel.expired()
        if self._channels:
            self.clock.callLater(1, self._tick)
        else:
            self._ticking = False
