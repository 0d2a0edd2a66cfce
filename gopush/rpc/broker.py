"""Perspective Broker's connection, made fit for whatever may come in: bounded, and quiet in the log."""

# Perspective Broker is not typed:
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NoReturn

from twisted.internet.defer import Deferred, fail, maybeDeferred
from twisted.internet.interfaces import IHandshakeListener
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.spread import pb
from twisted.spread.jelly import SecurityOptions
from zope.interface import implementer

from gopush.errors import UnavailableError
from gopush.net.clock import LastLook, cancel
from gopush.net.transport import keep_alive, peer, peer_host
from gopush.rpc.codec import CHUNK_BYTES, MAX_BATCH_BYTES, METHODS, BatchError, CallFormat, pack, unpack

MAX_DEPTH = 16
MAX_ELEMENTS = 64 + MAX_BATCH_BYTES // CHUNK_BYTES
"""What one expression may hold; a call has about ten, and its chunks."""

MAX_BYTES = MAX_BATCH_BYTES + 65536
MAX_BYTES_BEFORE_LOGIN = 4096
LOGIN_SECONDS = 5.0
MOST_STRANGERS = 100
"""Connections to one port that have not logged in, or not finished the TLS handshake: each takes one of the files that
clients cannot have (RESERVED_FILES)."""
HANG_UP_SECONDS = 4.0
"""How long a caller that was refused, or refuses, keeps the connection: then it tries again."""

log = Logger()

_BYTES = frozenset((bytes,))
_SPOKEN = frozenset((b"version", b"message", b"answer", b"error", b"decref", b"call"))


class ViolationError(Exception):
    """What came in is not what a node of the cluster sends: the connection is cut, with one line in the log."""


def security(*types: str) -> SecurityOptions:
    """What may come in beside scalars: lists, tuples, dictionaries (the frame of a call) and `types`."""
    options = SecurityOptions()
    options.allowTypes("list", "tuple", "dictionary", *types)
    return options


