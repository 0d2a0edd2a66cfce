"""A way to a Redis server that is kept open, comes back by itself, and runs scripts there."""

from __future__ import annotations

import time
from collections.abc import Iterable
from contextlib import suppress
from typing import Any, cast

from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Factory
from twisted.python.failure import Failure
from txredisapi import ConnectionError as LostConnectionError
from txredisapi import RedisError, ResponseError

from gopush.errors import UnavailableError
from gopush.message.redis.connection import (
    LinkWatcher,
    LostHandshakeError,
    RedisConnection,
    RedisRefusedError,
    Script,
    ScriptCall,
    UnfitError,
    error_kind,
    error_text,
    refuses,
)
from gopush.message.redis.endpoint import MasterEndpoint, endpoint_of
from gopush.message.redis.fitness import prepare, refuse_unfit
from gopush.message.redis.settings import RedisSettings, Source
from gopush.net.clock import Loop, repeating
from gopush.net.eager import EagerReactor
from gopush.net.tls import ClientTls
from gopush.net.tls_protocol import silence
from gopush.net.transport import Attempts, QuietClientService
from gopush.rpc.codec import Packer

RETRY_SECONDS = 0.5
"""How long to leave a server alone that was lost again at once, or that refused."""

WATCH_SECONDS = 1.0
"""How often the sentinels are asked whether the master has moved: one that is cut off from them would not tell."""

IDLE_SECONDS = 0.5
"""A connection that was idle for so long is asked for the time: neither Redis (`timeout`) nor a firewall forgets it,
and one that was forgotten is noticed."""

MOST_TRIES = 3
"""How often a call is sent that meets a server that has become a replica, or, where that does no harm, is lost."""

LOST = "the connection was lost"


