"""A request under way: what the channel keeps of it until its answer went out, in its turn."""

from __future__ import annotations

from typing import Protocol

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from gopush.errors import ParameterError
from gopush.http.request import Request
from gopush.http.response import TEXT, Later, Renderer, Response, plain
from gopush.http.routing import Answered, Route

log = Logger()

FAILED = plain(500)


class Channel(Protocol):
    """What an exchange needs of its connection."""

    @property
    def renderer(self) -> Renderer:
        """Makes bytes of responses."""

    @property
    def stalled(self) -> bool:
        """Whether the client is slow to read."""

    def answered(self) -> None:
        """An exchange has (more of) its answer."""

    def settle_input(self) -> None:
        """Read, or read no more, as the exchanges want it."""

    def give_up(self) -> None:
        """Close at once: the answer cannot be completed."""


class Exchange:
    """One request and its answer; `done` once all of the answer is in `out`."""

    __slots__ = ("_channel", "_request", "_route", "done", "out")

    paused = False
    ended = True
    awaits_client = False

    def __init__(self, channel: Channel, request: Request, route: Route) -> None:
        self._channel = channel
        self._request = request
        self._route = route
        self.done = False
        self.out = b""

    def start(self) -> None:
        """Call the handler; the channel hears of a later answer by answered()."""
        self.answer_with(call(self._route, self._request))

    def answer_with(self, result: Answered) -> None:
        """Answer with what the handler has answered, or will."""
        if isinstance(result, Later):
            result.then(self._finish)
        elif isinstance(result, Deferred):
            result.addCallbacks(self._finish, self._failed)
        else:
            self._finish(result)

    def drained(self) -> None:
        """The client has read what was written: nothing to do."""

    def lost(self) -> None:
        """The connection is gone: an answer goes nowhere."""

    def _failed(self, failure: Failure) -> None:
        self._finish(failed(failure, self._request))

    def _finish(self, response: Response) -> None:
        self.out = self._channel.renderer.render(response, self._request)
        self.done = True
        self._channel.answered()


def call(route: Route, request: Request) -> Answered:
    """What the handler answers; a parameter error is answered 400, another error is logged and answered 500."""
    try:
        return route.handler(request)
    except ParameterError as wrong:
        return bad_request(wrong)
    except Exception:
        return failed(current_failure(), request)


def current_failure() -> Failure:
    """The exception that is being handled."""
    return Failure()  # type: ignore[no-untyped-call]


def failed(failure: Failure, request: Request) -> Response:
    """The answer in the place of the one that a handler failed to give."""
    if isinstance(failure.value, ParameterError):
        return bad_request(failure.value)
    log_failure(failure, request)
    return FAILED


def log_failure(failure: Failure, request: Request) -> None:
    """Tell of a handler's error; neither the query nor the body is named."""
    log.failure("{method} {path} failed", failure, method=request.method, path=request.path)


def bad_request(wrong: ParameterError) -> Response:
    """The answer to a request with a parameter that the handler cannot use."""
    return Response(400, TEXT, f"{wrong}\n".encode())
