"""Connections that send at once (docs/performance.md): Twisted's own write waits for the next turn of the reactor.

This module and transport.py alone know the inside of Twisted's transports.
"""

from __future__ import annotations

from typing import Any

from twisted.internet import tcp
from twisted.internet.abstract import FileDescriptor
from twisted.internet.address import IPv6Address
from twisted.internet.error import ConnectionDone
from twisted.python.failure import Failure

from gopush.endings import Endings
from gopush.gate import Gate


def waiting(transport: Any) -> int:
    """How many bytes wait in this process for a transport that owns its socket; 0 for any other object."""
    if not isinstance(transport, FileDescriptor):
        return 0
    return len(transport.dataBuffer) - transport.offset + transport._tempDataLen


class Eager(tcp.Connection):
    """A TCP connection whose write goes to the socket while nothing waits before it."""

    behind_since = 0.0
    """Since when (reactor seconds) something waits, where something does."""

    def send(self, data: bytes) -> int:
        """Write; how many bytes wait after it."""
        if self.dataBuffer or self._tempDataBuffer or not self.connected:
            FileDescriptor.write(self, data)
            return waiting(self)
        try:
            sent = self.socket.send(data)
        except OSError:
            # A full buffer or a broken connection: Twisted's own write meets it again and knows what to do.
            sent = 0
        if sent == len(data):
            return 0
        self.behind_since = self.reactor.seconds()
        FileDescriptor.write(self, data[sent:])
        return waiting(self)

    def write(self, data: bytes) -> None:
        """See ITransport."""
        if data:
            self.send(data)


class EagerServer(Eager, tcp.Server):
    """An accepted connection."""

    logstr = repstr = "gopush"
    server: Any
    _ended: Any = None

    def __init__(self, sock: Any, protocol: Any, client: Any, server: Any, sessionno: int, reactor: Any) -> None:
        # As tcp.Server does, but for two strings that cost 200 bytes a connection and serve only its logs.
        tcp.Connection.__init__(self, sock, protocol, reactor)
        if len(client) != 2:
            self._addressType = IPv6Address
        self.server = server
        self.client = client
        self.sessionno = sessionno
        self.hostname = client[0]
        self.startReading()  # type: ignore[no-untyped-call]
        self.connected = 1
        self._gate: Gate | None = server.gate
        if self._gate is not None:
            self._gate.opened(client[0])

    def doRead(self) -> None:
        """See IReadDescriptor. The end is put off a little (gopush.endings)."""
        ended = super().doRead()
        if ended is None:
            return
        self.stopReading()  # type: ignore[no-untyped-call]
        if self._ended is None:  # else the protocol has resumed reading meanwhile
            self._ended = ended
            self.server.endings.add(self)

    def end(self) -> None:
        """Do what the reactor does at once where doRead() says so: who sends no more may read on, who broke may not."""
        if not self.connected:
            return
        lost = self.readConnectionLost if isinstance(self._ended, ConnectionDone) else self.connectionLost
        lost(Failure(self._ended))  # type: ignore[no-untyped-call]

    def connectionLost(self, reason: Failure) -> None:
        """See IProtocol: the connection is gone."""
        gate = self._gate
        super().connectionLost(reason)
        if gate is not None:
            address: Any = self.client
            gate.closed(address[0])


class _EagerClient(Eager, tcp.Client):
    """A connection that was made from here."""


class _EagerConnector(tcp.Connector):
    def _makeTransport(self) -> Any:
        return _EagerClient(self.host, self.port, self.bindAddress, self, self.reactor)  # type: ignore[no-untyped-call]


ACCEPTS_IN_A_TURN = 128
"""In a storm of connections: who is connected has its turn in between, the others wait in the kernel."""


class EagerPort(tcp.Port):
    """A TCP port whose connections are eager, and come in as `gate` lets them."""

    transport = EagerServer
    endings: Endings
    gate: Gate | None = None
    _held = False
    _full = False

    def doRead(self) -> None:
        """Accept who waits, as many as there is room for."""
        self.numberAccepts = ACCEPTS_IN_A_TURN
        if self.gate is not None:
            room = self.gate.room()
            if room < 1:
                self._full = True
                super().stopReading()  # type: ignore[no-untyped-call]
                self.gate.wait(self._go_on)
                return
            self.numberAccepts = min(ACCEPTS_IN_A_TURN, room)
        super().doRead()  # type: ignore[no-untyped-call]

    def stopReading(self) -> None:
        """Accept nobody, whatever room there is."""
        self._held = True
        super().stopReading()  # type: ignore[no-untyped-call]

    def startReading(self) -> None:
        """Accept again."""
        self._held = False
        if not self._full:
            super().startReading()  # type: ignore[no-untyped-call]

    def _go_on(self) -> None:
        self._full = False
        if self.connected and not self._held:
            super().startReading()  # type: ignore[no-untyped-call]


class _Gated:
    """A factory, but for those whom the gate does not admit."""

    def __init__(self, factory: Any, gate: Gate) -> None:
        self._factory = factory
        self._gate = gate

    def buildProtocol(self, address: Any) -> Any:
        return self._factory.buildProtocol(address) if self._gate.admits(address.host) else None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._factory, name)


class EagerReactor:
    """The reactor, but for its TCP ports and connections: hand it to an endpoint. `gate`: that of the ports."""

    def __init__(self, reactor: Any, gate: Gate | None = None) -> None:
        self._reactor = reactor
        self._gate = gate

    def listenTCP(self, port: int, factory: Any, backlog: int = 50, interface: str = "") -> EagerPort:
        """See IReactorTCP."""
        if self._gate is not None:
            factory = _Gated(factory, self._gate)
        listening = EagerPort(port, factory, backlog, interface, self._reactor)
        listening.endings = Endings(self._reactor)
        listening.gate = self._gate
        listening.startListening()
        return listening

    def connectTCP(
        self, host: str, port: int, factory: Any, timeout: float = 30, bindAddress: Any = None
    ) -> tcp.Connector:
        """See IReactorTCP."""
        connector = _EagerConnector(host, port, factory, timeout, bindAddress, self._reactor)
        connector.connect()
        return connector

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reactor, name)
