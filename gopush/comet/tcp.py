"""TCP clients: a thin shell over a session (protocol.md, section 1)."""

from __future__ import annotations

import socket
from contextlib import suppress
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Factory, connectionDone
from twisted.protocols.basic import LineReceiver
from twisted.python.failure import Failure

from gopush.comet import codec
from gopush.comet.codec import SubRequest, parse_subscribe
from gopush.comet.service import Comet
from gopush.comet.session import SendLag, Session, State
from gopush.comet.settings import SubscriberSettings
from gopush.errors import ParameterError
from gopush.model import TCP_OLD, TCP_RAW, Format, Subscribe
from gopush.net import transport as wire

LONG_HEARTBEAT_SECONDS = 600


class ClientWire:
    """What the connection of each client is to its session, whatever it speaks. A mixin of protocols; `beginning`: the
    format until the client's request is read.
    """

    kind: str
    beginning: Format
    transport: Any

    def __init__(self, comet: Comet) -> None:
        self._comet = comet

    def connectionMade(self) -> None:
        """See Protocol."""
        tune(self.transport, self._comet.settings)
        self.send = wire.sender(self.transport)
        self._session = Session(self, self.beginning, self._comet.settings, self._comet.clock.seconds())
        self._comet.opened(self._session)

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

    def behind(self) -> SendLag | None:
        """See Wire."""
        lag = wire.lag(self.transport)
        return None if lag is None else SendLag(self.kind, wire.peer(self.transport), *lag)

    def join(self, request: Subscribe, format: Format) -> None:
        """The request was read."""
        keep_alive(self.transport, request.heartbeat)
        self._comet.subscribe(self._session, request, format)


class TcpSubscriber(ClientWire, LineReceiver):
    """One client: lines until its request is complete, then heartbeats."""

    delimiter = b"\n"  # an LF without its CR is to be seen at once
    MAX_LENGTH = codec.MAX_LINE_BYTES
    kind = "tcp"
    beginning = TCP_OLD
    _request: SubRequest | None = None

    def dataReceived(self, data: bytes) -> None:
        """See Protocol. A request that came in one piece is not taken to lines."""
        self._comet.counters.received_bytes += len(data)
        if self._session.state is State.CLOSING:
            return  # what comes after the last word is thrown away
        if self.line_mode and self._request is None:
            found = codec.whole(data)
            if found is None:
                self._request = SubRequest()
            else:
                self._subscribe(found[0])
                data = found[1]
        if self._request is None:
            if data:
                self.rawDataReceived(data)
            return
        super().dataReceived(data)  # type: ignore[no-untyped-call]
        rest = self.clearLineBuffer()  # type: ignore[no-untyped-call]
        if not self.line_mode:
            self._request = None
        elif self._request.begins(rest):
            super().dataReceived(rest)  # type: ignore[no-untyped-call]
        else:
            self._refuse()

    def lineReceived(self, line: bytes) -> None:
        """See LineReceiver: a line of the request."""
        assert self._request is not None
        try:
            arguments = self._request.take(line)
        except ParameterError:
            self._refuse()
        else:
            if arguments is not None:
                self._subscribe(arguments)

    def lineLengthExceeded(self, line: bytes) -> None:
        """See LineReceiver."""
        self._refuse()

    def rawDataReceived(self, data: bytes) -> None:
        """See LineReceiver: heartbeats."""
        session = self._session
        if session.state is State.CLOSING:
            return
        heartbeats = len(data) - len(data.lstrip(b"h"))
        if heartbeats:
            session.heard(heartbeats, self._comet.clock.seconds())
        if heartbeats < len(data):
            self._comet.end(session)

    def _subscribe(self, arguments: list[bytes]) -> None:
        """The request is complete."""
        try:
            request = parse_subscribe(arguments)
        except ParameterError:
            self._refuse()
            return
        self.setRawMode()  # type: ignore[no-untyped-call]
        self.join(request, TCP_RAW if request.version else TCP_OLD)

    def _refuse(self) -> None:
        self.setRawMode()  # type: ignore[no-untyped-call]
        self._comet.refuse_parameter(self._session)


class TcpFactory(Factory):
    """Makes a TcpSubscriber for each client."""

    noisy = False

    def __init__(self, comet: Comet) -> None:
        self._comet = comet

    def buildProtocol(self, addr: IAddress | None) -> TcpSubscriber:
        """See Factory."""
        return TcpSubscriber(self._comet)


def tune(transport: Any, settings: SubscriberSettings) -> None:
    """Set the options of a client's socket."""
    handle = wire.handle(transport)
    with suppress(OSError):  # the client may be gone already; a UNIX socket has no such options
        handle.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if settings.keepalive:
            handle.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        if settings.sndbuf:
            handle.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, settings.sndbuf)
        if settings.rcvbuf:
            handle.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, settings.rcvbuf)


def keep_alive(transport: Any, heartbeat: int) -> None:
    """Set keepalive where `heartbeat` seconds may go by without a byte: a dead client would keep its place."""
    if heartbeat > LONG_HEARTBEAT_SECONDS:
        with suppress(OSError):
            wire.handle(transport).setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
