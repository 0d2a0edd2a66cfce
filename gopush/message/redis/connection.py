"""One connection to a Redis server: a silent one is given up, and a server that will not do is refused."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, NamedTuple, Protocol
from uuid import uuid4

from twisted.internet.defer import Deferred, DeferredList
from twisted.python.failure import Failure
from txredisapi import ConnectionError as LostConnectionError
from txredisapi import RedisProtocol, ResponseError

from gopush.errors import UnavailableError
from gopush.message.redis.settings import RedisSettings, Source
from gopush.net.clock import cancel
from gopush.net.tls_protocol import handshake_trouble


class Owner(Protocol):
    """Who holds connections."""

    def made(self, connection: RedisConnection) -> None:
        """It is there, but nobody has asked the server anything yet."""

    def silent(self, connection: RedisConnection) -> None:
        """It has been given up: nothing came back within the time-out."""

    def lost(self, connection: RedisConnection) -> None:
        """It is gone."""


class LinkWatcher(NamedTuple):
    """What hears of a link. `trouble`: what is wrong with it, in words, when that changes, and None when all is well;
    `clock`: the server's time, and by how many seconds it is ahead of this process's (None: that came too late to
    tell), every half a second of idleness; `left`: it let go of its server, and another one, which is no replica, has
    run a script.
    """

    trouble: Callable[[str | None], None]
    clock: Callable[[float, float | None], None] = lambda *_: None
    left: Callable[[], None] = lambda: None


class UnfitError(Exception):
    """A server that can never do, with the reason."""


class LostHandshakeError(LostConnectionError):  # type: ignore[misc]
    """The connection was lost in the TLS handshake, with the reason."""


class RedisRefusedError(UnavailableError):
    """The server refused, and would refuse another message node just so."""


class UnreplicatedError(RedisRefusedError):
    """It is stored, but too few replicas said in time that they have it."""


OLD_REDIS = ("2", "3", "4", "5")
"""They lack KEEPTTL."""

PASSING = ("READONLY", "LOADING", "BUSY", "MASTERDOWN", "TRYAGAIN", "UNBLOCKED", "MAXCLIENTS")
"""Kinds of errors with which another message node may fare better, so they become UnavailableError."""

_PLAIN = {
    "ERR max number of clients reached": "MAXCLIENTS",
    "ERR WAIT cannot be used with replica instances": "UNBLOCKED",
    "ERR The user executing the script can't ": "NOPERM",
    "ERR ACL failure in script: ": "NOPERM",
}
"""Errors for which Redis has no word of their own: how they begin, and their kind."""

WAIT_SHARE = 0.35
"""Of the time that Redis may take: two fit in, one behind the other."""

NEEDED = (
    *("INFO server", "PING", "TIME", "SCRIPT LOAD return", "EVAL return 0", "EVALSHA 0 0"),
    *("RPUSH NAME 0", "LPUSH NAME 0", "PEXPIRE NAME 60000", "SET NAME 0 NX", "GET NAME", "SETRANGE NAME 0 0"),
    *("LINDEX NAME 0", "LLEN NAME", "LRANGE NAME 0 0", "PTTL NAME"),
    *("ZADD NAME 0 0", "ZCOUNT NAME 0 0", "ZRANGE NAME 0 0", "ZRANGEBYSCORE NAME 0 0", "ZREM NAME 0"),
    *("ZREMRANGEBYRANK NAME 0 0", "ZREMRANGEBYSCORE NAME 0 0", "ZSCORE NAME 0"),
    *("LTRIM NAME 1 0", "EXPIREAT NAME 1", "DEL NAME"),
)
"""What we and our scripts run, on a list of a moment: for most of these it is of the wrong type, and no harm done. What
only some settings need: WAIT is tried with these, ROLE says itself where it is refused.
"""

_OF_SCRIPT = re.compile(r"^ERR Error running script [^\n]*?: -(?=[A-Z]+ )| script: \w+, on @user_script:\d+\.$")
"""What Redis adds where a call in a script was refused, before 7 in front of its words, later behind them."""


def error_text(error: BaseException) -> str:
    """A server's error in the words that it has for every script and every line of one."""
    return _OF_SCRIPT.sub("", str(error))


