"""`GET /health`: whether a process can do its work, found out by a real round trip (protocol.md, section 10)."""

from __future__ import annotations

import json
from collections.abc import Callable

from twisted.internet.defer import Deferred, TimeoutError, maybeDeferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from gopush.errors import UnavailableError
from gopush.net.clock import Clock, within
from gopush.net.http.request import Request
from gopush.net.http.response import Response
from gopush.net.http.routes import Route, Routes

JSON = "application/json;charset=utf-8"
CHECK_SECONDS = 1.0
"""How long a check may take, and how long its outcome holds."""

Check = Callable[[], "Deferred[None]"]

log = Logger()


class Health:
    """Answers from the outcome of `check`, which fails, saying why, where the process cannot do its work.

    However many ask, it is called once a second at most.
    """

    def __init__(self, clock: Clock, check: Check) -> None:
        self._clock = clock
        self._check = check
        self._answer: Response | None = None
        self._until = float("-inf")
        self._asking: list[Deferred[Response]] = []

    def routes(self) -> Routes:
        """The route that every port for people and machines of the house has."""
        return {"/health": {"GET": Route(self._health)}}

    def _health(self, _request: Request) -> Response | Deferred[Response]:
        if self._answer is not None and self._clock.seconds() < self._until:
            return self._answer
        asked: Deferred[Response] = Deferred()
        self._asking.append(asked)
        if len(self._asking) == 1:
            check = within(CHECK_SECONDS, maybeDeferred(self._check), self._clock)
            check.addCallbacks(lambda _: None, _reason).addCallback(self._checked)
        return asked

    def _checked(self, reason: str | None) -> None:
        self._answer = _response(reason)
        self._until = self._clock.seconds() + CHECK_SECONDS
        asking, self._asking = self._asking, []
        for asked in asking:
            asked.callback(self._answer)


def _reason(failure: Failure) -> str:
    if isinstance(failure.value, TimeoutError):
        return f"no answer within {CHECK_SECONDS:g} s"
    if not isinstance(failure.value, UnavailableError):
        log.failure("the check of this process's health failed", failure)
    return failure.getErrorMessage()


def _response(reason: str | None) -> Response:
    said = {"alive": True, "ready": reason is None} | ({} if reason is None else {"reason": reason})
    return Response(200 if reason is None else 503, JSON, json.dumps(said, separators=(",", ":")).encode())
