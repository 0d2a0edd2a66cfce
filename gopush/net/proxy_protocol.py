"""The PROXY protocol of balancers, version 1 and 2: `haproxy:` before an endpoint.

A header before all else, TLS included, names the client. Twisted's own wrapper reports no connection before its header
has come, and closes health checks and headers that come in two pieces.
"""

from __future__ import annotations

import struct
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any

from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure

from gopush.net import forwarded
from gopush.net import transport as wire
from gopush.net.clock import LastLook, cancel
from gopush.net.limits import ConnectionLimiter

HEADER_SECONDS = 5.0
"""How long the header may take; the client's first request has its own time after that."""

MAX_LINE_BYTES = 107
MAX_BYTES = 4 << 10
"""Of a header of version 2, with all that it may say of TLS."""

_SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
_SHAPES = {0x11: struct.Struct("!4s4sHH"), 0x21: struct.Struct("!16s16sHH")}

Source = tuple[str, int]


class HeaderError(Exception):
    """What has come is no header."""


def read(data: bytes) -> tuple[Source | None, int] | None:
    """The client's address and port (None: the connection is the balancer's own, or nothing is known of its client),
    and where the header ends; None where it is incomplete. Raises HeaderError."""
    if data.startswith(_SIGNATURE[: len(data)]):
        return _binary(data)
    if not data.startswith(b"PROXY "[: len(data)]):
        raise HeaderError
    end = data.find(b"\r\n", 0, MAX_LINE_BYTES)
    if end >= 0:
        return _line(data[:end]), end + 2
    if len(data) >= MAX_LINE_BYTES:
        raise HeaderError
    return None


def _line(line: bytes) -> Source | None:
    words = line.split(b" ")
    if words[1] == b"UNKNOWN":
        return None
    if len(words) != 6 or words[1] not in (b"TCP4", b"TCP6"):
        raise HeaderError
    try:
        source, target = (ip_address(word.decode("ascii")) for word in words[2:4])
    except ValueError:
        raise HeaderError from None
    kind = IPv4Address if words[1] == b"TCP4" else IPv6Address
    if not (isinstance(source, kind) and isinstance(target, kind) and all(map(_is_port, words[4:]))):
        raise HeaderError
    return str(source), int(words[4])


def _is_port(word: bytes) -> bool:
    return word.isdigit() and len(word) < 6 and int(word) < 65536


def _binary(data: bytes) -> tuple[Source | None, int] | None:
    if len(data) < 16:
        return None
    command, family = data[12:14]
    end = 16 + int.from_bytes(data[14:16], "big")
    if command not in (0x20, 0x21) or end > MAX_BYTES:
        raise HeaderError
    if len(data) < end:
        return None
    shape = _SHAPES.get(family)
    if command == 0x20 or shape is None:
        return None, end
    if 16 + shape.size > end:
        raise HeaderError
    source, _, port, _ = shape.unpack_from(data, 16)
    return (str(ip_address(source)), port), end


class _HeaderReader(Protocol):
    """Takes the header, then the protocol of the client takes its place."""

    transport: Any
    _data = b""
    _late: Any = None

    def __init__(self, factory: ProxyFactory) -> None:
        self._factory = factory

    def connectionMade(self) -> None:
        """See Protocol."""
        self._late = LastLook(self._factory.reactor, HEADER_SECONDS, self._refuse)

    def dataReceived(self, data: bytes) -> None:
        """See Protocol."""
        if self._late is None:
            return
        self._data += data
        try:
            found = read(self._data)
        except HeaderError:
            self._refuse()
            return
        if found is not None:
            self._stop()
            self._hand_over(found[0], self._data[found[1] :])

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """See Protocol."""
        self._stop()

    def _hand_over(self, source: Source | None, rest: bytes) -> None:
        transport = self.transport
        if source is not None and not wire.belong(transport, *source):
            transport.loseConnection()
            return
        protocol = self._factory.wrapped.buildProtocol(transport.getPeer())
        if protocol is None:
            transport.loseConnection()
            return
        transport.protocol = protocol
        protocol.makeConnection(transport)
        if rest:
            protocol.dataReceived(rest)

    def _refuse(self) -> None:
        self._stop()
        self._factory.count_refused()
        self.transport.loseConnection()

    def _stop(self) -> None:
        late, self._late = self._late, None
        cancel(late)


class ProxyFactory:
    """A factory behind the header. It takes connections only from balancers: `[connections] proxies`, or where none is
    listed, this machine.
    """

    unlimited = True  # the limit for an address is for the client's

    def __init__(self, reactor: Any, factory: Any) -> None:
        self.reactor = reactor
        self.wrapped = factory
        self._limiter: ConnectionLimiter | None = getattr(reactor, "limiter", None)
        self._proxies = getattr(reactor, "proxies", tuple)

    def buildProtocol(self, addr: Any) -> _HeaderReader | None:
        """See IProtocolFactory."""
        host = getattr(addr, "host", "")
        proxies: tuple[str, ...] = self._proxies()
        if not host or (forwarded.trusted(proxies, host) if proxies else forwarded.is_loopback(host)):
            return _HeaderReader(self)
        self.count_refused()
        return None

    def count_refused(self) -> None:
        """A connection is closed that does not name its client."""
        if self._limiter is not None:
            self._limiter.counters.refused_proxy += 1

    def __getattr__(self, name: str) -> Any:
        return getattr(self.wrapped, name)


class ProxiedReactor:
    """A reactor whose ports expect a header first: hand it to an endpoint."""

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor

    def listenTCP(self, port: int, factory: Any, backlog: int = 50, interface: str = "") -> Any:
        """See IReactorTCP."""
        return self._reactor.listenTCP(port, ProxyFactory(self._reactor, factory), backlog, interface)

    def listenUNIX(self, address: Any, factory: Any, backlog: int = 50, mode: int = 0o666, wantPID: int = 0) -> Any:
        """See IReactorUNIX."""
        return self._reactor.listenUNIX(address, ProxyFactory(self._reactor, factory), backlog, mode, wantPID)

    def adoptStreamPort(self, fileDescriptor: int, addressFamily: int, factory: Any) -> Any:
        """See IReactorSocket."""
        return self._reactor.adoptStreamPort(fileDescriptor, addressFamily, ProxyFactory(self._reactor, factory))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reactor, name)
