"""WebSocket clients: autobahn below, a session above (protocol.md, section 2; RFC 6455).

autobahn reads and writes the frames. What it does around them for every connection (a pretty-printed configuration,
transport details, futures, timers) costs more than all the rest, so this module answers in its place, and the state in
which every connection begins is the class's.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from http import HTTPStatus
from types import SimpleNamespace
from typing import Any

from autobahn.twisted.websocket import WebSocketServerProtocol
from autobahn.websocket.protocol import PreparedMessage
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Factory

from gopush.comet import handshake
from gopush.comet.handshake import HandshakeError
from gopush.comet.service import Comet
from gopush.comet.session import State
from gopush.comet.tcp import ClientWire
from gopush.errors import ParameterError
from gopush.model import Format, old_json, raw_json, subscribe
from gopush.net import forwarded
from gopush.net import transport as wire
from gopush.net.clock import TurnLimit
from gopush.net.http.request import Form

MAX_MESSAGE_BYTES = 1024
MAX_UNREAD_PONG_BYTES = 64 << 10
PART_BYTES = 256
FRAME_BYTES_IN_A_TURN = 8 << 10
"""Of what comes in more than a part at once, of all clients together; 1,170 empty frames, which take 20 ms."""


def _frame(payload: bytes) -> bytes:
    """One text message as autobahn frames it; never masked, so the same bytes serve every client."""
    frame: bytes = PreparedMessage(payload, isBinary=False, applyMask=False, doNotCompress=True).payloadHybi
    return frame


WEBSOCKET_RAW = Format(lambda message: _frame(raw_json(message)), _frame)
WEBSOCKET_OLD = Format(lambda message: _frame(old_json(message)), _frame)


class WebSocketSubscriber(ClientWire, WebSocketServerProtocol):  # type: ignore[misc]
    """One client."""

    data: bytes
    message_data: list[bytes] | None
    kind = "websocket"
    beginning = WEBSOCKET_OLD
    # autobahn's settings
    CONFIG_ATTRS = ()  # what the class has need not be copied into each connection
    maxFramePayloadSize = maxMessagePayloadSize = MAX_MESSAGE_BYTES
    requireMaskedClientFrames = applyMask = echoCloseCodeReason = True
    failByDrop = True  # read nothing after a violation; _fail_connection says why before it drops
    utf8validateIncoming = False  # onMessage does it, without a validator for each connection
    maskServerFrames = logOctets = logFrames = trackTimings = autoPingRestartOnAnyTraffic = False
    openHandshakeTimeout = closeHandshakeTimeout = autoPingInterval = autoPingTimeout = 0  # the session has deadlines
    # where processHandshake leaves a connection
    websocket_version = 13
    inside_message = False
    current_frame = None
    _unread_pong_bytes = 0
    _unread = b""  # what has come and waits its turn

    def dataReceived(self, data: bytes) -> None:
        """See Protocol. What comes after the last word is thrown away."""
        self._comet.counters.received_bytes += len(data)
        if self._session.state is State.CLOSING:
            return
        if self.state == self.STATE_OPEN:
            self._read(data)
        else:
            self._dataReceived(data)

    def _read(self, data: bytes) -> None:
        """Frames have come. Many at once wait their turn, part by part."""
        if self._unread:
            self._unread += data
        elif len(data) > PART_BYTES:
            self._unread = data
            self._read_on()
        else:
            self._dataReceived(data)

    def _read_on(self) -> None:
        """Read as far as the turn allows; the rest waits for another, and nothing more is read meanwhile."""
        while self._unread and self._session.state is not State.CLOSING:
            if not self.factory.frames.take(PART_BYTES, self._go_on):
                self.transport.pauseProducing()
                return
            part, self._unread = self._unread[:PART_BYTES], self._unread[PART_BYTES:]
            self._dataReceived(part)
        self._unread = b""

    def _go_on(self) -> None:
        self._read_on()
        if not self._unread:
            self.transport.resumeProducing()

    # --- what autobahn calls ---

    def processHandshake(self) -> None:
        """The handshake or a part of it is in `data`. A wrong parameter gets its reply as a message."""
        connections = self._comet.settings.connections
        try:
            opening = handshake.read(self.data, connections.origins, self.factory.own_origins)
        except HandshakeError as refused:
            if refused.status is HTTPStatus.FORBIDDEN:
                self._comet.counters.refused_origin += 1
            else:
                self._comet.counters.refused_handshake += 1
            self._turn_away(refused)
            return
        if opening is None:
            return
        if connections.proxies and not self._belong(opening.fields, connections.proxies):
            self._turn_away(HandshakeError(HTTPStatus.TOO_MANY_REQUESTS))
            return
        self.data = b""
        self.send(opening.answer)
        self.state = self.STATE_OPEN
        self._subscribe(Form(opening.query))
        if opening.rest:
            self._read(opening.rest)

    def onMessageFrameData(self, payload: bytes) -> None:
        """A piece of a message. Of empty ones any number may come."""
        if payload:
            super().onMessageFrameData(payload)

    def onMessageEnd(self) -> None:
        """A message is complete: a heartbeat, or the end."""
        payload = b"".join(self.message_data or ())
        self.message_data = self.current_frame_masker = None  # the connection may now be idle for long
        if payload == b"h":
            self._session.heard(1, self._comet.clock.seconds())
        elif not self.message_is_binary and not _is_utf8(payload):
            self._invalid_payload("a text message that is not UTF-8")
        else:
            self._comet.end(self._session)

    def sendData(self, data: bytes, sync: bool = False, chopsize: int | None = None) -> None:
        """Send a control frame; messages do not come through here. A client that reads no pongs is not sent many."""
        self._unread_pong_bytes = self._unread_pong_bytes + len(data) if self.send(data) else 0
        if self._unread_pong_bytes > MAX_UNREAD_PONG_BYTES:
            self._unread_pong_bytes = 0
            self._comet.counters.slow_closed += 1
            self._session.abort()

    def dropConnection(self, abort: bool = False) -> None:
        """The last frame or answer was sent."""
        self.state = self.STATE_CLOSED
        self.data = b""
        self._comet.end(self._session)

    def _fail_connection(self, code: int, reason: str) -> None:
        self.sendCloseFrame(code, reason.encode()[:123])
        self.dropConnection()

    # --- what the session calls ---

    def finish(self) -> None:
        """See Wire."""
        self.sendCloseFrame(self.CLOSE_STATUS_CODE_NORMAL)
        super().finish()

    def _belong(self, fields: Mapping[bytes, bytes], proxies: tuple[str, ...]) -> bool:
        """The connection is that of the client that a proxy names; whether it may have one more."""
        peer = wire.peer_host(self.transport)
        client = forwarded.client(fields, peer, proxies)
        return client == peer or wire.belong(self.transport, client)

    def _turn_away(self, refused: HandshakeError) -> None:
        self.send(refused.answer)
        self.dropConnection()

    def _subscribe(self, query: Form) -> None:
        try:
            request = subscribe(
                query.text("key"), query.text("heartbeat"), query.text("token"), query.text("ver"), query.get("mid")
            )
        except ParameterError:
            self._comet.refuse_parameter(self._session)
            return
        self.join(request, WEBSOCKET_RAW if request.version else WEBSOCKET_OLD)


class SubscriberFactory(Factory):
    """Makes a WebSocketSubscriber for each client. `own_origins`: of pages that this process has itself."""

    noisy = False
    isServer = True  # autobahn asks

    def __init__(self, comet: Comet, own_origins: Collection[str] = ()) -> None:
        self._comet = comet
        self.own_origins = own_origins
        self.frames = TurnLimit(comet.clock, FRAME_BYTES_IN_A_TURN)

    def buildProtocol(self, addr: IAddress | None) -> WebSocketSubscriber:
        """See Factory."""
        subscriber = WebSocketSubscriber(self._comet)
        subscriber.factory = self
        return subscriber


def _is_utf8(payload: bytes) -> bool:
    try:
        payload.decode()
    except UnicodeDecodeError:
        return False
    return True


def _first_state() -> dict[str, Any]:
    """What autobahn sets in each connection that is made; nothing of it changes in place in what is used here."""

    class Connection(WebSocketServerProtocol):  # type: ignore[misc]
        CONFIG_ATTRS = ()
        trackTimings = False
        openHandshakeTimeout = 0

    connection = Connection()
    connection.factory = SimpleNamespace(isServer=True, countConnections=0)
    connection._connectionMade()
    return {name: value for name, value in vars(connection).items() if name != "factory"}


for _name, _value in _first_state().items():
    setattr(WebSocketSubscriber, _name, _value)
