"""Which handler answers which path and method. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Protocol
from urllib.parse import unquote_to_bytes

from twisted.internet.defer import Deferred

from gopush.http.request import Request
from gopush.http.response import Later, Response, plain

Answered = Response | Later | Deferred[Response]
Handler = Callable[[Request], Answered]

Refuse = Callable[[Request], "Response | None"]

TOO_LARGE = plain(413)
SMALL_BODY = 64 << 10


def welcome(_: Request) -> Response | None:
    """Refuse nobody."""
    return None


@dataclass(frozen=True)
class Route:
    """A handler that is called with the whole request; a body of more than `limit` bytes is answered `too_large`.

    `refuse` is asked before the body is read; where it gives a response, that is the answer.
    """

    handler: Handler
    limit: int = SMALL_BODY
    too_large: Response = TOO_LARGE
    refuse: Refuse = welcome


class Answer(Protocol):
    """Where a streaming handler writes; it keeps itself from writing much while `stalled`."""

    @property
    def stalled(self) -> bool:
        """Whether the client is slow to read; Receiver.drained() is called when it has read."""

    def write(self, data: bytes) -> None:
        """Send a piece of the body of the answer."""

    def finish(self) -> None:
        """End the answer."""

    def pause(self) -> None:
        """Read no more of the request; what was read already (at most some 64 KiB) still arrives."""

    def resume(self) -> None:
        """Read on."""


class Receiver(Protocol):
    """What a streaming handler makes of the body of a request."""

    def received(self, piece: bytes) -> None:
        """Take a piece of the body."""

    def ended(self) -> None:
        """The body is complete."""

    def drained(self) -> None:
        """The client has read what was written."""

    def lost(self) -> None:
        """The connection is gone; whatever is still written goes nowhere."""


@dataclass(frozen=True)
class StreamRoute:
    """A handler that takes the body as it comes and answers, with status 200 and `content_type`, as it goes.

    `refuse` is as a Route's.
    """

    handler: Callable[[Request, Answer], Receiver]
    content_type: str
    refuse: Refuse = welcome
    limit: ClassVar[int] = 1 << 63  # endless


AnyRoute = Route | StreamRoute
Routes = Mapping[str, Mapping[str, AnyRoute]]


class RouteTable:
    """Finds routes; unknown paths and methods have routes too, which answer 404 and 405. HEAD is found as GET."""

    __slots__ = ("_methods", "_not_allowed")

    def __init__(self, routes: Routes) -> None:
        self._methods: dict[bytes, dict[bytes, AnyRoute]] = {}
        self._not_allowed: dict[bytes, Route] = {}
        for path, methods in routes.items():
            table = {method.encode(): route for method, route in methods.items()}
            if b"GET" in table:
                table.setdefault(b"HEAD", table[b"GET"])
            self._methods[path.encode()] = table
            allowed = ", ".join(sorted(method.decode() for method in table))
            self._not_allowed[path.encode()] = always(plain(405, ("Allow", allowed)))

    def find(self, path: bytes, method: bytes) -> AnyRoute:
        """The route of a path as it stands in the request line, without the query."""
        methods = self._methods.get(path)
        if methods is None:
            path = unquote_to_bytes(path)
            methods = self._methods.get(path)
        if methods is None:
            return _NOT_FOUND
        return methods.get(method) or self._not_allowed[path]


def always(response: Response) -> Route:
    """The route of what is always answered the same."""
    return Route(lambda _: response, too_large=response)


_NOT_FOUND = always(plain(404))
