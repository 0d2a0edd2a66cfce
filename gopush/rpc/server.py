"""The services of services.py over Perspective Broker: what a node serves, and what its callers hold.

A call is a callRemote() of a name in calls.py with one argument, a packed batch (batch.py), and answers another.
"""

# Perspective Broker is not typed, and Zope's interfaces are unknown to the type checker:
# mypy: disable-error-code="no-untyped-call,arg-type,call-arg"

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, NoReturn

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.spread import pb
from zope.interface import implementer

from gopush.errors import UnavailableError
from gopush.model import NodeInfo
from gopush.rpc.broker import Broker, security
from gopush.rpc.client import Remote
from gopush.rpc.codec import COMET_CALLS, MESSAGE_CALLS, METHODS, BatchError, CallFormat, pack, unpack
from gopush.rpc.login import Door, Reachable
from gopush.rpc.services import CometService, MessageService
from gopush.rpc.settings import RpcSettings
from gopush.stats.complaints import Complaints

log = Logger()


def serve_comet(
    reactor: Any, service: CometService, secret: str, addresses: Collection[str] = (), *, legacy: bool = False
) -> ServerFactory:
    """The factory for a listener where other nodes call this comet. See refuse_open_doors() for where to listen.

    `addresses`: those that it advertises: who was sent to another one by somebody in the middle is turned away.
    `legacy`: [rpc] secret.legacy.
    """
    return ServerFactory(reactor, _Calls(service, COMET_CALLS), secret, addresses, legacy)


def serve_message(
    reactor: Any, service: MessageService, secret: str, addresses: Collection[str] = (), *, legacy: bool = False
) -> ServerFactory:
    """As serve_comet(), for a message node."""
    return ServerFactory(reactor, _Calls(service, MESSAGE_CALLS), secret, addresses, legacy)


class _Calls(Reachable):
    """A service, as callers reach it: each call takes and answers a packed batch."""

    def __init__(self, service: object, calls: Mapping[str, CallFormat]) -> None:
        self._service = service
        self._calls = calls

    def called(self, broker: Broker, name: str, arguments: Any) -> Any:
        """See Reachable. The call named hello only shows that calls are welcome."""
        if name == "hello":
            return None
        (chunks,) = arguments
        return self.run(broker, name, chunks)

    def run(self, broker: Broker, name: str, chunks: Any) -> Deferred[list[bytes]]:
        """See broker.Calls."""
        call = self._calls[name]
        try:
            arguments = unpack(chunks, call.read_arguments)
        except BatchError as wrong:
            broker.factory.complaints.warn("{call} from {peer} {reason}", call=name, peer=broker.peer, reason=wrong)
            raise pb.Error(f"the batch {wrong}") from None
        made: Deferred[Any] = maybeDeferred(getattr(self._service, METHODS.get(name, name)), *arguments)
        return made.addCallback(pack).addErrback(self._failed, name)

    def _failed(self, failure: Failure, name: str) -> NoReturn:
        if failure.check(UnavailableError, BatchError):
            raise pb.Error(failure.getErrorMessage())
        log.failure("{call} failed", failure, call=name)
        raise pb.Error("internal error")


class ServerFactory(pb.PBServerFactory):
    """Makes the brokers of a listener."""

    protocol = Broker
    noisy = False

    def __init__(self, reactor: Any, calls: _Calls, secret: str, addresses: Collection[str], legacy: bool) -> None:
        super().__init__(_Root(calls, secret, addresses, legacy), security=security())
        self.reactor = reactor
        self.complaints = Complaints(reactor)

    def stopFactory(self) -> None:
        """Nobody can call any more."""
        super().stopFactory()
        self.complaints.stop()


@implementer(pb.IPBRoot)
class _Root:
    """What a caller meets first: the calls themselves, or a door where a secret is set."""

    def __init__(self, calls: _Calls, secret: str, addresses: Collection[str], legacy: bool) -> None:
        self._calls = calls
        self._secret = secret
        self._addresses = addresses
        self._legacy = legacy

    def rootObject(self, broker: Broker) -> pb.Referenceable:
        """See IPBRoot."""
        if not self._secret:
            broker.calls = self._calls.run
            return self._calls
        broker.trusted = False
        return Door(self._calls, self._secret, self._addresses, legacy=self._legacy)


class RemoteComet(Remote):
    """A comet in another process: a CometService and a NodeService, as services.py describes them."""

    calls = COMET_CALLS

    def __init__(self, reactor: Any, info: NodeInfo, settings: RpcSettings, timeout: float | None = None) -> None:
        super().__init__(reactor, info, settings, settings.attempt_timeout, timeout)


class RemoteMessage(Remote):
    """A message node in another process: a MessageService and a NodeService."""

    calls = MESSAGE_CALLS

    def __init__(self, reactor: Any, info: NodeInfo, settings: RpcSettings, timeout: float | None = None) -> None:
        super().__init__(reactor, info, settings, settings.call_timeout, timeout)
