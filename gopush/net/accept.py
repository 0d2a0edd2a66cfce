"""Ports that accept as many connections as there is room for, count those that are open, and end a few in each turn."""

from __future__ import annotations

import os
import socket
import stat
from collections import deque
from contextlib import suppress
from itertools import islice
from typing import Any, Protocol

from twisted.internet import address, unix
from twisted.logger import ILogObserver, LogEvent, Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from gopush.net.clock import Clock, TurnLimit
from gopush.net.limits import ConnectionLimiter

ACCEPTS_IN_A_TURN = 32
"""In a storm of connections: those that are open get their turn in between, the others stay in the accept queue."""

LEFTOVERS_IN_A_TURN = 16
"""Reads, of all clients together, of what they send after the last word: it is thrown away."""
MOST_LEFTOVERS = 256
"""Clients that may wait for such a read. The rest of a crowd that was refused and sends on is cut off."""

NO_FILES_SECONDS = 0.1
CALM_SECONDS = 5.0
"""How long no connection was closed before files count as available again."""

log = Logger()


class Port:
    """What accepting adds to a port of Twisted's, which comes behind it among the bases. `nameless`: what connects
    there counts as no address.
    """

    disconnects: DisconnectQueue
    leftovers: TurnLimit
    accepted: list[Any]
    limiter: ConnectionLimiter | None = None
    nameless = False
    _held = False
    _full = False
    _waits = False  # the last look found no room

    def doRead(self: Any) -> None:
        """Accept waiting clients, as many as there is room for."""
        self.numberAccepts = ACCEPTS_IN_A_TURN
        if self.limiter is not None:
            room = self.limiter.room()
            if room < 1:
                super().stopReading()  # type: ignore[misc]
                self.limiter.wait(self._go_on, begins=not self._waits)
                self._full = self._waits = True
                return
            if self._waits:
                self._waits = False
                self.limiter.counters.accept_waits_ended += 1
            self.numberAccepts = min(ACCEPTS_IN_A_TURN, room)
        super().doRead()  # type: ignore[misc]
        accepted, self.accepted = self.accepted, []
        for connection in accepted:
            connection.look()
        if self._no_files.now and self.connected:
            self._full = True
            super().stopReading()  # type: ignore[misc]
            self.reactor.callLater(NO_FILES_SECONDS, self._go_on)

    def stopReading(self: Any) -> None:
        """Accept nobody, whatever room there is."""
        self._held = True
        super().stopReading()  # type: ignore[misc]

    def startReading(self: Any) -> None:
        """Accept again."""
        self._held = False
        if not self._full:
            super().startReading()  # type: ignore[misc]

    def _go_on(self: Any) -> None:
        self._full = self._no_files.now = False
        if self.connected and not self._held:
            super().startReading()  # type: ignore[misc]

    def listen(self: Any, limiter: ConnectionLimiter | None) -> Any:
        """Begin."""
        self.limiter = limiter
        self.nameless = self.nameless or getattr(self.factory, "unlimited", False)  # behind a balancer
        self.accepted = []
        self.disconnects = DisconnectQueue(self.reactor)
        self.leftovers = TurnLimit(self.reactor, LEFTOVERS_IN_A_TURN)
        self._no_files = NoFiles(self.reactor)
        self._logger = Logger("gopush.net.accept", observer=self._no_files)  # what Twisted's doRead says goes there
        self.startListening()
        return self


class Accepted:
    """What accepting adds to a connection of Twisted's: it may be that of a client behind a proxy."""

    limiter: ConnectionLimiter | None = None
    _client: Any = None

    def connectionLost(self: Any, reason: Failure) -> None:
        """See IProtocol. It may come again: where a connection is aborted whose end waits already."""
        if not self.connected:
            return
        try:
            super().connectionLost(reason)  # type: ignore[misc]
        finally:
            if self.limiter is not None:
                self._release()
                self.limiter.closed("" if self.server.nameless else self.client[0])

    def getPeer(self) -> Any:
        """See ITransport: the client's address."""
        return self._client or super().getPeer()  # type: ignore[misc]

    def belong(self, host: str, port: int) -> bool:
        """The connection is that of this client from now on; whether it may have one more."""
        if self.limiter is not None and not self.limiter.take(host):
            return False
        self._release()
        kind = address.IPv6Address if ":" in host else address.IPv4Address
        self._client = kind("TCP", host, port)
        return True

    def _release(self) -> None:
        if self._client is not None and self.limiter is not None:
            self.limiter.release(self._client.host)


