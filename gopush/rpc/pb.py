"""The services of services.py over Perspective Broker: what a node serves, and what its callers hold.

Batches travel packed (batch.py). With a secret, callers log in by PB's own challenge and response; a node with one and
a node without refuse each other.
"""

# Perspective Broker is not typed, and Zope's interfaces are unknown to the type checker:
# mypy: disable-error-code="no-untyped-call,arg-type,list-item,call-arg"

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from twisted.cred.checkers import InMemoryUsernamePasswordDatabaseDontUse
from twisted.cred.portal import IRealm, Portal
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.spread import pb
from zope.interface import implementer

from gopush.errors import UnavailableError
from gopush.rpc.batch import BatchError, pack, unpack
from gopush.rpc.broker import USER, Broker, security
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
    Slow,
    Status,
    Token,
    TokenState,
)
from gopush.rpc.remote import Remote
from gopush.rpc.services import CometService, MessageService
from gopush.rpc.settings import RpcSettings

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
        """Perspective Broker's own way to call. The call named hello only shows that calls are welcome."""
        if message == "hello":
            return broker.serialize(None)
        (chunks,) = broker.unserialize(args)
        return self.run(broker, message, chunks).addCallback(broker.serialize)

    def run(self, broker: Broker, name: str, chunks: Any) -> Deferred[list[bytes]]:
        """See broker.Calls."""
        call = self._calls[name]
        try:
            arguments = unpack(chunks, call.read_arguments)
        except BatchError as wrong:
            log.warn("{call} from {peer} {reason}", call=name, peer=broker.peer, reason=wrong)
            raise pb.Error(f"the batch {wrong}") from None
        made: Deferred[Any] = maybeDeferred(getattr(self._service, name), *arguments)
        return made.addCallback(pack).addErrback(self._failed, name)

    def _failed(self, failure: Failure, name: str) -> NoReturn:
        if failure.check(UnavailableError, BatchError):
            raise pb.Error(failure.getErrorMessage())
        log.failure("{call} failed", failure, call=name)
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
            broker.calls = self._calls.run
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
        self._broker.calls = self._calls.run
        return pb.IPerspective, self._calls, lambda: None


class _RemoteNode(Remote):
    def status(self) -> Deferred[Status]:
        """See NodeService."""
        return self.call("status")

    def set_weight(self, weight: int) -> Deferred[None]:
        """See NodeService."""
        return self.call("set_weight", weight)

    def drain(self, draining: bool) -> Deferred[None]:
        """See NodeService."""
        return self.call("drain", draining)


class RemoteComet(_RemoteNode):
    """A comet in another process, as services.py describes it."""

    def __init__(self, reactor: Any, info: NodeInfo, settings: RpcSettings, timeout: float | None = None) -> None:
        """`timeout`: seconds for a call; None: those that a push may take."""
        super().__init__(reactor, info, settings, COMET_CALLS, timeout or settings.attempt_timeout)

    def push(self, pushes: Sequence[Push]) -> Deferred[list[Pushed]]:
        """See CometService."""
        return self.batch("push", pushes)

    def notice(self, notices: Sequence[Notice]) -> Deferred[None]:
        """See CometService."""
        return self.call("notice", notices)

    def close(self, keys: Sequence[str]) -> Deferred[list[int]]:
        """See CometService."""
        return self.batch("close", keys)

    def subscribers(self, keys: Sequence[str]) -> Deferred[list[int]]:
        """See CometService."""
        return self.batch("subscribers", keys)

    def slowest(self, most: int) -> Deferred[list[Slow]]:
        """See CometService."""
        return self.call("slowest", most)


class RemoteMessage(_RemoteNode):
    """A message node in another process, as services.py describes it."""

    def __init__(self, reactor: Any, info: NodeInfo, settings: RpcSettings, timeout: float | None = None) -> None:
        """`timeout`: seconds for a call; None: those of the settings."""
        super().__init__(reactor, info, settings, MESSAGE_CALLS, timeout or settings.call_timeout)

    def append(self, appends: Sequence[Append]) -> Deferred[list[Appended]]:
        """See MessageService."""
        return self.batch("append", appends)

    def read(self, reads: Sequence[Read]) -> Deferred[list[Page]]:
        """See MessageService."""
        return self.batch("read", reads)

    def heads(self, keys: Sequence[str]) -> Deferred[list[Head]]:
        """See MessageService."""
        return self.batch("heads", keys)

    def delete(self, key: str) -> Deferred[None]:
        """See MessageService."""
        return self.call("delete", key)

    def create_token(self, key: str, token: Token) -> Deferred[None]:
        """See MessageService."""
        return self.call("create_token", key, token)

    def revoke_token(self, key: str, digest: bytes) -> Deferred[bool]:
        """See MessageService."""
        return self.call("revoke_token", key, digest)

    def tokens(self, key: str) -> Deferred[list[Token]]:
        """See MessageService."""
        return self.call("tokens", key)

    def check_token(self, key: str, digest: bytes) -> Deferred[TokenState]:
        """See MessageService."""
        return self.call("check_token", key, digest)
