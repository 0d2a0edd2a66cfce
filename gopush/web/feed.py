"""Subscriptions at the comets of other processes: web connects as a device does, to the TCP port or to one that is for
web nodes alone (NodeInfo.feed).
"""

from __future__ import annotations

from typing import Any

from twisted.internet.protocol import Protocol
from twisted.python.failure import Failure

from gopush.feed import Reader
from gopush.model import GAP, HEARTBEAT, Format, Message, NodeInfo, Subscribe
from gopush.net.clock import Clock, Deadlines
from gopush.net.limits import Shared
from gopush.net.timers import NO_SLOT, Wheel
from gopush.net.tls import ClientTls
from gopush.web import device
from gopush.web.connections import CONNECT_SECONDS, Connections
from gopush.web.device import WrongTalkError

HEARTBEAT_SECONDS = 30
ANSWER_SECONDS = 10.0
"""How long a comet may take to answer a heartbeat, or the request."""
AT_ONCE_SECONDS = 1.0
"""A peer that closes so soon, without a reply, is no comet, or something stands before it."""
MOST_SEEN = 256
MOST_SEEN_BYTES = 1 << 20


class RemoteFeed:
    """See Feed. `shared`: its connections are files of this process, too; `tls`: as processes call each other."""

    def __init__(self, reactor: Any, shared: Shared, tls: ClientTls | None = None) -> None:
        self.connections = Connections(reactor, tls)
        self.shared = shared
        self.clock: Clock = reactor
        self.wheel: Wheel[RemoteSubscription] = Wheel(self.clock.seconds())
        self._deadlines = Deadlines(self.wheel, RemoteSubscription.due, lambda: self._open, self.clock)
        self.seen: dict[tuple[Format, bytes], tuple[bytes, int]] = {}
        """What came last, as it looks in a format, and the last mid: the same comes to many."""
        self._seen_bytes = 0
        self._open = 0
        self._tries = 0

    def open(self, owner: NodeInfo, request: Subscribe, format: Format, reader: Reader) -> RemoteSubscription | None:
        """See Feed. A comet with several addresses is tried at one after the other."""
        addresses = owner.feed or owner.tcp
        if not addresses:
            return None
        self._tries += 1
        address = addresses[self._tries % len(addresses)]
        return RemoteSubscription(self, address, bool(owner.feed), request, format, reader)

    def opened(self, subscription: RemoteSubscription) -> None:
        """One more connection is made."""
        self.shared.open += 1
        self._open += 1
        self._deadlines.watch()

    def closed(self, subscription: RemoteSubscription) -> None:
        """It is over."""
        self.shared.open -= 1
        self._open -= 1
        self.wheel.discard(subscription)

    def remember(self, format: Format, data: bytes, frames: bytes, mid: int) -> None:
        """What came, whole, looks so."""
        size = len(data) + len(frames)
        if size > MOST_SEEN_BYTES // 4:
            return
        if len(self.seen) >= MOST_SEEN or self._seen_bytes + size > MOST_SEEN_BYTES:
            self.seen.clear()
            self._seen_bytes = 0
        self.seen[format, data] = frames, mid
        self._seen_bytes += size