@implementer(IHandshakeListener)
class Broker(pb.Broker):
    """One connection between two nodes; `factory` has a `reactor` for its timer, and `complaints` (Complaints).

    `trusted`: the other side may send whole batches; a server with a secret waits for the login.
    `received` counts the segments that came in: a call that times out without one met a frozen peer.
    """

    factory: Any
    transport: Any
    calls: Calls | None = None
    """What proto_call() may call, once the other side is let in."""
    trusted = True
    challenged = False
    """Whether this side has proved that it knows the secret, and the other side has not answered with its own proof."""
    received = 0
    heard = 0.0
    """When the last segment came in, in reactor seconds."""

    _bytes = 0
    _elements = 0
    _login_deadline: Any = None

    def connectionMade(self) -> None:
        """A call must not wait for Nagle, nor a connection outlive a peer that vanished."""
        if hasattr(self.transport, "setTcpKeepAlive"):  # a Unix socket has no such thing
            self.transport.setTcpNoDelay(True)
            keep_alive(self.transport)
        if self.isClient or not self.trusted:
            self._login_deadline = LastLook(self.factory.reactor, LOGIN_SECONDS, self._too_late)
        if not self.trusted:
            self.factory.came(self)
        super().connectionMade()

    def _too_late(self) -> None:
        self._login_deadline = None
        self.refuse(f"did not finish the login within {LOGIN_SECONDS:g} s")

    def settled(self) -> None:
        """The login is over: whole batches may come."""
        if not self.isClient:
            self.factory.strangers.pop(self, None)
        self.trusted = True
        cancel(self._login_deadline)
        self._login_deadline = None

    def handshakeCompleted(self) -> None:
        """See IHandshakeListener. The other side has a certificate of the cluster; a secret is still to come."""
        if self.trusted and not self.isClient:
            self.settled()

    def hang_up_later(self) -> None:
        """This login is refused: close before the other side complains, but not at once: the next one follows."""
        self.settled()
        self._login_deadline = self.factory.reactor.callLater(HANG_UP_SECONDS, self._hang_up)

    def _hang_up(self) -> None:
        self._login_deadline = None
        self.transport.loseConnection()

    def connectionLost(self, reason: Any = connectionDone) -> None:
        """Fail the calls that are out."""
        if self.challenged and self.factory.reactor.seconds() - self.heard > HANG_UP_SECONDS / 2:
            self.turn_away("it went away instead of proving the secret: it has another one")
        self.settled()
        super().connectionLost(reason)

    def pauseProducing(self) -> None:
        """Read nothing more of a caller that does not read its answers."""
        self.transport.pauseProducing()

    def resumeProducing(self) -> None:
        """It reads again."""
        self.transport.resumeProducing()

    def dataReceived(self, chunk: bytes) -> None:
        """Parse, within bounds; whatever cannot be parsed or obeyed ends the connection."""
        self.received += 1
        self.heard = self.factory.reactor.seconds()
        if self.received == 1 and not self.isClient:  # not earlier: TLS would pause us while its handshake waits
            self.transport.registerProducer(self, True)
        self._bytes += len(chunk)
        try:
            if self._bytes > (MAX_BYTES if self.trusted else MAX_BYTES_BEFORE_LOGIN):
                raise ViolationError("too many bytes")
            super().dataReceived(chunk)
            if len(self.listStack) > MAX_DEPTH:
                raise ViolationError("lists within lists")
        except Exception as wrong:
            self.refuse(f"sent something that is no call: {type(wrong).__name__} {wrong!s:.100}")

    def gotItem(self, item: Any) -> None:
        """Count the elements of an expression: its bytes alone do not bound the memory that it takes."""
        self._elements += 1
        if self._elements > MAX_ELEMENTS:
            raise ViolationError("too many elements")
        super().gotItem(item)

    def expressionReceived(self, expression: Any) -> None:
        """A whole expression is in; the counts begin anew, except that of a stranger's bytes."""
        self._elements = 0
        if self.trusted:
            self._bytes = 0
        if expression[0] not in _SPOKEN:
            raise ViolationError("an unknown command")
        if expression[0] == b"message" and self.localObjectForID(expression[2]) is None:
            raise ViolationError("a call of nothing")
        if expression[0] == b"message" and not expression[4]:
            raise ViolationError("a call that wants no answer")
        super().expressionReceived(expression)

    def serialize(
        self, object: Any, perspective: Any = None, method: Any = None, args: Any = None, kw: Any = None
    ) -> Any:
        """See pb.Broker. Chunks (codec.py), which each call and answer carries, and no keywords become the same without
        a jellier of their own.
        """
        if type(object) is dict and not object:
            return [b"dictionary"]
        alone = type(object) is tuple and len(object) == 1
        chunks = object[0] if alone else object
        if type(chunks) is list and _BYTES.issuperset(map(type, chunks)):
            return [b"tuple", [b"list", *chunks]] if alone else [b"list", *chunks]
        return super().serialize(object, perspective, method, args, kw)

    def unserialize(self, sexp: Any, perspective: Any = None) -> Any:
        """See pb.Broker, and serialize()."""
        alone = type(sexp) is list and len(sexp) == 2 and sexp[0] == b"tuple"
        inner = sexp[1] if alone else sexp
        if type(inner) is list and inner[:1] == [b"list"] and _BYTES.issuperset(map(type, inner)):
            return (inner[1:],) if alone else inner[1:]
        return super().unserialize(sexp, perspective)

    @property
    def amid(self) -> bool:
        """Whether a part of an expression is in, and the rest is not."""
        return bool(self.listStack)

    def refuse(self, reason: str) -> None:
        """Cut the connection, with one line for the operator."""
        self.challenged = False
        self._complain("connection", "{peer} {reason}; connection closed", reason)
        self.transport.abortConnection()

    @property
    def peer(self) -> str:
        """The other side's address, for the log."""
        return peer(self.transport) or "a UNIX socket"

    def explain(self, failure: Failure, name: str) -> pb.CopyableFailure:
        """Make an answer of why a call failed. The operator hears of calls that no node of the cluster makes."""
        if failure.check(pb.Error):
            return pb.CopyableFailure(failure.value)  # not as PB copies a failure: callers allow no references in it
        if not self.trusted:
            reason = "it gives no secret, but this node has one"
        elif name in ("login", "challenge"):
            reason = "it gives a secret, but this node has none"
        else:
            reason = f"its call {name!r:.40} cannot be read"
        return pb.CopyableFailure(self.turn_away(reason))

    def turn_away(self, reason: str) -> pb.Error:
        """Tell the operator why this peer may not call; what to tell the peer."""
        self.challenged = False
        self._complain("login", "{peer} is refused: {reason}", reason)
        return pb.Error(f"refused: {reason}")

    def _complain(self, source: str, format: str, reason: str) -> None:
        """Tell the operator. The port of a caller is another one each time, its address is not."""
        about = self.peer if self.isClient else peer_host(self.transport) or self.peer
        self.factory.complaints.warn(source, format, about, peer=self.peer, reason=reason)

    def proto_call(self, request: int, name: bytes, *chunks: Any) -> None:
        """The call of older releases, before callRemote(): understood for one release, for a rolling upgrade."""
        called = name.decode()
        made: Deferred[list[bytes]] = maybeDeferred(self._call, called, list(chunks))
        made.addErrback(self.explain, called)
        made.addCallbacks(self._reply, self._fail, callbackArgs=(request,), errbackArgs=(request,))

    def _call(self, name: str, chunks: list[Any]) -> Deferred[list[bytes]]:
        if self.calls is None or name == "hello":
            raise ViolationError("nobody may call this")
        answer: Deferred[list[bytes]] = self.calls.called(self, name, (chunks,))
        return answer

    def _reply(self, chunks: list[bytes], request: int) -> None:
        if not self.disconnected:
            self.sendCall(b"reply", request, *chunks)

    def _fail(self, failure: Failure, request: int) -> None:
        if not self.disconnected:
            self.sendCall(b"error", request, self.serialize(failure))