class RedisLink(Factory):
    """One connection to `source`, made again at once when it is lost, and tried again for ever.

    A call waits for the one attempt that follows the start or a loss; without a connection it fails at once. `scripts`
    are loaded before anything else is asked.
    """

    noisy = False

    def __init__(
        self,
        reactor: Any,
        source: Source,
        settings: RedisSettings,
        scripts: Iterable[Script],
        watcher: LinkWatcher,
        tls: ClientTls | None,
    ) -> None:
        self._reactor = reactor
        self._source = source
        self._settings = settings
        self._scripts = tuple(scripts)
        self._watcher = watcher
        self._trouble: str | None = None
        self.server = ""  # the run id of the one that the latest connection led to
        self._ready: RedisConnection | None = None
        self._ready_since = 0.0
        self._at_once = False
        self._hoping = False  # the first attempt after the start or a loss is under way
        self._left = False  # a server, and no other one has run a script yet
        self._stale = False  # the attempt that is under way began before leave()
        self._waiting: list[Deferred[None]] = []
        self._decided: Deferred[str | None] | None = None
        endpoint = endpoint_of(EagerReactor(reactor), source, settings.timeout, tls, settings.sentinel_password)
        self._packer = Packer(use_bin_type=False)
        self._pinging = repeating(lambda: Deferred.fromCoroutine(self._ping_idle()), reactor)
        self._watching: Loop | None = None
        if isinstance(endpoint, MasterEndpoint):
            self._watching = repeating(lambda: Deferred.fromCoroutine(self._watch(endpoint)), reactor)
        attempts: Any = Attempts(endpoint, self.unreachable)
        self._service = QuietClientService(attempts, cast(Any, self), self._pause, reactor)

    def start(self) -> Deferred[str | None]:
        """Begin to connect. Fires after the first attempt, with words only where the server itself refused."""
        decided = self._decided = Deferred()
        self._hoping = True
        self._service.startService()
        self._pinging.start(IDLE_SECONDS, now=False)
        if self._watching is not None:
            self._watching.start(WATCH_SECONDS, now=False)
        return decided

    def stop(self) -> Deferred[Any]:
        """Close the connection; whatever still waits for an answer fails."""
        self._pinging.stop()
        if self._watching is not None:
            self._watching.stop()
        self._attempted("stopped")
        return self._service.stopService()

    @property
    def connected(self) -> bool:
        """Whether it may be asked now."""
        return self._ready is not None

    def run(self, script: Script, arguments: list[Any], replicas: int = 0, again: bool = True) -> Deferred[bytes]:
        """Run a script, and wait until so many replicas have what it wrote. Fails with UnavailableError.

        `again`: it does no harm twice, so that it is sent again where the connection is lost before the answer.
        """
        if self._ready is None and not self._hoping:
            return self._not_ready()
        call = ScriptCall(script, ("EVALSHA", script.sha, 0, self._packer.pack(arguments)), replicas, again, MOST_TRIES)
        return self._try(call).addErrback(self._failed)

    def ping(self) -> Deferred[None]:
        """A round trip. Fails with UnavailableError."""
        if self._ready is None:
            return self._not_ready()
        pong: Deferred[Any] = self._ready.ping()
        return pong.addCallbacks(lambda _: None, self._failed)

    def _not_ready(self) -> Deferred[Any]:
        return fail(UnavailableError(self._trouble or "not connected yet"))

    def _try(self, call: ScriptCall) -> Deferred[bytes]:
        connection = self._ready
        if connection is not None:
            call.tries -= 1
            running = connection.run(call)
            if self._left:
                running.addCallback(self._ran, connection)
            return running.addErrback(self._tried, call, connection)
        if not self._hoping:
            return self._not_ready()
        waiting: Deferred[None] = Deferred()
        self._waiting.append(waiting)
        return waiting.addCallback(lambda _: self._try(call))

    def _ran(self, answer: bytes, connection: RedisConnection) -> bytes:
        if self._left and connection is self._ready:  # not before: it may have come to the same replica again
            self._left = False
            self._watcher.left()
        return answer

    def _tried(self, failure: Failure, call: ScriptCall, connection: RedisConnection) -> Any:
        """Try again where that may help and does no harm."""
        if failure.check(LostConnectionError):
            if call.again and call.tries and connection is not self._ready:
                return self._try(call)
        elif failure.check(ResponseError):
            # It certainly stored nothing, unless it became a replica in WAIT. Its address may lead elsewhere by now.
            kind = error_kind(cast(ResponseError, failure.value))
            if kind == "NOSCRIPT" and call.command[0] == "EVALSHA":
                call.command = ("EVAL", call.script.text, *call.command[2:])
                call.tries += 1
                return self._try(call)
            if kind in ("READONLY", "UNBLOCKED"):
                self._leave(connection)
                if call.tries and (call.again or kind == "READONLY"):
                    return self._try(call)
        return failure

    def _failed(self, failure: Failure) -> Any:
        error = failure.value
        if not isinstance(error, RedisError):
            return failure
        if refuses(error):
            raise RedisRefusedError(error_text(error)) from None
        reason = LOST if isinstance(error, LostConnectionError) else error_text(error)
        raise UnavailableError(self._trouble or reason) from None

    async def _ping_idle(self) -> None:
        if (connection := self._ready) is None:
            return
        self._watcher.well()
        if connection.idle < IDLE_SECONDS * 0.9:
            return
        began = time.time()
        try:
            seconds, micros = await connection.execute_command("TIME")
        except RedisError:
            return
        now, took = int(seconds) + int(micros) / 1e6, time.time() - began
        self._watcher.clock(now, now - began - took / 2 if took < IDLE_SECONDS else None)

    async def _watch(self, endpoint: MasterEndpoint) -> None:
        if (connection := self._ready) is not None and await endpoint.moved():
            self._leave(connection, "the sentinels name another master")

    async def look(self) -> None:
        """Leave a server that is unfit by now (refuse_unfit()): it is refused until that is put right."""
        if (connection := self._ready) is not None:
            with suppress(RedisError):  # it could be asked as it was made ready: other calls meet what is wrong now
                try:
                    await refuse_unfit(connection, self._settings)
                except UnfitError:
                    self._leave(connection)

    def leave(self) -> None:
        """Connect anew, behind an attempt that is under way: another server is there by now."""
        self._stale = self._ready is None
        if self._ready is not None:
            self._leave(self._ready)

    def _leave(self, connection: RedisConnection, reason: str | None = None) -> None:
        """Let go of a server that is no master any more; the next attempt asks where the master is."""
        if connection is self._ready:
            if reason is not None:
                self._say(reason)
            self.lost(connection)  # at once: Twisted reports its end a turn later, and a call would be sent in vain
            connection.transport.abortConnection()
            self._left = True

    def _pause(self, _: int) -> float:
        at_once, self._at_once = self._at_once, False
        return 0.0 if at_once else RETRY_SECONDS

    def buildProtocol(self, addr: IAddress | None) -> Any:
        """See IProtocolFactory."""
        connection = RedisConnection(self._reactor, self._settings.timeout, self)
        connection.factory = self
        return connection

    def made(self, connection: RedisConnection) -> None:
        """See Owner. It is of use once the server has agreed to all that we need."""
        if not self._source.path:
            connection.transport.setTcpNoDelay(True)
            connection.transport.setTcpKeepAlive(True)
        Deferred.fromCoroutine(self._prepare(connection)).addErrback(self._not_prepared, connection)

    async def _prepare(self, connection: RedisConnection) -> None:
        self.server = await prepare(connection, self._source, self._settings, [one.text for one in self._scripts])
        self._ready = connection
        self._ready_since = self._reactor.seconds()
        if self._stale:
            self.leave()
        else:
            self._attempted(None)

    def _not_prepared(self, failure: Failure, connection: RedisConnection) -> None:
        error = failure.value
        if isinstance(error, LostConnectionError) and not isinstance(error, LostHandshakeError):
            self._attempted(self._trouble or LOST, logged=self._trouble is not None)
            return
        self._attempted(str(error), refused=refuses(error))
        connection.transport.loseConnection()

    def unreachable(self, failure: Failure) -> None:
        """An attempt to connect has failed. Callers hear the newest reason, the log what both connections met first."""
        reason = f"cannot be reached at {self._source.address}: {failure.getErrorMessage()}"
        known = self._ready_since > 0
        if self._trouble is None:
            self._say(LOST if known else reason)
        self._attempted(f"{LOST}; {reason}" if known else reason, logged=True)

    def silent(self, connection: RedisConnection) -> None:
        """See Owner."""
        self._say(silence(connection.transport, f"no answer within {self._settings.timeout:g} s"))

    def lost(self, connection: RedisConnection) -> None:
        """See Owner."""
        if self._ready is connection:
            self._ready = None
            self._at_once = self._reactor.seconds() - self._ready_since > RETRY_SECONDS
            self._hoping = bool(self._service.running)

    def _attempted(self, trouble: str | None, refused: bool = False, logged: bool = False) -> None:
        """Nobody waits for the connection any more."""
        self._hoping = self._stale = False
        self._say(trouble, refused, logged)
        waiting, self._waiting = self._waiting, []
        answer = None if trouble is None else Failure(UnavailableError(trouble))
        for waiter in waiting:
            waiter.callback(answer)

    def _say(self, trouble: str | None, refused: bool = False, logged: bool = False) -> None:
        if trouble != "stopped" and self._service.running:  # an attempt that stop() ends is no trouble
            self._trouble = trouble
            if not logged:
                self._watcher.trouble(trouble)
        if self._decided is not None:
            decided, self._decided = self._decided, None
            decided.callback(trouble if refused else None)