def error_kind(error: BaseException) -> str:
    """The word that a server's error begins with: READONLY."""
    text = error_text(error)
    return next((kind for plain, kind in _PLAIN.items() if text.startswith(plain)), text.partition(" ")[0])


def refuses(error: BaseException | None) -> bool:
    """Whether a server has said that it will not do, nor later."""
    return isinstance(error, (ResponseError, UnfitError)) and error_kind(error) not in PASSING


class RedisConnection(RedisProtocol):  # type: ignore[misc]
    """Lives as long as answers come, however long one is: only silence for `timeout` seconds ends it."""

    def __init__(self, reactor: Any, timeout: float, owner: Owner) -> None:
        super().__init__(charset=None, convertNumbers=False)
        self.callLater = reactor.callLater
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
        # WAIT is about what this connection wrote last, so it goes right behind. It gets a part of the time that an
        # answer may take, so that missing replicas are not taken for a missing server, also where another one is
        # under way, which holds up what comes behind it.
        most_ms = max(1, int(self._timeout * 1000 * WAIT_SHARE))
        waiting: Deferred[int] = self.execute_command("WAIT", replicas, most_ms)
        waiting.addErrback(lambda failure: failure.value)
        answer = await answering
        reached = await waiting
        if isinstance(reached, Exception):
            raise reached
        if reached < replicas:
            raise UnreplicatedError(f"only {reached} of {replicas} replicas confirmed it in time ({most_ms} ms)")
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
        cancel(self._watch)
        self._watch = None
        self._owner.lost(self)  # first: the calls that fail now should find out why
        if trouble := handshake_trouble(why):
            while self.replyQueue.waiting:
                self.replyReceived(LostHandshakeError(trouble))
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


async def prepare(
    connection: RedisConnection, source: Source, settings: RedisSettings, scripts: Iterable[bytes]
) -> str:
    """Check the server, and load the scripts. Gives its run id."""
    if source.password is not None:
        await log_in(connection, source.password)
    if source.sentinels:
        _refuse_replica(await connection.execute_command("ROLE"))
    facts = _facts(await connection.execute_command("INFO", "server"))
    _refuse_old(facts)
    _refuse_cluster(_facts(await connection.execute_command("INFO", "cluster")))
    await refuse_unfit(connection, settings)
    for script in scripts:
        await connection.execute_command("SCRIPT", "LOAD", script)
    return facts.get("run_id", "")


async def refuse_unfit(connection: RedisConnection, settings: RedisSettings) -> None:
    """Raise UnfitError where the server may drop messages, or refuses what we need: both may change while it serves."""
    await _refuse_few_rights(connection, settings)
    await _refuse_eviction(connection)


async def _refuse_few_rights(connection: RedisConnection, settings: RedisSettings) -> None:
    """A script would end halfway. They are tried outside of one: in it each version words its refusal anew."""
    name = f"{settings.prefix}rights:{uuid4().hex}"  # nobody else's
    needed = (*NEEDED, *(["WAIT 0 0"] if settings.wait else []))
    # Who may not delete a name must not make it.
    refused = await _refused(connection, name, ["DEL NAME"]) or await _refused(connection, name, needed)
    if refused:
        raise UnfitError(
            f"it refuses {', '.join(refused)} (tried on {settings.prefix}rights:…; all names that begin with "
            f"{settings.prefix} are needed: docs/security.md has the ACL)"
        )


async def _refused(connection: RedisConnection, name: str, needed: Iterable[str]) -> list[str]:
    tried = [[name if word == "NAME" else word for word in one.split()] for one in needed]
    answers = await DeferredList([connection.execute_command(*words) for words in tried], consumeErrors=True)
    return [
        words[0]
        for words, (answered, answer) in zip(tried, answers, strict=True)
        if not answered and str(answer.value).startswith(("NOPERM ", "ERR unknown command"))
    ]


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


async def _refuse_eviction(connection: RedisConnection) -> None:
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
