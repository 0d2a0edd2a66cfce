"""Connections that are made from here, and that the reactor sees as one: where a thousand have something to read at a
time, what it does around each costs as much as reading it."""

from __future__ import annotations

import select
from typing import Any

from twisted.internet import tcp
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IReadDescriptor
from twisted.internet.main import CONNECTION_LOST
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from gopush.net.eager import Eager

MOST_IN_A_TURN = 256

log = Logger()


@implementer(IReadDescriptor)
class Gathering:
    """All connections that are made through a GatheringReactor, in an epoll of their own."""

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._epoll = select.epoll()
        self._readers: dict[int, GatheredClient] = {}

    def add(self, client: GatheredClient) -> None:
        """Read it."""
        number = client.fileno()
        if number not in self._readers:
            if not self._readers:
                self._reactor.addReader(self)
            self._readers[number] = client
            self._epoll.register(number, select.EPOLLIN)

    def discard(self, client: GatheredClient) -> bool:
        """Read it no more; whether it was read."""
        number = client.fileno()
        if self._readers.pop(number, None) is None:
            return False
        self._epoll.unregister(number)
        if not self._readers:
            self._reactor.removeReader(self)
        return True

    def doRead(self) -> None:
        """See IReadDescriptor."""
        readers = self._readers
        for number, _ in self._epoll.poll(0, MOST_IN_A_TURN):
            client = readers.get(number)
            if client is not None:
                client.read()

    def fileno(self) -> int:
        """See IFileDescriptor."""
        return self._epoll.fileno()

    def logPrefix(self) -> str:
        """See ILoggingContext."""
        return "gopush"

    def connectionLost(self, reason: Failure) -> None:
        """See IFileDescriptor: the reactor ends."""
        for client in list(self._readers.values()):
            client.connectionLost(reason)  # type: ignore[no-untyped-call]


class GatheredClient(Eager, tcp.Client):
    """A connection that was made from here."""

    gathering: Gathering

    def startReading(self) -> None:
        """See FileDescriptor. Until it is connected, it is the reactor's own."""
        if self.connected:
            self.gathering.add(self)
        else:
            super().startReading()  # type: ignore[no-untyped-call]

    def stopReading(self) -> None:
        """See FileDescriptor."""
        if not self.gathering.discard(self):
            super().stopReading()  # type: ignore[no-untyped-call]

    def read(self) -> None:
        """Do what the reactor does."""
        try:
            ended = self.doRead()
        except Exception:
            log.failure("reading failed")
            ended = CONNECTION_LOST
        if ended is not None:
            self.stopReading()
            lost = self.readConnectionLost if isinstance(ended, ConnectionDone) else self.connectionLost
            lost(Failure(ended))  # type: ignore[no-untyped-call]


class _Connector(tcp.Connector):
    gathering: Gathering

    def _makeTransport(self) -> Any:
        client = GatheredClient(self.host, self.port, self.bindAddress, self, self.reactor)  # type: ignore[no-untyped-call]
        client.gathering = self.gathering
        return client


class GatheringReactor:
    """The reactor, but for the TCP connections that are made: hand it to who makes many."""

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._gathering = Gathering(reactor)

    def connectTCP(self, host: str, port: int, factory: Any, timeout: float = 30, bindAddress: Any = None) -> Any:
        """See IReactorTCP."""
        connector = _Connector(host, port, factory, timeout, bindAddress, self._reactor)
        connector.gathering = self._gathering
        connector.connect()
        return connector
