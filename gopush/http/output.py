"""What goes out on a connection: never more than a piece ahead of what the client reads."""

from __future__ import annotations

from typing import Any, Protocol

from twisted.internet.interfaces import IPushProducer
from zope.interface import implementer

_PIECE = 64 << 10


class Reader(Protocol):
    """Who wants to know how the client reads."""

    def drained(self) -> None:
        """The client has read what was written."""


@implementer(IPushProducer)
class Output:
    """Writes to a transport; cuts what is large into pieces, so that a slow reader can be told from a dead one."""

    __slots__ = ("_backlog", "_reader", "_transport", "closing", "stalled")

    def __init__(self, transport: Any, reader: Reader) -> None:
        self._transport = transport
        self._reader = reader
        self._backlog: list[memoryview] = []
        self.closing = False
        self.stalled = False
        transport.registerProducer(self, True)

    def write(self, data: bytes) -> None:
        """Send data behind all that was written before."""
        if self.stalled or len(data) > _PIECE:
            self._backlog.append(memoryview(data))
            self._pump()
        else:
            self._transport.write(data)

    def close(self) -> None:
        """Close the connection once everything is sent."""
        self.closing = True
        self._pump()

    def abort(self) -> None:
        """Close the connection now."""
        self._backlog.clear()
        self._transport.abortConnection()

    def pauseProducing(self) -> None:
        """See IPushProducer."""
        self.stalled = True

    def resumeProducing(self) -> None:
        """See IPushProducer."""
        self.stalled = False
        self._pump()
        self._reader.drained()

    def stopProducing(self) -> None:
        """See IPushProducer: the connection is gone, and the channel hears of it by itself."""
        self._backlog.clear()

    def _pump(self) -> None:
        while self._backlog and not self.stalled:
            first = self._backlog[0]
            if len(first) > _PIECE:
                self._backlog[0] = first[_PIECE:]
            else:
                del self._backlog[0]
            self._transport.write(bytes(first[:_PIECE]))
        if self.closing and not self._backlog:
            self._transport.unregisterProducer()
            self._transport.loseConnection()
