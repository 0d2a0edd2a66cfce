"""One HTTP connection: twisted.web's HTTPChannel, held within bounds, with a short cut in front.

What comes is kept here and handed on one request at a time: while an answer is owed, or one waits to be read, nothing
new starts and nothing more is read. docs/architecture.md lists what is touched of twisted.web's inside.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.python.failure import Failure
from twisted.web.http import HTTPChannel
from zope.interface import implementer

from gopush.net import transport as wire
from gopush.net.http.exchange import Owed
from gopush.net.http.head import HEAD_LIMIT, HeadScanner, WrongHeadError
from gopush.net.http.request import Request
from gopush.net.http.response import Response, plain
from gopush.net.timers import NO_SLOT

if TYPE_CHECKING:
    from gopush.net.http.site import Site

MAX_TOGETHER = 64
"""Requests of one segment that are worked on at once."""

LEAST_BYTES = 1024
"""How much of a body has to come in `idle` seconds: less is no progress."""

_MAX_HELD_BYTES = 64 << 10
_SLOW_IN_A_TURN = 16
_PIECE = 4 << 10
_LINGER_SECONDS = 2.0
_LOOK_SECONDS = 1.0


@implementer(IHalfCloseableProtocol)
class HttpChannel(HTTPChannel):
    """A connection.

    `stalled`: the client is slow to read. `deaf`: nothing that still comes is a request, and nothing more is answered.
    `head`: that of the request under way; `connection`: what its answer's Connection header has to say. `missing` of
    the answers that are owed are not there; the others have `held` bytes. `asking`: the short cut asks for more.
    """

    site: Site
    transport: Any
    requests: list[Any]
    MAX_LENGTH = HEAD_LIMIT

    deadline = 0.0
    slot = NO_SLOT
    stalled = deaf = asking = False
    connection = b""
    missing = held = 0
    _inbox = b""
    _fed = False  # twisted.web has a part of a request
    _pumping = _scheduled = _paused = _half_closed = _ending = _closing = _lost = False
    _reading = True
    _body_bytes = 0
    _unread = 0  # bytes that waited for the client at the last look
    _read_at = _leave_at = 0.0
    _drain: Deferred[None] | None = None

    # What the transport calls.

    def connectionMade(self) -> None:
        """See Protocol."""
        super().connectionMade()  # type: ignore[no-untyped-call]
        self.send = wire.sender(self.transport)
        self.peer = getattr(self.transport.getPeer(), "host", "")
        self.head = HeadScanner()
        self._owed: list[Owed] = []
        self.put_off()
        self.site.opened(self)

    def dataReceived(self, data: bytes) -> None:
        """See Protocol."""
        if self.deaf:
            if not self._closing:
                self.deadline = min(self.site.clock.seconds() + _LINGER_SECONDS, self._leave_at)
            return
        if not (self._owed or self._inbox or self._fed or self.stalled or self.site.stopping):
            data = self._short_cut(data)
            if not data:
                return
        self._inbox = self._inbox + data if self._inbox else data
        self._pump()

    def readConnectionLost(self) -> None:
        """See IHalfCloseableProtocol: the client sends no more, and perhaps still reads its answers."""
        self._half_closed = True
        if self.deaf:
            self.loseConnection()
        else:
            self._pump()

    def writeConnectionLost(self) -> None:
        """See IHalfCloseableProtocol."""

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        """See Protocol. What is left refers to itself nowhere, so all of it is freed at once."""
        self._lost = self.deaf = True
        self._forget()
        super().connectionLost(reason)  # type: ignore[no-untyped-call]
        self._transferDecoder = None
        self.requests = []
        self._go_on_writing()
        self.site.closed(self)

    def pauseProducing(self) -> None:
        """See IPushProducer: too much waits for the client."""
        self.stalled = True
        self._unread = 0
        self._read_at = self.site.clock.seconds()
        self._expire_in(_LOOK_SECONDS)

    def resumeProducing(self) -> None:
        """See IPushProducer: the client has read all."""
        self.stalled = False
        self.put_off()
        self._go_on_writing()
        for exchange in self.requests:
            exchange.drained()
        self._pump()

    def stopProducing(self) -> None:
        """See IPushProducer."""

    # The way of what comes.

    def _pump(self) -> None:
        """Go on with what has come, as far as nothing is owed and the client reads."""
        if self._pumping:
            return
        self._pumping = True
        slow = 0
        while self._inbox and not self._blocked():
            if not self._fed:
                size = len(self._inbox)
                self._inbox = self._short_cut(self._inbox)
                if len(self._inbox) < size:
                    continue
                slow += 1
                if slow > _SLOW_IN_A_TURN:
                    self._schedule()
                    break
            self._feed()
        self._pumping = False
        self._settle()

    def _go_on(self) -> None:
        self._scheduled = False
        ready = 0
        while ready < len(self._owed) and self._owed[ready].data is not None:
            ready += 1
        self._write(self._owed[:ready])
        del self._owed[:ready]
        self._pump()

    def _blocked(self) -> bool:
        return bool(self._owed or self.stalled or self.deaf or self._paused or self._scheduled or self.site.stopping)

    def _settle(self) -> None:
        """Read on or not, and leave where nothing more can come of the connection."""
        if self._lost:
            return
        if self._half_closed or self.site.stopping:
            self._leave_if_done()
        reading = self.deaf or not (self._inbox or self._paused)
        if reading != self._reading and not (self._half_closed or self._closing):
            self._reading = reading
            if reading:
                self.transport.resumeProducing()
            else:
                self.transport.pauseProducing()

    def _leave_if_done(self) -> None:
        if self.deaf or self._owed or self._paused or self._scheduled:
            return
        if self.site.stopping:
            done = not any(exchange.receiver for exchange in self.requests)  # may still be answered until its deadline
        else:
            done = not (self._inbox and self.stalled)
        if done:
            self.leave(linger=False)

    def _feed(self) -> None:
        """Hand on to twisted.web; a head in pieces, for it cuts off a line by copying what follows."""
        data, self._inbox = self._inbox, b""
        if self.line_mode and len(data) > _PIECE:
            data, self._inbox = data[:_PIECE], data[_PIECE:]
        if not self._fed:
            self._fed = True
            self.put_off()
        super().dataReceived(data)  # type: ignore[no-untyped-call]
        decoder: Any = self._transferDecoder
        if self._fed and not self.deaf and getattr(decoder, "state", "") == "BODY":
            self.requests[-1].expect(decoder.length)

    # Answering.

    def _short_cut(self, data: bytes) -> bytes:
        """Ask for the answers to simple requests that have come whole; gives what follows them.

        What may be a large answer is asked for alone, and no more when there is much to read. A refusal ends the
        connection where twisted.web would not have read the body.
        """
        site, peer, owed, at = self.site, self.peer, self._owed, 0
        self.asking = True
        while at < len(data) and len(owed) < MAX_TOGETHER and self.held <= _MAX_HELD_BYTES and not self._ending:
            found = site.reader.read(data, at, peer)
            if found is None or (at and found[1].alone):
                break
            request, route, at = found
            answer = Owed(self, request)
            owed.append(answer)
            self.missing += 1
            refusal = route.refuse(request)
            if refusal is None:
                answer.ask(route)
                if route.alone:
                    break
            else:
                if request.body:
                    site.counters.refuse(refusal.status)
                    request.connection = b"close"
                    self._ending = True
                answer.give(refusal)
        self.asking = False
        if at:
            self.answer()
        return b"" if self.deaf else data[at:]

    def answer(self) -> None:
        """Write the answers that are owed: all in one write, or where some come later, at the end of the turn."""
        owed = self._owed
        if self.missing:
            if owed[0].data is not None and not self._scheduled:
                self._schedule()
            return
        self._owed = []
        self.held = 0
        self.put_off()
        self._write(owed)
        if self._ending:
            self.leave(linger=True)
        elif self.requests:
            self._reading = True  # twisted.web sees to it
            self.requestDone(self.requests[0])  # type: ignore[no-untyped-call]
            self._pump()
        elif self._inbox or not self._reading or self._half_closed or self.site.stopping:
            self._pump()

    def _write(self, owed: list[Owed]) -> None:
        data = b"".join([answer.data or b"" for answer in owed])
        if data:
            self.send(data)

    def drained(self) -> Deferred[None]:
        """Fires when the client has read what was written, or the connection is lost."""
        self._drain = drain = Deferred[None]()
        return drain

    def _go_on_writing(self) -> None:
        drain, self._drain = self._drain, None
        if drain is not None:
            drain.callback(None)

    def _schedule(self) -> None:
        self._scheduled = True
        self.site.clock.callLater(0, self._go_on)

    # What exchanges and the site call.

    def pause(self, paused: bool) -> None:
        """Hand on no more of a body for now, or go on."""
        self._paused = paused
        self._pump()

    def put_off(self) -> None:
        """Something has moved on."""
        if not self.stalled:
            self.deadline = self.site.clock.seconds() + self.site.idle

    def body_came(self, size: int) -> None:
        """So many bytes of a body have come."""
        self._body_bytes += size
        if self._body_bytes >= LEAST_BYTES:
            self._body_bytes = 0
            self.put_off()

    def abort(self) -> None:
        """Close at once: an answer cannot be completed, or nobody reads it."""
        self.deaf = True
        self.transport.abortConnection()

    def refuse(self, response: Response, request: Request | None = None, linger: bool = True) -> None:
        """Answer so and close, whatever is still to come; who is still sending would not see it without `linger`."""
        self.site.counters.refuse(response.status)
        if self.requests and self.requests[-1].startedWriting:
            linger = False  # in the middle of an answer there is no other way to say it
        else:
            request = request or Request(b"GET", b"")
            request.connection = b"close"
            self.send(self.site.renderer.render(response, request))
        self.leave(linger)

    def leave(self, linger: bool) -> None:
        """Take no more requests, and close."""
        self.deaf = True
        self._paused = False
        self._forget()
        for exchange in self.requests:
            exchange.connectionLost(None)
        if linger and not (self._half_closed or self.site.stopping):
            self._leave_at = self.site.clock.seconds() + self.site.idle
            self._expire_in(_LINGER_SECONDS)
            self._settle()
        else:
            self.loseConnection()

    def _forget(self) -> None:
        self._inbox = b""
        self._owed = []
        self.clearLineBuffer()  # type: ignore[no-untyped-call]

    def loseConnection(self) -> None:
        """Close once everything is sent."""
        self.deaf = self._closing = True
        self._inbox = b""
        super().loseConnection()  # type: ignore[no-untyped-call]

    def stop(self) -> None:
        """The site takes no more requests."""
        if self.deaf and not self._closing:
            self.loseConnection()
        self._pump()

    def expired(self) -> None:
        """The deadline has passed: close, unless it is our turn, or the client has read of what waits for it."""
        behind = wire.lag(self.transport)
        if behind is not None:
            self._look(behind[0])
            return
        self._unread = 0
        if not (self._owed or self._paused or self._closing):
            self.site.counters.idle_closed += not self.deaf
            self.leave(linger=False)
        self._expire_in(self.site.idle)

    def _look(self, unsent: int) -> None:
        now = self.site.clock.seconds()
        if not self._unread:
            self._read_at = self._read_at if self.stalled else now
            self._unread = unsent
        elif unsent < self._unread:
            self._read_at, self._unread = now, unsent
        elif now - self._read_at >= self.site.idle:
            self.site.counters.slow_closed += 1
            self.abort()
            return
        self._expire_in(_LOOK_SECONDS)

    def _expire_in(self, seconds: float) -> None:
        self.deadline = self.site.clock.seconds() + seconds
        self.site.wheel.add(self)

    # What twisted.web does differently here.

    def lineReceived(self, line: bytes) -> None:
        """See LineReceiver: the request line, or a field."""
        try:
            line = self.head.take(line)
        except WrongHeadError as wrong:
            self.refuse(plain(wrong.status), linger=wrong.status in (414, 431))
        else:
            super().lineReceived(line)  # type: ignore[no-untyped-call]

    def lineLengthExceeded(self, _line: bytes) -> None:
        """See LineReceiver."""
        self.refuse(plain(431 if self.head.begun else 414))

    def setLineMode(self, extra: bytes = b"") -> None:
        """See LineReceiver: what came behind a request waits here."""
        self._inbox = extra + self._inbox
        super().setLineMode()  # type: ignore[no-untyped-call]

    def allContentReceived(self) -> None:
        """A request is complete."""
        if self.deaf:
            return
        self._inbox = self.clearLineBuffer() + self._inbox  # type: ignore[no-untyped-call]
        self._owed.append(self.requests[-1])
        self.missing += 1
        self._fed = False
        self._body_bytes = 0
        self.head.reset()
        super().allContentReceived()  # type: ignore[no-untyped-call]

    def checkPersistence(self, request: Any, version: bytes) -> bool:
        """Whether the connection goes on after this request."""
        fields = request.requestHeaders.getRawHeaders(b"connection") or ()
        words = {word.strip().lower() for field in fields for word in field.split(b",")}
        stays = b"close" not in words and (version == b"HTTP/1.1" or b"keep-alive" in words)
        self.connection = b"close" if not stays else b"" if version == b"HTTP/1.1" else b"keep-alive"
        return stays

    def _respondToBadRequestAndDisconnect(self) -> None:
        self.refuse(plain(400), linger=False)