class _UnixServer(Accepted, unix.Server):
    """A connection to a UNIX socket."""

    def __init__(self, sock: Any, protocol: Any, client: Any, server: Any, sessionno: int, reactor: Any) -> None:
        super().__init__(sock, protocol, client, server, sessionno, reactor)  # type: ignore[no-untyped-call]
        self.limiter = server.limiter
        if self.limiter is not None:
            self.limiter.opened("")


class UnixPort(Port, unix.Port):
    """A UNIX socket that accepts so."""

    transport = _UnixServer
    nameless = True


def remove_left_over(path: str) -> None:
    """Remove a UNIX socket that nobody listens on, and its lock: the process that the lock names may be any other one,
    as in containers, where pids begin anew."""
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(path)
        except (ConnectionRefusedError, FileNotFoundError):
            with suppress(OSError):
                os.unlink(f"{path}.lock")
            with suppress(OSError):
                if stat.S_ISSOCK(os.lstat(path).st_mode):
                    os.unlink(path)
        except OSError:
            pass  # who binds meets it again


class Limited:
    """A factory that refuses the clients that the limiter does not admit."""

    def __init__(self, factory: Any, limiter: ConnectionLimiter) -> None:
        self._factory = factory
        self._limiter = limiter

    def buildProtocol(self, address: Any) -> Any:
        """See IProtocolFactory."""
        host = getattr(address, "host", "")
        return self._factory.buildProtocol(address) if not host or self._limiter.admits(host) else None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._factory, name)


@implementer(ILogObserver)
class NoFiles:
    """Hears from Twisted that the process has no file left for a new connection: logs a line when that begins, and one
    when it has ended, instead of some for each connection. `now`: it was so in this turn.
    """

    def __init__(self, clock: Clock) -> None:
        self.now = False
        self._clock = clock
        self._closed = 0
        self._heard: float | None = None

    def __call__(self, event: LogEvent) -> None:
        """See ILogObserver."""
        if self._heard is None:
            log.error("no open files are left (ulimit -n): gopush closes new connections to this port")
            self._clock.callLater(CALM_SECONDS, self._look)
        self.now = True
        self._heard = self._clock.seconds()
        self._closed += "address" in event

    def _look(self) -> None:
        assert self._heard is not None
        if self._clock.seconds() - self._heard < CALM_SECONDS:
            self._clock.callLater(CALM_SECONDS, self._look)
            return
        log.info("files are available again; gopush closed {closed} connections meanwhile", closed=self._closed)
        self._heard, self._closed = None, 0


DISCONNECTS_IN_A_TURN = 32


class Disconnecting(Protocol):
    """A connection that has ended."""

    def end(self) -> None:
        """Do what follows from that."""


class DisconnectQueue:
    """Ends connections in the order of their coming, a few in each turn of the reactor."""

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._waiting: deque[Disconnecting] = deque()

    def add(self, connection: Disconnecting) -> None:
        """The client has ended this one; nothing more is read from it."""
        if not self._waiting:
            self._reactor.callLater(0, self._go_on)
        self._waiting.append(connection)

    def _go_on(self) -> None:
        for connection in list(islice(self._waiting, DISCONNECTS_IN_A_TURN)):
            self._waiting.popleft()
            try:
                connection.end()
            except Exception:  # neither the other connections nor the port are to suffer from that
                log.failure("the end of a connection failed")
        if self._waiting:
            self._reactor.callLater(0, self._go_on)
