"""TLS on a connection, as our protocols speak it, and why a handshake failed."""

from __future__ import annotations

from math import inf
from typing import Any

from OpenSSL import SSL
from twisted.internet.protocol import connectionDone
from twisted.protocols.tls import TLSMemoryBIOFactory, TLSMemoryBIOProtocol
from twisted.python.failure import Failure

from gopush.net import transport as wire
from gopush.net.eager import waiting

MAX_UNREAD_ANSWER_BYTES = 64 << 10
"""What OpenSSL may have answered by itself while the other side does not read: key updates ask for that."""

MAX_HANDSHAKE_BYTES = 16 << 10
MAX_CHAIN_HANDSHAKE_BYTES = 64 << 10
"""What a client may send to a server until the handshake is done, which OpenSSL keeps, twice over: that of browsers is
2 KB. The second holds where it has to show certificates."""


class TlsProtocol(TLSMemoryBIOProtocol):
    """Writes go out at once: Twisted's own gathers them for a turn of the reactor, as our protocols do themselves.

    `handshake_room`: bytes that the other side may still send before the handshake is done.
    """

    handshake_room: float = inf
    _wrote = False
    _unread_answer_bytes = 0

    def makeConnection(self, transport: Any) -> None:
        """See IProtocol. What is small must not wait for Nagle, the handshake included."""
        if hasattr(transport, "setTcpNoDelay"):
            transport.setTcpNoDelay(True)
        super().makeConnection(transport)  # type: ignore[no-untyped-call]

    def dataReceived(self, data: bytes) -> None:
        """See IProtocol. Who sends too much of a handshake is cut off, and who asks for answers of OpenSSL's own, and
        reads none."""
        before, self._wrote = waiting(self.transport), False
        super().dataReceived(data)  # type: ignore[no-untyped-call]
        after = waiting(self.transport)
        if not after:
            self._unread_answer_bytes = 0
        elif not self._wrote:  # else what waits may be the protocol's own, which bounds that
            self._unread_answer_bytes += max(0, after - before)
            if self._unread_answer_bytes > MAX_UNREAD_ANSWER_BYTES:
                self._unread_answer_bytes = 0
                if (limiter := wire.limiter(self)) is not None:
                    limiter.counters.cut_off_leftovers += 1
                self.abortConnection()  # type: ignore[no-untyped-call]
        if not (self._handshakeDone or self._reason):
            self.handshake_room -= len(data)
            if self.handshake_room < 0:
                self.handshake_room = inf
                self.refuse_handshake()

    def refuse_handshake(self) -> None:
        """Cut off who sends too much of one."""
        if (limiter := wire.limiter(self)) is not None:
            limiter.counters.refused_tls += 1
        self.abortConnection()  # type: ignore[no-untyped-call]

    def write(self, data: bytes) -> None:
        """See ITransport."""
        self._wrote = True
        super().write(data)  # type: ignore[no-untyped-call]

    def _tlsShutdownFinished(self, reason: Any) -> None:
        """Twisted has an error of OpenSSL in a frame of the error's own traceback: that cycle would hold all of the
        connection until a collection, and for ever where that freezes (gopush/daemon/gc.py)."""
        if reason is not None:
            reason.value.__traceback__ = reason.tb = None
        super()._tlsShutdownFinished(reason)  # type: ignore[no-untyped-call]

    def connectionLost(self, reason: Any = connectionDone) -> None:
        """See IProtocol. A protocol that produces for itself would hold this, and this the protocol."""
        super().connectionLost(reason)  # type: ignore[no-untyped-call]
        self._producer = None


class TlsFactory(TLSMemoryBIOFactory):
    """TLS around the connections of another factory."""

    protocol = TlsProtocol
    noisy = False


_REASONS = {
    "peer did not return a certificate": "it gives no certificate",
    "certificate verify failed": "its certificate is not of the CA that it has to be of, or is not valid now",
    "wrong version number": "it speaks no TLS",
    "http request": "it speaks no TLS",
    "alert unknown ca": "it does not know the CA of this side's certificate",
    "alert bad certificate": "it does not accept this side's certificate",
    "alert certificate": "it does not accept this side's certificate",
    "alert handshake failure": "it does not accept this side's certificate",
}
"""What OpenSSL says of a handshake, and what that means."""


_WRONG_NAME = "service_identity.exceptions.VerificationError", "service_identity.exceptions.CertificateError"


def is_wrong_name(failure: Failure) -> bool:
    """Whether a client left because the certificate is another one's."""
    return failure.check(*_WRONG_NAME) is not None


def handshake_trouble(failure: Failure | None) -> str | None:
    """What a client says where its handshake failed; None: that is not why a connection was lost."""
    if failure is None:
        return None
    if isinstance(failure.value, SSL.Error):
        return f"the TLS handshake failed: {handshake_failure(failure.value)}"
    if is_wrong_name(failure):
        return "the TLS handshake failed: its certificate is not for the name or address by which it is reached"
    return None


def silence(transport: Any, said: str) -> str:
    """What a client says of a server that was silent: one without TLS may wait for the rest of a hello, for ever."""
    if isinstance(transport, TlsProtocol) and not transport._handshakeDone:
        return f"the TLS handshake failed: {said} (does it speak TLS?)"
    return said


def handshake_failure(wrong: SSL.Error) -> str:
    """Why a handshake failed, for people."""
    said = next((str(error[-1]) for error in reversed(wrong.args[0] if wrong.args else ()) if error[-1]), "")
    return next((reason for words, reason in _REASONS.items() if words in said), said or "the TLS handshake failed")
