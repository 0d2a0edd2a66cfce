"""A request under way in twisted.web: refused before its body is read, or handed to its handler, and answered."""

from __future__ import annotations

from collections.abc import Callable
from http import HTTPStatus
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web import server

from gopush.errors import ParameterError
from gopush.net.http.request import Request
from gopush.net.http.response import TEXT, AnyResponse, Paged, Promise, Response, chunk, plain
from gopush.net.http.routes import Answered, AnyRoute, Receiver, Route, StreamRoute, always

log = Logger()

FAILED = plain(500)


class Exchange(server.Request):
    """What twisted.web keeps of a request. `plain` is what the handlers see, `route` answers it."""

    defaultContentType = None
    channel: Any
    plain: Request
    route: AnyRoute
    stream: Stream | None = None
    _body: bytes | bytearray = b""

    # What the channel calls, as twisted.web has it.

    def gotLength(self, length: int | None) -> None:
        """The head is complete. `length` of the body in bytes, None where it comes in chunks."""
        channel = self.channel
        head = channel.head
        self.method, self.uri, self.clientproto = head.method, head.target, head.version
        self.path, _, query = head.target.partition(b"?")
        fields = {name.lower(): b", ".join(values) for name, values in self.requestHeaders.getAllRawHeaders()}
        self.plain = request = Request(head.method, self.path, query, fields, b"", channel.peer)
        request.connection = channel.connection
        channel.put_off()
        self.route = route = channel.site.getResourceFor(self).route(head.method)
        self._body = bytearray()
        self._room = route.limit
        if isinstance(route, StreamRoute) and head.version == b"HTTP/1.0":
            self._close_after()
        refusal = self._refusal(length)
        if refusal is not None or length == 0:
            self.requestHeaders.removeHeader(b"expect")  # nothing to wait for
        if refusal is None:
            if isinstance(route, StreamRoute):
                self.stream = Stream(self, route)
        elif length != 0 or isinstance(route, StreamRoute):
            channel.refuse(refusal, request)
        else:
            self.route = always(refusal)

    def handleContentChunk(self, data: bytes) -> None:
        """A piece of the body."""
        if self.channel.deaf:
            return
        self.channel.body_came(len(data))
        self._room -= len(data)
        if self._room < 0:
            self.channel.refuse(self._too_large(), self.plain)
        elif self.stream is not None:
            self.stream.received(data)
        else:
            self._body += data

    def expect(self, size: int) -> None:
        """A chunk of the body has announced its size: what it cannot have is refused at once."""
        if size > self._room:
            self.channel.refuse(self._too_large() if size < StreamRoute.limit else plain(400), self.plain)

    def requestReceived(self, _command: bytes, _path: bytes, _version: bytes) -> None:
        """The request is complete."""
        if self.channel.deaf:
            return
        if self.stream is not None:
            self.stream.end()
            return
        self.plain.body, self._body = bytes(self._body), b""
        self.render(self.channel.site.getResourceFor(self))  # type: ignore[no-untyped-call]

    def connectionLost(self, reason: Failure) -> None:
        """The connection is gone."""
        super().connectionLost(reason)  # type: ignore[no-untyped-call]
        self.give_up()

    def give_up(self) -> None:
        """Nothing more comes of it."""
        self._body = b""
        stream, self.stream = self.stream, None
        if stream is not None:
            stream.lost()

    # Answering.

    def take(self, answered: Answered) -> None:
        """Answer with what the handler has answered, or will."""
        if isinstance(answered, Promise):
            answered.then(self.answer)
        elif isinstance(answered, Deferred):
            taken: Deferred[Any] = answered
            taken.addErrback(failed, self.plain).addCallback(self.answer)
        else:
            self.answer(answered)

    def answer(self, response: AnyResponse) -> None:
        """Write the answer, or begin to."""
        if self.channel is None:
            return
        if isinstance(response, Paged) and self.clientproto == b"HTTP/1.0":
            self._close_after()
        self.begin(response)
        if isinstance(response, Response) or self.method == b"HEAD":
            self.write(response.body if isinstance(response, Response) else b"")  # type: ignore[no-untyped-call]
            self.finish()  # type: ignore[no-untyped-call]
        else:
            self.write(response.first)  # type: ignore[no-untyped-call]
            self.channel.page(response, self.write, self.finish)

    def begin(self, response: AnyResponse) -> None:
        """Set the head of the answer."""
        site = self.channel.site
        response = site.complete(response, self.plain)
        self.setResponseCode(response.status, HTTPStatus(response.status).phrase.encode())
        for name, value in site.renderer.fields(response, self.plain):
            self.responseHeaders.addRawHeader(name.encode("latin-1"), value.encode("latin-1"))

    def _refusal(self, length: int | None) -> Response | None:
        if length is None and self.clientproto == b"HTTP/1.0":
            return plain(400)
        if (length or 0) > self._room:
            return self._too_large()
        return self.route.refuse(self.plain)

    def _too_large(self) -> Response:
        assert isinstance(self.route, Route)  # streams are endless
        return self.route.too_large

    def _close_after(self) -> None:
        self.plain.connection = b"close"
        self.channel.persistent = False


