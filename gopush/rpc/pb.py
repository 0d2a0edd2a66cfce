"""The services of services.py over Perspective Broker: what a node serves, and what its callers hold.

Batches travel packed (batch.py). With a secret, callers log in by PB's own challenge and response; a node with one and
a node without refuse each other. A caller's connection is kept by Twisted's ClientService.
"""

# Perspective Broker is not typed, and Zope's interfaces are unknown to the type checker:
# mypy: disable-error-code="no-untyped-call,arg-type,list-item,call-arg"

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from twisted.application.internet import ClientService, backoffPolicy
from twisted.cred.checkers import InMemoryUsernamePasswordDatabaseDontUse
from twisted.cred.credentials import UsernamePassword
from twisted.cred.portal import IRealm, Portal
from twisted.internet.defer import CancelledError, Deferred, TimeoutError, fail, maybeDeferred
from twisted.internet.endpoints import HostnameEndpoint
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.spread import pb
from zope.interface import implementer

from gopush.clock import within
from gopush.errors import UnavailableError
from gopush.rpc.batch import BatchError, pack, unpack
from gopush.rpc.broker import Broker, security
from gopush.rpc.calls import COMET_CALLS, MESSAGE_CALLS, Call
from gopush.rpc.model import (
    Append,
    Appended,
    Head,
    NodeInfo,
    Notice,
    Page,
    Push,
    Pushed,
    Read,
    Token,
    TokenState,
)
from gopush.rpc.services import CometService, MessageService
from gopush.rpc.settings import RpcSettings

USER = b"gopush"
CONNECT_SECONDS = 5.0
STOP_SECONDS = 1.0

log = Logger()


def serve_comet(reactor: Any, service: CometService, secret: str) -> pb.PBServerFactory:
    """The factory for a listener where other nodes call this comet. See refuse_open_doors() for where to listen."""
    return _ServerFactory(reactor, _Calls(service, COMET_CALLS), secret)


def serve_message(reactor: Any, service: MessageService, secret: str) -> pb.PBServerFactory:
    """As serve_comet(), for a message node."""
    return _ServerFactory(reactor, _Calls(service, MESSAGE_CALLS), secret)


class _Calls(pb.Referenceable):
    """A service, as callers reach it: each call takes and answers a packed batch."""

    def __init__(self, service: object, calls: Mapping[str, Call]) -> None:
        self._service = service
        self._calls = calls

    def remoteMessageReceived(self, broker: Broker, message: str, args: Any, kwargs: Any) -> Any:
        """Run a call. The one named hello only shows that calls are welcome."""
        if message == "hello":
            return broker.serialize(None)
        call = self._calls[message]
        (chunks,) = broker.unserialize(args)
        try:
            arguments = unpack(chunks, call.read_arguments)
        except BatchError as wrong:
            log.warn("{call} from {peer} {reason}", call=message, peer=broker.peer, reason=wrong)
            raise pb.Error(f"the batch {wrong}") from None
        made = maybeDeferred(getattr(self._service, message), *arguments)
        made.addCallback(pack)
        return made.addCallbacks(broker.serialize, self._failed, errbackArgs=(message,))

    def _failed(self, failure: Failure, message: str) -> None:
        if failure.check(UnavailableError, BatchError):
            raise pb.Error(failure.getErrorMessage())
        log.failure("{call} failed", failure, call=message)
        raise pb.Error("internal error")


class _ServerFactory(pb.PBServerFactory):
    protocol = Broker
    noisy = False

    def __init__(self, reactor: Any, calls: _Calls, secret: str) -> None:
        super().__init__(_Door(calls, secret), security=security())
        self.reactor = reactor


@implementer(pb.IPBRoot)
class _Door:
    """What a caller meets first: the calls themselves, or a Portal where a secret is set."""

    def __init__(self, calls: _Calls, secret: str) -> None:
        self._calls = calls
        self._secret = secret.encode()

    def rootObject(self, broker: Broker) -> pb.Referenceable:
        """See IPBRoot."""
        if not self._secret:
            return self._calls
        broker.trusted = False
        checker = InMemoryUsernamePasswordDatabaseDontUse()
        checker.addUser(USER, self._secret)
        root: pb.Referenceable = pb.IPBRoot(Portal(_Realm(broker, self._calls), [checker])).rootObject(broker)
        return root


@implementer(IRealm)
class _Realm:
    def __init__(self, broker: Broker, calls: _Calls) -> None:
        self._broker = broker
        self._calls = calls

    def requestAvatar(self, avatarId: Any, mind: Any, *interfaces: Any) -> Any:
        """See IRealm: there is but one avatar."""
        self._broker.settled()
        return pb.IPerspective, self._calls, lambda: None


