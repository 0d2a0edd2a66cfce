"""A site without sockets, which can be asked with and without its short cut."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure

from gopush.net.http.channel import HttpChannel
from gopush.net.http.request import Paged, Promise, Request, Response, explained, plain
from gopush.net.http.routes import Answer, Receiver, Route, Routes, StreamRoute
from gopush.net.http.site import Site

TURNS = 40


class Nothing:
    """In the place of the short cut's reader: nothing is simple."""

    def read(self, data: bytes, at: int, peer: str) -> None:
        """See RequestReader."""


class Share:
    """All pages of other sites may read, and ask."""

    def fields(self, request: Request) -> tuple[tuple[str, str], ...]:
        """See CrossOrigin."""
        origin = request.header(b"origin")
        return (("Access-Control-Allow-Origin", origin), ("Vary", "Origin")) if origin else ()

    def preflight(self, request: Request, methods: str) -> Response | None:
        """See CrossOrigin."""
        if request.method != b"OPTIONS" or not request.header(b"access-control-request-method"):
            return None
        return Response(204, "", b"", (("Access-Control-Allow-Methods", methods),))


class Upper:
    """A stream that is answered in capitals."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self._came = b""

    def received(self, piece: bytes) -> None:
        """See Receiver."""
        self._came += piece

    def ended(self) -> None:
        """See Receiver."""
        self._answer.write(self._came.upper())
        self._answer.finish()

    def drained(self) -> None:
        """See Receiver."""

    def leaving(self) -> None:
        """See Receiver."""
        self._answer.finish()

    def lost(self) -> None:
        """See Receiver."""


class _Counting(Site):
    ways: Ways

    def opened(self, channel: HttpChannel) -> None:
        self.ways.opened += 1
        super().opened(channel)


class Ways:
    """A site whose clock stands still but for its turns."""

    def __init__(self, short: bool) -> None:
        self.clock = Clock()
        self.opened = 0
        self.site = _Counting(self._routes(), self.clock, 10, lambda: 0.0, Share())
        self.site.ways = self
        if not short:
            nothing: Any = Nothing()
            self.site.reader = nothing

    def answers(self, pieces: Sequence[bytes]) -> tuple[bytes, bool]:
        """What a connection answers to these segments, and whether it is over then."""
        transport: Any = Transport()  # type: ignore[no-untyped-call]
        channel: Any = self.site.buildProtocol(None)  # type: ignore[no-untyped-call]
        channel.makeConnection(transport)
        for piece in pieces:
            turns = 0
            while transport.producerState == "paused" and turns < TURNS:
                self.clock.advance(0)
                turns += 1
            channel.dataReceived(piece)
        for _ in range(TURNS):
            self.clock.advance(0)
        over = channel.deaf
        channel.connectionLost(Failure(ConnectionDone()))
        assert not self.site.channels
        for _ in range(3):
            self.clock.advance(0)
        return transport.value(), over

    def _routes(self) -> Routes:
        locked = Route(_echo, refuse=lambda request: explained(plain(401), request, "it is locked"))
        return {
            "/echo": {"GET": Route(_echo), "POST": Route(_echo, 100)},
            "/later": {"GET": Route(self._delayed), "POST": Route(self._delayed)},
            "/deferred": {"GET": Route(self._deferred)},
            "/pages": {"GET": Route(_pages, alone=True)},
            "/fails": {"GET": Route(_fails)},
            "/locked": {"GET": locked, "POST": locked},
            "/stream": {"POST": StreamRoute(lambda _, answer: _receiver(answer), "text/plain")},
        }

    def _delayed(self, request: Request) -> Promise:
        delayed = Promise()
        self.clock.callLater(0, delayed.give, _echo(request))
        return delayed

    def _deferred(self, request: Request) -> Deferred[Response]:
        deferred: Deferred[Response] = Deferred()
        self.clock.callLater(0, deferred.callback, _echo(request))
        return deferred


def _receiver(answer: Answer) -> Receiver:
    return Upper(answer)


def _echo(request: Request) -> Response:
    shown = (request.method, request.path, request.query.text("q").encode(), request.body)
    more = (request.headers.get(b"x", b"-"), request.headers.get(b"host", b"-"))
    return Response(200, "text/plain", b"|".join((*shown, *more)))


def _pages(request: Request) -> Paged:
    left = [b"", b"tail", b"page"]
    return Paged(200, "text/plain", b"head", lambda: succeed(left.pop()))


def _fails(request: Request) -> Response:
    raise RuntimeError("a handler's mistake")


class Transport(StringTransport):
    disconnected = False

    def setTcpNoDelay(self, _: bool) -> None: ...
