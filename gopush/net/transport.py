"""What sessions and HTTP connections do with their transport, eager (net/eager.py), of TLS, or Twisted's own."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any, cast

from twisted.application.internet import ClientService
from twisted.internet import tcp
from twisted.internet.abstract import FileDescriptor
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IPullProducer, IStreamClientEndpoint
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from gopush.config.values import address
from gopush.net.accept import Accepted
from gopush.net.eager import Eager, waiting
from gopush.net.limits import ConnectionLimiter
from gopush.reports import Lag

Send = Callable[[bytes], int]

IDLE_SECONDS = 10
"""A firewall forgets flows that are idle for longer: half a minute, or minutes."""
PROBE_SECONDS = 3
MOST_PROBES = 3


def sender(transport: Any) -> Send:
    """How to send on `transport` and learn how many bytes then wait in this process."""
    if isinstance(transport, Eager):
        return transport.send
    bottom = _bottom(transport)

    def send(data: bytes) -> int:
        transport.write(data)
        return waiting(bottom)

    return send


def drained(transport: Any) -> Deferred[None]:
    """Fires when nothing waits to be sent any more, or the connection is lost."""
    bottom = _bottom(transport)
    if not waiting(bottom):
        return succeed(None)
    drain = _Drain(bottom)
    bottom.registerProducer(drain, False)
    return drain.done


def lag(transport: Any) -> Lag | None:
    """What waits for a client that is slow to read; None where nothing does in this process."""
    bottom = _bottom(transport)
    size = waiting(bottom)
    if not size:
        return None
    if not isinstance(bottom, Eager):
        return Lag(size, 0.0, size)
    return Lag(size, bottom.reactor.seconds() - bottom.lagging_since, size + bottom.in_kernel())


def peer(transport: Any) -> str:
    """The client's address, "host:port", of one behind a proxy that tells no port "host"; "" for a UNIX socket."""
    found = _bottom(transport).getPeer()
    if not hasattr(found, "port"):
        return ""
    return address(found.host, found.port) if found.port else str(found.host)


def peer_host(transport: Any) -> str:
    """The client's IP address, "" for a UNIX socket."""
    return getattr(transport.getPeer(), "host", "")


def belong(transport: Any, host: str, port: int = 0) -> bool:
    """The connection is that of this client behind a proxy; whether it may have one more. `port` 0: not known."""
    bottom = _bottom(transport)
    return not isinstance(bottom, Accepted) or bottom.belong(host, port)


def limiter(transport: Any) -> ConnectionLimiter | None:
    """What counts the connections of its port, if anything does."""
    return getattr(_bottom(transport), "limiter", None)


def finish(transport: Any) -> None:
    """Close for writing once all that was sent is out. Whoever reads on, and throws away what still comes, can be sure
    that no reset overtakes the last bytes."""
    if isinstance(transport, tcp.Connection):
        transport.loseWriteConnection()
    else:
        transport.loseConnection()


def abort(transport: Any) -> None:
    """Close now. What waits in this process is lost, what the kernel has is not."""
    bottom = _bottom(transport)
    if not isinstance(bottom, FileDescriptor) or waiting(bottom):
        transport.abortConnection()
        return
    if transport is not bottom:
        transport.loseConnection()  # says goodbye in TLS, and would wait for the client's
    bottom.stopReading()
    bottom.reactor.callLater(0, bottom.connectionLost, connectionDone)  # loseConnection() waits for room in the kernel


def handle(transport: Any) -> Any:
    """The socket below a transport."""
    return _bottom(transport).getHandle()


def keep_alive(transport: Any) -> None:
    """Have the kernel ask an idle peer whether it is there: no firewall forgets the flow then, and a connection that
    one has forgotten is closed. The kernel of a frozen peer answers."""
    transport.setTcpKeepAlive(True)
    for option, value in (
        (socket.TCP_KEEPIDLE, IDLE_SECONDS),
        (socket.TCP_KEEPINTVL, PROBE_SECONDS),
        (socket.TCP_KEEPCNT, MOST_PROBES),
    ):
        handle(transport).setsockopt(socket.IPPROTO_TCP, option, value)


@implementer(IPullProducer)
class _Drain:
    """A producer that produces nothing: it only hears that the transport has sent all."""

    def __init__(self, transport: Any) -> None:
        self.done: Deferred[None] = Deferred()
        self._transport = transport

    def resumeProducing(self) -> None:
        if not waiting(self._transport):
            self._transport.unregisterProducer()
            if self._transport._writeDisconnecting:
                self._transport.startWriting()  # a half-close that was asked for meanwhile
            self.done.callback(None)

    def stopProducing(self) -> None:
        self.done.callback(None)


def _bottom(transport: Any) -> Any:
    """The transport that owns the socket, below TLS."""
    while not isinstance(transport, FileDescriptor) and hasattr(transport, "transport"):
        transport = transport.transport
    return transport


@implementer(IStreamClientEndpoint)
class Attempts:
    """An endpoint; `failed` hears of its failures."""

    def __init__(self, endpoint: Any, failed: Callable[[Failure], object]) -> None:
        self._endpoint = endpoint
        self._failed = failed

    def connect(self, factory: Any) -> Deferred[Any]:
        """See IStreamClientEndpoint."""
        connecting: Deferred[Any] = self._endpoint.connect(factory)
        return connecting.addErrback(self._hear)

    def _hear(self, failure: Failure) -> Failure:
        self._failed(failure)
        return failure


class QuietClientService(ClientService):
    """Twisted's ClientService without its line for each attempt: its users log a line for each change."""

    _log = Logger(observer=cast(Any, lambda _: None))
