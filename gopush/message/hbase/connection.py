"""One connection to a Thrift2 server that comes back by itself. Its calls are answered in order, so one that is stuck
holds up those behind it: a connection that has been silent for too long is aborted, and the others are asked on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from twisted.application.internet import backoffPolicy
from twisted.internet.defer import Deferred, fail
from twisted.internet.endpoints import HostnameEndpoint
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Factory
from twisted.logger import Logger
from twisted.protocols.basic import Int32StringReceiver
from twisted.python.failure import Failure

from gopush.config.values import host_port
from gopush.errors import UnavailableError
from gopush.message.hbase.codec import (
    FAMILIES,
    FRAME_BYTES,
    HBaseError,
    get_multiple,
    locations,
    region_starts,
    reply,
    request,
)
from gopush.message.hbase.settings import PARTS
from gopush.net.clock import LastLook, cancel
from gopush.net.eager import EagerReactor
from gopush.net.tls import ClientTls, reached
from gopush.net.tls_protocol import handshake_trouble, silence
from gopush.net.transport import QuietClientService

WINDOW = 16
"""Calls that are under way on a connection at most."""

PROBE_SECONDS = 5.0
PROBE_BYTES = 1 << 20
"""How long a server may take for each of the first calls of a connection, and how large the first answer may be: a
fresh one is slow, and what answers may be no Thrift server.
"""

OLDEST_SECONDS = 5.0
"""How long an answer may take, PARTS time-outs at least: whoever asked has given up by then, and it fills memory."""

log = Logger()
RETRIES = backoffPolicy(0.1, 3.0, 1.5)
_PROBE_ROW = b"\0"


class TableError(UnavailableError):
    """The table is not there, or is not what it should be."""


class LostError(UnavailableError):
    """A call was sent, and its outcome is unknown."""


@dataclass(eq=False, repr=False)
class ThriftLink(Factory):
    """A connection to the Thrift2 server at "host:port", tried again for ever.

    `tell` hears (with this link and its address) what is wrong with it, in words, when that changes, and None when all
    is well; `free` is called when it can take another call; `silent` (with its address) when it was aborted for its
    silence. `starts` are the first rows of all regions, as it was told last, `trouble` what it told.
    """

    reactor: Any
    address: str
    table: bytes
    timeout: float
    tls: ClientTls | None
    tell: Callable[[object, str, str | None], None]
    free: Callable[[], None]
    silent: Callable[[str], None]
    starts: list[bytes] = field(default_factory=list, init=False)
    ready: bool = field(default=False, init=False)
    trouble: str | None = field(default=None, init=False)
    _decided: Deferred[str | None] | None = field(default=None, init=False)
    _connection: _Connection | None = field(default=None, init=False)
    noisy = False

    def __post_init__(self) -> None:
        host, port = host_port(self.address)
        endpoint = HostnameEndpoint(EagerReactor(self.reactor), host, port, timeout=PROBE_SECONDS)
        factory: Any = self
        self._service = QuietClientService(reached(endpoint, host, self.tls), factory, RETRIES, self.reactor)

    def start(self) -> Deferred[str | None]:
        """Begin to connect. Fires after the first attempt, with words only where the table will never do."""
        decided = self._decided = Deferred()
        self._service.startService()
        self._service.whenConnected(failAfterFailures=1).addErrback(self._unreachable)
        return decided

    def stop(self) -> Deferred[Any]:
        """Close the connection; whatever still waits for an answer fails."""
        return self._service.stopService()

    @property
    def load(self) -> int:
        """How many calls are under way."""
        return len(self._connection.calls) if self._connection else 0

    def call(self, name: str, arguments: Any) -> Deferred[Any]:
        """Send a call. Fails with HBaseError or LostError: what it was to write may be written or not."""
        if self._connection is None:
            return fail(LostError("the connection was lost"))
        return self._connection.call(name, arguments)

    def doubt(self) -> None:
        """Take no calls until the server has answered a question."""
        if self._connection is not None and self.ready:
            self.ready = False
            Deferred.fromCoroutine(self._look(self._connection)).addErrback(self._refused, self._connection)

    def buildProtocol(self, addr: IAddress | None) -> Any:
        """See IProtocolFactory."""
        return _Connection(self)

    def made(self, connection: _Connection) -> None:
        """A connection was made; it is of use once the server has read the table: it listens long before it can."""
        self._connection = connection
        Deferred.fromCoroutine(self._probe(connection)).addErrback(self._refused, connection)

    async def _probe(self, connection: _Connection) -> None:
        gets = get_multiple(self.table, [(_PROBE_ROW, [(family.decode(), None) for family in FAMILIES])])
        try:
            await connection.call("getMultiple", gets)
        except HBaseError as failed:
            if "NoSuchColumnFamilyException" in str(failed):
                raise TableError(f"the table {self.table.decode()} is not one that gopush made: {failed}") from None
        await self._look(connection)

    async def _look(self, connection: _Connection) -> None:
        self._seen(await connection.call("getAllRegionLocations", locations(self.table)))
        if connection is self._connection:
            self.ready = True
            self._say(None)
            self.free()

    def ping(self) -> None:
        """Keep an idle connection from being closed, and look where regions begin by now. Of one that is busy its calls
        show whether it is of use: HBase may serve them while it does not say where regions begin.
        """
        if (connection := self._connection) is not None and self.ready:
            idle = not connection.calls
            seen = connection.call("getAllRegionLocations", locations(self.table)).addCallback(self._seen)
            seen.addCallbacks(
                lambda _: self._say(None), lambda failure: self._refused(failure, connection) if idle else None
            )

    def _seen(self, answer: Any) -> None:
        self.starts = region_starts(answer)
        if not self.starts:
            raise TableError(f"there is no table {self.table.decode()} (gopush hbase create makes it)")

    def _refused(self, failure: Failure, connection: _Connection) -> None:
        if connection is self._connection:
            said = failure.getErrorMessage()
            if isinstance(failure.value, HBaseError):  # a text of its own each time
                log.debug("HBase behind {address}: {said}", address=self.address, said=failure.value.text)
                said = "HBase does not serve the table behind it"
            self._say(said, isinstance(failure.value, TableError))
        connection.transport.abortConnection()

    def _unreachable(self, failure: Failure) -> None:
        self._say(f"cannot be reached: {failure.getErrorMessage()}")

    def too_large(self, connection: _Connection) -> None:
        """An answer is larger than may come in."""
        if connection is self._connection:
            self._say("an answer is too large, or it is no Thrift server's")

    def lost(self, connection: _Connection, silent: str | None, handshake: str | None) -> None:
        """A connection was lost; `silent`: what is said where it was given up; `handshake`: why that of TLS failed."""
        if self._connection is connection:
            self.ready, self._connection = False, None
            if silent is not None:
                self._say(silent)
                self.silent(self.address)
            elif handshake is not None or (self.trouble is None and self._service.running):
                self._say(handshake or "the connection was lost")

    def _say(self, trouble: str | None, refused: bool = False) -> None:
        if self._service.running:  # an attempt that stop() ends is no trouble
            self.trouble = trouble
            self.tell(self, self.address, trouble)
        if self._decided is not None:
            decided, self._decided = self._decided, None
            decided.callback(trouble if refused else None)


class _Connection(Int32StringReceiver):
    MAX_LENGTH = PROBE_BYTES
    transport: Any

    def __init__(self, link: ThriftLink) -> None:
        self.calls: dict[int, tuple[float, Deferred[Any]]] = {}
        self._link = link
        self._number = 0
        self._timer: Any = None
        self._age_timer: Any = None
        self._trusted = False
        self._silent: str | None = None

    def connectionMade(self) -> None:
        """See IProtocol."""
        self.transport.setTcpNoDelay(True)
        self._link.made(self)

    def call(self, name: str, arguments: Any) -> Deferred[Any]:
        self._number = self._number % (2**31 - 1) + 1
        answer: Deferred[Any] = Deferred()
        frame = request(name, self._number, arguments)
        self.calls[self._number] = self._link.reactor.seconds(), answer
        self.sendString(frame)  # type: ignore[no-untyped-call]
        if self._timer is None:
            self._wait()
        if self._age_timer is None:
            self._look_at_oldest()
        return answer

    def dataReceived(self, data: bytes) -> None:
        """See IProtocol: whatever comes, the server is not silent, and a large answer may take its time."""
        if self._trusted:
            self._cancel()
        super().dataReceived(data)  # type: ignore[no-untyped-call]
        if self.calls and self._timer is None:
            self._wait()

    def stringReceived(self, string: bytes) -> None:
        """See Int32StringReceiver."""
        try:
            number, result = reply(string)
            _, answer = self.calls.pop(number)
        except Exception:  # not what a Thrift server sends
            self.transport.abortConnection()
            return
        if not self._trusted:  # it answers as a Thrift server does: large answers may take their time from now on
            self._trusted, self.MAX_LENGTH = True, FRAME_BYTES
            self._cancel()
        if isinstance(result, HBaseError):
            answer.errback(result)
        else:
            answer.callback(result)
        self._link.free()

    def _wait(self) -> None:
        seconds = self._link.timeout if self._link.ready else max(PROBE_SECONDS, self._link.timeout)
        self._timer = LastLook(self._link.reactor, seconds, partial(self._give_up, seconds))

    def _look_at_oldest(self) -> None:
        """Give up where its answer comes too slowly."""
        self._age_timer = None
        if self.calls:
            since, _ = next(iter(self.calls.values()))
            most = max(OLDEST_SECONDS, PARTS * self._link.timeout)
            left = since + most - self._link.reactor.seconds()
            if left > 0:
                self._age_timer = LastLook(self._link.reactor, left, self._look_at_oldest)
            else:
                self._give_up(most)

    def _cancel(self) -> None:
        cancel(self._timer)
        self._timer = None

    def _give_up(self, seconds: float) -> None:
        self._cancel()
        self._silent = silence(self.transport, f"no answer within {seconds:g} s")
        self.transport.abortConnection()

    def lengthLimitExceeded(self, length: int) -> None:
        """See Int32StringReceiver."""
        self._link.too_large(self)
        self.transport.abortConnection()

    def connectionLost(self, reason: Failure | None = None) -> None:
        """See IProtocol."""
        self._cancel()
        cancel(self._age_timer)
        self._link.lost(self, self._silent, None if self._trusted else handshake_trouble(reason))
        calls, self.calls = self.calls, {}
        said = "the connection was lost" if self._silent is None else "no answer in time"
        for _, answer in calls.values():
            answer.errback(LostError(said))
