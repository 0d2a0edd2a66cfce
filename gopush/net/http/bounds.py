"""The bounds of a connection: which heads it takes, how long it may go without progress, how it ends, and how many
requests a client behind a proxy may have under way.
"""

from __future__ import annotations

from math import inf
from typing import Any

from twisted.web.http import HTTPChannel

from gopush.net import forwarded
from gopush.net import transport as wire
from gopush.net.http.exchange import Owed
from gopush.net.http.head import HEAD_LIMIT, HeadScanner, WrongHeadError
from gopush.net.http.held import Watcher
from gopush.net.http.parts import HttpSite
from gopush.net.http.request import Request, Response, plain
from gopush.net.http.routes import AnyRoute
from gopush.net.limits import ConnectionLimiter
from gopush.net.timers import NO_SLOT

LEAST_BYTES = 1024
"""How much of a body has to come in `idle` seconds: less is no progress."""
LEAST_READ_BYTES = 4096
"""How much a client has to read in that time of what waits for it, or all of it."""

MAX_CHUNK_LINES = 128
"""Lines of a chunked body that are worked on at once."""
CHUNK_LINE_COST, SIMPLE_COST, ALONE_COST = 32, 128, 4096
"""What such a line, a simple request, and one whose answer may be large take of HEAD_BYTES_IN_A_TURN. A client's work
is paid before more is done for it."""

_LINES = ("CHUNK_LENGTH", "CRLF", "TRAILER")

LINGER_SECONDS = 2.0
_LOOK_SECONDS = 1.0


