"""A request that is answered while its body still comes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gopush.http.exchange import Channel, current_failure, log_failure
from gopush.http.request import Request
from gopush.http.routing import Receiver, StreamRoute


class StreamExchange:
    """The exchange of a StreamRoute; the channel starts it once all earlier requests are answered.

    Towards the handler it is the Answer. `done` once all of the answer is in `out`; `ended` once the body is complete.
    """

    __slots__ = (
        "_channel",
        "_chunked",
        "_head",
        "_pieces",
        "_receiver",
        "_request",
        "_route",
        "done",
        "ended",
        "out",
        "paused",
    )

    def __init__(self, channel: Channel, request: Request, route: StreamRoute) -> None:
        self._channel = channel
        self._request = request
        self._route = route
        self._receiver: Receiver | None = None
        self._pieces: list[bytes] = []
        self._head = False
        self._chunked = True
        self.paused = False
        self.ended = False
        self.done = False
        self.out = b""

    # What the channel calls.

    @property
    def awaits_client(self) -> bool:
        """Whether it is the client's turn: to send more of the body."""
        return not (self.ended or self.paused)

    def start(self) -> None:
        """Call the handler and hand it what has come already."""
        try:
            self._receiver = self._route.handler(self._request, self)
        except Exception:
            self._failed()
            return
        pieces, self._pieces = self._pieces, []
        for piece in pieces:
            self._tell(self._receiver.received, piece)
        if self.ended:
            self._tell(self._receiver.ended)

    def feed(self, piece: bytes) -> None:
        """Take a piece of the body."""
        if self._receiver is None:
            self._pieces.append(piece)
        elif not self.done:
            self._tell(self._receiver.received, piece)

    def end(self) -> None:
        """The body is complete."""
        self.ended = True
        if self._receiver is not None and not self.done:
            self._tell(self._receiver.ended)

    def drained(self) -> None:
        """The client has read what was written."""
        if self._receiver is not None and not self.done:
            self._tell(self._receiver.drained)

    def lost(self) -> None:
        """The connection is gone."""
        if self._receiver is not None and not self.done:
            self.done = True
            self._receiver.lost()

    # What the handler calls: Answer.

    @property
    def stalled(self) -> bool:
        """See Answer."""
        return self._channel.stalled

    def write(self, data: bytes) -> None:
        """See Answer."""
        if not data or self.done:
            return
        self.out += self._begin() + (b"%x\r\n%b\r\n" % (len(data), data) if self._chunked else data)
        self._channel.answered()

    def finish(self) -> None:
        """See Answer."""
        if self.done:
            return
        self.out += self._begin() + (b"0\r\n\r\n" if self._chunked else b"")
        self.done = True
        self._channel.answered()

    def pause(self) -> None:
        """See Answer."""
        self.paused = True
        self._channel.settle_input()

    def resume(self) -> None:
        """See Answer."""
        self.paused = False
        self._channel.settle_input()

    def _begin(self) -> bytes:
        if self._head:
            return b""
        self._head = True
        self._chunked = self._request.version != "1.0"
        return self._channel.renderer.streamed_head(self._route.content_type, self._request)

    def _tell(self, method: Callable[..., None], *args: Any) -> None:
        try:
            method(*args)
        except Exception:
            self._failed()

    def _failed(self) -> None:
        log_failure(current_failure(), self._request)
        self.lost()
        self._channel.give_up()
