"""One HTTP/1.1 connection: requests in, answers out in the order of the requests."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet.interfaces import IHalfCloseableProtocol, IProtocol
from twisted.python.failure import Failure
from zope.interface import implementer

from gopush.http.exchange import Exchange, call
from gopush.http.output import Output
from gopush.http.parser import RefusedError, RequestParser
from gopush.http.request import Request
from gopush.http.response import CONTINUE, Renderer, Response
from gopush.http.routing import Route, StreamRoute, always
from gopush.http.stream import StreamExchange
from gopush.timers import NO_SLOT

if TYPE_CHECKING:
    from gopush.http.factory import HttpFactory

MAX_UNANSWERED = 64
_LINGER = 2.0


@implementer(IProtocol, IHalfCloseableProtocol)
class HttpChannel:
    """A connection. At most MAX_UNANSWERED requests are worked on at once; while more wait, nothing is read.

    What is answered while input is handled gathers and goes out in one write at the end of that turn.
    """

    __slots__ = (
        "_factory",
        "_gathered",
        "_half_closed",
        "_lingers",
        "_output",
        "_parked",
        "_parser",
        "_reading",
        "_waiting",
        "deadline",
        "slot",
        "transport",
    )

    transport: Any
    _output: Output

    def __init__(self, factory: HttpFactory) -> None:
        self._factory = factory
        self._parser: RequestParser | None = None
        self._waiting: list[Exchange | StreamExchange] = []  # started, not all of the answer sent
        self._parked: list[Exchange | StreamExchange] = []  # to be started later
        self._gathered: list[bytes] | None = None  # a list during a turn
        self._reading = True
        self._half_closed = False
        self._lingers = False
        self.deadline = 0.0
        self.slot = NO_SLOT

    # What the transport calls.

    def makeConnection(self, transport: Any) -> None:
        """See IProtocol."""
        self.transport = transport
        self._output = Output(transport, self)
        self._parser = RequestParser(self, self._factory.table, getattr(transport.getPeer(), "host", ""))
        self._put_off()
        self._factory.opened(self)

    def connectionMade(self) -> None:
        """See IProtocol."""

    def dataReceived(self, data: bytes) -> None:
        """See IProtocol."""
        if self._parser is None:
            if self._lingers:
                self._put_off(_LINGER)
            return
        self._gathered = []
        try:
            if self._parser.feed(data):
                self._put_off()
            if self._parser.finished:
                self._parser = None
        except RefusedError as refused:
            self._refuse(refused)
        self._end_turn()

    def readConnectionLost(self) -> None:
        """See IHalfCloseableProtocol: the client sends no more, and perhaps still reads its answers."""
        self._half_closed = True
        self._parser = None
        self._lingers = False
        if any(not exchange.ended for exchange in (*self._waiting, *self._parked)):
            self._output.abort()
        else:
            self._turn()

    def writeConnectionLost(self) -> None:
        """See IHalfCloseableProtocol."""

    def connectionLost(self, _reason: Failure) -> None:
        """See IProtocol."""
        self._parser = None
        self._half_closed = True
        self._factory.closed(self)
        for exchange in self._waiting:
            exchange.lost()
        self._waiting, self._parked = [], []

    # What the parser calls: Sink.

    def request(self, request: Request, route: Route) -> None:
        """See Sink."""
        if self._waiting:
            self._parked.append(Exchange(self, request, route))
            self._start_parked()
            return
        result = call(route, request)
        if isinstance(result, Response):
            self._gather(self.renderer.render(result, request))
        else:
            exchange = Exchange(self, request, route)
            self._waiting.append(exchange)
            exchange.answer_with(result)

    def stream(self, request: Request, route: StreamRoute) -> StreamExchange:
        """See Sink."""
        exchange = StreamExchange(self, request, route)
        self._parked.append(exchange)
        self._start_parked()
        return exchange

    def proceed(self) -> None:
        """See Sink."""
        if not self._waiting:  # else it goes without saying after a while (RFC 9110, section 10.1.1)
            self._gather(CONTINUE)

    # What exchanges and the output call.

    @property
    def renderer(self) -> Renderer:
        """Makes bytes of responses."""
        return self._factory.renderer

    @property
    def stalled(self) -> bool:
        """Whether the client is slow to read."""
        return self._output.stalled

    def answered(self) -> None:
        """An exchange has (more of) its answer."""
        if self._gathered is None and self._waiting:
            self._turn()

    def drained(self) -> None:
        """The client has read what was written."""
        self._put_off()
        if self._waiting:
            self._waiting[0].drained()
        self.settle_input()

    def settle_input(self) -> None:
        """Read, or read no more, as the exchanges and the client's own reading allow."""
        if self._half_closed:
            return
        wanted = not (self._parked or self._output.stalled or (self._waiting and self._waiting[0].paused))
        if wanted != self._reading:
            self._reading = wanted
            if wanted:
                self.transport.resumeProducing()
            else:
                self.transport.pauseProducing()

    def give_up(self) -> None:
        """Close at once: an answer cannot be completed."""
        self._output.abort()

    # What the factory calls.

    def expired(self) -> None:
        """The deadline has passed: it is put off while an answer is owed, else the connection is closed."""
        if self._output.stalled or self._output.closing:
            self._factory.counters.slow_closed += self._output.stalled
            self._output.abort()
            return
        if not self._waiting or self._waiting[0].awaits_client:
            self._factory.counters.idle_closed += not self._lingers
            self._parser = None
            self._lingers = False
            self._output.close()
        self._put_off()
        self._factory.wheel.add(self)

    def stop(self) -> None:
        """Take no more requests; close once those that came are answered."""
        self._parser = None
        self._turn()

    def _turn(self) -> None:
        self._gathered = []
        self._end_turn()

    def _end_turn(self) -> None:
        self._flush()
        while self._parked and self._start_parked():
            self._flush()
        gathered, self._gathered = self._gathered, None
        if gathered:
            self._put_off()
            self._output.write(b"".join(gathered))
        self.settle_input()
        if self._parser is None and not self._waiting:
            self._finish()

    def _flush(self) -> None:
        """Gather the answers whose turn it is."""
        while self._waiting:
            first = self._waiting[0]
            if first.out:
                self._gather(first.out)
                first.out = b""
            if not first.done:
                return
            if not first.ended:  # answered before its body came: what follows cannot be told from it
                self._parser, self._lingers, self._parked = None, True, []
            del self._waiting[0]

    def _start_parked(self) -> bool:
        """Start what may be started; whether anything was."""
        started = False
        while self._parked and self._may_start(self._parked[0]):
            exchange = self._parked.pop(0)
            self._waiting.append(exchange)
            exchange.start()
            started = True
        return started

    def _may_start(self, exchange: Exchange | StreamExchange) -> bool:
        """A stream has the connection for itself."""
        if not self._waiting:
            return True
        if isinstance(exchange, StreamExchange) or isinstance(self._waiting[0], StreamExchange):
            return False
        return len(self._waiting) < MAX_UNANSWERED

    def _gather(self, data: bytes) -> None:
        if self._gathered is not None:
            self._gathered.append(data)

    def _refuse(self, refused: RefusedError) -> None:
        self._factory.counters.refuse(refused.response.status)
        self._parser = None
        if self._parked and not self._parked[-1].ended:
            self._parked.pop()
        elif self._waiting and not self._waiting[-1].ended:
            self._output.close()  # in the middle of an answer there is no other way to say it
            return
        self._lingers = refused.unread
        self.request(refused.request, always(refused.response))

    def _finish(self) -> None:
        """All is answered that will be. Who is still sending would not see the answer if we closed now."""
        if self._lingers:
            self._put_off(_LINGER)
            self._factory.wheel.add(self)
        else:
            self._output.close()

    def _put_off(self, seconds: float | None = None) -> None:
        self.deadline = self._factory.clock.seconds() + (self._factory.idle if seconds is None else seconds)
