"""One live peer, the kinds of calls that are made to it, and what ties a key to it while calls are unanswered."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, Protocol, TypeVar

from twisted.internet.defer import Deferred

from gopush.rpc.lane import Lane
from gopush.rpc.model import NodeInfo


class Service(Protocol):
    """What every peer can do."""

    def ping(self) -> Deferred[None]:
        """Answer."""

    def stop(self) -> object:
        """Let go of the connection."""


S = TypeVar("S", bound=Service)


class Call(Generic[S]):
    """A kind of call: how a batch of it is sent, and how long that may take.

    `ordered`: a key's calls keep their order. `moves`: what one peer failed is tried at the others. `most`: how many of
    them one batch may hold, where their answers are big.
    """

    __slots__ = ("most", "moves", "ordered", "send", "timeout")

    def __init__(
        self,
        send: Callable[[S, list[Any]], Deferred[list[Any]]],
        timeout: float,
        ordered: bool = False,
        moves: bool = True,
        most: int | None = None,
    ) -> None:
        self.send = send
        self.timeout = timeout
        self.ordered = ordered
        self.moves = moves
        self.most = most


class Peer(Generic[S]):
    """One live peer."""

    __slots__ = ("healthy", "info", "lanes", "service")

    def __init__(self, info: NodeInfo, service: S) -> None:
        self.info = info
        self.service = service
        self.healthy = True
        self.lanes: dict[tuple[Call[S], str], Lane] = {}


class Hold(Generic[S]):
    """The one peer (None: a pause before the next try) that has the unanswered calls about a key."""

    __slots__ = ("_calls", "_held", "_name", "peer")

    def __init__(self, held: dict[tuple[Call[S], str], Hold[S]], name: tuple[Call[S], str], peer: Peer[S] | None):
        self.peer = peer
        self._held = held
        self._name = name
        self._calls = 0

    def take(self) -> None:
        """One more call is under way."""
        self._calls += 1

    def release(self) -> None:
        """A call has ended; after the last one the key is free to go elsewhere."""
        self._calls -= 1
        if not self._calls:
            del self._held[self._name]
