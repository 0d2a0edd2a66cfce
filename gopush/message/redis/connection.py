"""One connection to a Redis server: how it is reached, at its address or where Sentinel says that the master is; a
silent one is given up, and a server that will not do is refused.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, Protocol

from twisted.internet.defer import Deferred, TimeoutError
from twisted.internet.endpoints import HostnameEndpoint, UNIXClientEndpoint, connectProtocol
from twisted.internet.error import ConnectError
from twisted.internet.interfaces import IProtocol, IProtocolFactory, IStreamClientEndpoint
from twisted.python.failure import Failure
from txredisapi import RedisError, RedisProtocol, ResponseError
from zope.interface import implementer

from gopush.config.values import host_port
from gopush.errors import UnavailableError
from gopush.message.redis.settings import Source
from gopush.net.clock import within
from gopush.net.tls import ClientTls, reached


class Owner(Protocol):
    """Who holds connections."""

    def made(self, connection: RedisConnection) -> None:
        """It is there, but nobody has asked the server anything yet."""

    def silent(self, connection: RedisConnection) -> None:
        """It has been given up: nothing came back within the time-out."""

    def lost(self, connection: RedisConnection) -> None:
        """It is gone."""


class UnfitError(Exception):
    """A server that can never do, with the reason."""


class RedisRefusedError(UnavailableError):
    """The server refused, and would refuse another message node just so."""


class UnreplicatedError(RedisRefusedError):
    """It is stored, but too few replicas said in time that they have it."""


OLD_REDIS = ("2", "3", "4", "5")
"""They lack KEEPTTL."""

PASSING = ("READONLY", "LOADING", "BUSY", "MASTERDOWN", "TRYAGAIN", "UNBLOCKED")
"""Kinds of errors with which another message node may fare better, so they become UnavailableError."""

_IN_SCRIPT = re.compile(r"ERR Error running script [^\n]*?: -([A-Z]+) ")
"""How a Redis before 7 says that a call in a script was refused."""


def error_kind(error: BaseException) -> str:
    """The word that a server's error begins with: READONLY."""
    text = str(error)
    found = _IN_SCRIPT.match(text)
    return found[1] if found else text.partition(" ")[0]


class RedisConnection(RedisProtocol):  # type: ignore[misc]
    """Lives as long as answers come, however long one is: only silence for `timeout` seconds ends it."""

    def __init__(self, reactor: Any, timeout: float, owner: Owner) -> None:
        super().__init__(charset=None, convertNumbers=False)
        self.callLater = reactor.callLater
        self.gave_up = False
        self._reactor = reactor
        self._timeout = timeout
        self._owner = owner
        self._quiet_since = 0.0
        self._watch: Any = None

    @property
    def idle(self) -> float:
        """Seconds since anything was sent or came, where nothing is awaited; else 0."""
        return 0.0 if self.replyQueue.waiting else float(self._reactor.seconds() - self._quiet_since)

    def execute_command(self, *words: Any, **options: Any) -> Any:
        """Send a command; gives a Deferred with its answer."""
        if not self.replyQueue.waiting:
            self._quiet_since = self._reactor.seconds()
            if self._watch is None:
                self._watch = self._reactor.callLater(self._timeout, self._look)
        return super().execute_command(*words, **options)

    def run(self, call: ScriptCall) -> Deferred[bytes]:
        """Send what runs a script, and wait until so many replicas have what it wrote."""
        answering: Deferred[bytes] = self.execute_command(*call.command)
        return Deferred.fromCoroutine(self._replicated(answering, call.replicas)) if call.replicas else answering

    async def _replicated(self, answering: Deferred[bytes], replicas: int) -> bytes:
        # WAIT is about what this connection wrote last, so it goes right behind. It gets half of the time that an
        # answer may take, so that missing replicas are not taken for a missing server.
        waiting: Deferred[int] = self.execute_command("WAIT", replicas, int(self._timeout * 500))
        waiting.addErrback(lambda failure: failure.value)
        answer = await answering
        reached = await waiting
        if isinstance(reached, Exception):
            raise reached
        if reached < replicas:
            raise UnreplicatedError(f"only {reached} of {replicas} replicas confirmed it in time")
        return answer

    def connectionMade(self) -> None:
        """See Protocol."""
        super().connectionMade()
        self._owner.made(self)

    def dataReceived(self, data: bytes, unpause: bool = False) -> None:
        """See Protocol."""
        self._quiet_since = self._reactor.seconds()
        super().dataReceived(data, unpause)

    def connectionLost(self, why: Failure) -> None:
        """See Protocol."""
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None
        self._owner.lost(self)  # first: the calls that fail now should find out why
        super().connectionLost(why)

    def _look(self, last: bool = False) -> None:
        """What is due waits one turn more, in which all that has come meanwhile is read (clock.LastLook)."""
        self._watch = None
        if not self.replyQueue.waiting:
            return
        left = self._quiet_since + self._timeout - self._reactor.seconds()
        if left > 0:
            self._watch = self._reactor.callLater(left, self._look)
        elif not last:
            self._watch = self._reactor.callLater(0, self._look, True)
        else:
            self.gave_up = True
            self._owner.silent(self)
            self.transport.abortConnection()


