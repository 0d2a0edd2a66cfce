"""One live peer, and the kinds of calls that are made to it."""

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