class Stream:
    """The Answer of a StreamRoute: of a request that is answered while its body still comes."""

    def __init__(self, exchange: Exchange, route: StreamRoute) -> None:
        self._exchange: Exchange | None = exchange
        self._channel = exchange.channel
        self._content_type = route.content_type
        self._ended = False
        self._receiver: Receiver | None = None
        try:
            self._receiver = route.handler(exchange.plain, self)
            self._channel.reader = self._receiver
        except Exception:
            self._fail()

    # What the exchange calls.

    def received(self, piece: bytes) -> None:
        """A piece of the body."""
        if self._receiver is not None:
            self._tell(self._receiver.received, piece)

    def end(self) -> None:
        """The body is complete."""
        self._ended = True
        if self._receiver is not None:
            self._tell(self._receiver.ended)

    def lost(self) -> None:
        """The connection is gone."""
        self._exchange = None
        receiver, self._receiver = self._receiver, None
        if receiver is not None:
            receiver.lost()

    # What the handler calls: Answer.

    @property
    def stalled(self) -> bool:
        """See Answer."""
        return bool(self._channel.stalled)

    def write(self, data: bytes) -> None:
        """See Answer."""
        if data and self._exchange is not None:
            self._begun().write(data)  # type: ignore[no-untyped-call]
            self._channel.put_off()

    def finish(self) -> None:
        """See Answer. Where the body is not complete, what follows cannot be told from it."""
        if self._exchange is None:
            return
        exchange = self._begun()
        self._exchange = self._receiver = self._channel.reader = None
        if self._ended:
            exchange.finish()  # type: ignore[no-untyped-call]
        else:
            exchange.write(b"")  # type: ignore[no-untyped-call]
            if exchange.chunked:
                self._channel.write(chunk(b""))
            self._channel.leave(linger=True)

    def pause(self) -> None:
        """See Answer."""
        self._channel.pause(True)

    def resume(self) -> None:
        """See Answer."""
        self._channel.pause(False)

    def _begun(self) -> Exchange:
        exchange = self._exchange
        assert exchange is not None
        if not exchange.startedWriting:
            exchange.begin(Paged(200, self._content_type, b"", Deferred))
        return exchange

    def _tell(self, method: Callable[..., None], *args: Any) -> None:
        try:
            method(*args)
        except Exception:
            self._fail()

    def _fail(self) -> None:
        if self._exchange is not None:
            log_failure(current_failure(), self._exchange.plain)
        self.lost()
        self._channel.abort()


class Paging:
    """Writes the pages of an answer, each when the client has read the one before."""

    def __init__(
        self, channel: Any, paged: Paged, write: Callable[[bytes], object], finish: Callable[[], object]
    ) -> None:
        self._channel = channel
        self._more = paged.more
        self._write = write
        self._finish = finish
        self._waiting = self._going = False

    def go_on(self) -> None:
        """Ask for pages until one has to be waited for, or the client has to read first."""
        if self._going:
            return
        self._going = True
        while not (self._waiting or self._channel.stalled or self._channel.lost):
            self._waiting = True
            self._more().addCallbacks(self._page, self._failed)
        self._going = False

    drained = go_on

    def _page(self, piece: bytes) -> None:
        if self._channel.lost:
            return
        if piece:
            self._waiting = False
            self._write(piece)
            self.go_on()
        else:
            self._channel.reader = None
            self._finish()

    def _failed(self, failure: Failure) -> None:
        log.debug("an answer is cut: {error}", error=failure.value)
        self._channel.abort()


def call(route: Route, request: Request) -> Answered:
    """What the handler answers; a parameter error is answered 400, another error is logged and answered 500."""
    try:
        return route.handler(request)
    except Exception:
        return failed(current_failure(), request)


def current_failure() -> Failure:
    """The exception that is being handled."""
    return Failure()  # type: ignore[no-untyped-call]


def failed(failure: Failure, request: Request) -> Response:
    """The answer in the place of the one that a handler failed to give."""
    if isinstance(failure.value, ParameterError):
        return Response(400, TEXT, f"{failure.value}\n".encode())
    log_failure(failure, request)
    return FAILED


def log_failure(failure: Failure, request: Request) -> None:
    """Tell of a handler's error; neither the query nor the body is named."""
    log.failure("{method} {path} failed", failure, method=request.method, path=request.path)
