"""One HTTP port: twisted.web's Site, whose resources are the routes, and what its connections have in common."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any
from urllib.parse import unquote_to_bytes

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.web import server
from twisted.web.resource import Resource

from gopush.net.clock import Clock, Expiry, TurnLimit
from gopush.net.http.bounds import BoundedChannel
from gopush.net.http.channel import HttpChannel
from gopush.net.http.exchange import Exchange
from gopush.net.http.head import RequestReader
from gopush.net.http.parts import HttpCounters
from gopush.net.http.request import CrossOrigin, Renderer, explained, plain
from gopush.net.http.routes import AnyRoute, Route, Routes
from gopush.net.timers import Wheel

HEAD_BYTES_IN_A_TURN = 64 << 10
"""So many bytes of heads twisted.web reads in a turn, each piece of up to 4 KiB counting 1 KiB more: 4 ms of work, 20
where the fields are small. Other work has a price in these bytes: CHUNK_LINE_COST, SIMPLE_COST, ALONE_COST.
"""

STOP_SECONDS = 3.5
"""How long whoever is behind with its answer may still read once the port closes: others wait for that."""

log = Logger()


class RouteResource(Resource):
    """All methods of one path. HEAD is answered as GET, if its route takes it, an unknown method 405."""

    isLeaf = True

    def __init__(self, path: str, methods: Mapping[str, AnyRoute], sharing: CrossOrigin | None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        get = methods.get("GET")
        if isinstance(get, Route) and get.head:
            methods = {"HEAD": get, **methods}
        self.path = path.encode()
        self.methods = {method.encode(): route for method, route in methods.items()}
        allowed = ", ".join(sorted(methods))
        other = plain(405, ("Allow", allowed)) if methods else plain(404)
        why = f"this call takes {allowed}" if methods else "this port has no such call"
        self._other = Route(lambda request: explained(other, request, why), too_large=other)
        if sharing is not None and methods:
            self._other = replace(self._other, refuse=lambda request: sharing.preflight(request, allowed))

    def route(self, method: bytes) -> AnyRoute:
        """What answers this method."""
        return self.methods.get(method) or self._other

    def render(self, request: Any) -> int:
        """See IResource: the answer is written by the exchange, now or later."""
        request.ask(request.route)
        return server.NOT_DONE_YET


class Site(server.Site):
    """Serves `routes`; it closes a connection without progress for `idle` seconds.

    `now`: seconds since the epoch. `sharing`: with pages of other web sites; None: nothing is said to browsers.
    """

    protocol: Any = HttpChannel
    requestFactory: Any = Exchange
    noisy = False

    def __init__(
        self,
        routes: Routes,
        clock: Clock,
        idle: float,
        now: Callable[[], float] = time.time,
        sharing: CrossOrigin | None = None,
    ) -> None:
        reactor: Any = clock
        super().__init__(Resource(), reactor=reactor, timeout=None)  # type: ignore[no-untyped-call]
        self.counters = HttpCounters()
        self.clock = clock
        self.idle = idle
        self.renderer = Renderer(now(), sharing)
        self.channels: set[HttpChannel] = set()
        self.stopping = False
        self.stop_by = float("inf")
        self._now = now
        self.paths = {path.encode(): RouteResource(path, methods, sharing) for path, methods in routes.items()}
        self.reader = RequestReader(
            {
                b"%b %b" % (method, path): route
                for path, resource in self.paths.items()
                for method, route in resource.methods.items()
                if isinstance(route, Route)
            }
        )
        self.heads = TurnLimit(clock, HEAD_BYTES_IN_A_TURN)
        self.wheel: Wheel[BoundedChannel] = Wheel(clock.seconds())
        self._expiry = Expiry(self.wheel, self._expired, clock)
        self._ticking = False
        self._stopped: Deferred[None] | None = None

    def acceptableProtocols(self) -> list[bytes]:
        """See IProtocolNegotiationFactory: HTTP/2 has bounds of its own, which nobody has set."""
        return [b"http/1.1"]

    def getResourceFor(self, request: Any) -> RouteResource:
        """See Site: a path is known as a whole."""
        path = request.path
        return self.paths.get(path) or self.paths.get(unquote_to_bytes(path)) or _NOWHERE

    def opened(self, channel: HttpChannel) -> None:
        """A connection was made."""
        self.channels.add(channel)
        if not self._ticking:
            self._ticking = True
            self._tick()
        self.wheel.add(channel)

    def closed(self, channel: HttpChannel) -> None:
        """A connection was lost."""
        self.channels.discard(channel)
        self.wheel.discard(channel)
        self._check_stopped()

    def stop(self) -> Deferred[None]:
        """Close the connections, each once its requests are answered, and those of slow readers after STOP_SECONDS;
        fires when none is left.

        New connections are the listener's affair: stop that first.
        """
        self.stopping = True
        self.stop_by = self.clock.seconds() + STOP_SECONDS
        self._stopped = stopped = Deferred[None]()
        for channel in list(self.channels):
            channel.stop()
        self._check_stopped()
        return stopped

    def _check_stopped(self) -> None:
        if self._stopped is not None and not self.channels:
            stopped, self._stopped = self._stopped, None
            stopped.callback(None)

    def _tick(self) -> None:
        """Once a second while there are connections."""
        self.renderer.set_time(self._now())
        self._expiry.look()
        if self.channels:
            self.clock.callLater(1, self._tick)
        else:
            self._ticking = False

    def _expired(self, channel: BoundedChannel) -> None:
        try:
            channel.expired()
        except Exception:  # whatever is wrong with one connection
            log.failure("a deadline of an HTTP connection failed; it is closed")
            channel.transport.abortConnection()


_NOWHERE = RouteResource("", {}, None)
