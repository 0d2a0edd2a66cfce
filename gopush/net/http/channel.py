"""One HTTP connection: twisted.web's HTTPChannel, held within bounds, with a short cut in front.

What comes is kept here and handed on one request at a time: while an answer is owed, or one waits to be read, nothing
new starts and nothing more is read. docs/architecture.md lists what is touched of twisted.web's inside.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.python.failure import Failure
from twisted.web.http import HTTPChannel
from zope.interface import implementer

from gopush.net import transport as wire
from gopush.net.http.exchange import Paging
from gopush.net.http.head import HEAD_LIMIT, HeadScanner, WrongHeadError
from gopush.net.http.request import Request
from gopush.net.http.response import AnyResponse, Paged, Response, chunk, plain
from gopush.net.http.routes import Receiver, Route
from gopush.net.http.shortcut import Found
from gopush.net.http.together import ClosingRefusal, Together, ask, take
from gopush.net.timers import NO_SLOT

if TYPE_CHECKING:
    from gopush.net.http.site import Site

MAX_TOGETHER = 64
"""Requests of one segment that are worked on at once."""

LEAST_BYTES = 1024
"""How much of a body has to come in `idle` seconds: less is no progress."""

_SLOW_IN_A_TURN = 16
_PIECE = 4 << 10
_LINGER_SECONDS = 2.0
_LOOK_SECONDS = 1.0


class DrainListener(Protocol):
    """Who waits until the client has read what was written."""

    def drained(self) -> None:
        """The client has."""


@implementer(IHalfCloseableProtocol)
class HttpChannel(HTTPChannel):
    """A connection.

    `stalled`: the client is slow to read. `reader`: whoever writes more once it has read. `lost`: the connection is
    gone. `deaf`: nothing that still comes is a request. `head`: that of the request under way; `connection`: what its
    answer's Connection header has to say.
    """

    site: Site
    transport: Any
    requests: list[Any]
    MAX_LENGTH = HEAD_LIMIT

    deadline = 0.0
    slot = NO_SLOT
    stalled = lost = deaf = False
    reader: DrainListener | Receiver | None = None
    connection = b""
    _inbox = b""
    _owed = False  # an answer
    _fed = False  # twisted.web has a part of a request
    _pumping = _scheduled = _paused = _half_closed = _closing = False
    _reading = True
    _body_bytes = 0
    _unread = 0  # bytes that waited for the client at the last look
    _read_at = _leave_at = 0.0

    # What the transport calls.

    def connectionMade(self) -> None:
        """See Protocol."""
        super().connectionMade()  # type: ignore[no-untyped-call]
        self.send = wire.sender(self.transport)
        self.peer = getattr(self.transport.getPeer(), "host", "")
        self.head = HeadScanner()
        self.put_off()
        self.site.opened(self)

    def dataReceived(self, data: bytes) -> None:
        """See Protocol."""
        if self.deaf:
            if not self._closing:
                self.deadline = min(self.site.clock.seconds() + _LINGER_SECONDS, self._leave_at)
            return
        if not (self._owed or self._inbox or self._fed or self.stalled or self.site.stopping):
            one = self.site.reader.read(data, 0, self.peer)
            if one is not None and one[2] == len(data):
                self._ask(one[0], one[1])
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
        self.lost = self.deaf = True
        self._inbox = b""
        self.clearLineBuffer()  # type: ignore[no-untyped-call]
        super().connectionLost(reason)  # type: ignore[no-untyped-call]
        self._transferDecoder = self.reader = None
        self.requests = []
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
        if self.reader is not None:
            self.reader.drained()
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
                if self._take_short_cut():
                    continue
                slow += 1
                if slow > _SLOW_IN_A_TURN:
                    self._scheduled = True
                    self.site.clock.callLater(0, self._go_on)
                    break
            self._feed()
        self._pumping = False
        self._settle()

    def _go_on(self) -> None:
        self._scheduled = False
        self._pump()

    def _blocked(self) -> bool:
        return self._owed or self.stalled or self.deaf or self._paused or self._scheduled or self.site.stopping

    def _settle(self) -> None:
        """Read on or not, and leave where nothing more can come of the connection."""
        if self.lost:
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
            streams = bool(self.requests) and self.requests[-1].stream is not None
            done = not streams  # which may still be answered until its deadline
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

    # The short cut.

    def _take_short_cut(self) -> bool:
        """Answer the simple requests that have come whole; whether there were any."""
        read, data, at = self.site.reader.read, self._inbox, 0
        found: list[Found] = []
        while len(found) < MAX_TOGETHER and at < len(data):
            one = read(data, at, self.peer)
            if one is None or (found and one[1].alone):
                break
            found.append(one)
            at = one[2]
            if one[1].alone:
                break
        if not found:
            return False
        self._inbox = data[at:]
        if len(found) == 1:
            self._ask(found[0][0], found[0][1])
            return True
        self._owed = True
        end = Together(self).start(found)
        if not self.deaf:
            self._inbox = data[end:]
        return True

    def _ask(self, request: Request, route: Route) -> None:
        self._owed = True
        answered = ask(request, route)
        if isinstance(answered, Response):
            self._answer(request, answered)
        elif isinstance(answered, ClosingRefusal):
            self.refuse(answered.response, request)
        else:
            take(answered, partial(self._answer, request), request)

    def _answer(self, request: Request, response: AnyResponse) -> None:
        if self.lost:
            return
        response = self.site.complete(response, request)
        if isinstance(response, Response):
            self.answered(self.site.renderer.render(response, request))
            return
        self.send(self.site.renderer.paged_head(response, request) + chunk(response.first))
        self.page(response, lambda data: self.send(chunk(data)), lambda: self.answered(chunk(b"")))

    def answered(self, data: bytes, ending: bool = False) -> None:
        """The last bytes that are owed; where they are `ending`, the connection ends with them."""
        if self.lost:
            return
        self._owed = False
        self.put_off()
        self.send(data)
        if ending:
            self.leave(linger=True)
        elif self._inbox or not self._reading or self._half_closed or self.site.stopping:
            self._pump()

    def page(self, paged: Paged, write: Callable[[bytes], object], finish: Callable[[], object]) -> None:
        """Write the rest of an answer page by page."""
        self.reader = paging = Paging(self, paged, write, finish)
        paging.go_on()

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
            data = self.site.renderer.render(self.site.complete(response, request), request)
            self.send(data[: len(data) - len(response.body)] if request.method == b"HEAD" else data)
        self.leave(linger)

    def leave(self, linger: bool) -> None:
        """Take no more requests, and close."""
        self.deaf = True
        self._owed = self._paused = False
        self._inbox = b""
        self.clearLineBuffer()  # type: ignore[no-untyped-call]
        for exchange in self.requests:
            exchange.give_up()
        if linger and not (self._half_closed or self.site.stopping):
            self._leave_at = self.site.clock.seconds() + self.site.idle
            self._expire_in(_LINGER_SECONDS)
            self._settle()
        else:
            self.loseConnection()

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
        self._owed = True
        self._fed = False
        self._body_bytes = 0
        self.head.reset()
        super().allContentReceived()  # type: ignore[no-untyped-call]

    def requestDone(self, request: Any) -> None:
        """A request is answered."""
        self._owed = False
        self._reading = True  # twisted.web sees to it
        super().requestDone(request)  # type: ignore[no-untyped-call]
        self.put_off()
        self._pump()

    def checkPersistence(self, request: Any, version: bytes) -> bool:
        """Whether the connection goes on after this request."""
        fields = request.requestHeaders.getRawHeaders(b"connection") or ()
        words = {word.strip().lower() for field in fields for word in field.split(b",")}
        stays = b"close" not in words and (version == b"HTTP/1.1" or b"keep-alive" in words)
        self.connection = b"close" if not stays else b"" if version == b"HTTP/1.1" else b"keep-alive"
        return stays

    def writeHeaders(self, _version: bytes, code: bytes, reason: bytes, headers: Any) -> None:
        """Write a head: of our own version, and in the same order with every twisted.web."""
        if not isinstance(headers, list):
            headers = [(name, value) for name, values in headers.getAllRawHeaders() for value in values]
        headers.sort(key=lambda field: bool(field[0].lower() == b"transfer-encoding"))
        super().writeHeaders(b"HTTP/1.1", code, reason, headers)  # type: ignore[no-untyped-call]

    def _respondToBadRequestAndDisconnect(self) -> None:
        self.refuse(plain(400), linger=False)
