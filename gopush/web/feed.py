"""Subscriptions at the comets of other processes: web comes to their TCP port as a device does."""

from __future__ import annotations

from collections import deque
from typing import Any

from twisted.internet.protocol import Protocol
from twisted.python.failure import Failure

from gopush.feed import Reader
from gopush.model import GAP, HEARTBEAT, Format, Message, NodeInfo, Subscribe
from gopush.net.clock import Clock, Deadlines
from gopush.net.eager import EagerReactor
from gopush.net.limits import Shared
from gopush.net.timers import NO_SLOT, Wheel
from gopush.web import device
from gopush.web.device import WrongTalkError

HEARTBEAT_SECONDS = 30
ANSWER_SECONDS = 10.0
"""How long a comet may take to answer a heartbeat, or the request."""
CONNECT_SECONDS = 3.0
MOST_CONNECTING = 32
"""Connections that are being made to one comet at a time: in a storm its accept queue has no room for more."""
MOST_SEEN = 256
MOST_SEEN_BYTES = 1 << 20


class RemoteFeed:
    """See Feed: over TCP, where a comet takes that. `shared`: its connections are files of this process, too."""

    def __init__(self, reactor: Any, shared: Shared) -> None:
        self.reactor = EagerReactor(reactor)
        self.shared = shared
        self.clock: Clock = reactor
        self.wheel: Wheel[RemoteSubscription] = Wheel(self.clock.seconds())
        self._deadlines = Deadlines(self.wheel, RemoteSubscription.due, lambda: self._open, self.clock)
        self.seen: dict[tuple[Format, bytes], tuple[bytes, int]] = {}
        """What came last, as it looks in a format, and the last mid: the same comes to many."""
        self._seen_bytes = 0
        self._open = 0
        self._tries = 0
        self._connecting: dict[str, int] = {}
        self._queues: dict[str, deque[RemoteSubscription]] = {}

    def open(self, owner: NodeInfo, request: Subscribe, format: Format, reader: Reader) -> RemoteSubscription | None:
        """See Feed. A comet with several addresses is tried at one after the other."""
        if not owner.tcp:
            return None
        self._tries += 1
        return RemoteSubscription(self, owner.tcp[self._tries % len(owner.tcp)], request, format, reader)

    def opened(self, subscription: RemoteSubscription) -> None:
        """One more connection is made."""
        self.shared.open += 1
        self._open += 1
        self._deadlines.watch()

    def connect(self, subscription: RemoteSubscription) -> None:
        """Make its connection, in its turn."""
        self._queues.setdefault(subscription.address, deque()).append(subscription)
        self._connect_next(subscription.address)

    def connected(self, address: str) -> None:
        """A connection to this address is made, or has failed."""
        self._connecting[address] -= 1
        self._connect_next(address)

    def _connect_next(self, address: str) -> None:
        queue = self._queues.get(address)
        while queue and self._connecting.get(address, 0) < MOST_CONNECTING:
            subscription = queue.popleft()
            if subscription.wanted:
                self._connecting[address] = self._connecting.get(address, 0) + 1
                subscription.connect()
            else:
                self.closed(subscription)
        if not queue:
            self._queues.pop(address, None)
            if not self._connecting.get(address):
                self._connecting.pop(address, None)

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
        "_reader",
        "_reply",
        "_request",
        "address",
        "connected",
        "deadline",
        "slot",
        "transport",
    )
    noisy = False

    def __init__(self, feed: RemoteFeed, address: str, request: Subscribe, format: Format, reader: Reader) -> None:
        self._feed = feed
        self.address = address
        self._request: Subscribe | None = request
        self._format = format
        self._reader: Reader | None = reader
        self._buffer: bytearray | None = None
        self._reply = b""
        self._accepted = False
        self._asked = True
        self.transport: Any = None
        self.connected = 0
        self.slot = NO_SLOT
        self.deadline = 0.0

    def start(self) -> None:
        """See Subscription."""
        self._feed.opened(self)
        self._feed.connect(self)

    @property
    def wanted(self) -> bool:
        """Whether it was not closed."""
        return self._reader is not None

    def connect(self) -> None:
        """Its turn has come."""
        self.deadline = self._feed.clock.seconds() + CONNECT_SECONDS + ANSWER_SECONDS
        self._feed.wheel.add(self)
        host, _, port = self.address.rpartition(":")
        self._feed.reactor.connectTCP(host.strip("[]"), int(port), self, CONNECT_SECONDS)

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
        self._feed.connected(self.address)
        self._over(reached=False)

    def clientConnectionLost(self, connector: Any, reason: Failure) -> None:
        """See ClientFactory: connectionLost() has done it."""

    def connectionMade(self) -> None:
        """See Protocol."""
        self._feed.connected(self.address)
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
        self._over(reached=True)

    def _take(self, reader: Reader, data: bytes) -> None:
        """Messages go on together; replies are acted on where they stand."""
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

    def _over(self, reached: bool) -> None:
        self._feed.closed(self)
        reader, self._reader = self._reader, None
        self.transport = self._buffer = None
        if reader is None:
            return
        if self._reply:
            reader.refused(self._reply)
        else:
            reader.ended(reached)
