"""Which handler answers which path and method. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Protocol

from twisted.internet.defer import Deferred

from gopush.net.http.held import Held
from gopush.net.http.request import AnyResponse, Paged, Promise, Request, Response, explained, plain

Answered = Response | Paged | Promise | Held | Deferred[Response] | Deferred[AnyResponse]
Handler = Callable[[Request], Answered]

Refuse = Callable[[Request], "Response | None"]

TOO_LARGE = plain(413)
TOO_MANY = plain(429)
SMALL_BODY = 64 << 10


def welcome(_: Request) -> Response | None:
    """Refuse nobody."""
    return None


def too_many(request: Request) -> Response:
    """What a client hears that has all its connections."""
    return explained(TOO_MANY, request, "this client has as many connections as it may have")


@dataclass(frozen=True)
class Route:
    """A handler that is called with the whole request; a body of more than `limit` bytes is answered `too_large`.

    `refuse` is asked before the body is read; where it gives a response, that is the answer. `too_many` answers a
    client behind a proxy that has all its connections. `alone`: the answer may be large, Paged or Held, so the handler
    is called once all that the connection asked for before is sent. `head`: that of GET answers HEAD, too.
    """

    handler: Handler
    limit: int = SMALL_BODY
    too_large: Response = TOO_LARGE
    refuse: Refuse = welcome
    too_many: Callable[[Request], Response] = too_many
    alone: bool = False
    head: bool = True


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

    def leaving(self) -> None:
        """This process ends: nothing more of the body comes. Answer what is there, and finish."""

    def lost(self) -> None:
        """The connection is gone; whatever is still written goes nowhere."""


@dataclass(frozen=True)
class StreamRoute:
    """A handler that takes the body as it comes and answers, with status 200 and `content_type`, as it goes.

    `refuse` and `too_many` are as a Route's.
    """

    handler: Callable[[Request, Answer], Receiver]
    content_type: str
    refuse: Refuse = welcome
    too_many: Callable[[Request], Response] = too_many
    limit: ClassVar[int] = 1 << 63  # endless


AnyRoute = Route | StreamRoute
Routes = Mapping[str, Mapping[str, AnyRoute]]


def always(response: Response) -> Route:
    """The route of what is always answered the same."""
    return Route(lambda _: response, too_large=response)