class BoundedChannel(HTTPChannel):
    """twisted.web's HTTPChannel within bounds.

    Bytes of a head do not count as progress, nor does a body that drips; while something waits for the client, only its
    reading counts. `inbox`: what has come and was not handed on. `head`: that of the request under way; `connection`:
    what its answer's Connection header has to say. `stalled`: the client is slow to read. `owed`: answers. `paused`: no
    more of a body is wanted. `deaf`: nothing that still comes is a request, and nothing more is answered. `closing`:
    soon. `slow`: closed because the client did not read. `watcher`: of an answer that is held. `unpaid`: what the work
    cost that is done, of the site's turn.
    """

    site: HttpSite
    transport: Any
    owed: list[Owed]
    requests: list[Any]
    head: HeadScanner
    send: wire.Send
    watcher: Watcher | None = None
    MAX_LENGTH = HEAD_LIMIT
    connection = inbox = b""
    deadline = leave_at = 0.0
    to_come = inf  # bytes of the refused request, where that is known; below 0: others came behind it
    slot = NO_SLOT
    stalled = paused = deaf = closing = half_closed = slow = False
    body_bytes = unpaid = 0
    _scheduled = False  # it goes on in a later turn
    _line = b""  # of a chunked body, as far as it has come
    _forwarding: Forwarding | None = None
    _unread = 0  # bytes that the client had not read when it had last read enough
    _read_at = 0.0

    # What of a head is taken.

    def lineReceived(self, line: bytes) -> None:
        """See LineReceiver: the request line, or a field."""
        taken = self._take(line)
        if taken is not None:
            super().lineReceived(taken)  # type: ignore[no-untyped-call]

    def _take(self, line: bytes) -> bytes | None:
        """A line of the head, or a field behind a chunked body, as it is handed on; None: it ended the connection."""
        try:
            return self.head.take(line)
        except WrongHeadError as wrong:
            self.refuse(plain(wrong.status), linger=wrong.status in (414, 431))
            return None

    def lineLengthExceeded(self, _line: bytes) -> None:
        """See LineReceiver."""
        self.refuse(plain(431 if self.head.begun else 414))

    def rawDataReceived(self, data: bytes) -> None:
        """See LineReceiver. A chunked body's lines one by one: for some readers a line feed alone ends one."""
        at = lines = 0
        while at < len(data) and lines < MAX_CHUNK_LINES and not (self.line_mode or self.deaf):
            decoder: Any = self._transferDecoder
            state = getattr(decoder, "state", "")
            start = at
            if state not in _LINES:
                at = start + decoder.length if state == "BODY" else len(data)
            else:
                lines += 1
                at = data.find(b"\n", start) + 1 or len(data)
                self._line += data[start:at]
                if self._line.endswith(b"\n") and not self._line_ended(state):
                    return
            super().rawDataReceived(data[start:at])
            if getattr(decoder, "state", "") == "BODY" and not self.deaf:
                self.requests[-1].expect(decoder.length)
        self.unpaid = lines * CHUNK_LINE_COST
        if not self.deaf:
            self.inbox = data[at:] + self.inbox

    def _line_ended(self, state: str) -> bool:
        """A line of a chunked body is complete; whether the connection goes on."""
        line, self._line = self._line, b""
        if not line.endswith(b"\r\n"):
            self._respondToBadRequestAndDisconnect()
            return False
        return state != "TRAILER" or self._take(line[:-2]) is not None

    def checkPersistence(self, request: Any, version: bytes) -> bool:
        """Whether the connection goes on after this request."""
        fields = request.requestHeaders.getRawHeaders(b"connection") or ()
        words = {word.strip().lower() for field in fields for word in field.split(b",")}
        stays = b"close" not in words and (version == b"HTTP/1.1" or b"keep-alive" in words)
        self.connection = b"close" if not stays else b"" if version == b"HTTP/1.1" else b"keep-alive"
        return stays

    def _respondToBadRequestAndDisconnect(self) -> None:
        self.refuse(plain(400), linger=False)

    # Whom it serves.

    def refusal_of_client(self, request: Request, route: AnyRoute) -> Response | None:
        """For a client behind a proxy that has all its connections: a request counts as one while it is answered."""
        if self._forwarding is None or self._forwarding.begin(request):
            return None
        return route.too_many(request)

    # How it ends.

    def refuse(self, response: Response, request: Request | None = None, linger: bool = True) -> None:
        """Answer so and close, whatever is to come; without `linger` a client that still sends would not see it."""
        self.site.counters.refuse(response.status)
        if self.requests and self.requests[-1].startedWriting:
            linger = False  # in the middle of an answer there is no other way to say it
        else:
            request = request or self._as_known()
            request.connection = b"close"
            self.site.counters.answer(request, response.status)
            self.put(self.site.renderer.render(response, request))
        self.leave(linger)

    def _as_known(self) -> Request:
        """The request whose body cannot be read, or what is known of one whose head cannot be."""
        found: Request | None = getattr(self.requests[-1], "request", None) if self.requests else None
        origin = self.head.origin
        return found or Request(
            self.head.method or b"GET", b"", headers=None if origin is None else {b"origin": origin}
        )

    def leave(self, linger: bool) -> None:
        """Take no more requests, and close."""
        self.deaf = True
        self.paused = False
        self.forget()
        for exchange in self.requests:
            exchange.connectionLost(None)
        if linger and self.to_come and not self.half_closed:
            self.leave_at = min(self.site.clock.seconds() + self.site.idle, self.site.stop_by)
            self.expire_in(LINGER_SECONDS)
            self.transport.resumeProducing()
        else:
            self.loseConnection()

    def threw_away(self, size: int) -> None:
        """So many bytes came behind the answer: close once all of the refused request is here, or no more comes."""
        self.to_come -= size
        if not self.to_come:
            self.loseConnection()
        elif not self.closing:
            self.deadline = min(self.site.clock.seconds() + LINGER_SECONDS, self.leave_at)

    def forget(self) -> None:
        """Drop what has come, and what is owed."""
        self.inbox = b""
        self.owed = []
        watcher, self.watcher = self.watcher, None
        if watcher is not None:
            watcher.lost()
        self.clearLineBuffer()  # type: ignore[no-untyped-call]

    def loseConnection(self) -> None:
        """Close once everything is sent; over TLS the client says goodbye, too, but has no longer than others."""
        self.deaf = self.closing = True
        self.inbox = b""
        self.expire_in(LINGER_SECONDS)
        super().loseConnection()  # type: ignore[no-untyped-call]

    def abort(self) -> None:
        """Close at once: an answer cannot be completed, or nobody reads it."""
        self.deaf = True
        self.transport.abortConnection()

    def put(self, data: bytes) -> None:
        """Send what is a part of an answer, or comes out of its turn."""
        self.site.counters.sent_bytes += len(data)
        self.send(data)

    # What is progress.

    def pauseProducing(self) -> None:
        """See IPushProducer: too much waits for the client."""
        self.stalled = True
        self._unread = 0
        self._read_at = self.site.clock.seconds()
        self.expire_in(_LOOK_SECONDS)

    def put_off(self) -> None:
        """Something has moved on."""
        if not self.stalled:
            self.deadline = self.site.clock.seconds() + self.site.idle

    def body_came(self, size: int) -> None:
        """So many bytes of a body have come."""
        self.body_bytes += size
        if self.body_bytes >= LEAST_BYTES:
            self.body_bytes = 0
            self.put_off()

    def expired(self) -> None:
        """The deadline has passed: close, unless it is our turn, or the client has read of what waits for it."""
        behind = wire.lag(self.transport)
        if behind is not None:
            self._look(behind.unread)
            return
        self._unread = 0
        if self.closing:
            wire.abort(self.transport)
        elif self.owed or self.paused or self._scheduled:
            self.expire_in(self.site.idle)
        else:
            self.site.counters.idle_closed += not self.deaf
            self.leave(linger=False)

    def _look(self, unread: int) -> None:
        now = self.site.clock.seconds()
        late = now >= self.site.stop_by
        if not self._unread:
            self._read_at = self._read_at if self.stalled else now
            self._unread = unread
        elif unread <= self._unread - LEAST_READ_BYTES:
            self._read_at, self._unread = now, unread
        else:
            late |= now - self._read_at >= self.site.idle
        if late:
            self.site.counters.slow_closed += 1
            self.slow = True
            self.abort()
            return
        self.expire_in(_LOOK_SECONDS)

    def expire_in(self, seconds: float) -> None:
        """Set the deadline."""
        self.deadline = self.site.clock.seconds() + seconds
        self.site.wheel.add(self)


class Forwarding:
    """Of one connection, whose `peer` is one of `[connections] proxies`. It counts as its client's while it answers."""

    def __init__(self, limiter: ConnectionLimiter, peer: str) -> None:
        self._limiter = limiter
        self._peer = peer
        self._client: str | None = None

    def begin(self, request: Request) -> bool:
        """A request is under way; whether its client may have one more."""
        self.end()
        client = forwarded.client(request.headers, self._peer, self._limiter.proxies)
        if client == self._peer:
            return True
        request.peer = client
        if not self._limiter.take(client):
            return False
        self._client = client
        return True

    def end(self) -> None:
        """It is answered, or the connection is gone."""
        client, self._client = self._client, None
        if client is not None:
            self._limiter.release(client)


def forwarding(limiter: ConnectionLimiter | None, peer: str) -> Forwarding | None:
    """None where the connection is its client's own."""
    if limiter is None or not forwarded.trusted(limiter.proxies, peer):
        return None
    return Forwarding(limiter, peer)
