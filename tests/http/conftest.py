"""An HTTP server in the reactor's thread."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from gopush.net.clock import Clock
from gopush.net.http.routes import Routes
from gopush.net.http.site import Site
from tests.conftest import InReactor, reactor


class Server:
    """A listening factory; `advance` moves the clock of one that was started with a clock of its own."""

    def __init__(self, factory: Site, in_reactor: InReactor) -> None:
        self.factory = factory
        self._in_reactor = in_reactor
        self._listener: Any = in_reactor(reactor.listenTCP, 0, factory, interface="127.0.0.1")
        self.port: int = self._listener.getHost().port

    def advance(self, seconds: float) -> None:
        clock: Any = self.factory.clock
        for _ in range(int(seconds * 2)):
            self._in_reactor(clock.advance, 0.5)

    def leap(self, seconds: float) -> None:
        """Let time pass for the deadlines of connections, by a LeapingClock."""
        clock: Any = self.factory.clock
        clock.now += seconds
        self._in_reactor(self.factory._expiry.look)

    def turn(self) -> None:
        """A turn of the reactor, by such a clock."""
        clock: Any = self.factory.clock
        self._in_reactor(clock.advance, 0)

    def close(self) -> None:
        self._in_reactor(self._listener.stopListening)
        self._in_reactor(self._abort)

    def _abort(self) -> None:
        for channel in list(self.factory.channels):
            channel.transport.abortConnection()


Serve = Callable[..., Server]


@pytest.fixture
def serve(in_reactor: InReactor) -> Iterator[Serve]:
    """Start servers; `clock` None: the reactor's own time."""
    servers: list[Server] = []

    def start(routes: Routes, clock: Clock | None = None, idle: float = 10.0) -> Server:
        factory = in_reactor(lambda: Site(routes, clock or reactor, idle, (clock or reactor).seconds))
        servers.append(Server(factory, in_reactor))
        return servers[-1]

    yield start
    for server in servers:
        server.close()