async def log_in(connection: RedisProtocol, password: str) -> None:
    """`password` may be user:password; one that only holds a colon works as well."""
    user, colon, word = password.partition(":")
    if not (user and colon):
        await connection.execute_command("AUTH", password)
        return
    try:
        await connection.execute_command("AUTH", user, word)
    except ResponseError as refused:
        try:
            await connection.execute_command("AUTH", password)
        except ResponseError as also:
            raise (refused if error_kind(refused) == "WRONGPASS" else also) from None


async def prepare(connection: RedisConnection, password: str | None, scripts: Iterable[bytes], *, master: bool) -> None:
    """Check the server, and load the scripts. `master`: whether the sentinels call it one."""
    if password is not None:
        await log_in(connection, password)
    if master:
        _refuse_replica(await connection.execute_command("ROLE"))
    _refuse_old(_facts(await connection.execute_command("INFO", "server")))
    _refuse_cluster(_facts(await connection.execute_command("INFO", "cluster")))
    await refuse_eviction(connection)
    for script in scripts:
        await connection.execute_command("SCRIPT", "LOAD", script)


def _facts(info: bytes) -> dict[str, str]:
    return dict(line.split(":", 1) for line in info.decode().splitlines() if ":" in line)


def _refuse_old(facts: dict[str, str]) -> None:
    version = facts.get("redis_version", "?")
    if version.partition(".")[0] in OLD_REDIS:
        raise UnfitError(f"it is Redis {version}, which is too old (6.0 is needed)")


def _refuse_replica(role: list[Any]) -> None:
    if role[0] != b"master":
        raise UnavailableError("the sentinels name a server that is no master")


def _refuse_cluster(facts: dict[str, str]) -> None:
    if facts.get("cluster_enabled") == "1":
        raise UnfitError(
            "it runs in cluster mode, which takes no script over several keys (list servers of their own: gopush "
            "spreads the keys itself)"
        )


async def refuse_eviction(connection: RedisConnection) -> None:
    """Raise UnfitError where the server may drop messages."""
    facts = _facts(await connection.execute_command("INFO", "memory"))
    policy = facts.get("maxmemory_policy", "noeviction")
    if facts.get("maxmemory", "0") != "0" and policy != "noeviction":
        raise UnfitError(f"its maxmemory-policy is {policy}, which may drop messages (noeviction is needed)")


class Script:
    """A file of lua/ behind the prelude that all of them share."""

    def __init__(self, name: str) -> None:
        folder = files("gopush.message.redis").joinpath("lua")
        self.name = name.removesuffix(".lua")
        self.text = b"\n".join(folder.joinpath(part).read_bytes() for part in ("prelude.lua", name))
        self.sha = hashlib.sha1(self.text).hexdigest()


@dataclass(slots=True)
class ScriptCall:
    """A `command` that runs a script, to be sent `tries` times at most; `again`: it does no harm twice; `replicas`: so
    many are to have what it writes.
    """

    script: Script
    command: tuple[Any, ...]
    replicas: int
    again: bool
    tries: int


Address = tuple[str, int]


@implementer(IStreamClientEndpoint)
class MasterEndpoint:
    """Connects to the master that the first sentinel to answer names. A question takes `timeout` seconds at most.

    `password`: of the sentinels, perhaps user:password. `tls` is for the sentinels and the master; the certificates
    have the names by which they are reached.
    """

    def __init__(self, reactor: Any, source: Source, timeout: float, tls: ClientTls | None, password: str = "") -> None:
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
            try:
                found = await within(self._timeout, Deferred.fromCoroutine(self._ask(sentinel)), self._reactor)
            except (RedisError, ConnectError, OSError, TimeoutError, ValueError) as wrong:
                why = "no answer in time" if isinstance(wrong, TimeoutError) else wrong
                reasons.append(f"{sentinel[0]}:{sentinel[1]}: {why}")
                continue
            self._sentinels.remove(sentinel)
            self._sentinels.insert(0, sentinel)
            return found
        raise ConnectError(None, f"no sentinel knows where {self._name} is ({'; '.join(reasons)})")  # type: ignore[no-untyped-call]

    async def _ask(self, sentinel: Address) -> Address:
        connection = RedisProtocol(charset="utf-8", convertNumbers=False, replyTimeout=self._timeout)
        connection.callLater = self._reactor.callLater
        await connectProtocol(self._endpoint(sentinel), connection)  # type: ignore[no-untyped-call]
        try:
            if self._password:
                await log_in(connection, self._password)
            found = await connection.execute_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self._name)
        finally:
            connection.transport.abortConnection()
        if found is None:
            raise ValueError("no such master")
        host, port = found
        return host, int(port)

    def _endpoint(self, address: Address) -> Any:
        return reached(HostnameEndpoint(self._reactor, *address, timeout=self._timeout), address[0], self._tls)


def endpoint_of(reactor: Any, source: Source, timeout: float, tls: ClientTls | None, sentinel_password: str) -> Any:
    """What leads to a server: its own address, or what the sentinels say."""
    if source.sentinels:
        return MasterEndpoint(reactor, source, timeout, tls, sentinel_password)
    if source.path:
        return UNIXClientEndpoint(reactor, source.path, timeout=timeout)  # type: ignore[no-untyped-call]
    return reached(HostnameEndpoint(reactor, source.host, source.port, timeout=timeout), source.host, tls)