class _ClientBroker(Broker):
    def connectionLost(self, reason: Any = connectionDone) -> None:
        """Tell the owner first: whoever repeats a call that fails now must not be led here again."""
        self.factory.owner.lost(reason)
        super().connectionLost(reason)


class _ClientFactory(pb.PBClientFactory):
    protocol = _ClientBroker
    noisy = False

    def __init__(self, reactor: Any, owner: _Remote, secret: str) -> None:
        super().__init__(security=security("remote"))
        self.reactor = reactor
        self.owner = owner
        self._secret = secret.encode()

    def clientConnectionMade(self, broker: Broker) -> None:
        """Log in, and see that calls are welcome."""
        super().clientConnectionMade(broker)
        root = self.login(UsernamePassword(USER, self._secret)) if self._secret else self.getRootObject()
        root.addCallback(lambda root: root.callRemote("hello").addCallback(lambda _: root))
        root.addBoth(self._logged_in, broker)

    def _logged_in(self, root: Any, broker: Broker) -> None:
        if broker.disconnected:
            return
        broker.settled()
        if isinstance(root, Failure):
            self.owner.unreachable(root)
        else:
            self.owner.reached(root)


@implementer(IStreamClientEndpoint)
class _InOrder:
    """Connects to the first address that answers."""

    def __init__(self, reactor: Any, addresses: Sequence[str], failed: Any) -> None:
        hosts = [address.rpartition(":") for address in addresses]
        self._endpoints = [
            HostnameEndpoint(reactor, host.strip("[]"), int(port), timeout=CONNECT_SECONDS) for host, _, port in hosts
        ]
        self._failed = failed

    def connect(self, factory: Any) -> Deferred[Any]:
        """See IStreamClientEndpoint."""
        first, *others = self._endpoints
        connecting = first.connect(factory)
        for other in others:
            connecting.addErrback(self._next, other, factory)
        return connecting.addErrback(self._all_failed)

    def _next(self, failure: Failure, endpoint: HostnameEndpoint, factory: Any) -> Any:
        return failure if failure.check(CancelledError) else endpoint.connect(factory)

    def _all_failed(self, failure: Failure) -> Failure:
        self._failed(failure)
        return failure


class _Connection(ClientService):
    # _Remote has a line for each change; one for each attempt is too much.
    _log = Logger(observer=lambda _: None)


class _Remote:
    """A service in another process.

    A call fails with UnavailableError: at once where the peer is known to be unreachable or the connection breaks, else
    after `timeout` seconds, the wait for a connection included. What was not sent by then never is: a call that waits
    for a connection is dropped, and a connection on which nothing came back all the while is cut.
    """

    def __init__(
        self, reactor: Any, info: NodeInfo, settings: RpcSettings, calls: Mapping[str, Call], timeout: float
    ) -> None:
        self.info = info
        self._reactor = reactor
        self._calls = calls
        self._timeout = timeout
        self._root: pb.RemoteReference | None = None
        self._waiting: list[Deferred[Any]] = []
        self._why = ""
        """Why the peer can't be reached; empty while there is hope."""
        self._connection = _Connection(
            _InOrder(reactor, info.rpc, self.unreachable),
            _ClientFactory(reactor, self, settings.secret),
            backoffPolicy(settings.retry / 10, settings.retry, jitter=lambda: 0.0),
            reactor,
        )
        self._connection.startService()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.info.id}>"

    @property
    def connected(self) -> bool:
        """Whether calls are sent at once."""
        return self._root is not None

    def ping(self) -> Deferred[None]:
        """See services.py."""
        return self._call("ping")

    def stop(self) -> Deferred[None]:
        """Close the connection; calls that are out, or come later, fail."""
        root = self._root
        self._root, self._why = None, "stopped"
        self._fail_waiting()
        stopped: Deferred[None] = maybeDeferred(self._connection.stopService)
        if root is not None and not stopped.called:
            # A frozen peer would never take what is still to be sent.
            abort = self._reactor.callLater(STOP_SECONDS, root.broker.transport.abortConnection)
            stopped.addBoth(lambda _: abort.cancel() if abort.active() else None)
        return stopped

    def reached(self, root: pb.RemoteReference) -> None:
        """The peer lets us call."""
        if self._why == "stopped":
            return
        log.info("{peer} reached", peer=self)
        self._root, self._why = root, ""
        waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            waiter.callback(root)

    def unreachable(self, failure: Failure) -> None:
        """An attempt to connect or to log in has failed."""
        reason = _reason(failure)
        if self._why not in (reason, "stopped"):
            log.warn("{peer} cannot be reached: {reason}", peer=self, reason=reason)
            self._why = reason
        self._fail_waiting()

    def lost(self, reason: Failure) -> None:
        """The connection broke; the next one is soon tried."""
        if self._root is not None:
            log.warn("{peer} lost: {reason}", peer=self, reason=reason.getErrorMessage())
            self._root = None

    def _fail_waiting(self) -> None:
        waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            waiter.errback(UnavailableError(self._why))

    def _batch(self, name: str, items: Sequence[Any]) -> Deferred[Any]:
        return self._call(name, items).addCallback(self._check_length, name, len(items))

    def _check_length(self, answers: list[Any], name: str, length: int) -> list[Any]:
        if len(answers) != length:
            raise UnavailableError(f"{self.info.id}: {name}: {len(answers)} answers to {length}")
        return answers

    def _call(self, name: str, *arguments: Any) -> Deferred[Any]:
        try:
            chunks = pack(arguments)
        except BatchError as wrong:
            return fail(UnavailableError(f"{self.info.id}: {name}: the batch {wrong}"))
        root, heard = self._root, -1
        if root is not None:
            heard = root.broker.received
            made: Deferred[Any] = root.callRemote(name, chunks)
        elif self._why:
            return fail(UnavailableError(f"{self.info.id}: {name}: {self._why}"))
        else:
            made = Deferred(self._waiting.remove)
            self._waiting.append(made)
            made.addCallback(lambda root: root.callRemote(name, chunks))
        within(self._timeout, made, self._reactor)
        made.addCallback(unpack, self._calls[name].answer)
        return made.addErrback(self._failed, name, root, heard)

    def _failed(self, failure: Failure, name: str, root: pb.RemoteReference | None, heard: int) -> None:
        reason = _reason(failure)
        if failure.check(CancelledError):
            reason = "given up by the caller"
        elif failure.check(TimeoutError):
            reason = f"no answer within {self._timeout:g} s"
            if root is None and self._root is None:
                self.unreachable(Failure(UnavailableError(reason)))
            elif root is not None and root is self._root and root.broker.received == heard:
                self._root = None
                root.broker.refuse(f"gave {reason}")
        raise UnavailableError(f"{self.info.id}: {name}: {reason}")


