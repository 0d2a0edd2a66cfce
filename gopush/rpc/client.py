"""A caller's connection to a service in another process, kept by Twisted's ClientService."""

# Perspective Broker is not typed, and Zope's interfaces are unknown to the type checker:
# mypy: disable-error-code="no-untyped-call,arg-type"

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from operator import attrgetter
from typing import Any, ClassVar, NoReturn

from twisted.application.internet import backoffPolicy
from twisted.internet.defer import CancelledError, Deferred, TimeoutError, fail, maybeDeferred
from twisted.internet.endpoints import HostnameEndpoint
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.spread import pb
from zope.interface import implementer

from gopush.config.values import host_port
from gopush.errors import PeerRefusedError, UnavailableError
from gopush.model import NodeInfo
from gopush.net.clock import cancel, within
from gopush.net.eager import EagerReactor
from gopush.net.tls import ClientTls, client_tls, reached
from gopush.net.transport import Attempts, QuietClientService
from gopush.rpc.broker import LOGIN_SECONDS, Broker, security
from gopush.rpc.codec import METHODS, BatchError, CallFormat, pack, unpack
from gopush.rpc.login import enter
from gopush.rpc.logins import Logins, is_refusal, why
from gopush.rpc.settings import RpcSettings
from gopush.stats.summary import Complaints

CONNECT_SECONDS = 5.0
STOP_SECONDS = 1.0

log = Logger()


class _ClientBroker(Broker):
    def connectionLost(self, reason: Any = connectionDone) -> None:
        """Tell the owner first: a repeat of a call that fails now must not come here again."""
        self.factory.owner.lost(reason)
        super().connectionLost(reason)

    def _too_late(self) -> None:
        self._login_deadline = None
        self.factory.owner.cut(self, f"no login within {LOGIN_SECONDS:g} s")


class _ClientFactory(pb.PBClientFactory):
    protocol = _ClientBroker
    noisy = False

    def __init__(self, reactor: Any, owner: Remote, settings: RpcSettings, complaints: Complaints) -> None:
        super().__init__(security=security("remote"))
        self.reactor = reactor
        self.owner = owner
        self.complaints = complaints
        self._secrets = settings.secrets
        self._legacy = settings.legacy_secret

    def clientConnectionMade(self, broker: Broker) -> None:
        """Get in, or see that calls are welcome without that."""
        super().clientConnectionMade(broker)
        if self._secrets:
            entered = enter(self, broker, self._secrets, self.owner.address, legacy=self._legacy)
        else:
            entered = self.getRootObject()
            entered.addCallback(lambda root: root.callRemote("hello").addCallback(lambda _: root))
        entered.addBoth(self._entered, broker)

    def _entered(self, root: Any, broker: Broker) -> None:
        if broker.disconnected:
            return
        if isinstance(root, Failure):
            broker.hang_up_later()
            self.owner.unreachable(root)
        else:
            broker.settled()
            self.owner.reached(root)


@implementer(IStreamClientEndpoint)
class _InOrder:
    """Connects to the first address that answers; `address` is that of the last attempt."""

    def __init__(self, reactor: Any, addresses: Sequence[str], tls: ClientTls | None) -> None:
        self.address = ""
        self._reactor = reactor
        self._addresses = addresses
        self._tls = tls

    def connect(self, factory: Any) -> Deferred[Any]:
        """See IStreamClientEndpoint."""
        first, *others = self._addresses
        connecting: Deferred[Any] = self._connect(first, factory)
        for other in others:
            connecting.addErrback(self._next, other, factory)
        return connecting

    def _connect(self, address: str, factory: Any) -> Any:
        self.address = address
        host, port = host_port(address)
        endpoint = reached(HostnameEndpoint(self._reactor, host, port, timeout=CONNECT_SECONDS), host, self._tls)
        return endpoint.connect(factory)

    def _next(self, failure: Failure, address: str, factory: Any) -> Any:
        return failure if failure.check(CancelledError) else self._connect(address, factory)


