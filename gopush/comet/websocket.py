"""WebSocket clients: autobahn below, a session above (protocol.md, section 2; RFC 6455)."""

from __future__ import annotations

from typing import Any

from autobahn.twisted.websocket import WebSocketServerFactory, WebSocketServerProtocol
from autobahn.util import wildcards2patterns
from autobahn.websocket.protocol import PreparedMessage
from autobahn.websocket.types import ConnectionDeny
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure

from gopush.clock import Clock
from gopush.comet import codec
from gopush.comet.codec import Subscribe
from gopush.comet.formats import Format
from gopush.comet.service import Comet
from gopush.comet.session import GRACE_SECONDS, Session, State
from gopush.comet.tcp import tune
from gopush.errors import ParameterError
from gopush.http.request import Form
from gopush.rpc import envelope
from gopush.transport import drained, sender

PATH = "/sub"
MAX_MESSAGE_BYTES = 1024
MAX_HANDSHAKE_BYTES = 8192


def _frame(payload: bytes) -> bytes:
    """One text message as autobahn frames it; never masked, so the same bytes serve every client."""
    frame: bytes = PreparedMessage(payload, isBinary=False, applyMask=False, doNotCompress=True).payloadHybi
    return frame


WEBSOCKET_RAW = Format(lambda message: _frame(envelope.raw(message)), _frame)
WEBSOCKET_OLD = Format(lambda message: _frame(envelope.old(message)), _frame)


class WebSocketSubscriber(WebSocketServerProtocol):  # type: ignore[misc]
    """One client."""

    # autobahn copies its whole configuration into each connection, and pretty-prints it for a debug line that nobody
    # reads. What the class has need not be copied, so here is all of it: protocol.md and RFC 6455, kept strictly.
    CONFIG_ATTRS = ()
    versions = (13,)
    webStatus = False
    maxFramePayloadSize = MAX_MESSAGE_BYTES
    maxMessagePayloadSize = MAX_MESSAGE_BYTES
    failByDrop = False
    closeHandshakeTimeout = GRACE_SECONDS
    openHandshakeTimeout = 0  # the session's deadline serves
    utf8validateIncoming = requireMaskedClientFrames = tcpNoDelay = True
    maskServerFrames = applyMask = logOctets = logFrames = trackTimings = echoCloseCodeReason = False
    autoFragmentSize = autoPingInterval = autoPingTimeout = maxConnections = trustXForwardedFor = 0
    autoPingSize = 12
    autoPingRestartOnAnyTraffic = serveFlashSocketPolicy = False
    allowedOrigins = ("*",)
    allowedOriginsPatterns = tuple(wildcards2patterns(["*"]))
    allowNullOrigin = True
    perMessageCompressionAccept = staticmethod(lambda _: None)

    def __init__(self, comet: Comet, clock: Clock) -> None:
        super().__init__()
        self._comet = comet
        self._clock = clock
        self._arguments = b""

    def connectionMade(self) -> None:
        """See Protocol."""
        super().connectionMade()
        tune(self.transport, self._comet.settings)
        self.send = sender(self.transport)
        self._session = Session(self, WEBSOCKET_OLD, self._comet.settings, self._clock.seconds())
        self._comet.opened(self._session)

    def dataReceived(self, data: bytes) -> None:
        """See Protocol. autobahn itself would gather a handshake without end."""
        if self.state == self.STATE_CONNECTING and len(self.data) + len(data) > MAX_HANDSHAKE_BYTES:
            self.transport.abortConnection()
        else:
            super().dataReceived(data)

    def onConnect(self, request: Any) -> None:
        """The handshake was read."""
        if request.path != PATH:
            raise ConnectionDeny(ConnectionDeny.NOT_FOUND, "there is /sub here")
        self._arguments = self.http_request_uri.partition("?")[2].partition("#")[0].encode()

    def onOpen(self) -> None:
        """The handshake was answered: what is wrong with the parameters is said as a message."""
        try:
            request = _subscribe(Form(self._arguments))
        except ParameterError:
            self._comet.refuse_parameter(self._session)
            return
        format = WEBSOCKET_RAW if request.version else WEBSOCKET_OLD
        self._session.join(request, format, self._clock.seconds())
        self._comet.subscribe(self._session)

    def onMessage(self, payload: bytes, isBinary: bool) -> None:
        """A heartbeat, or the end."""
        if self._session.state is State.CLOSING:
            return
        if payload == b"h":
            self._session.heard(1, self._clock.seconds())
        else:
            self._comet.end(self._session)

    def onPing(self, payload: bytes) -> None:
        """Answer, unless the client does not read its answers."""
        if self.send(b"") > self._comet.settings.msgbuf_bytes:
            self.abort()
        else:
            super().onPing(payload)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """See Protocol."""
        super().connectionLost(reason)
        self._comet.closed(self._session)

    def finish(self) -> None:
        """See Wire."""
        self.sendClose(self.CLOSE_STATUS_CODE_NORMAL)

    def abort(self) -> None:
        """See Wire."""
        self.transport.abortConnection()

    def drained(self) -> Deferred[None]:
        """See Wire."""
        return drained(self.transport)


class SubscriberFactory(WebSocketServerFactory):  # type: ignore[misc]
    """Makes a WebSocketSubscriber for each client."""

    noisy = False

    def __init__(self, comet: Comet, clock: Clock, reactor: Any) -> None:
        super().__init__(reactor=reactor, server="gopush")
        self._comet = comet
        self._clock = clock

    def buildProtocol(self, addr: IAddress | None) -> WebSocketSubscriber:
        """See Factory."""
        subscriber = WebSocketSubscriber(self._comet, self._clock)
        subscriber.factory = self
        return subscriber


def _subscribe(query: Form) -> Subscribe:
    return codec.subscribe(
        query.text("key"), query.text("heartbeat"), query.text("token"), query.text("ver"), query.get("mid")
    )
