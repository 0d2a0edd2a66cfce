"""One connection to a Redis server: a silent one is given up. What a server's errors mean, and the scripts to run."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, NamedTuple, Protocol

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from txredisapi import ConnectionError as LostConnectionError
from txredisapi import RedisProtocol, ResponseError

from gopush.errors import UnavailableError
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


class NoOwner:
    """An Owner that need not hear of them: whoever has the connection sees that its calls fail."""

    def made(self, connection: RedisConnection) -> None:
        """See Owner."""

    silent = lost = made


class LinkWatcher(NamedTuple):
    """What hears of a link. `trouble`: what is wrong with it, in words, when that changes, and None when all is well;
    `clock`: the server's time, and by how many seconds it is ahead of this process's (None: that came too late to
    tell), every half a second of idleness; `left`: it let go of its server, and another one, which is no replica, has
    run a script; `well`: all is well still, every half a second.
    """

    trouble: Callable[[str | None], None]
    clock: Callable[[float, float | None], None] = lambda *_: None
    left: Callable[[], None] = lambda: None
    well: Callable[[], None] = lambda: None


class UnfitError(Exception):
    """A server that can never do, with the reason."""


class LostHandshakeError(LostConnectionError):  # type: ignore[misc]
    """The connection was lost in the TLS handshake, with the reason."""


class RedisRefusedError(UnavailableError):
    """The server refused, and would refuse another message node just so."""


class UnreplicatedError(RedisRefusedError):
    """It is stored, but too few replicas said in time that they have it."""


PASSING = ("READONLY", "LOADING", "BUSY", "MASTERDOWN", "TRYAGAIN", "UNBLOCKED", "MAXCLIENTS")
"""Kinds of errors with which another message node may fare better, so they become UnavailableError."""

_PLAIN = {
    "ERR max number of clients reached": "MAXCLIENTS",
    "ERR WAIT cannot be used with replica instances": "UNBLOCKED",
}
"""Errors for which Redis has no word of their own: how they begin, and their kind."""

WAIT_SHARE = 0.35
"""Of the time that Redis may take: two fit in, one behind the other."""

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
