"""A connection to a Redis server that comes back by itself, and runs scripts there."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from importlib.resources import files
from typing import Any, cast

import msgpack
from twisted.internet.defer import Deferred, ensureDeferred, fail
from twisted.internet.endpoints import HostnameEndpoint, UNIXClientEndpoint
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Factory
from twisted.internet.task import LoopingCall
from twisted.python.failure import Failure
from txredisapi import RedisError, RedisProtocol, ResponseError
from txredisapi import TimeoutError as ReplyTimeoutError

from gopush.client_service import QuietClientService
from gopush.clock import LastLook
from gopush.eager import EagerReactor
from gopush.errors import UnavailableError
from gopush.message.sentinel import MasterEndpoint
from gopush.message.sources import Source
from gopush.tls import ClientTls, reached

RETRY_SECONDS = 0.5
"""How long a lost or refused server is left alone before the next attempt."""

WATCH_SECONDS = 1.0
"""How often the sentinels are asked whether the master has moved: one that is cut off from them would not tell."""


class Script:
    """A file of lua/ behind the prelude that all of them share."""

    def __init__(self, name: str) -> None:
        folder = files("gopush.message").joinpath("lua")
        self.name = name.removesuffix(".lua")
        self.text = b"\n".join(folder.joinpath(part).read_bytes() for part in ("prelude.lua", name))
        self.sha = hashlib.sha1(self.text).hexdigest()


class Link(Factory):
    """One connection to `source`, tried again for ever. A call without one fails at once.

    `tell` hears what is wrong with it, in words, when that changes, and None when all is well. `scripts` are loaded
    before anything else is asked.
    """

    noisy = False

    def __init__(
        self,
        reactor: Any,
        source: Source,
        timeout: float,
        scripts: Iterable[Script],
        tell: Callable[[str | None], None],
        tls: ClientTls | None = None,
    ) -> None:
        self._reactor = reactor
        self._source = source
        self._timeout = timeout
        self._scripts = tuple(scripts)
        self._tell = tell
        self._trouble: str | None = None
        self._ready: _Connection | None = None
        self._decided: Deferred[str | None] | None = None
        self._watching: LoopingCall | None = None
        endpoint = _endpoint(EagerReactor(reactor), source, timeout, tls)
        if isinstance(endpoint, MasterEndpoint):
            # Older LoopingCalls do not run coroutines.
            self._watching = LoopingCall(lambda: Deferred.fromCoroutine(self._watch(endpoint)))
            self._watching.clock = cast(Any, reactor)
        factory: Any = self
        self._service = QuietClientService(endpoint, factory, lambda _: RETRY_SECONDS, reactor)

    def start(self) -> Deferred[str | None]:
        """Begin to connect. Fires after the first attempt, with words only where the server itself refused."""
        decided = self._decided = Deferred()
        self._service.startService()
        self._service.whenConnected(failAfterFailures=1).addErrback(self._unreachable)
        if self._watching is not None:
            self._watching.start(WATCH_SECONDS, now=False)
        return decided

    def stop(self) -> Deferred[Any]:
        """Close the connection; whatever still waits for an answer fails."""
        if self._watching is not None and self._watching.running:
            self._watching.stop()
        return self._service.stopService()

    def run(self, script: Script, arguments: list[Any], replicas: int = 0) -> Deferred[bytes]:
        """Run a script, and wait until so many replicas have what it wrote. Fails with UnavailableError."""
        if self._ready is None:
            return self._not_ready()
        packed = msgpack.packb(arguments, use_bin_type=False)
        return ensureDeferred(self._run(self._ready, script, packed, replicas)).addErrback(self._failed)

    def ping(self) -> Deferred[None]:
        """A round trip. Fails with UnavailableError."""
        if self._ready is None:
            return self._not_ready()
        pong: Deferred[Any] = self._ready.ping()
        return pong.addCallbacks(lambda _: None, self._failed)

    def _not_ready(self) -> Deferred[Any]:
        return fail(UnavailableError(self._trouble or "not connected yet"))

    async def _run(self, connection: _Connection, script: Script, packed: bytes, replicas: int) -> bytes:
        try:
            return await self._send(connection, ("EVALSHA", script.sha, 0, packed), replicas)
        except ResponseError as refused:
            if not str(refused).startswith("NOSCRIPT"):
                raise
        return await self._send(connection, ("EVAL", script.text, 0, packed), replicas)

    async def _send(self, connection: _Connection, command: tuple[Any, ...], replicas: int) -> bytes:
        answering: Deferred[bytes] = connection.execute_command(*command)
        if not replicas:
            return await answering
        # WAIT is about what this connection wrote last, so it goes right behind. It gets half of the time that an
        # answer may take, so that missing replicas are not taken for a missing server.
        waiting: Deferred[int] = connection.execute_command("WAIT", replicas, int(self._timeout * 500))
        waiting.addErrback(lambda failure: failure.value)
        answer = await answering
        reached = await waiting
        if isinstance(reached, Exception):
            raise reached
        if reached < replicas:
            raise UnavailableError(f"no more than {reached} of {replicas} replicas had it in time")
        return answer

    def _failed(self, failure: Failure) -> Any:
        error = failure.value
        if not isinstance(error, RedisError):
            return failure
        if isinstance(error, ReplyTimeoutError):
            self._say(f"no answer within {self._timeout:g} s")
        elif self._watching is not None and "READONLY" in str(error):
            self._leave("it is no master any more")
        raise UnavailableError(str(error)) from None

    async def _watch(self, endpoint: MasterEndpoint) -> None:
        if self._ready is not None and await endpoint.moved():
            self._leave("the sentinels name another master")

    def _leave(self, reason: str) -> None:
        """Let go of a server that is no master any more; the next attempt asks where the master is."""
        if self._ready is not None:
            self._say(reason)
            self._ready.transport.abortConnection()

    def buildProtocol(self, addr: IAddress | None) -> Any:
        """See IProtocolFactory."""
        connection = _Connection(charset=None, convertNumbers=False, replyTimeout=self._timeout)
        connection.factory = self
        connection.callLater = LastLook(self._reactor).callLater  # its time-outs
        return connection

    def made(self, connection: _Connection) -> None:
        """A connection was made; it is of use once the server has agreed to all that we need."""
        if not self._source.path:
            connection.transport.setTcpNoDelay(True)
        ensureDeferred(self._prepare(connection)).addErrback(self._refused, connection)

    async def _prepare(self, connection: _Connection) -> None:
        if self._source.password is not None:
            await connection.auth(self._source.password)
        if self._source.sentinels:
            _refuse_replica(await connection.execute_command("ROLE"))
        _refuse_eviction(await connection.execute_command("INFO", "memory"))
        for script in self._scripts:
            await connection.script_load(script.text)
        self._ready = connection
        self._say(None)

    def _refused(self, failure: Failure, connection: _Connection) -> None:
        error = failure.value
        passing = str(error).startswith(("LOADING", "BUSY"))
        self._say(str(error), refused=isinstance(error, (ResponseError, _EvictsError)) and not passing)
        connection.transport.loseConnection()

    def _unreachable(self, failure: Failure) -> None:
        self._say(f"cannot be reached at {self._source.address}: {failure.getErrorMessage()}")

    def lost(self, connection: _Connection) -> None:
        """A connection was lost."""
        if self._ready is connection:
            self._ready = None
            if self._trouble is None:
                self._say("the connection was lost")

    def _say(self, trouble: str | None, refused: bool = False) -> None:
        self._trouble = trouble
        self._tell(trouble)
        if self._decided is not None:
            decided, self._decided = self._decided, None
            decided.callback(trouble if refused else None)


class _Connection(RedisProtocol):  # type: ignore[misc]
    factory: Link

    def connectionMade(self) -> None:
        super().connectionMade()
        self.factory.made(self)

    def connectionLost(self, why: Failure) -> None:
        self.factory.lost(self)  # first: the calls that fail now should find out why
        super().connectionLost(why)


class _EvictsError(Exception):
    pass


def _refuse_replica(role: list[Any]) -> None:
    if role[0] != b"master":
        raise UnavailableError("the sentinels name a server that is no master")


def _refuse_eviction(info: bytes) -> None:
    facts = dict(line.split(":", 1) for line in info.decode().splitlines() if ":" in line)
    policy = facts.get("maxmemory_policy", "noeviction")
    if facts.get("maxmemory", "0") != "0" and policy != "noeviction":
        raise _EvictsError(f"its maxmemory-policy is {policy}, which may drop messages (noeviction is needed)")


def _endpoint(reactor: Any, source: Source, timeout: float, tls: ClientTls | None) -> Any:
    if source.sentinels:
        return MasterEndpoint(reactor, source, timeout, tls)
    if source.path:
        return UNIXClientEndpoint(reactor, source.path, timeout=timeout)  # type: ignore[no-untyped-call]
    return reached(HostnameEndpoint(reactor, source.host, source.port, timeout=timeout), source.host, tls)