class Reachable(pb.Referenceable):
    """What the other side may call. A call that cannot be made is answered so, with one line and no traceback."""

    def remoteMessageReceived(self, broker: Broker, message: str, args: Any, kw: Any) -> Any:
        """See Referenceable."""
        try:
            answer = self.called(broker, message, broker.unserialize(args))
        except Exception:
            return fail().addErrback(broker.explain, message)
        if not isinstance(answer, Deferred):
            return broker.serialize(answer)
        answer.addCallback(broker.serialize)
        return answer.addErrback(broker.explain, message)

    def called(self, broker: Broker, name: str, arguments: Any) -> Any:
        """Answer a call, at once or later; whatever this raises is one line in the log."""
        raise NotImplementedError


class Calls(Reachable):
    """A service, as callers reach it: each call takes and answers a packed batch (codec.py)."""

    def __init__(self, service: object, calls: Mapping[str, CallFormat]) -> None:
        self._service = service
        self._calls = calls

    def called(self, broker: Broker, name: str, arguments: Any) -> Any:
        """See Reachable. The call named hello only shows that calls are welcome."""
        if name == "hello":
            return None
        (chunks,) = arguments
        call = self._calls[name]
        try:
            values = unpack(chunks, call.read_arguments)
        except BatchError as wrong:
            broker.factory.complaints.warn(
                "call", "{call} from {peer} {reason}", call=name, peer=broker.peer, reason=wrong
            )
            raise pb.Error(f"the batch {wrong}") from None
        if call.of_caller:
            values.insert(0, broker)
        made: Deferred[Any] = maybeDeferred(getattr(self._service, METHODS.get(name, name)), *values)
        return made.addCallback(pack).addErrback(self._failed, name)

    def _failed(self, failure: Failure, name: str) -> NoReturn:
        if failure.check(UnavailableError, BatchError):
            raise pb.Error(failure.getErrorMessage())
        log.failure("{call} failed", failure, call=name)
        raise pb.Error("internal error")
