"""One HTTP connection: twisted.web's HTTPChannel, held within bounds, with a short cut in front.

What comes is kept here and handed on one request at a time: while an answer is owed, or one waits to be read, nothing
new starts and nothing more is read. docs/architecture.md lists what is touched of twisted.web's inside.
"""

from __future__ import annotations

from itertools import takewhile

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.python.failure import Failure
from zope.interface import implementer

from gopush.net import transport as wire
from gopush.net.http.bounds import ALONE_COST, SIMPLE_COST, BoundedChannel, forwarding
from gopush.net.http.exchange import Owed
from gopush.net.http.head import HeadScanner
from gopush.net.http.held import ENDLESS, Held, HeldAnswer
from gopush.net.http.request import Streamed

MAX_TOGETHER = 64
"""Requests of one segment that are worked on at once."""

_NO_HEAD = HeadScanner()
_MAX_HELD_BYTES = 64 << 10
_PIECE = 4 << 10
_ANY_HEAD = 1 << 10


@implementer(IHalfCloseableProtocol)
class HttpChannel(BoundedChannel):
    """A connection; `drain` fires when the client has read what was written, or the connection is lost."""

    _missing = _held = 0  # answers that are not there, and bytes of those that are
    _fed = False  # twisted.web has a part of a request
    _half_end = b""  # what it was given last, where that may be the first half of a CRLF
    _asking = _pumping = _ending = _lost = _streaming = False

    # What the transport calls.

    def connectionMade(self) -> None:
        """See Protocol."""
        super().connectionMade()  # type: ignore[no-untyped-call]
        self.send = wire.sender(self.transport)
        self.peer = wire.peer_host(self.transport)
        self._forwarding = forwarding(wire.limiter(self.transport), self.peer)
        self.head = HeadScanner()
        self.owed: list[Owed] = []
        self.drain = Deferred[None]()
        self.put_off()
        self.site.opened(self)

    def dataReceived(self, data: bytes) -> None:
        """See Protocol. It ignores what comes behind a request for a stream."""
        self.site.counters.received_bytes += len(data)
        if self._streaming:
            return
        if self.deaf:
            self.threw_away(len(data))
            return
        if not (self.owed or self.inbox or self._fed or self.stalled or self.site.stopping):
            data = self._short_cut(data)
            if not data:
                return
        self.inbox = self.inbox + data if self.inbox else data
        self._pump()

    def readConnectionLost(self) -> None:
        """See IHalfCloseableProtocol: the client sends no more, and perhaps still reads its answers."""
        self.half_closed = True
        if self.deaf:
            self.loseConnection()
            return
        if self.watcher is not None:
            self.watcher.hung_up()
        self._pump()

    def writeConnectionLost(self) -> None:
        """See IHalfCloseableProtocol."""

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        """See Protocol. What is left refers to itself nowhere, so all of it is freed at once."""
        self._lost = self.deaf = True
        self.forget()
        super().connectionLost(reason)  # type: ignore[no-untyped-call]
        self._transferDecoder = None
        if self._forwarding is not None:
            self._forwarding.end()
        self.requests = []
        self.drain.callback(None)
        self.site.closed(self)

    def resumeProducing(self) -> None:
        """See IPushProducer: the client has read all."""
        self.stalled = False
        self.put_off()
        drain, self.drain = self.drain, Deferred[None]()
        drain.callback(None)
        for exchange in self.requests:
            exchange.drained()
        self._pump()

    # The way of what comes.

    def _pump(self) -> None:
        """Go on with what has come, as far as nothing is owed and the client reads."""
        if self._pumping:
            return
        self._pumping = True
        while self.inbox and not self._blocked() and self._has_turn(self.unpaid):
            self.unpaid, data, self.inbox = 0, self.inbox, b""
            self.inbox = data if self._fed else self._short_cut(data)
            if len(self.inbox) == len(data) and self._has_turn(self._head_cost() if self.line_mode else 0):
                self._feed()
        self._pumping = False
        self._settle()

    def _has_turn(self, cost: int) -> bool:
        """Whether work that costs this may be done now; if not, the connection goes on in a later turn."""
        self._scheduled = bool(cost) and not self.site.heads.take(cost, self._go_on)
        return not self._scheduled

    def _go_on(self) -> None:
        self._scheduled = False
        ready = list(takewhile(lambda answer: answer.data is not None, self.owed))
        if ready:
            del self.owed[: len(ready)]
            self.send(b"".join([answer.data or b"" for answer in ready]))
        self._pump()

    def _blocked(self) -> bool:
        return bool(self.owed or self.stalled or self.deaf or self.paused or self._scheduled or self.site.stopping)

    def _settle(self) -> None:
        """Read on or not, and leave where nothing more can come of the connection."""
        if self._lost:
            return
        if self.half_closed or self.site.stopping:
            self._leave_if_done()
        ahead = _PIECE if self.watcher else 0  # only who reads hears that the client has left
        reading = self.deaf or not (self.paused or len(self.inbox) > ahead)
        if not (self.half_closed or self.closing):
            (self.transport.resumeProducing if reading else self.transport.pauseProducing)()

    def _leave_if_done(self) -> None:
        if self.deaf or self.owed or self.paused or self._scheduled:
            return
        if self.site.stopping:
            done = not any(exchange.receiver for exchange in self.requests)  # may still be answered until its deadline
        else:
            done = not (self.inbox and self.stalled)
        if done:
            self.leave(linger=False)

    def _head_cost(self) -> int:
        """Of the next piece of a head: about its bytes, and what any costs. A body behind it costs little."""
        end = self.inbox.find(b"\r\n\r\n", 0, _PIECE)
        return _ANY_HEAD + (end if end >= 0 else min(len(self.inbox), _PIECE))

    def _feed(self) -> None:
        """Hand on to twisted.web; a head in pieces, for it cuts off a line by copying what follows."""
        data, self.inbox = self.inbox, b""
        if self.line_mode and len(data) > _PIECE:
            data, self.inbox = data[:_PIECE], data[_PIECE:]
        if not self._fed:
            self._fed = True
            self.put_off()
        before, self._half_end = self._half_end, data[-1:] if data.endswith(b"\r") else b""
        super().dataReceived(data)  # type: ignore[no-untyped-call]
        if self.deaf or not (self._fed and self.line_mode):
            return
        if b"\n" in (before + data).rpartition(b"\r\n")[2]:
            self._respondToBadRequestAndDisconnect()  # no CR can come before it any more

    # Answering.

    def _short_cut(self, data: bytes) -> bytes:
        """Ask for the answers to simple requests that have come whole; gives what follows them.

        What may be a large answer is asked for alone, and no more when there is much to read. A refusal ends the
        connection where twisted.web would not have read the body.
        """
        site, peer, owed, at, cost = self.site, self.peer, self.owed, 0, 0
        self._asking = True
        while at < len(data) and len(owed) < MAX_TOGETHER and self._held <= _MAX_HELD_BYTES and not self._ending:
            found = site.reader.read(data, at, peer)
            if found is None or (at and (found[1].alone or self._forwarding)):
                break
            request, route, at = found
            owed.append(answer := Owed(self, request))
            self._missing += 1
            cost += ALONE_COST if route.alone else SIMPLE_COST
            refusal = (self._forwarding and self.refusal_of_client(request, route)) or route.refuse(request)
            if refusal is None:
                answer.ask(route)
                if route.alone:
                    break
            else:
                if request.body:
                    site.counters.refuse(refusal.status)
                    request.connection = b"close"
                    self._ending, self.to_come = True, at - len(data)
                answer.give(refusal)
        self._asking = False
        self.unpaid = cost
        if at and not self._missing:
            self._write()
        elif at and owed[0].data is not None and not self._scheduled:
            self._schedule()
        return b"" if self.deaf or self._streaming else data[at:]

    def answer(self, size: int) -> None:
        """An answer of so many bytes is there: all go out in one write, or where some come later, as the turn ends."""
        self._missing -= 1
        self._held += size
        if self._asking:
            return
        if not self._missing:
            self._write()
        elif self.owed[0].data is not None and not self._scheduled:
            self._schedule()

    def _write(self) -> None:
        owed, self.owed = self.owed, []
        self.site.counters.sent_bytes += self._held
        self._held = 0
        if self._forwarding is not None:
            self._forwarding.end()
        if not self.stalled:
            self.deadline = self.site.clock.seconds() + self.site.idle
        self.send(owed[0].data or b"" if len(owed) == 1 else b"".join([answer.data or b"" for answer in owed]))
        if self._ending:
            self.to_come -= len(self.inbox)
            self.leave(linger=True)
        elif self.requests:
            self.requestDone(self.requests[0])  # type: ignore[no-untyped-call]
            self._pump()
        elif self.inbox or self.half_closed or self.site.stopping:
            self._pump()

    def _schedule(self) -> None:
        self._scheduled = True
        self.site.clock.callLater(0, self._go_on)

    # Answers that are held.

    def hold(self, owed: Owed, held: Held) -> None:
        """See HttpConnection."""
        answer = HeldAnswer(self, owed)
        watcher = held.begin(answer)
        if not answer.over:
            self.watcher = watcher

    def stream(self, owed: Owed, head: Streamed) -> None:
        """The answer begins and has no end: of what has come no more is needed, for the connection ends with it."""
        owed.request.connection = b"close"
        self._streaming = True
        self.put(self.site.renderer.paged_head(head, owed.request, owed.in_chunks))
        self.owed, self.requests = [ENDLESS], []
        self.head = _NO_HEAD
        self.inbox = b""
        self._settle()

    # What exchanges and the site call.

    def pause(self, paused: bool) -> None:
        """Hand on no more of a body for now, or go on."""
        self.paused = paused
        self._pump()

    def stop(self) -> None:
        """The site takes no more requests."""
        if self.deaf and not self.closing:
            self.loseConnection()
        for exchange in list(self.requests):
            exchange.leaving()
        self._pump()

    # What twisted.web does differently here.

    def setLineMode(self, extra: bytes = b"") -> None:
        """See LineReceiver: what came behind a request waits here."""
        self.inbox = extra + self.inbox
        super().setLineMode()  # type: ignore[no-untyped-call]

    def allContentReceived(self) -> None:
        """A request is complete."""
        if self.deaf:
            return
        self.inbox = self.clearLineBuffer() + self.inbox  # type: ignore[no-untyped-call]
        self._half_end = b""
        self.owed.append(self.requests[-1])
        self._missing += 1
        self._fed = False
        self.body_bytes = 0
        self.head.reset()
        super().allContentReceived()  # type: ignore[no-untyped-call]
