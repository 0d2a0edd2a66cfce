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

    `ordered`: a key's calls keep their order. `moves`: what one peer failed is tried at the others, and what it
    `refused`, as its answer tells. `most`: how many of them one batch may hold, where their answers are big.
    `long`: an answer may take as long again while it flows in.
    """

    __slots__ = ("long", "most", "moves", "ordered", "refused", "send", "timeout")

    def __init__(
        self,
        send: Callable[[S, list[Any]], Deferred[list[Any]]],
        timeout: float,
        ordered: bool = False,
        moves: bool = True,
        most: int | None = None,
        refused: Callable[[Any], bool] | None = None,
        long: bool = False,
    ) -> None:
        self.send = send
        self.timeout = timeout
        self.ordered = ordered
        self.moves = moves
        self.most = most
        self.refused = refused
        self.long = long


class Peer(Generic[S]):
    """One live peer. `told`: the log has that it is not healthy; it is not told of that again before `quiet_until`."""

    __slots__ = ("healthy", "info", "lanes", "quiet_until", "service", "told")

    def __init__(self, info: NodeInfo, service: S) -> None:
        self.info = info
        self.service = service
        self.healthy = True
        self.told = False
        self.quiet_until = float("-inf")
        self.lanes: dict[tuple[Call[S], str], Lane] = {}
