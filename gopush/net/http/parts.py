"""What the parts of an HTTP port are to each other, so that none has to import the one that it belongs to; counters."""

from __future__ import annotations

from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Any, Protocol

from gopush.net.clock import Clock, TurnLimit
from gopush.net.http.head import RequestReader
from gopush.net.http.held import Held
from gopush.net.http.request import Renderer, Request
from gopush.stats.counting import Family, counter, labelled


class HttpSite(Protocol):
    """What a connection has from its port (site.py)."""

    clock: Clock
    idle: float
    counters: HttpCounters
    renderer: Renderer
    reader: RequestReader
    heads: TurnLimit
    wheel: Any
    stopping: bool
    stop_by: float

    def opened(self, channel: Any) -> None:
        """A connection was made."""

    def closed(self, channel: Any) -> None:
        """It was lost."""

    def getResourceFor(self, request: Any) -> Any:
        """What answers requests for the path."""


class HttpConnection(Protocol):
    """What an answer (Owed) has from its connection (channel.py); an Exchange has all of that."""

    site: HttpSite
    stalled: bool
    deaf: bool

    @property
    def drain(self) -> Awaitable[None]:
        """Fires when the client has read what was written, or the connection is lost."""

    def answer(self, size: int) -> None:
        """An answer of so many bytes is there."""

    def hold(self, owed: Any, held: Held) -> None:
        """This answer comes when its handler gives it, or goes on and on."""

    def put(self, data: bytes) -> None:
        """Write what is a part of an answer."""

    def abort(self) -> None:
        """End now."""


CLOSED = Family("dropped_connections", "connections that the server closed by itself", "reason")


@dataclass(slots=True)
class HttpCounters:
    """Plain integers that only grow. `refused` by status: the door (401, 403, 429) has counters of its own besides.
    `requests` by route, as it is declared (b"" where there is none, or the request could not be read), and status."""

    requests: dict[tuple[bytes, int], int] = labelled("requests answered", "route", "status")
    received_bytes: int = counter("bytes that clients sent, without TLS")
    sent_bytes: int = counter("bytes of answers, without TLS; comets count the bytes of event streams")
    refused: dict[int, int] = labelled(
        "requests refused unread, by status", "status", keys=(400, 413, 414, 431), name="refused_requests"
    )
    idle_closed: int = CLOSED.of("idle", "nothing moved for too long")
    slow_closed: int = CLOSED.of(
        "slow", "the client did not read its answer; event streams that a comet closes do not count"
    )

    def answer(self, request: Request, status: int) -> None:
        """A request is answered so, or its answer begins."""
        key = request.route, status
        self.requests[key] = self.requests.get(key, 0) + 1

    def shown(self) -> dict[str, Any]:
        """As JSON has it."""
        by_route: dict[str, dict[int, int]] = {}
        for (route, status), number in self.requests.items():
            by_route.setdefault(route.decode(), {})[status] = number
        others = ("refused", "idle_closed", "slow_closed", "received_bytes", "sent_bytes")
        return {"requests": by_route} | {name: getattr(self, name) for name in others}

    def refuse(self, status: int) -> None:
        """A request was answered so and its connection closed, whatever was still to come of it."""
        self.refused[status] = self.refused.get(status, 0) + 1
