"""TCP clients: a thin shell over a session (protocol.md, section 1)."""

from __future__ import annotations

import socket
from contextlib import suppress
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure

from gopush import transport as wire
from gopush.clock import Clock
from gopush.comet.codec import RequestParser, parse_subscribe
from gopush.comet.formats import TCP_OLD, TCP_RAW
from gopush.comet.service import Comet
from gopush.comet.session import Behind, Session, State
from gopush.comet.settings import SubscriberSettings
from gopush.errors import ParameterError


class TcpSubscriber(Protocol):
    """One client."""

    transport: Any

    def __init__(self, comet: Comet, clock: Clock) -> None:
        self._comet = comet
        self._clock = clock
        self._parser: RequestParser | None = RequestParser()

    def connectionMade(self) -> None:
        """See Protocol."""
        tune(self.transport, self._comet.settings)
        self.send = wire.sender(self.transport)
        self._session = Session(self, TCP_OLD, self._comet.settings, self._clock.seconds())
        self._comet.opened(self._session)

    def dataReceived(self, data: bytes) -> None:
        """See Protocol. What comes after the last word is thrown away."""
        session = self._session
        if session.state is State.CLOSING:
            return
        if self._parser is not None:
            data = self._subscribe(self._parser, data)
        heartbeats = len(data) - len(data.lstrip(b"h"))
        if heartbeats:
            session.heard(heartbeats, self._clock.seconds())
        if heartbeats < len(data):
            self._comet.end(session)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """See Protocol."""
        self._comet.closed(self._session)

    def finish(self) -> None:
        """See Wire."""
        wire.finish(self.transport)

    def abort(self) -> None:
        """See Wire."""
        wire.abort(self.transport)

    def drained(self) -> Deferred[None]:
        """See Wire."""
        return wire.drained(self.transport)

    def behind(self) -> Behind | None:
        """See Wire."""
        return behind("tcp", self.transport)

    def _subscribe(self, parser: RequestParser, data: bytes) -> bytes:
        """Read the request; what came behind it."""
        session = self._session
        try:
            parsed = parser.feed(data)
            if parsed is None:
                return b""
            request = parse_subscribe(parsed[0])
        except ParameterError:
            self._parser = None
            self._comet.refuse_parameter(session)
            return b""
        self._parser = None
        session.join(request, TCP_RAW if request.version else TCP_OLD, self._clock.seconds())
        self._comet.subscribe(session)
        return parsed[1]


class TcpFactory(Factory):
    """Makes a TcpSubscriber for each client."""

    noisy = False

    def __init__(self, comet: Comet, clock: Clock) -> None:
        self._comet = comet
        self._clock = clock

    def buildProtocol(self, addr: IAddress | None) -> TcpSubscriber:
        """See Factory."""
        return TcpSubscriber(self._comet, self._clock)


def behind(kind: str, transport: Any) -> Behind | None:
    """What waits for a client of this kind."""
    lag = wire.lag(transport)
    return None if lag is None else Behind(kind, wire.peer(transport), *lag)


def tune(transport: Any, settings: SubscriberSettings) -> None:
    """Set the options of a client's socket."""
    with suppress(OSError):  # the client may be gone already; a UNIX socket has no such options
        transport.setTcpNoDelay(True)
        if settings.keepalive:
            transport.setTcpKeepAlive(True)
        handle = wire.handle(transport)
        if settings.sndbuf:
            handle.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, settings.sndbuf)
        if settings.rcvbuf:
            handle.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, settings.rcvbuf)