class Remote:
    """A service in another process: every one of its `calls` is a method here.

    A call fails with PeerRefusedError where the peer says so, else with UnavailableError: at once where it is known to
    be unreachable or the connection breaks, else when its caller gives it up. A call that was not sent by then never
    is: one that waits for a connection is dropped, and a connection is cut on which nothing came back for `patience`
    seconds, though calls were out. `timeout`: seconds after which a call gives itself up, where no batcher does that.
    """

    calls: Mapping[str, CallFormat]
    patience: ClassVar[attrgetter[float]] = attrgetter("call_timeout")

    def __init__(
        self,
        reactor: Any,
        info: NodeInfo,
        settings: RpcSettings,
        timeout: float | None = None,
        logins: Logins | None = None,
    ) -> None:
        self.info = info
        self._reactor = reactor
        self._timeout = timeout
        self._patience = timeout or self.patience(settings)
        self.connections = 0
        """How many there were: what the peer keeps for a connection ends with it."""
        self._root: pb.RemoteReference | None = None
        self._received, self._asked = -1, 0.0  # as the oldest call went out after which nothing came
        self._waiting: list[Deferred[Any]] = []
        self._why = ""
        """Why the peer can't be reached; empty while there is hope."""
        self._way = _InOrder(EagerReactor(reactor), info.rpc, caller_tls(settings))
        self._logins = logins or Logins(reactor)
        self._alone = logins is None
        self._refused = False  # or cut from here: that the connection breaks then says nothing new
        self._connection = QuietClientService(
            Attempts(self._way, self.unreachable),
            _ClientFactory(reactor, self, settings, self._logins.complaints),
            backoffPolicy(settings.retry / 10, settings.retry, jitter=lambda: 0.0),
            reactor,
        )
        for name in self.calls:
            setattr(self, METHODS.get(name, name), partial(self._call, name))
        self._connection.startService()

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"{type(self).__name__} has no call {name}")

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.info.id}>"

    @property
    def connected(self) -> bool:
        """Whether calls are sent at once."""
        return self._root is not None

    @property
    def address(self) -> str:
        """The address, of those that it has, where it was called last."""
        return self._way.address

    def receiving(self) -> bool:
        """Whether an answer has come in part, and goes on coming: its size is no reason to give up the peer."""
        root = self._root
        if root is None or not root.broker.amid:
            return False
        return bool(self._reactor.seconds() - root.broker.heard < self._patience / 2)

    def stop(self) -> Deferred[None]:
        """Close the connection; calls that are out, or come later, fail."""
        root = self._root
        self._root, self._why = None, "stopped"
        self._logins.forget(self)
        if self._alone:
            self._logins.complaints.stop()
        self._fail_waiting()
        stopped: Deferred[None] = maybeDeferred(self._connection.stopService)
        if root is not None and not stopped.called:
            # A frozen peer would never take what is still to be sent.
            abort = self._reactor.callLater(STOP_SECONDS, root.broker.transport.abortConnection)
            stopped.addBoth(lambda _: cancel(abort))
        return stopped

    def reached(self, root: pb.RemoteReference) -> None:
        """The peer lets us call."""
        if self._why == "stopped":
            return
        log.info("{peer} reached", peer=str(self))
        self._root, self._why, self._refused, self._received = root, "", False, -1
        self.connections += 1
        self._logins.admitted(self)
        waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            waiter.callback(root)

    def unreachable(self, failure: Failure) -> None:
        """An attempt to connect or to log in has failed."""
        reason = why(failure, self.address)
        self._refused = is_refusal(failure)
        if self._why != "stopped":
            if self._refused:
                self._logins.refused(self, reason)
                self._warn_of_refusal(failure, reason)
            else:
                self._logins.unreached(self, reason)
                if self._why != reason:
                    log.warn("{peer} cannot be reached: {reason}", peer=str(self), reason=reason)
            self._why = reason
        self._fail_waiting()

    def _warn_of_refusal(self, failure: Failure, reason: str) -> None:
        values = {"peer": str(self), "reason": reason}
        if failure.check(pb.Error) and not isinstance(failure, pb.CopiedFailure):
            log.debug("{peer} cannot be reached: {reason}", **values)  # turn_away() has said why
        else:
            self._logins.complaints.warn("login", "{peer} cannot be reached: {reason}", about=self.info.id, **values)

    def lost(self, reason: Failure) -> None:
        """The connection broke; the next one is soon tried."""
        if self._root is not None:
            log.warn("{peer} lost: {reason}", peer=str(self), reason=reason.getErrorMessage())
            self._root = None
            self._logins.unreached(self, reason.getErrorMessage())
        elif not self._refused or is_refusal(reason):
            self.unreachable(reason)  # before the login: a certificate that is no good, say
        self._refused = False  # what comes of the next attempt counts

    def _fail_waiting(self) -> None:
        waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            waiter.errback(UnavailableError(self._why))

    def _call(self, name: str, *arguments: Any) -> Deferred[Any]:
        """Make a call of codec.py."""
        root, began = self._root, self._reactor.seconds()
        try:
            chunks = pack(arguments)
        except BatchError as wrong:
            return fail(UnavailableError(f"{self.info.id}: {name}: the batch {wrong}"))
        if root is not None:
            if self._received != root.broker.received:
                self._received, self._asked = root.broker.received, began
            made: Deferred[Any] = root.callRemote(name, chunks)
        elif self._why:
            return fail(UnavailableError(f"{self.info.id}: {name}: {self._why}"))
        else:
            made = Deferred(self._waiting.remove)
            self._waiting.append(made)
            made.addCallback(lambda root: root.callRemote(name, chunks))
        if self._timeout is not None:
            within(self._timeout, made, self._reactor, self.receiving if self.calls[name].long else None)
        made.addCallback(unpack, self.calls[name].answer)
        return made.addErrback(self._failed, name, root, began)

    def _failed(self, failure: Failure, name: str, root: pb.RemoteReference | None, began: float) -> NoReturn:
        reason = why(failure, self.address)
        if failure.check(CancelledError, TimeoutError):
            reason = self._given_up(root, began)
        error = PeerRefusedError if isinstance(failure, pb.CopiedFailure) else UnavailableError
        raise error(f"{self.info.id}: {name}: {reason}")

    def _given_up(self, root: pb.RemoteReference | None, began: float) -> str:
        """A call has no answer: is it the peer's fault? It may be one of many that are given up after a short time."""
        silent = root is not None and root is self._root and root.broker.received == self._received
        now = self._reactor.seconds()
        if now - (self._asked if silent else began) < self._patience:
            return f"given up by the caller after {now - began:.1f} s"
        reason = f"no answer within {self._patience:g} s"
        if root is None and self._root is None:
            self.unreachable(Failure(UnavailableError(reason)))
        elif root is not None and silent:
            self.cut(root.broker, reason)
        return reason

    def cut(self, broker: Broker, reason: str) -> None:
        """Close a connection on which the peer is silent. That this side aborts it is no reason of its own."""
        self._root = None
        self.unreachable(Failure(UnavailableError(reason)))
        self._refused = True
        broker.transport.abortConnection()


def caller_tls(settings: RpcSettings) -> ClientTls | None:
    """How to call others; None: without TLS. Raises SettingsError for files that are no good."""
    return client_tls("rpc", settings) if settings.tls_authorities else None
