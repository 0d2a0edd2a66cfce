"""The services of services.py over Perspective Broker: what a node serves.

A call is a callRemote() of a name in codec.py with one argument, a packed batch, and answers another.
"""

# Perspective Broker is not typed, and Zope's interfaces are unknown to the type checker:
# mypy: disable-error-code="no-untyped-call,arg-type,call-arg"

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from OpenSSL import SSL
from twisted.internet.protocol import connectionDone
from twisted.spread import pb
from zope.interface import implementer

from gopush.daemon.listeners import Listeners
from gopush.errors import StartError, naming
from gopush.net.clock import LastLook, cancel
from gopush.net.eager import EagerReactor
from gopush.net.exposure import refuse_open_doors
from gopush.net.tls import ServerTls
from gopush.net.tls_protocol import TlsFactory, TlsProtocol, handshake_failure
from gopush.net.transport import peer
from gopush.rpc.broker import LOGIN_SECONDS, MOST_STRANGERS, Broker, Calls, security
from gopush.rpc.client import caller_tls
from gopush.rpc.codec import CallFormat
from gopush.rpc.login import Door
from gopush.rpc.settings import RpcSettings
from gopush.stats.summary import Complaints


@implementer(pb.IPBRoot)
class ServerFactory(pb.PBServerFactory):
    """Makes the brokers of a listener, and what their callers meet first.

    `addresses`: those that the node advertises: it refuses a caller whom somebody in the middle has sent to another
    one. `legacy`: [rpc] secret.legacy.
    """

    protocol = Broker
    noisy = False

    def __init__(
        self,
        reactor: Any,
        calls: Calls,
        secrets: tuple[str, ...],
        addresses: Collection[str] = (),
        *,
        legacy: bool = False,
    ) -> None:
        super().__init__(self, security=security())
        self._calls = calls
        self._secrets = secrets
        self._addresses = addresses
        self._legacy = legacy
        self.reactor = reactor
        self.complaints = Complaints(reactor)
        self.strangers: dict[Broker, None] = {}  # who is not let in yet, the oldest first

    def rootObject(self, broker: Broker) -> pb.Referenceable:
        """See IPBRoot: the calls themselves, or a door where a secret is set."""
        if not self._secrets:
            broker.calls = self._calls
            return self._calls
        broker.trusted = False
        return Door(self._calls, self._secrets, self._addresses, legacy=self._legacy)

    def came(self, stranger: Broker) -> None:
        """One more. A crowd of them costs its oldest the connection: who knows the secret needs no time."""
        self.strangers[stranger] = None
        if len(self.strangers) > MOST_STRANGERS:
            oldest = next(iter(self.strangers))
            del self.strangers[oldest]
            lacks = "finished the TLS handshake" if oldest.trusted else "logged in"
            oldest.refuse(f"is one of more than {MOST_STRANGERS} who have not {lacks}")

    def stopFactory(self) -> None:
        """Nobody can call any more."""
        super().stopFactory()
        self.complaints.stop()


def call_port(
    reactor: Any,
    service: object,
    calls: Mapping[str, CallFormat],
    settings: RpcSettings,
    bind: Sequence[str],
    addresses: Collection[str],
) -> Listeners:
    """The port where other nodes make these calls to a service, at `addresses`. Raises what secured() raises."""
    factory = ServerFactory(reactor, Calls(service, calls), settings.secrets, addresses, legacy=settings.legacy_secret)
    return Listeners(EagerReactor(reactor), "[base] rpc.bind", bind, secured(factory, bind, settings))


def secured(calls: Any, endpoints: Sequence[str], settings: RpcSettings) -> Any:
    """The factory to listen with for calls: within TLS where the settings have it.

    Raises StartError where strangers could call, SettingsError for files that are no good.
    """
    refuse_open_doors(endpoints, settings.secret or settings.tls_authorities)
    for endpoint in endpoints:
        if endpoint.startswith("ssl:"):
            raise StartError(f"[base] rpc.bind: {endpoint}: write tcp:, and set [rpc] tls.ca, tls.cert and tls.key")
    if caller_tls(settings) is None:
        return calls
    with naming("[rpc] tls.ca, tls.cert, tls.key"):
        tls: Any = ServerTls(settings.tls_certificate, settings.tls_key, settings.tls_authorities)
    return _CallTlsFactory(tls, False, calls)


class _CallTls(TlsProtocol):
    """Says who gets no further than the handshake."""

    factory: Any
    transport: Any
    _deadline: Any = None

    def makeConnection(self, transport: Any) -> None:
        """See IProtocol. Until the handshake is done it is a stranger, also where no secret is to follow."""
        self._deadline = LastLook(self.factory.wrappedFactory.reactor, LOGIN_SECONDS, self._look)
        super().makeConnection(transport)
        self.factory.wrappedFactory.came(self.wrappedProtocol)

    def connectionLost(self, reason: Any = connectionDone) -> None:
        """See IProtocol."""
        cancel(self._deadline)
        self._deadline = None  # it knows this connection
        wrong = self._reason or reason
        if not self._handshakeDone and wrong.check(SSL.Error):
            self._complain(f"is refused in the TLS handshake: {handshake_failure(wrong.value)}")
        super().connectionLost(reason)

    def refuse_handshake(self) -> None:
        """See TlsProtocol."""
        self._complain("is refused in the TLS handshake: it sent more than any has to have")
        super().refuse_handshake()

    def _look(self) -> None:
        self._deadline = None
        if not self._handshakeDone:
            self._complain(f"did not finish the TLS handshake within {LOGIN_SECONDS:g} s; connection closed")
            self.transport.abortConnection()

    def _complain(self, reason: str) -> None:
        host = self.transport.getPeer().host
        complaints = self.factory.wrappedFactory.complaints
        complaints.warn("connection", "{peer} {reason}", host, peer=peer(self.transport), reason=reason)


class _CallTlsFactory(TlsFactory):
    protocol = _CallTls
