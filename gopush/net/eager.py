"""Connections that send at once (docs/performance.md): Twisted's own write waits for the next turn of the reactor.

This module and net/transport.py alone know the inside of Twisted's transports.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable
from fcntl import ioctl
from termios import TIOCOUTQ
from typing import Any

from twisted.internet import tcp
from twisted.internet.abstract import FileDescriptor
from twisted.internet.address import IPv6Address
from twisted.internet.main import CONNECTION_DONE, CONNECTION_LOST
from twisted.logger import Logger
from twisted.python.failure import Failure

from gopush.net import accept
from gopush.net.limits import ConnectionLimiter

_DONE = Failure(CONNECTION_DONE)

MOST_UNSENT = 64 << 10
"""Bytes of a connection that the kernel takes before it can send them; it asks for more once half of them are sent. Its
own limit is MBs for a slow reader.
"""

log = Logger()


def waiting(transport: Any) -> int:
    """How many bytes wait in this process for a transport that owns its socket; 0 for any other object."""
    if not isinstance(transport, FileDescriptor):
        return 0
    return len(transport.dataBuffer) - transport.offset + transport._tempDataLen


class Eager(tcp.Connection):
    """A TCP connection whose write goes to the socket while nothing waits before it."""

    lagging_since = 0.0
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
        self.lagging_since = self.reactor.seconds()
        FileDescriptor.write(self, data[sent:])
        return waiting(self)

    def write(self, data: bytes) -> None:
        """See ITransport."""
        if data:
            self.send(data)

    def in_kernel(self) -> int:
        """How many bytes the kernel has that the other side's has not acknowledged."""
        try:
            return int.from_bytes(ioctl(self.fileno(), TIOCOUTQ, bytes(4)), sys.byteorder)
        except (OSError, ValueError):  # it does not say, or the connection is lost
            return 0


class EagerServer(accept.Accepted, Eager, tcp.Server):
    """An accepted connection."""

    logstr = repstr = "gopush"
    server: Any
    _ended: Any = None
    _finishing = False

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
        self.limiter = server.limiter
        if self.limiter is not None:
            self.limiter.opened("" if server.nameless else client[0])
        server.accepted.append(self)

    def doRead(self) -> None:
        """See IReadDescriptor. The end is put off a little, and what follows the last word (gopush.net.accept)."""
        if self._finishing and not self._read_leftover():
            return
        ended = super().doRead()
        if ended is None:
            return
        self.stopReading()  # type: ignore[no-untyped-call]
        if self._ended is None:  # else the protocol has resumed reading meanwhile
            self._ended = ended
            self.server.disconnects.add(self)

    def _read_leftover(self) -> bool:
        """Whether what follows the last word may be read in this turn."""
        leftovers = self.server.leftovers
        cut_off = leftovers.waiting >= accept.MOST_LEFTOVERS
        if not cut_off and leftovers.take(1, self._read_on):
            return True
        self.stopReading()  # type: ignore[no-untyped-call]
        if cut_off and self._ended is None:
            self._ended = CONNECTION_LOST
            if self.limiter is not None:
                self.limiter.counters.cut_off_leftovers += 1
            self.server.disconnects.add(self)
        return False

    def _read_on(self) -> None:
        if self.connected and self._ended is None:
            self.startReading()  # type: ignore[no-untyped-call]
            self.doRead()

    def loseWriteConnection(self) -> None:
        """See IHalfCloseableDescriptor: the last word is said; who reads on throws it away."""
        self._finishing = True
        super().loseWriteConnection()  # type: ignore[no-untyped-call]

    def end(self) -> None:
        """Do what the reactor does at once where doRead() says so: a client that sends no more may read on, a broken
        connection may not.
        """
        if not self.connected:
            return
        if self._ended is CONNECTION_DONE:
            self.readConnectionLost(_DONE)
        else:
            self.connectionLost(Failure(self._ended))

    def look(self) -> None:
        """Read what the client has sent already: most do at once, and an event of the reactor is saved."""
        if not self.connected:
            return
        try:
            self.doRead()
        except Exception:
            log.failure("reading the first bytes of a connection failed; gopush closes it")
            self.stopReading()  # type: ignore[no-untyped-call]
            self._ended = CONNECTION_LOST
            self.server.disconnects.add(self)


class _EagerClient(Eager, tcp.Client):
    """A connection that was made from here."""


class _EagerConnector(tcp.Connector):
    def _makeTransport(self) -> Any:
        return _EagerClient(self.host, self.port, self.bindAddress, self, self.reactor)  # type: ignore[no-untyped-call]


class EagerPort(accept.Port, tcp.Port):
    """A TCP port whose connections are eager, and come in as its limiter lets them."""

    transport = EagerServer

    def startListening(self) -> None:
        """See IListeningPort. Connections have the options of the socket that accepts them."""
        super().startListening()
        if hasattr(socket, "TCP_NOTSENT_LOWAT"):  # else the kernel's own limit holds
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, MOST_UNSENT)


class EagerReactor:
    """The reactor, but for its ports and TCP connections: hand it to an endpoint. `limiter`: that of the ports;
    `proxies`: those that may name the client of a connection, where there is no limiter to say so.
    """

    def __init__(
        self,
        reactor: Any,
        limiter: ConnectionLimiter | None = None,
        proxies: Callable[[], tuple[str, ...]] = tuple,
    ) -> None:
        self._reactor = reactor
        self.limiter = limiter
        self._proxies = proxies

    def proxies(self) -> tuple[str, ...]:
        """See ConnectionSettings."""
        return self._proxies() if self.limiter is None else self.limiter.proxies

    def listenTCP(self, port: int, factory: Any, backlog: int = 50, interface: str = "") -> Any:
        """See IReactorTCP."""
        return EagerPort(port, self._limited(factory), backlog, interface, self._reactor).listen(self.limiter)

    def listenUNIX(self, address: Any, factory: Any, backlog: int = 50, mode: int = 0o666, wantPID: int = 0) -> Any:
        """See IReactorUNIX."""
        if wantPID:
            accept.remove_left_over(os.fspath(address))
        port = accept.UnixPort(address, self._limited(factory), backlog, mode, self._reactor, wantPID)
        return port.listen(self.limiter)

    def adoptStreamPort(self, fileDescriptor: int, addressFamily: int, factory: Any) -> Any:
        """See IReactorSocket: a socket that systemd listens on."""
        factory, reactor = self._limited(factory), self._reactor
        unix: Any = accept.UnixPort
        eager: Any = EagerPort
        if addressFamily == socket.AF_UNIX:
            port = unix._fromListeningDescriptor(reactor, fileDescriptor, factory)
        else:
            port = eager._fromListeningDescriptor(reactor, fileDescriptor, addressFamily, factory)
        return port.listen(self.limiter)

    def connectTCP(
        self, host: str, port: int, factory: Any, timeout: float = 30, bindAddress: Any = None
    ) -> tcp.Connector:
        """See IReactorTCP."""
        connector = _EagerConnector(host, port, factory, timeout, bindAddress, self._reactor)
        connector.connect()
        return connector

    def _limited(self, factory: Any) -> Any:
        if self.limiter is None or getattr(factory, "unlimited", False):
            return factory
        return accept.Limited(factory, self.limiter)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reactor, name)
