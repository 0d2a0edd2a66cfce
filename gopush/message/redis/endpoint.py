"""The way to a Redis server: its own address, or that of the master that its sentinels name."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, TimeoutError
from twisted.internet.endpoints import HostnameEndpoint, UNIXClientEndpoint, connectProtocol
from twisted.internet.error import ConnectError
from twisted.internet.interfaces import IProtocol, IProtocolFactory, IStreamClientEndpoint
from txredisapi import RedisError
from zope.interface import implementer

from gopush.config.values import host_port
from gopush.message.redis.connection import NoOwner, RedisConnection, log_in
from gopush.message.redis.settings import Source
from gopush.net.clock import within
from gopush.net.tls import ClientTls, reached
from gopush.net.tls_protocol import silence

Address = tuple[str, int]


@implementer(IStreamClientEndpoint)
class MasterEndpoint:
    """Connects to the master that the first sentinel to answer names. A question takes `timeout` seconds at most.

    `password`: of the sentinels, perhaps user:password. `tls` is for the sentinels and the master; the certificates
    have the names by which they are reached.
    """

    def __init__(self, reactor: Any, source: Source, timeout: float, tls: ClientTls | None, password: str) -> None:
        self._password = password
        self._reactor = reactor
        self._name = source.master
        self._timeout = timeout
        self._tls = tls
        self._sentinels = [host_port(sentinel) for sentinel in source.sentinels]
        self._master: Address | None = None

    def connect(self, factory: IProtocolFactory) -> Deferred[IProtocol]:
        """See IStreamClientEndpoint."""
        return Deferred.fromCoroutine(self._connect(factory))

    async def moved(self) -> bool:
        """Whether the sentinels name another master than the one connected to last; False where none answers."""
        try:
            return await self._find() != self._master
        except ConnectError:
            return False

    async def _connect(self, factory: IProtocolFactory) -> IProtocol:
        self._master = await self._find()
        protocol: IProtocol = await self._endpoint(self._master).connect(factory)
        return protocol

    async def _find(self) -> Address:
        """Ask one after the other; from then on the one that has answered comes first."""
        reasons = []
        for sentinel in list(self._sentinels):
            connection = RedisConnection(self._reactor, self._timeout, NoOwner())
            try:
                asking = Deferred.fromCoroutine(self._ask(sentinel, connection))
                found = await within(self._timeout, asking, self._reactor)
            except (RedisError, ConnectError, OSError, TimeoutError, ValueError) as wrong:
                late = isinstance(wrong, TimeoutError)
                why = silence(connection.transport, "no answer in time") if late else wrong
                reasons.append(f"{sentinel[0]}:{sentinel[1]}: {why}")
                continue
            self._sentinels.remove(sentinel)
            self._sentinels.insert(0, sentinel)
            return found
        raise ConnectError(None, f"no sentinel knows where {self._name} is ({'; '.join(reasons)})")

    async def _ask(self, sentinel: Address, connection: RedisConnection) -> Address:
        await connectProtocol(self._endpoint(sentinel), connection)
        try:
            if self._password:
                await log_in(connection, self._password)
            found = await connection.execute_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self._name)
        finally:
            connection.transport.abortConnection()
        if found is None:
            raise ValueError("no such master")
        host, port = found
        return host.decode(), int(port)

    def _endpoint(self, address: Address) -> Any:
        return reached(HostnameEndpoint(self._reactor, *address, timeout=self._timeout), address[0], self._tls)


def endpoint_of(reactor: Any, source: Source, timeout: float, tls: ClientTls | None, sentinel_password: str) -> Any:
    """What leads to a server: its own address, or what the sentinels say."""
    if source.sentinels:
        return MasterEndpoint(reactor, source, timeout, tls, sentinel_password)
    if source.path:
        return UNIXClientEndpoint(reactor, source.path, timeout=timeout)
    return reached(HostnameEndpoint(reactor, source.host, source.port, timeout=timeout), source.host, tls)
