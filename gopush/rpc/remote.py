"""A caller's connection to a service in another process, kept by Twisted's ClientService."""

# Perspective Broker is not typed, and Zope's interfaces are unknown to the type checker:
# mypy: disable-error-code="no-untyped-call,arg-type"

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from twisted.application.internet import backoffPolicy
from twisted.cred.credentials import UsernamePassword
from twisted.internet.defer import CancelledError, Deferred, TimeoutError, fail, maybeDeferred
from twisted.internet.endpoints import HostnameEndpoint
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.spread import pb
from zope.interface import implementer

from gopush.client_service import QuietClientService
from gopush.clock import within
from gopush.eager import EagerReactor
from gopush.errors import UnavailableError
from gopush.rpc.batch import BatchError, pack, unpack
from gopush.rpc.broker import USER, Broker, security
from gopush.rpc.calls import Call
from gopush.rpc.model import NodeInfo
from gopush.rpc.secure import caller_tls
from gopush.rpc.settings import RpcSettings
from gopush.tls import ClientTls

CONNECT_SECONDS = 5.0
STOP_SECONDS = 1.0

log = Logger()


class _ClientBroker(Broker):
    def connectionLost(self, reason: Any = connectionDone) -> None:
        """Tell the owner first: whoever repeats a call that fails now must not be led here again."""
        self.factory.owner.lost(reason)
        super().connectionLost(reason)


class _ClientFactory(pb.PBClientFactory):
    protocol = _ClientBroker
    noisy = False

    def __init__(self, reactor: Any, owner: Remote, secret: str) -> None:
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

    def __init__(
        self, reactor: Any, addresses: Sequence[str], tls: ClientTls | None, failed: Callable[[Failure], None]
    ) -> None:
        hosts = [address.rpartition(":") for address in addresses]
        self._endpoints = [
            (host.strip("[]"), HostnameEndpoint(reactor, host.strip("[]"), int(port), timeout=CONNECT_SECONDS))
            for host, _, port in hosts
        ]
        self._tls = tls
        self._failed = failed

    def connect(self, factory: Any) -> Deferred[Any]:
        """See IStreamClientEndpoint."""
        first, *others = self._endpoints
        connecting = self._connect(first, factory)
        for other in others:
            connecting.addErrback(self._next, other, factory)
        return connecting.addErrback(self._all_failed)

    def _connect(self, where: tuple[str, HostnameEndpoint], factory: Any) -> Deferred[Any]:
        host, endpoint = where
        return endpoint.connect(factory) if self._tls is None else self._tls.connect(endpoint, host, factory)

    def _next(self, failure: Failure, where: tuple[str, HostnameEndpoint], factory: Any) -> Any:
        return failure if failure.check(CancelledError) else self._connect(where, factory)

    def _all_failed(self, failure: Failure) -> Failure:
        self._failed(failure)
        return failure


class Remote:
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
        self._connection = QuietClientService(
            _InOrder(EagerReactor(reactor), info.rpc, caller_tls(settings), self.unreachable),
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
        return self.call("ping")

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
        log.info("{peer} reached", peer=str(self))
        self._root, self._why = root, ""
        waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            waiter.callback(root)

    def unreachable(self, failure: Failure) -> None:
        """An attempt to connect or to log in has failed."""
        reason = _reason(failure)
        if self._why not in (reason, "stopped"):
            log.warn("{peer} cannot be reached: {reason}", peer=str(self), reason=reason)
            self._why = reason
        self._fail_waiting()

    def lost(self, reason: Failure) -> None:
        """The connection broke; the next one is soon tried."""
        if self._root is not None:
            log.warn("{peer} lost: {reason}", peer=str(self), reason=reason.getErrorMessage())
            self._root = None
        else:
            self.unreachable(reason)  # before the login: a certificate that is no good, say

    def _fail_waiting(self) -> None:
        waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            waiter.errback(UnavailableError(self._why))

    def batch(self, name: str, items: Sequence[Any]) -> Deferred[Any]:
        """As call(), for one that has an answer for each of its items."""
        return self.call(name, items).addCallback(self._check_length, name, len(items))

    def _check_length(self, answers: list[Any], name: str, length: int) -> list[Any]:
        if len(answers) != length:
            raise UnavailableError(f"{self.info.id}: {name}: {len(answers)} answers to {length}")
        return answers

    def call(self, name: str, *arguments: Any) -> Deferred[Any]:
        """Make a call of calls.py."""
        try:
            chunks = pack(arguments)
        except BatchError as wrong:
            return fail(UnavailableError(f"{self.info.id}: {name}: the batch {wrong}"))
        root, heard = self._root, -1
        if root is not None:
            heard = root.broker.received
            made: Deferred[Any] = root.broker.call(name, chunks)
        elif self._why:
            return fail(UnavailableError(f"{self.info.id}: {name}: {self._why}"))
        else:
            made = Deferred(self._waiting.remove)
            self._waiting.append(made)
            made.addCallback(lambda root: root.broker.call(name, chunks))
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
