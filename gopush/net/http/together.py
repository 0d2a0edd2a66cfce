"""The answers to several requests of one segment."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from twisted.internet.defer import Deferred

from gopush.net.http.exchange import call, failed
from gopush.net.http.request import Request
from gopush.net.http.response import AnyResponse, Paged, Promise, Response
from gopush.net.http.routes import Answered, Route
from gopush.net.http.shortcut import Found

if TYPE_CHECKING:
    from gopush.net.http.channel import HttpChannel


MAX_HELD_BYTES = 64 << 10


class ClosingRefusal(NamedTuple):
    """A refusal after which the connection is closed."""

    response: Response


class Together:
    """Answers in the order of the requests: all in one write where they are ready in one turn of the reactor."""

    __slots__ = ("_answers", "_channel", "_done", "_ending", "_left", "_scheduled", "_size", "_starting")

    def __init__(self, channel: HttpChannel) -> None:
        self._channel = channel
        self._answers: list[bytes] = []  # b"" for one that is not there yet
        self._left = self._done = self._size = 0
        self._ending = self._starting = self._scheduled = False

    def start(self, found: Sequence[Found]) -> int:
        """Have the requests answered, until there is much to read or a refusal ends the connection; where that was."""
        self._starting = True
        end = 0
        for index, (request, route, end) in enumerate(found):  # noqa: B007
            self._answers.append(b"")
            self._left += 1
            answered = ask(request, route)
            if isinstance(answered, ClosingRefusal):
                self._channel.site.counters.refuse(answered.response.status)
                request.connection = b"close"
                self._ending = True
                self._take(index, request, answered.response)
                break
            take(answered, partial(self._take, index, request), request)
            if self._size > MAX_HELD_BYTES:
                break
        self._starting = False
        self._go_on()
        return end

    def _take(self, index: int, request: Request, response: AnyResponse) -> None:
        site = self._channel.site
        response = site.complete(response, request)
        assert isinstance(response, Response)  # who answers more is asked alone
        self._answers[index] = rendered = site.renderer.render(response, request)
        self._size += len(rendered)
        self._left -= 1
        if not self._starting:
            self._go_on()

    def _go_on(self) -> None:
        if not self._left:
            self._channel.answered(self._ready(), self._ending)
        elif self._answers[self._done] and not self._scheduled:
            self._scheduled = True
            self._channel.site.clock.callLater(0, self._write)

    def _write(self) -> None:
        self._scheduled = False
        if self._left:
            self._channel.send(self._ready())

    def _ready(self) -> bytes:
        start = self._done
        while self._done < len(self._answers) and self._answers[self._done]:
            self._done += 1
        return b"".join(self._answers[start : self._done])


def ask(request: Request, route: Route) -> Answered | ClosingRefusal:
    """Have a request answered. A refusal ends the connection where twisted.web would not have read the body."""
    refusal = route.refuse(request)
    if refusal is None:
        return call(route, request)
    return ClosingRefusal(refusal) if request.body else refusal


def take(answered: Answered, taker: Callable[[Any], object], request: Request) -> None:
    """Have what a handler has answered taken, now or when it is there."""
    if isinstance(answered, (Response, Paged)):
        taker(answered)
    elif isinstance(answered, Promise):
        answered.then(taker)
    else:
        coming: Deferred[Any] = answered
        coming.addErrback(failed, request).addCallback(taker)
