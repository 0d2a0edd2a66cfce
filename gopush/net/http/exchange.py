"""The answers that a connection owes: to requests of the short cut, and to those that twisted.web has read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web import server

from gopush.errors import ParameterError
from gopush.net.http.held import Held
from gopush.net.http.parts import HttpConnection
from gopush.net.http.request import AnyResponse, Paged, Promise, Request, Response, chunk, explained, plain
from gopush.net.http.routes import AnyRoute, Receiver, Route, StreamRoute, always

log = Logger()

WRONG = plain(400)
FAILED = plain(500)


class Owed:
    """An answer; `data`: its last bytes, once they are there. `in_chunks`: how a body of unknown length is sent."""

    __slots__ = ("channel", "data", "request")
    in_chunks = True

    def __init__(self, channel: HttpConnection, request: Request) -> None:
        self.channel = channel
        self.request = request
        self.data: bytes | None = None

    def ask(self, route: Route) -> None:
        """Have the handler answer, now or later; a parameter error is 400, another error is logged and 500."""
        try:
            answered = route.handler(self.request)
        except Exception:
            answered = _failed(Failure(), self.request)
        if isinstance(answered, (Response, Paged)):
            self.give(answered)
        elif isinstance(answered, Promise):
            answered.then(self.give)
        elif isinstance(answered, Held):
            self.channel.hold(self, answered)
        else:
            coming: Deferred[Any] = answered
            coming.addErrback(_failed, self.request).addCallback(self.give)

    def give(self, response: AnyResponse) -> None:
        """This is the answer."""
        channel = self.channel
        if channel.deaf:
            return
        requests = channel.site.counters.requests  # what HttpCounters.answer() does, without the price of a call
        answer = self.request.route, response.status
        requests[answer] = requests.get(answer, 0) + 1
        if isinstance(response, Response):
            self.data = data = channel.site.renderer.render(response, self.request)
            channel.answer(len(data))
        elif self.request.method == b"HEAD":
            self.end(self._head(response))
        else:
            Deferred.fromCoroutine(self._write_pages(response))

    def end(self, data: bytes) -> None:
        """These are the last bytes."""
        self.data = data
        self.channel.answer(len(data))

    async def _write_pages(self, paged: Paged) -> None:
        """Each page when the client has read the one before; an answer that breaks off ends its connection."""
        channel = self.channel
        channel.put(self._head(paged) + self._piece(paged.first))
        try:
            while not channel.deaf:
                if channel.stalled:
                    await channel.drain
                elif not (piece := await paged.more()):
                    break
                elif not channel.deaf:
                    channel.put(self._piece(piece))
        except Exception as error:
            log.debug("an answer was cut off: {error}", error=error)
            channel.abort()
        if not channel.deaf:
            self.end(self._last())

    def _head(self, paged: Paged) -> bytes:
        return self.channel.site.renderer.paged_head(paged, self.request, self.in_chunks)

    def _piece(self, data: bytes) -> bytes:
        return chunk(data) if data and self.in_chunks else data

    def _last(self) -> bytes:
        return chunk(b"") if self.in_chunks else b""


class Exchange(Owed, server.Request):
    """A request that twisted.web has read. `route` answers it; to a StreamRoute its handler writes: it is an Answer."""

    channel: Any
    route: AnyRoute
    receiver: Receiver | None = None
    _body: bytes | bytearray = b""
    _begun = _ended = False

    def __init__(self, channel: HttpConnection, *args: Any) -> None:
        server.Request.__init__(self, channel, *args)
        self.data = None

    # What the channel calls, as twisted.web has it.

    def gotLength(self, length: int | None) -> None:
        """The head is complete. `length` of the body in bytes, None where it comes in chunks."""
        channel = self.channel
        head = channel.head
        self.path, _, query = head.target.partition(b"?")
        fields = {name.lower(): b", ".join(values) for name, values in self.requestHeaders.getAllRawHeaders()}
        self.request = request = Request(head.method, self.path, query, fields, b"", channel.peer)
        request.connection = channel.connection
        channel.put_off()
        resource = channel.site.getResourceFor(self)
        request.route = resource.path
        self.route = route = resource.route(head.method)
        self.in_chunks = head.version != b"HTTP/1.0"
        self._body = bytearray()
        self._room = route.limit
        refusal = self._refusal(length)
        if refusal is not None or length == 0:
            self.requestHeaders.removeHeader(b"expect")  # nothing to wait for
        if refusal is not None:
            if length != 0 or isinstance(route, StreamRoute):
                if length is not None:
                    channel.to_come = length - len(channel.clearLineBuffer()) - len(channel.inbox)
                channel.refuse(refusal, request)
            else:
                self.route = always(refusal)
        elif isinstance(route, StreamRoute):
            self._tell(self._open, route)

    def handleContentChunk(self, data: bytes) -> None:
        """A piece of the body."""
        if self.channel.deaf:
            return
        self.channel.body_came(len(data))
        self._room -= len(data)
        if self._room < 0:
            self.channel.refuse(self._too_large(), self.request)
        elif self.receiver is not None:
            self._tell(self.receiver.received, data)
        elif isinstance(self.route, Route):
            self._body += data

    def expect(self, size: int) -> None:
        """A chunk of the body has announced its size: refuse at once a size that is too large."""
        if size > self._room:
            self.channel.refuse(self._too_large() if size < StreamRoute.limit else plain(400), self.request)

    def requestReceived(self, _command: bytes, _path: bytes, _version: bytes) -> None:
        """The request is complete."""
        self._ended = True
        if self.receiver is not None:
            self._tell(self.receiver.ended)
        else:
            self.request.body, self._body = bytes(self._body), b""
            self.render(self.channel.site.getResourceFor(self))  # type: ignore[no-untyped-call]

    def drained(self) -> None:
        """The client has read what was written."""
        if self.receiver is not None:
            self._tell(self.receiver.drained)

    def leaving(self) -> None:
        """The site takes no more."""
        if self.receiver is not None and not self._ended:
            self._tell(self.receiver.leaving)

    def connectionLost(self, reason: Failure) -> None:
        """The connection is gone, or nothing more comes of it."""
        self._body = b""
        receiver, self.receiver = self.receiver, None
        if receiver is not None:
            receiver.lost()

    # What a streaming handler calls, as an Answer.

    @property
    def stalled(self) -> bool:
        """See Answer."""
        return bool(self.channel.stalled)

    def write(self, data: bytes) -> None:
        """See Answer."""
        if data and self.receiver is not None:
            self.channel.put(self._start() + self._piece(data))
            self.channel.put_off()

    def finish(self) -> None:
        """See Answer. Where the body is not complete, what follows cannot be told from it."""
        if self.receiver is None:
            return
        last = self._start() + self._last()
        self.receiver = None
        if self._ended:
            self.end(last)
        else:
            self.channel.put(last)
            self.channel.leave(linger=True)

    def pause(self) -> None:
        """See Answer."""
        self.channel.pause(True)

    def resume(self) -> None:
        """See Answer."""
        self.channel.pause(False)

    def give(self, response: AnyResponse) -> None:
        """See Owed."""
        if isinstance(response, Paged):
            self._close_if_old()
        super().give(response)

    def _open(self, route: StreamRoute) -> None:
        self._close_if_old()
        self.receiver = route.handler(self.request, self)

    def _start(self) -> bytes:
        """The head of a streamed answer, the first time."""
        if self._begun:
            return b""
        self._begun = self.startedWriting = True
        assert isinstance(self.route, StreamRoute)
        self.channel.site.counters.answer(self.request, 200)
        return self._head(Paged(200, self.route.content_type, b"", Deferred))

    def _tell(self, method: Callable[..., None], *args: Any) -> None:
        """A mistake of a streaming handler ends the connection."""
        try:
            method(*args)
        except Exception:
            failure = Failure()
            log_failure(failure, self.request)
            self.connectionLost(failure)
            self.channel.abort()

    def _refusal(self, length: int | None) -> Response | None:
        refusal: Response | None = self.channel.refusal_of_client(self.request, self.route)
        if refusal is not None:
            return refusal
        if length is None and not self.in_chunks:
            return plain(400)
        if (length or 0) > self._room:
            return self._too_large()
        return self.route.refuse(self.request)

    def _too_large(self) -> Response:
        route = self.route
        assert isinstance(route, Route)  # streams are endless
        if route.too_large.status != 413:  # there is no such call
            return route.too_large
        return explained(route.too_large, self.request, f"a body may have {route.limit} bytes here")

    def _close_if_old(self) -> None:
        """A body of unknown length ends with the connection of HTTP/1.0."""
        if not self.in_chunks:
            self.request.connection = b"close"
            self.channel.persistent = False


def log_failure(failure: Failure, request: Request) -> None:
    """Tell of a handler's error; neither the query nor the body is named."""
    log.failure("{method} {path} failed", failure, method=request.method, path=request.path)


def _failed(failure: Failure, request: Request) -> Response:
    """The answer in the place of the one that a handler failed to give."""
    if isinstance(failure.value, ParameterError):
        return explained(WRONG, request, str(failure.value))
    log_failure(failure, request)
    return FAILED
