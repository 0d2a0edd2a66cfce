"""One connection to a Redis server: a silent one is given up, and a server that will not do is refused."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol

from twisted.python.failure import Failure
from txredisapi import RedisProtocol, ResponseError

from gopush.errors import UnavailableError


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
            raise (refused if str(refused).startswith("WRONGPASS") else also) from None


async def prepare(connection: RedisConnection, password: str | None, scripts: Iterable[bytes], *, master: bool) -> None:
    """See that the server will do, and load the scripts. `master`: the sentinels say that it is one."""
    if password is not None:
        await log_in(connection, password)
    if master:
        _refuse_replica(await connection.execute_command("ROLE"))
    _refuse_cluster(_facts(await connection.execute_command("INFO", "cluster")))
    _refuse_eviction(_facts(await connection.execute_command("INFO", "memory")))
    for script in scripts:
        await connection.execute_command("SCRIPT", "LOAD", script)


def _facts(info: bytes) -> dict[str, str]:
    return dict(line.split(":", 1) for line in info.decode().splitlines() if ":" in line)


def _refuse_replica(role: list[Any]) -> None:
    if role[0] != b"master":
        raise UnavailableError("the sentinels name a server that is no master")


def _refuse_cluster(facts: dict[str, str]) -> None:
    if facts.get("cluster_enabled") == "1":
        raise UnfitError(
            "it runs in cluster mode, which takes no script over several keys (list servers of their own: gopush "
            "spreads the keys itself)"
        )


def _refuse_eviction(facts: dict[str, str]) -> None:
    policy = facts.get("maxmemory_policy", "noeviction")
    if facts.get("maxmemory", "0") != "0" and policy != "noeviction":
        raise UnfitError(f"its maxmemory-policy is {policy}, which may drop messages (noeviction is needed)")