class RemoteSubscription(Protocol):
    """See Subscription; it is the factory of its one connection, and its protocol."""

    __slots__ = (
        "_accepted",
        "_asked",
        "_buffer",
        "_feed",
        "_format",
        "_own_port",
        "_reader",
        "_reply",
        "_request",
        "_since",
        "address",
        "connected",
        "deadline",
        "slot",
        "transport",
    )
    noisy = False

    def __init__(
        self, feed: RemoteFeed, address: str, own_port: bool, request: Subscribe, format: Format, reader: Reader
    ) -> None:
        """`own_port`: whether that port is for web nodes alone."""
        self._feed = feed
        self.address = address
        self._own_port = own_port
        self._request: Subscribe | None = request
        self._format = format
        self._reader: Reader | None = reader
        self._buffer: bytearray | None = None
        self._reply = b""
        self._accepted = False
        self._asked = True
        self._since = 0.0
        self.transport: Any = None
        self.connected = 0
        self.slot = NO_SLOT
        self.deadline = 0.0

    def start(self) -> None:
        """See Subscription."""
        self._feed.opened(self)
        self._feed.connections.connect(self, self._own_port)

    @property
    def wanted(self) -> bool:
        """Whether it was not closed."""
        return self._reader is not None

    def connecting(self) -> None:
        """See Connecting."""
        self._since = self._feed.clock.seconds()
        self.deadline = self._since + CONNECT_SECONDS + ANSWER_SECONDS
        self._feed.wheel.add(self)

    def forgotten(self) -> None:
        """See Connecting."""
        self._feed.closed(self)

    def close(self) -> None:
        """See Subscription."""
        self._reader = None
        self._break_off()

    def go_on(self) -> None:
        """See Subscription."""
        if self.transport is not None:
            self.transport.resumeProducing()

    def due(self) -> None:
        """The time for a heartbeat, or for its answer, has come."""
        if self._asked:
            self._break_off()
            return
        self._asked = True
        self.deadline = self._feed.clock.seconds() + ANSWER_SECONDS
        self._feed.wheel.add(self)
        self.transport.write(b"h")

    # --- what Twisted calls ---

    def doStart(self) -> None:
        """See IProtocolFactory."""

    def doStop(self) -> None:
        """See IProtocolFactory."""

    def startedConnecting(self, connector: Any) -> None:
        """See ClientFactory."""

    def buildProtocol(self, _address: Any) -> RemoteSubscription:
        """See IProtocolFactory."""
        return self

    def clientConnectionFailed(self, connector: Any, reason: Failure) -> None:
        """See ClientFactory."""
        self._feed.connections.made(self.address)
        self._over(reason, reached=False)

    def clientConnectionLost(self, connector: Any, reason: Failure) -> None:
        """See ClientFactory: connectionLost() has done it."""

    def connectionMade(self) -> None:
        """See Protocol."""
        self._feed.connections.made(self.address)
        request, self._request = self._request, None
        if self._reader is None or request is None:
            self._break_off()
            return
        self.transport.setTcpNoDelay(True)
        self.transport.write(device.request(request._replace(heartbeat=HEARTBEAT_SECONDS, version=device.VERSION)))

    def dataReceived(self, data: bytes) -> None:
        """See Protocol. What has come to another reader just before is not read again."""
        reader = self._reader
        if reader is None:
            return
        if self._buffer is None:
            known = self._feed.seen.get((self._format, data))
            if known is not None:
                frames, reader.cursor = known
                if reader.write(frames) and reader.stalled:
                    self.transport.pauseProducing()
                return
        self._take(reader, data)

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        """See Protocol."""
        self._over(reason, reached=True)

    def _take(self, reader: Reader, data: bytes) -> None:
        """Pass messages on together, and act on each reply in its place."""
        buffer = self._buffer or bytearray()
        whole = not buffer
        buffer += data
        try:
            found = device.take(buffer)
        except WrongTalkError:
            self._break_off()
            return
        self._buffer = buffer or None
        frames: list[bytes] = []
        mid = 0
        for item in found:
            if isinstance(item, Message):
                frames.append(self._format.message(item))
                mid = item.mid
            elif item == GAP:
                frames.append(self._format.reply(GAP))
            else:
                self._replied(reader, item)
        if not frames or self._reader is None:
            return
        together = b"".join(frames)
        if whole and not buffer and mid and all(isinstance(item, Message) for item in found):
            self._feed.remember(self._format, data, together, mid)
        if mid:
            reader.cursor = mid
        if reader.write(together) and reader.stalled:
            self.transport.pauseProducing()

    def _replied(self, reader: Reader, reply: bytes) -> None:
        if not self._accepted:
            self._feed.connections.useful(self.address)
        if reply != HEARTBEAT:
            self._reply = reply
            return
        self._asked = False
        self.deadline = self._feed.clock.seconds() + HEARTBEAT_SECONDS
        if not self._accepted:
            self._accepted = True
            reader.accepted()

    def _break_off(self) -> None:
        if self.transport is not None:
            self.transport.abortConnection()

    def _over(self, reason: Failure, reached: bool) -> None:
        self._feed.closed(self)
        reader, self._reader = self._reader, None
        self.transport = self._buffer = None
        if reader is None:
            return
        if self._reply:
            reader.refused(self._reply)
            return
        if not self._accepted and not (reached and self._feed.clock.seconds() - self._since > AT_ONCE_SECONDS):
            self._feed.connections.useless(self.address, reason.getErrorMessage())
        reader.ended(reached)