def _reason(failure: Failure) -> str:
    if failure.check(pb.PBConnectionLost, pb.DeadReferenceError):
        return "connection lost"
    return failure.getErrorMessage() or str(failure.type)


class RemoteComet(_Remote):
    """A comet in another process, as services.py describes it."""

    def __init__(self, reactor: Any, info: NodeInfo, settings: RpcSettings, timeout: float | None = None) -> None:
        """`timeout`: seconds for a call; None: those that a push may take."""
        super().__init__(reactor, info, settings, COMET_CALLS, timeout or settings.attempt_timeout)

    def push(self, pushes: Sequence[Push]) -> Deferred[list[Pushed]]:
        """See CometService."""
        return self._batch("push", pushes)

    def notice(self, notices: Sequence[Notice]) -> Deferred[None]:
        """See CometService."""
        return self._call("notice", notices)

    def close(self, keys: Sequence[str]) -> Deferred[list[int]]:
        """See CometService."""
        return self._batch("close", keys)


class RemoteMessage(_Remote):
    """A message node in another process, as services.py describes it."""

    def __init__(self, reactor: Any, info: NodeInfo, settings: RpcSettings, timeout: float | None = None) -> None:
        """`timeout`: seconds for a call; None: those of the settings."""
        super().__init__(reactor, info, settings, MESSAGE_CALLS, timeout or settings.call_timeout)

    def append(self, appends: Sequence[Append]) -> Deferred[list[Appended]]:
        """See MessageService."""
        return self._batch("append", appends)

    def read(self, reads: Sequence[Read]) -> Deferred[list[Page]]:
        """See MessageService."""
        return self._batch("read", reads)

    def heads(self, keys: Sequence[str]) -> Deferred[list[Head]]:
        """See MessageService."""
        return self._batch("heads", keys)

    def delete(self, key: str) -> Deferred[None]:
        """See MessageService."""
        return self._call("delete", key)

    def create_token(self, key: str, token: Token) -> Deferred[None]:
        """See MessageService."""
        return self._call("create_token", key, token)

    def revoke_token(self, key: str, digest: bytes) -> Deferred[bool]:
        """See MessageService."""
        return self._call("revoke_token", key, digest)

    def tokens(self, key: str) -> Deferred[list[Token]]:
        """See MessageService."""
        return self._call("tokens", key)

    def check_token(self, key: str, digest: bytes) -> Deferred[TokenState]:
        """See MessageService."""
        return self._call("check_token", key, digest)
